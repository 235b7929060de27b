"""Exact laws of scrubbed inputs, by messages over the treeified hypothesis: X^n is never enumerated.

X is the rows of D, and wires, inputs and cuts are those of `wires`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.data.partition import Partition
from pscrub.errors import HypothesisError
from pscrub.hypothesis.tree import Site, Tree
from pscrub.law.wires import cut_wires, inputs_partition, readings

Step = Callable[[Tensor, Partition], Tensor]
"""The law float64 [N] of a datum, from the law float64 [N] of its parent's and the partition they agree on."""
CELLS = 1_000_000
"""Default number of cells beyond which no table of a law is made."""


@dataclass(frozen=True, eq=False)
class Law:
    """The joint law of some wires, cell by cell; only cells of positive probability are listed.

    Args:
        wires: paths of tree nodes.
        cells: int64 [cells, wires], a block of each wire's partition, or a row where the wire is a leaf's input.
        p: float64 [cells], their probabilities.
    """

    wires: tuple[str, ...]
    cells: Tensor
    p: Tensor

    def entropy(self, bits: bool = False) -> float:
        """The entropy of the law, in nats, or in bits."""
        nats = float(-(self.p * self.p.log()).sum()) + 0.0
        return nats / math.log(2) if bits else nats

    def as_dict(self) -> dict[tuple[int, ...], float]:
        """Cell -> probability."""
        return {tuple(cell): p for cell, p in zip(self.cells.tolist(), self.p.tolist(), strict=True)}


@dataclass(frozen=True)
class LemmaRow:
    """Lemma 1 at one tree node: largest differences between its law under scrubbing and under D.

    Args:
        path: the node.
        datum: of the probability of a row as its datum.
        inputs: of the probability of a value of its inputs, jointly.
        cells: how many values its inputs take.
    """

    path: str
    datum: float
    inputs: float
    cells: int


def pass_on(message: Tensor, partition: Partition) -> Tensor:
    """float64 [N]: the law of a datum whose parent's law is `message`, read off the table that draws are made from.

    Args:
        message: float64 [N], the law of the parent's datum.
        partition: what the two agree on.
    """
    # P(datum of u is x) = P(datum of its parent is in x's block) * (share of the block's slots that give x). It is the
    # step of Lemma 1's induction, with the shares that draws really have in place of D's weights.
    table, mass = partition.table, torch.bincount(partition.labels, message, partition.n_blocks)
    size = table.spans[:, 1]
    block = torch.repeat_interleave(torch.arange(len(size)), size)
    share = torch.ones(len(table.rows), dtype=torch.float64)
    if table.keep is not None and table.alias is not None:
        own = table.keep.clamp(0, 1)
        share = own.index_add(0, table.alias, 1 - own)
    return torch.zeros_like(message).index_add(0, table.rows, share / size[block] * mass[block])


def datum_laws(tree: Tree, step: Step = pass_on) -> dict[str, Tensor]:
    """path -> float64 [N], the law of each site's datum, by one message from parent to child.

    Args:
        tree: the treeified hypothesis.
        step: how a message is passed on; another one shows what a faulty sampler does.
    """
    data = tree.hypothesis.data
    laws: dict[str, Tensor] = {}
    whole = Partition.trivial(data)
    # Lemma 1's induction, from the root, drawn from D as unimportant inputs are (4.1), to the leaves.
    for path, site in tree.sites.items():
        free = site.parent is None
        laws[path] = step(data.weights if free else laws[site.parent or ""], whole if free else site.partition)
    return laws


def inputs_law(tree: Tree, path: str, datum: Tensor | None = None) -> Law:
    """The joint law of a node's scrubbed inputs; a leaf's one input is its row.

    Each wire into u carries the block of u's own datum: the data agree on it, and I, being well formed, finds that
    block from the leaves below. So the law is that of the datum of u, carried to the blocks.

    Args:
        tree: the treeified hypothesis.
        path: the node u.
        datum: float64 [N], the law of the datum of u; by messages if left out. D's weights give the f-consistent law.
    """
    partition = inputs_partition(tree, path)
    p = torch.bincount(partition.labels, datum_laws(tree)[path] if datum is None else datum, partition.n_blocks)
    rows = partition.first_rows[p > 0]
    read = tree.children(path)
    wires = (path,) if tree.sites[path].is_leaf else tuple(child.path for child in read)
    columns = [rows] if tree.sites[path].is_leaf else [child.partition.labels[rows] for child in read]
    return Law(wires, torch.stack(columns, 1), p[p > 0])


