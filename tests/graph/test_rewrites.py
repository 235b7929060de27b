"""Rewrites keep f, compose, say how far they are off, and are refused where they change f."""

import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from pscrub import Dataset, Graph, GraphError, Node, check_rewrites, inline, own_copy, split, with_estimate
from pscrub.graph.rewrites import Part, replace

GENERATOR = torch.Generator().manual_seed(5)
DATA = Dataset(
    {"x": torch.randn(50, 3, 4, generator=GENERATOR), "y": torch.randn(50, generator=GENERATOR)},
    weights=torch.arange(50.0),
)


def model() -> Graph:
    """x -> heads [batch, 3, 4] -> two readers -> f."""
    return Graph.of(
        {
            "heads": lambda x: x.cumsum(1).tanh(),
            "left": lambda heads: (heads * torch.arange(12.0).reshape(3, 4)).sum((1, 2)),
            "right": lambda heads, x: (heads[:, 0] * x[:, 2]).sum(1),
            "f": lambda left, right, y: left * right - y,
        },
        inputs=["x", "y"],
        output="f",
    )


def run(graph: Graph) -> Tensor:
    return graph.run(["f"], {"x": DATA["x"], "y": DATA["y"]})["f"]


def by_heads(graph: Graph) -> Graph:
    return split(graph, "heads", 1, {"h1": 1, "rest": [2, 0]}, 3)


def by_columns(graph: Graph) -> Graph:
    return split(graph, "heads", -1, {"low": slice(0, 2), "high": slice(2, None)}, 4)


def without_left(graph: Graph) -> Graph:
    return inline(graph, "left")


def estimated(graph: Graph) -> Graph:
    return with_estimate(graph, "right", lambda y: 3 * y, ["y"])


def copied(graph: Graph) -> Graph:
    return own_copy(graph, "x", {"x for right": ["right"]})


def copied_heads(graph: Graph) -> Graph:
    return own_copy(graph, "heads", {"heads for right": ["right"]})


def replaced(graph: Graph) -> Graph:
    new = [Node("product", ("left", "right"), torch.mul)]
    return replace(graph, "f", lambda product, y: product - y, ["product", "y"], new)


REWRITES = [by_heads, by_columns, without_left, estimated, copied, copied_heads, replaced]
LOST = {
    (without_left, replaced),  # first takes away, or rereads, what second speaks of
    (by_heads, copied_heads),
    (by_columns, copied_heads),
    (estimated, copied),
    (estimated, copied_heads),
}


@pytest.mark.parametrize("rewrite", REWRITES)
def test_each_rewrite_keeps_f(rewrite: Callable[[Graph], Graph]) -> None:
    graph = rewrite(model())
    torch.testing.assert_close(run(graph), run(model()), rtol=1e-5, atol=1e-5)
    (check,) = check_rewrites(graph, DATA, chunk=7)
    difference = (run(graph).double() - run(model()).double()).abs()
    assert check.difference == pytest.approx(float(difference.max()), abs=1e-12)
    assert graph.rewrite is not None and (check.kind, check.node) == (graph.rewrite.kind, graph.rewrite.node)


@pytest.mark.parametrize(("first", "second"), [pair for pair in permutations(REWRITES, 2) if pair not in LOST])
def test_rewrites_compose(first: Callable[[Graph], Graph], second: Callable[[Graph], Graph]) -> None:
    graph = second(first(model()))
    assert len(check_rewrites(graph, DATA)) == 2
    torch.testing.assert_close(run(graph), run(model()), rtol=1e-5, atol=1e-5)


def test_a_long_chain_down_to_parts_of_parts() -> None:
    graph = split(model(), "heads", 1, {f"h{i}": i for i in range(3)}, 3)
    graph = split(graph, "h0", 2, {"h0.first": 0, "h0.rest": slice(1, None)}, 4)
    graph = own_copy(graph, "h1", {"h1 for right": ["right"]})
    graph = with_estimate(graph, "h0.first", lambda y: y[:, None, None].expand(-1, 1, 1), ["y"])
    graph = inline(graph, "left")
    assert [check.kind for check in check_rewrites(graph, DATA)] == ["split", "split", "own copy", "estimate", "inline"]
    torch.testing.assert_close(run(graph), run(model()), rtol=1e-5, atol=1e-5)
    # Readers get the slices of the slice in place of it: changing one changes f through every reader.
    changed = graph.run(["f"], {"x": DATA["x"], "y": DATA["y"], "h0.first": torch.full((50, 1, 1), 9.0)})["f"]
    assert not torch.equal(changed, run(graph))


