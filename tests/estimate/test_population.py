"""The population's values and intervals: against a bootstrap of D, and refused where D cannot say."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pscrub import Baseline, Claim, Dataset, Graph, Hypothesis, scrub
from pscrub.estimate.baselines import Baselines
from pscrub.estimate.estimate import Estimate, choose, exact_estimate, mean_of_pairs
from pscrub.estimate.gradients import exact_gradient
from pscrub.estimate.jackknife import Population
from pscrub.estimate.known import Known
from pscrub.estimate.population import DataUncertainty, data_uncertainty
from pscrub.estimate.recovered import loss_recovered
from pscrub.estimate.resampled import bootstrap
from pscrub.outcomes import Said
from pscrub.result.merging import merge
from tests.false_alarm import Z


def linear(n: int, seed: int = 0) -> Hypothesis:
    """f = (s x + noise of the row - label)^2, claimed to read only the sign s."""
    rng = torch.Generator().manual_seed(seed)
    s = torch.randint(0, 4, (n,), generator=rng)
    noise, label = torch.randn(2, n, generator=rng, dtype=torch.float64)
    data = Dataset({"s": s, "noise": noise, "y": s + 0.5 * label})
    graph = Graph.of(
        {"out": lambda s, noise: s + 0.3 * noise, "f": lambda out, y: (out - y) ** 2}, ["s", "noise", "y"], "f"
    )
    return Hypothesis("s", graph, data, Claim("f", reads=[Claim("out", "s"), Claim("y", "s")]))


def uncertainty(hypothesis: Hypothesis, draws: int = 20_000, seed: int = 0) -> DataUncertainty:
    found = scrub(hypothesis, draws=draws, seed=seed, data_uncertainty=True).results[0].data
    assert found is not None
    return found


def given(scrubbed: Tensor, drawn: Estimate, randomised: Baseline, **more: float) -> Population:
    """A population of rows of equal weight, E_scrubbed's gradient given, baselines held fixed."""
    rows = scrubbed.shape[1]
    none = torch.zeros(2, rows, dtype=torch.float64)
    gradients = tuple((g[0], g[1]) for g in (scrubbed, none, none))
    return Population(drawn, randomised, gradients, torch.full((rows,), 1 / rows, dtype=torch.float64), **more)


def test_the_jackknife_agrees_with_a_bootstrap_of_the_data() -> None:
    hypothesis = linear(300)
    found = uncertainty(hypothesis)
    again = bootstrap(hypothesis, times=300, draws=4000)
    covariance = torch.from_numpy(np.cov(again.T.numpy()))
    covariance[0, 0] -= scrub(hypothesis, draws=4000, seed=9).results[0].scrubbed.se ** 2  # the bootstrap's own draws
    # 300 resamples know a standard deviation to 4 %.
    for i in range(3):
        ratio = math.sqrt(float(found.covariance[i, i] / covariance[i, i]))
        assert abs(ratio - 1) < 0.04 * Z
    correlation = [c[0, 1] / (c[0, 0] * c[1, 1]).sqrt() for c in (found.covariance, covariance)]
    assert abs(float(correlation[0] - correlation[1])) < 0.06 * Z
    assert not found.warnings


def test_the_two_uncertainties_add_and_each_says_what_it_is() -> None:
    found = uncertainty(linear(300))
    apart, both = found.data, found.both
    assert {e.kind for e in (apart.scrubbed, apart.model, apart.randomised)} == {"data"}
    assert {e.kind for e in (both.scrubbed, both.model, both.randomised)} == {"draws and data"}
    assert apart.recovered is not None and both.recovered is not None and both.recovered.kind == "draws and data"
    assert both.scrubbed.se > apart.scrubbed.se > 0 and both.recovered.width > apart.recovered.width
    assert apart.model == replace(both.model, kind="data")  # exact given D: the same either way
    assert both.recovered.low < both.recovered.value < both.recovered.high
    # What baselines share with the scrubbed loss cancels in the score.
    naive = 100 * both.scrubbed.se / abs(both.model.value - both.randomised.value)
    assert both.recovered.se != pytest.approx(naive, rel=0.1)


