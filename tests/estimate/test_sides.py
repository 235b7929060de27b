"""Limits to one side: proofs on enumerated laws, levels for skewed losses, and t's ends, which fail the same check."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from pscrub import Baseline, Estimate
from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baselines
from pscrub.estimate.estimate import choose, exact_estimate, mean_of_pairs
from pscrub.estimate.intervals import bernstein_ends, t_ends
from pscrub.estimate.recovered import loss_recovered
from pscrub.estimate.sides import bernstein_stretch, skewed_quantile, t_quantile
from tests.coverage import sides
from tests.false_alarm import PER_CHECK

TIMES = 8000


def rates(law: str, mirrored: bool, strata: bool, draws: int, level: float) -> tuple[float, float, float, float]:
    """How often t's lower end and upper end are wrong, and the limits, on one sample each of TIMES."""
    f = sides.sample(law, mirrored, strata, (TIMES, draws), np.random.default_rng(draws))
    ends, truth = t_ends(f, 2 * level - 1), sides.truth_of(law, mirrored)
    error = (ends.value - truth) / ends.se
    t, far = t_quantile(level, ends.df), skewed_quantile(level, ends.df)
    lower, upper, low, high = (float(np.mean(wrong)) for wrong in (error > t, error < -t, error > far, error < -far))
    return lower, upper, low, high


def alarms(rate: float, nominal: float) -> bool:
    """Whether an error is above nominal by more than chance."""
    return bool(stats.binom.sf(round(rate * TIMES) - 1, TIMES, nominal) < PER_CHECK)


