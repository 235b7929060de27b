"""The choice where draws alone mislead: each case takes an interval with bounds, and t stays where it is sound."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pscrub import Claim, Dataset, Graph, Hypothesis, scrub
from pscrub.estimate.concerns import find_concerns
from pscrub.estimate.estimate import choose, mean_of_pairs
from pscrub.estimate.intervals import GRID, betting_ends, log_capital, tally
from pscrub.estimate.known import Known, Seen
from tests.false_alarm import PER_CHECK

LEVEL = 0.95


def known(*values: float, pairs: float | None = None) -> Known:
    """Rows of D with these losses, and pairs that reach so far besides."""
    losses = torch.tensor(values, dtype=torch.float64)
    weights = torch.full_like(losses, 1 / len(losses))
    randomised = losses if pairs is None else torch.tensor([pairs], dtype=torch.float64)
    return Known.of(weights, losses, randomised)


def normal(n: int) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_t_stays_where_it_is_sound() -> None:
    f = normal(1000)
    for about in (known(*(normal(2000) * 1.5).tolist()), known(-9.0, 9.0), known(*f.tolist(), pairs=15.0)):
        e = choose(f, known=about)
        assert e.interval == "t" and (e.low, e.high) == (mean_of_pairs(f).low, mean_of_pairs(f).high)
        assert "the loss has no known bounds" in e.method and not list(find_concerns(f, e, about))


def test_no_width_of_zero() -> None:
    f = torch.zeros(1000, dtype=torch.float64)
    both = choose(f, known=known(0.0, 5.0))
    assert both.interval == "betting" and (both.low, both.high) == (0, pytest.approx(5 * (1 - 0.025**1e-3)))
    several = choose(f, known=known(*range(30)))
    assert several.interval == "betting" and several.low == 0 and 0.1 < several.high < 0.2
    strata = choose(torch.arange(500).double().repeat_interleave(2), known=known(*range(500)))
    assert strata.interval == "bernstein" and 0 < strata.width < 20  # betting, blind to strata, would be far wider
    for nothing in (None, Known(), known(0.0), known(3.0, 4.0)):  # draws beyond what was seen show that it is no bound
        for interval in ("auto", "t", "sequence"):
            e = choose(f, LEVEL, interval, known=nothing)
            assert e.interval == "no interval" and (e.low, e.value, e.high) == (-math.inf, 0, math.inf)
    asked = choose(f, LEVEL, "t", known=known(0.0, 5.0))
    assert asked.interval == "betting" and "instead of t" in asked.method
    rounding = choose(1 + 1e-16 * normal(1000) + 1e-13 * (torch.arange(1000) % 2), known=known(1.0, 9.0))
    assert rounding.interval == "betting" and rounding.high > 1.01


def test_few_events_few_pairs_and_what_was_not_drawn() -> None:
    f = torch.zeros(1000, dtype=torch.float64)
    f[::50], f[1::200] = 0.5, 1.0
    three = choose(f, known=known(0.0, 0.5, 1.0))
    assert three.interval == "betting" and "another value than the usual; range as on D" in three.method
    heavy = normal(2000)
    heavy[7] += 50
    assert choose(heavy, known=known(-9.0, 90.0)).interval == "betting" and choose(heavy).interval == "t"
    usual = normal(200)
    outlying = known(*[*normal(997).tolist(), 100.0, 100.0, 100.0])
    e = choose(usual, known=outlying)
    assert e.interval == "betting" and e.high > 1.0 and "lie beyond all draws" in e.method
    assert "outliers not drawn" in {said.kind for said in find_concerns(usual, e, outlying)}
    assert choose(normal(200_000), known=outlying).interval == "t"  # as few as may go unseen do not matter now
    assert "outliers not drawn" not in {said.kind for said in find_concerns(usual, choose(usual), Known())}


def test_losses_of_0_and_1_by_chance_are_not_taken_for_binary_where_others_are_known() -> None:
    f = torch.zeros(1000, dtype=torch.float64)
    f[::100] = 1.0
    assert choose(f).method.startswith("betting, for losses in [0, 1]")
    assert choose(f, known=known(0.0, 1.0, 7.0)).method.startswith("betting, for losses in [0, 7]")


@pytest.mark.parametrize("share", [0.003, 0.0])
def test_outliers_are_covered_and_t_misses_them(share: float) -> None:
    rng, times, n = np.random.default_rng(3), 300, 200
    about = Known.of(
        torch.full((1000,), 1e-3, dtype=torch.float64),
        torch.from_numpy(np.where(np.arange(1000) < 1000 * share, 11.0, 1 + 0.1 * rng.standard_normal(1000))),
        torch.empty(0, dtype=torch.float64),
        Seen(0.5, 11.0, (), 1),
    )
    f = np.where(rng.random((times, n)) < share, 11.0, 1 + 0.1 * rng.standard_normal((times, n)))
    truth = 11 * share + 1 - share
    found = [choose(torch.from_numpy(each), known=about) for each in f]
    plain = [mean_of_pairs(torch.from_numpy(each)) for each in f]
    held, t = (sum(e.low <= truth <= e.high for e in some) for some in (found, plain))
    assert stats.binom(times, LEVEL).cdf(held) > PER_CHECK
    if share:
        assert t < 0.6 * times  # the test has teeth
    else:
        assert all(e.interval == "t" for e in found)


def test_a_grid_for_betting_is_never_narrower() -> None:
    rng = np.random.default_rng(5)
    f = np.where(rng.random(20_000) < 0.02, rng.random(20_000), 1e-4 * rng.random(20_000))
    assert len(np.unique(f)) > 2 * GRID
    wide = betting_ends(f, LEVEL, (0, 1))
    some = betting_ends(f[:4000], LEVEL, (0, 1))  # not brought to a grid
    assert 0 < float(wide.high - wide.low) < float(some.high - some.low)
    grid, counts = tally(f)
    assert counts is not None and counts.sum() == pytest.approx(20_000)
    assert float(grid @ counts) == pytest.approx(float(f.sum()))
    for m in (0.002, 0.008, 0.012):
        exactly, shared = (float(log_capital(v, c, m, LEVEL, 20_000)) for v, c in ((f, None), (grid, counts)))
        assert exactly - max(0.05, 1e-3 * exactly) <= shared <= exactly + 1e-9


def test_draws_and_data_are_never_more_certain_than_draws() -> None:
    """Rare errors, none of them drawn: the jackknife of the draws sees nothing."""
    x = torch.arange(300)
    data = Dataset({"x": x, "y": torch.where(x % 150 == 0, x % 50, -1)})
    graph = Graph.of({"out": lambda x: x % 50, "f": lambda out, y: (out == y).double()}, ["x", "y"], "f")
    h = Hypothesis("x does not matter", graph, data, Claim("f", reads=[Claim("y", "exact")]))
    for seed in range(4):
        (found,) = scrub(h, draws=60, seed=seed, data_uncertainty=True).results
        assert found.data is not None
        for name in ("scrubbed", "randomised", "recovered"):
            draws, both = getattr(found, name), getattr(found.data.both, name)
            if name != "randomised" and both is not None:
                assert both.high - both.value >= draws.high - draws.value > 0
                assert both.value - both.low >= draws.value - draws.low
