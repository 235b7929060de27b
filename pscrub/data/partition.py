"""A partition of D: which rows a claim holds to be alike, and the draw of a row from a block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from pscrub.data.blocks import BlockTable, Labels, gather
from pscrub.data.dataset import Column, Dataset
from pscrub.errors import DatasetError

_KINDS = (torch.uint8, torch.int16, torch.int32, torch.int64)


class Partition:
    """Rows of D in blocks: rows of one block are claimed to be interchangeable.

    Blocks are numbered by their first row, so equal partitions have equal labels. Entropies are in nats and weigh rows
    by D; rows of weight zero belong to blocks and count for nothing else. Immutable; labels are stored in as few bytes
    as they take, for there may be thousands of claims on many rows.

    Args:
        labels: int64 [N], the block of each row.
        weights: float64 [N], the law of a row.
        columns: of the dataset that it was made on, by which `read_feature` knows another one's rows; no part of what
            it is, and None where labels were given by hand.

    >>> data = Dataset({"x": torch.arange(6)}, weights=[1, 1, 1, 1, 2, 2])
    >>> parity = Partition.of(data["x"] % 2, data)
    >>> parity.n_blocks, parity.block_weights.tolist()
    (2, [0.5, 0.5])
    """

    def __init__(self, labels: Tensor, weights: Tensor, columns: Mapping[str, Column] | None = None) -> None:
        self.n_blocks: int = int(labels.max()) + 1
        """The number of blocks, those of weight zero included."""
        self.stored = labels.to(next(kind for kind in _KINDS if self.n_blocks - 1 <= torch.iinfo(kind).max))
        """[N]: the labels in the smallest type that holds them."""
        self.weights, self.columns = weights, columns

    @property
    def labels(self) -> Tensor:
        """int64 [N], the block of each row."""
        return self.stored.long()

    def labels_of(self, rows: Tensor) -> Tensor:
        """int64, of the shape of `rows`: the blocks that rows are in."""
        return gather(self.stored, rows).long()

    @classmethod
    def of(cls, feature: Any, data: Dataset, name: str = "feature") -> Partition:
        """The partition of D by the exact value of a feature.

        Args:
            feature: [N] or [N, k] of ints, bools, strings or floats: tensor, array or list.
            data: D.
            name: what to call the feature in errors.

        Raises:
            DatasetError: a wrong shape, NaN, or values that cannot be compared.
        """
        values = _values(feature, data.n, name)
        labels = np.zeros(data.n, dtype=np.int64) if values.shape[1] == 0 else _number(values[:, 0])
        for column in values.T[1:]:
            labels = _number(_combine(labels, _number(column)))
        return cls(torch.from_numpy(labels), data.weights, data.columns)

    @classmethod
    def trivial(cls, data: Dataset) -> Partition:
        """All rows in one block: any row will do ("unimportant")."""
        return cls(torch.zeros(data.n, dtype=torch.int64), data.weights, data.columns)

    @classmethod
    def finest(cls, data: Dataset) -> Partition:
        """Every row its own block: nothing may be swapped ("exact")."""
        return cls(torch.arange(data.n), data.weights, data.columns)

    @cached_property
    def sizes(self) -> Tensor:
        """int64 [blocks]: rows of positive weight in each block."""
        possible = self.weights > 0
        return torch.bincount(self.stored if bool(possible.all()) else self.stored[possible], minlength=self.n_blocks)

    @cached_property
    def first_rows(self) -> Tensor:
        """int64 [blocks]: the first row of positive weight in each block; row 0 where a block has none."""
        rows = (self.weights > 0).nonzero().flatten()
        none = len(self.labels)
        first = torch.full((self.n_blocks,), none).scatter_reduce(0, self.labels[rows], rows, "amin")
        return torch.where(first < none, first, 0)

    @cached_property
    def block_weights(self) -> Tensor:
        """float64 [blocks]: the probability of each block under D."""
        return torch.bincount(self.stored, weights=self.weights, minlength=self.n_blocks)

    @cached_property
    def entropy(self) -> float:
        """The entropy of the block of a row of D, in nats."""
        p = self.block_weights[self.block_weights > 0]
        return max(float(-(p * p.log()).sum()), 0.0)  # a block of weight 1 may have one of 1 + 2e-16

    @cached_property
    def table(self) -> BlockTable:
        """The table from which rows are drawn within blocks."""
        return BlockTable.of(self.stored, self.weights)

    @cached_property
    def edges(self) -> Tensor | None:
        """float64 [M]: the running total of the weights of the table's rows; None if they weigh the same."""
        weights = gather(self.weights, self.table.rows)
        return None if bool((weights == weights[0]).all()) else weights.cumsum(0)

    def refine(self, *others: Partition) -> Partition:
        """The common refinement: rows are alike where every one of the partitions says so."""
        labels, first = self.labels.numpy(), _first(self.labels.numpy())
        for other in dict.fromkeys(others):
            if len(first) == len(labels):  # no two rows are alike
                break
            told = other.stored.numpy()
            if not np.array_equal(told[first][labels], told):  # else it says nothing new, which is quick to see
                labels = _number(_combine(labels, told.astype(np.int64)))
                first = _first(labels)
        return Partition(torch.from_numpy(labels), self.weights, self.columns)

    def coarsen(self, *others: Partition) -> Partition:
        """The finest common coarsening: rows are alike where a chain of the partitions' blocks links them."""
        labels = self.labels.numpy()
        for other in others:
            n = int(labels.max()) + 1
            shape = (n + other.n_blocks,) * 2
            edges = coo_array((np.ones(len(labels), dtype=np.int8), (labels, other.labels.numpy() + n)), shape=shape)
            component = connected_components(edges, directed=False)[1]
            labels = _number(component[labels].astype(np.int64))
        return Partition(torch.from_numpy(labels), self.weights, self.columns)

    def refines(self, other: Partition) -> bool:
        """Whether each block lies within a block of the other, on rows of positive weight."""
        return self.split_pair(other) is None

    def split_pair(self, other: Partition) -> tuple[int, int] | None:
        """Two rows of positive weight that are alike here and not in the other partition, if there are any."""
        rows = (self.weights > 0).nonzero().flatten()
        first = self.first_rows[self.labels_of(rows)]
        bad = (gather(other.stored, first) != gather(other.stored, rows)).nonzero().flatten()[:1]
        return (int(first[bad]), int(rows[bad])) if len(bad) else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Partition) and (self is other or torch.equal(self.stored, other.stored))

    def __hash__(self) -> int:
        return hash((self.n_blocks, self.stored[:64].numpy().tobytes()))

    def __repr__(self) -> str:
        low, high = int(self.sizes.min()), int(self.sizes.max())
        rows = f"{low:,} rows" if low == high else f"{low:,} to {high:,} rows"
        return f"Partition({self.n_blocks:,} block{'s' * (self.n_blocks != 1)} of {rows})"


