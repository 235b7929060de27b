"""Posteriors: against the intervals and laws that they must come to, and leaving Pyro's and torch's state alone."""

import math

import numpy as np
import pyro
import pytest
import torch
from scipy import stats

from pscrub import Baseline, StudyError
from pscrub.estimate.bootstrapped import FIGURES, GROUPS
from pscrub.estimate.estimate import mean_of_pairs
from pscrub.estimate.gradients import exact_gradient
from pscrub.estimate.jackknife import Population
from pscrub.estimate.known import Known, Seen
from pscrub.estimate.limits import Sampled
from pscrub.estimate.population import data_uncertainty
from pscrub.questions.posterior import agrees, bayesian_bootstrap, student_t
from tests.false_alarm import Z

BASE = Baseline(0.5, 0.0, 0, "exact"), Baseline(4.5, 0.0, 0, "exact")


def pairs(count: int, seed: int = 0) -> torch.Tensor:
    """Skewed draws in strata of very different means."""
    g = torch.Generator().manual_seed(seed)
    noise = -torch.rand(count, 2, generator=g, dtype=torch.float64).log()
    return (noise + torch.linspace(0, 50, count, dtype=torch.float64)[:, None]).flatten()


@pytest.mark.parametrize("count", [60, 2000, 3 * GROUPS + 17])
def test_the_bootstrap_has_the_estimates_mean_and_standard_error(count: int) -> None:
    f = pairs(count)
    found, e = bayesian_bootstrap(f, *BASE, samples=4000), mean_of_pairs(f)
    values = found.samples["E_scrubbed"]
    assert values.shape == (4, 1000) and set(found.samples) == set(FIGURES)
    half = (f[::2] - f[1::2]) / 2
    expected = math.sqrt((e.se**2 - float(half.mean() ** 2) / count) * count / (count + 1))
    assert abs(values.mean() - e.value) <= Z * e.se / math.sqrt(4000)
    # Groups of neighbours keep the variance on average, each with its own luck: GROUPS of them, 2.2 %.
    slack = 0 if count <= GROUPS else Z * 2 / math.sqrt(2 * GROUPS)
    assert abs(values.std() / expected - 1) <= Z / math.sqrt(4000) + slack
    assert agrees(found, e) == pytest.approx(1, abs=0.15)


def test_loss_recovered_is_made_sample_by_sample_and_never_clipped() -> None:
    found = bayesian_bootstrap(pairs(100), *BASE, samples=500)
    top = found.samples["E_scrubbed"] - 4.5
    np.testing.assert_allclose(found.samples["loss_recovered"], 100 * top / -4.0)
    assert found.samples["loss_recovered"].max() < 0
    assert (found.samples["E_model"] == 0.5).all() and (found.samples["E_randomised"] == 4.5).all()
    assert found.probability(0.0) == 0 and found.uncertainty == "draws"
    none = bayesian_bootstrap(pairs(100), BASE[0], BASE[0], samples=10)
    assert np.isnan(none.samples["loss_recovered"]).all()


def test_sampled_baselines_are_uncertain() -> None:
    found = bayesian_bootstrap(pairs(100), BASE[0], Baseline(4.5, 0.2, 1000, "sampled"), samples=4000)
    values = found.samples["E_randomised"]
    assert abs(values.mean() - 4.5) < Z * 0.2 / math.sqrt(4000) and abs(values.std() / 0.2 - 1) < Z / math.sqrt(8000)


def test_the_datas_uncertainty_is_the_jackknifes() -> None:
    n, g = 400, torch.Generator().manual_seed(2)
    weights = torch.full((n,), 1 / n, dtype=torch.float64)
    gradients = [exact_gradient(torch.randn(n, generator=g, dtype=torch.float64), weights) for _ in range(3)]
    f = pairs(2000)
    e = mean_of_pairs(f)
    found = bayesian_bootstrap(f, *BASE, samples=4000, gradients=gradients)
    rows = tuple((each[0], each[1]) for each in gradients)
    both = data_uncertainty(e, BASE[0], Population(e, BASE[1], rows, weights)).both
    assert found.uncertainty == "draws and data"
    for name, expected in (("E_scrubbed", both.scrubbed), ("E_model", both.model), ("E_randomised", both.randomised)):
        assert expected is not None
        assert found.samples[name].std() == pytest.approx(expected.se, rel=Z / math.sqrt(8000) + 0.01)


