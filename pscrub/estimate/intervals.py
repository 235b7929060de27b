"""Ends of intervals for a mean of losses drawn in pairs from root strata: arrays in, arrays out.

Draws come two by two (`law.draw`): independent of one another, the two of a pair from the same stratum,
different pairs from different strata. What is estimated is the mean of the strata's means. The last axis runs over
draws, pair by pair; axes before it are separate samples, so that a coverage study runs the very code that users run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import optimize, stats

Array = np.ndarray[Any, np.dtype[np.float64]]
FULL = 0.99
"""Largest share of the capital that a bet may lose."""
BLOCK = 8
"""Factors multiplied before a logarithm is taken."""
GRID = 2048
"""Values to which many different losses are brought for betting."""


@dataclass(frozen=True)
class Ends:
    """Value, ends, standard error and degrees of freedom of the means of samples, arrays [...]."""

    value: Array
    low: Array
    high: Array
    se: Array
    df: Array


@dataclass(frozen=True)
class Moments:
    """Means of samples, their standard errors from the differences within pairs, and degrees of freedom, arrays [...].

    Args:
        value: the means.
        se: of each.
        df: of each.
        draws: of each sample.
    """

    value: Array
    se: Array
    df: Array
    draws: int


def t_ends(f: Array, level: float) -> Ends:
    """The t interval from the differences within pairs.

    With v_i = (a_i - b_i)^2 / 4, the variance of the mean of P pairs is estimated by sum v_i / P^2 without bias,
    whatever the strata's means. Its degrees of freedom match the first two moments of that sum,
    2 (sum v)^2 / (sum v^2 - (sum v)^2 / P): P for normal draws, fewer for heavy tails.

    Args:
        f: float64 [..., 2 P].
        level: nominal coverage.

    >>> ends = t_ends(np.array([1.0, 3.0, 2.0, 4.0, 0.0, 1.0]), 0.95)
    >>> round(float(ends.value), 4), round(float(ends.se), 4), float(ends.df)
    (1.8333, 0.5, 3.0)
    """
    return t_of_moments(find_moments(f), level)


def t_of_moments(m: Moments, level: float) -> Ends:
    """The ends of `t_ends`."""
    return _around(m, _t_quantile((1 + level) / 2, m.df) * m.se)


def sequence_ends(f: Array, level: float, best: int) -> Ends:
    """An asymptotic confidence sequence: at every number of draws at once, however often one looks and stops.

    Robbins' normal mixture, se sqrt(2 (1 + 1 / r) log(sqrt(1 + r) / alpha)) with r = rho^2 n: with probability `level`
    the mean is inside at all n, for n large enough that the standard error is good. The standard error is that of the
    pairs, and the half-width is scaled by the t quantile over the normal one, as few degrees of freedom ask for.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central limit theory and asymptotic
    confidence sequences (2024), equation 4 and appendix on the choice of rho.

    Args:
        f: float64 [..., 2 P], all draws so far. Look where a round of strata is complete.
        level: nominal coverage, over the whole run.
        best: the number of draws at which the sequence is made narrowest; must be fixed before drawing.
    """
    return sequence_of_moments(find_moments(f), level, best)


def sequence_of_moments(m: Moments, level: float, best: int) -> Ends:
    """The ends of `sequence_ends`."""
    q = (1 + level) / 2
    half = sequence_factor(m.draws, level, best) * m.se * _t_quantile(q, m.df) / stats.norm.ppf(q)
    return _around(m, half)


def sequence_factor(draws: int, level: float, best: int) -> float:
    """Half the width of the confidence sequence at so many draws, in standard errors.

    >>> round(sequence_factor(1000, 0.95, best=1000), 2), round(sequence_factor(20_000, 0.95, best=1000), 2)
    (3.04, 3.35)
    """
    alpha = 1 - level
    r = draws / best * (1 - 2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha)))
    return math.sqrt((1 + 1 / r) * (math.log1p(r) - 2 * math.log(alpha)))


def bernstein_ends(f: Array, level: float, bounds: tuple[float, float]) -> Ends:
    """An empirical-Bernstein interval: covers at its level for any number of draws of a loss within the bounds.

    Three events of probability (1 - level) / 3 each, L = log(3 / (1 - level)), losses scaled to [0, 1], n = 2 P. The
    mean within-stratum variance s^2 is the expectation of V = mean (a - b)^2 / 2, whose terms lie in [0, 1/2], so that
    their squares have at most half their expectation: by the lower tail of independent non-negative variables
    s^2 - V <= s sqrt(2 L / n). Bernstein's inequality, for independent draws that need not be alike, then gives
    s sqrt(2 L / n) + L / (3 n) to either side. The strata's own means cancel, unlike in the interval for independent
    and identical draws.

    Source: the argument of Maurer and Pontil, Empirical Bernstein bounds and sample variance penalization (2009),
    theorem 4, with pairs in place of the sample variance.

    Args:
        f: float64 [..., 2 P].
        level: least coverage.
        bounds: least and greatest loss that can be.

    >>> ends = bernstein_ends(np.tile([0.4, 0.6], 5000), 0.95, (0.0, 1.0))
    >>> round(float(ends.low), 4), round(float(ends.high), 4)
    (0.4954, 0.5046)
    """
    m = find_moments(f)
    return Ends(m.value, *bernstein_of_moments(m.value, m.se, m.draws, level, bounds), m.se, m.df)


def bernstein_of_moments(
    value: Array | float, se: Array | float, n: int, level: float, bounds: tuple[float, float]
) -> tuple[Array, Array]:
    """The ends of `bernstein_ends` from the mean of n losses and its standard error.

    With the usual standard error of independent and identical losses they are those of Maurer and Pontil, theorem 4.
    """
    span = bounds[1] - bounds[0]
    budget = math.log(3 / (1 - level))
    v = np.asarray(se) ** 2 * n / span**2  # mean (a - b)^2 / 2
    c = math.sqrt(2 * budget / n)
    half = span * ((c + np.sqrt(c**2 + 4 * v)) / 2 * c + budget / (3 * n))
    return np.maximum(value - half, bounds[0]), np.minimum(value + half, bounds[1])


def betting_ends(
    f: Array, level: float, bounds: tuple[float, float], binary: bool = False, best: int | None = None
) -> Ends:
    """An interval by betting: covers at its level for any number of draws of a loss within the bounds.

    A gambler who doubts that the mean is m multiplies the capital by 1 + lambda (x - m) at each draw. For a fixed
    lambda the expected capital after independent draws is prod (1 + lambda (mu_i - m)), by Jensen's inequality at most
    (1 + lambda (mean mu_i - m))^n = 1 if m is true: strata need not be alike. The interval holds the m against which
    neither the gambler who bets on more nor the one who bets on less has multiplied the capital by 2 / (1 - level).

    Bets are a mixture over lambda = 2^j lambda_0, j >= 0, with weights 1 / ((j + 1) (j + 2)), where lambda_0 =
    sqrt(2 log(2 / (1 - level)) / (n m (1 - m))) suits the largest variance that a loss of mean m can have. Each
    gambler's capital falls as m moves away from what is betted on (|lambda_0'| (1 - m) < lambda_0), so ends are roots.
    For losses that only take the two bounds all capital is on the best single lambda: the interval of all m with
    n KL(mean || m) <= log(2 / (1 - level)). With `best` in place of n, bets do not depend on when one stops, and by
    Ville's inequality the interval holds at the ends of all rounds of strata at once.

    Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (2024), section 4, with a
    mixture of constant bets, since predictable ones need draws that are alike.

    Args:
        f: float64 [..., 2 P].
        level: least coverage.
        bounds: least and greatest loss that can be.
        binary: the loss takes no other values than the bounds.
        best: draws that the bets suit, for a sequence; the draws there are by default.

    >>> ends = betting_ends(np.zeros(1000), 0.95, (0.0, 1.0), binary=True)  # 1 - 0.025 ** (1 / 1000)
    >>> float(ends.low), round(float(ends.high), 5)
    (0.0, 0.00368)
    """
    m = find_moments(f)
    span = bounds[1] - bounds[0]
    flat = ((f - bounds[0]) / span).reshape(-1, m.draws)
    ends = np.array([betting_of_tally(tally(x), m.draws, level, binary, best) for x in flat])
    ends = bounds[0] + span * ends.reshape(*m.value.shape, 2)
    return Ends(m.value, ends[..., 0], ends[..., 1], m.se, m.df)


def betting_of_tally(
    tallied: tuple[Array, Array | None], n: int, level: float, binary: bool = False, best: int | None = None
) -> tuple[float, float]:
    """The ends of `betting_ends` for losses in [0, 1], from what `tally` makes of n of them."""
    x, counts = tallied
    if binary and best is None:
        return share_ends(round(float(x.sum() if counts is None else x @ counts)), n, level)
    return _betting(x, counts, level, best or n)


def betting_of_counts(
    values: Array, counts: Array, level: float, bounds: tuple[float, float], binary: bool
) -> tuple[float, float]:
    """The ends of `betting_ends` from the values that were drawn, float64 [k], and how often each was."""
    span, n = bounds[1] - bounds[0], round(float(counts.sum()))
    low, high = betting_of_tally(((values - bounds[0]) / span, counts), n, level, binary)
    return bounds[0] + span * low, bounds[0] + span * high


def find_moments(f: Array) -> Moments:
    """Those of float64 [..., 2 P], pair by pair."""
    pairs = f.reshape(*f.shape[:-1], -1, 2)
    with np.errstate(invalid="ignore", over="ignore"):
        v = (pairs[..., 0] - pairs[..., 1]) ** 2 / 4
        return moments_of_sums(np.asarray(f.mean(-1)), v.sum(-1), (v**2).sum(-1), f.shape[-1])


def moments_of_sums(value: Array, squares: Array, fourths: Array, draws: int) -> Moments:
    """From means and the sums of v = (a - b)^2 / 4 and of v^2 over pairs (a, b)."""
    p = draws // 2
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        spread = fourths - squares**2 / p
        df = np.where(spread > 0, np.clip(2 * squares**2 / spread, 1.0, p), float(p))
        return Moments(value, np.sqrt(squares) / p, df, draws)


def _around(m: Moments, half: Array) -> Ends:
    with np.errstate(invalid="ignore"):  # of infinite losses
        return Ends(m.value, m.value - half, m.value + half, m.se, m.df)


def _t_quantile(q: float, df: Array) -> Array:
    return np.asarray(stats.t.ppf(q, df))


@lru_cache(maxsize=4096)
def share_ends(ones: int, n: int, level: float) -> tuple[float, float]:
    """The ends of n KL(ones / n || m) <= log(2 / (1 - level)).

    The upper end is that of the others from below: near 1 a float has no room for what is left to 1.
    """
    return _least(ones, n, level), 1 - _least(n - ones, n, level)


def _least(ones: int, n: int, level: float) -> float:
    budget = math.log(2 / (1 - level)) / n
    if ones in (0, n):
        return math.exp(-budget) if ones else 0.0
    share, rest = ones / n, (n - ones) / n

    def excess(fall: float) -> float:  # at m = share exp(-fall)
        return share * fall + rest * math.log(rest / (1 - share * math.exp(-fall))) - budget

    # rest log(rest / (1 - m)) >= rest log(rest) >= -share: from there down it is too much.
    fall = optimize.brentq(excess, 0.0, budget / share + 1, xtol=1e-14) if excess(0.0) < 0 else 0.0
    return share * math.exp(-float(fall))


def log_capital(values: Array, counts: Array | None, m: float, level: float, n: int) -> Array:
    """The logarithm of what the bets on a mean above m have made of 1, see `betting_ends`.

    Args:
        values: float64 [k], losses in [0, 1].
        counts: float64 [..., k], how often each was drawn; once each if None.
        m: the mean that is doubted, in (0, 1).
        level: of the interval that the bets are made for.
        n: draws that they suit.
    """
    first, most = math.sqrt(2 * math.log(2 / (1 - level)) / (n * m * (1 - m))), FULL / m
    total = np.asarray(-math.inf)
    left, j = 1.0, 0
    while left > 0:
        bet = min(first * 2**j, most)
        weight = 1 / ((j + 1) * (j + 2)) if bet < most else left  # all larger bets are the largest
        factors = 1 + bet * (values - m)
        if counts is not None:
            capital = counts @ np.log(factors)
        else:
            capital = np.log(
                np.nanprod(np.append(factors, [np.nan] * (-len(values) % BLOCK)).reshape(-1, BLOCK), 1)
            ).sum()
        total = np.logaddexp(total, math.log(weight) + capital)
        left, j = (left - weight if bet < most else 0.0), j + 1
    return np.asarray(total)


def _betting(values: Array, counts: Array | None, level: float, n: int) -> tuple[float, float]:
    return _lower(values, counts, level, n), 1 - _lower(1 - values, counts, level, n)


def _lower(values: Array, counts: Array | None, level: float, n: int) -> float:
    """The least m in [0, 1] against which the bets on more do not win."""
    mean = float(values.mean() if counts is None else values @ counts / counts.sum())
    if mean <= 0:
        return 0.0
    wanted = math.log(2 / (1 - level))

    def excess(m: float) -> float:
        return float(log_capital(values, counts, m, level, n)) - wanted

    tiny, top = mean * 1e-9, min(mean, 1 - 1e-12)
    if excess(tiny) <= 0:
        return 0.0
    return float(optimize.brentq(excess, tiny, top, xtol=1e-9 * mean, rtol=1e-6)) if excess(top) < 0 else top


def tally(x: Array) -> tuple[Array, Array | None]:
    """Values and how often each was drawn; very many are brought to a grid.

    A loss between two points of the grid is shared out to both so that its mean stays. A logarithm is concave, so that
    no bet makes more of them than of the losses themselves: the interval may be wider, and holds.
    """
    values, counts = np.unique(x, return_counts=True)
    if len(values) <= 2 * GRID:
        return (values, counts.astype(np.float64)) if len(values) <= len(x) // 2 else (x, None)
    return onto_grid(values, counts.astype(np.float64), GRID)


def onto_grid(values: Array, counts: Array, points: int) -> tuple[Array, Array]:
    """So many points between the ends of values, and how often each is drawn, shared out so that the mean stays."""
    grid = np.unique(np.quantile(values, np.linspace(0, 1, points)))
    right = np.clip(np.searchsorted(grid, values), 1, len(grid) - 1)
    share = (values - grid[right - 1]) / (grid[right] - grid[right - 1]) * counts
    onto = np.asarray(np.bincount(right, share, len(grid)) + np.bincount(right - 1, counts - share, len(grid)), float)
    return grid, onto
