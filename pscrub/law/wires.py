"""The wires of a treeified hypothesis: what its nodes read on D, the cuts through it, and I run on values of a cut.

X is the rows of D: equal rows are two inputs. A wire is the edge out of a tree node u; its value is a block of u's
partition. The inputs of u are the wires of the claims that it reads; those of a leaf, a copy of the input, a row. An
unimportant draw is a leaf whose wire is constant. I runs on the leaves' rows x_1 to x_n as it runs on one: from values
of inputs to the value of the output, as D pairs them; a pairing that D does not have has probability 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pscrub.data.partition import Partition
from pscrub.errors import HypothesisError, close
from pscrub.hypothesis.tree import Site, Tree


@dataclass(frozen=True, eq=False)
class Reading:
    """What a node reads and puts out when I runs on given leaves, beside the law of either under D.

    Args:
        inputs: int64 [draws], the cell of the node's inputs; -1 where D has no such inputs.
        output: int64 [draws], the block of its output; -1 where its inputs are not those of any row.
        law: float64 [cells], P(inputs of u) under D.
        output_of: int64 [cells], the output that inputs give.
        blocks: float64 [blocks], P(output of u) under D.
    """

    inputs: Tensor
    output: Tensor
    law: Tensor
    output_of: Tensor
    blocks: Tensor

    @cached_property
    def log_ratio(self) -> Tensor:
        """float64 [draws]: log of P(inputs of u) / P(output of u), -inf where D has no such inputs."""
        ratio = (self.law / self.blocks[self.output_of]).log()
        return torch.where(self.inputs >= 0, ratio[self.inputs.clamp(min=0)], -math.inf)


def inputs_partition(tree: Tree, path: str) -> Partition:
    """The partition of D by the values of a node's inputs jointly; into single rows for a leaf."""
    site = site_of(tree, path)
    if site.is_leaf:
        return Partition.finest(tree.hypothesis.data)
    # A value of the inputs of u jointly is a cell of the common refinement of their partitions; a wire of one block, as
    # out of an unimportant draw, tells nothing and is left out.
    read = [child.partition for child in tree.children(path)]
    wide = [partition for partition in read if partition.n_blocks > 1] or read[:1]
    return wide[0].refine(*wide[1:]) if len(wide) > 1 else wide[0]


def cuts(tree: Tree) -> Iterator[frozenset[str]]:
    """Every minimal cut, each as the set of nodes on the output's side of it; exponentially many in the tree's size.

    The cut's wires are given by `cut_wires`. A draw of unimportant inputs may be on that side if a reader of it is.
    """

    # The induction of Theorem 2's proof, run in all ways: a cut passes through the output of u, or has been moved up
    # through u, and then each input of u has the same choice.
    def open_at(path: str) -> Iterator[frozenset[str]]:
        yield frozenset()
        for below in itertools.product(*(tuple(open_at(child.path)) for child in tree.children(path))):
            yield frozenset((path,)).union(*below)

    free = [path for path, site in tree.sites.items() if site.claim is None]
    for claims in open_at(tree.root):
        # A draw of unimportant inputs is cut off at its datum, or at its wire, which is constant: both are minimal.
        near = [path for path in free if any(path in (tree.sites[u].given or {}).values() for u in claims)]
        for chosen in itertools.product((False, True), repeat=len(near)):
            yield claims | {path for path, taken in zip(near, chosen, strict=True) if taken}


def cut_wires(tree: Tree, opened: Collection[str]) -> tuple[str, ...]:
    """Paths of the wires that a cut crosses: outputs of the nodes beyond it, and rows of leaves on the output's side.

    Constant wires, out of unimportant draws beyond the cut, are left out. With every node on the output's side these
    are the leaves.

    Args:
        tree: the treeified hypothesis.
        opened: the nodes on the output's side.

    Raises:
        HypothesisError: an unknown path, or a node without its parent.
    """
    for path in opened:
        site = site_of(tree, path)
        if site.parent is not None and site.parent not in opened:
            raise HypothesisError(f"'{path}' cannot be on the output's side of a cut that '{site.parent}' is beyond")
    crossed = []
    # An edge is cut if the node that reads it is on the output's side and what it comes out of is not. The root is read
    # by nobody, and the datum of a leaf comes out of nothing.
    for path, site in tree.sites.items():
        beyond = site.claim is not None and (path == tree.root or site.parent in opened)
        if site.is_leaf if path in opened else beyond:
            crossed.append(path)
    return tuple(crossed)


def readings(tree: Tree, values: Mapping[str, Tensor], opened: Collection[str] | None = None) -> dict[str, Reading]:
    """path -> what each node on the output's side of a cut reads and puts out, when I runs on the cut's values.

    Args:
        tree: the treeified hypothesis.
        values: path -> int64 [draws], blocks or rows of (at least) the cut's wires.
        opened: the nodes on the output's side; all of them, the cut being the leaves, if left out.
    """
    opened = tree.sites if opened is None else opened
    weights = tree.hypothesis.data.weights
    rows = (weights > 0).nonzero().flatten()
    place = torch.full((len(weights),), -1)
    place[rows] = torch.arange(len(rows))
    wires = {path: values[path] for path in cut_wires(tree, opened)}
    read: dict[str, Reading] = {}
    for path in reversed(list(tree.sites)):
        site = tree.sites[path]
        if path not in opened:
            continue
        if site.is_leaf:
            inputs, law, first = place[wires[path]], weights[rows], rows
        else:
            inputs, law, first = _fold(tree.children(path), wires, rows, weights)
        # Well formed, u is a function of its inputs: any row of their cell has the value that I gives for it.
        labels = site.partition.labels if site.claim else torch.zeros_like(site.partition.labels)
        output_of = labels[first]
        wires[path] = torch.where(inputs >= 0, output_of[inputs.clamp(min=0)], -1)
        blocks = site.partition.block_weights if site.claim else torch.ones(1, dtype=torch.float64)
        read[path] = Reading(inputs, wires[path], law, output_of, blocks)
    return read


def _fold(
    children: Collection[Site], wires: Mapping[str, Tensor], rows: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The cell of each draw's wires among those that D has (or -1), the cells' probabilities and a row of each.

    Wire by wire, cells being numbered anew each time, so that no number exceeds N^2.
    """
    have = torch.zeros(len(rows), dtype=torch.int64)
    asked = torch.zeros(1, dtype=torch.int64)
    cells = 1
    for child in children:
        partition, wire = child.partition, wires[child.path]
        if partition.n_blocks == 1:  # constant: it tells nothing, but where I gave it no value there is none to read
            asked = torch.where(wire >= 0, asked, -1)
            continue
        known, have = torch.unique(have * partition.n_blocks + partition.labels[rows], return_inverse=True)
        wanted = torch.where((asked >= 0) & (wire >= 0), asked * partition.n_blocks + wire, -1)
        # Values that each wire can have, but never together on one row, are no cell: D pairs them otherwise.
        place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
        asked, cells = torch.where(known[place] == wanted, place, -1), len(known)
    law = torch.bincount(have, weights[rows], cells)
    first = rows[torch.full((cells,), len(rows)).scatter_reduce(0, have, torch.arange(len(rows)), "amin")]
    return asked, law, first


def site_of(tree: Tree, path: str) -> Site:
    if path not in tree.sites:
        raise HypothesisError(f"the treeified hypothesis has no site '{path}'{close(path, tree.sites)}")
    return tree.sites[path]
