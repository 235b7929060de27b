"""The scrubbing law of the population that rows are a sample of: no row of D stands twice in one draw.

Where D is all there is, a datum may meet its own row again (`law.drawing`). In a population it meets another of its
block. So a site's row is drawn from the rows of its block that no other site of the draw has, and the mean of f over
such draws is a U-statistic: the mean over sets of distinct rows of what distinct members of the population would give.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pscrub.data.partition import Partition
from pscrub.hypothesis.tree import Site, Tree
from pscrub.law.drawing import stratified_rows


@dataclass(frozen=True, eq=False)
class Distinct:
    """Rows that were drawn apart.

    Args:
        data: path -> int64 [draws], the row of each site.
        complete: bool [draws], whether every site had a row left to be given; what else a draw holds means nothing.
        left: path -> int64 [draws], of how many rows each was one; 0 where the parent's row was passed on.
    """

    data: Mapping[str, Tensor]
    complete: Tensor
    left: Mapping[str, Tensor]


class ApartLaw:
    """The law of a tree's rows, drawn apart from one another out of some rows of D.

    Args:
        tree: the treeified hypothesis.
        weights: float64 [N], of D's rows; 0 for those that must not be drawn.
        carried: sites that are given their parent's own row, for any row of the block is as good there.
    """

    def __init__(self, tree: Tree, weights: Tensor, carried: Collection[str] = ()) -> None:
        self.tree, self.carried = tree, frozenset(carried)
        # Weights in units of the least: rows that weigh the same are counted without rounding.
        self.weights = weights / weights[weights > 0].min()
        self._ranks: dict[int, _Ranks] = {}

    def draw(self, strata: Partition, draws: int, seed: tuple[int, ...]) -> Distinct:
        """Draws whose root data lie two by two in strata; trees with the same seed and strata share random numbers.

        Args:
            strata: whose blocks lie side by side in the strata of the root's datum.
            draws: how many; even.
            seed: integers that name this set of draws; another tuple is an independent set.
        """
        within = Partition(strata.stored, self.weights)
        data = {self.tree.root: stratified_rows(within, draws // 2, _make_generator((*seed, 0)))}
        complete, left = torch.ones(draws, dtype=torch.bool), dict[str, Tensor]()
        for path, site in self._below:
            parent = None if site.parent is None else data[site.parent]
            if path in self.carried and parent is not None:
                data[path], left[path] = parent, torch.zeros(draws, dtype=torch.int64)
                continue
            used = torch.stack([rows for other, rows in data.items() if other not in self.carried])
            # A generator for each path: sites of one path take the same numbers, whatever sites a tree has besides.
            source = _make_generator((*seed, 1 + zlib.crc32(path.encode())))
            uniform = torch.rand(draws, dtype=torch.float64, generator=source)
            data[path], left[path] = self._rank(path).pick(parent, used, uniform)
            complete &= left[path] > 0
        return Distinct(data, complete, left)

    def score(self, drawn: Distinct, factor: Tensor) -> Tensor:
        """float64 [N]: the sum over draws of a factor times d log p / d log w of each row, p the law of the draw.

        As in `estimate.gradients`, for a site's row is drawn by weight from what is left of its block.

        Args:
            drawn: from this law.
            factor: float64 [draws]; draws that are not complete count for nothing.
        """
        factor = torch.where(drawn.complete, factor, 0.0)
        out = torch.zeros_like(self.weights)
        out.index_add_(0, drawn.data[self.tree.root], factor)
        out -= self.weights * (factor.sum() / self.weights.sum())
        earlier = [drawn.data[self.tree.root]]
        for path, site in self._below:
            if path in self.carried and site.parent is not None:
                continue
            parent = None if site.parent is None else drawn.data[site.parent]
            self._rank(path).add_score(out, drawn.data[path], parent, torch.stack(earlier), factor)
            earlier.append(drawn.data[path])
        return out

    def _rank(self, path: str) -> _Ranks:
        site = self.tree.sites[path]
        partition = self.tree.whole if site.parent is None else site.partition
        if id(partition) not in self._ranks:
            self._ranks[id(partition)] = _Ranks.of(partition, self.weights)
        return self._ranks[id(partition)]

    @cached_property
    def _below(self) -> tuple[tuple[str, Site], ...]:
        return tuple((path, site) for path, site in self.tree.sites.items() if path != self.tree.root)


@dataclass(frozen=True, eq=False)
class _Ranks:
    """Rows of positive weight side by side, block by block, on a line that each takes its weight of.

    Args:
        labels: int64 [N].
        weights: float64 [N].
        rows: int64 [M], along the line.
        ends: float64 [M], where each row's piece ends.
        begins: float64 [N], where a row's piece begins; NaN for rows of weight 0.
        spans: float64 [blocks, 2], where a block begins and how much it weighs.
        sizes: int64 [blocks], rows of positive weight.
    """

    labels: Tensor
    weights: Tensor
    rows: Tensor
    ends: Tensor
    begins: Tensor
    spans: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, partition: Partition, weights: Tensor) -> _Ranks:
        labels = partition.labels
        positive = (weights > 0).nonzero().flatten()
        rows = positive[torch.sort(labels[positive], stable=True)[1]]
        own = weights[rows]
        ends = own.cumsum(0)
        begins = torch.full_like(weights, torch.nan)
        begins[rows] = ends - own
        sizes = torch.bincount(labels[positive], minlength=partition.n_blocks)
        last = sizes.cumsum(0)
        line = torch.cat([torch.zeros(1, dtype=torch.float64), ends])
        start, stop = line[last - sizes], line[last]
        return cls(labels, weights, rows, ends, begins, torch.stack([start, stop - start], 1), sizes)

    def pick(self, parent: Tensor | None, used: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Two int64 [draws]: a row of each parent's block (of all rows) that is not used, and how many there were."""
        block = torch.zeros(len(uniform), dtype=torch.int64) if parent is None else self.labels[parent]
        start, weight = self.spans[block].unbind(-1)
        inside = self.labels[used] == block
        left = self.sizes[block] - inside.sum(0)
        taken = torch.where(inside, self.weights[used], 0.0)
        place = start + uniform * (weight - taken.sum(0)).clamp(min=0)
        # One uniform number a row: a place among what is left, moved past each used row that lies at or before it.
        before, order = torch.where(inside, self.begins[used], torch.inf).sort(0)
        for begins, own in zip(before, taken.gather(0, order), strict=True):
            place = torch.where(place >= begins, place + own, place)
        found = torch.searchsorted(self.ends, place, right=True).clamp(max=len(self.rows) - 1)
        picked = self.rows[found]
        return torch.where(left > 0, picked, used[0]), left

    def add_score(self, out: Tensor, rows: Tensor, parent: Tensor | None, used: Tensor, factor: Tensor) -> None:
        """Add to [N] the sum over draws of factor times ([row = k] - [k was left] w_k / weight left)."""
        block = torch.zeros(len(rows), dtype=torch.int64) if parent is None else self.labels[parent]
        taken = torch.where(self.labels[used] == block, self.weights[used], 0.0)
        remains = self.spans[block, 1] - taken.sum(0)
        share = torch.where(remains > 0, factor / remains, 0.0)
        out.index_add_(0, rows, torch.where(remains > 0, factor, 0.0))
        of_block = torch.zeros(len(self.sizes), dtype=torch.float64).index_add_(0, block, share)
        out -= self.weights * of_block[self.labels]
        for row, own in zip(used, taken, strict=True):
            out.index_add_(0, row, share * own)


def _make_generator(seed: tuple[int, ...]) -> torch.Generator:
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))
