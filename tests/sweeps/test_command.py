"""The command that sweeps: killed and gone on with, shared by processes, watched, and refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import pscrub
from pscrub.cli import main
from pscrub.sweeps.folder import SweepFiles
from pscrub.sweeps.results import read_sweep
from pscrub.sweeps.status import LINES, find_sweep_status
from tests.kills import START, STUDY
from tests.result.test_cut_runs import LOGGED, disk  # noqa: F401 - a fixture
from tests.result.test_helpers import POISON
from tests.sweeps.test_sweeping import read_rounds, tell_sweeps_apart

ONCE = "draw.logs = True\nmaking.draw_round = real if hasattr(real, 'logs') else"
"""As the file of a study is read for each choice of parameters."""
DRAWS = ("--draws", "40000", "--draws-only")
GRID = ("-P", "scale=1,2", "--seeds", "0-1")


def write_study(file: Path, log: Path | None = None) -> Path:
    """A study that can be asked for at two scales, fails at a third, and is slow while the file given back is there."""
    flag = file.with_suffix(".flag")
    text = STUDY.replace("0.02", f"__import__('os').path.exists({str(flag)!r}) * 0.6")
    text = text.replace("def study():", "def study(scale: float = 1.0):")
    text = text.replace('"b": lambda x: 0.1 * x', '"b": lambda x: 0.1 * scale * x')
    text = text.replace(
        "    generator =", '    if scale == 3:\n        raise RuntimeError("too large")\n    generator ='
    )
    file.write_text(text + ("" if log is None else LOGGED.format(log=str(log)).replace("making.draw_round =", ONCE)))
    return flag


def wait_for(log: Path, lines: int, processes: list[subprocess.Popen[str]], pids: int = 1) -> None:
    """Return when so many rounds were begun, by so many processes."""
    end = time.monotonic() + 120
    while True:
        told = log.read_text().splitlines() if log.exists() else []
        if len(told) >= lines and len({line.split()[-1] for line in told}) >= pids:
            return
        assert time.monotonic() < end and None in [each.poll() for each in processes]
        time.sleep(0.01)


def begin(file: Path, out: Path, *options: str, grid: tuple[str, ...] = GRID) -> subprocess.Popen[str]:
    """A process of the command."""
    command = [sys.executable, "-c", START, "sweep", str(file), *grid, *DRAWS, "--out", str(out), *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(pscrub.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def sweep_here(file: Path, out: Path, *options: str) -> int:
    """The exit status of the command, run in this process."""
    return main(["sweep", str(file), *GRID, *DRAWS, "--out", str(out), *options])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The study, and a sweep of it that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    write_study(folder / "slow.py")
    assert sweep_here(folder / "slow.py", folder / "out") == 0
    return folder / "slow.py", folder / "out"


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_killed_goes_on_to_what_one_that_was_not_gives(
    sent: signal.Signals, whole: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, log = tmp_path / "slow.py", tmp_path / "log"
    flag = write_study(file, log)
    flag.touch()
    process = begin(file, tmp_path / "out")
    wait_for(log, 5, [process])
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[sent], err
    kept = read_rounds(tmp_path / "out")
    assert len(kept) >= 4 and "Traceback" not in err
    if sent != signal.SIGKILL:
        assert "Nobody is at work" in out and not (tmp_path / "out" / "working").exists()
        assert (tmp_path / "out" / "table.csv").exists()
    flag.unlink()
    assert sweep_here(file, tmp_path / "out") == 0
    assert tell_sweeps_apart(tmp_path / "out", whole[1]) == []
    assert (tmp_path / "out" / "table.csv").read_bytes() == (whole[1] / "table.csv").read_bytes()
    after = read_rounds(tmp_path / "out")
    assert all(after[path] == found for path, found in kept.items())
    drawn = Counter(line.rpartition(" ")[0] for line in log.read_text().splitlines())
    assert sum(drawn.values()) <= 24 + 1  # none twice but for what was in flight


@pytest.mark.parametrize("how", ["commands", "workers"])
def test_processes_that_share_a_sweep_draw_each_round_once(how: str, whole: tuple[Path, Path], tmp_path: Path) -> None:
    file, log = tmp_path / "slow.py", tmp_path / "log"
    flag = write_study(file, log)
    flag.touch()
    if how == "workers":
        processes = [begin(file, tmp_path / "out", "--workers", "2")]
    else:
        processes = [begin(file, tmp_path / "out") for _ in range(2)]
    wait_for(log, 2, processes, pids=2)
    flag.unlink()
    for process in processes:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    assert tell_sweeps_apart(tmp_path / "out", whole[1]) == []
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len(lines) == 24 and len({line[-1] for line in lines}) == 2  # and both had a part in it
    assert not (tmp_path / "out" / "working").exists()


def test_a_worker_that_is_killed_is_replaced(whole: tuple[Path, Path], tmp_path: Path) -> None:
    file, out, log = tmp_path / "slow.py", tmp_path / "out", tmp_path / "log"
    flag = write_study(file, log)
    flag.touch()
    process = begin(file, out, "--workers", "2")
    try:
        wait_for(log, 2, [process], pids=2)
        (worker,) = {int(line.split()[-1]) for line in log.read_text().splitlines()} - {process.pid}
        os.kill(worker, signal.SIGKILL)
        wait_for(log, 3, [process], pids=3)  # the command itself and both workers
        flag.unlink()
        _, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0 and f"process {worker}, ended by signal 9; another is started" in err, err
    assert tell_sweeps_apart(out, whole[1]) == [] and not (out / "working").exists()


def test_a_round_that_kills_workers_costs_its_point(tmp_path: Path) -> None:
    """The command itself leaves it to them, and so lives to say which it was; run again, it draws it."""
    file, out, flag = tmp_path / "slow.py", tmp_path / "out", tmp_path / "deadly"
    write_study(file)
    file.write_text(file.read_text() + POISON.format(flag=str(flag)))
    flag.write_text("")
    grid = ("-P", "scale=1")
    process = begin(file, out, "--workers", "2", grid=grid)
    try:
        told, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1 and flag.read_text() == "xx", err
    assert 1 <= err.count("ended by signal 9; another is started") <= 2
    assert "Points: 2 done, 0 running, 1 failed, 0 waiting." in told
    assert "hypothesis 'sign': workers ended while they were at work on it: process " in told and "; round 0-2" in told
    flag.unlink()
    argv = ["sweep", str(file), *grid, *DRAWS, "--out"]
    assert main([*argv, str(out)]) == 0 and main([*argv, str(tmp_path / "whole")]) == 0
    assert tell_sweeps_apart(out, tmp_path / "whole") == []


def test_a_disk_that_is_full_costs_what_has_no_room(
    whole: tuple[Path, Path],
    disk: Path,  # noqa: F811 - the fixture
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, out = tmp_path / "slow.py", disk / "out"
    write_study(file)
    assert sweep_here(file, out) in (1, 2)  # 2 if there is no room to say why a point failed
    assert "No space left on device" in capsys.readouterr().err
    kept = read_rounds(out)
    assert 1 <= len(kept) <= 3 and not (out / "working").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    assert sweep_here(file, out) == 0
    after = read_rounds(out)
    assert all(after[path] == found for path, found in kept.items())
    assert tell_sweeps_apart(out, whole[1]) == []


def test_what_is_done_running_and_failed_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out, log = tmp_path / "slow.py", tmp_path / "out", tmp_path / "log"
    write_study(file, log).touch()
    grid = ("-P", "scale=3,1", "--seeds", "0", "--hypothesis", "exact", "--hypothesis", "sign")
    process = begin(file, out, grid=grid)
    try:
        wait_for(log, 1, [process])
        assert main(["status", str(out)]) == 0
        told = capsys.readouterr().out
        assert "At work: process" in told and " 1 failed" in told and "RuntimeError" in told and "too large" in told
        states = {line.split()[-1] for line in told.splitlines() if line.startswith(" 1 ")}
        assert "running" in states and states <= {"running", "waiting", "done"}
        assert find_sweep_status(SweepFiles(out)).count()["running"] == 1
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_a_failure_has_an_exit_status_and_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "slow.py", tmp_path / "out"
    write_study(file)
    argv = ["sweep", str(file), "-P", "scale=3", "-P", "scale=1,2", "--draws", "100", "--out", str(out)]
    assert main(argv) == 1
    told = capsys.readouterr()
    assert "scale=3, the study failed: " in told.err and "too large" in told.err
    assert "Points: 6 done, 0 running, 1 failed, 0 waiting." in told.out and "Failed: " in told.out
    lines = (out / "table.csv").read_text().splitlines()
    assert len(lines) == 1 + 6 * 4 and lines[1].startswith("1,0,exact,")
    assert main(["status", str(out), "--watch"]) == 0
    (out / "table.csv").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "table.csv").read_text().splitlines() == lines


def test_sweeps_are_merged_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "slow.py"
    write_study(file)
    argv = ["sweep", str(file), "--draws", "100", "--seeds", "0,2-3", "--out"]
    for i in (1, 2):
        assert main([*argv, str(tmp_path / str(i)), "--shard", f"{i}/2"]) == 0
    assert main([*argv, str(tmp_path / "whole")]) == 0
    assert main(["merge", str(tmp_path / "1"), str(tmp_path / "2"), "--out", str(tmp_path / "both")]) == 0
    assert (tmp_path / "both" / "table.csv").read_bytes() == (tmp_path / "whole" / "table.csv").read_bytes()
    assert read_sweep(SweepFiles(tmp_path / "both")).status.is_whole


def test_many_points_are_shown_by_their_parameters(tmp_path: Path) -> None:
    file = tmp_path / "slow.py"
    write_study(file)
    argv = ["sweep", str(file), "--draws", "2", "--hypothesis", "sign", "--shard", "1/40", "--out", str(tmp_path / "o")]
    assert main([*argv, "--seeds", f"0-{LINES}", "-P", "scale=1,3"]) == 1
    status = find_sweep_status(SweepFiles(tmp_path / "o"))
    assert status.table().rows == (
        ("1", f"{LINES + 1}", "2", "0", "0", f"{LINES - 1}"),
        ("3", "not known yet", "0", "0", "1", "0"),
    )
    assert not status.is_whole and status.has_failed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-P", "scale=1,,2"], "-P scale=1,,2: a value is empty"),
        (["-P", "scale"], "-P scale: expected name=value, or name=value,value"),
        (["-P", "scale="], "a value is empty"),
        (["-P", "scale=1", "-P", "scale=1.0"], "two points would be the same: scale=1 and scale=1.0"),
        (["-P", "scales=1"], "has no parameter 'scales'; did you mean"),
        (["-P", "scale=big"], "parameter scale='big'"),
        (["--seeds", "1,x"], "--seeds 1,x: expected whole numbers with commas, or from-to"),
        (["--seeds", "4-1"], "--seeds 4-1"),
        (["--seeds", "1,0-2"], "seed 1 is there twice"),
        (["--shard", "3/2"], "--shard 3/2: expected i/n"),
        (["--workers", "0"], "--workers 0; expected 1 or more"),
        (["--draws", "0"], "draws"),
        (["--device", "abacus"], "unknown or unusable device 'abacus'"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path / "slow.py")
    assert main(["sweep", str(tmp_path / "slow.py"), "--out", str(tmp_path / "out"), *options]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == "" and line.startswith("pscrub: ") and words in line
    assert not (tmp_path / "out").exists()
