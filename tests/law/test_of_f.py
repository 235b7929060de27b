"""The law of f within a budget: right wherever it answers, and never past what it may spend."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, unroll
from pscrub.hypothesis import Tree
from pscrub.law import list_within, of_f, scrubbed_expectation
from pscrub.law.of_f import CALL
from tests.routes.build_case import build
from tests.routes.oracle import Case
from tests.routes.random_cases import MODES, cases, f_of

MOST = 10**6


def expected(case: Case) -> float:
    return float(sum(value * p for value, p in f_of(case).items()))


def is_wrong(case: Case) -> bool:
    """Whether the answer is not the oracle's, which lists every tuple of data in rational arithmetic."""
    listed = list_within(unroll(build(case)), MOST)
    values = {value for value, p in f_of(case).items() if p}
    right = listed is not None and math.isclose(listed.value, expected(case), rel_tol=1e-12, abs_tol=1e-12)
    return not right or listed is None or listed.values != len(values)


def wrong(modes: Sequence[str] = MODES, every: int = 2) -> list[Case]:
    return [case for mode in modes for case in cases(mode)[::every] if is_wrong(case)]


def test_it_is_what_an_oracle_lists() -> None:
    assert wrong() == []


def _forget_the_share(block: Tensor, value: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    cells, code = torch.unique(block * (int(value.max()) + 1) + value, return_inverse=True)
    return (
        cells // (int(value.max()) + 1),
        cells % (int(value.max()) + 1),
        torch.bincount(code, None, len(cells)).double(),
    )


def test_probabilities_that_are_not_added_up_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_f, "_sum_alike", _forget_the_share)
    assert len(wrong(every=4)) > 20


def test_shared_draws_taken_apart_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = of_f._Messages._find_shared_below

    def none_shared(self: Any) -> Mapping[str, tuple[str, ...]]:
        self.shared = ()
        return whole(self)

    monkeypatch.setattr(of_f._Messages, "_find_shared_below", none_shared)
    assert len(wrong(["groups", "all"], every=1)) > 3


def counted(tree: Tree) -> tuple[Tree, list[int]]:
    """The tree on a graph whose functions count the rows that they are run on."""
    rows: list[int] = []

    def count(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counting(*values: Tensor) -> Tensor:
            rows.append(len(values[0]))
            return fn(*values)

        return counting

    graph = tree.hypothesis.graph
    nodes = [Node(n.name, n.inputs, count(n.fn)) for n in graph.nodes.values()]
    return unroll(replace(tree.hypothesis, graph=Graph(nodes, graph.inputs, graph.output))), rows


def test_no_more_is_run_than_may_be_and_what_was_is_said() -> None:
    answered = 0
    for case in [case for mode in MODES for case in cases(mode)][::6]:
        tree = unroll(build(case))
        whole = list_within(tree, MOST)
        assert whole is not None
        assert list_within(tree, whole.evaluations) == whole and list_within(tree, whole.evaluations - 1) is None
        for most in (whole.evaluations // 2, whole.evaluations):
            counting, rows = counted(tree)
            found = list_within(counting, most)
            answered += found is not None
            # What stands between a claim's node and what it reads is run with it, on as many rows each.
            assert sum(rows) <= most * len(tree.hypothesis.graph.nodes)
            assert all(n <= most for n in rows)
    assert answered >= 15


def test_nothing_is_run_if_the_leaves_alone_are_too_many() -> None:
    graph = Graph.of({"s": lambda x: x % 2, "f": lambda s, y: 1.0 * s * y}, inputs=["x", "y"], output="f")
    data = Dataset({"x": torch.arange(40), "y": torch.arange(40)})
    counting, rows = counted(unroll(Hypothesis("h", graph, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % 2)]))))
    assert list_within(counting, 2 * 40 + CALL - 1) is None and rows == []
    assert list_within(counting, MOST) is not None and rows != []


def test_values_too_large_to_be_held_are_left_to_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = unroll(build(cases("reader")[0]))
    monkeypatch.setattr(of_f, "HELD", 16)
    assert list_within(tree, MOST) is None
    assert scrubbed_expectation(tree) == pytest.approx(expected(cases("reader")[0]))  # whoever asks for it gets it


def test_small_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = unroll(build(cases("each")[1]))
    before = list_within(tree, MOST)
    monkeypatch.setattr(of_f, "CHUNK", 1)
    assert list_within(tree, MOST) == before


@pytest.mark.parametrize("values", [[1.0, math.nan], [1.0, math.inf], [math.inf, -math.inf]])
def test_losses_that_are_not_finite_are_not_hidden(values: Sequence[float]) -> None:
    graph = Graph.of({"s": lambda x: x, "f": lambda s, y: s + 0 * y}, ["x", "y"], "f")
    data = Dataset({"x": torch.tensor(values), "y": torch.zeros(2)}, [1, 1])
    tree = unroll(Hypothesis("h", graph, data, Claim("f", reads=[Claim("y", "y")])))
    listed = list_within(tree, MOST)
    assert listed is not None and not math.isfinite(listed.value)


def test_a_node_that_fails_on_what_draws_may_never_give_is_left_to_them() -> None:
    def picky(s: Tensor, y: Tensor) -> Tensor:
        if bool((s != y).any()):
            raise ValueError("unlike")
        return s + y

    graph = Graph.of({"s": lambda x: x, "f": picky}, ["x", "y"], "f")
    data = Dataset({"x": torch.tensor([0.0, 1.0]), "y": torch.tensor([0.0, 1.0])})
    assert list_within(unroll(Hypothesis("h", graph, data, Claim("f", reads=[Claim("y", "y")]))), MOST) is None
