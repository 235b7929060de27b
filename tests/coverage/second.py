"""Measures intervals where t misleads, and writes the table: `python -m tests.coverage.second` or `make coverage`.

As the first study, with what D and pairs show of f: `--seed` names other draws, to see that a row is no luck.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pscrub import Baseline, unroll
from pscrub.estimate import Baselines, Estimate, Known, choose, loss_recovered, mean_of_pairs
from pscrub.estimate.baselines import model_loss, randomised_loss, what_is_known
from pscrub.estimate.known import Seen
from pscrub.estimate.limits import Sampled
from pscrub.evaluate.on_data import OnData
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.law.drawing import draw
from pscrub.law.of_f import scrubbed_expectation
from pscrub.questions.comparison import Losses, compare
from tests.coverage.cells import rng_of, run_study
from tests.coverage.hard import LAWS, study

Row = dict[str, Any]
LEVEL = 0.95
TIMES = 1000
"""Repetitions."""
STUDIES = {"three rows": (6, 100, 1000), "root-only": (20, 200, 2000), "unequal weights": (60, 600, 6000)}
PAIRS = (1000, 4000)
ROWS = 120
"""Rows of D of the pair of hypotheses that hardly differ."""


@dataclass
class Tally:
    """Intervals counted by whether they hold the truth."""

    below: int = 0
    above: int = 0
    refused: int = 0
    bounds: int = 0
    zero: int = 0
    warned: int = 0
    widths: list[float] = field(default_factory=list)

    def add(self, found: Estimate | None, truth: float, warned: bool = False) -> None:
        """One more; none at all, or one without ends, is refused."""
        self.warned += warned
        if found is None or not math.isfinite(found.width):
            self.refused += 1
            return
        slack = 1e-9 * max(abs(truth), 1e-3)  # means of float64 values that are all equal
        self.below += truth < found.low - slack
        self.above += truth > found.high + slack
        self.zero += found.width == 0
        self.bounds += found.interval not in ("t", "")
        self.widths.append(found.width)

    def shares(self, times: int = TIMES) -> Row:
        """As shares of the intervals that there are, and of all repetitions for refusals."""
        there = max(times - self.refused, 1)
        return {
            "coverage": 1 - (self.below + self.above) / there,
            "below": self.below / there,
            "above": self.above / there,
            "refused": self.refused / times,
            "bounds": self.bounds / there,
            "zero": self.zero / there,
            "width": float(np.median(self.widths)) if self.widths else math.inf,
        }


def law(name: str, draws: int, seed: int) -> Row:
    """Draws from a law of losses, with what D and pairs show of it."""
    rng, of = rng_of("hard", name, draws, seed), LAWS[name]
    default, t = Tally(), Tally()
    for _ in range(TIMES):
        f = torch.from_numpy(of.draw(rng, draws))
        default.add(choose(f, LEVEL, known=of.known(rng)), of.mean)
        t.add(mean_of_pairs(f, LEVEL), of.mean)
    return {"default": default.shares(), "t": t.shares()}


def small(name: str, draws: int, seed: int) -> Row:
    """A small study, drawn in strata as `scrub` does."""
    hypothesis = study(name)
    tree, on_data = unroll(hypothesis), OnData(hypothesis.graph, hypothesis.data)
    truth, values = scrubbed_expectation(tree), Activations(hypothesis.graph, hypothesis.data)
    randomised_loss(on_data)
    known = what_is_known(on_data, None, 0, given=False)
    default, t = Tally(), Tally()
    for repetition in range(TIMES):
        f = run_scrubbed(tree, values, draw(tree, draws, (seed, repetition)))
        default.add(choose(f, LEVEL, known=known), truth)
        t.add(mean_of_pairs(f, LEVEL), truth)
    return {"default": default.shares(), "t": t.shares()}


def baseline(kind: str, pairs: int, seed: int) -> Row:
    """Loss recovered against an E_randomised of 0.0005 from sampled pairs of 0/1 losses.

    Args:
        kind: "exact": E_scrubbed is known to be 0; "drawn": 0.002, from 4,000 draws; "near": E_model is 0.01.
        pairs: sampled.
        seed: of the study.
    """
    rng, p = rng_of("baseline", kind, pairs, seed), 0.0005
    model, scrubbed = (0.01 if kind == "near" else 1.0), (0.0 if kind == "exact" else 0.002)
    truth = 100 * (scrubbed - p) / (model - p)
    zero_one = Known.of(torch.tensor([1 - model, model]), torch.tensor([0.0, 1.0]), torch.empty(0))
    seen = Seen(0.0, 1.0, (0.0, 1.0))
    default, t = Tally(), Tally()
    for _ in range(TIMES):
        f = torch.from_numpy((rng.random(pairs) < p).astype(float))
        own = torch.from_numpy((rng.random(4000) < scrubbed).astype(float))
        e = choose(own, LEVEL, known=zero_one)
        plain = mean_of_pairs(own, LEVEL)
        if kind == "exact":
            e = plain = Estimate(0.0, 0.0, 0.0, LEVEL, 0.0, math.inf, 0, "exact")
        se = float(f.std()) / math.sqrt(pairs)
        with_bounds = Baseline(float(f.mean()), se, pairs, "sampled", Sampled.of(f, seen))
        without = Baseline(float(f.mean()), se, pairs, "sampled")
        exact = Baseline(model, 0.0, 0, "exact")
        default.add(loss_recovered(e, Baselines(exact, with_bounds)), truth)
        t.add(loss_recovered(plain, Baselines(exact, without)), truth)
    return {"default": default.shares(), "t": t.shares()}


def sampled_pairs(seed: int) -> Row:
    """E_randomised itself, by `randomised_loss` from 1,000 pairs of rows of a study where it is 0.0005."""
    hypothesis = study("rare pairs")
    on_data = OnData(hypothesis.graph, hypothesis.data)
    truth = randomised_loss(on_data).value
    default, t = Tally(), Tally()
    model_loss(on_data)
    for repetition in range(TIMES):
        found = randomised_loss(on_data, pairs=20_000, seed=1 + repetition + seed * TIMES)
        ends = found.limits(LEVEL)
        default.add(Estimate(ends.value, ends.low, ends.high, LEVEL, found.se, math.inf, found.draws, ""), truth)
        half = 1.96 * found.se
        t.add(Estimate(found.value, found.value - half, found.value + half, LEVEL, found.se, 1.0, 1, ""), truth)
    return {"default": default.shares(), "t": t.shares()}


def paired(kind: str, draws: int, seed: int) -> Row:
    """Two hypotheses with 0/1 losses that differ on two of ROWS rows, by `compare`.

    Args:
        kind: "worse": both rows are lost; "apart": one is lost and one is won, so that the difference is 0.
        draws: of each.
        seed: of the study.
    """
    rng = rng_of("paired", kind, draws, seed)
    first = (np.arange(ROWS) % 7 == 0).astype(float)
    second = first.copy()
    second[1] = 1.0
    second[2 if kind == "worse" else 0] = 1.0 if kind == "worse" else 0.0
    truth = float(second.mean() - first.mean())
    weights = torch.full((ROWS,), 1 / ROWS, dtype=torch.float64)
    known = Known.of(weights, torch.from_numpy(first), torch.tensor([0.0, 1.0]).double())
    base = Baseline(0.0, 0.0, 0, "exact"), Baseline(0.5, 0.0, 0, "exact")
    default, t = Tally(), Tally()
    for _ in range(TIMES):
        rows = rng.integers(0, ROWS, draws)
        f = torch.from_numpy(np.stack([first[rows], second[rows]]))
        found = compare(Losses(("first", "second"), f, *base, known), "first", "second", LEVEL)
        default.add(found.difference, truth)
        t.add(mean_of_pairs(f[1] - f[0], LEVEL), truth)
    return {"default": default.shares(), "t": t.shares()}


def cells(seed: int) -> Iterator[tuple[str, Callable[[], Row]]]:
    """(name, work) of every cell."""
    for name, of in LAWS.items():
        for n in of.draws:
            yield f"law/{name}/{n}", lambda name=name, n=n: law(name, n, seed)  # type: ignore[misc]
    for name, sizes in STUDIES.items():
        for n in sizes:
            yield f"small/{name}/{n}", lambda name=name, n=n: small(name, n, seed)  # type: ignore[misc]
    for kind in ("exact", "drawn", "near"):
        for n in PAIRS:
            yield f"baseline/{kind}/{n}", lambda kind=kind, n=n: baseline(kind, n, seed)  # type: ignore[misc]
    yield "pairs/sampled/1000", lambda: sampled_pairs(seed)
    for kind in ("worse", "apart"):
        for n in (ROWS, 1200, 12_000):
            yield f"paired/{kind}/{n}", lambda kind=kind, n=n: paired(kind, n, seed)  # type: ignore[misc]


WORDS = {
    "small/three rows": "three rows of D, the output of any for the label of each",
    "small/root-only": "f varies with the root's row alone, of seven rows: strata that a row's end cuts",
    "small/unequal weights": "60 rows, weights lognormal of deviation 1.5, swaps within a letter",
    "baseline/exact": "loss recovered, E_randomised 0.0005 from n pairs, E_scrubbed 0 exactly, E_model 1",
    "baseline/drawn": "the same, E_scrubbed 0.002 from 4,000 draws",
    "baseline/near": "the same, E_model 0.01",
    "pairs/sampled": "E_randomised of 0.0005 from n sampled pairs of a study's rows",
    "paired/worse": "paired 0/1 losses, the second worse on 2 of 120 rows",
    "paired/apart": "paired 0/1 losses, the second worse on 1 of 120 rows and better on another",
}


def verdict(row: Row) -> str:
    """Whether the default does as it is meant to."""
    default = row["default"]
    refused = f"{100 * default['refused']:.1f} % refused" if default["refused"] > 0 else ""
    if default["refused"] > 0.5:
        return refused
    words = "no"
    if default["coverage"] > 0.97:
        words = "yes, conservative"
    elif default["coverage"] >= 0.93:
        words = "yes"
    return words + (f"; {refused}" if refused else "")


def table(found: Mapping[str, Row], seconds: float, seed: int) -> str:
    """The page docs/coverage_2.md."""
    head = f"""Written by `make coverage` (`python -m tests.coverage.second`, seed {seed}): {TIMES:,} repetitions a row
    (standard error 0.7 at 95 %), nominal level {100 * LEVEL:g} %, {seconds:,.0f} s of work on one core. What is
    estimated is about *this* D. *Default* is what `interval="auto"` gives where f is also known from D and from the
    pairs of E_randomised: t, or an interval with bounds in the share of runs under *bounds*. *Too low* and *too high*
    are the shares of intervals that lie wholly below or above the truth, nominally 2.5 each; *refused* runs have no
    interval, and do not count as covered. Under t is what t within strata would have covered, with the share of its
    intervals of width 0; widths are medians. The default has no interval of width 0 in any run.
    """
    lines = [
        "| situation | n | default | too low | too high | bounds | refused | t | t: width 0 | width over t's "
        "| as meant |",
        "| --- " + "| ---: " * 9 + "| --- |",
    ]
    for key, row in found.items():
        kind, name, n = key.split("/")
        words = LAWS[name].words if kind == "law" else WORDS[f"{kind}/{name}"]
        default, t = row["default"], row["t"]
        assert default["zero"] == 0, key
        ratio = default["width"] / t["width"] if t["width"] and math.isfinite(default["width"]) else math.inf
        figures = [default[k] for k in ("above", "below", "bounds", "refused")]
        cells = [f"{100 * figure:.1f}" for figure in (*figures, t["coverage"], t["zero"])]
        lines.append(
            f"| {words} | {int(n):,} | **{100 * default['coverage']:.1f}** | {' | '.join(cells)} "
            f"| {f'{ratio:.2f}' if math.isfinite(ratio) else '–'} | {verdict(row)} |"
        )
    paragraph = textwrap.fill(" ".join(head.split()), 118)
    return "\n\n".join(["# How often the intervals cover where t misleads", paragraph, "\n".join(lines)]) + "\n"


if __name__ == "__main__":
    run_study("second", __doc__, "coverage_2", cells, table)
