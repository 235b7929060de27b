"""What to know about draws before believing their interval."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from pscrub.estimate.estimate import RARE, Estimate
from pscrub.outcomes import Outcome, Said

FEW = 30
"""Degrees of freedom below which the error itself is too uncertain to go unmentioned."""


class Concern(Outcome):
    """What may be wrong with an interval."""

    NOT_FINITE = (
        "non-finite loss",
        "non-finite loss: the scrubbed expected loss is {value}; f is infinite or NaN on {bad:,} of {draws:,} draws",
    )
    NO_VARIATION = (
        "no variation",
        "no variation: f was the same within every pair of {draws:,} draws; rare values may be missed",
    )
    TOO_FEW = (
        "too few draws",
        "too few draws: the error rests on {df:.0f} degrees of freedom ({draws:,} draws), from few or rare large "
        "losses",
    )
    RARE_VALUES = "rare values", "rare events: f is {usual:g} on all but {others:,} of {draws:,} draws"
    RARE_PAIRS = (
        "rare pairs",
        "rare events: {half:,} of {pairs:,} pairs of draws make up half of the squared error",
    )


def find_concerns(f: Tensor, estimate: Estimate) -> Iterator[Said]:
    """What to know about an estimate's draws before believing its interval, each beginning with its name.

    The names: "non-finite loss", "no variation", "too few draws", "rare events".

    Args:
        f: float64 [2 P], pair by pair.
        estimate: of their mean.
    """
    bad = int((~f.isfinite()).sum())
    if bad:
        yield Concern.NOT_FINITE.say(value=estimate.value, bad=bad, draws=len(f))
        return
    v = (f.double().reshape(-1, 2).diff().squeeze(1) / 2).square()
    if not bool(v.any()):
        yield Concern.NO_VARIATION.say(draws=len(f))
        return
    if estimate.df < FEW:
        yield Concern.TOO_FEW.say(df=estimate.df, draws=len(f))
    values, counts = f.unique(return_counts=True)
    if len(values) <= 5 and len(f) - int(counts.max()) < RARE:
        others = len(f) - int(counts.max())
        yield Concern.RARE_VALUES.say(usual=float(values[counts.argmax()]), others=others, draws=len(f))
    else:
        heaviest = v.sort(descending=True).values.cumsum(0)
        half = int((heaviest < heaviest[-1] / 2).sum()) + 1
        if half <= len(v) / 100 or (half <= 2 and len(v) >= 20):
            yield Concern.RARE_PAIRS.say(half=half, pairs=len(v))
