"""Real values in bins: where edges stand, whom weights and ties move, and what cannot be cut."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pscrub import Claim, Dataset, DatasetError, Graph, Hypothesis, HypothesisError, Partition
from pscrub.data import Bins, Clusters, Quantiles, Rounding, read_feature
from pscrub.data.clusters import cluster
from pscrub.questions import adversary

X = torch.tensor([0.3, -1.0, 2.5, 0.0, 7.0, 2.4])
DATA = Dataset({"x": X, "two": torch.stack([X, -X], 1), "word": list("abcdef")}, weights=[1, 1, 2, 1, 1, 0])
GRAPH = Graph.of({"h": lambda x: torch.stack([3 * x, x * 0 + 1], 1)[:, None], "f": lambda h: h.sum((1, 2))}, ["x"], "f")


def heavy(weights: list[float], labels: Any) -> float:
    """The largest difference of a bin's weight from an equal share."""
    held = np.bincount(labels, weights) / np.sum(weights)
    return float(np.abs(held - 1 / len(held)).max())


@given(st.lists(st.integers(1, 9), min_size=6, max_size=30), st.integers(1, 5))
def test_quantiles_are_of_equal_weight_up_to_one_row(weights: list[int], bins: int) -> None:
    data = Dataset({"x": torch.arange(len(weights)).double() ** 1.5}, weights)
    labels = Quantiles("x", bins)(data).labels
    if len(set(labels.tolist())) == bins:
        assert heavy(weights, labels) <= max(weights) / sum(weights) + 1e-12
    assert bool((labels.diff() >= 0).all())  # in the order of the values


def test_quantiles_without_the_weights_are_seen() -> None:
    weights = [9, 9, 1, 1, 1, 1, 1, 1]
    data, flat = (Dataset({"x": torch.arange(8)}, w) for w in (weights, None))
    assert heavy(weights, Quantiles("x", 2)(data).labels) == 1 / 8
    assert heavy(weights, Quantiles("x", 2)(flat).labels) == pytest.approx(1 / 3)


def test_quantiles_of_equal_weights_are_as_of_none() -> None:
    """The edges fall between rows, and no rounding of weights moves a row across."""
    for n in (12, 36, 1200):
        for bins in (1, 2, 3, 4, 6, 12):
            made = Quantiles("x", bins)(Dataset({"x": torch.randn(n, generator=torch.Generator().manual_seed(n))}))
            assert made.sizes.tolist() == [n // bins] * bins


def test_ties_stay_together_and_may_leave_bins_empty() -> None:
    data = Dataset({"x": torch.tensor([0.0] * 7 + [1, 2, 3])})
    assert Quantiles("x", 4)(data).sizes.tolist() == [7, 3]


def test_infinite_values_have_ranks_and_no_multiples() -> None:
    data = Dataset({"x": torch.tensor([-torch.inf, 0, 1, torch.inf])})
    assert Quantiles("x", 2)(data).sizes.tolist() == [2, 2]
    for feature in (Rounding("x", 1.0), Clusters("x", 2)):
        with pytest.raises(DatasetError, match=r"x is infinite at 2 of 4 rows, e\.g\. row 0; quantiles can hold it"):
            feature(data)


def test_values_on_an_edge_belong_above_it() -> None:
    tenths = torch.arange(-20, 21).double() / 10  # 0.3 / 0.1 is below 3
    for width, each in ((0.1, 1), (0.2, 2), (0.5, 5)):
        made = Rounding("x", width)(Dataset({"x": tenths}))
        assert (
            made.labels.tolist() == Partition.of(torch.arange(-20, 21) // each, Dataset({"x": tenths})).labels.tolist()
        )


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20), st.floats(0.01, 9), st.floats(0, 0.999))
def test_rows_of_one_bin_are_less_than_a_width_apart(x: list[float], width: float, offset: float) -> None:
    data = Dataset({"x": torch.tensor(x, dtype=torch.float64)})
    labels = Rounding("x", width, offset)(data).labels
    for a, one in enumerate(x):
        for b, other in enumerate(x):
            if labels[a] == labels[b]:
                assert abs(one - other) < width * (1 + 1e-6)
            if abs(one - other) == 0:
                assert labels[a] == labels[b]


