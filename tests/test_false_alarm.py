"""The bounds behind the suite's false-alarm rate, against complete enumeration and simulation-free tails."""

import math
from collections import Counter
from itertools import product

import pytest

from tests.false_alarm import CHECKS, PER_CHECK, RATE, Z, counts_alarm, log_tail, mean_radius


def test_every_check_has_an_equal_share() -> None:
    assert math.isclose(PER_CHECK * CHECKS, RATE)
    assert math.isclose(math.erfc(Z / math.sqrt(2)), PER_CHECK, rel_tol=1e-6)


@pytest.mark.parametrize("law", [(0.5, 0.5), (0.9, 0.1), (0.2, 0.3, 0.5), (0.01, 0.04, 0.95), (0.1, 0.2, 0.3, 0.4)])
@pytest.mark.parametrize("n", [1, 2, 7, 15])
def test_the_tail_of_the_likelihood_ratio_is_bounded(law: tuple[float, ...], n: int) -> None:
    """Every table of counts is listed with its probability: beyond no threshold is there more than the bound says."""
    freedom = len(law) - 1
    tables = []
    for head in product(range(n + 1), repeat=freedom):
        if sum(head) <= n:
            counts = (*head, n - sum(head))
            log_p = math.lgamma(n + 1) - sum(math.lgamma(c + 1) for c in counts)
            log_p += sum(c * math.log(p) for c, p in zip(counts, law, strict=True))
            g = sum(c * math.log(c / (n * p)) for c, p in zip(counts, law, strict=True) if c)
            tables.append((g, math.exp(log_p)))
    assert math.isclose(sum(p for _, p in tables), 1)
    for g, _ in tables:
        if g > freedom:
            assert sum(p for other, p in tables if other >= g) <= math.exp(log_tail(g, freedom)) * (1 + 1e-9)


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5])
@pytest.mark.parametrize("n", [10, 1000, 20_000])
def test_the_tail_of_the_mean_is_bounded(p: float, n: int) -> None:
    radius = mean_radius(p * (1 - p), max(p, 1 - p), n)
    tail = 0.0
    for k in range(n + 1):
        if abs(k / n - p) > radius:
            log_p = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
            tail += math.exp(log_p + k * math.log(p) + (n - k) * math.log1p(-p))
    assert tail <= PER_CHECK
    if p * n > 1000:  # and not idle: a few times the normal radius at most
        assert radius < 1.1 * Z * math.sqrt(p * (1 - p) / n)


def test_alarms() -> None:
    law = {"a": 0.5, "b": 0.25, "c": 0.25}
    assert not counts_alarm({"a": 500, "b": 250, "c": 250}, law)
    assert not counts_alarm({"a": 530, "b": 230, "c": 240}, law)
    assert counts_alarm({"a": 640, "b": 180, "c": 180}, law)
    assert counts_alarm({"a": 500, "b": 500}, law)
    assert counts_alarm({"a": 500, "b": 250, "c": 249, "d": 1}, law)
    assert not counts_alarm(Counter("a"), {"a": 1.0})
