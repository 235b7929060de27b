"""Intervals: known answers, invariances, coverage at the suite's false-alarm rate, the choice, and warnings by name."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from pscrub import Claim, Dataset, Graph, Hypothesis, StudyError, scrub
from pscrub.estimate import stopping
from pscrub.estimate.concerns import find_concerns
from pscrub.estimate.estimate import choose, mean_of_pairs
from pscrub.estimate.intervals import (
    Ends,
    bernstein_ends,
    betting_ends,
    log_capital,
    sequence_ends,
    sequence_factor,
    share_ends,
    t_ends,
)
from pscrub.estimate.known import Known
from tests.false_alarm import PER_CHECK

LEVEL = 0.95
ZERO_ONE = Known.of(torch.ones(2, dtype=torch.float64) / 2, torch.tensor([0.0, 1.0]), torch.empty(0))
KINDS = ("t", "betting", "bernstein", "sequence")


def ends(kind: str, f: Any, bounds: tuple[float, float] = (0.0, 1.0)) -> Ends:
    if kind == "t":
        return t_ends(f, LEVEL)
    if kind == "sequence":
        return sequence_ends(f, LEVEL, 1000)
    return betting_ends(f, LEVEL, bounds) if kind == "betting" else bernstein_ends(f, LEVEL, bounds)


def covered(found: Ends, truth: float) -> int:
    return int(((found.low <= truth) & (truth <= found.high)).sum())


def covers_at_least(count: int, times: int) -> bool:
    return bool(stats.binom(times, LEVEL).cdf(count) > PER_CHECK)


def test_the_binary_interval_is_the_one_of_relative_entropy() -> None:
    """The ends have n KL(share || m) = log(2 / alpha); with no event the upper end is 1 - (alpha / 2)^(1 / n)."""
    f = np.zeros(200)
    none = betting_ends(f, LEVEL, (0, 1), binary=True)
    assert none.low == 0 and float(none.high) == pytest.approx(1 - 0.025 ** (1 / 200))
    f[:30:3] = 1
    some = betting_ends(f, LEVEL, (0, 1), binary=True)
    for m in (float(some.low), float(some.high)):
        kl = 0.05 * math.log(0.05 / m) + 0.95 * math.log(0.95 / (1 - m))
        assert 200 * kl == pytest.approx(math.log(40), rel=1e-6)
    every = betting_ends(np.ones(200), LEVEL, (0, 1), binary=True)
    assert every.high == 1 and float(every.low) == pytest.approx(0.025 ** (1 / 200))


@pytest.mark.parametrize("n", [2, 10, 1000, 16_384, 10**7])
def test_every_count_of_0s_and_1s_has_its_interval(n: int) -> None:
    """Ends are the roots, and those of the others turned round, however near 0 or 1 and at whatever level."""
    counts = {k for few in (0, 1, 2, 5, n // 3, n // 2) for k in (few, n - few) if 0 <= few <= n}
    for ones in counts:
        for level in (1e-6, 0.5, 0.95, 0.999, 1 - 1e-12):
            low, high = share_ends(ones, n, level)
            low_of_others = share_ends(n - ones, n, level)[0]
            assert 0 <= low <= ones / n <= high <= 1 and high == 1 - low_of_others
            if ones > 0:
                share, rest = ones / n, 1 - ones / n
                kl = share * math.log(share / low) + (rest * math.log(rest / (1 - low)) if ones < n else 0)
                assert n * kl == pytest.approx(math.log(2 / (1 - level)), rel=1e-3, abs=1e-5), (ones, level)
    nearly = torch.ones(16_384, dtype=torch.float64)
    nearly[::3277] = 0
    assert choose(nearly).interval == "betting" and 0.999 < choose(nearly).low < choose(nearly).high < 1


def test_the_bets_win_at_the_ends() -> None:
    x = np.random.default_rng(0).beta(0.5, 4, 300)
    found = betting_ends(x, LEVEL, (0, 1))
    assert float(log_capital(x, None, float(found.low), LEVEL, 300)) == pytest.approx(math.log(40), abs=1e-3)
    assert float(log_capital(1 - x, None, 1 - float(found.high), LEVEL, 300)) == pytest.approx(math.log(40), abs=1e-3)
    values, counts = np.unique(np.round(x, 1), return_counts=True)
    direct = log_capital(np.round(x, 1), None, 0.2, LEVEL, 300)
    assert float(log_capital(values, counts.astype(float), 0.2, LEVEL, 300)) == pytest.approx(float(direct))
    means = np.linspace(0.01, 0.99, 40)
    capital = [float(log_capital(x, None, m, LEVEL, 300)) for m in means]
    assert capital == sorted(capital, reverse=True)  # so that ends are roots


def test_bernsteins_width_is_its_formula() -> None:
    rng = np.random.default_rng(1)
    f = rng.random(1000)
    found = bernstein_ends(f, LEVEL, (0, 1))
    v, budget = float(((f[::2] - f[1::2]) ** 2 / 2).mean()), math.log(60)
    c = math.sqrt(2 * budget / 1000)
    half = (c + math.sqrt(c * c + 4 * v)) / 2 * c + budget / 3000
    assert float(found.high - found.low) == pytest.approx(2 * half)


@pytest.mark.parametrize("kind", KINDS)
def test_shifts_and_scales_carry_over(kind: str) -> None:
    f = np.random.default_rng(2).random((5, 200)) ** 3
    plain, moved = ends(kind, f), ends(kind, 10 - 4 * f, (6.0, 10.0))
    np.testing.assert_allclose(moved.low, 10 - 4 * plain.high, rtol=1e-5)
    np.testing.assert_allclose(moved.high, 10 - 4 * plain.low, rtol=1e-5)
    one = ends(kind, f[3])
    np.testing.assert_allclose([one.low, one.high], [plain.low[3], plain.high[3]], rtol=1e-9)
    shuffled = f.reshape(5, -1, 2)[:, ::-1, ::-1].reshape(5, -1)  # pairs, and the two of each, in another order
    np.testing.assert_allclose(ends(kind, shuffled).low, plain.low, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_more_confidence_is_wider(kind: str) -> None:
    f = np.random.default_rng(3).random(100)
    by_level = {level: choose(torch.from_numpy(f), level, kind, (0.0, 1.0)) for level in (0.8, 0.95, 0.999)}
    widths = [e.width for e in by_level.values()]
    assert widths == sorted(widths) and {e.value for e in by_level.values()} == {float(f.mean())}


@pytest.mark.parametrize("kind", ["betting", "bernstein"])
@pytest.mark.parametrize("n", [20, 300])
def test_bounded_intervals_cover_in_strata_that_are_not_alike(kind: str, n: int) -> None:
    rng, times = np.random.default_rng(4), 400
    p = np.repeat(np.where(np.arange(n // 2) % 7 == 0, 0.2, 0.003), 2)
    f = (rng.random((times, n)) < p) * rng.random((times, n))
    assert covers_at_least(covered(ends(kind, f), float(p.mean() / 2)), times)
    rare = (rng.random((times, n)) < p).astype(float)
    found = betting_ends(rare, LEVEL, (0, 1), binary=True)
    assert covers_at_least(covered(found, float(p.mean())), times)
    assert n > 20 or not covers_at_least(covered(t_ends(f, LEVEL), float(p.mean() / 2)), times)  # the test has teeth


def test_bernstein_uses_the_strata_and_betting_cannot() -> None:
    rng = np.random.default_rng(5)
    f = np.repeat(np.linspace(0.1, 0.9, 5000), 2) + 0.02 * rng.random(10_000)
    bernstein, betting, t = (float((e := ends(k, f)).high - e.low) for k in ("bernstein", "betting", "t"))
    assert t < bernstein < betting / 4


def test_the_sequence_holds_at_all_looks_and_fixed_intervals_do_not() -> None:
    rng, times, every, last = np.random.default_rng(6), 300, 100, 4000
    f = rng.exponential(size=(times, last))
    held = {"t": np.ones(times, bool), "sequence": np.ones(times, bool)}
    for n in range(every, last + 1, every):
        for kind in held:
            found = ends(kind, f[:, :n])
            held[kind] &= (found.low <= 1) & (found.high >= 1)
    assert covers_at_least(int(held["sequence"].sum()), times)
    assert not covers_at_least(int(held["t"].sum()), times)
    ratio = sequence_factor(2000, LEVEL, 2000) / stats.norm.ppf(0.975)
    assert 1.5 < ratio < 1.7
    assert sequence_factor(2000, LEVEL, 2000) < min(sequence_factor(2000, LEVEL, b) for b in (100, 100_000))


def test_a_sequence_by_betting_holds_at_all_looks() -> None:
    rng, times, p = np.random.default_rng(7), 300, 0.01
    hits = (rng.random((times, 50, 100)) < p).sum(2).cumsum(1).astype(float)
    held = np.ones(times, bool)
    for look in range(50):
        n = 100.0 * (look + 1)
        for values, m in ((np.array([1.0, 0.0]), p), (np.array([0.0, 1.0]), 1 - p)):
            counts = np.stack([hits[:, look], n - hits[:, look]], 1)
            held &= log_capital(values, counts, m, LEVEL, 2000) < math.log(40)
    assert covers_at_least(int(held.sum()), times)


# The choice


def rare(events: int, n: int = 1000) -> torch.Tensor:
    f = torch.zeros(n, dtype=torch.float64)
    f[:: n // max(events, 1)][:events] = 1
    return f


def test_the_default_picks_by_what_the_loss_is_and_says_why() -> None:
    normal = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert choose(normal).method.startswith("t, within root strata (picked: the loss has no known bounds")
    assert choose(normal).width == mean_of_pairs(normal).width
    assert choose(rare(5)).method.startswith("betting, for losses in [0, 1] (picked: 0/1 losses, 5 of the rarer")
    assert choose(rare(500)).method.startswith("t, within root strata (picked: 0/1 losses, 500")
    few = torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert choose(few).method.startswith("t,") and choose(few, bounds=(0, 1)).method.startswith("betting")
    many = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert choose(many, bounds=(0, 1)).method.startswith("t,")
    # Events that were not seen: no width is claimed, whatever is known of the loss.
    none = rare(0) * 0
    assert choose(none).interval == "no interval" and choose(none).width == math.inf
    assert choose(none, known=ZERO_ONE).high == pytest.approx(1 - 0.025 ** (1 / 1000))
    assert choose(none, bounds=(0, 1)).width > 0
    for name, start in (
        ("t", "t,"),
        ("betting", "betting,"),
        ("bernstein", "empirical B"),
        ("sequence", "confidence s"),
    ):
        found = choose(many, interval=name, bounds=(0, 1))
        assert found.method.startswith(start) and "asked for" in found.method
    assert "by betting" in choose(rare(5), interval="sequence").method
    assert choose(rare(5), interval="sequence").width > choose(rare(5), interval="betting").width


def test_what_no_interval_can_be_made_from_is_refused() -> None:
    f = torch.rand(100, dtype=torch.float64)
    for options, message in (
        ({"interval": "beting"}, "unknown interval 'beting'.*did you mean|unknown interval 'beting'"),
        ({"interval": "betting"}, "needs the loss's bounds"),
        ({"bounds": (0.4, 0.6)}, "outside the bounds"),
        ({"bounds": (1.0, 0.0)}, "the lesser first"),
        ({"bounds": (0.0, math.inf)}, "two finite losses"),
    ):
        with pytest.raises(StudyError, match=message):
            choose(f, **options)  # type: ignore[arg-type]


# Warnings, by name


def names(f: torch.Tensor) -> set[str]:
    return {said.split(":")[0] for said in find_concerns(f, choose(f))}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_losses_that_are_not_finite_are_named(bad: float) -> None:
    f = torch.ones(100, dtype=torch.float64)
    f[17] = bad
    assert names(f) == {"non-finite loss"} and not math.isfinite(choose(f).width)
    assert any("1 of 100 draws" in said for said in find_concerns(f, choose(f)))


def test_each_warning_has_its_name_and_its_case() -> None:
    g = torch.Generator().manual_seed(1)
    normal = torch.randn(2000, generator=g, dtype=torch.float64)
    assert names(normal) == set()
    assert names(normal[:20]) == {"too few draws"}
    assert names(torch.ones(100, dtype=torch.float64)) == {"no variation"}
    assert "rare events" in names(rare(5)) and names(rare(500)) == set()
    heavy = normal.clone()
    heavy[3] += 1e4
    assert names(heavy) == {"too few draws", "rare events"}
    assert names(torch.randn(2000, generator=g, dtype=torch.float64).abs()) == set()


GRAPH = Graph.of({"out": lambda x: x % 50, "f": lambda out, y: (out == y).double()}, ["x", "y"], "f")
X = torch.arange(2000)


def test_a_run_of_rare_errors_is_betted_on_and_says_so() -> None:
    data = Dataset({"x": X, "y": torch.where(X % 500 == 0, X % 50, -1)})
    hypothesis = Hypothesis("x does not matter", GRAPH, data, Claim("f", reads=[Claim("y", "exact")]))
    (found,) = scrub(hypothesis, draws=2000, randomised=0.5).results
    assert found.scrubbed.method.startswith("betting") and found.interval == "auto"
    assert any(w.startswith("rare events") or w.startswith("no variation") for w in found.warnings)
    (asked,) = scrub(hypothesis, draws=2000, randomised=0.5, interval="t").results
    assert asked.scrubbed.interval == "betting" and "instead of t" in asked.scrubbed.method  # no width is no interval
    (given,) = scrub(hypothesis, draws=2000, randomised=0.5, interval="bernstein", bounds=(0, 1)).results
    assert given.scrubbed.method.startswith("empirical Bernstein") and given.scrubbed.width > found.scrubbed.width
    with pytest.raises(StudyError, match="unknown interval"):
        scrub(hypothesis, interval="normal")


def test_a_loss_that_happens_to_be_0_is_not_taken_for_0_or_1() -> None:
    """Squared error, 0 on D and on every draw, and 4 under the baseline: the pairs say what it can be."""
    data = Dataset({"x": X, "y": 2 * (X % 2)})
    graph = Graph.of({"out": lambda x: 2 * (x % 2), "f": lambda out, y: (out - y) ** 2.0}, ["x", "y"], "f")
    claims = [Claim("out", lambda d: d["x"] % 2), Claim("y", "exact")]
    (found,) = scrub(Hypothesis("parity", graph, data, Claim("f", reads=claims)), draws=200).results
    assert found.scrubbed.method.startswith("betting, for losses in [0, 4] (picked: losses of two values")
    assert any(w.startswith("no variation") for w in found.warnings)
    (given,) = scrub(Hypothesis("parity", graph, data, Claim("f", reads=claims)), draws=200, randomised=2.0).results
    assert given.scrubbed.interval == "no interval" and given.recovered is not None  # nothing says what it can be
    assert (given.recovered.low, given.recovered.high) == (-math.inf, math.inf)
    same = Graph.of({"out": lambda x: x % 2, "f": lambda out, y: (out != y).double()}, ["x", "y"], "f")
    data = Dataset({"x": X, "y": X % 2})
    (found,) = scrub(Hypothesis("parity", same, data, Claim("f", reads=claims)), draws=200).results
    assert found.scrubbed.method.startswith("betting") and 0 < found.scrubbed.high < 0.02


def test_a_confidence_sequence_may_stop_when_it_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ROUND", 1000)
    data = Dataset({"x": X, "y": X % 25})
    hypothesis = Hypothesis("x does not matter", GRAPH, data, Claim("f", reads=[Claim("y", "y")]))
    (found,) = scrub(hypothesis, until_width=2, randomised=0.0, interval="sequence").results
    assert found.recovered is not None and found.recovered.width <= 2
    assert found.scrubbed.method.startswith("confidence sequence") and "two-stage" not in found.scrubbed.method
    (t,) = scrub(hypothesis, until_width=2, randomised=0.0).results
    assert t.scrubbed.draws < found.scrubbed.draws
