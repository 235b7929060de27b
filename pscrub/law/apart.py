"""The scrubbing law of the population that D is a sample of: sites that are drawn apart hold different rows.

Independent draws from a population are different rows of its sample; draws from D repeat rows, and a repeated row makes
scrubbed inputs more alike than the population would. So each draw gives every place of the tree a row of its own: f's
mean over such draws is a U-statistic, in place of D's plug-in value. `plan_places` says which sites share one row
whatever the sample is, and in which order rows are taken; `draw_apart` takes them.

The order decides whether rows that are left out tilt what is left. Rows are taken coarse partitions first: given how
many rows each block has, rows within it are independent, and what was taken before was taken by labels that are
coarser. So where the partitions are nested the mean is unbiased, block by block, as far as the blocks have rows enough;
else up to what a ratio of sample means is off by. Where weights vary within a block, rows are drawn in proportion to
the weights of those left, which is such a ratio too: off by the covariance of weight and f over the rows of a block.

Source: Hoeffding, A class of statistics with asymptotically normal distribution (1948).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pscrub.data.partition import Partition
from pscrub.hypothesis.claim import is_exact
from pscrub.hypothesis.tree import Site, Tree
from pscrub.law.drawing import make_generator, stratified_rows

AGAIN = 1000
"""Times that a row is drawn anew which rounding put outside its block, or on a row that was taken."""


class Spans:
    """Rows sorted by block, and in each block by unit, with running totals of their weights: what can be left out.

    Args:
        partition: of D.
        units: int64 [N], the unit of each row: rows of different units are independent.
    """

    def __init__(self, partition: Partition, units: Tensor) -> None:
        self.partition, self.units, self.count = partition, units, int(units.max()) + 1
        rows = (partition.weights > 0).nonzero().flatten()
        keys, order = (partition.labels_of(rows) * self.count + units[rows]).sort(stable=True)
        self.rows = rows[order]
        weights = partition.weights[self.rows]
        # Equal weights count as 1, so that totals are whole numbers, and exact.
        equal = bool((weights == weights[0]).all())
        self.weights = (partition.weights > 0).double() if equal else partition.weights / weights.max()
        totals = torch.cat([torch.zeros(1, dtype=torch.float64), self.weights[self.rows].cumsum(0)])
        self.keys, sizes = keys.unique_consecutive(return_counts=True)
        self.ends, ends = totals[1:], sizes.cumsum(0)
        self.starts, self.widths = totals[ends - sizes], totals[ends] - totals[ends - sizes]
        blocks = torch.arange(partition.n_blocks)
        first, last = (torch.searchsorted(keys, (blocks + k) * self.count) for k in (0, 1))
        self.block_starts, self.block_totals = totals[first], totals[last] - totals[first]
        self.block_units = torch.bincount(self.keys // self.count, minlength=partition.n_blocks)

    def find(self, blocks: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
        """Two float64 of the broadcast shape: where a unit's rows begin in a block, and what they weigh; inf and 0."""
        key = blocks * self.count + units
        at = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        there = self.keys[at] == key
        return torch.where(there, self.starts[at], torch.inf), torch.where(there, self.widths[at], 0.0)

    def pick(
        self, blocks: Tensor, taken: Sequence[Tensor], generator: torch.Generator, uniform: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[draws] each: a row of each block, in proportion to weight; the weight, and the units, left to it.

        Args:
            blocks: int64 [draws].
            taken: int64 [draws] each, units that are left out; a weight of 0 says that no other unit was left.
            generator: the source of randomness.
            uniform: float64 [draws], numbers to begin with, one a draw, in place of the generator's one after another.
        """
        left, there = self.block_totals[blocks], self.block_units[blocks]
        starts, widths = torch.empty(0, len(blocks), dtype=torch.float64), torch.empty(0, 0)
        if taken:
            starts, widths = (torch.stack(each) for each in zip(*(self.find(blocks, u) for u in taken), strict=True))
            starts, order = starts.sort(0)
            widths = widths.gather(0, order)
            left, there = left - widths.sum(0), there - (widths > 0).sum(0)
        left = torch.where(there > 0, left, 0.0)
        rows = torch.zeros_like(blocks)
        wanted = (left > 0).nonzero().flatten()
        for _ in range(AGAIN):
            if not len(wanted):
                break
            if uniform is None:
                place = torch.rand(len(wanted), dtype=torch.float64, generator=generator)
            else:
                place, uniform = uniform[wanted], None
            place = place * left[wanted] + self.block_starts[blocks[wanted]]
            for start, width in zip(starts, widths, strict=True):  # what was taken is stepped over
                place = torch.where(place >= start[wanted], place + width[wanted], place)
            found = self.rows[torch.searchsorted(self.ends, place, right=True).clamp(max=len(self.rows) - 1)]
            rows[wanted] = found
            wrong = self.partition.labels_of(found) != blocks[wanted]
            for unit in taken:
                wrong |= self.units[found] == unit[wanted]
            wanted = wanted[wrong]
        left[wanted] = 0.0
        return rows, left, torch.where(left > 0, there, 0)


@dataclass(frozen=True, eq=False)
class Place:
    """Sites that hold one row, whatever the sample: what is drawn once.

    Args:
        sites: their paths.
        partition: of the block that the row is drawn from.
        source: the place, by number, whose row says which block; None where it is drawn from all of D.
    """

    sites: tuple[str, ...]
    partition: Partition
    source: int | None


@dataclass(frozen=True, eq=False)
class Places:
    """The places of a tree, in the order in which rows are taken.

    Args:
        tree: the treeified hypothesis.
        places: the first holds the root's row.
        units: int64 [N], numbered from 0: rows of different units are independent of one another.
        spans: of each place.
    """

    tree: Tree
    places: tuple[Place, ...]
    units: Tensor
    spans: tuple[Spans, ...]


@dataclass(frozen=True, eq=False)
class Apart:
    """Draws in which no unit is in two places.

    Args:
        rows: int64 [places, draws].
        blocks: int64 [places, draws], which each row was drawn from.
        left: float64 [places, draws], the weight of what the row was drawn from, as a place's `spans` weigh rows.
        known: bool [draws], whether there was a row left for every place; what is drawn elsewhere means nothing.
        places: the plan.
    """

    rows: Tensor
    blocks: Tensor
    left: Tensor
    known: Tensor
    places: Places

    def data(self) -> dict[str, Tensor]:
        """path -> int64: every site's rows, of the draws that are known."""
        rows = self.rows[:, self.known]
        return {path: rows[i] for i, place in enumerate(self.places.places) for path in place.sites}


def draw_apart(places: Places, draws: int, seed: tuple[int, ...]) -> Apart:
    """Rows for every place, different places' of different units; root data two by two from equally likely strata.

    Costs O(draws) for each pair of places. The numbers are other ones than those of `draw` with the same seed.

    Args:
        places: the plan.
        draws: how many; even.
        seed: integers that name this set of draws.
    """
    generator = make_generator((*seed, 0, 0, 1))
    rows: list[Tensor] = []
    blocks, left = [], []
    for place, spans in zip(places.places, places.spans, strict=True):
        if not rows:
            rows.append(stratified_rows(places.tree.seen, draws // 2, generator))
            blocks.append(torch.zeros(draws, dtype=torch.int64))
            left.append(spans.block_totals[blocks[0]])
            continue
        held = rows[place.source or 0]
        blocks.append(place.partition.labels_of(held) * (place.source is not None))
        found, own, _ = spans.pick(blocks[-1], [places.units[each] for each in rows], generator)
        rows.append(torch.where(own > 0, found, held))
        left.append(own)
    weights = torch.stack(left)
    return Apart(torch.stack(rows), torch.stack(blocks), weights, (weights > 0).all(0), places)


def plan_places(tree: Tree, units: Tensor) -> Places:
    """Which sites of a tree hold one row in any sample, and in which order rows are taken.

    One row is held by a site and its parent where the claim pins it ("exact"), where all that is read of the site is a
    column that its claim determines, and where the datum of one of them is read through blocks alone, none finer than
    what the two agree on: then nothing depends on which row of the block it is.

    Args:
        tree: the treeified hypothesis.
        units: int64 [N], see `data.partition.number_units`.
    """
    groups = _tie(tree)
    first = next(group for group in groups if tree.root in group.sites)
    # Away from the root: of each group the edge to the one that it is drawn given.
    above: dict[int, _Edge] = {}
    waiting = [first]
    while waiting:
        group = waiting.pop()
        for each in group.edges:
            if each is not above.get(id(group)):
                above[id(each.other(group))] = each
                waiting.append(each.other(group))
    number: dict[int, int] = {}
    places: list[Place] = []

    def source_of(group: _Group) -> _Group | None:
        """The farthest group on the way to the root that is sure to be in the block that this one is drawn from."""
        edge = above.get(id(group))
        if edge is None:
            return None
        other = edge.other(group)
        while (further := above.get(id(other))) is not None and _refines(further.partition, edge.partition):
            other = further.other(other)
        return other

    after: dict[int | None, list[int]] = {}
    for i, group in enumerate(groups):
        source = source_of(group)
        after.setdefault(None if source is None else id(source), []).append(i)
    ready: list[tuple[float, int]] = []

    def push(those: Sequence[int]) -> None:
        for i in those:
            edge = above.get(id(groups[i]))
            heapq.heappush(ready, (-1.0 if edge is None else edge.partition.entropy, i))

    number[id(first)] = 0
    places.append(Place(tuple(first.sites), tree.whole, None))
    push([i for i in after.get(None, []) if groups[i] is not first])
    push(after.get(id(first), []))
    while ready:
        group = groups[heapq.heappop(ready)[1]]
        source, edge = source_of(group), above.get(id(group))
        partition = tree.whole if edge is None else edge.partition
        places.append(Place(tuple(group.sites), partition, None if source is None else number[id(source)]))
        number[id(group)] = len(places) - 1
        push(after.get(id(group), []))
    made: dict[int, Spans] = {}
    spans = [made.setdefault(id(p), Spans(p, units)) for p in (place.partition for place in places)]
    return Places(tree, tuple(places), units, tuple(spans))


@dataclass(eq=False)
class _Group:
    """Sites that hold one row, while places are planned.

    `read` says that f depends on which row it is; `seen` lists partitions whose block of it f depends on anyhow.
    """

    sites: list[str]
    read: bool
    seen: list[Partition] = field(default_factory=list)
    edges: list[_Edge] = field(default_factory=list)


@dataclass(eq=False)
class _Edge:
    """Two groups that agree on a partition."""

    ends: list[_Group]
    partition: Partition

    def other(self, group: _Group) -> _Group:
        return self.ends[1] if self.ends[0] is group else self.ends[0]


def _tie(tree: Tree) -> list[_Group]:
    """The groups, with what they agree on; what can be put together is."""
    of: dict[str, _Group] = {}
    groups: list[_Group] = []
    for path, site in tree.sites.items():
        parent = None if site.parent is None else of[site.parent]
        if parent is not None and _is_pinned(site):
            parent.sites.append(path)
            parent.read |= site.is_leaf
            of[path] = parent
        elif parent is not None and _is_told(tree, site):
            parent.sites.append(path)
            parent.seen.append(site.partition)
            of[path] = parent
        else:
            of[path] = _Group([path], site.is_leaf)
            groups.append(of[path])
            if parent is not None:
                edge = _Edge([parent, of[path]], site.partition)
                parent.edges.append(edge)
                of[path].edges.append(edge)
    while _put_two_together(groups):
        pass
    return groups


def _put_two_together(groups: list[_Group]) -> bool:
    """Whether groups whose row nothing reads could be put together with another, those farthest from the root first."""
    changed = False
    for group in reversed(list(groups)):
        if group.read or not group.edges:
            continue
        finest = max(group.edges, key=lambda edge: edge.partition.n_blocks)
        told = [*group.seen, *(edge.partition for edge in group.edges if edge is not finest)]
        if not all(_refines(finest.partition, each) for each in told):
            continue
        other = finest.other(group)
        other.sites += group.sites
        other.seen += group.seen
        other.edges.remove(finest)
        for edge in group.edges:
            if edge is not finest:
                edge.ends[edge.ends.index(group)] = other
                other.edges.append(edge)
        groups.remove(group)
        changed = True
    return changed


def _is_pinned(site: Site) -> bool:
    """Whether the hypothesis says that the datum is its parent's own, or its reader's."""
    if site.claim is not None:
        return is_exact(site.claim)
    return site.partition.n_blocks == len(site.partition.stored)


def _is_told(tree: Tree, site: Site) -> bool:
    """Whether all that is read of a site is a column that the block of its datum determines."""
    columns = tree.hypothesis.data.columns
    if site.claim is None or not site.is_leaf or site.claim.at not in columns:
        return False
    column, possible = columns[site.claim.at], site.partition.weights > 0
    first = site.partition.first_rows[site.partition.labels]
    if isinstance(column, Tensor):
        return torch.equal(column[possible], column[first[possible]])
    return bool((column[possible.numpy()] == column[first[possible].numpy()]).all())


def _refines(fine: Partition, coarse: Partition) -> bool:
    return fine is coarse or coarse.n_blocks == 1 or (coarse.n_blocks <= fine.n_blocks and fine.refines(coarse))
