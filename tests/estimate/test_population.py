"""The data's uncertainty: the gradient against exact derivatives, and against a bootstrap of D."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pscrub import Baseline, Claim, Dataset, Graph, Hypothesis, scrub, unroll
from pscrub.estimate.baselines import model_loss, randomised_loss
from pscrub.estimate.estimate import exact_estimate, mean_of_pairs
from pscrub.estimate.gradients import Scores, exact_gradient, randomised_gradient
from pscrub.estimate.population import DataUncertainty, bootstrap, data_uncertainty
from pscrub.evaluate.on_data import OnData
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.law.drawing import draw
from pscrub.law.of_f import scrubbed_expectation
from pscrub.result.merging import merge
from tests.false_alarm import Z

WEIGHTS = torch.tensor([0.3, 0.1, 0.2, 0.1, 0.2, 0.1, 0.0], dtype=torch.float64)
X = torch.tensor([0, 1, 2, 3, 4, 5, 6])
GRAPH = Graph.of(
    {
        "a": lambda x: (x % 3) + 1,
        "b": lambda x: x // 2,
        "c": lambda a, b: a * b + b,
        "f": lambda c, a, y: ((c - 2 * y) ** 2 + a).double(),
    },
    inputs=["x", "y"],
    output="f",
)


def toy(weights: Tensor = WEIGHTS, sharing: str = "reader") -> Hypothesis:
    """Claims two levels deep, unimportant inputs at two of them."""
    data = Dataset({"x": X, "y": (X > 2).long()}, weights)
    parts = Claim("c", X % 2, reads=[Claim("b", X % 2)])
    return Hypothesis("toy", GRAPH, data, Claim("f", reads=[parts, Claim("y", "y")]), sharing)  # type: ignore[arg-type]


def scores(hypothesis: Hypothesis, draws: int, seed: int) -> tuple[Scores, Tensor, OnData]:
    tree = unroll(hypothesis)
    activations = Activations(hypothesis.graph, hypothesis.data)
    rows = draw(tree, draws, (seed,))
    f = run_scrubbed(tree, activations, rows)
    found = Scores(tree)
    found.add(rows, f)
    return found, f, OnData(hypothesis.graph, hypothesis.data)


@pytest.mark.parametrize("sharing", ["reader", "all", "each"])
def test_the_gradient_is_that_of_the_exact_expectation(sharing: str) -> None:
    """d E / d log w_k by central differences of the exact E_scrubbed, every row in turn, weights not uniform."""
    step, expected = 1e-5, []
    for k in range(len(X)):
        ends = []
        for sign in (-1, 1):
            weights = WEIGHTS.clone()
            weights[k] *= math.exp(sign * step)
            ends.append(scrubbed_expectation(unroll(toy(weights, sharing))))
        expected.append((ends[1] - ends[0]) / (2 * step))
    runs = torch.stack([scores(toy(sharing=sharing), 4000, seed)[0].gradient() for seed in range(40)])
    for half in (0, 1):
        error = runs[:, half].std(0) / math.sqrt(len(runs))
        # 40 runs of 2,000: means are normal, their errors known to 11 %.
        wrong = (runs[:, half].mean(0) - torch.tensor(expected)).abs()
        assert bool((wrong <= 1.5 * Z * error + 1e-9).all())
    assert runs.sum(-1).abs().max() < 1e-9  # scaling all weights changes nothing
    assert bool((runs[..., -1] == 0).all())  # nor does a row that is never drawn


def test_rounds_add_up() -> None:
    tree, activations = unroll(toy()), Activations(GRAPH, toy().data)
    rounds = [draw(tree, 100, (0, i)) for i in range(3)]
    apart, whole = Scores(tree), Scores(tree)
    for data in rounds:
        apart.add(data, run_scrubbed(tree, activations, data))
    joined = {path: torch.cat([data[path] for data in rounds]) for path in rounds[0]}
    whole.add(joined, run_scrubbed(tree, activations, joined))
    torch.testing.assert_close(apart.gradient(), whole.gradient(), rtol=1e-12, atol=1e-12)


def test_the_baselines_gradients_are_exact() -> None:
    step = 1e-6
    on_data = OnData(GRAPH, toy().data)
    found = (exact_gradient(on_data.on_data("f"), toy().data.weights), randomised_gradient(on_data))
    for k in range(len(X)):
        values = []
        for sign in (-1, 1):
            weights = WEIGHTS.clone()
            weights[k] *= math.exp(sign * step)
            moved = OnData(GRAPH, toy(weights).data)
            values.append((model_loss(moved).value, randomised_loss(moved).value))
        for gradient, low, high in zip(found, *values, strict=True):
            assert float(gradient[0, k]) == pytest.approx((high - low) / (2 * step), abs=1e-6)
            assert torch.equal(gradient[0], gradient[1])


def test_a_sampled_randomised_loss_has_its_gradient_from_the_same_pairs() -> None:
    on_data = OnData(GRAPH, toy().data)
    exact, few = randomised_gradient(on_data), randomised_gradient(on_data, pairs=4_000_000 // 20)
    assert torch.equal(exact, few)
    big = Dataset({"x": X.repeat(40), "y": (X > 2).long().repeat(40)}, WEIGHTS.repeat(40))
    on_data = OnData(GRAPH, big)
    sampled = randomised_gradient(on_data, pairs=500)  # 25 pairs: fewer than 2 labels on 280 rows
    whole = randomised_gradient(on_data)
    assert not torch.equal(sampled[0], sampled[1]) and sampled.sum(1).abs().max() < 1e-9
    close = torch.stack([randomised_gradient(on_data, pairs=559, seed=s).mean(0) for s in range(4000)])
    wrong = (close.reshape(4000, 40, 7).sum(1).mean(0) - whole[0].reshape(40, 7).sum(0)).abs()
    spread = close.reshape(4000, 40, 7).sum(1).std(0) / math.sqrt(4000)
    # Centring by the mean of 27 pairs takes 1 / 27 of the gradient away.
    assert bool((wrong <= Z * spread + whole[0].reshape(40, 7).sum(0).abs() / 20).all())


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
    found, f, on_data = scores(hypothesis, draws, seed)
    gradients = (
        found.gradient(),
        exact_gradient(on_data.on_data("f"), hypothesis.data.weights),
        randomised_gradient(on_data),
    )
    baselines = model_loss(on_data), randomised_loss(on_data)
    return data_uncertainty(mean_of_pairs(f), *baselines, gradients, hypothesis.data.weights)


def test_the_jackknife_agrees_with_a_bootstrap_of_the_data() -> None:
    hypothesis = linear(300)
    found = uncertainty(hypothesis)
    again = bootstrap(hypothesis, times=300, draws=4000)
    covariance = torch.from_numpy(np.cov(again.T.numpy()))
    covariance[0, 0] -= mean_of_pairs(scores(hypothesis, 4000, 9)[1]).se ** 2  # the bootstrap's own draws
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
    weights = torch.full((n,), 1 / n, dtype=torch.float64)
    gradient = exact_gradient(f, weights)
    model = Baseline(float(f.mean()), 0.0, 0, "exact")
    given = Baseline(5.0, 0.0, 0, "given")
    found = data_uncertainty(
        exact_estimate(model.value, 0.95, "exact"), model, given, (gradient, gradient, torch.zeros(2, n)), weights
    )
    assert found.both.scrubbed.se == pytest.approx(float(f.std()) / math.sqrt(n))  # the textbook standard error
    assert found.both.recovered is not None and found.both.recovered.value == pytest.approx(100)
    assert found.both.recovered.width < 1e-6  # 100 % on every sample of the population
    assert found.both.randomised.width == 0


def test_noise_that_hides_the_data_is_warned_of_by_name() -> None:
    noise = torch.randn(2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.full((100,), 0.01, dtype=torch.float64)
    none = torch.zeros(2, 100, dtype=torch.float64)
    base = Baseline(0.0, 0.0, 0, "exact"), Baseline(1.0, 0.0, 0, "exact")
    value = exact_estimate(0.5, 0.95, "exact")
    hidden = data_uncertainty(value, *base, (torch.stack([noise[0], -noise[0]]), none, none), weights)
    assert hidden.warnings[0].startswith("data uncertainty not resolved") and hidden.data.scrubbed.width > 0
    signs = 0.8 * (-1.0) ** torch.arange(100)
    blurred = data_uncertainty(value, *base, (torch.stack([1 + signs, 1 - signs]), none, none), weights)
    assert blurred.warnings[0].startswith("data uncertainty blurred")
    assert float(blurred.covariance[0, 0]) > 100 * 0.36 * 100 / 99  # what the product of the halves gives


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
    assert merged.both.scrubbed.se < one.data.both.scrubbed.se
    torch.testing.assert_close(merged.covariance, going_on.covariance)
    given = scrub(hypothesis, draws=4000, data_uncertainty=True, randomised=9.0).results[0].data
    assert given is not None and given.data.randomised.width == 0
    exact = scrub(replace(hypothesis, claim=Claim("f", "exact")), data_uncertainty=True).results[0].data
    assert exact is not None and exact.data.scrubbed.se == pytest.approx(exact.data.model.se)


def test_noise_never_takes_away_from_the_draws() -> None:
    """A covariance that noise made negative must not narrow the interval of both below that of the draws."""
    noise = torch.randn(2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.full((100,), 0.01, dtype=torch.float64)
    none = torch.zeros(2, 100, dtype=torch.float64)
    base = Baseline(0.0, 0.0, 0, "exact"), Baseline(10.0, 0.0, 0, "exact")
    e = mean_of_pairs(torch.randn(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    found = data_uncertainty(e, *base, (0.01 * torch.stack([noise[0], -noise[0]]), none, none), weights)
    assert found.both.scrubbed.se >= e.se and found.both.recovered is not None
    assert found.both.recovered.width > 10 * e.width * 0.99
