"""Runs that are killed: each leaves a whole result or none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pscrub
from pscrub import StudyResult
from pscrub.estimate.stopping import ROUND

FILE = """
import sys, time, torch
sys.path.insert(0, {tests!r})
from test_result import study as made

def study():
    found = made()
    slow = found.hypotheses[2].graph.nodes["f"]
    real = slow.fn
    def fn(out, y):
        if len(y) > 200:  # not while the study is checked
            time.sleep(0.02)
        return real(out, y)
    object.__setattr__(slow, "fn", fn)
    return found
"""


@pytest.mark.parametrize(("kill", "after"), [(signal.SIGINT, 0.0), (signal.SIGTERM, 0.2), (signal.SIGKILL, 0.0)])
def test_a_run_that_is_ended_leaves_a_result_or_none(kill: signal.Signals, after: float, tmp_path: Path) -> None:
    file, out = tmp_path / "slow.py", tmp_path / "out"
    file.write_text(FILE.format(tests=str(Path(__file__).parent)))
    # Heard even if the tests were started in the background, where interrupts are ignored.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from pscrub.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "run", str(file), "--draws", str(40 * ROUND), "--out", str(out)]
    root = str(Path(pscrub.__file__).parents[1])
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    try:
        end = time.monotonic() + 60
        while not (out / "result.nc").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(after)
        process.send_signal(kill)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    found = StudyResult.load(out)  # it was there when the process was killed
    assert found.cut_short and found["exact"].scrubbed.exact
    assert process.returncode == (-signal.SIGKILL if kill == signal.SIGKILL else 130), err
    for name in ("result.json", "table.md"):
        if (out / name).exists():
            text = (out / name).read_text()
            assert json.loads(text)["cut_short"] if name.endswith("json") else "exact" in text
    if kill != signal.SIGKILL:
        names = {path.name for path in out.iterdir()}
        assert names == {"result.nc", "result.json", "table.md", "report.html"}
        assert "The run was cut short" in (out / "report.html").read_text()
