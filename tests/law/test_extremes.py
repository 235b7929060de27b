"""The best and the worst choice of donors, against a search through all of them."""

import math
from fractions import Fraction

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, HypothesisError, unroll
from pscrub.law import Extremes, find_extremes, scrubbed_expectation
from tests.routes.build_case import build
from tests.routes.oracle import Case, law, prior, sites
from tests.routes.oracle import scrubbed as f_by_recursion
from tests.routes.random_cases import MODES, cases


def search(case: Case) -> tuple[Fraction, Fraction]:
    """Of each root's row the least and the greatest f over all tuples of rows that the law reaches, averaged."""
    f, found, root = f_by_recursion(case), dict[int, tuple[int, int]](), sites(case).index(case.root)
    for rows, p in law(case).items():
        if p:
            value = f(rows)
            low, high = found.get(rows[root], (value, value))
            found[rows[root]] = min(low, value), max(high, value)
    weights = prior(case)
    assert set(found) == {row for row, p in enumerate(weights) if p}
    low, high = (sum((weights[row] * each[k] for row, each in found.items()), Fraction(0)) for k in (0, 1))
    return low, high


@pytest.mark.parametrize("mode", MODES)
def test_extremes_are_what_a_search_finds(mode: str) -> None:
    moved = 0
    for case in cases(mode):
        tree = unroll(build(case))
        found, (low, high) = find_extremes(tree), search(case)
        assert math.isclose(found.least, low, rel_tol=1e-12, abs_tol=1e-9)
        assert math.isclose(found.greatest, high, rel_tol=1e-12, abs_tol=1e-9)
        assert math.isclose(found.scrubbed, scrubbed_expectation(tree), rel_tol=1e-12, abs_tol=1e-9)
        assert found.least - 1e-9 <= found.scrubbed <= found.greatest + 1e-9
        moved += found.least < found.scrubbed < found.greatest
    assert moved > 5


def parity(weights: list[float] | None = None, feature: str = "y") -> Hypothesis:
    data = Dataset({"x": torch.arange(4), "y": torch.tensor([0, 1, 0, 1]), "one": torch.ones(4)}, weights)
    graph = Graph.of({"s": lambda x: x, "f": lambda s, y: 1.0 * s * y}, inputs=["x", "y"], output="f")
    return Hypothesis("parity", graph, data, Claim("f", "one", reads=[Claim("s", feature), Claim("y", "y")]))


def test_a_root_that_claims_less_than_it_reads_is_told_apart_by_what_it_reads() -> None:
    """The root's feature is one block, and yet the worst choice depends on its datum's y."""
    assert find_extremes(unroll(parity())) == Extremes(0.5, 1.0, 1.5)
    assert find_extremes(unroll(parity(feature="one"))) == Extremes(0.0, 0.75, 1.5)


def test_rows_of_no_weight_are_never_chosen() -> None:
    found = find_extremes(unroll(parity([1, 1, 1, 0])))
    assert found.least == pytest.approx(1 / 3) and found.greatest == pytest.approx(1 / 3)


def test_an_exact_hypothesis_leaves_no_choice() -> None:
    hypothesis = parity()
    exact = Hypothesis("exact", hypothesis.graph, hypothesis.data, Claim("f", "exact"))
    assert find_extremes(unroll(exact)) == Extremes(1.0, 1.0, 1.0)


def test_what_one_draw_gives_is_chosen_once() -> None:
    """s + t - s of another row: drawn as one, s - s is 0 whatever is chosen; drawn apart, it is not."""
    data = Dataset({"x": torch.tensor([0.0, 3.0]), "y": torch.zeros(2)})
    functions = {"s": lambda x: x, "t": lambda x: -x, "f": lambda s, t, y: s + t + y}
    graph = Graph.of(functions, inputs=["x", "y"], output="f")
    for sharing, ends in (("reader", (0.0, 0.0, 0.0)), ("each", (-3.0, 0.0, 3.0))):
        root = Claim("f", reads=[Claim("y", "y")])
        assert find_extremes(unroll(Hypothesis("cancels", graph, data, root, sharing))) == Extremes(*ends)


def test_too_many_combinations_are_refused() -> None:
    with pytest.raises(HypothesisError, match="no exact law of f"):
        find_extremes(unroll(parity(feature="one")), limit=3)
