"""Workers by name: threads, processes and Ray, with the numbers of one process, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import pscrub
from pscrub import StudyError, StudyResult, scrub
from pscrub.cli import main
from pscrub.estimate import stopping
from pscrub.estimate.stopping import ROUND
from pscrub.result.manifest import Manifest
from pscrub.result.pools import RayExecutor, read_workers
from tests.kills import STUDY, start, tell_runs_apart
from tests.result.test_crews import WAYS, Trouble, assert_same, make_study

OPTIONS = ("--draws", str(2 * ROUND + 10), "--draws-only")
with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'pscrub[ray]'")


def run_apart(code: str, *argv: str, **environment: str) -> str:
    """What a process prints that runs some code."""
    root = str(Path(pscrub.__file__).parents[1])
    paths = os.pathsep.join(each for each in (root, os.environ.get("PYTHONPATH", "")) if each)
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


RUN = "import sys; from pscrub.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize("workers", ["threads:2", "processes:2"])
def test_pools_give_the_numbers_of_one_process(
    workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a folder, of which the other half is there; without one nothing is written."""
    file, whole = tmp_path / "study.py", tmp_path / "whole"
    file.write_text(STUDY + "\nprint('printed')\n")
    assert main(["run", str(file), *OPTIONS, "--out", str(whole)]) == 0
    one = capsys.readouterr().out
    run = ["run", str(file), *OPTIONS, "--workers", workers]
    assert main([*run, "--shard", "1/2", "--out", str(tmp_path / "half")]) == 0
    capsys.readouterr()
    assert main([*run, "--out", str(tmp_path / "half")]) == 0
    assert capsys.readouterr().out == one
    assert tell_runs_apart(tmp_path / "half", whole) == []


def test_what_a_study_prints_in_processes_is_no_part_of_the_answer(tmp_path: Path) -> None:
    file = tmp_path / "study.py"
    file.write_text(STUDY.replace("        time.sleep(0.02)", "        print('printed')"))
    argv = ["run", str(file), "--draws", str(ROUND), "--draws-only", "--json"]
    assert run_apart(RUN, *argv, "--workers", "processes:1").startswith("{")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_processes_of_a_pool_end_with_the_command(sent: signal.Signals, tmp_path: Path) -> None:
    file, out, pids = tmp_path / "slow.py", tmp_path / "out", tmp_path / "pids"
    slow = f"open({str(pids)!r}, 'a').write(f'{{__import__(\"os\").getpid()}} ') and 0.3"
    file.write_text(STUDY.replace("0.02", slow))
    process = start(file, out, ("--draws", str(400 * ROUND), "--draws-only", "--workers", "processes:2"))
    try:
        end = time.monotonic() + 120
        while not list(out.rglob("sign*/0-2.nc")) and time.monotonic() < end:
            time.sleep(0.05)
        workers = {int(each) for each in pids.read_text().split()} - {process.pid}
        process.send_signal(sent)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (130 if sent == signal.SIGINT else -9)
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end, "workers are left"
        time.sleep(0.05)
    if sent == signal.SIGINT:
        assert StudyResult.load(out).cut_short and not (out / "working").exists()


def test_threads_of_torch_change_nothing_that_is_written(tmp_path: Path) -> None:
    """Weights that are multiplied while a study is built are the same too, and so is their hash."""
    argv = ["run", "max_of_k", "--draws", "3000", "--draws-only", "--out"]
    for threads in ("1", "4"):
        run_apart(RUN, *argv, str(tmp_path / threads), OMP_NUM_THREADS=threads)
    assert Manifest.read(tmp_path / "1") == Manifest.read(tmp_path / "4")
    assert tell_runs_apart(tmp_path / "1", tmp_path / "4") == []


