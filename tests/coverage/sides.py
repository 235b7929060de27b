"""Measures limits to one side and answers at the mark, and writes the table: `python -m tests.coverage.sides`.

Skewed losses and their mirror images, with strata that are alike and with strata that are not. `--seed` names other
draws, to see that a row is no luck.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import stats

from pscrub import Baseline
from pscrub.estimate import Baselines, Known, choose, loss_recovered, mean_of_pairs
from pscrub.estimate.known import Seen
from pscrub.questions import equivalence
from tests.coverage.cells import rng_of, run_study

Array = np.ndarray[Any, np.dtype[np.float64]]
Row = dict[str, Any]
LEVEL = 0.95
TIMES = 2000
"""Repetitions."""
DRAWS = (100, 400, 2000)
NOMINAL = {"975": 0.025, "95": 0.05}
"""One-sided errors of limits at these levels."""
ONCE = 1e-4
"""Probability that an error at its nominal rate is called too large: about 1,000 are looked at."""


@dataclass(frozen=True)
class Skewed:
    """A law of losses that is skewed to the right.

    Args:
        words: for the table.
        draw: float64 of a shape, from the law.
        mean: its expectation.
        rare: the probability of the greater of two values, and that value; None for continuous laws.
    """

    words: str
    draw: Callable[[np.random.Generator, tuple[int, ...]], Array]
    mean: float
    rare: tuple[float, float] | None = None


LAWS = {
    "exponential": Skewed("exponential", lambda rng, shape: rng.exponential(1.0, shape), 1.0),
    "lognormal": Skewed("lognormal, deviation 1", lambda rng, shape: rng.lognormal(0, 1, shape), math.exp(0.5)),
    "squared normal": Skewed("squared normal", lambda rng, shape: rng.standard_normal(shape) ** 2, 1.0),
    "0-1": Skewed("1 on 2 % of draws, else 0", lambda rng, shape: 1.0 * (rng.random(shape) < 0.02), 0.02, (0.02, 1.0)),
    "0-5": Skewed("5 on 1 % of draws, else 0", lambda rng, shape: 5.0 * (rng.random(shape) < 0.01), 0.05, (0.01, 5.0)),
}


def sample(law: str, mirrored: bool, strata: bool, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """float64 [times, draws]: losses less their expectation and, for two values, as they are.

    Strata that differ have means that are skewed the other way, and deviations from 0.3 to 1.7; of two values, the rare
    one is from never to twice as frequent. So the skewness of all draws together has the wrong sign.
    """
    of, pairs = LAWS[law], shape[1] // 2
    if of.rare is None:
        f = of.draw(rng, shape) - of.mean
        if strata:
            means = stats.expon.ppf((np.arange(pairs) + 0.5) / pairs)
            f = f * np.repeat(rng.permutation(np.linspace(0.3, 1.7, pairs)), 2) - 6 * np.repeat(means - means.mean(), 2)
    else:
        p, value = of.rare
        p_of = np.repeat(np.linspace(0, 2 * p, pairs), 2) if strata else p
        f = value * (rng.random(shape) < p_of)
    return -f if mirrored else f


def truth_of(law: str, mirrored: bool) -> float:
    """The expectation of what `sample` draws."""
    mean = 0.0 if LAWS[law].rare is None else LAWS[law].mean
    return -mean if mirrored else mean


def known_of(law: str, mirrored: bool, strata: bool, rng: np.random.Generator) -> Known:
    """What 2,000 rows of D, 4,096 sampled pairs and the range of many more pairs show."""
    losses, randomised, pairs = (
        torch.from_numpy(sample(law, mirrored, strata, (1, size), rng)[0]) for size in (2000, 4096, 200_000)
    )
    weights = torch.full((2000,), 1 / 2000, dtype=torch.float64)
    return Known.of(weights, losses, randomised, Seen.of(pairs, len(pairs)))


def errors(law: str, mirrored: bool, strata: bool, draws: int, seed: int) -> Row:
    """How often limits lie on the wrong side of the truth, and answers at the mark are wrong."""
    rng = rng_of("sides", law, mirrored, strata, draws, seed)
    known, truth = known_of(law, mirrored, strata, rng), truth_of(law, mirrored)
    # Loss recovered against exact baselines, of which the truth is 90 %.
    against = Baselines(*(Baseline(truth + off, 0.0, 0, "exact") for off in (-0.1, 0.9)))
    counts: dict[str, int] = {}
    moved = []

    def count(name: str, low: float, high: float, at: float, slack: float = 1e-9) -> None:
        counts[f"{name} lower"] = counts.get(f"{name} lower", 0) + (low > at + slack)
        counts[f"{name} upper"] = counts.get(f"{name} upper", 0) + (high < at - slack)

    for f in torch.from_numpy(sample(law, mirrored, strata, (TIMES, draws), rng)):
        t, alone, e = mean_of_pairs(f, LEVEL), choose(f, LEVEL), choose(f, LEVEL, known=known)
        count("t", t.low, t.high, truth)
        for name, level in (("975", 0.975), ("95", 0.95)):
            count(f"alone {name}", alone.limit("lower", level), alone.limit("upper", level), truth)
            count(f"known {name}", e.limit("lower", level), e.limit("upper", level), truth)
        score = loss_recovered(e, against)
        assert score is not None
        answer = equivalence(score, 90.0)
        # "not rejected" counts as wrong for a hypothesis that is just below the mark, "rejected" for one just above.
        count("mark", 91.0 * (answer.answer == "not rejected"), 89.0 + 2 * (answer.answer != "rejected"), 90.0)
        if t.width and math.isfinite(e.width):
            moved.append((e.limit("upper") - e.value) / (t.high - t.value))
    return {name: n / TIMES for name, n in counts.items()} | {"width": float(np.median(moved)) if moved else math.inf}


def holds(error: float, nominal: float, times: int = TIMES) -> bool:
    """Whether an error is at most nominal, but for what ONCE allows to chance."""
    return float(stats.binom.sf(round(error * times) - 1, times, nominal)) > ONCE


def failures(row: Row, names: tuple[str, ...] = ("alone", "known", "mark")) -> list[str]:
    """Which errors of a row are above their level."""
    found = []
    for name in names:
        for level in ("975", "95") if name in ("alone", "known") else ("",):
            for side in ("lower", "upper"):
                key = " ".join(filter(None, (name, level, side)))
                if not holds(row[key], NOMINAL[level or "975"]):
                    found.append(key)
    return found


def cells(seed: int) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Name and work of each cell."""
    for law in LAWS:
        for mirrored in (False, True):
            for strata in (False, True):
                for draws in DRAWS:
                    name = f"{law}/{'left' if mirrored else 'right'}/{'strata' if strata else 'alike'}/{draws}"
                    yield name, partial(errors, law, mirrored, strata, draws, seed)


