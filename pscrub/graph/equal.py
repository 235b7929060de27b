"""Extensional equality on D, and the trivial rewrites that it permits: a lookup table, a constant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError
from pscrub.graph.graph import Graph
from pscrub.workers import side_by_side


@dataclass(frozen=True)
class Difference:
    """The largest difference of two graphs on D.

    Args:
        value: largest absolute difference of an entry; 0.0 if the graphs are equal bit for bit on D (NaN equals NaN).
        row: the row of D where it is; the first one if there is none.
        rows: how many rows differ at all.
    """

    value: float
    row: int
    rows: int

    def __bool__(self) -> bool:
        """Whether there is one."""
        return self.rows > 0


@torch.no_grad()
def equal_on(first: Graph, second: Graph, data: Dataset, node: str | None = None, chunk: int = 1024) -> Difference:
    """The largest difference of two graphs' outputs on D and its row: none, and one may be explained for the other.

    Every row is tried, those of weight zero too. How large a difference is rounding is for the caller to say;
    `check_rewrites` says it for rewrites of one graph.

    Source: appendix, section 1.2.

    Args:
        first: a graph.
        second: another that reads columns of the same data.
        data: D.
        node: compare this node of both, of any shape [batch, ...]; by default their outputs.
        chunk: rows at a time.

    Raises:
        GraphError: a node that is not there, or values of different shapes.

    >>> data = Dataset({"x": torch.tensor([0.0, 1.0, 3.0])})
    >>> square = Graph.of({"f": lambda x: x**2}, inputs=["x"], output="f")
    >>> line = Graph.of({"f": lambda x: x}, inputs=["x"], output="f")
    >>> equal_on(square, line, data)
    Difference(value=6.0, row=2, rows=1)
    """
    names = [graph.known(graph.output if node is None else node) for graph in (first, second)]
    worst, row, rows = 0.0, 0, 0
    for start in range(0, data.n, chunk):
        values = []
        for graph, name in zip((first, second), names, strict=True):
            given = {column: data[column][start : start + chunk].to(graph.device) for column in graph.inputs}
            values.append(graph.run([name], given)[name].double().cpu())
        a, b = values
        if a.shape != b.shape:
            raise GraphError(
                f"'{names[0]}' has shape {list(a.shape)} and '{names[1]}' {list(b.shape)}; expected one shape"
            )
        same = (a == b) | (a.isnan() & b.isnan())
        off = torch.where(same, 0.0, (a - b).abs().nan_to_num(math.inf)).reshape(len(a), -1).amax(1)
        rows += int((~same).reshape(len(a), -1).any(1).sum())
        if float(off.max()) > worst:
            worst, row = float(off.max()), start + int(off.argmax())
    return Difference(worst, row, rows)


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


def check_rewrites(graph: Graph, data: Dataset, tolerance: float = 1e-4, chunk: int = 128) -> tuple[RewriteCheck, ...]:
    """How far each rewrite of a graph changed f on D, first to last; all versions are run side by side.

    Args:
        graph: the last graph; each holds the one that it was made from.
        data: D; every row is tried.
        tolerance: largest difference of f that is allowed, relative to f's largest magnitude (or 1 if that is less).
        chunk: rows at a time.

    Raises:
        GraphError: a rewrite changed f by more, or gave NaN where there was none: which, by how much, and at which row.
    """
    chain: list[Graph] = [graph]
    while chain[-1].rewrite is not None:
        chain.append(chain[-1].rewrite.before)
    chain.reverse()
    worst, where, scale = [0.0] * len(chain), [0] * len(chain), 1.0

    def run(start: int) -> list[Tensor]:
        given = {name: data[name][start : start + chunk].to(graph.device) for name in graph.inputs}
        with torch.no_grad():
            return [f.double() for f in _runs(chain, given)]

    starts = range(0, data.n if len(chain) > 1 else 0, chunk)
    for start, values in zip(starts, side_by_side(run, starts, graph.device), strict=True):
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


def _runs(chain: Sequence[Graph], given: Mapping[str, Tensor]) -> list[Tensor]:
    """f of each version, computing again only what a rewrite made another function of, or gave other values to."""
    memo: dict[tuple[int, ...], Tensor] = {}
    before: dict[str, Tensor] = {}
    outputs: list[Tensor] = []
    for graph in chain:
        parts = graph.rewrite.parts if graph.rewrite is not None else None
        values = dict(before if parts is not None else given)
        for name in graph.order([graph.output] if parts is None else parts[0], values):
            node = graph.nodes[name]
            inputs = [values[each] for each in node.inputs]
            key = (id(node.fn), *(id(value) for value in inputs))
            if key not in memo:
                value = node.fn(*inputs)
                # The very tensor of the version before, if equal, so that what reads it is not computed again.
                memo[key] = before[name] if name in before and torch.equal(before[name], value) else value
            values[name] = memo[key]
        if parts is not None:
            assert graph.rewrite is not None
            whole = parts[1](*(values[name] for name in parts[0]))
            if not torch.equal(whole, before[graph.rewrite.node]):
                values = graph.run([*graph.nodes], given) | dict(given)
        outputs.append(values[graph.output])
        before = values
    return outputs
