"""Progress that is shown: a line that is updated on a terminal and in a notebook, lines that stay in a log."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

import pscrub
from pscrub import progress as module
from pscrub import scrub, shown
from pscrub.studies import load


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def tell(monkeypatch: pytest.MonkeyPatch, out: io.StringIO) -> str:
    """What is written of three things that are told, a quarter of a second after one another, and of a fault."""
    now = 100.0
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(module.time, "monotonic", lambda: now)

    def work() -> None:
        nonlocal now
        with shown() as progress:
            assert "begun" in out.getvalue()  # at once
            for done in (1_000, 2_000, 3_000):
                now += 0.25 if out.isatty() else 7
                progress("drawing", done, 4_000)
                progress("too soon", 0, 1)
            raise ValueError("it ends")

    with pytest.raises(ValueError, match="it ends"):
        work()
    return out.getvalue()


def test_a_terminal_has_one_line_which_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = tell(monkeypatch, Terminal()).split("\r\033[K")
    assert lines[1:3] == ["begun", "drawing 1,000/4,000, 0 s"] and lines[-2:] == ["drawing 3,000/4,000, 1 s", ""]


def test_a_log_has_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tell(monkeypatch, io.StringIO()) == "begun\ndrawing 2,000/4,000, 14 s\n"


def test_what_a_run_tells_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UPDATED", 0.0)
    monkeypatch.setattr(sys, "stderr", out := Terminal())
    with shown() as progress:
        scrub(load("specificity", {}), draws=100, exact=False, progress=progress)
    assert " 100/100, " in out.getvalue() and out.getvalue().endswith("\r\033[K")


def test_a_notebook_has_one_line_which_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel of its own."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(pscrub.__file__).parents[1]), *sys.path]))
    code = """
import time
from IPython.display import DisplayHandle
from pscrub import shown
seen, real = [], DisplayHandle.update

def update(handle, data, **options):
    seen.append(data["text/plain"])
    real(handle, data, **options)

DisplayHandle.update = update
with shown() as progress:
    time.sleep(0.3)
    progress("drawing", 1, 2)
print(seen)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook).execute()
    line, printed = notebook.cells[0].outputs
    assert line.output_type == "display_data" and line.data == {"text/plain": ""}
    assert printed.text == "['begun', 'drawing 1/2, 0 s', '']\n"
