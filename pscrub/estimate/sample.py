"""Losses that were drawn, as estimates ask about them: one by one, and sums of those that are not kept so."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pscrub.estimate import intervals
from pscrub.estimate.intervals import Moments
from pscrub.estimate.known import FEW_VALUES
from pscrub.estimate.sums import MOMENTS, Sums, find_sums


class Sample:
    """Losses of pairs of draws.

    What is asked of losses that are all kept is worked out from them; with sums it is the same to rounding, but for
    `bounded_ends`, of which see there.

    Args:
        f: float64 [2 P], those that are kept, pair by pair.
        sums: of rounds beside them.
    """

    def __init__(self, f: Tensor, sums: Sums | None = None) -> None:
        self.f, self.sums = f, sums

    @classmethod
    def of(cls, f: Tensor | Sample) -> Sample:
        """Losses as a sample."""
        return f if isinstance(f, Sample) else cls(f)

    def __len__(self) -> int:
        return len(self.f) + (0 if self.sums is None else int(self.sums.column("draws").sum()))

    @cached_property
    def _lines(self) -> Tensor | None:
        """float64 [lines, MOMENTS]: the sums, those of the kept draws first; None where all are kept."""
        if self.sums is None:
            return None
        return torch.cat([find_sums(self.f.double()), self.sums.moments]) if len(self.f) else self.sums.moments

    def _column(self, name: str) -> Tensor:
        assert self._lines is not None, "all draws are kept"
        return self._lines[:, MOMENTS.index(name)]

    @cached_property
    def bad(self) -> int:
        """How many are not finite."""
        return int((~self.f.isfinite()).sum()) if self._lines is None else int(self._column("bad").sum())

    @cached_property
    def moments(self) -> Moments:
        """Their mean, its standard error from pairs, and its degrees of freedom."""
        if self._lines is None:
            return intervals.find_moments(self.f.double().numpy())
        total, squares, fourths = (np.asarray(float(self._column(x).sum())) for x in ("total", "squares", "fourths"))
        return intervals.moments_of_sums(total / len(self), squares, fourths, len(self))

    @cached_property
    def least(self) -> float:
        """The least."""
        return float(self.f.min() if self._lines is None else self._column("least").min())

    @cached_property
    def greatest(self) -> float:
        """The greatest."""
        return float(self.f.max() if self._lines is None else self._column("greatest").max())

    @cached_property
    def mean(self) -> float:
        """Their mean."""
        return float(self.f.mean() if self._lines is None else self.moments.value)

    @cached_property
    def variance(self) -> float:
        """That of one draw, strata's means included."""
        if self._lines is None:
            return float(self.f.var())
        n, total = self._column("draws"), self._column("total")
        between = (n * (total / n - self.mean).square()).sum()
        return float(self._column("spread").sum() + between) / (len(self) - 1)

    @cached_property
    def apart(self) -> float:
        """The largest difference within a pair."""
        if self._lines is None:
            return float((self.f[::2] - self.f[1::2]).abs().max())
        return float(self._column("apart").max())

    @cached_property
    def size(self) -> float:
        """The largest |f|."""
        return float(self.f.abs().max()) if self._lines is None else max(abs(self.least), abs(self.greatest))

    @cached_property
    def values(self) -> set[float]:
        """What f took; of more than FEW_VALUES some, and more than FEW_VALUES."""
        drawn = set(self.f[:64].unique().tolist())
        drawn = drawn if len(drawn) > FEW_VALUES else set(self.f.unique().tolist())
        return drawn if self.sums is None else drawn | set(self.sums.pictures[0].tolist())

    def count(self, value: float) -> int:
        """How many are that value, one of a few."""
        found = int((self.f == value).sum())
        if self.sums is not None:
            values, counts = self.sums.pictures
            found += round(float(counts[values == value].sum()))
        return found

    @property
    def most_common(self) -> tuple[float, int]:
        """Of a few values the one that most are, and how many are."""
        if self.sums is None:
            values, counts = self.f.unique(return_counts=True)
            return float(values[counts.argmax()]), int(counts.max())
        usual = max(sorted(self.values), key=self.count)
        return usual, self.count(usual)

    def bounded_ends(
        self, name: str, level: float, bounds: tuple[float, float], binary: bool, best: int
    ) -> intervals.Ends:
        """The ends of an interval that needs bounds.

        Of rounds that are summed, more than POINTS values are brought to as many points: an interval by betting holds
        as it does for the losses, and may be wider.

        Args:
            name: "betting", "bernstein" or "sequence", which is by betting too.
            level: of the interval.
            bounds: of f; what is farther out is so by rounding.
            binary: f takes no other values.
            best: draws at which a sequence is narrowest.
        """
        kept, when = self.f.double().clamp(*bounds).numpy(), best if name == "sequence" else None
        if self.sums is None:
            if name == "bernstein":
                return intervals.bernstein_ends(kept, level, bounds)
            return intervals.betting_ends(kept, level, bounds, binary, when)
        m, span = self.moments, bounds[1] - bounds[0]
        if name == "bernstein":
            low, high = intervals.bernstein_of_moments(m.value, m.se, m.draws, level, bounds)
            return intervals.Ends(m.value, low, high, m.se, m.df)
        values, counts = intervals.tally(kept)
        counts = np.ones(len(values)) if counts is None else counts
        more, times = self.sums.pictures
        x = (np.concatenate([values, np.clip(more, *bounds)]) - bounds[0]) / span
        tallied = x, np.concatenate([counts, times])
        ends = bounds[0] + span * np.array(intervals.betting_of_tally(tallied, m.draws, level, binary, when))
        return intervals.Ends(m.value, ends[0], ends[1], m.se, m.df)

    @cached_property
    def is_finite(self) -> bool:
        """Whether all are."""
        return not self.bad

    def keeps(self, bounds: tuple[float, float]) -> bool:
        """Whether all that are finite lie between bounds, ends included."""
        inside = bool(((self.f >= bounds[0]) & (self.f <= bounds[1]) | ~self.f.isfinite()).all())
        if self.sums is None or not inside:
            return inside
        least, greatest = self.sums.column("least"), self.sums.column("greatest")
        out = (least < bounds[0]) & least.isfinite() | (greatest > bounds[1]) & greatest.isfinite()
        return not bool(out.any())

    @property
    def pairs(self) -> Tensor:
        """float64 [kept pairs]: (a - b)^2 / 4 of those that are kept."""
        return (self.f.double().reshape(-1, 2).diff().squeeze(1) / 2).square()

    def __repr__(self) -> str:
        return f"Sample({len(self):,} losses, {len(self.f):,} kept, mean {self.mean if len(self) else math.nan:.6g})"
