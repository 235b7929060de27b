"""Runs that are killed at random moments, gone on with until they are whole, and held against one that was not.

    python -m tests.kills [--kills 200] [--processes 1,2,4] [--seed 0]

Processes of one command share a folder; each is sent SIGKILL, SIGINT or SIGTERM after a random time, from its start on.
One in seven is a command that starts Python and loads torch; the others are forked from a process that has them loaded,
so that most kills meet a run at its work. After each, whatever had been finished has to be there as it was. When a run
is whole, its result, rounds and files have to be those of a run that nobody killed, bit for bit. The table at the end
says what was killed, and how it ended.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import pscrub
from pscrub import StudyResult
from pscrub.cli import main
from pscrub.result.folder import RunFiles

STUDY = """
import time
import torch
from pscrub import Claim, Dataset, Graph, Hypothesis, Study

def slow(out, y):
    if len(out) > 1000:  # not while the study is checked
        time.sleep(0.02)
    return (out - y) ** 2

def study():
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(200, generator=generator, dtype=torch.float64) for _ in range(2))
    data = Dataset({"x": x, "y": x + 0.3 * noise, "half": x > 0})
    functions = {"a": lambda x: x, "b": lambda x: 0.1 * x, "out": lambda a, b: a + b, "f": slow}
    graph = Graph.of(functions, ["x", "y"], "f")
    label = Claim("y", "y")
    claims = {
        "exact": [label, Claim("out", "exact")],
        "sign": [label, Claim("out", "half", reads=[Claim("a", "half")])],
        "nothing/at all": [label],
    }
    return Study("slow", [Hypothesis(n, graph, data, Claim("f", reads=r)) for n, r in claims.items()], by=["half"])
"""
WAYS = (
    ("--draws", "90000", "--draws-only", "--data-uncertainty"),
    ("--until-width", "2.5", "--draws-only"),
)
"""Options of the runs, taken in turn."""
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
HEARD = 0.3
"""The share of a whole run's time after which a process that starts Python is sure to end as the command says."""
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from pscrub.cli import main; sys.exit(main())"
)
"""Heard even if the tests were started in the background, where interrupts are ignored."""


