"""Every notebook's source runs whole, and the notebook beside it is that source, run."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

from pscrub.studies import EXTRAS, smollm2
from pscrub.studies.curves import model as hed

EXTRA = {"smollm2": (smollm2.is_smollm2_there, smollm2.INSTALL), "curves": (hed.is_hed_there, hed.INSTALL)}
"""Name of an extra -> whether it is there, and how to install it."""
ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
each_notebook = pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])


def test_there_are_notebooks() -> None:
    assert SOURCES


@each_notebook
def test_the_source_runs(source: Path) -> None:
    """As a script, with no screen; its assertions on the numbers are its last cell."""
    if source.stem in EXTRAS:
        is_there, install = EXTRA[EXTRAS[source.stem]]
        if not is_there():
            pytest.skip(install)
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, source.name], cwd=source.parent, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    last = [cell.source for cell in jupytext.read(source).cells if cell.cell_type == "code"][-1]
    assert "assert " in last


@each_notebook
def test_the_notebook_is_in_step(source: Path) -> None:
    """`make notebooks` was run after the last change of the source: same cells, each with what it gave, no error."""
    beside = source.with_suffix(".ipynb")
    assert beside.exists(), f"{beside.name} is missing: make notebooks"
    notebook = jupytext.read(beside)
    written = [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells]
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == written, (
        f"{beside.name} is old: make notebooks"
    )
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