def lemma_1(tree: Tree, step: Step = pass_on) -> tuple[LemmaRow, ...]:
    """For every site, how far the laws of its datum and of its inputs under scrubbing are from those under D.

    Source: Lemma 1, in the joint form that its proof gives.

    Args:
        tree: the treeified hypothesis.
        step: how a message is passed on.

    >>> import torch
    >>> from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
    >>> data = Dataset({"x": torch.arange(4)}, weights=[1, 2, 3, 4])
    >>> graph = Graph.of({"s": lambda x: x % 2, "f": lambda s: s * 1.0}, inputs=["x"], output="f")
    >>> tree = unroll(Hypothesis("parity", graph, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % 2)])))
    >>> all(row.datum < 1e-15 and row.inputs < 1e-15 for row in lemma_1(tree))
    True
    """
    weights, laws = tree.hypothesis.data.weights, datum_laws(tree, step)
    rows = []
    for path, law in laws.items():
        # Under D the datum of every node is distributed as D; and the inputs of u are a function of its datum, so that
        # their law is the datum's, summed over the cells of that function.
        off = law - weights
        cells = int((weights > 0).sum())
        inputs = off
        if not tree.sites[path].is_leaf:
            partition = inputs_partition(tree, path)
            inputs, cells = torch.bincount(partition.labels, off, partition.n_blocks), int((partition.sizes > 0).sum())
        rows.append(LemmaRow(path, float(off.abs().max()), float(inputs.abs().max()), cells))
    return tuple(rows)


def cut_law(tree: Tree, opened: Collection[str], limit: int = CELLS) -> Law:
    """The joint law of a cut's wires as a table, moving the cut from the output through one node at a time.

    Source: the proof of Theorem 2. The law of the leaves is `leaf_law`.

    Args:
        tree: the treeified hypothesis.
        opened: the nodes on the output's side of the cut.
        limit: most cells.

    Raises:
        HypothesisError: more cells than `limit`, or no cut.
    """
    wires, data = cut_wires(tree, opened), tree.hypothesis.data
    what = f"the law of {', '.join(wires)}"
    # Base of the induction: the cut through the wire out of the root, which carries the output as D has it.
    root = tree.sites[tree.root].partition
    blocks = (root.block_weights > 0).nonzero().flatten()
    columns, p = {tree.root: blocks}, root.block_weights[blocks]
    # Step: a cut through the wires (y, z), y coming out of u, is moved to (x, z), x being the inputs of u.
    for path, site in tree.sites.items():
        if path not in opened:
            continue
        inputs = Partition.finest(data) if site.is_leaf else inputs_partition(tree, path)
        rows = inputs.first_rows[inputs.block_weights > 0]
        output = site.partition.labels[rows] if site.claim else torch.zeros_like(rows)
        # Given y, x and z are independent, and y is a function of x: p(x, z) = p(y, z) P(x) / P(y), where P is as under
        # D, by Lemma 1. So I(x; z | y) = 0, which is what makes the entropy of (x, z) the most there can be.
        ratio = inputs.block_weights[inputs.labels[rows]] / (
            site.partition.block_weights[output] if site.claim else 1.0
        )
        # The wire out of an unimportant draw is constant, and so in no cut: its one value is put in its place.
        wire = columns.pop(path, torch.zeros(len(p), dtype=torch.int64))
        cell, cause = match(wire, output, limit, what)
        p = p[cell] * ratio[cause]
        columns = {name: column[cell] for name, column in columns.items()}
        made = (
            {path: rows[cause]}
            if site.is_leaf
            else {c.path: c.partition.labels[rows[cause]] for c in tree.children(path)}
        )
        columns |= made
    return Law(wires, torch.stack([columns[path] for path in wires], 1), p)


def leaf_law(tree: Tree, limit: int = CELLS) -> Law:
    """The joint law of the scrubbed inputs as a table, the leaves in the order of `tree.leaves`.

    Raises:
        HypothesisError: more cells than `limit`.
    """
    return cut_law(tree, tree.sites, limit)


