"""Ends of an interval around a value, as ratios and sums are made from them, and those of a sampled baseline."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats
from torch import Tensor

from pscrub.estimate.intervals import bernstein_of_moments, betting_of_counts
from pscrub.estimate.known import FEW_VALUES, Seen
from pscrub.estimate.picking import RARE

if TYPE_CHECKING:
    from pscrub.estimate.estimate import Estimate


@dataclass(frozen=True)
class Limits:
    """A value and the ends of its interval, which need not be equally far away."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, estimate: Estimate) -> Limits:
        """Those of an estimate."""
        return cls(estimate.value, estimate.low, estimate.high)

    @property
    def finite(self) -> bool:
        """Whether there are ends."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def less(self, other: Limits) -> Limits:
        """Of the difference of two independent values: distances to the ends added as squares (`recovered.ratio`)."""
        value = self.value - other.value
        low = value - math.hypot(self.value - self.low, other.high - other.value)
        return Limits(value, low, value + math.hypot(self.high - self.value, other.value - other.low))


@dataclass(frozen=True)
class Sampled:
    """What is known of the losses that a baseline is the mean of, drawn independently and alike.

    Args:
        seen: values that f had among them and on D; nothing for a baseline that a caller made.
        df: degrees of freedom of its standard error, from the fourth moment; infinite if not known.
        values: all values that were drawn, where they are few; else empty.
        counts: how often each was drawn.
    """

    seen: Seen = Seen()  # noqa: RUF009 - frozen
    df: float = math.inf
    values: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    @classmethod
    def of(cls, f: Tensor, seen: Seen) -> Sampled:
        """Of a sample, float64 [draws], and what was seen of f there and elsewhere."""
        v = (f - f.mean()).square()
        total, squares = float(v.sum()), float(v.square().sum())
        spread = squares - total**2 / len(f)
        df = min(max(2 * total**2 / spread, 1.0), len(f) - 1.0) if spread > 0 else len(f) - 1.0
        if not Seen.of(f).values:
            return cls(seen, df)
        values, counts = f.unique(return_counts=True)
        return cls(seen, df, tuple(values.tolist()), tuple(counts.tolist()))

    def pool(self, other: Sampled) -> Sampled:
        """Of both samples together."""
        seen, df = self.seen.join(other.seen), self.df + other.df
        if not self.values or not other.values:
            return Sampled(seen, df)
        both = Counter(dict(zip(self.values, self.counts, strict=True)))
        both.update(dict(zip(other.values, other.counts, strict=True)))
        if len(both) > FEW_VALUES:
            return Sampled(seen, df)
        return Sampled(seen, df, tuple(sorted(both)), tuple(both[value] for value in sorted(both)))

    def is_rare(self, draws: int) -> bool:
        """Whether fewer than RARE of so many draws were not the usual one of few values."""
        return bool(self.counts) and draws - max(self.counts) < RARE

    def limits(self, value: float, se: float, draws: int, level: float) -> Limits:
        """The ends of the mean's interval: t, or with bounds where the sample is rare events.

        By betting where fewer than RARE of few values are not the usual one; empirical Bernstein where the error rests
        on fewer than RARE degrees of freedom. The bounds are what f was seen to be; without ends where that is one
        value only, for then nothing says what was missed.

        Args:
            value: the mean.
            se: its standard error.
            draws: how many.
            level: nominal coverage.
        """
        rare = self.is_rare(draws)
        half = float(stats.t.ppf((1 + level) / 2, self.df)) * se
        bounds = self.seen.least, self.seen.greatest
        if self.seen.nothing or not (rare or self.df < RARE or not se):
            return Limits(value, value - half, value + half)
        if not bounds[0] < bounds[1]:
            return Limits(value, -math.inf, math.inf)
        if rare:
            values, counts = np.array(self.values), np.array(self.counts, dtype=float)
            return Limits(value, *betting_of_counts(values, counts, level, bounds, len(self.seen.values) == 2))
        low, high = bernstein_of_moments(value, se, draws, level, bounds)
        return Limits(value, float(low), float(high))