def test_seven_shards_merged_are_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a folder of its own, as where machines share nothing; and in one that all share."""
    monkeypatch.setattr(stopping, "ROUND", 200)
    file = tmp_path / "study.py"
    file.write_text(STUDY)
    run = ["run", str(file), "--draws", "1400", "--draws-only"]
    for i in range(1, 8):
        assert main([*run, "--shard", f"{i}/7", "--out", str(tmp_path / f"part{i}")]) == 0
        assert main([*run, "--shard", f"{i}/7", "--out", str(tmp_path / "shared")]) == 0
    names = {path.name for path in (tmp_path / "shared" / "rounds").rglob("0-*.nc")}
    assert names == {f"0-{index}.nc" for index in range(7)}
    parts = [str(tmp_path / f"part{i}") for i in range(1, 8)]
    assert main(["merge", *parts, "--out", str(tmp_path / "merged")]) == 0
    assert main([*run, "--out", str(tmp_path / "whole")]) == 0
    assert tell_runs_apart(tmp_path / "merged", tmp_path / "whole") == []
    assert tell_runs_apart(tmp_path / "shared", tmp_path / "whole") == []


@pytest.mark.parametrize("text", ["", "two", "threads", "threads:0", "processes:-1", "dask", "0"])
def test_workers_that_are_none(text: str) -> None:
    with pytest.raises(StudyError, match=r"expected N, threads:N, processes:N, ray or ray://HOST:PORT"):
        read_workers(text)


def test_without_ray_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pscrub.result.pools.find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"--workers ray://a:1: Ray is not installed; pip install 'pscrub\[ray\]'"):
        read_workers("ray://a:1")


# Ray, in a process of its own, as it leaves warnings and threads in one


RAY = """
import sys, warnings
import ray
from pscrub import scrub
from pscrub.result.pools import RayExecutor
from tests.result.test_pools import {name}
with RayExecutor(num_cpus=2) as executor:
    {name}(executor, *sys.argv[1:])
assert not ray.is_initialized()
"""


def started_with(token: str) -> list[int]:
    """Processes, Ray's servers and workers among them, in whose environment a word is."""
    found = list[int]()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [int(path.parent.name)] * (token.encode() in path.read_bytes())
        except OSError:  # another's, or gone
            continue
    return found


def run_with_ray(code: str, *argv: str) -> None:
    """Run a process that begins Ray, and see that it leaves none."""
    token = uuid.uuid4().hex
    run_apart(code, *argv, OMP_NUM_THREADS="1", PSCRUB_TEST=token)
    end = time.monotonic() + 20
    while left := started_with(token):
        assert time.monotonic() < end, f"processes are left: {left}"
        time.sleep(0.1)


@with_ray
def test_ray_gives_the_numbers_of_one_process() -> None:
    """Started here with two workers, and stopped."""
    run_with_ray(RAY.format(name="compare_with_ray"))


def compare_with_ray(executor: RayExecutor) -> None:
    assert executor._max_workers == 2
    for way in ("draws", "population"):
        assert_same(scrub(make_study(), **WAYS[way], workers=executor), scrub(make_study(), **WAYS[way]))


@with_ray
def test_a_worker_of_ray_that_dies_costs_nothing_and_a_node_that_raises_is_named(tmp_path: Path) -> None:
    run_with_ray(RAY.format(name="fail_with_ray"), str(tmp_path / "trouble"))


def fail_with_ray(executor: RayExecutor, path: str) -> None:
    file = Path(path)

    def study(kills: bool) -> Any:
        trouble = Trouble(file, kills=False)
        if kills:

            def trouble(_: Any) -> None:
                if file.exists():
                    file.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)

        return make_study(trouble)

    whole = scrub(make_study(), **WAYS["draws"])
    file.write_text("")
    assert_same(scrub(study(True), **WAYS["draws"], workers=executor), whole)
    assert not file.exists()
    file.write_text("x" * 100)
    with pytest.raises(pscrub.RoundError) as caught:
        scrub(study(False), **WAYS["draws"], workers=executor)
    assert "node 'f' fails on" in caught.value.faults[0] and "last by process " in caught.value.faults[0]


@with_ray
def test_ray_by_name(tmp_path: Path) -> None:
    file, whole = tmp_path / "study.py", tmp_path / "whole"
    file.write_text(STUDY)
    assert main(["run", str(file), *OPTIONS, "--out", str(whole)]) == 0
    run_with_ray(RUN, "run", str(file), *OPTIONS, "--workers", "ray", "--out", str(tmp_path / "ray"))
    assert tell_runs_apart(tmp_path / "ray", whole) == []
