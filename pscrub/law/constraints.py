"""Lemma 1 as linear equations in the law of the wires of a cut, from the hypothesis alone.

Nothing here draws, passes messages or knows the tree that is drawn from: it can be held against all of these. It is for
small hypotheses: cells are listed one by one, and claims are gone through by recursion.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse

from pscrub.errors import PscrubError
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
MOST_CELLS = 20_000


class TooManyCells(PscrubError):
    """More tuples of wire values can occur than were asked to be listed."""


@dataclass(frozen=True, order=True)
class Wire:
    """An edge of the treeified interpretation: the value out of a node, or the datum into a node that reads no other.

    Args:
        path: the node's path, as the sites of the tree are named.
        datum: whether it is the datum (a row of D) that the node is given, not the block that the node gives out.
    """

    path: str
    datum: bool = False

    def __str__(self) -> str:
        return f"datum of {self.path}" if self.datum else self.path


Cut = tuple[Wire, ...]


@dataclass(frozen=True, eq=False)
class _Node:
    """A node of I^T: its value on each row, int64 [N], and the nodes it reads (none: it reads a datum)."""

    path: str
    values: Ints
    reads: tuple[_Node, ...] = ()


@dataclass(frozen=True, eq=False)
class Constraints:
    """Lemma 1 at every node on the root's side of a cut, as linear equations in the law of the cut wires.

    `matrix @ p = rhs`, p being float64 [cells]. A cell is a tuple of values of the cut wires. Listed are the cells that
    the equations leave free: a tuple of inputs that D cannot give a node has probability 0, and with it every cell
    that leads to it.

    Args:
        cut: the wires.
        cells: int64 [cells, wires]: rows of D on wires that are data, else blocks of the claim's partition.
        matrix: sparse [equations, cells] of zeros and ones.
        rhs: float64 [equations], probabilities under D.
        nodes: the path of the node whose inputs each equation is about.
        total: how many tuples of wire values there are, those forced to 0 included.
    """

    cut: Cut
    cells: Ints
    matrix: scipy.sparse.csr_array
    rhs: Floats
    nodes: tuple[str, ...]
    total: int

    @cached_property
    def columns(self) -> Mapping[str, Ints]:
        """Path -> int64 [cells]: the values of each wire."""
        return {wire.path: self.cells[:, i] for i, wire in enumerate(self.cut)}

    def violations(self, p: Floats) -> dict[str, float]:
        """Path -> the worst error, in probability, of a law [cells] in the equations about that node's inputs."""
        worst: dict[str, float] = {}
        for node, error in zip(self.nodes, np.abs(self.matrix @ p - self.rhs).tolist(), strict=True):
            worst[node] = max(worst.get(node, 0.0), error)
        return worst


def minimal_cuts(hypothesis: Hypothesis) -> Iterator[Cut]:
    """The minimal cuts that part the data from the root, from the root's inputs to the leaves.

    The last is the cut through the data of all leaves. Their number is the product, over what the root reads, of one
    plus the number of cuts below; look at `itertools.islice` of them where that is large.

    Source: proof of the appendix's Theorem 2.
    """
    yield from _list_cuts(_interpret(hypothesis))


def leaves_of(hypothesis: Hypothesis) -> Cut:
    """The cut through the data of all leaves: the scrubbed inputs, x_1 to x_n."""
    return tuple(_list_leaves(_interpret(hypothesis)))