@pytest.mark.parametrize("axis", [2, -1])
def test_slices_hold_what_they_say(axis: int) -> None:
    graph = split(model(), "heads", axis, {"ends": [3, 0], "middle": slice(1, 3)}, 4)
    given = {"x": DATA["x"], "y": DATA["y"]}
    values = graph.run(["heads", "ends", "middle"], given)
    assert torch.equal(values["ends"], values["heads"][:, :, [3, 0]])
    assert torch.equal(values["middle"], values["heads"][:, :, 1:3])
    assert torch.equal(run(graph), run(model()))
    assert graph.nodes["middle"].view and not graph.nodes["ends"].view  # an index list makes a copy
    assert graph.run(["middle"], values)["middle"].data_ptr() == values["middle"].data_ptr()


def test_a_view_takes_no_memory_of_its_own() -> None:
    graph = split(model(), "heads", 1, {"h0": 0, "rest": [1, 2]}, 3)
    heads = graph.run(["heads"], {"x": DATA["x"]})["heads"]
    for name in ("h0", "rest"):
        part = graph.nodes[name].fn(heads)
        assert graph.nodes[name].view and part.untyped_storage().data_ptr() == heads.untyped_storage().data_ptr()


def test_estimate_and_residual_are_separate_nodes() -> None:
    graph = estimated(model())
    values = graph.run(["right", "right.phi", "right.residual"], {"x": DATA["x"], "y": DATA["y"]})
    assert torch.equal(values["right.phi"], 3 * DATA["y"])
    assert torch.equal(values["right"], values["right.phi"] + values["right.residual"])
    assert graph.run(["right"], {"right.phi": torch.ones(1), "right.residual": torch.ones(1)})["right"].item() == 2


def test_copies_can_be_given_apart() -> None:
    graph = copied_heads(model())
    given = {"x": DATA["x"], "y": DATA["y"], "heads for right": torch.zeros(50, 3, 4)}
    assert torch.equal(graph.run(["f"], given)["f"], -DATA["y"])
    assert graph.reads("left") == ("heads",)


# What a rewrite is refused for


@pytest.mark.parametrize(
    ("axis", "parts", "message"),
    [
        (0, {"a": 0, "b": 1, "c": 2}, "axis 0 is the batch"),
        (1, {"a": 0, "b": 1}, r"indices left out \[2\]"),
        (1, {"a": [0, 1], "b": [1, 2]}, r"twice or outside \[1\]"),
        (1, {"a": [0, 1, 2], "b": [3]}, r"twice or outside \[3\]"),
        (1, {"a": [0, 1, 2], "b": 3}, r"outside \[3\]"),
        (1, {"a": [0, 1, 2], "b": -4}, r"outside \[-4\]"),
        (1, {"a": [0, 1, 2], "b": []}, "'b' is empty"),
        (1, {"a": slice(0, 3), "b": slice(3, 9)}, "'b' is empty"),
    ],
)
def test_parts_that_are_no_parts(axis: int, parts: dict[str, Part], message: str) -> None:
    with pytest.raises(GraphError, match="split of 'heads'.*" + message):
        split(model(), "heads", axis, parts, 3)


def test_parts_count_from_the_end_too() -> None:
    graph = split(model(), "heads", 1, {"last": -1, "first": [-3, 1]}, 3)
    assert torch.equal(run(graph), run(model()))


@pytest.mark.parametrize(("axis", "size"), [(3, 3), (-3, 50), (-4, 3), (1, 2), (1, 4)])
def test_an_axis_or_a_size_that_the_value_does_not_have(axis: int, size: int) -> None:
    """The value's shape is known only when it is run on data."""
    with pytest.raises(GraphError, match=rf"split of 'heads': expected an axis {axis} of length {size}.*\[\d+, 3, 4\]"):
        check_rewrites(split(model(), "heads", axis, {f"p{i}": i for i in range(size)}, size), DATA)


def test_unknown_nodes_come_with_close_matches() -> None:
    for ask in (
        lambda: split(model(), "head", 1, {"a": 0}, 1),
        lambda: inline(model(), "head"),
        lambda: with_estimate(model(), "head", lambda y: y, ["y"]),
        lambda: with_estimate(model(), "right", lambda y: y, ["head"]),
        lambda: own_copy(model(), "head", {}),
        lambda: replace(model(), "head", lambda y: y, ["y"]),
        lambda: replace(model(), "f", lambda y: y, ["head"]),
    ):
        with pytest.raises(GraphError, match=r"'head'.*did you mean \"heads\""):
            ask()