def cut_log_prob(tree: Tree, opened: Collection[str], values: Tensor) -> Tensor:
    """float64 [draws]: the log-probability, in nats, of values of a cut's wires; -inf where D cannot produce them.

    Args:
        tree: the treeified hypothesis.
        opened: the nodes on the output's side of the cut.
        values: int64 [draws, wires], blocks or rows, in the order of `cut_wires`.
    """
    wires, root = cut_wires(tree, opened), tree.sites[tree.root].partition.block_weights.log()
    given = dict(zip(wires, values.unbind(1), strict=True))
    read = readings(tree, given, opened)
    # P(output) times, node by node, P(inputs of u) / P(output of u); at the root P(output) cancels.
    output = read[tree.root].output if tree.root in opened else given[tree.root]
    start = torch.where(output >= 0, root[output.clamp(min=0)], -math.inf)
    # -inf and its ratio must not meet as a difference: the ratios were taken before logarithms.
    return start + sum((each.log_ratio for each in read.values()), torch.zeros_like(start))


def log_prob(tree: Tree, rows: Tensor) -> Tensor:
    """float64 [draws]: the log-probability, in nats, of scrubbed inputs x_1, ..., x_n under the scrubbing law.

    p = P(inputs of root) * product over the other nodes u of P(inputs of u) / P(output of u). One pass over D per wire,
    whatever the number of draws. `log_prob_by_summation` is the slow reference.

    Args:
        tree: the treeified hypothesis.
        rows: int64 [draws, leaves], rows of D in the order of `tree.leaves`.

    >>> import torch
    >>> from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
    >>> data = Dataset({"x": torch.arange(4)})
    >>> graph = Graph.of({"s": lambda x: x % 2, "f": lambda s: s * 1.0}, inputs=["x"], output="f")
    >>> tree = unroll(Hypothesis("parity", graph, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % 2)])))
    >>> log_prob(tree, torch.tensor([[3]])).exp().tolist()
    [0.25]
    """
    return cut_log_prob(tree, tree.sites, rows)


def log_prob_by_summation(tree: Tree, rows: Tensor) -> Tensor:
    """float64 [draws]: what `log_prob` returns, by summing over the data of inner nodes as the program draws them.

    The slow reference: time and memory are draws times N for each node, and it recurses as deep as the tree. It knows
    nothing of inputs and outputs.

    Args:
        tree: the treeified hypothesis.
        rows: int64 [draws, leaves], rows of D in the order of `tree.leaves`.
    """
    weights = tree.hypothesis.data.weights
    given = dict(zip(tree.leaves, rows.unbind(1), strict=True))

    def likelihood(site: Site) -> Tensor:
        """float64 [draws, N]: the probability of the leaves at and below a site, given each row as its datum."""
        if site.is_leaf:
            return torch.nn.functional.one_hot(given[site.path], len(weights)).double()
        # Given the datum of u, what is drawn below one child is independent of what is drawn below another.
        return math.prod(
            (message(child) for child in tree.children(site.path)), start=torch.ones(1, dtype=torch.float64)
        )

    def message(site: Site) -> Tensor:
        """float64 [draws, N]: the same, given each row as the parent's datum."""
        # sum over x' in the parent's block of P(x' | block) * likelihood(x'): the same for all rows of the block.
        labels, blocks = site.partition.labels, site.partition.block_weights
        joint = weights * likelihood(site)
        total = torch.zeros(len(joint), len(blocks), dtype=torch.float64).index_add(1, labels, joint)
        return torch.where(blocks > 0, total / blocks, 0.0)[:, labels]

    p = (weights * likelihood(tree.sites[tree.root])).sum(1)
    for path, site in tree.sites.items():
        if site.claim is None:
            p = p * weights[given[path]]
    return p.log()


def match(wire: Tensor, output: Tensor, limit: int, what: str) -> tuple[Tensor, Tensor]:
    """Two int64 [pairs]: each place in `wire` with each place in `output` of the same value.

    Args:
        wire: int64 [m].
        output: int64 [k].
        limit: most pairs.
        what: is being made, for the error.

    Raises:
        HypothesisError: more pairs than `limit`.
    """
    order = output.argsort(stable=True)
    values = output[order]
    first, last = torch.searchsorted(values, wire), torch.searchsorted(values, wire, right=True)
    fan = last - first
    if int(fan.sum()) > limit:
        raise HypothesisError(f"{what} has more than {limit:,} cells: {int(fan.sum()):,} on the way")
    left = torch.repeat_interleave(torch.arange(len(wire)), fan)
    offset = torch.arange(len(left)) - (fan.cumsum(0) - fan)[left]
    return left, order[first[left] + offset]
