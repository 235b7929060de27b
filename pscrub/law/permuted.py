"""Donors dealt out: draws whose rows are used about equally often, each draw by itself still following the law.

Within a replicate, draws whose datum comes from the same block at the same site share its rows out among themselves.
Each single draw, given its parent's datum, is distributed as in the program, so that the mean of f keeps its
expectation; what a datum explains of f by itself hardly adds to its error once a replicate has as many draws as a block
has rows. The draws of a replicate depend on one another. Replicates are independent.

Source: McKay, Beckman and Conover, A comparison of three methods for selecting values of input variables in the
analysis of output from a computer code (1979), here within each block of each site. With one block a site the variance
of the mean of n draws is at most n / (n - 1) times that of independent ones: Owen, Monte Carlo variance of scrambled
net quadrature (1997).
"""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pscrub.data.partition import Partition
from pscrub.errors import StudyError
from pscrub.hypothesis.tree import Tree
from pscrub.law.drawing import Datum, make_generator, program, stratified_rows


def draw_permuted(tree: Tree, draws: int, seed: tuple[int, ...], replicates: int) -> dict[str, Tensor]:
    """path -> int64 [draws]: rows of D, donors dealt out within each of some replicates (`Dealer.deal`).

    The generative program is the one of `draw`, and runs under a handler that says how its sites are sampled. Root data
    are drawn as there, two by two in draws / 2 strata of D; the first of a pair is of one replicate and the second of
    another, and draws that many apart as there are replicates are of the same. So replicates come in pairs too: the two
    of a pair are independent and alike, and different pairs are independent. On the CPU, so that a seed means the same
    data everywhere.

    Args:
        tree: the treeified hypothesis.
        draws: how many; a multiple of the replicates.
        seed: integers that name this set of draws; another tuple is an independent set.
        replicates: how many; even.

    Raises:
        StudyError: a negative seed, or draws that replicates cannot share.
    """
    if min(seed) < 0:
        raise StudyError(f"seed is {min(seed)}; expected 0 or more")
    if replicates < 2 or replicates % 2 or draws < 1 or draws % replicates:
        raise StudyError(
            f"{draws:,} draws and {replicates:,} replicates; expected an even number of replicates, and as many draws "
            "of each"
        )
    generator = make_generator(seed)
    root = stratified_rows(tree.seen, draws // 2, generator)
    with poutine.block(), Dealing(tree, replicates, generator):
        return program(tree)(draws, {tree.root: root})


class Dealing(Messenger):
    """A handler that samples the sites of a tree's program by dealing out the rows of their blocks.

    Args:
        tree: the treeified hypothesis.
        replicates: that the program's draws are dealt to in turn.
        generator: the source of randomness.
    """

    def __init__(self, tree: Tree, replicates: int, generator: torch.Generator) -> None:
        super().__init__()
        self.tree, self.replicates, self.generator = tree, replicates, generator
        self.dealers: dict[tuple[int, ...], Dealer] = {}

    def _pyro_sample(self, msg: Any) -> None:  # Pyro's name for what a handler does at a sample site
        law = msg["fn"]
        if isinstance(law, Datum) and law.blocks is not None and msg["value"] is None:
            read = [child.partition for child in self.tree.children(msg["name"])]
            key = tuple(id(partition) for partition in (law.partition, *read))
            if key not in self.dealers:  # many sites agree on the same, as unimportant inputs do
                self.dealers[key] = Dealer(law.partition, self.tree.whole.refine(*read))
            msg["value"] = self.dealers[key].deal(law.blocks, self.replicates, self.generator)


class Dealer:
    """Deals out the rows of blocks.

    The rows of a block lie side by side, each as long as its weight, those that `seen` does not tell apart together: so
    blocks further down are shared out evenly too, which takes fewer draws than there are rows.

    Args:
        partition: the blocks.
        seen: what the children of a site agree on with it; given that, f depends on the site's row no more.
    """

    def __init__(self, partition: Partition, seen: Partition) -> None:
        weights, labels = partition.weights, partition.labels
        rows = (weights > 0).nonzero().flatten()
        for by in (seen.labels, labels):
            rows = rows[by[rows].argsort(stable=True)]
        sizes = torch.bincount(labels[rows], minlength=partition.n_blocks)
        self.rows, self.last = rows, sizes.cumsum(0) - 1
        self.first = self.last - sizes + 1
        self.uniform = bool((weights[rows] == weights[rows[0]]).all())
        if not self.uniform:
            self.ends = weights[rows].cumsum(0)
            line = torch.cat([torch.zeros(1, dtype=torch.float64), self.ends])
            self.begins, self.weights = line[self.first], line[self.last + 1] - line[self.first]

    def deal(self, blocks: Tensor, replicates: int, generator: torch.Generator) -> Tensor:
        """int64 [draws]: a row of each draw's block, by its weight, independently for each replicate.

        A block with k draws in a replicate is cut into k pieces of equal weight. Each draw is given one, by a random
        permutation, and a random place in it: a draw's place is uniform over the block. A row of share w of its block
        is used by k w draws on average, and that is off by less than 2; with k a multiple of the rows of a block of
        equal weights, exactly k w times.

        A place of its own in each piece, rather than one for all, as what f goes up and down with from row to row would
        be met or missed by all pieces at once.

        Args:
            blocks: int64 [draws], the block of each draw.
            replicates: that the draws belong to in turn.
            generator: the source of randomness.
        """
        group = blocks + len(self.last) * (torch.arange(len(blocks)) % replicates)
        # In a random order, then by group: a draw's place among those of its group is a random permutation's.
        order = torch.rand(len(group), dtype=torch.float64, generator=generator).argsort()
        order = order[group[order].argsort(stable=True)]
        counts = torch.bincount(group, minlength=replicates * len(self.last))
        piece = torch.empty_like(order)
        piece[order] = torch.arange(len(group))
        piece -= (counts.cumsum(0) - counts)[group]
        place = (piece + torch.rand(len(group), dtype=torch.float64, generator=generator)) / counts[group]
        first, last = self.first[blocks], self.last[blocks]
        if self.uniform:
            slot = first + (place * (last - first + 1)).long()
        else:
            slot = torch.searchsorted(self.ends, self.begins[blocks] + place * self.weights[blocks], right=True)
        return self.rows[torch.minimum(torch.maximum(slot, first), last)]  # of rounding at the ends
