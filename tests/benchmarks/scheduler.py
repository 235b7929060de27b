"""A thousand simulated workers on one sweep: what finding work, claiming and keeping it costs by the round.

Real are the code of the sweep's scheduler (`sweeps.driving`, `result.taking`, `result.offering`), of locks, of the
names, folders and listings of points and rounds, of manifests, of what is written when a point is begun and done, and
the file system, one in memory where there is one. Simulated are the workers, which are threads of one process that run
one at a time, each until it waits; the clock by which they wait; and the rounds: no data are drawn and no model is run,
and the file of a round is a link to one round, made once, which is not read. So times are those of the scheduler and
the folder alone.
"""

from __future__ import annotations

import heapq
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Study, StudyResult, scrub
from pscrub.result import locks, offering, taking
from pscrub.result.adding import add_up
from pscrub.result.draws import Draws, Round
from pscrub.result.folder import RunFiles
from pscrub.result.keeping import Begun, KeptRound
from pscrub.result.manifest import Asked, Manifest
from pscrub.result.sharing import RunFolder
from pscrub.sweeps import driving
from pscrub.sweeps.folder import SweepFiles, SweepFolder
from pscrub.sweeps.making import Maker
from pscrub.sweeps.plan import Fixed, Plan
from pscrub.sweeps.results import read_sweep
from pscrub.sweeps.status import find_sweep_status
from tests.benchmarks.timing import short, table

WORKERS, FEW = 1_000, 10
SIZES = (1_000, 10_000, 100_000, 1_000_000)
"""Rounds."""
ROUNDS = 50
"""Of a point."""
SECONDS = 60.0
"""That a round takes by the simulated clock, in the mean."""
CALLS = ("stat", "link", "unlink", "scandir", "listdir", "open", "rename", "replace", "mkdir", "rmdir")


def report(quick: bool = False) -> Iterator[str]:
    """The tables, one after another.

    Args:
        quick: fewer workers and rounds.
    """
    workers, sizes = (50, SIZES[:2]) if quick else (WORKERS, SIZES)
    yield "### A thousand workers"
    yield (
        f"{FEW} and {workers:,} simulated workers on one sweep, {ROUNDS} rounds a point; all come at once. *Work*: "
        "until all are there, what all workers compute. *Again*: the same command when nothing is left. *Calls*: of "
        "the file system, in work. By the round, in microseconds of one core. *Growth*: of what all rounds cost, over "
        "that of the line above, over the ratio of their rounds: 1 where it is in proportion, less where it grows less."
    )
    lines = []
    for count, some in ((FEW, sizes[:3]), (workers, sizes)):
        before: tuple[int, dict[str, float]] | None = None
        for rounds in some:
            costs = simulate(rounds, count)
            grown = {name: "" if before is None else _grown(costs, rounds, *before, name) for name in ("work", "calls")}
            times = {name: short(1e6 * costs[name] / rounds) for name in ("work", "again", "status", "table")}
            cells = [times.pop("work"), grown["work"], *times.values(), short(costs["calls"] / rounds), grown["calls"]]
            lines.append([f"{count:,}", f"{rounds:,}", *cells])
            before = rounds, costs
    head = ["workers", "rounds", "work", "growth", "again", "status", "table", "calls", "growth"]
    yield table(head, lines)
    yield "#### Manifests"
    yield (
        "Of hypotheses in one run folder: bytes of `manifest.json` and microseconds to write and read it, by the "
        "hypothesis; and bytes of what a sweep keeps of a study's names."
    )
    counts = (1_000, 10_000) if quick else (1_000, 10_000, 100_000)
    yield table(
        ["hypotheses", "manifest.json, bytes", "write, µs", "read, µs", "study.json, bytes"],
        [[f"{count:,}", *weigh(count)] for count in counts],
    )


def _grown(costs: dict[str, float], rounds: int, fewer: int, before: dict[str, float], name: str) -> str:
    return f"{costs[name] / before[name] * fewer / rounds:.2f}"


