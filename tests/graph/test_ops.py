"""Numbers: equal where graphs are the same operations on the same values, and never where they are not."""

from dataclasses import replace

import pytest
import torch

from pscrub import Graph, Node, inline, own_copy, split
from pscrub.graph.numbered import Numbers
from pscrub.graph.ops import Operation, Slice, Whole, _freeze


def model() -> Graph:
    functions = {"h": lambda x: torch.stack([x, x * 2, x * 3], 1), "g": lambda x: torch.stack([x, -x, x + 1], 1)}
    return Graph.of({**functions, "f": lambda h, g: (h * g).sum(1)}, ["x"], "f")


def joined(graph: Graph, order: tuple[int, ...], last: str = "h") -> Graph:
    """f of slices of h, the last one of another node if named, put together in an order."""
    parts = [Node(f"h{i}", (last if i == 2 else "h",), Slice(1, (i,))) for i in range(3)]
    whole = Node("h again", tuple(part.name for part in parts), Whole(1, tuple((i,) for i in order)))
    f = graph.nodes["f"]
    kept = [node for node in graph.nodes.values() if node is not f]
    return Graph([*kept, *parts, whole, Node("f", ("h again", "g"), f.fn)], graph.inputs, "f")


def test_rewrites_that_change_no_operation_have_the_number() -> None:
    numbers, graph = Numbers(), model()
    same = [
        split(graph, "h", 1, {"a": [0, 2], "b": 1}, 3),
        own_copy(graph, "h", {"h for f": ["f"]}),
        inline(graph, "g"),
    ]
    for each in same:
        known = graph if each.rewrite is None else each.rewrite.before
        assert numbers.f_of(each) == numbers.f_of(known)


def test_slices_that_are_not_the_whole_have_another() -> None:
    graph, numbers, x = model(), Numbers(), {"x": torch.tensor([1.0, 2.0])}
    assert numbers.f_of(joined(graph, (0, 1, 2))) == numbers.f_of(graph)
    for wrong in (joined(graph, (1, 0, 2)), joined(graph, (0, 1, 2), last="g")):
        assert numbers.f_of(wrong) != numbers.f_of(graph)
        assert not torch.equal(wrong.run(["f"], x)["f"], graph.run(["f"], x)["f"])


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), (0.0, -0.0), ([1, 2], [2, 1]), (slice(1, 2), slice(2))]
)
def test_calls_with_other_constants_are_other_operations(one: object, other: object) -> None:
    made = [Operation(torch.add, _freeze(each), each) for each in (one, other)]
    assert made[0] != made[1] and made[0] == replace(made[0])
