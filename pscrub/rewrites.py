"""Rewrites of a graph that keep its function f, so that it gets the nodes a hypothesis speaks of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.dataset import Dataset
from pscrub.errors import GraphError, close
from pscrub.graph import Function, Graph, Node, Rewrite

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
    order = [i for part in index.values() for i in part]
    back = None if order == sorted(order) else [order.index(i) for i in range(size)]

    def whole(*values: Tensor) -> Tensor:
        joined = torch.cat(values, axis)
        return joined if back is None else joined.index_select(axis, torch.tensor(back, device=joined.device))

    slices = [Node(name, (graph.known(node),), _taking(axis, part), view=_is_run(part)) for name, part in index.items()]
    return _reread(graph, "split", node, {node: (tuple(parts), whole)}, slices)


def inline(graph: Graph, node: str) -> Graph:
    """The graph without a named node: its readers compute it themselves, from what it reads.

    >>> g = Graph.of({"h": lambda x: 2 * x, "f": lambda h: h + 1}, inputs=["x"], output="f")
    >>> inline(g, "h").nodes["f"].inputs
    ('x',)
    """
    if node == graph.output or node in graph.inputs:
        raise GraphError(f"'{node}' is {'the output' if node == graph.output else 'a column'} and cannot be inlined")
    gone = graph.nodes[graph.known(node)]
    return _reread(graph, "inline", node, {node: (gone.inputs, gone.fn)}, [], without=node)


def estimate(graph: Graph, node: str, phi: Function, inputs: Sequence[str]) -> Graph:
    """The graph with a node's value x written as phi + (x - phi), both terms named: `<node>.phi`, `<node>.residual`.

    Args:
        graph: the graph.
        node: the node whose value is x, [batch, ...].
        phi: values of `inputs`, each [batch, ...] -> the estimate of x [batch, ...].
        inputs: the columns or nodes that the estimate is computed from.

    >>> g = Graph.of({"h": lambda x: x + x**3 / 6, "f": lambda h: h + 1}, inputs=["x"], output="f")
    >>> estimate(g, "h", lambda x: x, inputs=["x"]).nodes["h"].inputs
    ('h.phi', 'h.residual')
    """
    old = graph.nodes[graph.known(node)]
    for name in inputs:
        graph.known(name)

    def residual(estimated: Tensor, *values: Tensor) -> Tensor:
        return old.fn(*values) - estimated

    new = [
        Node(f"{node}.phi", tuple(inputs), phi),
        Node(f"{node}.residual", (f"{node}.phi", *old.inputs), residual),
        Node(node, (f"{node}.phi", f"{node}.residual"), torch.add),
    ]
    kept = [n for n in graph.nodes.values() if n.name != node]
    return Graph([*kept, *new], graph.inputs, graph.output, Rewrite("estimate", node, graph))


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
    column = Node(node, (node,), lambda value: value, view=True)
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


@dataclass(frozen=True)
class RewriteCheck:
    """How far a rewrite changed f and the rewritten node's value on D: largest absolute differences.

    Args:
        kind: the rewrite.
        node: the node rewritten.
        difference: largest change of the output f over D; exactly 0 where only names changed.
        row: the row of D where it is.
    """

    kind: str
    node: str
    difference: float
    row: int


def check_rewrites(graph: Graph, data: Dataset, tolerance: float = 1e-4, chunk: int = 4096) -> tuple[RewriteCheck, ...]:
    """How far each rewrite of a graph changed f on D, first to last; all versions are run side by side.

    Args:
        graph: the last graph; each holds the one that it was made from.
        data: D; every row is tried.
        tolerance: largest difference of f that is allowed, relative to f's largest magnitude (or 1 if that is less).
        chunk: rows at a time.

    Raises:
        GraphError: a rewrite changed f by more, or gave NaN where there was none; with the rewrite, the difference and the row.
    """
    chain: list[Graph] = [graph]
    while chain[-1].rewrite is not None:
        chain.append(chain[-1].rewrite.before)
    chain.reverse()
    worst, where, scale = [0.0] * len(chain), [0] * len(chain), 1.0
    for start in range(0, data.n if len(chain) > 1 else 0, chunk):
        given = {name: data[name][start : start + chunk] for name in graph.inputs}
        memo: dict[tuple[int, ...], Tensor] = {}
        values = [_run_sharing(version, given, memo).double() for version in chain]
        scale = max(scale, float(values[0].nan_to_num(0, 0, 0).abs().max()))
        for i in range(1, len(chain)):
            same = (values[i] == values[i - 1]) | (values[i].isnan() & values[i - 1].isnan())
            off = torch.where(same, 0.0, (values[i] - values[i - 1]).abs().nan_to_num(math.inf))
            if float(off.max()) > worst[i]:
                worst[i], where[i] = float(off.max()), start + int(off.flatten().argmax()) // max(1, off[0].numel())
    checks = []
    for i, version in enumerate(chain[1:], start=1):
        assert version.rewrite is not None
        checks.append(RewriteCheck(version.rewrite.kind, version.rewrite.node, worst[i], where[i]))
    faults = [
        f"rewrite '{c.kind}' of node '{c.node}' changes f by {c.difference:.3g} at row {c.row}; "
        f"allowed {tolerance * scale:.3g}: the graph must equal f on all of D"
        for c in checks
        if c.difference > tolerance * scale
    ]
    if faults:
        raise GraphError(faults)
    return tuple(checks)


def _run_sharing(graph: Graph, given: Mapping[str, Tensor], memo: dict[tuple[int, ...], Tensor]) -> Tensor:
    """f, taking values from `memo` where another version computed the same function of the same tensors."""
    values = dict(given)
    for name in graph.order([graph.output], given):
        node = graph.nodes[name]
        inputs = [values[each] for each in node.inputs]
        key = (id(node.fn), *(id(value) for value in inputs))
        if key not in memo:
            memo[key] = node.fn(*inputs)
        values[name] = memo[key]
    return values[graph.output]


def _indices(part: Part, size: int) -> list[int]:
    if isinstance(part, slice):
        return list(range(size))[part]
    return [part % size] if isinstance(part, int) else [int(i) for i in part]


def _is_run(part: list[int]) -> bool:
    return part == list(range(part[0], part[0] + len(part)))


def _taking(axis: int, part: list[int]) -> Function:
    if _is_run(part):
        return lambda value: value.narrow(axis, part[0], len(part))
    return lambda value: value.index_select(axis, torch.tensor(part, device=value.device))


def _reread(
    graph: Graph,
    kind: str,
    node: str,
    instead: Mapping[str, tuple[tuple[str, ...], Function]],
    new: Iterable[Node],
    without: str | None = None,
) -> Graph:
    """The graph whose readers of a name read other names, from which a function makes what they read before."""
    nodes = []
    for old in graph.nodes.values():
        if old.name == without:
            continue
        nodes.append(_rereading(old, instead) if set(old.inputs) & set(instead) else old)
    return Graph([*nodes, *new], graph.inputs, graph.output, Rewrite(kind, node, graph))


def _rereading(old: Node, instead: Mapping[str, tuple[tuple[str, ...], Function]]) -> Node:
    reads = tuple(dict.fromkeys(r for name in old.inputs for r in (instead[name][0] if name in instead else (name,))))

    def fn(*values: Tensor) -> Tensor:
        by_name = dict(zip(reads, values, strict=True))
        made = {name: make(*(by_name[r] for r in names)) for name, (names, make) in instead.items()}
        return old.fn(*(made[name] if name in made else by_name[name] for name in old.inputs))

    return Node(old.name, reads, fn)
