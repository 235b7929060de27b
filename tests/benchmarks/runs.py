"""What keeping every round in a run folder costs: beside a run without one, by the round, and in large folders."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Study, scrub
from pscrub.estimate.stopping import ROUND
from pscrub.records import write_record
from pscrub.result.adding import add_up
from pscrub.result.folder import RunFiles
from pscrub.result.keeping import KeptRound
from pscrub.result.locks import Locks
from pscrub.result.sharing import RunFolder
from pscrub.studies import load
from tests.benchmarks.brackets import Which
from tests.benchmarks.timing import alternate, short, table

SIZES = (500, 1_000, 2_000, 4_000)
"""Rounds of the large folders."""


def report(chosen: Which, quick: bool = False) -> Iterator[str]:
    """The tables, one after another.

    Args:
        chosen: classifier and strings of the bracket study.
        quick: few rows, draws and repeats.
    """
    yield "### Run folders"
    parameters = {"rows": "1000"} if quick else {}
    studies = {"brackets": load("brackets", chosen.parameters | parameters), "specificity": load("specificity", {})}
    draws, repeats = (512, 1) if quick else (ROUND, 3)
    rows = [_beside(name, study, draws, repeats) for name, study in studies.items()]
    yield (
        f"`scrub(study, draws={draws:,}, exact=False)` in memory alone, into a new folder, and into that folder again, "
        f"where nothing is left to draw; medians of {repeats}, in turn. Target: at most 1.05 of the run in memory. CPU "
        "time shows less of what else the machine does."
    )
    yield table(
        ["study", "rounds", "in memory, s", "folder, s", "of memory", "of its CPU time", "again, s", "folder, MiB"],
        rows,
    )
    yield "#### By the round"
    yield f"Of {ROUND:,} draws, medians over 50; what is written is on the disk before the next begins."
    yield table(["", "ms"], [[name, short(1e3 * seconds)] for name, seconds in _by_round(50).items()])
    yield "#### Large folders"
    yield (
        "Rounds of 2 draws, ten of each hypothesis. *Growth*: the time over that of the line above, over the ratio of "
        "their rounds; 1 where time is in proportion."
    )
    sizes = (100, 200) if quick else SIZES
    made = {size: _large(size) for size in sizes}
    half = {more: fewer for fewer, more in pairwise(sizes)}
    lines = []
    for size, times in made.items():
        cells = [f"{size:,}"]
        for name, seconds in times.items():
            growth = "" if size not in half else f"{seconds / made[half[size]][name] * half[size] / size:.2f}"
            cells += [short(seconds), growth]
        lines.append(cells)
    yield table(["rounds", *(cell for name in made[sizes[0]] for cell in (f"{name}, s", "growth"))], lines)


def _beside(name: str, study: Study, draws: int, repeats: int) -> list[str]:
    run = partial(scrub, study, draws=draws, exact=False)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "kept"

        def fresh() -> None:
            shutil.rmtree(kept, ignore_errors=True)
            run(out=kept)

        def again() -> None:
            run(out=kept)

        ways: dict[str, Callable[[], object]] = {"memory": run, "fresh": fresh, "again": again}
        times = alternate(ways, repeats)
        size = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
        rounds = len(list(kept.rglob("rounds/*/0-*.nc")))
    wall = {way: time.wall for way, time in times.items()}
    ratios = [f"{wall['fresh'] / wall['memory']:.3f}", f"{times['fresh'].cpu / times['memory'].cpu:.3f}"]
    seconds = [*map(short, (wall["memory"], wall["fresh"])), *ratios, short(wall["again"])]
    return [name, str(rounds), *seconds, short(size / 2**20)]


def _by_round(times: int) -> dict[str, float]:
    study = load("specificity", {})
    with tempfile.TemporaryDirectory() as folder:
        scrub(study, draws=ROUND, exact=False, out=folder)
        files, name = RunFiles(folder), study.hypotheses[-1].name
        path = files.file_of(name, 0, 0)
        kept = files.read_round(name, path)
        with RunFolder(folder) as run:
            steps: dict[str, Callable[[], object]] = {
                "write a round": lambda: write_record(kept, path, run.working),
                "read one": lambda: RunFiles(folder).read_round(name, path),
                "take its lock and give it back": lambda: (run.locks.take("a"), run.locks.release("a")),
            }
            return {step: timing.wall for step, timing in alternate(steps, times).items()}


def _large(rounds: int) -> dict[str, float]:
    data = Dataset({"x": torch.arange(8), "y": torch.arange(8)})
    graph = Graph.of({"s": lambda x: x % 2, "f": lambda s, y: 1.0 * s * y}, ["x", "y"], "f")
    claim = Claim("f", reads=[Claim("y", "y")])
    study = Study("large", [Hypothesis(f"h{i}", graph, data, claim) for i in range(rounds // 10)], labels="y")
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        scrub(study, draws=2, exact=False, out=folder)
        files = RunFiles(folder)
        for name in files.manifest.names:
            kept = files.read_round(name, files.file_of(name, 0, 0))
            for index in range(1, 10):
                draws = replace(kept.draws, rounds=(replace(kept.name, index=index),))
                more: KeptRound = replace(kept, draws=draws)
                write_record(more, files.file_of(name, 0, index))
        times["read and add up"] = _seconds(lambda: add_up(RunFiles(folder)))
        times["the command again"] = _seconds(lambda: scrub(study, draws=20, exact=False, out=folder))
        locks = Locks(Path(folder) / "working")
        times["take all locks"] = _seconds(lambda: [locks.take(f"lock-{i}") for i in range(rounds)])
        times["give them back"] = _seconds(locks.close)
    return times


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
