"""How far a limit to one side lies from the value, so that it keeps its level on either side for skewed losses.

A t interval of skewed losses misses too often on the heavy side and too rarely on the other: both together hold, each
alone does not. Pairs are made of two draws of one law, so that their differences are symmetric and say nothing of the
sign of skewness; the skewness of all draws together is no guide, as that of the strata's means is in it and is not in
the error. How large the skewness can be at most is seen in pairs, and both sides are widened for as much.

For independent a and b of one law, |E[(a - E a)^3]| <= E|a - b|^3 / 2: for three draws with gaps u and v the third
k-statistic is (2 u + v)(v - u)(u + 2 v) / 6, and the mean of |a - b|^3 / 2 over their pairs, (u^3 + v^3 + (u + v)^3)
/ 6, is at least its absolute value (for u <= v the excess is u^2 (4 u + 6 v) / 6). Losses of two values, one of them
rare, come near. With h = (a - b) / 2 the skewness of the mean of P pairs is so at most sum |h|^3 / (sum h^2)^(3/2),
sums standing for their expectations, and that, by Cauchy's inequality, at most sqrt(sum h^4) / sum h^2 = sqrt(2 / df
+ 1 / P) <= sqrt(3 / df), with the degrees of freedom of the standard error. Few pairs that carry it, which is how
skewness hides, have few degrees of freedom.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import special

Array = np.ndarray[Any, np.dtype[np.float64]]


def skewed_quantile(level: float, df: Array | float) -> Array:
    """Standard errors from the value to a limit, to either side, that errs 1 - level at most for skewed losses.

    The mean over its standard error, T, has with skewness g of the mean the distribution function
    Phi(x) + g (2 x^2 + 1) / 6 phi(x), whether the standard error is the usual one or that of pairs: its covariance with
    the mean is g to first order in both. Hall's cubic transform T + g T^2 / 3 + g^2 T^3 / 27 + g / 6 takes g away; its
    inverse at the t quantile t is (3 / g) (1 - (1 - g (t + g / 6))^(1/3)), towards the heavy side, and never less is
    taken than the first order, t + g (2 t^2 + 1) / 6. For g stands the bound sqrt(3 / df).

    Source: Johnson, Modified t tests and confidence intervals for asymmetrical populations (1978); Hall, On the removal
    of skewness by transformation (1992).

    Args:
        level: of one side, above 1/2.
        df: float64 [...], degrees of freedom of the standard error; infinite for one without error.

    >>> [round(float(skewed_quantile(0.975, df)), 2) for df in (30, 300, 3000, np.inf)]
    [2.88, 2.13, 2.01, 1.96]
    """
    df = np.asarray(df, dtype=np.float64)
    t = t_quantile(level, df)
    g = np.sqrt(3 / df)
    first = t + g * (2 * t**2 + 1) / 6
    with np.errstate(invalid="ignore", divide="ignore"):  # without skewness the transform is none
        cubic = 3 / g * (1 - np.cbrt(1 - g * (t + g / 6)))
    return np.asarray(np.fmax(first, cubic))


def t_quantile(level: float, df: Array | float) -> Array:
    """The quantile of Student's law, float64 [...] as df; of the normal law where df is infinite."""
    df = np.asarray(df, dtype=np.float64)
    return np.asarray(np.where(np.isinf(df), special.ndtri(level), special.stdtrit(df, level)))


def bernstein_stretch(level: float, both: float) -> float:
    """How much farther than an end of an empirical Bernstein interval a limit lies that errs 1 - level at most.

    The interval's budget log(3 / (1 - both)) is for three events, of which two concern either side. One side alone
    needs log(2 / (1 - level)). The distance grows at most as the budget, and an end is never moved inwards, as it may
    have been cut off at a bound.

    Args:
        level: of one side.
        both: the interval's.

    >>> round(bernstein_stretch(0.975, 0.95), 3), bernstein_stretch(0.95, 0.95)
    (1.07, 1.0)
    """
    return max(math.log(2 / (1 - level)) / math.log(3 / (1 - both)), 1.0)
