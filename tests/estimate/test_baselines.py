"""The baselines, against every pair written out."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pscrub import Dataset, Graph, StudyError
from pscrub.estimate.baselines import model_loss, randomised_loss
from pscrub.evaluate.on_data import OnData
from tests.false_alarm import Z

N = 40
GENERATOR = torch.Generator().manual_seed(2)
X = torch.randn(N, 3, generator=GENERATOR, dtype=torch.float64)
LABEL = torch.randint(4, (N,), generator=GENERATOR)
SHIFT = torch.randint(2, (N, 2), generator=GENERATOR)
BOTH = ("label", "shift")
WEIGHTS = [None, torch.arange(N) % 5]


def loss(out: Tensor, label: Tensor, shift: Tensor) -> Tensor:
    return (out - label - shift.sum(1)) ** 2


GRAPH = Graph.of(
    {"out": lambda x: x.cumsum(1)[:, -1], "f": lambda out, label, shift: loss(out, label, shift)},
    inputs=["x", "label", "shift"],
    output="f",
)


def activations(weights: Any = None, x: Tensor = X, **kwargs: Any) -> OnData:
    return OnData(GRAPH, Dataset({"x": x, "label": LABEL, "shift": SHIFT}, weights), **kwargs)


def by_pairs(a: OnData, labels: tuple[str, ...] = BOTH) -> float:
    """The randomised loss as N x N evaluations of f, one after another."""
    out, p = X.sum(1), a.data.weights
    total = 0.0
    for i in range(N):
        for j in range(N):
            if p[i] > 0 and p[j] > 0:
                rows = {name: [j] if name in labels else [i] for name in BOTH}
                total += float(p[i] * p[j] * loss(out[[i]], LABEL[rows["label"]], SHIFT[rows["shift"]])[0])
    return total


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("memory", [0, 2**20])
def test_the_models_loss_is_the_weighted_mean(weights: Any, memory: int) -> None:
    a = activations(weights, memory=memory)
    found = model_loss(a)
    assert found.value == pytest.approx(float((a.data.weights * loss(X.sum(1), LABEL, SHIFT)).sum()), rel=1e-12)
    assert found.exact and found.se == 0


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("memory", [0, 2**20])
def test_the_randomised_loss_is_exact_over_all_pairs(weights: Any, memory: int) -> None:
    a = activations(weights, memory=memory)
    found = randomised_loss(a, BOTH)
    assert found.exact and found.se == 0
    assert found.value == pytest.approx(by_pairs(a), rel=1e-12)
    assert found.value != pytest.approx(model_loss(a).value, rel=1e-3)


def test_what_adds_up_to_nothing_is_nothing() -> None:
    """A difference whose sign is the label's, as often + as -: not the rounding of its sum; infinity is no rounding."""
    graph = Graph.of({"out": lambda x: 1.0 * x, "f": lambda out, sign: out * sign}, ["x", "sign"], "f")
    x, sign = torch.linspace(0.1, 0.7, 9).repeat(2), torch.tensor([1.0, -1.0]).repeat_interleave(9)
    columns = {"x": x.double() / 3, "sign": sign.double()}
    assert randomised_loss(OnData(graph, Dataset(columns)), labels="sign").value == 0.0
    shifted = {**columns, "sign": columns["sign"] + 1e-9}
    assert randomised_loss(OnData(graph, Dataset(shifted)), labels="sign").value == pytest.approx(4e-10 / 3, rel=1e-3)
    infinite = {**columns, "x": torch.full((18,), math.inf, dtype=torch.float64)}
    assert math.isnan(randomised_loss(OnData(graph, Dataset(infinite)), labels="sign").value)


def test_only_the_labels_named_are_broken_off() -> None:
    a = activations(WEIGHTS[1])
    both, one = randomised_loss(a, BOTH), randomised_loss(a, labels=["label"])
    assert one.value == pytest.approx(by_pairs(a, ("label",)), rel=1e-12)
    assert one.value != pytest.approx(both.value, rel=1e-6)
    assert "4 distinct labels" in one.method


def test_rows_of_weight_zero_may_hold_nan() -> None:
    weights, x = torch.arange(N) % 5, X.clone()
    x[weights == 0] = math.nan
    a, clean = activations(weights, x), activations(weights)
    assert model_loss(a).value == pytest.approx(model_loss(clean).value, rel=1e-12)
    assert randomised_loss(a, BOTH).value == pytest.approx(randomised_loss(clean, BOTH).value, rel=1e-12)
    sampled = randomised_loss(a, BOTH, pairs=100)
    assert math.isfinite(sampled.value) and not sampled.exact


def test_a_nan_that_can_be_drawn_is_not_hidden() -> None:
    x = X.clone()
    x[3] = math.nan
    assert math.isnan(model_loss(activations(None, x)).value)
    assert math.isnan(randomised_loss(activations(None, x), BOTH).value)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_sampled_pairs_agree_within_their_error(weights: Any) -> None:
    a = activations(weights)
    exact = randomised_loss(a, BOTH).value
    found = {seed: randomised_loss(a, BOTH, pairs=N, seed=seed) for seed in (0, 1)}
    assert found[0] == randomised_loss(a, BOTH, pairs=N, seed=0) and found[0].value != found[1].value
    for seed, each in found.items():
        assert not each.exact and each.draws > 0 and each.se > 0, seed
        assert f"{each.draws:,} sampled pairs" in each.method
    many = randomised_loss(_few_labels_is_too_many(a), BOTH, pairs=99_999)
    assert many.draws >= 4_000
    assert abs(many.value - exact) <= Z * many.se
    assert many.se < 0.1 * exact


def _few_labels_is_too_many(a: OnData) -> OnData:
    """The same D with every row 300 times, so that all pairs of labels and outputs are past the limit of the test."""
    rows = torch.arange(N).repeat(300)
    return OnData(GRAPH, a.data.take(rows))


def test_repeated_rows_change_no_baseline() -> None:
    a = activations(WEIGHTS[1])
    twice = OnData(GRAPH, a.data.take(torch.arange(N).repeat(2)))
    assert randomised_loss(twice, BOTH).value == pytest.approx(randomised_loss(a, BOTH).value, rel=1e-12)


def test_a_loss_without_labels_or_without_outputs() -> None:
    data = Dataset({"x": X, "label": LABEL})
    alone = Graph.of({"out": lambda x: x.sum(1), "f": lambda out: out**2}, ["x"], "f")
    with pytest.raises(StudyError, match=r"reads a label column and a model's output; 'f' reads out\. Name the labels"):
        randomised_loss(OnData(alone, data))
    nothing_else = Graph.of({"f": lambda x, label: x.sum(1) - label}, ["x", "label"], "f")
    with pytest.raises(StudyError, match="'f' reads x, label"):
        randomised_loss(OnData(nothing_else, data))
    # Named, the columns that are left are the output.
    assert randomised_loss(OnData(nothing_else, data), labels=["label"]).exact


def test_an_unknown_label_comes_with_close_matches() -> None:
    with pytest.raises(StudyError, match=r"label 'lable' is not read by the output node 'f'; did you mean \"label\"\?"):
        randomised_loss(activations(), labels=["lable"])


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    randomised_loss(activations(), labels=["label"], progress=lambda *each: told.append(each))
    assert told[-1] == ("activations on D", N, N)