def test_every_entry_has_bins_of_its_own() -> None:
    x = torch.arange(8)
    data = Dataset({"grid": torch.stack([x % 4, x // 4], 1)[:, :, None].float()})
    made = Quantiles("grid", 2)(data)
    assert made == Partition.of(torch.stack([x % 4 // 2, x // 4], 1), data)
    assert Rounding("grid", 2.0, [0.0, 0.5])(data) == made


@pytest.mark.parametrize(
    "of", ["x", X, X.numpy(), X.tolist(), lambda d: d["x"], X.bfloat16().double(), X.int() * 0 + X]
)
def test_values_come_in_every_form(of: Any) -> None:
    made = Rounding(of, 2.0)(DATA)
    assert made == Partition.of([0, -1, 1, 0, 3, 1], DATA)
    assert torch.equal(made.weights, DATA.weights)


def test_a_claim_takes_bins_of_a_column_of_values_and_of_a_node() -> None:
    for feature, blocks in (
        (Quantiles("x", 2), 2),
        (Quantiles(X, 3), 3),
        (Rounding("h", 3.0), 4),
        (Clusters("h", 3), 3),
        (Clusters(lambda d: d["two"], 3), 3),
    ):
        h = Hypothesis("h", GRAPH, DATA, Claim("f", reads=[Claim("h", feature)]))
        h.check()
        assert h.partitions[h.claim].n_blocks == blocks
    assert h.claim.reads[0].feature_name == "3 clusters of <lambda>"
    assert Claim("h", Quantiles("h", 2)).feature_name == "h in 2 quantiles"
    of_node = Hypothesis("h", GRAPH, DATA, Claim("f", reads=[Claim("h", Rounding("h", 3.0))]))
    assert of_node.partitions[of_node.claim] == Rounding(3 * X, 3.0)(DATA)


def test_a_node_that_is_not_there_is_named() -> None:
    h = Hypothesis("h", GRAPH, DATA, Claim("f", reads=[Claim("h", Quantiles("hh", 2))]))
    with pytest.raises(HypothesisError, match="claim 'h': 'hh' is neither a column nor a node of the graph; did you"):
        h.check()


def test_an_adversary_takes_bins() -> None:
    x = torch.arange(64.0)
    data = Dataset({"x": x})
    graph = Graph.of({"h": lambda x: x, "f": lambda h, x: (h - x) ** 2}, ["x"], "f")
    h = Hypothesis("halves", graph, data, Claim("f", reads=[Claim("h", Quantiles("x", 2)), Claim("x", "x")]))
    found = adversary(h, {"in 8": Quantiles("x", 8)}, from_data=False, draws=512, steps=1)
    assert found.chosen[0].feature == "in 8"


def refuse(feature: Any, fault: str, data: Dataset = DATA) -> None:
    with pytest.raises(DatasetError) as caught:
        read_feature(data, feature, "it")
    assert caught.value.faults == (fault,)


def test_what_cannot_be_cut_is_refused() -> None:
    nan = Dataset({"x": torch.tensor([0.0, torch.nan, 1.0, torch.nan])})
    for feature in (Quantiles("x", 2), Rounding("x", 1.0), Clusters("x", 2)):
        refuse(feature, "x is NaN at 2 of 4 rows, e.g. row 1; NaN is in no bin", nan)
    few = "x has 5 distinct values of positive weight, fewer than 6 "
    refuse(Quantiles("x", 6), few + "bins; give fewer bins, or the values themselves as the feature")
    refuse(Clusters("x", 6), few + "clusters; give fewer, or the values themselves as the feature")
    refuse(Quantiles("word", 2), "word holds <U1 values; bins are for numbers: give the values as the feature")
    refuse(Quantiles(X[:4], 2), "values has shape (4,); expected [6, ...]: one value or array a row")
    refuse(Rounding("two", 1.0, [0.1, 0.2, 0.3]), "two: 3 offsets for 2 entries; expected one each")
    refuse(Quantiles("y", 2), 'no column \'y\' in the dataset; known: "x", "two", "word"')


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: Quantiles("x", 0), "bins is 0; expected a whole number of 1 or more"),
        (lambda: Clusters("x", 2.5), "bins is 2.5; expected a whole number of 1 or more"),  # type: ignore[arg-type]
        (lambda: Clusters("x", 2, seed=-1), "seed is -1; expected 0 or more"),
        (lambda: Rounding("x", 0.0), "width is 0.0; expected a positive number, in the values' units"),
        (lambda: Rounding("x", 1.0, 1.0), "offset is 1.0; expected a share of a bin in [0, 1), or 'random'"),
        (lambda: Quantiles("x", 2, "any"), "offset is 'any'; expected a share of a bin in [0, 1), or 'random'"),
    ],
)
def test_bins_that_are_none_are_refused(make: Any, fault: str) -> None:
    with pytest.raises(DatasetError) as caught:
        make()
    assert caught.value.faults == (fault,)


def test_a_random_offset_is_no_one_partition() -> None:
    feature: Bins = Quantiles("x", 2, "random")
    with pytest.raises(DatasetError, match=r"x is in bins with a random offset: .* a mixture of hypotheses"):
        feature(DATA)
    with pytest.raises(DatasetError, match=r"two has 2 numbers a row; a random offset is for one"):
        Rounding("two", 1.0, "random").placed(DATA)


# k-means


def left(x: Any, weights: Any, labels: Any) -> float:
    """The weighted squared distance from the clusters' means."""
    total = 0.0
    for k in set(labels.tolist()):
        here = labels == k
        mean = np.average(x[here], axis=0, weights=weights[here])
        total += float((weights[here] * ((x[here] - mean) ** 2).sum(1)).sum())
    return total


def test_clusters_are_found_whatever_the_seed_and_weigh_rows() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 3)) * 20
    truth = np.repeat(np.arange(5), 40)
    x = centres[truth] + rng.normal(size=(200, 3))
    weights = rng.uniform(0.1, 1, 200)
    for seed in range(5):
        found = cluster(x, weights, 5, seed)
        assert len(set(zip(found.tolist(), truth.tolist(), strict=True))) == 5
        assert (found == cluster(x, weights, 5, seed)).all()
    line = np.array([[0.0], [1.0], [2.0], [3.0]])
    for weights, cut in ((np.array([1.0, 1, 1, 1]), [0, 0, 1, 1]), (np.array([9.0, 9, 1, 1]), [0, 1, 1, 1])):
        found = cluster(line, weights, 2)
        assert Partition.of(found, Dataset({"x": line})).labels.tolist() == cut
        every = [np.array([i >> k & 1 for k in range(4)]) for i in range(1, 15)]
        assert left(line, weights, found) == pytest.approx(min(left(line, weights, other) for other in every))


def test_every_cluster_has_rows_and_equal_rows_are_together() -> None:
    rng = np.random.default_rng(1)
    for k in range(1, 9):
        x = rng.integers(0, 3, size=(60, 2)).astype(float) * 1e6 + 1e9
        distinct, place = np.unique(x, axis=0, return_inverse=True)
        found = cluster(x, np.ones(60), min(k, len(distinct)))
        assert len(set(found.tolist())) == min(k, len(distinct))
        assert len(set(zip(place.flatten().tolist(), found.tolist(), strict=True))) == len(distinct)


def test_rows_of_no_weight_move_no_centre() -> None:
    x = np.array([[0.0], [1.0], [10.0], [11.0], [1000.0]])
    assert cluster(x, np.array([1.0, 1, 1, 1, 0]), 2).tolist() in ([0, 0, 1, 1, 1], [1, 1, 0, 0, 0])