def start(file: Path, out: Path, options: tuple[str, ...]) -> subprocess.Popen[str]:
    """A process of the command."""
    root = str(Path(pscrub.__file__).parents[1])
    command = [sys.executable, "-c", START, "run", str(file), *options, "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


class Forked:
    """A process of the command, made from this one, in which everything is loaded; as far as needed, as a Popen is.

    Args:
        file: the study.
        out: the folder.
        options: of the command.
    """

    def __init__(self, file: Path, out: Path, options: tuple[str, ...]) -> None:
        self.told = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read when the process has ended
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        status = 70
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(self.told.fileno(), 2)
            self.begin()
            status = main(["run", str(file), *options, "--out", str(out)])
            self.end()
        except KeyboardInterrupt:  # before the command had begun, or after it had ended
            status = 130
        finally:
            os._exit(status)

    def begin(self) -> None:
        """Called in the process before its work."""

    def end(self) -> None:
        """Called in the process after it."""

    def poll(self) -> int | None:
        """How it ended, if it has."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, sent: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, sent)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait until it ends: what it wrote on standard error, second."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("run", timeout)
            time.sleep(0.01)
        self.told.seek(0)
        err = self.told.read()
        self.told.close()
        return "", err


def list_files(folder: Path) -> set[str]:
    """All files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def read_finished(folder: Path) -> dict[str, bytes]:
    """The finished rounds of a folder, each having been read as one."""
    files, found = RunFiles(folder), dict[str, bytes]()
    if files.is_run:
        for name in files.manifest.names:
            for _, _, path in files.files_of(name):
                files.read_round(name, path)
                found[str(path)] = path.read_bytes()
    return found


def strip_times(result: StudyResult) -> StudyResult:
    """The result without what tells how long it took."""
    results = tuple(replace(each, seconds={}) for each in result.results)
    return replace(result, results=results, seconds={}, started="")


def tell_runs_apart(folder: Path, whole: Path) -> list[str]:
    """In what two whole runs differ: results, rounds and files."""
    faults = []
    if list_files(folder) != list_files(whole):
        faults.append(f"files: {sorted(list_files(folder) ^ list_files(whole))}")
    if strip_times(StudyResult.load(folder)) != strip_times(StudyResult.load(whole)):
        faults.append("the results differ")
    one, other = RunFiles(folder), RunFiles(whole)
    for name in other.manifest.names:
        rounds: list[Any] = []
        for files in (one, other):
            read = [files.read_round(name, path) for _, _, path in files.files_of(name)]
            rounds.append([replace(each, seconds={}) for each in read])
        if rounds[0] != rounds[1]:
            faults.append(f"the rounds of '{name}' differ")
    return faults


@dataclass
class Tally:
    """What was done, and what was found wrong.

    Args:
        killed: (processes, signal, how it ended) -> times.
        runs: that were made whole.
        faults: what was wrong.
    """

    killed: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    runs: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How many."""
        return sum(self.killed.values())


@dataclass(frozen=True)
class Whole:
    """A run that nobody kills.

    Args:
        folder: of it.
        options: of the command.
        forked: seconds that it takes where everything is loaded.
        started: seconds that it takes from the start of Python.
    """

    folder: Path
    options: tuple[str, ...]
    forked: float
    started: float


def run_killed(file: Path, out: Path, whole: Whole, count: int, kills: int, rng: random.Random, tally: Tally) -> None:
    """Kill processes that share a folder until so many more were, or what they run is whole; then make it whole."""
    goal = tally.kills + kills
    while tally.kills < goal:
        before = read_finished(out)
        loads = rng.random() < 1 / 7
        last = whole.started if loads else whole.forked
        begun, processes = time.monotonic(), list[Any]()
        for _ in range(count):
            processes.append(start(file, out, whole.options) if loads else Forked(file, out, whole.options))
        for moment, i in sorted((rng.uniform(0, last), i) for i in range(count)):
            time.sleep(max(0.0, begun + moment - time.monotonic()))
            sent = rng.choice(SIGNALS) if processes[i].poll() is None else None
            if sent is not None:
                processes[i].send_signal(sent)
            _, err = processes[i].communicate(timeout=300)
            status = processes[i].returncode
            if sent is None:
                tally.faults += [f"status {status} of a process that nobody killed: {err}"] * (status != 0)
                continue
            right = {signal.SIGKILL: {-9, 0}, signal.SIGINT: {130, 0}, signal.SIGTERM: {143, 0}}[sent]
            if not tell_owed(out):  # the command had ended, and Python was about to
                right |= {-sent}
            heard = moment > (HEARD * whole.started if loads else 0.1 * whole.forked)
            if heard and (status not in right or "Traceback" in err):
                tally.faults.append(f"status {status} after {sent.name} at {moment:.2f} s: {err}")
            tally.killed[count, sent.name, "whole" if status == 0 else "cut short"] += 1
        after = read_finished(out)
        lost = [path for path, content in before.items() if after.get(path) != content]
        if lost:
            tally.faults.append(f"finished rounds lost or changed: {lost}")
        if not tell_owed(out):
            break
    process = Forked(file, out, whole.options)
    _, err = process.communicate(timeout=300)
    if process.returncode:
        tally.faults.append(f"status {process.returncode} of the last command: {err}")
    tally.runs += 1


def tell_owed(out: Path) -> bool:
    """Whether a run is not whole yet."""
    return not (out / "result.nc").exists() or StudyResult.load(out).cut_short


def make_whole(file: Path, folder: Path, ways: tuple[tuple[str, ...], ...] = WAYS) -> list[Whole]:
    """Runs that nobody kills, one for each way of running."""
    found = []
    for i, options in enumerate(ways):
        out, times = folder / f"whole-{i}", list[float]()
        assert main(["run", str(file), *options, "--out", str(out)]) == 0  # loads all that processes are forked with
        for begin in (Forked, start):
            again, since = folder / f"timed-{i}-{begin.__name__}", time.monotonic()
            process = begin(file, again, options)
            _, err = process.communicate(timeout=300)
            times.append(time.monotonic() - since)
            if process.returncode or tell_runs_apart(again, out):
                raise RuntimeError(f"a run that nobody killed ended with {process.returncode}: {err}")
            shutil.rmtree(again)
        found.append(Whole(out, options, *times))
    return found


def kill_many(folder: Path, kills: int, processes: list[int], seed: int) -> Tally:
    """So many kills, in runs with these numbers of processes in turn."""
    file, tally, rng = folder / "slow.py", Tally(), random.Random(seed)
    file.write_text(STUDY)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        whole = make_whole(file, folder)
    turn = 0
    while tally.kills < kills:
        way, count = whole[turn % len(whole)], processes[turn // len(whole) % len(processes)]
        out, known = folder / f"killed-{turn}", len(tally.faults)
        run_killed(file, out, way, count, min(kills - tally.kills, 8), rng, tally)
        tally.faults += [f"run {turn}: {fault}" for fault in tell_runs_apart(out, way.folder)]
        shutil.rmtree(out)
        turn += 1
        print(f"{tally.kills} kills, {tally.runs} runs", file=sys.stderr, flush=True)
        for fault in tally.faults[known:]:
            print(fault, file=sys.stderr, flush=True)
    return tally


def run() -> int:
    """0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # those that torch has begun are not there in a forked process, which waits for them
    with tempfile.TemporaryDirectory() as folder:
        processes = [int(each) for each in arguments.processes.split(",")]
        tally = kill_many(Path(folder), arguments.kills, processes, arguments.seed)
    print("| processes | signal | ended | kills |\n| ---: | --- | --- | ---: |")
    for (count, name, ended), times in sorted(tally.killed.items()):
        print(f"| {count} | {name} | {ended} | {times} |")
    print(f"\n{tally.kills} kills, {tally.runs} runs made whole, {len(tally.faults)} faults.")
    for fault in tally.faults:
        print(fault)
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(run())
