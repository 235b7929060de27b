"""The difference of two expected losses in the population that rows are a sample of, and how sure it is.

Both losses are U-statistics of the rows (`law.distinct`). The variance over samples of rows is the infinitesimal
jackknife's, sum_k (d difference / d log w_k)^2, as in `population`. That is what single rows do. Where they do nothing,
as under a hypothesis that lacks nothing at all, pairs of rows do the rest, which the jackknife then takes for less than
it is as often as for more: a bound of what pairs do is added, and vanishes against the rest where blocks are large.

Source: Hoeffding, A class of statistics with asymptotically normal distribution (1948); Efron and Stein (1981).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from pscrub.estimate.estimate import Estimate
from pscrub.estimate.freedom import Shape
from pscrub.law.distinct import ApartLaw, Distinct
from pscrub.outcomes import Outcome


class Held(Outcome):
    """How a difference in the population was estimated."""

    APART = (
        "rows apart",
        "none of {units} twice in a draw, jackknife over {rows:,} {units} and a bound for pairs of them; draws: t",
    )


@dataclass(frozen=True, eq=False)
class Apart:
    """f of draws of rows that stand apart, with the law that they come from.

    Args:
        law: of the draws.
        drawn: rows, two by two from strata of the root.
        f: float64 [draws].
    """

    law: ApartLaw
    drawn: Distinct
    f: Tensor


@dataclass(frozen=True)
class Difference:
    """A difference of two expected losses in the population.

    Args:
        estimate: second less first, in f's units.
        complete: share of the draws whose sites all had a row to be given: the others are left out.
        parts: variances that the estimate's is the sum of: what single rows do, pairs of rows, the draws.
    """

    estimate: Estimate
    complete: float
    parts: tuple[float, float, float]


def difference_apart(first: Apart, second: Apart, level: float) -> Difference:
    """How much more the second expects than the first in the population, from draws on common random numbers.

    Args:
        first: draws of one hypothesis.
        second: of another, its roots the first's.
        level: nominal coverage.
    """
    both = first.drawn.complete & second.drawn.complete
    share = float(both.double().mean())
    weights, units = first.law.weights, "rows" if len(first.law.weights) == len(first.law.rows) else "clusters"
    rows = float(weights.sum() ** 2 / weights.square().sum())
    count = int(both.sum())
    if count < 4 or rows < 4:
        nothing = Estimate(
            math.nan, -math.inf, math.inf, level, math.inf, 1.0, count, Held.APART.say(rows=int(rows), units=units)
        )
        return Difference(nothing, share, (math.inf, math.inf, math.inf))
    change = torch.where(both, second.f - first.f, 0.0)
    value = float(change.sum()) / count
    centred = torch.where(both, change - value, 0.0)
    halves = torch.stack([_gradient(first, second, both, half) for half in (0, 1)])
    # The halves' noise is independent, so that their product has none; twice its standard error keeps it safe.
    noise = float((halves[0] - halves[1]).square().sum()) / 2 / math.sqrt(rows)
    small = rows / (rows - 1)
    single = small * (max(float(halves[0] @ halves[1]), 0.0) + 2 * noise)
    pairs = 2 * float(centred.square() @ _pairs(first, second)) / count / rows
    draws = float(centred.square().sum()) / count / (count - 1)
    se = math.sqrt(single + pairs + draws)
    freedom = min(Shape.of(halves, rows).freedom * (se**2 / single) ** 2 if single > 0 else rows - 1, rows - 1)
    half_width = float(stats.t.ppf((1 + level) / 2, freedom)) * se
    method = Held.APART.say(rows=int((weights > 0).sum()), units=units)
    ends = value - half_width, value + half_width
    estimate = Estimate(value, *ends, level, se, freedom, count, method, "draws and data")
    return Difference(estimate, share, (single, pairs, draws))


def _gradient(first: Apart, second: Apart, both: Tensor, half: int) -> Tensor:
    """float64 [units]: d difference / d log w of each, from the first or the second draws of the pairs."""
    mine = both.clone()
    mine[1 - half :: 2] = False
    count = max(int(mine.sum()), 1)
    total = torch.zeros_like(first.law.weights)
    for sign, each in ((1, second), (-1, first)):
        # The score's expectation is 0, so that f may be centred, which takes most of the noise away.
        f = torch.where(mine, each.f, 0.0)
        centred = torch.where(mine, f - f.sum() / count, 0.0)
        total += sign * each.law.score(each.drawn, centred)
    return total / count


def _pairs(first: Apart, second: Apart) -> Tensor:
    """float64 [draws]: 1 / (units that a site could have had), the most of the sites that are not given the same."""
    most = torch.zeros(len(first.f), dtype=torch.float64)
    for one, other in ((second, first), (first, second)):
        for path, left in one.drawn.left.items():
            same = path in other.drawn.data and torch.equal(one.drawn.data[path], other.drawn.data[path])
            if not same:
                most = torch.maximum(most, torch.where(left > 0, 1.0 / left.clamp(min=1), 0.0).double())
    return most
