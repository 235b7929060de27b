"""Estimates of expectations under the scrubbing law, and intervals for the uncertainty of the draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats
from torch import Tensor

from pscrub.measures import Baseline


@dataclass(frozen=True)
class Estimate:
    """A value with an interval for the draws' uncertainty: D, its weights and the model are held fixed.

    Args:
        value: the estimate, in f's units or in per cent.
        low: lower end.
        high: upper end.
        level: nominal coverage of [low, high].
        se: standard error; 0.0 if exact.
        df: degrees of freedom of the standard error; infinite if exact.
        draws: draws averaged; 0 if exact.
        method: how value and interval were made.
    """

    value: float
    low: float
    high: float
    level: float
    se: float
    df: float
    draws: int
    method: str

    @property
    def exact(self) -> bool:
        """Whether there is nothing random about the value."""
        return self.draws == 0

    @property
    def width(self) -> float:
        """The interval's full width."""
        return self.high - self.low


def exactly(value: float, level: float, method: str) -> Estimate:
    """An estimate without error."""
    return Estimate(value, value, value, level, 0.0, math.inf, 0, method)


def mean_of_pairs(f: Tensor, level: float = 0.95) -> Estimate:
    """The mean of f with a t interval from the differences within pairs.

    Draws come two by two from strata of the root's datum (`program.stratified_rows`): the two of a pair independently
    and alike, different pairs from different strata. With v_i = (a_i - b_i)^2 / 4, the variance of the mean of P pairs
    is estimated by sum v_i / P^2 without bias, whatever the strata's means. Its degrees of freedom match the first two
    moments of that sum, 2 (sum v)^2 / (sum v^2 - (sum v)^2 / P): P for normal draws, fewer for heavy tails.

    Args:
        f: float64 [2 P], pair by pair.
        level: nominal coverage.

    >>> e = mean_of_pairs(torch.tensor([1.0, 3.0, 2.0, 4.0, 0.0, 1.0], dtype=torch.float64))
    >>> round(e.value, 4), round(e.se, 4), e.draws
    (1.8333, 0.5, 6)
    """
    pairs = f.double().reshape(-1, 2)
    p = len(pairs)
    v = (pairs[:, 0] - pairs[:, 1]).square() / 4
    total, squares = float(v.sum()), float(v.square().sum())
    se = math.sqrt(total) / p
    spread = squares - total**2 / p
    df = min(max(2 * total**2 / spread, 1.0), p) if spread > 0 else float(p)
    half = float(stats.t.ppf((1 + level) / 2, df)) * se
    value = float(pairs.mean())
    return Estimate(value, value - half, value + half, level, se, df, 2 * p, "t, within root strata")


def widened(estimate: Estimate, half: float, method: str) -> Estimate:
    """The estimate with an interval at least `half` to either side."""
    half = max(half, estimate.width / 2)
    v, e = estimate.value, estimate
    return Estimate(v, v - half, v + half, e.level, e.se, e.df, e.draws, method)


def recovered(scrubbed: Estimate, model: Baseline, randomised: Baseline) -> Estimate | None:
    """The loss recovered in per cent with its interval, never clipped; None where it has no meaning.

    (E_scrubbed - E_randomised) / (E_model - E_randomised). With exact baselines it is linear in E_scrubbed, whose
    interval carries over. With sampled ones Fieller's interval for a ratio of normal estimates is used. It is
    undefined when E_model - E_randomised is not distinguishable from 0 (at the interval's level, or to rounding).

    Source: appendix, section 2.1.

    >>> e = Estimate(1.5, 1.4, 1.6, 0.95, 0.05, 100, 200, "t")
    >>> r = recovered(e, Baseline(0.5, 0, 0, "exact"), Baseline(4.5, 0, 0, "exact"))
    >>> round(r.value, 6), round(r.low, 6), round(r.high, 6)
    (75.0, 72.5, 77.5)
    """
    top, bottom = scrubbed.value - randomised.value, model.value - randomised.value
    rounding = 1e-9 * max(abs(model.value), abs(randomised.value), 1e-300)
    if not math.isfinite(top / bottom if bottom else math.nan) or abs(bottom) <= rounding:
        return None
    ratio = top / bottom
    if model.exact and randomised.exact:
        ends = sorted(100 * (end - randomised.value) / bottom for end in (scrubbed.low, scrubbed.high))
        method = f"{scrubbed.method}; exact baselines"
    else:
        # Half the interval's width in standard errors: t's quantile, or more where the interval was widened.
        z = scrubbed.width / 2 / scrubbed.se if scrubbed.se > 0 else float(stats.norm.ppf((1 + scrubbed.level) / 2))
        shared = randomised.se**2  # the randomised loss is in both differences
        bottom_variance = model.se**2 + shared
        a = bottom**2 - z**2 * bottom_variance
        if a <= 0:
            return None
        b = top * bottom - z**2 * shared
        c = top**2 - z**2 * (scrubbed.se**2 + shared)
        root = math.sqrt(max(b * b - a * c, 0.0))
        ends = [100 * (b - root) / a, 100 * (b + root) / a]
        method = f"Fieller; {scrubbed.method}"
    s = scrubbed
    return Estimate(100 * ratio, ends[0], ends[1], s.level, 100 * s.se / abs(bottom), s.df, s.draws, method)
