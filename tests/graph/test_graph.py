"""Graphs: what runs for what is asked, and every fault of a graph that is not well formed."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from pscrub import Graph, GraphError, Node


def faults_of(*args: object) -> tuple[str, ...]:
    with pytest.raises(GraphError) as caught:
        Graph(*args)  # type: ignore[arg-type]
    return caught.value.faults


class Counted:
    """A graph x, y -> a, b -> c -> f that counts the calls of each node's function."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        nodes = [
            Node("f", ("c", "a", "y"), self.of("f", lambda c, a, y: c + a - y)),
            Node("c", ("a", "b"), self.of("c", lambda a, b: a * b)),
            Node("b", ("x", "y"), self.of("b", lambda x, y: x - y)),
            Node("a", ("x",), self.of("a", lambda x: 2 * x)),
            Node("aside", ("x",), self.of("aside", lambda x: x)),
        ]
        self.graph = Graph(nodes, ["x", "y"], "f")

    def of(self, name: str, fn: object) -> object:
        def counted(*values: Tensor) -> Tensor:
            self.calls[name] += 1
            return fn(*values)  # type: ignore[operator,no-any-return]

        return counted

    def run(self, names: list[str], **given: float) -> dict[str, float]:
        self.calls.clear()
        found = self.graph.run(names, {name: torch.tensor([value]) for name, value in given.items()})
        return {name: value.item() for name, value in found.items()}


def test_nodes_are_sorted_and_each_runs_once() -> None:
    counted = Counted()
    assert counted.run(["f", "b"], x=3.0, y=1.0) == {"f": 6 * 2 + 6 - 1, "b": 2}
    assert counted.calls == {"a": 1, "b": 1, "c": 1, "f": 1}
    order = list(counted.graph.nodes)
    assert order.index("a") < order.index("c") < order.index("f")


def test_only_what_lies_between_is_run() -> None:
    counted = Counted()
    assert counted.run(["f"], c=10.0, a=1.0, y=2.0) == {"f": 9}
    assert counted.calls == {"f": 1}
    assert counted.run(["f"], x=3.0, y=1.0, b=0.0) == {"f": 5}
    assert counted.calls == {"a": 1, "c": 1, "f": 1}
    assert counted.run(["c"], c=7.0) == {"c": 7}
    assert counted.run(["x"], x=7.0) == {"x": 7}
    assert not counted.calls


def test_a_given_value_stands_in_place_of_what_the_node_would_compute() -> None:
    counted = Counted()
    assert counted.run(["f", "a"], x=3.0, y=0.0, a=-1.0) == {"f": -3 - 1, "a": -1}
    assert counted.calls["a"] == 0


def test_a_column_that_is_needed_and_not_given() -> None:
    with pytest.raises(GraphError, match="column 'y' is needed for f and was not given"):
        Counted().run(["f"], x=1.0)


def test_unknown_names_come_with_close_matches() -> None:
    graph = Graph.of({"layer1": lambda x: x, "layer2": lambda layer1: layer1}, ["x"], "layer2")
    for ask in (lambda: graph.run(["layer3"], {}), lambda: graph.reads("layer3"), lambda: graph.known("layer3")):
        with pytest.raises(GraphError, match=r'no node \'layer3\'; did you mean "layer[12]" or "layer[12]"'):
            ask()


def test_ancestors_and_readers() -> None:
    graph = Counted().graph
    assert graph.ancestors("c") == {"a", "b", "x", "y"}
    assert graph.ancestors("x") == set()
    assert set(graph.readers("a")) == {"c", "f"} and set(graph.readers("y")) == {"b", "f"}
    assert "y" in graph and "aside" in graph and "z" not in graph


def test_every_fault_of_a_graph_is_found_together() -> None:
    def fn(*values: Tensor) -> Tensor:
        return values[0]

    nodes = [Node("head", ("x",), fn), Node("head", ("x",), fn), Node("x", ("head",), fn), Node("f", ("haed",), fn)]
    found = "\n".join(faults_of(nodes, ["x"], "loss"))
    assert "two nodes are named 'head'" in found
    assert "node 'x' has the name of an input column" in found
    assert "node 'f' reads 'haed', which the graph does not have; did you mean \"head\"?" in found
    assert "the output 'loss' is not a node" in found


def test_a_cycle_is_named() -> None:
    def fn(value: Tensor) -> Tensor:
        return value

    nodes = [Node("a", ("b",), fn), Node("b", ("a",), fn), Node("f", ("x",), fn)]
    assert faults_of(nodes, ["x"], "f") == ("the graph has a cycle among a, b",)
    assert faults_of([Node("f", ("f",), fn)], ["x"], "f") == ("the graph has a cycle among f",)


def test_an_output_that_is_a_column_is_refused() -> None:
    assert "the output 'x' is not a node" in faults_of([], ["x"], "x")[0]


def test_functions_whose_parameters_are_not_names() -> None:
    for fn in (lambda *x: x[0], lambda **x: x, lambda *, x: x):
        with pytest.raises(GraphError, match="function of node 'f' must have plain positional parameters"):
            Graph.of({"f": fn}, ["x"], "f")


def test_a_graph_cannot_be_changed() -> None:
    graph = Counted().graph
    with pytest.raises(TypeError):
        graph.nodes["a"] = graph.nodes["b"]  # type: ignore[index]


def test_moving_copies_modules_once_and_leaves_the_graph_alone() -> None:
    layer = nn.Linear(2, 2)
    nodes = [Node("a", ("x",), layer), Node("b", ("a",), layer), Node("f", ("b",), lambda b: b.sum(1))]
    graph = Graph(nodes, ["x"], "f")
    assert graph.to("cpu") is graph
    moved = graph.to("meta")
    assert layer.weight.device.type == "cpu"
    a, b = moved.nodes["a"].fn, moved.nodes["b"].fn
    assert isinstance(a, nn.Linear) and a.weight.device.type == "meta"
    assert a is b
