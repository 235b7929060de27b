"""Workers: processes that a command starts, which share its folder, and end with it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from pscrub.cli import main
from pscrub.estimate.stopping import ROUND
from pscrub.result.locks import find_owners
from pscrub.workers import Helpers, share_threads
from tests.kills import STUDY, start, tell_runs_apart
from tests.result.test_cut_runs import LOGGED

OPTIONS = ("--draws", str(20 * ROUND), "--draws-only")


def write_study(file: Path, log: Path) -> Path:
    """A study that takes its time as long as there is a file, whose path is given back."""
    flag = file.with_suffix(".flag")
    flag.write_text("")
    slow = f"__import__('os').path.exists({str(flag)!r}) * 0.5"
    file.write_text(STUDY.replace("0.02", slow) + LOGGED.format(log=str(log)))
    return flag


def wait_for_two(out: Path, log: Path) -> tuple[int, int]:
    """Two processes once both are drawing."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        pids = {int(line.split()[-1]) for line in log.read_text().splitlines()} if log.exists() else set()
        alive = [owner.pid for owner in find_owners(out / "working") if owner.pid in pids]
        if len(alive) == 2:
            return alive[0], alive[1]
        time.sleep(0.02)
    pytest.fail("no second process came")


def wait_for_end(out: Path) -> None:
    """Return when nobody is at work any more."""
    end = time.monotonic() + 60
    while find_owners(out / "working"):
        assert time.monotonic() < end, "processes are left"
        time.sleep(0.05)


def test_workers_draw_what_one_process_would(tmp_path: Path) -> None:
    """One of them is killed on the way: its round is drawn by another."""
    file, out, log = tmp_path / "slow.py", tmp_path / "out", tmp_path / "log"
    flag = write_study(file, log)
    process = start(file, out, (*OPTIONS, "--workers", "2"))
    try:
        (worker,) = {*wait_for_two(out, log)} - {process.pid}
        os.kill(worker, signal.SIGKILL)
        flag.unlink()
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    finally:
        process.kill()
    wait_for_end(out)
    assert main(["run", str(file), *OPTIONS, "--out", str(tmp_path / "whole")]) == 0
    assert tell_runs_apart(out, tmp_path / "whole") == []


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_command_that_started_them(sent: signal.Signals, tmp_path: Path) -> None:
    file, out, log = tmp_path / "slow.py", tmp_path / "out", tmp_path / "log"
    write_study(file, log)
    process = start(file, out, ("--draws", str(400 * ROUND), "--draws-only", "--workers", "2"))
    try:
        wait_for_two(out, log)
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (143 if sent == signal.SIGTERM else -9), err
    wait_for_end(out)


def test_numbers_of_workers_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "specificity", "--workers", "0", "--out", str(tmp_path)]) == 2
    assert "--workers 0; expected 1 or more" in capsys.readouterr().err
    assert main(["run", "specificity", "--workers", "2"]) == 2
    assert "--workers without --out" in capsys.readouterr().err


def test_what_a_helper_that_fails_said_last_is_told() -> None:
    code = "import sys; print('first', file=sys.stderr); print('last', file=sys.stderr); sys.exit(2)"
    helpers = Helpers([sys.executable, "-c", code], 2, 1)
    helpers.start()
    time.sleep(0.1)
    while any(process.poll() is None for process, _ in helpers._running):
        time.sleep(0.01)
    assert helpers.stop() == ["last", "last"] and helpers.stop() == []


def test_a_helper_that_does_not_stop_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pscrub.workers.PATIENCE", 0.2)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(end='', flush=True); time.sleep(600)"
    )
    helpers = Helpers([sys.executable, "-c", code], 1, 1)
    helpers.start()
    time.sleep(1.0)
    ((process, _),) = helpers._running
    assert helpers.stop() == [] and process.returncode == -signal.SIGKILL


def test_threads_are_shared_and_given_back() -> None:
    before = torch.get_num_threads()
    with share_threads(3) as share:
        assert share == max(1, before // 3) == torch.get_num_threads()
    assert torch.get_num_threads() == before
