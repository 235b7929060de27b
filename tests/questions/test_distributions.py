"""Distances of distributions against scipy's and exact ones; their p-values and intervals; output distances."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pscrub import Claim, Dataset, Graph, GraphError, Hypothesis, HypothesisError, StudyError, unroll
from pscrub.graph.equal import check_rewrites, equal_on
from pscrub.graph.losses import accuracy, correlation, divergence, flipped, squared_error
from pscrub.graph.trivial import constant, lookup_table
from pscrub.hypothesis.behaviours import output_distance, restrict
from pscrub.hypothesis.claim import EXACT
from pscrub.law.of_f import scrubbed_expectation
from pscrub.questions.comparison import draw_losses
from pscrub.questions.distributions import (
    MEASURES,
    compare_distributions,
    compare_samples,
    exact_distances,
    output_distances,
)
from pscrub.studies import load
from tests.false_alarm import PER_CHECK, mean_radius

REPEATS = 200
samples = st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=30)


def by_name(study: str, name: str) -> Hypothesis:
    return next(h for h in load(study).hypotheses if h.name == name)


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=30))
def test_distances_of_samples_are_scipys(pairs: list[tuple[int, int]]) -> None:
    x, y = (np.array(each, dtype=float) for each in zip(*pairs, strict=True))
    ks, area, energy = (e.estimate.value for e in compare_samples(tensor(x), tensor(y), resamples=2))
    assert ks == pytest.approx(stats.ks_2samp(x, y, method="asymp").statistic, abs=1e-12)
    assert area == pytest.approx(stats.wasserstein_distance(x, y), abs=1e-12)
    assert energy == pytest.approx(stats.energy_distance(x, y), abs=1e-7)  # a root of a rounding


@pytest.mark.parametrize("study", ["hash_game", "superposition", "sin_cos"])
def test_distances_from_d_are_near_the_exact_ones_and_scipys(study: str) -> None:
    for h in load(study).hypotheses:
        exact = exact_distances(h)
        found = {each.measure: each for each in compare_distributions(h, 2048, seed=3, resamples=99)}
        assert tuple(found) == MEASURES
        # Massart: the distribution function of n draws is within this of its own everywhere.
        radius = math.sqrt(math.log(2 / PER_CHECK) / (2 * 2048))
        assert abs(found["Kolmogorov-Smirnov"].estimate.value - exact["Kolmogorov-Smirnov"]) <= radius
        for each in found.values():
            assert 0 <= each.estimate.low <= each.estimate.value <= each.estimate.high
            assert 0.01 <= each.p <= 1
            if exact[each.measure] > 0.1 and exact["Kolmogorov-Smirnov"] > 2 * radius:
                assert each.p == 0.01


def test_an_exact_distance_is_scipys_weighted_one() -> None:
    h = by_name("hash_game", "true bit on HARD")
    # By hand: f is 1, 0 on EASY and 0 on HARD for the model; scrubbed 1/8, 5/8 and 100 with 1/4.
    own, law = ([0.0, 1.0], [0.75, 0.25]), ([0.0, 1.0, 100.0], [0.625, 0.125, 0.25])
    exact = exact_distances(h)
    assert exact["Wasserstein"] == pytest.approx(stats.wasserstein_distance(own[0], law[0], own[1], law[1]))
    assert exact["energy"] == pytest.approx(stats.energy_distance(own[0], law[0], own[1], law[1]))
    assert exact["Kolmogorov-Smirnov"] == pytest.approx(0.25)


def test_nothing_scrubbed_is_no_distance() -> None:
    assert set(exact_distances(by_name("superposition", "everything matters")).values()) == {0.0}


def too_many(count: int, p: float) -> bool:
    return bool(stats.binom.sf(count - 1, REPEATS, p) < PER_CHECK)


def test_p_values_alarm_no_more_often_than_they_say() -> None:
    """Where scrubbing leaves the law of f as it was although every draw of x is another."""
    h = by_name("sin_cos", "x does not matter")
    alarms = np.zeros(3)
    for seed in range(REPEATS):
        alarms += [each.p <= 0.1 for each in compare_distributions(h, 64, seed, resamples=19)]
    assert not any(too_many(int(n), 0.1) for n in alarms)
    assert alarms.sum() > 0


def test_swapping_within_draws_alarms_no_more_often_than_it_says() -> None:
    """Entries that hang together closely, as on common random numbers: swapping across draws would never alarm."""
    alarms, rng = np.zeros(3), np.random.default_rng(0)
    for seed in range(REPEATS):
        common = rng.standard_normal(40)
        x, y = (tensor(common + 0.1 * rng.standard_normal(40)) for _ in range(2))
        alarms += [each.p <= 0.1 for each in compare_samples(x, y, resamples=19, seed=seed)]
    assert not any(too_many(int(n), 0.1) for n in alarms)
    assert alarms.sum() > REPEATS * 3 * 0.1 / 3


def test_intervals_cover_the_exact_distance() -> None:
    h = by_name("hash_game", "true bit on HARD")
    exact, missed = exact_distances(h), np.zeros(3)
    for seed in range(REPEATS):
        found = compare_distributions(h, 400, seed, resamples=99)
        missed += [not each.estimate.low <= exact[each.measure] <= each.estimate.high for each in found]
    # Nominally 5 %; a bootstrap of 99 resamples and 400 draws is given 10.
    assert not any(too_many(int(n), 0.1) for n in missed)


def test_values_a_rounding_apart_are_one() -> None:
    x = tensor([0.1, 0.2, 0.3] * 5)
    assert [each.estimate.value for each in compare_samples(x, x * (1 + 1e-15), resamples=9)] == [0.0, 0.0, 0.0]


def test_hypotheses_on_common_random_numbers() -> None:
    losses = draw_losses(load("hash_game"), draws=512)
    _, false, joined, _ = losses.f
    assert all(each.p == 0.01 for each in compare_samples(false, joined, resamples=99))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(StudyError, match="shapes"):
        compare_samples(tensor([1.0, 2.0]), tensor([1.0]))
    with pytest.raises(StudyError, match="finite"):
        compare_samples(tensor([1.0, math.nan]), tensor([1.0, 2.0]))
    with pytest.raises(StudyError, match="draws is 1"):
        compare_distributions(load("sin_cos").hypotheses[0], 1)


# Outputs and other behaviours


def classifier(sharing: str = "reader") -> Hypothesis:
    """Three logits of which one is claimed to depend on x alone, the rest unimportant."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(9, generator=generator, dtype=torch.float64)
    columns = {name: torch.randn(9, generator=generator, dtype=torch.float64) for name in ("x", "z")}
    data = Dataset({**columns, "label": torch.arange(9) % 3, "big": torch.arange(9) // 5}, weights)
    functions = {
        "a": lambda x: x,
        "b": lambda z: z,
        "logits": lambda a, b: torch.stack([a, b, a * b], 1),
        "loss": lambda logits, label: -logits.log_softmax(1).gather(1, label[:, None])[:, 0],
    }
    graph = Graph.of(functions, inputs=["x", "z", "label"], output="loss")
    root = Claim("loss", reads=[Claim("logits", reads=[Claim("a", "big")]), Claim("label", EXACT)])
    return Hypothesis("a by its half", graph, data, root, sharing=sharing)  # type: ignore[arg-type]


def test_output_distances_need_no_labels_and_are_those_that_can_be_enumerated() -> None:
    h = classifier()
    found = {each.measure: each for each in output_distances(h, 4096, seed=2)}
    assert set(found) == {"KL", "flipped"}
    unlabelled = Dataset({name: h.data[name] for name in ("x", "z", "big")}, h.data.weights)
    again = output_distances(Hypothesis("", h.graph, unlabelled, h.claim), 4096, seed=2)
    assert all(torch.equal(found[each.measure].values, each.values) for each in again)
    for name, each in found.items():
        other = output_distance(h, name)
        assert "label" not in other.graph.ancestors(other.graph.output)
        exact = scrubbed_expectation(unroll(other))
        radius = mean_radius(float(each.values.var()), float(each.values.max()), 4096)
        assert abs(each.estimate.value - exact) <= 2 * radius
        assert each.estimate.value == pytest.approx(float(each.values.mean()))


def test_an_output_distance_by_hand() -> None:
    """Given its block the a of the draw is any of the block's; b is any of D's."""
    h = classifier()
    x, z, big = (h.data[name] for name in ("x", "z", "big"))
    w, total = h.data.weights, 0.0
    for root in range(9):
        block = torch.where(big == big[root], w, 0.0)
        for i in range(9):
            for j in range(9):
                own = tensor([x[root], z[root], x[root] * z[root]])
                other = tensor([x[i], z[j], x[i] * z[j]])
                total += float(w[root] * block[i] / block.sum() * w[j] * (own - other).square().mean())
    assert scrubbed_expectation(unroll(output_distance(h))) == pytest.approx(total, rel=1e-12)


def test_a_vector_of_outputs_takes_any_distance() -> None:
    h = classifier()

    def largest(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (own - other).abs().amax(1)

    def root_mean_square(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return squared_error(own, other).sqrt()

    most, mean = (scrubbed_expectation(unroll(output_distance(h, each))) for each in (largest, root_mean_square))
    assert most > mean > most / math.sqrt(3) > 0
    with pytest.raises(HypothesisError, match="unknown distance 'squared eror'; did you mean"):
        output_distance(h, "squared eror")


def test_an_exact_hypothesis_moves_no_output() -> None:
    h = classifier()
    whole = Hypothesis("exact", h.graph, h.data, Claim("loss", EXACT))
    for distance in ("squared error", "KL", "flipped"):
        assert scrubbed_expectation(unroll(output_distance(whole, distance))) == 0.0


def test_distances_of_outputs() -> None:
    p, q = tensor([[0.0, 1.0], [2.0, 0.0]]), tensor([[1.0, 0.0], [2.0, 0.0]])
    assert squared_error(p, q).tolist() == [1.0, 0.0]
    assert flipped(p, q).tolist() == [1.0, 0.0]
    a = 1 / (1 + math.e)
    assert divergence(p, q).tolist() == pytest.approx(
        [a * math.log(a / (1 - a)) + (1 - a) * math.log((1 - a) / a), 0.0]
    )


def test_sub_populations_add_up_to_the_whole() -> None:
    h = classifier()
    parts = [scrubbed_expectation(unroll(restrict(h, "label", value))) for value in (0.0, 1.0, 2.0)]
    shares = [float(h.data.weights[h.data["label"] == value].sum()) for value in range(3)]
    assert sum(p * s for p, s in zip(parts, shares, strict=True)) == pytest.approx(scrubbed_expectation(unroll(h)))
    with pytest.raises(HypothesisError, match="on no row"):
        restrict(h, "label", 7.0)
    with pytest.raises(HypothesisError, match="expected a column"):
        restrict(h, "labels", 0.0)


@pytest.mark.parametrize("study", ["cancellation", "sin_cos"])
def test_the_law_stays_as_it_was(study: str) -> None:
    """f itself, as the distance of an output, under every sharing: the same law of the scrubbed inputs."""
    for h in load(study).hypotheses:
        other = output_distance(h, lambda own, out: out**2, labels=("y",))
        names = set(unroll(h).sites) - {"loss", "loss/y"}
        assert {p.removeprefix("loss") for p in names} <= {
            p.removeprefix("output distance") for p in unroll(other).sites
        }


def test_a_correlation_is_an_expectation() -> None:
    generator = torch.Generator().manual_seed(2)
    angle = torch.rand(30, generator=generator, dtype=torch.float64) * 6
    weights = torch.rand(30, generator=generator, dtype=torch.float64)
    data = Dataset({"angle": angle, "cosine": angle.cos(), "noise": angle * 0 + torch.arange(30) % 3}, weights)
    graph = Graph.of(
        {"neuron": lambda angle, noise: angle.cos() + noise, "f": lambda neuron: neuron}, ["angle", "noise"], "f"
    )
    g = correlation(graph, data, "neuron", "cosine")
    neuron = angle.cos() + data["noise"]
    moments = np.cov(neuron, data["cosine"], aweights=weights, ddof=0)
    r = moments[0, 1] / math.sqrt(moments[0, 0] * moments[1, 1])
    whole = Hypothesis("all", g, data, Claim("correlation", EXACT))
    assert scrubbed_expectation(unroll(whole)) == pytest.approx(r)
    nothing = Hypothesis("none", g, data, Claim("correlation", reads=[Claim("cosine", EXACT)]))
    assert scrubbed_expectation(unroll(nothing)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(GraphError, match="does not vary"):
        correlation(Graph.of({"c": lambda angle: angle * 0}, ["angle"], "c"), data, "c", "cosine")


def test_accuracy_is_the_share_of_right_answers() -> None:
    h = classifier()
    g = accuracy(h.graph, "logits", "label")
    logits = g.run(["logits"], {name: h.data[name] for name in g.inputs})["logits"]
    right = float(h.data.weights[logits.argmax(1) == h.data["label"]].sum())
    whole = Hypothesis("all", g, h.data, Claim("accuracy", EXACT))
    assert scrubbed_expectation(unroll(whole)) == pytest.approx(right)


# Equality on D


def test_equality_names_the_largest_difference_and_its_row() -> None:
    data = Dataset({"x": torch.arange(10.0)})
    one = Graph.of({"f": lambda x: x}, ["x"], "f")
    other = Graph.of({"f": lambda x: torch.where(x == 7, 9.0, x) + (x == 3)}, ["x"], "f")
    for chunk in (1, 4, 100):
        found = equal_on(one, other, data, chunk=chunk)
        assert (found.value, found.row, found.rows, bool(found)) == (2.0, 7, 2, True)
    nan = Graph.of({"f": lambda x: torch.where(x == 2, torch.nan, x)}, ["x"], "f")
    assert not equal_on(nan, nan, data)
    assert (equal_on(one, nan, data).value, equal_on(one, nan, data).row) == (math.inf, 2)
    wide = Graph.of({"f": lambda x: torch.stack([x, x], 1)}, ["x"], "f")
    with pytest.raises(GraphError, match="expected one shape"):
        equal_on(one, wide, data)


def test_trivial_rewrites_are_accepted_and_say_nothing() -> None:
    h = classifier()
    table = lookup_table(h.graph, "logits", h.data)
    assert not equal_on(h.graph, table, h.data)
    assert check_rewrites(table, h.data)[0].difference == 0.0
    assert set(table.nodes) == {"logits", "loss"}
    with pytest.raises(GraphError, match="not a row of D"):
        table.run(["logits"], {"x": tensor([9.0]), "z": tensor([9.0])})
    false = constant(h.graph, "loss", 0.0)
    with pytest.raises(GraphError, match="rewrite 'constant' of node 'loss' changes f"):
        check_rewrites(false, h.data)
