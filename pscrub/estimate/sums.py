"""What estimates need of losses that are not kept one by one: a few sums of each round, and a coarse picture of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from pscrub.estimate.intervals import Array, onto_grid
from pscrub.records import Equal

POINTS = 64
"""Values that the losses of a round are brought to; where they are no more, these are the losses themselves."""
MOMENTS = ("draws", "bad", "total", "spread", "squares", "fourths", "least", "greatest", "apart")
"""What the columns of `Sums.moments` are."""


def _nothing() -> Tensor:
    return torch.empty(0, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Sums(Equal):
    """Of rounds whose draws are not kept one by one, a line each, in order.

    Args:
        moments: float64 [rounds, MOMENTS]. "draws" of the round; of these "bad" ones that are not finite; "total" of f;
            "spread", the squares about the mean added up; over pairs (a, b) the sum of v = (a - b)^2 / 4, "squares",
            and of v^2, "fourths"; "least" and "greatest" f; "apart", the largest |a - b|.
        values: float64 [rounds, POINTS], what f took, or points between its ends.
        counts: float64 [rounds, POINTS], how often; shared out to the points so that the mean stays. 0: no value.
        means: float64 [replicates], of each replicate of permuted donors, round by round; else none.
    """

    moments: Tensor
    values: Tensor
    counts: Tensor
    means: Tensor = field(default_factory=_nothing)

    @classmethod
    def of(cls, f: Tensor, replicates: int = 0) -> Sums:
        """Of one round.

        Args:
            f: float64 [2 P], pair by pair.
            replicates: that it is made up of, each in turn; 0 if draws are independent.

        >>> Sums.of(torch.tensor([0.0, 1.0, 1.0, 1.0])).moments[0].tolist()
        [4.0, 0.0, 3.0, 0.75, 0.25, 0.0625, 0.0, 1.0, 1.0]
        """
        moments = find_sums(f.double())
        points, often = torch.zeros(2, 1, POINTS, dtype=torch.float64)
        if not float(moments[0, MOMENTS.index("bad")]):
            values, counts = _picture(f.double().numpy())
            points[0, : len(values)], often[0, : len(values)] = torch.from_numpy(values), torch.from_numpy(counts)
        means = f.double().reshape(-1, replicates).mean(0) if replicates else _nothing()
        return cls(moments, points, often, means)

    @classmethod
    def join(cls, several: Iterable[Sums]) -> Sums | None:
        """All their lines, in turn; None of none."""
        several = list(several)
        if not several:
            return None
        return cls(*(torch.cat([getattr(each, name.name) for each in several]) for name in fields(cls)))

    def line(self, replicates: int, i: int, before: int) -> Sums:
        """One of the rounds.

        Args:
            replicates: of it.
            i: which.
            before: replicates of those before it.
        """
        here, dealt = slice(i, i + 1), slice(before, before + replicates)
        return Sums(self.moments[here], self.values[here], self.counts[here], self.means[dealt])

    def column(self, name: str) -> Tensor:
        """float64 [rounds]: one of MOMENTS."""
        return self.moments[:, MOMENTS.index(name)]

    @property
    def pictures(self) -> tuple[Array, Array]:
        """Values and how often each was drawn, over all rounds; not finite losses are left out."""
        here = self.counts > 0
        values, place = self.values[here].unique(return_inverse=True)
        counts = torch.zeros(len(values), dtype=torch.float64).index_add(0, place, self.counts[here])
        return values.numpy(), counts.numpy()


def find_sums(f: Tensor) -> Tensor:
    """float64 [1, MOMENTS] of losses, float64 [2 P], pair by pair."""
    a, b = f.reshape(-1, 2).T
    v, bad = (a - b).square() / 4, (~f.isfinite()).sum()
    told = [bad, f.sum(), (f - f.mean()).square().sum(), v.sum(), v.square().sum(), f.min(), f.max()]
    return torch.stack([torch.tensor(len(f)), *told, (a - b).abs().max()]).double()[None]


def _picture(f: Array) -> tuple[Array, Array]:
    values, counts = np.unique(f, return_counts=True)
    often = counts.astype(np.float64)
    return (values, often) if len(values) <= POINTS else onto_grid(values, often, POINTS)