def test_few_and_infinite_losses_are_not_passed_over() -> None:
    assert bayesian_bootstrap(pairs(10), *BASE, samples=10).notes[0].startswith("too few draws")
    for bad in (math.nan, math.inf):
        f = pairs(50)
        f[3] = bad
        for method in (bayesian_bootstrap, student_t):
            with pytest.raises(StudyError, match="non-finite loss"):
                method(f, *BASE, samples=10)
    with pytest.raises(StudyError, match="need"):
        student_t(torch.ones(20), *BASE, samples=10)


def test_nothing_of_the_callers_is_touched() -> None:
    pyro.get_param_store()["theirs"] = torch.ones(1)
    state = torch.random.get_rng_state()
    one = bayesian_bootstrap(pairs(50), *BASE, samples=20, seed=4)
    student_t(pairs(20), *BASE, samples=5, warmup=5, chains=1, seed=4)
    assert torch.equal(state, torch.random.get_rng_state()) and list(pyro.get_param_store().keys()) == ["theirs"]
    del pyro.get_param_store()["theirs"]
    with pyro.poutine.trace() as seen:
        again = bayesian_bootstrap(pairs(50), *BASE, samples=20, seed=4)
    assert not [name for name, site in seen.trace.nodes.items() if site["type"] == "sample"]
    assert (one.samples["E_scrubbed"] == again.samples["E_scrubbed"]).all()
    other = bayesian_bootstrap(pairs(50), *BASE, samples=20, seed=5)
    assert (one.samples["E_scrubbed"] != other.samples["E_scrubbed"]).any()


def test_the_student_t_model_on_heavy_tails() -> None:
    f = torch.from_numpy(3 + 2 * np.random.default_rng(1).standard_t(2, 400))
    found = student_t(f, *BASE, samples=100, warmup=100, chains=2, seed=1)
    assert found.samples["E_scrubbed"].shape == (2, 100)
    low, high = found.interval("E_scrubbed", 0.999)
    assert low < 3 < high and high - low < mean_of_pairs(f, 0.999).width  # the tails do not widen it
    assert 1.5 < np.median(found.samples["df"]) < 3
    assert found.interval("scale", 0.999)[0] < 2 < found.interval("scale", 0.999)[1]
    assert found.diagnostics["r_hat"] < 1.1 and found.model == "Student-t"


def test_skewed_losses_are_noted_under_the_student_t_model() -> None:
    f = torch.from_numpy(np.random.default_rng(2).lognormal(0, 1.5, 400))
    found = student_t(f, *BASE, samples=60, warmup=60, chains=1)
    assert any(note.startswith("skewed losses") for note in found.notes)


def test_a_posterior_becomes_arviz_data() -> None:
    f = torch.rand(200, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = bayesian_bootstrap(f, Baseline(0.0, 0.0, 0, "exact"), Baseline(1.0, 0.0, 0, "exact"), samples=64)
    data = found.to_arviz()
    assert data["posterior"]["loss_recovered"].dims == ("chain", "draw")
    assert np.array_equal(data["posterior"]["E_scrubbed"].to_numpy(), found.samples["E_scrubbed"])
    assert float(data["constant_data"]["E_randomised"]) == 1.0 and "E_model" not in data["posterior"]
    assert data["observed_data"]["losses"].size == len(found.losses) and data["posterior"].attrs["model"] == found.model


def test_what_was_not_drawn_is_in_the_posterior() -> None:
    """0/1 losses with a draw at each end before any: Beta(events + 1, others + 1), for rare events of both."""
    known = Known.of(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]), torch.empty(0))
    for events in (0, 4):
        f = torch.zeros(400, dtype=torch.float64)
        f[: 100 * events : 100] = 1
        found = bayesian_bootstrap(f, *BASE, samples=4000, known=known)
        low, high = stats.beta(events + 1, 400 - events + 1).ppf([0.025, 0.975])
        assert found.interval("E_scrubbed") == pytest.approx((low, high), rel=0.25)
        assert any(note.startswith("prior at 0 and 1") for note in found.notes)
    with pytest.raises(StudyError, match="no posterior: f did not vary"):
        bayesian_bootstrap(0 * f, *BASE)
    sample = Sampled.of(0 * f, Seen(0.0, 1.0, (0.0, 1.0)))
    base = Baseline(0.0, 0.0, 400, "sampled", sample)
    found = bayesian_bootstrap(pairs(100), Baseline(1.0, 0.0, 0, "exact"), base, samples=4000)
    assert found.interval("E_randomised")[1] == pytest.approx(stats.beta(1, 401).ppf(0.975), rel=0.25)
