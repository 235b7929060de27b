"""One false-alarm rate for all tests that look at random draws.

Seeds are fixed, so a test that passes passes again; the rate is that of new seeds alarming anywhere in a suite without
fault. Each check is given an equal share of it.
"""

import math
from collections.abc import Hashable, Mapping
from statistics import NormalDist

RATE = 1e-6
"""The probability that any check of the whole suite alarms without a fault."""
CHECKS = 10_000
"""More checks of draws than the suite makes."""
PER_CHECK = RATE / CHECKS
"""The false-alarm probability of one check: 1e-10."""
Z = -NormalDist().inv_cdf(PER_CHECK / 2)
"""Standard errors from an expectation at which a check alarms, if the error is normal: about 6.5."""


def mean_radius(variance: float, span: float, n: int) -> float:
    """How far the mean of n independent draws may be from its expectation before a check alarms.

    Bernstein's inequality, for any n and any law: P(|mean - mu| >= t) <= 2 exp(-n t^2 / (2 variance + 2 span t / 3)).

    Args:
        variance: mean variance of a draw, or a bound on it.
        span: a bound on |draw - expectation|.
        n: draws.
    """
    budget = math.log(2 / PER_CHECK)
    linear = budget * span / 3
    return (linear + math.sqrt(linear**2 + 2 * n * budget * variance)) / n


def counts_alarm(counts: Mapping[Hashable, int], law: Mapping[Hashable, float]) -> bool:
    """Whether counts of independent draws are too far from a law of positive probabilities.

    A likelihood-ratio test with a bound for any n and any k cells, however rare, in place of the asymptotic chi-square:
    P(n KL(counts / n || law) >= g) <= exp(-g) (e g / (k - 1))^(k - 1) for g > k - 1.

    Source: Agrawal, Finite-sample concentration of the multinomial in relative entropy (2020), theorem 1.2.
    """
    if any(count and cell not in law for cell, count in counts.items()):
        return True
    n, freedom = sum(counts.values()), len(law) - 1
    divergence = math.fsum(count * math.log(count / (n * law[cell])) for cell, count in counts.items() if count)
    return divergence > freedom and log_tail(divergence, freedom) < math.log(PER_CHECK)


def log_tail(divergence: float, freedom: int) -> float:
    """Logarithm of the bound on P(n KL >= divergence), for divergence above k - 1 = freedom."""
    return freedom * (1 + math.log(divergence / freedom)) - divergence if freedom else -divergence
