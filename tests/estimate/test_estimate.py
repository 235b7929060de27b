"""Intervals cover at their level, variances are unbiased under strata, and the score is never clipped."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from pscrub import Baseline, Estimate
from pscrub.estimate.baselines import Baselines
from pscrub.estimate.estimate import exact_estimate, mean_of_pairs, widen
from pscrub.estimate.recovered import loss_recovered
from tests.false_alarm import PER_CHECK, mean_radius

TIMES = 1000


def normals(pairs: int, seed: int) -> Tensor:
    """float64 [TIMES, 2 pairs]: pairs from strata of very different means and deviations; their mean is 0."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(TIMES, pairs, 2, dtype=torch.float64, generator=generator)
    means = torch.linspace(-50, 50, pairs, dtype=torch.float64)
    deviations = torch.linspace(1, 2, pairs, dtype=torch.float64)
    return (z * deviations[:, None] + means[:, None]).flatten(1)


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize("pairs", [5, 50])
def test_intervals_cover_at_their_level(level: float, pairs: int) -> None:
    estimates = [mean_of_pairs(f, level) for f in normals(pairs, seed=pairs)]
    covered = sum(e.low <= 0 <= e.high for e in estimates)
    law = stats.binom(TIMES, level)
    assert law.cdf(covered) > PER_CHECK
    if pairs == 50:  # with few pairs they may be wider than they need be
        assert law.sf(covered - 1) > PER_CHECK
    assert {e.draws for e in estimates} == {2 * pairs} and {e.level for e in estimates} == {level}


def test_the_variance_is_unbiased_under_strata() -> None:
    """Across repetitions: the mean of se^2 is the variance of the estimate, whatever the strata's means."""
    pairs = 8
    f = normals(pairs, seed=1)
    variances = torch.tensor([mean_of_pairs(each).se ** 2 for each in f], dtype=torch.float64)
    sigma = torch.linspace(1, 2, pairs, dtype=torch.float64)
    truth = float((sigma**2 / 2).sum() / pairs**2)
    # The estimate is a mean of squares of normals: var of each v_i is 2 (sigma_i^2 / 2)^2.
    spread = float((2 * (sigma**2 / 2) ** 2).sum()) / pairs**4
    assert abs(float(variances.mean()) - truth) <= mean_radius(spread, 20 * truth, TIMES)
    # Forgetting the strata would give a value far from it.
    assert float(f.var(1).mean()) / (2 * pairs) > 20 * truth


def test_the_degrees_of_freedom_are_those_of_the_pairs() -> None:
    f = normals(200, seed=3)[0]
    assert 100 < mean_of_pairs(f).df <= 200
    one_pair = torch.zeros(400, dtype=torch.float64)
    one_pair[7] = 1e6
    assert mean_of_pairs(one_pair).df == pytest.approx(2, abs=0.1)  # all of the error rests on one draw
    assert mean_of_pairs(torch.tensor([0.0, 1.0])).df == 1


def test_sums_are_in_float64() -> None:
    f = torch.full((200_000,), 0.1, dtype=torch.float32)
    assert mean_of_pairs(f).value == pytest.approx(float(f[0]), rel=1e-15)


def test_no_variation_gives_no_width() -> None:
    e = mean_of_pairs(torch.ones(10))
    assert (e.value, e.low, e.high, e.se) == (1, 1, 1, 0) and not e.exact
    assert exact_estimate(2.0, 0.9, "by hand").exact and exact_estimate(2.0, 0.9, "by hand").width == 0


def test_values_that_are_not_finite_do_not_look_finite() -> None:
    for bad in (math.nan, math.inf):
        e = mean_of_pairs(torch.tensor([1.0, 2.0, bad, 3.0], dtype=torch.float64))
        assert not math.isfinite(e.value) and not math.isfinite(e.width)
        assert loss_recovered(e, Baselines(exact(0.0), exact(1.0))) is None


def test_an_interval_is_only_ever_widened() -> None:
    e = mean_of_pairs(torch.tensor([0.0, 1.0, 2.0, 4.0]))
    assert widen(e, 0.0, "").width == pytest.approx(e.width)
    wider = widen(e, 10 * e.width, "wider")
    assert wider.width == pytest.approx(20 * e.width) and (wider.low + wider.high) / 2 == pytest.approx(e.value)
    assert wider.method == "wider" and (wider.se, wider.df, wider.draws) == (e.se, e.df, e.draws)


# Loss recovered


def exact(value: float) -> Baseline:
    return Baseline(value, 0.0, 0, "exact")


def sampled(value: float, se: float) -> Baseline:
    return Baseline(value, se, 1000, "sampled")


def scrubbed(value: float, se: float = 0.1, level: float = 0.95) -> Estimate:
    half = float(stats.norm.ppf((1 + level) / 2)) * se
    return Estimate(value, value - half, value + half, level, se, 1e6, 100_000, "t")


