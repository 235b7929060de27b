"""Runs that are killed at each step that they take on the disk, in the middle of saves too, and gone on with.

    python -m tests.kill_steps [--every 1]

A run is counted first: each time it makes, links, moves or removes a file or a folder, or has one written to the disk,
is a step. Then a run is killed before each of them, by SIGKILL, SIGINT and SIGTERM in turn. What had been finished has
to be there as it was, and the same command again has to end with what a run that nobody killed has, bit for bit, and
with no file more.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pscrub.cli import main
from tests.kills import SIGNALS, STUDY, Forked, read_finished, tell_runs_apart

STEPS = ("fsync", "link", "mkdir", "open", "rename", "replace", "rmdir", "unlink", "chmod")
"""Calls of `os` before which a run is killed."""
OPTIONS = ("--draws", "20000", "--draws-only")


class Stepped(Forked):
    """A process of the command that is sent a signal before one of its steps.

    Args:
        file: the study.
        out: the folder.
        at: the step, from 0; one that there is not is never come to.
        sent: the signal.
        told: a file to which the number of steps is written.
    """

    def __init__(self, file: Path, out: Path, at: int, sent: signal.Signals, told: Path) -> None:
        self.at, self.sent, self.count, self.steps = at, sent, 0, told
        self.real = {name: getattr(os, name) for name in STEPS}
        super().__init__(file, out, OPTIONS)

    def begin(self) -> None:
        """Have steps counted, in the process itself."""
        for name, real in self.real.items():
            setattr(os, name, partial(self._step, real))

    def end(self) -> None:
        """Say how many there were."""
        for name, real in self.real.items():
            setattr(os, name, real)
        self.steps.write_text(str(self.count))

    def _step(self, real: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self.count == self.at:
            os.kill(os.getpid(), self.sent)
        self.count += 1
        return real(*args, **options)


def kill_at_steps(folder: Path, every: int = 1) -> tuple[Counter[tuple[str, str]], list[str]]:
    """(signal, how the run ended) -> times, and what was found wrong.

    Args:
        folder: an empty one.
        every: so many steps, from the first, there is a kill.
    """
    file, told, whole = folder / "study.py", folder / "steps", folder / "whole"
    file.write_text(STUDY.replace("time.sleep(0.02)", "pass"))
    killed, faults = Counter[tuple[str, str]](), list[str]()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        assert main(["run", str(file), *OPTIONS, "--out", str(whole)]) == 0  # and loads all
    _run(Stepped(file, folder / "counted", -1, signal.SIGKILL, told))
    for at in range(0, int(told.read_text()), every):
        out, sent = folder / f"killed-{at}", SIGNALS[at // every % len(SIGNALS)]
        status, err = _run(Stepped(file, out, at, sent, told))
        before = read_finished(out)
        killed[sent.name, "whole" if status == 0 else "cut short"] += 1
        right = {signal.SIGKILL: {-9}, signal.SIGINT: {130, 0}, signal.SIGTERM: {143, 0}}[sent]
        if status not in right or "Traceback" in err:
            faults.append(f"status {status} after {sent.name} at step {at}: {err}")
        status, err = _run(Stepped(file, out, -1, sent, told))
        if status:
            faults.append(f"status {status} of the command after {sent.name} at step {at}: {err}")
        after = read_finished(out)
        if lost := [path for path, content in before.items() if after.get(path) != content]:
            faults.append(f"finished rounds lost or changed after {sent.name} at step {at}: {lost}")
        faults += [f"{sent.name} at step {at}: {fault}" for fault in tell_runs_apart(out, whole)]
        shutil.rmtree(out)
    return killed, faults


def _run(process: Forked) -> tuple[int | None, str]:
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def run() -> int:
    """0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1)
    torch.set_num_threads(1)  # those that torch has begun are not there in a forked process, which waits for them
    with tempfile.TemporaryDirectory() as folder:
        killed, faults = kill_at_steps(Path(folder), parser.parse_args().every)
    print("| signal | ended | kills |\n| --- | --- | ---: |")
    for (name, ended), times in sorted(killed.items()):
        print(f"| {name} | {ended} | {times} |")
    print(f"\n{sum(killed.values())} kills, {len(faults)} faults.")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(run())