def table(found: Mapping[str, Row], seconds: float, seed: int) -> str:
    """The page docs/one_sided.md."""
    bad = [key for key, row in found.items() if failures(row)]
    t_bad = sum(bool(failures(row, ("t",))) for row in found.values())
    head = f"""Written by `make coverage` (`python -m tests.coverage.sides`, seed {seed}): {TIMES:,} repetitions a row
    (standard error 0.35 at 2.5 %, 0.49 at 5 %), {seconds:,.0f} s of work on one core. Each pair of figures: how often,
    in per cent, the lower limit lay above the truth, and the upper limit below it. *t* are the ends of the t interval
    at 95 %, nominally 2.5 each. *Alone* are `Estimate.limit` at the levels 97.5 and 95 % of an estimate from draws
    alone, *known* those where f is also known from D and from pairs, nominally 2.5 and 5. *At the mark*:
    `equivalence` says "not rejected", and "rejected", of a hypothesis that recovers just as much as is asked for, with
    the same knowledge, nominally 2.5 each. Mirrored losses are skewed to the left. Strata that differ have means skewed
    the other way, and deviations from 0.3 to 1.7 (two values: the rare one never to twice as often);
    what is known of continuous losses then reaches beyond all draws, so that wide intervals with bounds are taken, and
    *alone* is what to look at. The last column is
    how far the upper limit at 97.5 % (known) lies from the value, over t's distance: medians.
    """
    verdict = f"""Errors above nominal by more than chance (one in 10,000 a figure): in {len(bad)} of {len(found)} rows
    for the limits and answers{": " + ", ".join(bad) if bad else ""}; in {t_bad} of {len(found)} rows for t.
    """
    lines = [
        "| losses | skewed to | strata | n | t | alone, 97.5 | alone, 95 | known, 97.5 | known, 95 | at the mark "
        "| farther |",
        "| --- | --- | --- " + "| ---: " * 8 + "|",
    ]
    for key, row in found.items():
        law, side, strata, n = key.split("/")
        names = ("t", "alone 975", "alone 95", "known 975", "known 95", "mark")
        cells = [f"{100 * row[f'{name} lower']:.1f}, {100 * row[f'{name} upper']:.1f}" for name in names]
        far = f"{row['width']:.2f}" if math.isfinite(row["width"]) else "–"
        lines.append(
            f"| {LAWS[law].words} | {side} | {'differ' if strata == 'strata' else strata} | {int(n):,} "
            f"| {' | '.join(cells)} | {far} |"
        )
    paragraphs = [textwrap.fill(" ".join(text.split()), 118) for text in (head, verdict)]
    return "\n\n".join(["# How often limits to one side are wrong", *paragraphs, "\n".join(lines)]) + "\n"


if __name__ == "__main__":
    run_study("sides", __doc__, "one_sided", cells, table)
