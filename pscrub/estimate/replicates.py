"""Estimates from replicates: draws that depend on one another within one of them, and not between (`law.permuted`).

The interval is made from the means of replicates. These come in pairs as draws do: the two of a pair independent and
alike, different pairs independent. That of independent draws would be wider than need be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pscrub.errors import StudyError
from pscrub.estimate import intervals
from pscrub.estimate.estimate import Estimate, Interval, Method, Why, widen
from pscrub.estimate.picking import FLAT, Pick, pick_interval
from pscrub.estimate.sample import Sample
from pscrub.estimate.sides import t_quantile
from pscrub.estimate.stopping import ROUND, estimate_losses
from pscrub.estimate.sums import Sums

REPLICATES = 64
"""Replicates in a round: their 32 pairs are enough for t, 4 % wider than the normal law, and long replicates deal more
evenly."""
LONGEST = 2048
"""Draws of a replicate beyond which there are more rounds, as one is evaluated whole."""
FEWEST = 8
"""Degrees of freedom of replicates' variance below which few of them make it up."""


def round_up(draws: int) -> int:
    """So many draws, as many for each of REPLICATES."""
    return REPLICATES * math.ceil(draws / REPLICATES)


def sizes_of_replicates(draws: int, size: int | None = None) -> Iterator[tuple[int, int]]:
    """(draws, replicates) of the rounds that so many draws of permuted donors, rounded up, are made in.

    Args:
        draws: how many.
        size: draws of a replicate; by default as many as there are REPLICATES to share them, LONGEST at most.

    >>> list(sizes_of_replicates(10_000)), list(sizes_of_replicates(200_000)), list(sizes_of_replicates(20_000, 256))
    ([(10048, 64)], [(131072, 64), (68928, 64)], [(16384, 64), (4096, 16)])
    """
    if size is None:
        left, most, unit = round_up(draws), REPLICATES * LONGEST, 0
    else:
        left, most, unit = 2 * size * math.ceil(draws / (2 * size)), max(ROUND // (2 * size), 1) * 2 * size, size
    for start in range(0, left, most):
        here = min(left - start, most)
        yield here, here // unit if unit else REPLICATES


def estimate_replicates(
    rounds: Sequence[Tensor],
    replicates: Sequence[int],
    rule: str,
    interval: Interval,
    sums: Sums | None = None,
) -> Estimate:
    """E_scrubbed from all rounds of replicates, with an interval from their means.

    The value is the mean of all draws. Whether the normal law is to be trusted is seen in the draws, as for independent
    ones (`picking.pick_interval`). If so, Student's t from the differences within pairs of replicates, on no more
    degrees of freedom than the draws have: heavy tails are seen in these sooner. If not, betting or empirical Bernstein
    on replicates' means, which are losses with the same bounds: they cover at their level, and are wide, as replicates
    are few; the method says so. Where replicates differ by next to nothing, or few of them make up their variance, no
    less than the interval of independent draws is given: these vary as much or more, but for one part in the draws of
    a replicate.

    Where the first round set how many draws to make, t is no narrower than that round allows (`estimate_losses`).

    Args:
        rounds: float64 [draws] each, pair by pair, of each replicate in turn.
        replicates: of each round; then of those that are summed.
        rule: "draws" or "width": how their number was found.
        interval: which is asked for; no sequence.
        sums: of rounds whose draws are not kept.
    """
    f = Sample(torch.cat([*rounds, torch.empty(0, dtype=torch.float64)]), sums)
    means = [r.double().reshape(-1, k).mean(0) for r, k in zip(rounds, replicates[: len(rounds)], strict=True)]
    draws = [*map(len, rounds)]
    if sums is not None:
        means += sums.means.split([*replicates[len(rounds) :]])
        draws += map(int, sums.column("draws").tolist())
    pairs = intervals.t_of_moments(f.moments, interval.level)
    sizes, most = [n // k for n, k in zip(draws, replicates, strict=True)], float(pairs.df)
    own = _t(means, sizes, interval.level, most)
    picked = pick_interval(f, pairs, interval.level, interval.bounds, interval.known)
    name: str = picked.name
    why = Why.PICKED.say(reason=picked.reason)
    if interval.kind != "auto" and name != "none":
        name, why = interval.kind, Why.ASKED.say()
    if name in ("betting", "bernstein"):
        return _bounded(own, torch.cat(means), name, picked, why)
    if name == "none" or _few(own, f):
        as_drawn = estimate_losses(f, f.f[: draws[0]], rule, interval)
        method = Method.AS_INDEPENDENT.wrap(as_drawn.method)
        return replace(as_drawn, low=min(as_drawn.low, own.low), high=max(as_drawn.high, own.high), method=method)
    estimate = replace(own, method=Method.REPLICATES.say(replicates=len(torch.cat(means)), why=why))
    if rule == "width":
        first = _t(means[:1], sizes[:1], interval.level, most)
        half = first.width / 2 * math.sqrt(draws[0] / len(f))
        estimate = widen(estimate, half, Method.TWO_STAGE.wrap(estimate.method))
    return estimate


def _t(means: Sequence[Tensor], sizes: Sequence[int], level: float, most: float) -> Estimate:
    """The mean of all draws with t from pairs of replicates, each weighted by its draws, on `most` degrees at most."""
    n = sum(size * len(each) for size, each in zip(sizes, means, strict=True))
    parts = torch.cat([each * (size / n) for size, each in zip(sizes, means, strict=True)])
    ends = intervals.t_ends((parts * len(parts)).numpy(), level)  # of which the mean is the sum of the parts
    value, se, df = float(ends.value), float(ends.se), min(float(ends.df), most)
    half = float(t_quantile((1 + level) / 2, df)) * se
    return Estimate(value, value - half, value + half, level, se, df, n, "t")


def _few(own: Estimate, f: Sample) -> bool:
    """Whether replicates differ by next to nothing, or few of them make up their variance."""
    return own.se <= FLAT * (f.greatest - f.least) or own.df < FEWEST


def _bounded(own: Estimate, means: Tensor, name: str, picked: Pick, why: str) -> Estimate:
    """The interval that needs the loss's bounds, which are those of the means of replicates."""
    bounds = picked.bounds
    if bounds is None:
        raise StudyError(f"a {name} interval needs the loss's bounds, and f is not 0/1; give bounds=(least, greatest)")
    array = means.clamp(*bounds).numpy()  # of rounding
    ends_of = intervals.betting_ends if name == "betting" else intervals.bernstein_ends
    ends = ends_of(array, own.level, bounds)
    kind = Method.BETTING if name == "betting" else Method.BERNSTEIN
    method = kind.say(least=bounds[0], greatest=bounds[1], why=why)
    low, high = min(float(ends.low), own.value), max(float(ends.high), own.value)
    return replace(own, low=low, high=high, method=Method.OF_REPLICATES.wrap(method, replicates=len(means)))
