"""Runs that are killed, that share a folder, and that cannot write: finished rounds are there, and none twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pscrub import StudyResult
from pscrub.cli import main
from pscrub.estimate.stopping import ROUND
from pscrub.result import sharing
from pscrub.result.folder import RunFiles
from tests import kills
from tests.kills import STUDY, list_files, start, strip_times, tell_runs_apart

LOGGED = """
import os
from pscrub.result import making
real = making.draw_round

def draw(tree, made):
    with open({log!r}, "a") as file:
        file.write(f"{{tree.hypothesis.name}} {{made.seed, made.index}} {{os.getpid()}}\\n")
    return real(tree, made)

making.draw_round = draw
"""
"""What a study does that writes down each round as it is begun."""
DRAWS = ("--draws", str(6 * ROUND), "--draws-only")


def test_killed_runs_become_whole(tmp_path: Path) -> None:
    """Few kills; `make kills` does two hundred."""
    code = f"""
import random
from pathlib import Path
from tests.kills import STUDY, Tally, make_whole, run_killed, tell_runs_apart
folder, tally = Path({str(tmp_path)!r}), Tally()
file = folder / "slow.py"
file.write_text(STUDY)
whole, = make_whole(file, folder, (("--draws", "50000", "--draws-only", "--data-uncertainty"),))
faults, rng = [], random.Random(1)
for again in range(9):  # a run may be whole before it is killed twice
    run_killed(file, folder / f"out-{{again}}", whole, 2, 4, rng, tally)
    faults += tell_runs_apart(folder / f"out-{{again}}", whole.folder)
    if tally.kills >= 2:
        break
assert tally.kills >= 2 and tally.faults + faults == [], (tally, faults)
"""
    run_without_threads(code)


def test_runs_that_are_killed_in_the_middle_of_saves_become_whole(tmp_path: Path) -> None:
    """At a few steps; `make kills` does all."""
    run_without_threads(f"""
from pathlib import Path
from tests.kill_steps import kill_at_steps
killed, faults = kill_at_steps(Path({str(tmp_path)!r}), every=16)
assert sum(killed.values()) >= 6 and faults == [], (killed, faults)
""")


def run_without_threads(code: str) -> None:
    """Run what forks in a process of its own."""
    root = str(Path(kills.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=root)


def test_a_difference_between_runs_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "slow.py"
    file.write_text(STUDY)
    for name, draws in (("one", "3000"), ("other", "3002")):
        assert main(["run", str(file), "--draws", draws, "--draws-only", "--out", str(tmp_path / name)]) == 0
    (tmp_path / "one" / "left").write_text("")
    found = tell_runs_apart(tmp_path / "one", tmp_path / "other")
    assert len(found) == 4 and found[0].startswith("files: ['left']") and found[1] == "the results differ"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_what_is_there_is_written_and_the_status_says_why(sent: signal.Signals, tmp_path: Path) -> None:
    file, out = tmp_path / "slow.py", tmp_path / "out"
    file.write_text(STUDY)
    process = start(file, out, ("--draws", str(100 * ROUND), "--draws-only"))
    try:
        end = time.monotonic() + 60
        while not list(out.rglob("0-2.nc")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(sent)
        table, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + sent, err
    found = StudyResult.load(out)
    assert found.cut_short and found["exact"].scrubbed.exact and found["sign"].scrubbed.draws >= 3 * ROUND
    assert len(found["sign"].draws.rounds) == len(RunFiles(out).files_of("sign"))
    assert "(cut short)" in table and "The run was cut short" in (out / "report.html").read_text()
    assert {path.name for path in out.iterdir()} == {
        *("manifest.json", "study.nc", "rounds"),
        *("result.nc", "result.json", "table.md", "report.html"),
    }


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_a_folder(count: int, tmp_path: Path) -> None:
    file, out, log = tmp_path / "slow.py", tmp_path / "out", tmp_path / "log"
    file.write_text(STUDY + LOGGED.format(log=str(log)))
    processes = [start(file, out, DRAWS) for _ in range(count)]
    for process in processes:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    rounds = Counter(line.rpartition(" ")[0] for line in log.read_text().splitlines())
    assert len(rounds) == 12 and set(rounds.values()) == {1}  # none twice, none missing
    alone = tmp_path / "alone"
    assert main(["run", str(file), *DRAWS, "--out", str(alone)]) == 0
    assert tell_runs_apart(out, alone) == []


def test_rounds_that_another_is_at_work_on_are_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that lives: it ends while its rounds are waited for, and they are taken over."""
    file, out = tmp_path / "slow.py", tmp_path / "out"
    file.write_text(STUDY)
    code = f"""
import sys, time
from pathlib import Path
from pscrub.result.locks import Locks
from pscrub.result.folder import RunFiles
locks = Locks(Path({str(out)!r}) / "working")
slug = RunFiles({str(out)!r}).folder_of("sign").name
assert locks.take(f"{{slug}}-0-0")
print("ready", flush=True)
time.sleep(600)
"""
    root = str(Path(kills.__file__).parents[1])
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
    process = start(file, out, ("--draws", str(2 * ROUND), "--draws-only"))
    try:
        time.sleep(0.5)
        end = time.monotonic() + 60
        while len(list(out.rglob("rounds/*/0-*.nc"))) < 3 and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        assert process.poll() is None and not list(out.rglob("rounds/sign-*/0-0.nc"))
        assert main(["status", str(out)]) == 0
        told = capsys.readouterr().out
        assert f"process {holder.pid} on " in told and " drawing " in told
        holder.kill()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    finally:
        holder.kill()
        process.kill()
        holder.communicate()
    assert list(out.rglob("rounds/sign-*/0-0.nc")) and not (out / "working").exists()