def list_constraints(hypothesis: Hypothesis, cut: Cut | None = None, most: int = MOST_CELLS) -> Constraints:
    """Lemma 1's constraints on the law of the wires of a cut.

    Args:
        hypothesis: must be well formed.
        cut: one of `minimal_cuts`; the leaves' by default.
        most: how many cells to list at most.

    Raises:
        TooManyCells: there are more.
        HypothesisError: with every fault of the hypothesis.
        PscrubError: the wires are not a minimal cut.

    Source: Lemma 1; "subject to the constraints imposed by Lemma 1" in Theorem 2.

    >>> import torch
    >>> from pscrub.data.dataset import Dataset
    >>> from pscrub.graph.graph import Graph
    >>> data = Dataset({"x": torch.arange(4)}, weights=[1, 1, 2, 4])
    >>> graph = Graph.of({"s": lambda x: x % 2, "t": lambda x: x // 2, "f": lambda s, t: s + t}, ["x"], "f")
    >>> reads = [Claim("s", lambda d: d["x"] % 2), Claim("t", "exact")]
    >>> found = list_constraints(Hypothesis("parity and all", graph, data, Claim("f", reads=reads)))
    >>> found.total, found.cells.tolist()
    (16, [[0, 0], [2, 0], [0, 2], [2, 2], [1, 1], [3, 1], [1, 3], [3, 3]])
    >>> [f"{node}: {rhs:g}" for node, rhs in zip(found.nodes, found.rhs)][-4:]
    ['f/t: 0.125', 'f/t: 0.125', 'f/t: 0.25', 'f/t: 0.5']
    """
    root = _interpret(hypothesis)
    wires = tuple(_list_leaves(root)) if cut is None else tuple(cut)
    weights = hypothesis.data.weights.numpy()
    built = _list_cells(root, frozenset(wires), weights, most)
    if sorted(wires) != sorted(built.columns):
        raise PscrubError(f"not a minimal cut of hypothesis '{hypothesis.name}': {', '.join(map(str, wires))}")
    nodes: list[str] = []
    rhs, blocks = [], []
    # An equation for each node u on the root's side and each tuple x of its inputs: the cells in which u is given x
    # together have P(inputs of u = x). Those of one node add up to 1, so that some of them follow from the others.
    for path, which in built.inputs.items():
        probabilities = built.probabilities[path]
        ones = (np.ones(len(which)), (which, np.arange(len(which))))
        blocks.append(scipy.sparse.csr_array(ones, shape=(len(probabilities), len(which))))
        rhs.append(probabilities)
        nodes += [path] * len(probabilities)
    cells = np.stack([built.columns[wire] for wire in wires], axis=1)
    total = math.prod(built.sizes[wire] for wire in wires)
    matrix = scipy.sparse.csr_array(scipy.sparse.vstack(blocks))
    return Constraints(wires, cells, matrix, np.concatenate(rhs), tuple(nodes), total)


def _interpret(hypothesis: Hypothesis) -> _Node:
    """The root of I^T, made isomorphic as in the appendix's 4.2: unimportant inputs are nodes whose value says nothing.

    A draw that several nodes share says nothing to any of them, so it may as well be read by the root alone.
    """
    hypothesis.check(rewrites=False)
    nothing = np.zeros(hypothesis.data.n, dtype=np.int64)
    sharing, shared = hypothesis.sharing, dict[str, _Node]()
    groups = {} if isinstance(sharing, str) else {name: f"~{key}" for key, names in sharing.items() for name in names}

    def visit(claim: Claim, path: str) -> _Node:
        own: dict[str, _Node] = {}
        for name in hypothesis.unimportant(claim):
            if sharing == "all" or name in groups:
                draw = groups.get(name, "~all")
                shared[draw] = _Node(draw, nothing)
            else:
                draw = f"{path}/~{name}" if sharing == "each" else f"{path}/~"
                own[draw] = _Node(draw, nothing)
        if hypothesis.reading(claim).own:  # where pieces are, and an exact rest, are the reader's own
            own[f"{path}/~own"] = _Node(f"{path}/~own", np.arange(hypothesis.data.n))
        below = tuple(visit(read, f"{path}/{read.name}") for read in claim.reads)
        return _Node(path, hypothesis.partitions[claim].labels.numpy(), (*own.values(), *below))

    root = visit(hypothesis.claim, hypothesis.claim.name)
    return _Node(root.path, root.values, (*shared.values(), *root.reads))


