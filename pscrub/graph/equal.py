"""Extensional equality on D, and the trivial rewrites that it permits: a lookup table, a constant."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError
from pscrub.graph.graph import Graph
from pscrub.graph.numbered import Numbers
from pscrub.graph.running import Running
from pscrub.workers import side_by_side

LIVE = 2**28
"""Bytes of values of operations that versions of a graph may have at a time while they are compared."""


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

    def run(given: Mapping[str, Tensor]) -> list[Tensor]:
        values = []
        for graph, name in zip((first, second), names, strict=True):
            own = {column: given[column].to(graph.device) for column in graph.inputs}
            values.append(graph.run([name], own)[name].cpu())
        if values[0].shape != values[1].shape:
            shapes = [list(value.shape) for value in values]
            raise GraphError(f"'{names[0]}' has shape {shapes[0]} and '{names[1]}' {shapes[1]}; expected one shape")
        return values

    columns = tuple(dict.fromkeys((*first.inputs, *second.inputs)))
    return _compare_on_data(run, {name: data[name] for name in columns}, chunk, first.device)[0][0]


def find_gap(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """The largest difference of two values and the largest magnitude of what is expected.

    Infinities and NaN differ from all but their like; values of different shapes differ by infinity.

    >>> find_gap(torch.tensor([1.0, torch.nan, 5.0]), torch.tensor([1.0, torch.nan, 4.0]))
    (1.0, 4.0)
    """
    if found.shape != expected.shape or not expected.numel():
        return (0.0 if found.shape == expected.shape else math.inf), 0.0
    if found.dtype == expected.dtype and not found.is_complex() and torch.equal(found, expected):
        # The rule, seen in a tenth of the time: there is no NaN, and nothing to be computed as float64.
        low, high = expected.aminmax()
        scale = max(-float(low), float(high))
        if math.isfinite(scale):
            return 0.0, scale
    a, b = (each.to(torch.promote_types(each.dtype, torch.float64)) for each in (found, expected))
    largest = (a - b).abs().max()
    if largest.isfinite():  # no infinities and no NaN in either
        return largest.item(), b.abs().max().item()
    gap = (a - b).abs().nan_to_num(nan=math.inf).masked_fill((a == b) | (a.isnan() & b.isnan()), 0.0)
    return gap.max().item(), b.abs().nan_to_num(nan=0.0, posinf=0.0).max().item()


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
        GraphError: a rewrite changed f by more, or gave NaN where there was none: which, by how much, and at which row;
            or a node was split that the output does not depend on.
    """
    chain: list[Graph] = [graph]
    while chain[-1].rewrite is not None:
        chain.append(chain[-1].rewrite.before)
    chain.reverse()
    if len(chain) == 1:
        return ()
    unused = [
        f"rewrite '{r.kind}' of node '{r.node}': the output '{r.before.output}' does not depend on it, so no claim "
        "about its parts could matter; split a node that the output depends on"
        for r in (version.rewrite for version in chain)
        if r is not None and r.parts is not None and r.node not in r.before.ancestors(r.before.output)
    ]
    if unused:
        raise GraphError(unused)

    if len({*map(Numbers().f_of, chain)}) == 1:
        # The same operations on the same values, one by one: equal on D, and on any other data. Slices are seen to be
        # of values that have their axis.
        rewrites = [version.rewrite for version in chain if version.rewrite is not None]
        parts = [name for r in rewrites if r.parts is not None for name in r.parts[0] if name in graph.nodes]
        tried = {name: data[name][:2].to(graph.device) for name in graph.inputs}
        running = Running(min(2, data.n), graph.device)
        with torch.no_grad():
            for name in graph.order(parts, tried):
                node = graph.nodes[name]
                tried[name] = running.value(node, [tried[read] for read in node.inputs])
        return tuple(RewriteCheck(r.kind, r.node, 0.0, 0) for r in rewrites)

    def run(given: Mapping[str, Tensor]) -> list[Tensor]:
        return _run_chain(chain, {name: column.to(graph.device) for name, column in given.items()})[0]

    columns = {name: data[name] for name in graph.inputs}
    with torch.no_grad():
        few = min(2, data.n)
        _, size = _run_chain(chain, {name: column[:few].to(graph.device) for name, column in columns.items()})
    chunk = max(min(chunk, few * LIVE // max(size, 1)), 1)
    found, scale = _compare_on_data(run, columns, chunk, graph.device)
    scale = max(scale, 1.0)
    checks = []
    for version, each in zip(chain[1:], found, strict=True):
        assert version.rewrite is not None
        checks.append(RewriteCheck(version.rewrite.kind, version.rewrite.node, each.value, each.row))
    faults = [
        f"rewrite '{c.kind}' of node '{c.node}' changes f by {c.difference:.3g} at row {c.row}; "
        f"allowed {tolerance * scale:.3g}: the graph must equal f on all of D"
        for c in checks
        if c.difference > tolerance * scale
    ]
    if faults:
        raise GraphError(faults)
    return tuple(checks)


def _run_chain(chain: Sequence[Graph], given: Mapping[str, Tensor]) -> tuple[list[Tensor], int]:
    """f of each version, computing again only what a rewrite made another operation of, or gave other values to.

    And the bytes that this took.
    """
    first = next(iter(given.values()))
    running = Running(len(first), first.device)
    before: dict[str, Tensor] = {}
    outputs: list[Tensor] = []
    for graph in chain:
        parts = graph.rewrite.parts if graph.rewrite is not None else None
        values = dict(before if parts is not None else given)
        for name in graph.order([graph.output] if parts is None else parts[0], values):
            node = graph.nodes[name]
            value = running.value(node, [values[each] for each in node.inputs])
            # The very tensor of the version before, if equal, so that what reads it is not computed again.
            values[name] = before[name] if name in before and torch.equal(before[name], value) else value
        if parts is not None:
            assert graph.rewrite is not None
            whole = parts[1](*(values[name] for name in parts[0]))
            if not torch.equal(whole, before[graph.rewrite.node]):
                values = graph.run([*graph.nodes], given) | dict(given)
        outputs.append(values[graph.output])
        before = values
    return outputs, running.bytes


Run = Callable[[Mapping[str, Tensor]], Sequence[Tensor]]
"""Columns, a chunk of rows of each -> the values [chunk, ...] that are to be equal."""


def _compare_on_data(
    run: Run, columns: Mapping[str, Tensor], chunk: int, device: torch.device
) -> tuple[list[Difference], float]:
    """The difference on D of each value from the one before it, and the largest magnitude of the first.

    Args:
        run: makes the values.
        columns: of D.
        chunk: rows at a time.
        device: where `run` works; on a CPU chunks are worked on side by side.
    """

    def compare(start: int) -> tuple[list[tuple[Tensor, Tensor]], float]:
        with torch.no_grad():
            values = [v.double() for v in run({name: c[start : start + chunk] for name, c in columns.items()})]
        pairs = []
        for before, after in itertools.pairwise(values):
            same = (after == before) | (after.isnan() & before.isnan())
            off = torch.where(same, 0.0, (after - before).abs().nan_to_num(math.inf)).reshape(len(after), -1)
            pairs.append((off.amax(1), (~same).reshape(len(after), -1).any(1)))
        return pairs, float(values[0].nan_to_num(0, 0, 0).abs().max())

    starts = range(0, len(next(iter(columns.values()))), chunk)
    found, scale = list[Difference](), 0.0
    for start, (pairs, magnitude) in zip(starts, side_by_side(compare, starts, device), strict=True):
        scale, found = max(scale, magnitude), found or [Difference(0.0, 0, 0)] * len(pairs)
        for i, (off, differs) in enumerate(pairs):
            worst, rows = found[i], found[i].rows + int(differs.sum())
            if float(off.max()) > worst.value:
                found[i] = Difference(float(off.max()), start + int(off.argmax()), rows)
            else:
                found[i] = Difference(worst.value, worst.row, rows)
    return found, scale