@pytest.mark.parametrize("level", [0.95, 0.975])
@pytest.mark.parametrize("strata", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("law", ["exponential", "lognormal", "squared normal"])
def test_limits_hold_on_either_side_and_ends_of_t_do_not(law: str, mirrored: bool, strata: bool, level: float) -> None:
    t_lower, t_upper, lower, upper = rates(law, mirrored, strata, 100, level)
    assert not alarms(lower, 1 - level) and not alarms(upper, 1 - level)
    heavy, light = (t_lower, t_upper) if mirrored else (t_upper, t_lower)
    assert alarms(heavy, 1 - level) and not alarms(light, 1 - level)  # the planted fault: the symmetric interval


def test_widening_by_the_skewness_of_all_draws_is_caught() -> None:
    # The skewness of all draws has the wrong sign where strata are skewed the other way: widening that side only fails.
    draws, level = 100, 0.975
    f = sides.sample("lognormal", False, True, (TIMES, draws), np.random.default_rng(0))
    ends = t_ends(f, 0.95)
    to_left = stats.skew(f, axis=-1) < 0
    assert np.mean(to_left) > 0.9
    t, far = t_quantile(level, ends.df), skewed_quantile(level, ends.df)
    wrong = ends.value / ends.se < -np.where(to_left, t, far)
    assert alarms(float(wrong.mean()), 1 - level)


def test_pairs_bound_the_skewness_of_every_law() -> None:
    # |E[(a - E a)^3]| <= E|a - b|^3 / 2, on every law on four points with weights of eighths, and on random ones.
    rng = np.random.default_rng(0)
    every = [(np.array([0.0, 1, 3, 9]), np.array(w) / 8) for w in itertools.product(range(9), repeat=4) if sum(w) == 8]
    every += [(rng.lognormal(0, 2, 6), rng.dirichlet(np.full(6, 0.3))) for _ in range(300)]
    closest = 0.0
    for x, p in [*every, (np.array([0.0, 1.0]), np.array([0.999, 0.001]))]:
        third = abs(float(p @ (x - p @ x) ** 3))
        bound = float(p @ np.abs(x[:, None] - x) ** 3 @ p) / 2
        assert third <= bound * (1 + 1e-9) + 1e-12
        closest = max(closest, third / bound if bound else 0.0)
    assert closest > 0.99  # and no smaller factor than 1/2 would do


def test_degrees_of_freedom_bound_the_skewness_that_pairs_show() -> None:
    rng = np.random.default_rng(0)
    for power in (0.0, 1.0, 3.0):
        f = rng.lognormal(0, 1, (200, 60)) ** power * rng.standard_normal((200, 60))
        h = np.abs(f[:, ::2] - f[:, 1::2]) / 2
        assert np.all((h**3).sum(1) / (h**2).sum(1) ** 1.5 <= np.sqrt(3 / t_ends(f, 0.95).df) * (1 + 1e-9))


def test_quantiles() -> None:
    df = np.array([1.0, 1.5, 2.0, 5.0, 37.5, 1e4, math.inf])
    for level in (0.6, 0.95, 0.975, 0.999):
        assert t_quantile(level, df) == pytest.approx(stats.t.ppf(level, df))
        far = skewed_quantile(level, df)
        assert np.all(far >= t_quantile(level, df)) and np.all(np.diff(far[3:]) <= 0)
        assert far[-1] == pytest.approx(stats.norm.ppf(level))
        g = math.sqrt(3 / 1e4)  # Hall's transform of the limit is the t quantile
        x = -far[-2]
        assert x + g * x**2 / 3 + g**2 * x**3 / 27 + g / 6 == pytest.approx(-stats.t.ppf(level, 1e4), abs=1e-9)


def test_limits_of_an_estimate() -> None:
    f = torch.from_numpy(np.random.default_rng(0).exponential(1.0, 400))
    e = mean_of_pairs(f)
    assert e.limit("lower") < e.low < e.value < e.high < e.limit("upper")
    assert e.limit("upper", 0.9) < e.limit("upper", 0.95) < e.limit("upper") == e.limit("upper", 0.975)
    assert mean_of_pairs(f, 0.8).limit("upper", 0.99) == pytest.approx(e.limit("upper", 0.99))
    # Loss recovered, against exact baselines, is the same limits on another scale, which turns sides round.
    score = loss_recovered(e, Baselines(Baseline(0.5, 0.0, 0, "exact"), Baseline(2.5, 0.0, 0, "exact")))
    assert score is not None
    assert score.limit("lower") == pytest.approx(100 * (e.limit("upper") - 2.5) / (0.5 - 2.5))
    assert exact_estimate(2.0, 0.95, "").limit("lower", 0.999) == 2.0
    assert choose(torch.zeros(100, dtype=torch.float64)).limit("upper") == math.inf
    # Means of pairs and t's own ends stay where they were.
    assert e.high - e.value == pytest.approx(float(stats.t.ppf(0.975, e.df)) * e.se)


def test_limits_with_bounds_are_their_ends() -> None:
    rare = torch.zeros(1000, dtype=torch.float64)
    rare[::200] = 1
    e = choose(rare)
    assert e.interval == "betting" and (e.limit("lower"), e.limit("upper")) == (e.low, e.high)
    assert e.limit("upper", 0.95) == e.high  # no closer than what it was made for
    with pytest.raises(StudyError, match=r"holds at 0\.975; ask for the interval at level 0\.98"):
        e.limit("upper", 0.99)
    half = choose(torch.from_numpy(np.random.default_rng(0).random(1000)), interval="bernstein", bounds=(0, 1))
    assert half.limit("upper") > half.high and half.limit("upper", 0.95) == half.high


def test_bernstein_limits_are_no_closer_than_the_two_events_of_a_side_ask_for() -> None:
    f = np.random.default_rng(0).random(1000)
    for both, level in ((0.95, 0.975), (0.95, 0.99), (0.8, 0.9)):
        ends = bernstein_ends(f, both, (0.0, 1.0))
        exact = bernstein_ends(f, 1 - 3 * (1 - level) / 2, (0.0, 1.0))  # log(3 / (1 - .)) = log(2 / (1 - level))
        far = float(ends.value + bernstein_stretch(level, both) * (ends.high - ends.value))
        assert float(exact.high) <= far + 1e-12


@pytest.mark.parametrize(
    ("side", "level", "said"),
    [("uper", 0.9, "unknown side 'uper'.*upper"), ("upper", 0.5, "between 0.5 and 1"), ("lower", 1.0, "0.5 and 1")],
)
def test_limits_that_make_no_sense_are_refused(side: str, level: float, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        Estimate(1.0, 0.8, 1.2, 0.95, 0.1, 100.0, 400, "t").limit(side, level)  # type: ignore[arg-type]


def test_the_tables_check_has_teeth() -> None:
    assert sides.holds(0.025, 0.025) and sides.holds(0.03, 0.025)
    assert not sides.holds(0.064, 0.025) and not sides.holds(0.08, 0.05)
    row = {f"{name} {level} {side}": 0.02 for name in ("alone", "known") for level in sides.NOMINAL
           for side in ("lower", "upper")}  # fmt: skip
    row |= {"mark lower": 0.0, "mark upper": 0.064, "t lower": 0.003, "t upper": 0.064}
    assert sides.failures(row) == ["mark upper"] and sides.failures(row, ("t",)) == ["t upper"]
    assert sides.failures(row | {"mark upper": 0.02}) == []
