"""Ends that are not equally far go through a sampled baseline: a ratio, a difference, pooled samples."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pscrub import Baseline
from pscrub.estimate.baselines import Baselines
from pscrub.estimate.estimate import Estimate, exact_estimate
from pscrub.estimate.known import Seen
from pscrub.estimate.limits import Limits, Sampled
from pscrub.estimate.recovered import loss_recovered, no_narrower, points_recovered, ratio
from tests.false_alarm import PER_CHECK

ZERO_ONE = Seen(0.0, 1.0, (0.0, 1.0))


def sampled(f: torch.Tensor, seen: Seen = ZERO_ONE) -> Baseline:
    return Baseline(float(f.mean()), float(f.std()) / math.sqrt(len(f)), len(f), "sampled", Sampled.of(f, seen))


def rare(events: int, n: int = 1000) -> torch.Tensor:
    f = torch.zeros(n, dtype=torch.float64)
    f[:events] = 1
    return f


def test_a_sampled_baseline_has_ends_of_its_own() -> None:
    none, few, many = (sampled(rare(k)).limits(0.95) for k in (0, 3, 500))
    assert none == Limits(0.0, 0.0, pytest.approx(1 - 0.025**1e-3))
    assert 0 < few.low < 0.003 < few.high and few.high - few.value > few.value - few.low
    assert many.high - many.value == pytest.approx(many.value - many.low)
    assert many.high - many.value == pytest.approx(1.96 * sampled(rare(500)).se, rel=0.01)
    nothing = sampled(rare(0), Seen(0.0, 0.0, (0.0,))).limits(0.95)
    assert not nothing.finite  # one value, and nothing says what was missed
    heavy = torch.cat([torch.linspace(0, 1, 999).double(), torch.tensor([300.0]).double()])
    ends = sampled(heavy, Seen(0.0, 900.0)).limits(0.95)
    assert ends.low == 0 and ends.high > 8  # empirical Bernstein
    made = Baseline(1.0, 0.1, 50, "a caller's").limits(0.95)
    assert (made.low, made.high) == pytest.approx((1 - 0.196, 1 + 0.196), abs=1e-4)
    assert Baseline(1.0, 0.0, 0, "exact").limits(0.95) == Limits(1.0, 1.0, 1.0)


def test_pooled_samples_are_one_sample() -> None:
    one, other = rare(2), rare(5, 500)
    pooled = Sampled.of(one, ZERO_ONE).pool(Sampled.of(other, ZERO_ONE))
    both = Sampled.of(torch.cat([one, other]), ZERO_ONE)
    assert (pooled.values, pooled.counts, pooled.seen) == (both.values, both.counts, both.seen)
    assert pooled.limits(7 / 1500, 0.0, 1500, 0.95) == both.limits(7 / 1500, 0.0, 1500, 0.95)


def test_a_ratio_of_one_uncertain_term_carries_its_ends_over() -> None:
    fixed = Limits(0.0, 0.0, 0.0), Limits(2.0, 2.0, 2.0)
    assert ratio(Limits(0.5, 0.4, 0.9), *fixed) == pytest.approx((0.55, 0.8))
    assert ratio(fixed[0], Limits(1.0, 1.0, 1.0), Limits(0.2, 0.1, 0.5)) == pytest.approx((-1.0, -0.1 / 0.9))
    assert ratio(fixed[0], Limits(1.0, 0.5, 1.5), Limits(2.0, 1.0, 3.0)) is None  # the denominator's may be 0
    assert ratio(Limits(0.0, -math.inf, math.inf), *fixed) == (-math.inf, math.inf)
    assert Limits(1.0, 0.5, 2.0).less(Limits(3.0, 3.0, 3.0)) == Limits(-2.0, -2.5, -1.0)


@pytest.mark.parametrize(("model", "p", "n"), [(1.0, 0.0005, 1000), (0.05, 0.002, 1000)])
def test_loss_recovered_covers_where_the_baseline_is_rare_events(model: float, p: float, n: int) -> None:
    rng, times = np.random.default_rng(1), 400
    scrubbed, exact = exact_estimate(0.0, 0.95, "exact"), Baseline(model, 0.0, 0, "exact")
    truth, held, plain = 100 * -p / (model - p), 0, 0
    for _ in range(times):
        base = sampled(torch.from_numpy((rng.random(n) < p).astype(float)))
        found = loss_recovered(scrubbed, Baselines(exact, base))
        assert found is not None and found.width > 0
        held += found.low <= truth <= found.high
        without = Baseline(base.value, base.se, base.draws, "sampled")
        symmetric = loss_recovered(scrubbed, Baselines(exact, without))
        plain += symmetric is not None and symmetric.low - 1e-12 <= truth <= symmetric.high + 1e-12
    law = stats.binom(times, 0.95)
    assert law.cdf(held) > PER_CHECK
    assert law.cdf(plain) < PER_CHECK  # the test has teeth


def test_points_of_a_difference_keep_both_ends() -> None:
    difference = Estimate(0.1, 0.05, 0.4, 0.95, 0.05, 50.0, 100, "betting")
    plain = points_recovered(difference, Baselines(Baseline(0.0, 0, 0, "exact"), Baseline(2.0, 0, 0, "exact")))
    assert plain is not None and (plain.low, plain.high) == pytest.approx((-20.0, -2.5))
    unsure = points_recovered(difference, Baselines(Baseline(0.0, 0, 0, "exact"), Baseline(2.0, 0.1, 100, "sampled")))
    assert unsure is not None and unsure.low < -20.0 and unsure.high > -2.5 and unsure.value == plain.value


def test_no_narrower_keeps_what_is_wider() -> None:
    e = Estimate(5.0, 4.0, 7.0, 0.95, 0.5, 50.0, 100, "both", "draws and data")
    wider = no_narrower(e, Limits(1.0, -1.0, 1.5))
    assert wider is not None and (wider.low, wider.high, wider.value) == (3.0, 7.0, 5.0)
    assert no_narrower(None, Limits(1.0, 0.0, 2.0)) is None and no_narrower(e, None) is e