class Turns:
    """Threads that run one at a time, each until it waits, in the order of a simulated clock."""

    def __init__(self) -> None:
        self.now, self._waiting, self._count = 0.0, list[tuple[float, int, threading.Lock]](), 0
        self._over = threading.Event()

    def sleep(self, seconds: float) -> None:
        """Wait, and let others run until then."""
        mine = threading.Lock()
        mine.acquire()
        self._wait(seconds, mine)
        self._next()
        mine.acquire()

    def run(self, works: list[Callable[[], object]]) -> None:
        """Return when all are done."""
        faults = list[BaseException]()

        def begin(work: Callable[[], object], turn: threading.Lock) -> None:
            turn.acquire()
            try:
                work()
            except BaseException as error:
                faults.append(error)
            self._next()

        threads = []
        for work in works:
            turn = threading.Lock()
            turn.acquire()
            self._wait(0.0, turn)
            threads.append(threading.Thread(target=begin, args=(work, turn)))
        for thread in threads:
            thread.start()
        self._next()
        self._over.wait()
        if faults:
            raise faults[0]

    def _wait(self, seconds: float, turn: threading.Lock) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (self.now + seconds, self._count, turn))

    def _next(self) -> None:
        if not self._waiting:
            self._over.set()
            return
        self.now, _, turn = heapq.heappop(self._waiting)
        turn.release()


@dataclass(frozen=True)
class Sample:
    """What stands for all that is drawn.

    Args:
        result: of one point.
        begun: of its hypothesis.
        manifest: of its run folder.
        path: of its round.
    """

    result: StudyResult
    begun: Begun
    manifest: Manifest
    path: Path

    @classmethod
    def of(cls, study: Study, folder: Path) -> Sample:
        """That of a study's first hypothesis."""
        first = study.hypotheses[0]
        scrub(first, draws=2, exact=False, out=folder, labels="y")
        files = RunFiles(folder)
        begun = files.begun(first.name)
        assert begun is not None
        return cls(add_up(files), begun, files.manifest, files.file_of(first.name, 0, 0))


def study_of(hypotheses: int) -> Study:
    """A study of so many hypotheses, as small as one can be."""
    data = Dataset({"x": torch.arange(8), "y": torch.arange(8)})
    graph = Graph.of({"s": lambda x: x % 2, "f": lambda s, y: 1.0 * s * y}, ["x", "y"], "f")
    claim = Claim("f", reads=[Claim("y", "y")])
    return Study("large", [Hypothesis(f"h{i}", graph, data, claim) for i in range(hypotheses)], labels="y")


