"""What f can be, as far as its values on D and on the pairs of E_randomised show: more than draws alone show of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pscrub.records import Equal

FEW_VALUES = 8
"""Distinct values of f up to which they are all remembered."""
PROBED = 64
"""Values that mostly show whether there are more."""


@dataclass(frozen=True)
class Seen:
    """Which finite values f was seen to have, wherever it was evaluated but for draws.

    Args:
        least: the least; infinity if none was seen.
        greatest: the greatest; -infinity if none was seen.
        values: all of them in order, where there are at most FEW_VALUES; else empty.
        pairs: pairs of an output and an independent label that were looked at, all or sampled.
    """

    least: float = math.inf
    greatest: float = -math.inf
    values: tuple[float, ...] = ()
    pairs: int = 0

    @classmethod
    def of(cls, f: Tensor, pairs: int = 0) -> Seen:
        """Those in a tensor of any shape; `pairs` if these were pairs.

        >>> Seen.of(torch.tensor([0.0, 1.0, 0.0, math.nan]))
        Seen(least=0.0, greatest=1.0, values=(0.0, 1.0), pairs=0)
        """
        f = f.reshape(-1)
        f = f if bool(f.isfinite().all()) else f[f.isfinite()]
        if not f.numel():
            return cls(pairs=pairs)
        least, greatest = (float(end) + 0.0 for end in f.aminmax())  # no -0.0, which people would read
        values: list[float] = []
        rest = f if len(f[:PROBED].unique()) <= FEW_VALUES else f[:0]
        while rest.numel() and len(values) <= FEW_VALUES:
            values.append(float(rest[0]))
            rest = rest[rest != rest[0]]
        few = 0 < len(values) <= FEW_VALUES
        return cls(least, greatest, tuple(sorted(values)) if few else (), pairs)

    @property
    def nothing(self) -> bool:
        """Whether no value was seen."""
        return self.least > self.greatest

    def join(self, other: Seen) -> Seen:
        """What was seen here or there."""
        if self.nothing or other.nothing:
            some = other if self.nothing else self
            return Seen(some.least, some.greatest, some.values, self.pairs + other.pairs)
        values = sorted({*self.values, *other.values}) if self.values and other.values else []
        few = tuple(values) if len(values) <= FEW_VALUES else ()
        ends = min(self.least, other.least), max(self.greatest, other.greatest)
        return Seen(*ends, few, self.pairs + other.pairs)


def _none() -> Tensor:
    return torch.empty(0, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Known(Equal):
    """What is known of f beside draws: its values wherever it was evaluated, and how they are spread there.

    A range that was seen is not one that was proven: f of scrubbed inputs may leave it, and then it is no bound.

    Args:
        seen: its values on D and on all pairs that E_randomised was made from.
        weights: float64 [N], D's.
        losses: float64 [N], f on D.
        randomised: float64 [pairs], f on sampled pairs; empty if the baseline was given.
    """

    seen: Seen = Seen()
    weights: Tensor = field(default_factory=_none)
    losses: Tensor = field(default_factory=_none)
    randomised: Tensor = field(default_factory=_none)

    @classmethod
    def of(cls, weights: Tensor, losses: Tensor, randomised: Tensor, seen: Seen | None = None) -> Known:
        """What values on D and on sampled pairs show, and what was seen of others.

        >>> halves, on_d, on_pairs = torch.tensor([0.5, 0.5]), torch.tensor([0.0, 0.5]), torch.tensor([1.0])
        >>> known = Known.of(halves, on_d, on_pairs)
        >>> known.bounds, known.values
        ((0.0, 1.0), (0.0, 0.5, 1.0))
        """
        own = Seen.of(losses[weights > 0]).join(Seen.of(randomised, len(randomised)))
        return cls(own if seen is None else own.join(seen), weights, losses, randomised)

    @property
    def values(self) -> tuple[float, ...]:
        """All values that f was seen to have, if few and at least two; else none."""
        return self.seen.values if len(self.seen.values) > 1 else ()

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Between what f was seen to be, where that tells: few values, or pairs that show what swaps can do."""
        if not self.seen.least < self.seen.greatest or not (self.values or self.seen.pairs):
            return None
        return self.seen.least, self.seen.greatest

    @property
    def of_difference(self) -> Known:
        """What is known of a difference of two such losses; nothing of how it is spread."""
        ends, values = self.bounds, self.values
        if ends is None:
            return Known()
        span = ends[1] - ends[0]
        apart = tuple(sorted({a - b for a in values for b in values}))
        return Known(Seen(-span, span, apart if len(apart) <= FEW_VALUES else (), self.seen.pairs))

    def unseen(self, low: float, high: float, centre: float, near: float) -> float:
        """The largest mean square, under D or under the pairs, of what lies outside [low, high] and far from a centre.

        Args:
            low: of draws.
            high: of draws.
            centre: from which squares are taken.
            near: distance from the centre up to which values are left out.
        """
        found = 0.0
        uniform = torch.full_like(self.randomised, 1 / max(len(self.randomised), 1))
        for weights, f in ((self.weights, self.losses), (uniform, self.randomised)):
            out = (weights > 0) & f.isfinite() & ((f < low) | (f > high)) & ((f - centre).abs() > near)
            found = max(found, float((weights[out] * (f[out] - centre).square()).sum()))
        return found
