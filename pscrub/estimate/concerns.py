"""What to know about draws before believing their interval."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from pscrub.estimate.estimate import Estimate, mean_of_pairs
from pscrub.estimate.known import Known
from pscrub.estimate.picking import RARE, hidden, is_flat
from pscrub.estimate.sample import Sample
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
    NOT_DRAWN = (
        "outliers not drawn",
        "outliers not drawn: f reaches from {least:.4g} to {greatest:.4g} on D and on the pairs of E_randomised, and "
        "from {low:.4g} to {high:.4g} on {draws:,} draws; a few more that far out would move the mean by more than t "
        "allows for",
    )


def find_concerns(f: Tensor | Sample, estimate: Estimate, known: Known | None = None) -> Iterator[Said]:
    """What to know about an estimate's draws before believing its interval, each beginning with its name.

    The names: "non-finite loss", "no variation", "too few draws", "rare events", "outliers not drawn".

    Args:
        f: float64 [2 P], pair by pair; of a sample with sums, heavy pairs are looked for among those that are kept.
        estimate: of their mean.
        known: what f was seen to be elsewhere.
    """
    f = Sample.of(f)
    if f.bad:
        yield Concern.NOT_FINITE.say(value=estimate.value, bad=f.bad, draws=len(f))
        return
    if is_flat(f, None if known is None else known.bounds):
        yield Concern.NO_VARIATION.say(draws=len(f))
        return
    if estimate.df < FEW:
        yield Concern.TOO_FEW.say(df=estimate.df, draws=len(f))
    if known is not None and _beyond(f, estimate, known):
        ends = {"least": known.seen.least, "greatest": known.seen.greatest, "low": f.least + 0.0}
        yield Concern.NOT_DRAWN.say(**ends, high=f.greatest, draws=len(f))
    usual, times = f.most_common if len(f.values) <= 5 else (0.0, 0)
    if len(f) - times < RARE and len(f.values) <= 5:
        yield Concern.RARE_VALUES.say(usual=usual, others=len(f) - times, draws=len(f))
    elif len(v := f.pairs):
        heaviest = v.sort(descending=True).values.cumsum(0)
        half = int((heaviest < heaviest[-1] / 2).sum()) + 1
        if half <= len(v) / 100 or (half <= 2 and len(v) >= 20):
            yield Concern.RARE_PAIRS.say(half=half, pairs=len(v))


def _beyond(f: Sample, estimate: Estimate, known: Known) -> bool:
    """Whether values are known that lie beyond all draws, so far that as many as may go unseen would matter."""
    t = mean_of_pairs(f, estimate.level)
    return hidden(f, t.se, t.width / 2, estimate.level, known)
