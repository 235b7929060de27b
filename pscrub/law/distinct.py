"""The scrubbing law of some rows of D as a sample of a population, for two hypotheses side by side.

Where D is all there is, a datum may meet its own row again (`law.drawing`). In a population it meets another of its
block. So a site's row is drawn from the rows of its block that no other site of the draw has, and the mean of f over
such draws is a U-statistic: the mean over sets of distinct rows of what distinct members of the population would give.

`law.apart` plans which sites hold one row and in which order they are drawn, which differs between hypotheses. Here
sites are drawn in the tree's order, each by numbers of its own, so that what two hypotheses have alike is drawn alike
and cancels in their difference.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.data.partition import Partition
from pscrub.hypothesis.tree import Site, Tree
from pscrub.law.apart import Spans
from pscrub.law.drawing import make_generator, stratified_rows


@dataclass(frozen=True, eq=False)
class Distinct:
    """Rows that were drawn apart.

    Args:
        data: path -> int64 [draws], the row of each site.
        complete: bool [draws], whether every site had a row left to be given; what else a draw holds means nothing.
        left: path -> int64 [draws], of how many units each was one; 0 where the parent's row was passed on.
    """

    data: Mapping[str, Tensor]
    complete: Tensor
    left: Mapping[str, Tensor]


class ApartLaw:
    """The law of a tree's rows, drawn apart from one another out of some rows of D.

    Args:
        tree: the treeified hypothesis.
        weights: float64 [N], of D's rows; 0 for those that must not be drawn.
        units: int64 [N], numbered from 0: rows of different units are independent of one another.
        carried: sites that are given their parent's own row, for any row of the block is as good there.
    """

    def __init__(self, tree: Tree, weights: Tensor, units: Tensor, carried: Collection[str] = ()) -> None:
        self.tree, self.carried, self.units = tree, frozenset(carried), units
        # In units of the least: rows that weigh the same are counted without rounding.
        self.rows = weights / weights[weights > 0].min()
        self.weights = torch.bincount(units, weights=self.rows)
        self._spans: dict[int, Spans] = {}

    def draw(self, strata: Partition, draws: int, seed: tuple[int, ...]) -> Distinct:
        """Draws whose root data lie two by two in strata; trees with the same seed and strata share random numbers.

        Args:
            strata: whose blocks lie side by side in the strata of the root's datum.
            draws: how many; even.
            seed: integers that name this set of draws; another tuple is an independent set.
        """
        within = Partition(strata.stored, self.rows)
        data = {self.tree.root: stratified_rows(within, draws // 2, make_generator((*seed, 0)))}
        complete, left = torch.ones(draws, dtype=torch.bool), dict[str, Tensor]()
        for path, site in self.tree.sites.items():
            if path == self.tree.root:
                continue
            parent = None if site.parent is None else data[site.parent]
            if path in self.carried and parent is not None:
                data[path], left[path] = parent, torch.zeros(draws, dtype=torch.int64)
                continue
            used = [self.units[rows] for other, rows in data.items() if other not in self.carried]
            # A generator for each path: sites of one path take the same numbers, whatever sites a tree has besides.
            source = make_generator((*seed, 1 + zlib.crc32(path.encode())))
            uniform = torch.rand(draws, dtype=torch.float64, generator=source)
            spans, blocks = self._block_of(site, data, draws)
            rows, weight, left[path] = spans.pick(blocks, used, source, uniform)
            data[path] = torch.where(weight > 0, rows, data[self.tree.root])
            complete &= weight > 0
        return Distinct(data, complete, left)

    def score(self, drawn: Distinct, factor: Tensor) -> Tensor:
        """float64 [units]: the sum over draws of a factor times d log p / d log w of each unit, p the law of the draw.

        A site's row is drawn by weight from what is left of its block: [unit = k] - [k was left] w_k / weight left.

        Args:
            drawn: from this law.
            factor: float64 [draws]; draws that are not complete count for nothing.
        """
        factor = torch.where(drawn.complete, factor, 0.0)
        root = self.units[drawn.data[self.tree.root]]
        out = torch.bincount(root, weights=factor, minlength=len(self.weights))
        out -= self.weights * (factor.sum() / self.weights.sum())
        earlier = [root]
        for path, site in self._drawing():
            spans, blocks = self._block_of(site, drawn.data, len(factor))
            owns = [spans.find(blocks, unit)[1] for unit in earlier]
            remains = spans.block_totals[blocks] - torch.stack(owns).sum(0)
            share = torch.where(drawn.complete, factor / remains, 0.0)
            mine = self.units[drawn.data[path]]
            out += torch.bincount(mine, weights=factor, minlength=len(out))
            of_block = torch.bincount(blocks, weights=share, minlength=spans.partition.n_blocks)
            of_row = of_block[spans.partition.labels] * spans.weights
            out -= torch.bincount(self.units, weights=of_row, minlength=len(out))
            for unit, own in zip(earlier, owns, strict=True):  # what was taken was not left
                out += torch.bincount(unit, weights=share * own, minlength=len(out))
            earlier.append(mine)
        return out

    def _block_of(self, site: Site, data: Mapping[str, Tensor], draws: int) -> tuple[Spans, Tensor]:
        """What a site's rows are drawn from, and int64 [draws] the block of each."""
        partition = self.tree.whole if site.parent is None else site.partition
        if id(partition) not in self._spans:
            self._spans[id(partition)] = Spans(Partition(partition.stored, self.rows), self.units)
        if site.parent is None:
            return self._spans[id(partition)], torch.zeros(draws, dtype=torch.int64)
        return self._spans[id(partition)], partition.labels_of(data[site.parent])

    def _drawing(self) -> Iterator[tuple[str, Site]]:
        """The sites below the root that draw rows of their own."""
        for path, site in self.tree.sites.items():
            if path != self.tree.root and not (path in self.carried and site.parent is not None):
                yield path, site