def test_the_score_is_linear_with_exact_baselines() -> None:
    for model, randomised in ((0.5, 4.5), (4.5, 0.5), (-1.0, 3.0)):
        for value in (0.5, 1.0, 3.0):
            found = loss_recovered(scrubbed(value), Baselines(exact(model), exact(randomised)))
            assert found is not None
            ends = [100 * (v - randomised) / (model - randomised) for v in (scrubbed(value).low, scrubbed(value).high)]
            assert found.value == pytest.approx(100 * (value - randomised) / (model - randomised))
            assert [found.low, found.high] == pytest.approx(sorted(ends))
            assert found.se == pytest.approx(100 * 0.1 / abs(model - randomised))


def test_the_score_is_never_clipped() -> None:
    above = loss_recovered(scrubbed(-3.0), Baselines(exact(0.0), exact(1.0)))
    below = loss_recovered(scrubbed(5.0), Baselines(exact(0.0), exact(1.0)))
    assert above is not None and above.value == pytest.approx(400) and above.high > above.value > above.low > 100
    assert below is not None and below.value == pytest.approx(-400) and below.low < below.value < below.high < 0
    worse = loss_recovered(scrubbed(5.0), Baselines(sampled(0.0, 0.01), sampled(1.0, 0.01)))
    assert worse is not None and worse.value == pytest.approx(-400) and worse.low < -400 < worse.high < 0


@pytest.mark.parametrize(
    ("model", "randomised"),
    [
        (exact(1.0), exact(1.0)),
        (exact(1.0), exact(1.0 + 1e-12)),
        (exact(0.0), exact(0.0)),
        (exact(math.nan), exact(1.0)),
        (exact(1.0), exact(math.inf)),
        (exact(1.0), sampled(1.1, 0.1)),
        (sampled(1.0, 0.1), sampled(1.1, 0.1)),
    ],
)
def test_no_score_where_the_baselines_cannot_be_told_apart(model: Baseline, randomised: Baseline) -> None:
    assert loss_recovered(scrubbed(1.0), Baselines(model, randomised)) is None


def test_a_small_difference_of_exact_baselines_is_a_difference() -> None:
    found = loss_recovered(scrubbed(1.00005, 1e-7), Baselines(exact(1.0), exact(1.0001)))
    assert found is not None and found.value == pytest.approx(50, rel=1e-3)


def test_fieller_against_its_own_definition() -> None:
    """The ends are the ratios r at which top - r bottom lies z standard errors from 0."""
    s, m, r = scrubbed(1.5, 0.2), sampled(0.5, 0.05), sampled(4.0, 0.3)
    found = loss_recovered(s, Baselines(m, r))
    assert found is not None and found.value == pytest.approx(100 * 2.5 / 3.5)
    z = float(stats.norm.ppf(0.975))
    for end in (found.low / 100, found.high / 100):
        # s - r - end (m - r) = s - end m - (1 - end) r
        difference = s.value - end * m.value - (1 - end) * r.value
        error = math.sqrt(s.se**2 + (end * m.se) ** 2 + ((1 - end) * r.se) ** 2)
        assert abs(difference) == pytest.approx(z * error, rel=1e-9)
    assert found.low < found.value < found.high


def test_fieller_comes_to_the_linear_interval_as_baselines_become_exact() -> None:
    plain = loss_recovered(scrubbed(1.5), Baselines(exact(0.5), exact(4.5)))
    near = loss_recovered(scrubbed(1.5), Baselines(sampled(0.5, 1e-9), sampled(4.5, 1e-9)))
    assert plain is not None and near is not None
    assert (near.low, near.value, near.high) == pytest.approx((plain.low, plain.value, plain.high), abs=1e-6)


def test_fieller_of_a_scrubbed_loss_at_the_randomised_one() -> None:
    """Their common error cancels: with E_scrubbed = E_randomised the score is near 0 however uncertain."""
    s = scrubbed(4.0, 1e-9)
    found = loss_recovered(s, Baselines(exact(0.0), sampled(4.0, 0.1)))
    assert found is not None and found.value == 0
    z = float(stats.norm.ppf(0.975))
    for end in (found.low / 100, found.high / 100):
        assert abs(end * 4.0) == pytest.approx(z * 0.1 * abs(1 - end), rel=1e-6)


def test_fieller_covers() -> None:
    """Scrubbed and both baselines drawn anew: the true score lies in most intervals."""
    generator = torch.Generator().manual_seed(8)
    covered = 0
    for z in torch.randn(TIMES, 3, dtype=torch.float64, generator=generator):
        s, m, r = (torch.tensor([2.0, 0.5, 4.0]) + z * torch.tensor([0.3, 0.2, 0.4])).tolist()
        found = loss_recovered(scrubbed(s, 0.3), Baselines(sampled(m, 0.2), sampled(r, 0.4)))
        assert found is not None
        covered += found.low <= 100 * 2 / 3.5 <= found.high
    law = stats.binom(TIMES, 0.95)
    assert law.cdf(covered) > PER_CHECK and law.sf(covered - 1) > PER_CHECK
