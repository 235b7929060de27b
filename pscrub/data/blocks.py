"""Tables of the rows of each block: how a row is drawn from a block with one uniform number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Labels = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class BlockTable:
    """Rows sorted by block, with an alias table in each block: one uniform number picks a row in O(1).

    Walker's alias method: a uniform number chooses a slot of the block and whether to take the slot's own row or its
    alias. Blocks of equal weights need no aliases.

    Args:
        rows: int32 [M] (int64 past 2^31 rows), the rows of positive weight, block by block.
        spans: int64 [blocks, 2], each block's first slot and number of slots.
        keep: float64 [M], the share of a slot that is its own row's; None if every block is uniform.
        alias: int64 [M], the slot that has the rest.
    """

    rows: Tensor
    spans: Tensor
    keep: Tensor | None = None
    alias: Tensor | None = None

    @classmethod
    def of(cls, labels: Tensor, weights: Tensor) -> BlockTable:
        """The table of a partition, in one sort.

        Args:
            labels: integers [N], the block of each row, numbered from 0.
            weights: float64 [N], the law of a row.
        """
        blocks = int(labels.max()) + 1
        least, most = weights.aminmax()
        if bool(least > 0):
            sizes, rows = torch.bincount(labels, minlength=blocks), _sort(labels)
        else:
            positive = (weights > 0).nonzero().flatten()
            sizes = torch.bincount(labels[positive], minlength=blocks)
            rows = positive[_sort(labels[positive])]
        spans = torch.stack([sizes.cumsum(0) - sizes, sizes], 1)
        kind = torch.int32 if len(weights) < 2**31 else torch.int64
        if bool(least == most):
            return cls(rows.to(kind), spans)
        labels, block_weights = labels.long()[rows], torch.bincount(labels, weights, blocks)
        share = weights[rows] * sizes[labels] / block_weights[labels]  # mean 1 in each block
        # A block's weight is a sum over its rows, whose rounding grows with them and shifts all of its shares alike. It
        # must neither leave a block without a slot of share 1 or more, nor make uniform blocks look weighted.
        share /= 1 + (torch.bincount(labels, share - 1, blocks) / sizes)[labels]
        share[(share - 1).abs() < 1e-14] = 1.0
        if bool((share >= 1).all()):
            return cls(rows.to(kind), spans)
        keep, alias = _aliases(share.numpy(), labels.numpy())
        return cls(rows.to(kind), spans, torch.from_numpy(keep), torch.from_numpy(alias))

    @property
    def bytes(self) -> int:
        """What the table takes."""
        return sum(t.nbytes for t in (self.rows, self.spans, self.keep, self.alias) if t is not None)

    def to(self, device: torch.device | str) -> BlockTable:
        """The table on a device."""
        moved = (None if t is None else t.to(device) for t in (self.rows, self.spans, self.keep, self.alias))
        return BlockTable(*moved)  # type: ignore[arg-type]

    def pick(self, blocks: Tensor, uniform: Tensor) -> Tensor:
        """int64 [...]: the row of each block that a uniform number in [0, 1) stands for.

        Args:
            blocks: int64 [...], blocks of positive weight.
            uniform: float64 [...]; float32 has too few steps for large blocks.
        """
        start, size = (self.spans[0] if len(self.spans) == 1 else gather(self.spans, blocks)).unbind(-1)
        x = uniform * size
        k = x.long()  # below size: the largest uniform is 1 - 2^-53, and a product with it rounds down
        slot = start + k
        if self.keep is not None and self.alias is not None:
            slot = torch.where(x - k < gather(self.keep, slot), slot, gather(self.alias, slot))
        return gather(self.rows, slot).long()


def _sort(labels: Tensor) -> Tensor:
    """int64: the places of labels in ascending order, equal ones as they stand; small types are sorted by counting."""
    if labels.element_size() <= 2:
        return torch.from_numpy(np.argsort(labels.numpy(), kind="stable"))
    return torch.sort(labels, stable=True)[1]


def gather(values: Tensor, index: Tensor) -> Tensor:
    """`values[index]`, [*index.shape, *values.shape[1:]]: measured to take a third of that on a CPU."""
    return values.index_select(0, index.reshape(-1)).reshape(*index.shape, *values.shape[1:])


def _aliases(share: np.ndarray[Any, Any], labels: Labels) -> tuple[np.ndarray[Any, Any], Labels]:
    """Alias tables of all blocks at once, slots being sorted by block and `share` having mean 1 in each.

    In a block, slots with share below 1 are filled one after another from the slots above 1, each used until it falls
    below 1 and is itself filled by the next. Who fills whom follows from where the running totals of what is lacking
    and of what is spare cross, so no loop over slots is needed. The totals of a block agree at its end, so one
    running total serves all blocks; rounding is kept within the block by clamping.
    """
    light = share < 1
    small, large = np.flatnonzero(light), np.flatnonzero(~light)
    lacking, spare = np.cumsum(1 - share[small]), np.cumsum(share[large] - 1)
    first = np.searchsorted(labels[large], labels)  # each slot's block's first and last large slot
    last = np.searchsorted(labels[large], labels, side="right") - 1
    keep, alias = share.copy(), np.arange(len(share))
    before = np.concatenate([[0.0], lacking[:-1]])
    filler = np.clip(np.searchsorted(spare, before, side="right"), first[small], last[small])
    alias[small] = large[filler]
    crossing = np.searchsorted(lacking, spare)  # the slot whose filling takes a large one below 1
    within = crossing < np.searchsorted(labels[small], labels[large], side="right")
    crossing = np.minimum(crossing, len(lacking) - 1)
    over = np.where(within & (before[crossing] < spare), lacking[crossing] - spare, 0.0)
    is_last = np.arange(len(large)) == last[large]
    keep[large] = np.where(is_last, 1.0, np.clip(1 - over, 0.0, 1.0))
    alias[large] = np.where(is_last, large, large[np.minimum(np.arange(len(large)) + 1, len(large) - 1)])
    return keep, alias
