"""What interval a sum of squares makes: the degrees of freedom of its t law, and the side on which it errs.

A variance that is itself estimated from few blocks is uncertain, and moves with the estimate: where the truth is far
up, estimate and variance are often low together, and the truth lies above the upper end more often than it should. Both
are known from the same changes, of the estimate and of the sum of squares with each unit left out.

Source: Satterthwaite, An approximate distribution of estimates of variance components (1946); Welch (1947); Johnson,
Modified t tests and confidence intervals for asymmetrical populations (1978); Hall (1992), chapter 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

FARTHEST = 0.5
"""Of a t quantile, how far an end may be moved: beyond, the expansion that says so does not hold."""


@dataclass(frozen=True)
class Shape:
    """Of an estimate whose variance is a sum of squares, one for each unit.

    Args:
        squares: the sum.
        freedom: its degrees of freedom: of the multiple of a chi-square that varies as much for its mean.
        shared: the covariance of estimate and sum of squares.
        third: the estimate's third moment about its mean.
    """

    squares: float
    freedom: float
    shared: float = 0.0
    third: float = 0.0

    @classmethod
    def of(cls, gradient: Tensor, rows: float, bends: Tensor | None = None) -> Shape:
        """From the terms' roots, twice estimated, and from how the terms hang together.

        Degrees of freedom from the moments of the terms, `rows` - 1 for normal ones and fewer for others; and, where it
        is known what the sum owes to each unit through all the others' terms, from the jackknife of the sum itself.
        At least 1.

        Args:
            gradient: float64 [2, units], with independent noise.
            rows: as many units of equal weight.
            bends: float64 [2, units], see `estimate.jackknife.Population`; None where units do not hang together.

        >>> import torch
        >>> round(Shape.of(torch.tensor([[1.0, -1.0, 2.0, -2.0]] * 2), 4).freedom)
        3
        """
        v, most = gradient.mean(0).square(), max(rows - 1, 1.0)
        total, spread = float(v.sum()), float(v.square().sum() - v.sum() ** 2 / rows)
        freedom = min(max(2 * total**2 / spread, 1.0), most) if spread > 0 else most
        squares = gradient[0] * gradient[1]
        total, third, pairs = float(squares.sum()), float((squares * gradient.mean(0)).sum()), 0.0
        if bends is not None:
            pairs = float((gradient * bends).mean(0).sum())
            first, second = squares + 2 * bends - (squares + 2 * bends).mean(1, keepdim=True)
            spread = float(first @ second)
            if total > 0 and spread > 0:
                freedom = max(min(freedom, 2 * total**2 / spread), 1.0)
        return cls(total, freedom, third + 2 * pairs, third + 3 * pairs)

    def among(self, blocks: float, share: float) -> Shape:
        """With no more degrees of freedom than blocks give, where what rows do together is some share of the variance.

        The jackknife of few blocks' sums does not see how uncertain these are where they happen to be small.

        >>> Shape(1.0, 20.0).among(5.0, 1.0).freedom, Shape(1.0, 20.0).among(5.0, 0.1).freedom
        (5.0, 20.0)
        """
        share = min(max(share, 0.0), 1.0)
        return replace(self, freedom=max(min(self.freedom, blocks / share**2), 1.0)) if share else self

    def blurred(self, variance: float, noise: float) -> Shape:
        """With as many degrees of freedom as are left when the variance has a standard error of its own besides.

        >>> Shape(1.0, 20.0).blurred(1.0, 0.1**0.5).freedom
        10.0
        """
        if not (noise > 0 and variance > 0):
            return self
        return replace(self, freedom=max(1 / (1 / self.freedom + (noise / variance) ** 2 / 2), 1.0))

    def farther(self, quantile: float, variance: float) -> tuple[float, float]:
        """How much farther out than a quantile the lower and the upper end belong, in standard errors.

        To second order, from the skewness of estimate and variance; never nearer, as where blocks are small the
        jackknife counts what rows do together too often.

        Args:
            quantile: of the t law.
            variance: the estimate's, which may be less than the sum of squares.

        >>> Shape(1.0, 50.0).farther(2.0, 1.0), Shape(1.0, 50.0, -0.3, -0.3).farther(2.0, 1.0)
        ((0.0, 0.0), (0.45, 0.0))
        """
        scale = (max(variance, 0.0) * max(self.squares, 0.0)) ** 0.75
        if not scale > 0:
            return 0.0, 0.0
        most = FARTHEST * quantile
        shift = (quantile**2 * (self.shared / 2 - self.third / 6) + self.third / 6) / scale
        return min(max(0.0, -shift), most), min(max(0.0, shift), most)


def welch(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    """The degrees of freedom of a sum of independent estimates of variances; infinite if all are 0.

    >>> welch((1.0, 1.0), (4.0, 4.0))
    8.0
    """
    below = sum(v**2 / df for v, df in zip(variances, freedoms, strict=True))
    return float(sum(variances) ** 2 / below) if below > 0 else math.inf