def test_a_disk_that_is_full_costs_the_round_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "slow.py", tmp_path / "out"
    file.write_text(STUDY)
    argv = ["run", str(file), "--draws", str(3 * ROUND), "--draws-only", "--out"]
    real, written = sharing.write_record, list[Any]()

    def full(value: Any, path: Path, through: Path) -> None:
        written.append(path.name)
        if written.count("0-1.nc"):
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", no_space)
                real(value, path, through)
        real(value, path, through)

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sharing, "write_record", full)
        assert main([*argv, str(out)]) == 2
    assert re_line(capsys.readouterr().err, "cannot write to", "for 0-1.nc: No space left on device")
    assert [path.name for path in out.rglob("0-*.nc")] == ["0-0.nc"] and not (out / "working").exists()
    assert main([*argv, str(out)]) == 0 and main([*argv, str(tmp_path / "whole")]) == 0
    assert tell_runs_apart(out, tmp_path / "whole") == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("before", "after", "words"),
    [(None, "size=16m", "No space left on device"), ("ro", "rw,size=16m", "Read-only file system")],
)
def test_a_real_disk_that_is_full_or_cannot_be_written_any_more(
    before: str | None, after: str, words: str, count: int, disk: Path, tmp_path: Path
) -> None:
    """What was finished is there, and once there is room again the rest is drawn; two rounds and no more have room."""
    file, out = tmp_path / "slow.py", disk / "out"
    file.write_text(STUDY)
    options = ("--draws", str(4 * ROUND), "--draws-only")
    processes = [start(file, out, options) for _ in range(count)]
    if before is not None:
        wait_for_rounds(out, 1)
        subprocess.run(["mount", "-o", f"remount,{before}", str(disk)], check=True)
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2 and words in err.splitlines()[-1] and "Traceback" not in err, err
    kept = kills.read_finished(out)
    assert 1 <= len(kept) <= 4
    subprocess.run(["mount", "-o", f"remount,{after}", str(disk)], check=True)
    argv = ["run", str(file), *options, "--out"]
    assert main([*argv, str(out)]) == 0 and main([*argv, str(tmp_path / "whole")]) == 0
    assert kept.items() <= kills.read_finished(out).items()
    assert tell_runs_apart(out, tmp_path / "whole") == []


def test_a_run_into_a_disk_that_cannot_be_written_is_refused_before_the_work(
    disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slow.py").write_text("raise RuntimeError('work was begun')")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert main(["run", str(tmp_path / "slow.py"), "--draws", "10", "--out", str(disk / "out")]) == 2
    assert re_line(capsys.readouterr().err, f"cannot write to output folder '{disk / 'out'}': Read-only file system")


def wait_for_rounds(out: Path, count: int) -> None:
    """Return when so many rounds are there."""
    end = time.monotonic() + 60
    while len(list(out.rglob("rounds/*/0-*.nc"))) < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def re_line(err: str, *words: str) -> bool:
    """Whether the last line of standard error has all these words."""
    last = err.splitlines()[-1]
    return last.startswith("pscrub: ") and all(each in last for each in words)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "slow.py", tmp_path / "out"
    file.write_text(STUDY)

    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("pscrub.commands.running.load_study", lambda *_: pytest.fail("work was begun"))
        patch.setattr("pscrub.result.locks.tempfile.mkstemp", denied)  # as for a folder of another user
        assert main(["run", str(file), "--draws", "10", "--out", str(out)]) == 2
    assert re_line(capsys.readouterr().err, f"cannot write to output folder '{out}': Permission denied")


def test_a_report_is_made_of_what_a_killed_run_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "slow.py", tmp_path / "out"
    file.write_text(STUDY)
    assert main(["run", str(file), "--draws", str(2 * ROUND), "--draws-only", "--out", str(out)]) == 0
    whole = StudyResult.load(out)
    for name in ("result.nc", "result.json", "table.md", "report.html"):
        (out / name).unlink()
    before = list_files(out)
    capsys.readouterr()
    assert main(["report", str(out)]) == 0
    assert list_files(out) == before | {"result.nc", "result.json", "table.md", "report.html"}
    assert strip_times(StudyResult.load(out)) == strip_times(whole)
    RunFiles(out).file_of("sign", 0, 1).unlink()
    (out / "result.nc").unlink()
    assert main(["report", str(out)]) == 0
    assert StudyResult.load(out).cut_short and StudyResult.load(out)["sign"].scrubbed.draws == ROUND