def test_names_that_are_taken() -> None:
    for ask in (
        lambda: split(model(), "heads", 1, {"left": 0, "b": [1, 2]}, 3),
        lambda: own_copy(model(), "heads", {"left": ["right"]}),
        lambda: with_estimate(with_estimate(model(), "f", lambda y: y, ["y"]), "f", lambda y: y, ["y"]),
    ):
        with pytest.raises(GraphError, match="two nodes are named"):
            ask()


def test_what_cannot_be_inlined() -> None:
    with pytest.raises(GraphError, match="'f' is the output"):
        inline(model(), "f")
    with pytest.raises(GraphError, match="'x' is a column"):
        inline(model(), "x")


def test_copies_for_those_who_do_not_read() -> None:
    with pytest.raises(GraphError, match="'left' does not read 'y'"):
        own_copy(model(), "y", {"y2": ["left"]})
    with pytest.raises(GraphError, match="'left' is given two copies"):
        own_copy(model(), "heads", {"a": ["left"], "b": ["left"]})


def test_a_wrong_rewrite_is_refused_with_node_difference_and_row() -> None:
    def wrong(heads: Tensor, x: Tensor) -> Tensor:
        right = (heads[:, 0] * x[:, 2]).sum(1)
        right[(x == DATA["x"][33]).all(1).all(1)] += 2
        return right

    graph = replace(model(), "right", wrong, ["heads", "x"])
    off = float((run(graph) - run(model())).abs().max())
    with pytest.raises(GraphError) as caught:
        check_rewrites(graph, DATA, chunk=8)
    (fault,) = caught.value.faults
    assert fault.startswith(f"rewrite 'replace' of node 'right' changes f by {off:.3g} at row 33; allowed")
    # Right and wrong rewrites in one chain: each wrong one is named, the right ones are not.
    graph = replace(by_heads(graph), "left", lambda y: y, ["y"])
    with pytest.raises(GraphError) as caught:
        check_rewrites(graph, DATA)
    assert [fault.split("'")[3] for fault in caught.value.faults] == ["right", "left"]


def test_a_small_difference_is_allowed_and_reported() -> None:
    graph = replace(model(), "f", lambda left, right, y: left * right - y + 1e-5, ["left", "right", "y"])
    (check,) = check_rewrites(graph, DATA)
    assert 5e-6 < check.difference < 5e-5
    with pytest.raises(GraphError, match="changes f by"):
        check_rewrites(graph, DATA, tolerance=1e-8)


def test_the_tolerance_is_relative_to_f_where_f_is_large() -> None:
    data = Dataset({"x": torch.tensor([1e6, 2e6])})
    graph = Graph.of({"f": lambda x: x}, ["x"], "f")
    off_by = lambda d: replace(graph, "f", lambda x: x + d, ["x"])  # noqa: E731
    assert check_rewrites(off_by(50), data)[0].difference == 50
    with pytest.raises(GraphError):
        check_rewrites(off_by(500), data)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_estimate_that_is_not_finite_is_refused(value: float) -> None:
    """phi + (x - phi) is NaN wherever phi is NaN or infinite, however right the formula."""

    def phi(y: Tensor) -> Tensor:
        return torch.where(y == DATA["y"][21], value, y)

    with pytest.raises(GraphError, match="rewrite 'estimate' of node 'right' changes f by inf at row 21"):
        check_rewrites(with_estimate(model(), "right", phi, ["y"]), DATA)


def test_nan_that_was_there_before_is_no_difference() -> None:
    data = Dataset({"x": torch.tensor([1.0, math.nan, math.inf])})
    graph = Graph.of({"f": lambda x: x}, ["x"], "f")
    (check,) = check_rewrites(replace(graph, "f", lambda x: x * 1, ["x"]), data)
    assert check.difference == 0


def test_a_copy_changes_nothing_at_all() -> None:
    assert check_rewrites(copied(copied_heads(model())), DATA)[0].difference == 0
    assert check_rewrites(model(), DATA) == ()


def test_a_split_that_nothing_can_be_seen_of_is_refused_by_name() -> None:
    """The output reads the node's input alone; what the slices hold would never be looked at."""
    graph = Graph.of({"h": lambda y: torch.stack([y, -y], 1), "f": lambda y: y * 1.0}, ["y"], "f")
    parted = split(graph, "h", 1, {"h.0": 0, "h.1": 1}, size=2)
    with pytest.raises(GraphError, match=r"'split' of node 'h': the output 'f' does not depend on it"):
        check_rewrites(parted, DATA)
