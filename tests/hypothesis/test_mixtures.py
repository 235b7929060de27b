"""Mixtures: which features have a random offset, how offsets are drawn, and what each makes."""

import numpy as np
import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, HypothesisError, StudyError, scrub, unroll
from pscrub.data import Quantiles, Rounding
from pscrub.hypothesis import draw_offsets, fix_offsets, random_features
from pscrub.hypothesis.mixtures import place_bins

X = torch.tensor([0.0, 0.4, 1.1, 1.9, 2.0, 3.7], dtype=torch.float64)
DATA = Dataset({"x": X, "y": X.flip(0)}, weights=[1, 2, 1, 1, 3, 1])
GRAPH = Graph.of(
    {"a": lambda x: x, "b": lambda y: y, "s": lambda a, b: a + b, "f": lambda s, a, x: (s - a - x) ** 2},
    ["x", "y"],
    "f",
)


def mixture() -> Hypothesis:
    """A soft feature at a node that two claims read, another below, and what reads them determined by them."""
    soft, other = Rounding("x", 1.0, "random"), Quantiles("b", 2, "random")
    a, b = Claim("a", soft), Claim("b", other)
    return Hypothesis("soft", GRAPH, DATA, Claim("f", reads=[Claim("s", reads=[a, b]), a, Claim("x", soft)]))


def test_a_feature_object_has_one_offset_wherever_it_is_claimed() -> None:
    h = mixture()
    assert [f.name for f in random_features(h)] == ["x rounded to 1", "b in 2 quantiles"]
    assert [f.name for f in random_features(place_bins(h))] == ["x rounded to 1", "b in 2 quantiles"]
    for each in (h, place_bins(h)):
        fixed = fix_offsets(each, [0.5, 0.25])
        assert random_features(fixed) == () and fixed.check() == ()
        assert len(fixed.claims) == len(h.claims)  # what two claims read, they read still
        at = {claim.name: fixed.partitions[claim] for claim in fixed.claims}
        assert at["a"] == at["x"] == Rounding("x", 1.0, 0.5)(DATA)
        assert at["b"] == Quantiles(X.flip(0), 2, 0.25)(DATA)
        assert at["s"] == at["a"].refine(at["b"])
        assert unroll(fixed).sites["f/s/a"].partition == unroll(fixed).sites["f/x"].partition
    names = [claim.feature_name for claim in fix_offsets(h, [0.5, 0.25]).claims if claim.name in "ab"]
    assert sorted(names) == ["b in 2 quantiles, offset 0.25", "x rounded to 1, offset 0.5"]


def test_a_mixture_is_refused_where_one_hypothesis_is_meant() -> None:
    with pytest.raises(HypothesisError, match=r"random offset: .* with pscrub.questions.scrub_mixture, or fix"):
        scrub(mixture(), draws=100, labels="x")
    with pytest.raises(StudyError, match="'soft' has 2 random offsets; 1 were given"):
        fix_offsets(mixture(), [0.5])
    wide = Claim("a", Rounding(torch.stack([X, X], 1), 1.0, "random"))
    with pytest.raises(HypothesisError, match=r"'wide': claim 'a': values has 2 numbers a row; a random offset is for"):
        place_bins(Hypothesis("wide", GRAPH, DATA, Claim("f", reads=[wide])))


def test_offsets_are_uniform_pair_by_pair_from_strata() -> None:
    u = draw_offsets(400, 3, 7)
    assert u.shape == (400, 3) and (u >= 0).all() and (u < 1).all()
    assert (np.floor(u[:, 0] * 200) == np.arange(400) // 2).all()
    assert np.abs(np.corrcoef(u.T) - np.eye(3)).max() < 0.2
    assert abs(u[:, 1].mean() - 0.5) < 0.1 and len(np.unique(np.floor(u[:, 1] * 20))) == 20
    assert (u == draw_offsets(400, 3, 7)).all() and not (u == draw_offsets(400, 3, 8)).any()
    assert draw_offsets(4, 0, 1).shape == (4, 0)


def shares(feature: Rounding | Quantiles, data: Dataset, offsets: int = 1000) -> np.ndarray:
    """How often two rows share a bin, over evenly spaced offsets."""
    together = np.zeros((data.n, data.n))
    placed = feature.placed(data)
    for u in (np.arange(offsets) + 0.5) / offsets:
        labels = placed.at(u)(data).labels.numpy()
        together += labels[:, None] == labels
    return together / offsets


def triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1 - np.abs(distance[:, None] - distance))


def test_two_rows_share_a_bin_as_often_as_the_kernel_says() -> None:
    x, w = X.numpy(), DATA.weights.numpy()
    assert np.abs(shares(Rounding("x", 1.5, "random"), DATA) - triangle(x / 1.5)).max() < 4e-3
    rank = np.cumsum(w) - w / 2
    assert np.abs(shares(Quantiles("x", 3, "random"), DATA) - triangle(3 * rank)).max() < 4e-3
    assert np.abs(shares(Quantiles("x", 3, "random"), DATA) - triangle(x)).max() > 0.1  # by rank, not by value
