"""What it costs to have rounds made by others, and what it gains: threads, processes and Ray beside one process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from pscrub import Hypothesis, Study, Workers, scrub
from pscrub.estimate import stopping
from pscrub.result.pools import RayExecutor, make_processes, make_threads
from pscrub.studies import load
from tests.benchmarks.brackets import Which
from tests.benchmarks.timing import alternate, short, table

WIDE = 512
"""Width of the model of which a study is bound by evaluation."""


def report(chosen: Which, quick: bool = False) -> Iterator[str]:
    """The tables, one after another.

    Args:
        chosen: classifier and strings of the bracket study.
        quick: few rows, rounds and repeats.
    """
    yield "### Rounds made by others"
    with ExitStack() as stack:
        kinds: dict[str, tuple[Executor, Executor]] = {
            name: (stack.enter_context(make(1)), stack.enter_context(make(2)))
            for name, make in {"threads": make_threads, "processes": make_processes}.items()
        }
        if find_spec("ray") is not None:
            both = stack.enter_context(RayExecutor(num_cpus=2))
            kinds["ray"] = both, both
        yield (
            "What a round takes beside the work of making it, with one worker: rounds of two draws of one small "
            "hypothesis, given out one by one (there and back) and two at a time, less the time of the same rounds "
            "made here; and rounds of 16,384 draws, by what they take more. Target: under 20 ms by Ray."
        )
        yield table(["ms a round", "one by one", "two at a time", "16,384 draws"], _overhead(kinds, quick))
        yield (
            "Two workers beside one, of the same kind; and beside this process alone with one thread and with two. A "
            "study bound by evaluation (a wide perceptron, eight rounds of one hypothesis), and the bracket study's "
            "hypotheses that are not exact, a round each. Workers have what they need from a run before. Target: 1.7. "
            f"Load average {os.getloadavg()[0]:.1f} when it began: on cores that others use too the time that passes "
            "shows what these leave."
        )
        head = ["study", "rounds", "one thread, s", "two threads, s"]
        head += [cell for name in kinds for cell in (f"{name}: 1, s", "2, s", "speed-up")]
        studies = list(_studies(chosen, quick))
        yield table(head, [_speed(kinds, *each, quick) for each in studies])
        yield (
            "The same by what processors did, of which contention shows less: CPU seconds of this process (m) and of "
            "its pool of one process and of two (w). On two cores of one's own, a run takes no longer than m + w with "
            "one worker, and m + w / 2 with two, if this process did nothing while they work. *By CPU*: the ratio."
        )
        head = ["study", "1 process: m, s", "w, s", "2 processes: m, s", "w, s", "by CPU"]
        yield table(head, [_by_cpu(kinds["processes"], *each, quick) for each in studies])


def _overhead(kinds: dict[str, tuple[Executor, Executor]], quick: bool) -> list[list[str]]:
    study = _only(load("specificity", {}), -1)
    rows, counts = [], (20, 4) if quick else (200, 30)
    for name, (one, _) in kinds.items():
        cells = [name]
        for size, count, ahead in ((2, counts[0], 1), (2, counts[0], 2), (stopping.ROUND, counts[1], 2)):
            run = partial(_sized, study, size, count)
            times = alternate({"here": run, "there": partial(run, Workers(one, at_once=ahead))}, 1 if quick else 5)
            cells.append(short(1e3 * (times["there"].wall - times["here"].wall) / count))
        rows.append(cells)
    return rows


def _studies(chosen: Which, quick: bool) -> Iterator[tuple[Study, int]]:
    """Studies, and how many rounds of each hypothesis."""
    yield _perceptron(), 2 if quick else 8
    brackets = load("brackets", chosen.parameters | ({"rows": "500"} if quick else {}))
    some = [hypothesis for hypothesis in brackets.hypotheses if "exact" not in hypothesis.name]
    yield Study("brackets", some, labels=brackets.labels), 1


def _speed(kinds: dict[str, tuple[Executor, Executor]], study: Study, count: int, quick: bool) -> list[str]:
    run = partial(_sized, study, 256 if quick else stopping.ROUND, count)
    ways = {"one": partial(_threaded, 1, run), "two": partial(_threaded, 2, run)}
    for kind, (one, two) in kinds.items():
        ahead = 1 if kind == "ray" else 2  # what Ray is given at a time, it makes at a time
        ways[f"{kind} 1"] = partial(run, Workers(one, at_once=ahead))
        ways[f"{kind} 2"] = partial(run, Workers(two, at_once=4))
    times = {way: timing.wall for way, timing in alternate(ways, 1 if quick else 3).items()}
    cells = [study.name, str(len(study.hypotheses) * count), short(times["one"]), short(times["two"])]
    for kind in kinds:
        first, second = times[f"{kind} 1"], times[f"{kind} 2"]
        cells += [short(first), short(second), f"{first / second:.2f}"]
    return cells


def _by_cpu(pools: tuple[Executor, Executor], study: Study, count: int, quick: bool) -> list[str]:
    cells, ends = [study.name], list[float]()
    for workers, pool in enumerate(pools, 1):
        spent = list[tuple[float, float]]()
        for _ in range(1 if quick else 3):
            before = time.process_time(), _cpu_of(pool)
            _sized(study, 256 if quick else stopping.ROUND, count, Workers(pool, at_once=2 * workers))
            spent.append((time.process_time() - before[0], _cpu_of(pool) - before[1]))
        own, theirs = sorted(spent, key=sum)[len(spent) // 2]
        cells += [short(own), short(theirs)]
        ends.append(own + theirs / workers)
    return [*cells, f"{ends[0] / ends[1]:.2f}"]


def _cpu_of(pool: Executor) -> float:
    """CPU seconds of a pool's processes so far."""
    ticks = 0
    for pid in pool._processes:  # type: ignore[attr-defined]
        ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _sized(study: Study, size: int, count: int, workers: Workers | None = None) -> None:
    """Scrub with so many rounds of so many draws."""
    before, stopping.ROUND = stopping.ROUND, size
    try:
        scrub(study, draws=size * count, exact=False, workers=workers)
    finally:
        stopping.ROUND = before


def _threaded(threads: int, run: partial[None]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        run()
    finally:
        torch.set_num_threads(before)


def _only(study: Study, place: int) -> Study:
    return Study(study.name, [study.hypotheses[place]], labels=study.labels)


def _perceptron() -> Study:
    """One hidden layer after another, of which the scrubbed input is a sum of two halves': all is computed anew."""
    from pscrub import Claim, Dataset, Graph

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2_000, WIDE, generator=generator)
    first, second, third = (torch.randn(WIDE, WIDE, generator=generator) / WIDE**0.5 for _ in range(3))
    data = Dataset({"x": x, "y": (x.sum(1) > 0).float(), "half": x[:, 0] > 0})
    functions = {
        "a": lambda x: x * (torch.arange(WIDE) < WIDE // 2),
        "b": lambda x: x * (torch.arange(WIDE) >= WIDE // 2),
        "out": lambda a, b: ((((a + b) @ first).relu() @ second).relu() @ third).mean(1),
        "f": lambda out, y: (out - y) ** 2,
    }
    graph = Graph.of(functions, ["x", "y"], "f")
    claim = Claim("f", reads=[Claim("y", "y"), Claim("out", "half", reads=[Claim("a", "half")])])
    return Study("perceptron", [Hypothesis("half", graph, data, claim)], labels="y")


def main() -> None:
    """Print the tables alone: `python -m tests.benchmarks.spread`."""
    start = time.perf_counter()
    for part in report(Which("", {})):
        print(part, flush=True)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