def _values(feature: Any, n: int, name: str) -> np.ndarray[Any, Any]:
    """The feature as an array [N, k] whose columns can be compared exactly."""
    try:
        if isinstance(feature, Tensor):
            wide = feature.float() if feature.is_floating_point() and feature.dtype.itemsize < 4 else feature
            array = wide.detach().cpu().numpy()  # numpy knows no bfloat16; widening is exact
        else:
            array = np.asarray(feature)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{name}: expected a tensor, an array or a list of values, one per row; {error}") from error
    if array.shape[:1] != (n,) or array.ndim > 2:
        raise DatasetError(f"{name} has shape {array.shape}; expected ({n},) or ({n}, k): one value or vector per row")
    if array.dtype.kind == "f":
        bad = np.isnan(array.reshape(n, -1)).any(1)
        if bad.any():
            where = int(np.flatnonzero(bad)[0])
            raise DatasetError(f"{name} is NaN at {int(bad.sum())} of {n} rows, e.g. row {where}; NaN equals nothing")
        array = array + 0.0  # -0.0 equals 0.0
    elif array.dtype.kind == "O":
        array = array.astype(str) if all(isinstance(v, str) for v in array.flat) else array
    elif array.dtype.kind in "US" and isinstance(feature, list | tuple):
        # numpy has made strings of any numbers among them, so that 1 would equal "1".
        kinds = {isinstance(value, str | bytes) for value in np.asarray(feature, dtype=object).flat}
        if False in kinds:
            raise DatasetError(f"{name} mixes strings with other values; expected one kind")
    if array.dtype.kind not in "biufUS":
        raise DatasetError(f"{name} holds {array.dtype} values; expected ints, bools, strings or floats")
    return array.reshape(n, -1)


def _first(labels: Labels) -> Labels:
    """The first row of each block."""
    first = np.empty(int(labels.max()) + 1, dtype=np.int64)
    first[labels[::-1]] = np.arange(len(labels))[::-1]  # of what is written to one place the last stays
    return first


def _combine(a: Labels, b: Labels) -> Labels:
    return a * (int(b.max()) + 1) + b


def _number(values: np.ndarray[Any, Any] | Sequence[int]) -> Labels:
    """Labels 0, 1, ... of equal values, in order of first appearance."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biu" and len(values):
        low, high = int(values.min()), int(values.max())
        if high - low < 4 * len(values):  # counted, not sorted
            place = values.astype(np.int64) - low
            first = np.full(high - low + 1, len(values))
            first[place[::-1]] = np.arange(len(values))[::-1]  # of what is written to one place the last stays
            found = np.flatnonzero(first < len(values))
            rank = np.empty(len(first), dtype=np.int64)
            rank[found[np.argsort(first[found])]] = np.arange(len(found))
            labels: Labels = rank[place]
            return labels
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def number_units(data: Dataset, clusters: str | None) -> Tensor:
    """int64 [N]: rows that are independent are numbered apart; by a column's values, or each row by itself."""
    return torch.arange(data.n) if clusters is None else Partition.of(data[clusters], data, clusters).labels