def _list_cuts(node: _Node) -> Iterator[Cut]:
    if not node.reads:
        yield (Wire(node.path, datum=True),)
        return
    # Through the wire out of a node that is read, or a cut below it: the steps of Theorem 2's proof, in all ways.
    choices = [[(Wire(read.path),), *_list_cuts(read)] for read in node.reads]
    for chosen in itertools.product(*choices):
        yield tuple(itertools.chain.from_iterable(chosen))


def _list_leaves(node: _Node) -> Iterator[Wire]:
    if not node.reads:
        yield Wire(node.path, datum=True)
    for read in node.reads:
        yield from _list_leaves(read)


@dataclass(frozen=True, eq=False)
class _Cells:
    """The cells of the part of a cut below a node.

    Args:
        columns: wire -> int64 [cells], its values.
        sizes: wire -> how many values it has.
        inputs: path -> int64 [cells], which tuple of inputs each node on the root's side is given.
        probabilities: path -> float64 [tuples] of those tuples under D.
        out: int64 [cells], the node's value.
    """

    columns: dict[Wire, Ints]
    sizes: dict[Wire, int]
    inputs: dict[str, Ints]
    probabilities: dict[str, Floats]
    out: Ints

    def take(self, index: Ints) -> tuple[dict[Wire, Ints], dict[str, Ints]]:
        return {w: v[index] for w, v in self.columns.items()}, {n: v[index] for n, v in self.inputs.items()}


def _list_cells(node: _Node, cut: frozenset[Wire], weights: Floats, most: int) -> _Cells:
    """The cells below a node: its possible tuples of inputs, each joined with all cells that give these inputs."""
    possible: Ints = np.flatnonzero(weights > 0).astype(np.int64)
    if not node.reads:
        wire, rows = Wire(node.path, datum=True), np.arange(len(possible))
        law = {node.path: weights[possible]}
        return _Cells({wire: possible}, {wire: len(weights)}, {node.path: rows}, law, node.values[possible])
    read = np.stack([each.values[possible] for each in node.reads], axis=1)
    tuples, first, which = np.unique(read, axis=0, return_index=True, return_inverse=True)
    own = np.asarray(np.bincount(which.reshape(-1), weights=weights[possible]), dtype=np.float64)
    probabilities = {node.path: own}
    given = np.arange(len(tuples))
    columns: dict[Wire, Ints] = {}
    inputs: dict[str, Ints] = {}
    sizes = dict[Wire, int]()
    for i, each in enumerate(node.reads):
        wire = Wire(each.path)
        if wire in cut:
            columns[wire], sizes[wire] = tuples[given, i], int(each.values.max()) + 1
            continue
        # I^T is run on the cell: what comes out below goes in here. Values that are no tuple of inputs here have
        # probability 0 by Lemma 1, and so no cell that leads to them is listed.
        below = _list_cells(each, cut, weights, most)
        order = np.argsort(below.out, kind="stable")
        starts = np.searchsorted(below.out[order], tuples[given, i], side="left")
        counts = np.searchsorted(below.out[order], tuples[given, i], side="right") - starts
        if int(counts.sum()) > most:
            raise TooManyCells(f"more than {most:,} cells at '{node.path}': its constraints are not listed")
        kept = np.repeat(np.arange(len(given)), counts)
        within = np.arange(len(kept)) - np.repeat(np.cumsum(counts) - counts, counts)
        below_columns, below_inputs = below.take(order[np.repeat(starts, counts) + within])
        columns = {w: v[kept] for w, v in columns.items()} | below_columns
        inputs = {n: v[kept] for n, v in inputs.items()} | below_inputs
        sizes, probabilities, given = sizes | below.sizes, probabilities | below.probabilities, given[kept]
    return _Cells(columns, sizes, {node.path: given} | inputs, probabilities, node.values[possible[first]][given])