def test_rows_that_are_all_alike_have_no_uncertainty() -> None:
    data = Dataset({"x": torch.ones(50), "y": torch.ones(50)})
    graph = Graph.of({"out": lambda x: 2 * x, "f": lambda out, y: (out - y) ** 2}, ["x", "y"], "f")
    alike = Hypothesis("alike", graph, data, Claim("f", reads=[Claim("out", "x")]))
    found = uncertainty(alike, 200)
    assert float(found.covariance.abs().max()) < 1e-24 and found.data.recovered is None


def test_a_hypothesis_that_claims_everything_exact_has_the_models_uncertainty() -> None:
    n = 100
    f = torch.randn(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value = exact_estimate(float(f.mean()), 0.95, "exact")
    model, gradient = Baseline(value.value, 0.0, 0, "exact"), exact_gradient(f, torch.full((n,), 1 / n).double())
    population = given(gradient, value, Baseline(5.0, 0.0, 0, "given"))
    population = replace(population, gradients=(population.gradients[0], *population.gradients[:2]))
    population = replace(
        population, gradients=(*population.gradients[:2], given(0 * gradient, value, model).gradients[0])
    )
    found = data_uncertainty(value, model, population)
    assert found.both.scrubbed is not None
    assert found.both.scrubbed.se == pytest.approx(float(f.std()) / math.sqrt(n))  # the textbook standard error
    assert found.both.recovered is not None and found.both.recovered.value == pytest.approx(100)
    assert found.both.recovered.width < 1e-6  # 100 % on every sample of the population
    assert found.both.randomised.width == 0


def test_noise_that_hides_the_data_is_warned_of_by_name() -> None:
    noise = torch.randn(2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model, chance = Baseline(0.0, 0.0, 0, "exact"), Baseline(1.0, 0.0, 0, "exact")
    value = exact_estimate(0.5, 0.95, "exact")
    hidden = data_uncertainty(value, model, given(torch.stack([noise[0], -noise[0]]), value, chance))
    assert hidden.warnings[0].startswith("data uncertainty not resolved")
    assert hidden.data.scrubbed is not None and hidden.data.scrubbed.width > 0
    signs = 0.8 * (-1.0) ** torch.arange(100, dtype=torch.float64)
    blurred = data_uncertainty(value, model, given(torch.stack([1 + signs, 1 - signs]), value, chance))
    assert blurred.warnings[0].startswith("data uncertainty blurred")
    # The variance is what the product of the halves gives, and the noise in it leaves fewer degrees of freedom.
    assert float(blurred.covariance[0, 0]) == pytest.approx(100 * 0.36 * 100 / 99)
    assert blurred.data.scrubbed is not None and blurred.data.scrubbed.df < 30


def test_where_the_population_cannot_be_known_no_interval_is_given() -> None:
    value, chance = exact_estimate(0.5, 0.95, "exact"), Baseline(1.0, 0.0, 0, "exact")
    gradient = 0.01 * torch.ones(2, 100, dtype=torch.float64)
    for unknown, refused, kind in ((0.3, True, "population not known"), (0.1, False, "population partly known")):
        found = data_uncertainty(value, Baseline(0.0, 0.0, 0, "exact"), given(gradient, value, chance, unknown=unknown))
        assert (found.both.scrubbed is None) is (found.both.recovered is None) is refused
        assert [said.kind for said in map(Said.of, found.warnings)] == [kind]
        assert f"{100 * unknown:.2g} %" in found.warnings[0] and found.both.model.value == 0.0
    lone = linear(300)
    lone = replace(lone, claim=Claim("f", reads=[Claim("out", "noise"), Claim("y", "exact")]))
    run = scrub(lone, draws=200, data_uncertainty=True)
    result = run.results[0]
    assert result.data is not None and result.data.both.scrubbed is None and result.data.unknown == 1.0
    assert "not known" in repr(run) and result.as_row()["unknown_population"] == 1.0
    assert any(Said.of(said).kind == "population not known" for said in result.warnings)


def test_values_on_this_data_and_in_the_population_stay_apart() -> None:
    """Blocks of three: D's own rows stand in for themselves in a third of all draws, which makes E_scrubbed less."""
    rng = torch.Generator().manual_seed(2)
    u, y = torch.randn(2, 600, generator=rng, dtype=torch.float64)
    data = Dataset({"u": u, "y": u + 0.1 * y, "b": torch.arange(600) // 3})
    graph = Graph.of({"out": lambda u: 1.0 * u, "f": lambda out, y: (out - y) ** 2}, ["u", "y"], "f")
    h = Hypothesis("threes", graph, data, Claim("f", reads=[Claim("out", "b"), Claim("y", "exact")]))
    result = scrub(h, draws=8000, data_uncertainty=True, exact=False).results[0]
    assert result.data is not None and result.data.both.scrubbed is not None
    by_block = u.reshape(200, 3)
    apart = [(by_block[:, i] - (data["y"].reshape(200, 3))[:, j]) ** 2 for i in range(3) for j in range(3) if i != j]
    assert abs(result.data.both.scrubbed.value - float(torch.stack(apart).mean())) < Z * result.scrubbed.se
    assert result.scrubbed.high < result.data.both.scrubbed.low
    row = result.as_row()
    assert row["scrubbed_population"] == result.data.both.scrubbed.value != row["scrubbed"]


def test_clusters_widen_the_interval_by_what_their_rows_share() -> None:
    rng = torch.Generator().manual_seed(3)
    s, of_cluster = torch.randint(0, 3, (400,), generator=rng), torch.randn(50, generator=rng, dtype=torch.float64)
    noise = of_cluster.repeat_interleave(8)
    data = Dataset({"s": s, "noise": noise, "y": s + 0.5 * noise, "document": torch.arange(400) // 8})
    h = replace(linear(4), data=data, claim=Claim("f", reads=[Claim("out", "s"), Claim("y", "exact")]))
    h = replace(h, graph=linear(4).graph)
    rows, documents = uncertainty(h, 4000), scrub(h, draws=4000, clusters="document").results[0].data
    assert documents is not None and documents.both.scrubbed is not None and rows.both.scrubbed is not None
    assert documents.both.scrubbed.se > 1.5 * rows.both.scrubbed.se
    assert documents.both.model.se > 1.5 * rows.both.model.se
    assert "50 clusters (document)" in documents.both.model.method


def test_a_run_gives_it_when_asked_and_runs_on_and_merges() -> None:
    hypothesis = linear(300)
    plain, whole = scrub(hypothesis, draws=4000), scrub(hypothesis, draws=4000, data_uncertainty=True)
    assert plain.results[0].data is None
    one = whole.results[0]
    assert one.data is not None and one.scrubbed == plain.results[0].scrubbed
    assert one.recovered is not None and one.data.both.recovered is not None
    assert one.data.both.recovered.width > one.recovered.width
    other = scrub(hypothesis, draws=4000, data_uncertainty=True, seed=1)
    merged = merge(whole, other).results[0].data
    going_on = scrub(hypothesis, draws=4000, data_uncertainty=True, seed=1, after=whole).results[0].data
    assert merged is not None and going_on is not None
    assert merged.population is not None and merged.population.drawn is not None
    assert one.data.population is not None and one.data.population.drawn is not None
    assert merged.population.drawn.se < one.data.population.drawn.se
    torch.testing.assert_close(merged.covariance, going_on.covariance)
    fixed = scrub(hypothesis, draws=4000, data_uncertainty=True, randomised=9.0).results[0].data
    assert fixed is not None and fixed.data.randomised.width == 0
    exact = scrub(replace(hypothesis, claim=Claim("f", "exact")), data_uncertainty=True).results[0].data
    assert exact is not None and exact.data.scrubbed.se == pytest.approx(exact.data.model.se)


def test_noise_never_takes_away_from_the_draws() -> None:
    """A covariance that noise made negative must not narrow the interval of both below that of the draws."""
    noise = torch.randn(2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model, chance = Baseline(0.0, 0.0, 0, "exact"), Baseline(10.0, 0.0, 0, "exact")
    e = mean_of_pairs(torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    found = data_uncertainty(e, model, given(0.01 * torch.stack([noise[0], -noise[0]]), e, chance))
    assert found.both.scrubbed is not None and found.both.scrubbed.se >= e.se and found.both.recovered is not None
    assert found.both.recovered.width > 10 * e.width * 0.99


ZERO_ONE = Known.of(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]), torch.empty(0))


@pytest.mark.parametrize("ones", [1, 3, 40])
def test_draws_and_data_are_never_narrower_than_draws(ones: int) -> None:
    """Rare 0/1 losses are betted on, to longer sides than a t interval has; the data's part comes on top."""
    f = torch.zeros(1000, dtype=torch.float64)
    f[torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:ones]] = 1.0
    e, few = choose(f), choose(f[:100], known=ZERO_ONE)
    none = torch.zeros(2, 100, dtype=torch.float64)
    model, chance = Baseline(0.0, 0.0, 0, "exact"), Baseline(0.5, 0.0, 0, "exact")
    for on_data in (e, few):
        for gradient in (none, none + 1e-4):
            found = data_uncertainty(on_data, model, given(gradient, e, chance)).both
            against = Baselines(model, chance)
            plain = loss_recovered(on_data, against)
            assert found.scrubbed is not None and found.recovered is not None and plain is not None
            for drawn in (on_data, e):
                assert found.scrubbed.value - found.scrubbed.low >= drawn.value - drawn.low - 1e-12
                assert found.scrubbed.high - found.scrubbed.value >= drawn.high - drawn.value - 1e-12
            assert found.recovered.width >= plain.width - 1e-9


def test_what_pairs_of_rows_do_stays_however_little_single_rows_seem_to_do() -> None:
    model, chance = Baseline(0.0, 0.0, 0, "exact"), Baseline(1.0, 0.0, 0, "exact")
    value = exact_estimate(0.5, 0.95, "exact")
    small = given(torch.full((2, 100), 1e-3, dtype=torch.float64), value, chance)
    signs = (-1.0) ** torch.arange(100, dtype=torch.float64)
    large = given(torch.stack([0.1 * signs, 0.1 * signs]), value, chance)
    # Squares of which next to nothing is left when pairs are taken off: as much as these is put in place.
    found = data_uncertainty(value, model, replace(small, excess=-0.25, blocks=4.0))
    assert float(found.covariance[0, 0]) == pytest.approx(0.25)
    assert found.data.scrubbed is not None and found.data.scrubbed.df == pytest.approx(4)
    assert found.data.recovered is not None and found.data.recovered.se >= 100 * 0.5
    # Squares that have it five times too often, as in blocks of three rows: a fifth of that is all that pairs do.
    often = data_uncertainty(value, model, replace(small, excess=-0.25, blocks=4.0, overcount=5.0))
    assert float(often.covariance[0, 0]) == pytest.approx(0.05)
    # A tenth of the variance in few blocks: nothing to speak of.
    most = data_uncertainty(value, model, replace(large, excess=-0.1, blocks=4.0))
    assert float(most.covariance[0, 0]) == pytest.approx(100 / 99 - 0.1)
    assert most.data.scrubbed is not None and most.data.scrubbed.df > 50
    every = data_uncertainty(value, model, replace(large, excess=-0.1))
    assert every.data.scrubbed is not None and every.data.scrubbed.df == pytest.approx(most.data.scrubbed.df)


def test_of_two_rows_nothing_is_told_of_the_population() -> None:
    graph = Graph.of({"out": lambda u: 1.0 * u, "f": lambda out, y: (out - y) ** 2}, ["u", "y"], "f")

    def figures(rows: int, clusters: str | None = None, **more: float) -> DataUncertainty:
        columns = {"u": torch.randn(rows).double(), "y": torch.randn(rows).double()}
        data = Dataset(columns | {"b": torch.zeros(rows), "k": torch.arange(rows) % 2})
        claim = Claim("f", reads=[Claim("out", "b"), Claim("y", "exact")])
        found = scrub(
            Hypothesis("few", graph, data, claim), draws=400, clusters=clusters, data_uncertainty=True, **more
        )
        assert found.results[0].data is not None
        return found.results[0].data

    for two in (figures(2), figures(40, "k")):
        assert two.both.scrubbed is None and "2 " in two.warnings[0] and "expected 3 or more" in two.warnings[0]
        assert math.isinf(two.both.randomised.width) and math.isfinite(two.both.model.width)
    assert figures(2, randomised=3.0).both.randomised.width == 0  # given, and held fixed
    three = figures(3)
    assert three.both.scrubbed is not None and 0 < three.both.scrubbed.width < math.inf
    assert 0 < three.both.randomised.width < math.inf
    assert math.isinf(figures(1).both.model.width)
