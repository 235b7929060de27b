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


POISON = """
import os, signal, sys, time
from pscrub.result import making
drawn = making.draw_round

def poisoned(tree, made):
    if os.path.exists({flag!r}) and tree.hypothesis.name == "sign":
        if "--helps" not in sys.argv:
            while made.index == 0 and len(open({flag!r}).read()) < 1:
                time.sleep(0.05)
        elif made.index == 2:
            open({flag!r}, "a").write("x")
            os.kill(os.getpid(), signal.SIGKILL)
    return drawn(tree, made)

making.draw_round = poisoned
"""
"""What a study does whose third round kills the worker that draws it, as long as there is a file."""


def test_a_round_that_kills_workers_is_given_up_and_the_rest_goes_on(tmp_path: Path) -> None:
    """The command itself leaves it to its workers, and so lives to say which it was; run again, it draws it."""
    file, out, flag = tmp_path / "slow.py", tmp_path / "out", tmp_path / "flag"
    file.write_text(STUDY + POISON.format(flag=str(flag)))
    flag.write_text("")
    options = ("--draws", str(6 * ROUND), "--draws-only")
    process = start(file, out, (*options, "--workers", "2"))
    try:
        table, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 2, err
    assert flag.read_text() == "xx" and 1 <= err.count("ended by signal 9; another is started") <= 2
    last = err.splitlines()[-1]
    assert last.startswith("pscrub: hypothesis 'sign': workers ended while they were at work on it: process ")
    assert "; round 0-2, tried 2 times, last by process " in last and "'sign' (81,920 draws so far)" in last
    assert "(cut short)" in table and "nothing/at all" in table
    wait_for_end(out)
    names = [path.name for path in sorted(out.rglob("rounds/sign-*/0-*.nc"))]
    assert names == [f"0-{i}.nc" for i in (0, 1, 3, 4, 5)]
    flag.unlink()
    assert main(["run", str(file), *options, "--out", str(out)]) == 0
    assert main(["run", str(file), *options, "--out", str(tmp_path / "whole")]) == 0
    assert tell_runs_apart(out, tmp_path / "whole") == []


@pytest.mark.parametrize("kept", [True, False])
def test_a_round_in_which_a_node_fails_is_named_and_drawn_by_the_same_command_later(
    kept: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out, flag = tmp_path / "slow.py", tmp_path / "out", tmp_path / "flag"
    fails = f"""
import os
seen = []

def slow(out, y):
    if len(out) > 1000 and os.path.exists({str(flag)!r}):
        seen.append(len(out))
        if sum(seen) > 20000:
            raise ValueError("no more")
    return (out - y) ** 2
"""
    file.write_text(STUDY.replace("def study", fails + "\n\ndef study"))
    flag.write_text("")
    argv = ["run", str(file), "--draws", str(3 * ROUND), "--draws-only", *(["--out", str(out)] if kept else [])]
    assert main(argv) == 2
    table, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert last.startswith("pscrub: hypothesis 'sign': node 'f' fails on ") and "ValueError: no more" in last
    assert "; rounds 0-1, 0-2, tried 2 times, last by this process; hypothesis 'nothing/at all': " in last
    assert last.endswith("; kept: 'exact' (exact), 'sign' (16,384 draws so far)")
    assert "(cut short)" in table and "at all" not in table
    if kept:
        assert len(list(out.rglob("0-*.nc"))) == 1 and (out / "result.nc").exists() and not (out / "working").exists()
        flag.unlink()
        assert main(argv) == 0
        assert main([*argv[:-1], str(tmp_path / "whole")]) == 0
        assert tell_runs_apart(out, tmp_path / "whole") == []


def test_numbers_of_workers_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "specificity", "--workers", "0", "--out", str(tmp_path)]) == 2
    assert "--workers 0: expected N, threads:N, processes:N, ray or ray://HOST:PORT" in capsys.readouterr().err
    assert main(["run", "specificity", "--workers", "2"]) == 2
    assert "--workers 2 without --out" in capsys.readouterr().err
    assert main(["run", "specificity", "--tries", "0"]) == 2
    assert "tries is 0; expected 1 or more" in capsys.readouterr().err


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
