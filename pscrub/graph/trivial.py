"""The trivial rewrites that equality on D permits: a lookup table, a constant."""

from __future__ import annotations

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError
from pscrub.graph.graph import Graph, Node, Rewrite


def lookup_table(graph: Graph, node: str, data: Dataset) -> Graph:
    """The graph with a node looked up by the whole input: equal on D whatever the node computes, and no explanation.

    The one new node reads every column, so that no claim can speak of what happens between input and value: about it
    "exact" is true of any model. The entropy budget shows it: nothing is lost anywhere, nothing may be swapped.

    Source: appendix, section 1.2.

    Args:
        graph: the graph.
        node: the node to look up.
        data: D, whose rows make the table; a small one.

    Raises:
        GraphError: an unknown node; when run, an input that is not in D.

    >>> from pscrub.graph import equal_on
    >>> data = Dataset({"x": torch.tensor([0.0, 1.0, 3.0])})
    >>> square = Graph.of({"f": lambda x: x**2}, inputs=["x"], output="f")
    >>> bool(equal_on(square, lookup_table(square, "f", data), data))
    False
    """
    columns = tuple(name for name in graph.inputs if name in graph.ancestors(graph.known(node)))
    with torch.no_grad():
        values = graph.run([node], {name: data[name] for name in columns})[node]
    place = {key: i for i, key in enumerate(_keys([data[name] for name in columns]))}

    def looked_up(*given: Tensor) -> Tensor:
        keys = _keys(list(given))
        unknown = next((i for i, key in enumerate(keys) if key not in place), None)
        if unknown is not None:
            raise GraphError(f"lookup table of '{node}': an input (number {unknown} of the batch) is not a row of D")
        return values[torch.tensor([place[key] for key in keys])].to(given[0].device)

    return _instead(graph, Node(node, columns, looked_up), "lookup table")


def constant(graph: Graph, node: str, value: float) -> Graph:
    """The graph with a node that is the same for every input: equal on D where a model makes no mistake.

    The one new node depends on nothing, so that every input is unimportant, and a claim of nothing recovers everything.
    The entropy budget shows it: all inputs may be swapped for any other.

    Source: appendix, section 1.2.

    Args:
        graph: the graph.
        node: the node, its value one number a row.
        value: what it is.

    >>> from pscrub import Dataset
    >>> from pscrub.graph import equal_on
    >>> data = Dataset({"x": torch.tensor([-1.0, 1.0])})
    >>> perfect = Graph.of({"f": lambda x: (x.abs() - 1) ** 2}, inputs=["x"], output="f")
    >>> equal_on(perfect, constant(perfect, "f", 0.0), data).value
    0.0
    """
    first = next(name for name in graph.inputs if name in graph.ancestors(graph.known(node)))
    same = Node(node, (first,), lambda column: torch.full((len(column),), value, dtype=torch.float64))
    return _instead(graph, same, "constant")


def _instead(graph: Graph, node: Node, kind: str) -> Graph:
    kept = [each for each in graph.nodes.values() if each.name != node.name]
    changed = Graph([*kept, node], graph.inputs, graph.output)
    needed = set(changed.order([graph.output], ()))
    nodes = [each for each in changed.nodes.values() if each.name in needed]
    return Graph(nodes, graph.inputs, graph.output, Rewrite(kind, node.name, graph))


def _keys(columns: list[Tensor]) -> list[bytes]:
    """The bytes of each row of some columns together."""
    flat = [column.cpu().contiguous().reshape(len(column), -1).numpy() for column in columns]
    return [b"".join(column[i].tobytes() for column in flat) for i in range(len(flat[0]))]
