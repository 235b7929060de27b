"""The engine beside the slow evaluator, on the bracket hypotheses: values on D, and f on draws."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

from torch import Tensor

from pscrub import unroll
from pscrub.evaluate import Activations, Engine, run_scrubbed
from pscrub.evaluate.reference import sources_of
from pscrub.law import draw
from pscrub.studies import load
from tests.benchmarks.brackets import Which
from tests.benchmarks.timing import short, table

TURNS = 3


def report(chosen: Which, quick: bool = False) -> Iterator[str]:
    """The table.

    Args:
        chosen: the classifier and its strings.
        quick: few rows and draws.
    """
    draws = 256 if quick else 16_384
    study = load("brackets", chosen.parameters | ({"rows": "1000"} if quick else {}))
    yield "### The engine beside the slow evaluator"
    yield (
        f"{chosen.name[0].upper()}{chosen.name[1:]}, {study.hypotheses[0].data.n:,} rows, {draws:,} draws of each "
        "hypothesis, in turn, medians of three turns. *D*: values on D, for all hypotheses on a graph in one pass. "
        "*Draws*: f on the draws. "
        "The largest difference is between the two in f."
    )
    made, rows, seen = Engine(study.hypotheses[0].data), [], None
    total = [0.0] * 4
    for h in study.hypotheses:
        tree, spent = unroll(h), [0.0] * 4
        data = draw(tree, draws, (0, 0))
        if seen is not h.graph:
            seen, alike = h.graph, [unroll(other) for other in study.hypotheses if other.graph is h.graph]
            activations = Activations(h.graph, h.data)
            spent[0] = _seconds(lambda trees=alike: made.foresee(trees))
            spent[2] = _seconds(
                lambda a=activations, trees=alike: a.keep([n for each in trees for n in sources_of(each)])
            )
        found: list[Tensor] = []
        fast, slow = list[float](), list[float]()
        for _ in range(1 if quick else TURNS):
            found.clear()
            fast.append(_seconds(lambda t=tree, d=data, out=found: out.append(made.f(t, d))))
            slow.append(_seconds(lambda t=tree, d=data, a=activations, out=found: out.append(run_scrubbed(t, a, d))))
        spent[1], spent[3] = statistics.median(fast), statistics.median(slow)
        total = [sum(pair) for pair in zip(total, spent, strict=True)]
        times = f"{spent[3] / spent[1]:.1f}"
        rows.append((h.name, *map(short, spent), times, f"{float((found[0] - found[1]).abs().max()):.1e}"))
    whole = f"{(total[2] + total[3]) / (total[0] + total[1]):.1f} with D"
    rows.append(("all", *map(short, total), f"{total[3] / total[1]:.1f}", whole))
    head = (
        "hypothesis",
        "engine: D, s",
        "engine: draws, s",
        "slow: D, s",
        "slow: draws, s",
        "times faster",
        "largest difference",
    )
    yield table(head, rows)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
