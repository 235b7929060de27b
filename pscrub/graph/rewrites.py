"""Rewrites of a graph that keep its function f, so that it gets the nodes a hypothesis speaks of."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from pscrub.errors import GraphError, close
from pscrub.graph.graph import Function, Graph, Node, Rewrite
from pscrub.graph.ops import Opened, Same, Sized, Slice, Whole

Part = int | slice | Sequence[int]


def split(graph: Graph, node: str, axis: int, parts: Mapping[str, Part], size: int) -> Graph:
    """The graph with a node cut along an axis into named slices (heads, positions), which its readers read instead.

    The whole node stays, read by its slices only; each reader puts its slices together again.

    Args:
        graph: the graph.
        node: the node to cut, its value [batch, ...].
        axis: the axis to cut, 0 being the batch.
        parts: name of the new node -> its indices along the axis; together each index once. Slices keep the axis.
        size: the length of the axis.

    Raises:
        GraphError: an unknown node, an axis that is the batch, parts that overlap or leave indices out.

    >>> g = Graph.of({"h": lambda x: 2 * x, "f": lambda h: h.sum(1)}, inputs=["x"], output="f")
    >>> s = split(g, "h", axis=1, parts={"h.first": 0, "h.rest": [1, 2]}, size=3)
    >>> s.nodes["f"].inputs
    ('h.first', 'h.rest')
    >>> s.run(["f"], {"x": torch.ones(1, 3), "h.first": torch.tensor([[10.0]])})["f"].item()
    14.0
    """
    if axis == 0:
        raise GraphError(f"split of '{node}': axis 0 is the batch; expected another")
    index = {name: _indices(part, size) for name, part in parts.items()}
    every = sorted(i for part in index.values() for i in part)
    if every != list(range(size)):
        missing = sorted(set(range(size)) - set(every))
        twice = sorted({i for i in every if every.count(i) > 1 or not 0 <= i < size})
        raise GraphError(f"split of '{node}' into {list(parts)}: indices left out {missing}, twice or outside {twice}")
    for name, part in index.items():
        if not part:
            raise GraphError(f"split of '{node}': part '{name}' is empty")
    cut = {name: _Part(node, size, Slice(axis, tuple(part))) for name, part in index.items()}
    slices = [Node(name, (graph.known(node),), each, view=each.slice.is_run) for name, each in cut.items()]
    whole = Whole(axis, tuple(tuple(part) for part in index.values()))
    return _reread(graph, "split", node, tuple(parts), whole, slices, keep=True)


def inline(graph: Graph, node: str) -> Graph:
    """The graph without a named node: its readers compute it themselves, from what it reads.

    >>> g = Graph.of({"h": lambda x: 2 * x, "f": lambda h: h + 1}, inputs=["x"], output="f")
    >>> inline(g, "h").nodes["f"].inputs
    ('x',)
    """
    if node == graph.output or node in graph.inputs:
        raise GraphError(f"'{node}' is {'the output' if node == graph.output else 'a column'} and cannot be inlined")
    gone = graph.nodes[graph.known(node)]
    return _reread(graph, "inline", node, gone.inputs, gone.fn, [], keep=False)


def with_estimate(graph: Graph, node: str, phi: Function, inputs: Sequence[str]) -> Graph:
    """The graph with a node's value x written as phi + (x - phi), both terms named: `<node>.phi`, `<node>.residual`.

    Args:
        graph: the graph.
        node: the node whose value is x, [batch, ...].
        phi: values of `inputs`, each [batch, ...] -> the estimate of x [batch, ...].
        inputs: the columns or nodes that the estimate is computed from.

    >>> g = Graph.of({"h": lambda x: x + x**3 / 6, "f": lambda h: h + 1}, inputs=["x"], output="f")
    >>> with_estimate(g, "h", lambda x: x, inputs=["x"]).nodes["h"].inputs
    ('h.phi', 'h.residual')
    """
    old = graph.nodes[graph.known(node)]
    for name in inputs:
        graph.known(name)

    new = [
        Node(f"{node}.phi", tuple(inputs), phi),
        Node(f"{node}.residual", (f"{node}.phi", *old.inputs), _Residual(old.fn)),
        Node(node, (f"{node}.phi", f"{node}.residual"), torch.add),
    ]
    kept = [n for n in graph.nodes.values() if n.name != node]
    return Graph([*kept, *new], graph.inputs, graph.output, Rewrite("estimate", node, graph))


def replace(graph: Graph, node: str, fn: Function, inputs: Sequence[str], new: Sequence[Node] = ()) -> Graph:
    """The graph with a node computed in another way, from other inputs: any algebraic rewrite that keeps its value.

    Args:
        graph: the graph.
        node: the node to compute otherwise.
        fn: values of `inputs` -> the node's value.
        inputs: what the node now reads: nodes of the graph, columns or `new` ones.
        new: nodes to add.

    >>> g = Graph.of({"f": lambda x: (x + 1) ** 2}, inputs=["x"], output="f")
    >>> square, rest = Node("x^2", ("x",), lambda x: x**2), Node("2x + 1", ("x",), lambda x: 2 * x + 1)
    >>> replace(g, "f", torch.add, ["x^2", "2x + 1"], new=[square, rest]).nodes["f"].inputs
    ('x^2', '2x + 1')
    """
    old = graph.nodes[graph.known(node)]
    kept = [each for each in graph.nodes.values() if each is not old]
    nodes = [*kept, *new, Node(node, tuple(inputs), fn)]
    return Graph(nodes, graph.inputs, graph.output, Rewrite("replace", node, graph))


def own_copy(graph: Graph, node: str, copies: Mapping[str, Iterable[str]]) -> Graph:
    """The graph in which readers read their own copy of a node, so that claims about the copies can differ.

    Args:
        graph: the graph.
        node: the node or column to copy. It stays for the readers that are not named.
        copies: name of the new copy -> the nodes that read it.

    >>> g = Graph.of({"h": lambda x: 2 * x, "a": lambda h: h, "f": lambda h, a: h + a}, inputs=["x"], output="f")
    >>> own_copy(g, "h", {"h for a": ["a"]}).nodes["a"].inputs
    ('h for a',)
    """
    column = Node(node, (node,), Same(), view=True)
    old = column if graph.known(node) in graph.inputs else graph.nodes[node]
    named: dict[str, str] = {}
    for name, readers in copies.items():
        for reader in readers:
            if reader in named or node not in graph.reads(reader):
                why = "is given two copies" if reader in named else f"does not read '{node}'"
                raise GraphError(f"copies of '{node}': '{reader}' {why}{close(reader, graph.readers(node))}")
            named[reader] = name
    rest = [
        Node(n.name, tuple(named[n.name] if read == node else read for read in n.inputs), n.fn, n.view)
        if n.name in named
        else n
        for n in graph.nodes.values()
    ]
    new = [Node(name, old.inputs, old.fn, old.view) for name in copies]
    return Graph([*rest, *new], graph.inputs, graph.output, Rewrite("own copy", node, graph))


def _indices(part: Part, size: int) -> list[int]:
    if isinstance(part, slice):
        return list(range(size))[part]
    given = [part] if isinstance(part, int) else [int(i) for i in part]
    return [i + size if -size <= i < 0 else i for i in given]


def _reread(
    graph: Graph, kind: str, node: str, reads: tuple[str, ...], made: Function, new: Sequence[Node], keep: bool
) -> Graph:
    """The graph whose readers of a node read other names instead, from which `made` makes what they read before."""
    nodes = [old for old in graph.nodes.values() if keep or old.name != node]
    nodes = [_let_reread(old, node, reads, made) if node in old.inputs else old for old in nodes]
    rewrite = Rewrite(kind, node, graph, (reads, made) if keep else None)
    return Graph([*nodes, *new], graph.inputs, graph.output, rewrite)


def _let_reread(old: Node, node: str, reads: tuple[str, ...], made: Function) -> Node:
    inputs = tuple(dict.fromkeys(r for name in old.inputs for r in (reads if name == node else (name,))))
    return Node(old.name, inputs, _Rereading(old, node, inputs, reads, made))


class _Part(Opened):
    """A slice of a node's value, which is seen to have the axis that is cut."""

    def __init__(self, node: str, size: int, part: Slice) -> None:
        super().__init__()
        self.node, self.size, self.slice = node, size, part

    def open(self, values: Sequence[Any], through: Callable[[Function, Sequence[Any]], Any]) -> Any:
        return through(self.slice, [through(Sized(self.node, self.slice.axis, self.size), values)])


class _Rereading(Opened):
    """A node's function on other inputs. A module, so that the parameters of the functions inside are moved with it."""

    def __init__(self, old: Node, node: str, inputs: tuple[str, ...], reads: tuple[str, ...], made: Function) -> None:
        super().__init__()
        self.old, self.made = old.fn, made
        self.old_inputs, self.node, self.inputs, self.reads = old.inputs, node, inputs, reads

    def open(self, values: Sequence[Any], through: Callable[[Function, Sequence[Any]], Any]) -> Any:
        known = dict(zip(self.inputs, values, strict=True))
        known[self.node] = through(self.made, [known[name] for name in self.reads])
        return through(self.old, [known[name] for name in self.old_inputs])


class _Residual(Opened):
    """What an estimate leaves of a node's value."""

    def __init__(self, whole: Function) -> None:
        super().__init__()
        self.whole = whole

    def open(self, values: Sequence[Any], through: Callable[[Function, Sequence[Any]], Any]) -> Any:
        return through(operator.sub, [through(self.whole, values[1:]), values[0]])