def simulate(rounds: int, workers: int) -> dict[str, float]:
    """What all workers together compute, in seconds by step, and how often they call the file system."""
    points = max(1, rounds // ROUNDS)
    hypotheses = max(1, min(200, points))
    study, seeds = study_of(hypotheses), range(-(-points // hypotheses))
    asked = Asked(2 * ROUNDS, 1.0, "auto", 0.95, None, False)
    plan = Plan("large", (), tuple(seeds), (), 1, Fixed(), asked)
    turns, dice, made, calls = Turns(), random.Random(0), Counter[str](), Counter[str]()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        out, sample = Path(folder) / "sweep", Sample.of(study, Path(folder) / "sample")

        def draw(some: Study, seed: int, into: RunFolder) -> StudyResult:
            return draw_point(some, seed, into, sample, lambda: turns.sleep(dice.expovariate(1 / SECONDS)), made)

        def work() -> None:
            with SweepFolder(out) as there:
                driving.Sweeper(there, there.open(plan), Maker(study), draw).run()

        costs = dict[str, float]()
        with simulated(turns, calls):
            costs["work"] = spent(lambda: turns.run([work] * workers))
            counted = sum(calls.values())
            assert len(made) == points * ROUNDS and set(made.values()) == {1}, "a round was made twice, or not at all"
            costs["again"] = spent(lambda: Turns().run([work]))
        files = SweepFiles(out)
        costs["status"] = spent(lambda: find_sweep_status(files))
        costs["table"] = spent(lambda: read_sweep(files))
        assert find_sweep_status(files).is_whole
        costs["calls"] = counted
        shutil.rmtree(out)
    return costs


def draw_point(
    some: Study, seed: int, into: RunFolder, sample: Sample, wait: Callable[[], None], made: Counter[str]
) -> StudyResult:
    """Make the rounds of a point that nobody else makes, as `scrub` does into a run folder, but for what they hold."""
    (hypothesis,) = some.hypotheses
    begun = replace(sample.begun, hypothesis=hypothesis.name)
    named = ((hypothesis.name, begun.law_hash, 0),)
    with into:
        into.open(lambda: replace(sample.manifest, seed=seed, hypotheses=named))
        into.agree(replace(sample.result, results=(), seed=seed))
        begun = into.begin(hypothesis.name, begun.law_hash, begun.asked, lambda: begun)
        kept = into.kept(begun)
        owed = [Round(seed, index, 2) for index in range(ROUNDS) if index not in kept]
        offer = into.offer(begun, owed, lambda _: None)

        def make(each: Round) -> None:
            wait()
            path = into.file_of(hypothesis.name, each.seed, each.index)
            os.link(sample.path, path)
            made[str(path)] += 1
            into.leave(begun, each)

        for each in offer.ours():
            make(each)
        while offer.held:
            for each in offer.again():
                make(each)
            if offer.held:
                offer.wait()
    results = tuple(replace(each, hypothesis=hypothesis.name) for each in sample.result.results)
    return replace(sample.result, results=results, cut_short=False)


class Unread(RunFolder):
    """A run folder whose rounds are not read: all of them are the same."""

    def read_round(self, hypothesis: str, path: Path) -> KeptRound:
        """Nothing that is looked at."""
        seed, _, index = path.stem.partition("-")
        return replace(_ROUND, draws=replace(_ROUND.draws, rounds=(Round(int(seed), int(index), 2),)))


_ROUND = KeptRound("", "", "", Draws())


@contextmanager
def simulated(turns: Turns, calls: Counter[str]) -> Iterator[None]:
    """Within it workers wait by the simulated clock, rounds are not read, and calls of the file system are counted."""
    clock = SimpleNamespace(time=time.time, monotonic=time.monotonic, time_ns=time.time_ns, sleep=turns.sleep)

    def count(name: str, real: Any, *args: Any, **options: Any) -> Any:
        calls[name] += 1
        return real(*args, **options)

    with ExitStack() as stack:
        for module in (taking, locks, offering, driving):
            stack.enter_context(mock.patch.object(module, "time", clock))
        stack.enter_context(mock.patch.object(driving, "RunFolder", Unread))
        # All workers are this process here; one of a thousand threads is slow to ask about, and none of theirs is.
        stack.enter_context(mock.patch.object(locks, "find_start", lambda _, ask=locks.find_start: ask(1)))
        for name in CALLS:
            stack.enter_context(mock.patch.object(os, name, partial(count, name, getattr(os, name))))
        before = threading.stack_size(512 * 1024)
        try:
            yield
        finally:
            threading.stack_size(before)


def spent(work: Callable[[], object]) -> float:
    """Seconds that this process computed: contention shows less in it than in the time that passed."""
    start = time.process_time()
    work()
    return time.process_time() - start


def weigh(hypotheses: int) -> list[str]:
    """What a manifest of so many hypotheses costs, and the file of a study's names."""
    with tempfile.TemporaryDirectory() as folder:
        path, study = Path(folder), study_of(hypotheses)
        sample = Sample.of(study, path / "sample")
        named = tuple((each.name, f"{i:016x}", 0) for i, each in enumerate(study.hypotheses))
        manifest = replace(sample.manifest, hypotheses=named)
        write = spent(lambda: manifest.write(path, path))
        read = spent(lambda: Manifest.read(path))
        with SweepFolder(path / "sweep") as there:
            plan = there.open(Plan("large", (), (0,), (), 1, Fixed(), sample.manifest.asked))
            (place,) = there.places(plan)
            there.agree(place, driving.Made.of(study))
            names = (place.path / "study.json").stat().st_size
        size = (path / "manifest.json").stat().st_size
    return [
        f"{size / hypotheses:.0f}",
        short(1e6 * write / hypotheses),
        short(1e6 * read / hypotheses),
        f"{names / hypotheses:.0f}",
    ]
