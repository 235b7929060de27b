"""Soft agreement: features of real values cut into bins, so that blocks have rows enough to swap.

Two rows agree on a real value where it is the same number, which of thousands of rows no two may have: blocks of one
row scrub nothing. `Quantiles`, `Rounding` and `Clusters` cut values into bins; each is a feature like any other, to be
given to a claim as it is. That two values are near one another is no agreement, as it is not transitive; that they are
in one bin is. Where the edges stand is a choice; an offset that is "random" leaves it open (`hypothesis.mixtures`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

import numpy as np

from pscrub.data.clusters import cluster
from pscrub.data.dataset import Dataset
from pscrub.data.numbers import check_finite, name_values, read_numbers
from pscrub.data.partition import Partition
from pscrub.errors import DatasetError

Array = np.ndarray[Any, np.dtype[np.float64]]
RANDOM: Final = "random"
Offset = float | Sequence[float] | Literal["random"]
"""By what share of a bin the edges of all bins are moved up, in [0, 1): one number, one for each entry, or "random"."""
SLACK = 1e-9
"""Share of a bin below an edge at which a value is taken to be on it: 0.3 / 0.1 is 2.9999999999999996."""
B = TypeVar("B", bound="Bins")


@dataclass(frozen=True, eq=False)
class Bins:
    """Values cut into bins: a feature, made into a Partition when it is called with the dataset.

    Args:
        of: the values: name of a column, or (in a claim) of a node of the graph; values [N, ...] of numbers, as a
            tensor, array or list; or a function of the dataset that returns them. Each row's are flattened.
    """

    of: Any

    @property
    def words(self) -> str:
        """What the values are called: the column, the node or the function; "values" if given by hand."""
        return self.of if isinstance(self.of, str) else str(getattr(self.of, "__name__", "values"))

    @property
    def is_random(self) -> bool:
        """Whether it is not one partition, but one for each offset."""
        return False

    def on(self: B, values: Any) -> B:
        """The same bins of other values (or of the same, computed already), under the same name."""
        return replace(self, of=name_values(values, self.words))

    def values(self, data: Dataset) -> Array:
        """float64 [N, entries]: the values, each row's flattened.

        Raises:
            DatasetError: no such column, no numbers, NaN, or another number of rows.
        """
        return read_numbers(self.of, data, self.words)

    @abstractmethod
    def __call__(self, data: Dataset) -> Partition:
        """The partition of D by the bins."""


@dataclass(frozen=True, eq=False)
class Edged(Bins):
    """Bins of each entry between edges one apart, once values are put on a scale by `positions`.

    Rows are alike where every entry of theirs is in one bin. Of k bins an entry, d entries make up to k^d blocks: see
    how large blocks are (`Partition.sizes`), or take `Clusters`.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What the bins are called, whatever the offset."""

    @property
    def __name__(self) -> str:
        return self.name + _say_offset(self.edges)

    @property
    @abstractmethod
    def edges(self) -> Offset:
        """The offset."""

    @abstractmethod
    def positions(self, data: Dataset) -> Array:
        """float64 [N, entries]: where values stand on a scale on which edges are at the whole numbers, plus offset."""

    @property
    def is_random(self) -> bool:
        """Whether it is not one partition, but one for each offset."""
        return isinstance(self.edges, str)

    def at(self: E, offset: float | Sequence[float]) -> E:
        """The same bins, their edges moved up by this share of a bin."""
        return replace(self, offset=offset)  # type: ignore[call-arg]

    def placed(self: E, data: Dataset) -> Placed:
        """The same bins with `positions` worked out, for many offsets.

        Raises:
            DatasetError: several numbers a row, whose bins cannot have one random offset.
        """
        positions = self.positions(data)
        if self.is_random and positions.shape[1] > 1:
            raise DatasetError(
                f"{self.words} has {positions.shape[1]} numbers a row; a random offset is for one: give one entry of "
                "them (or a projection), or an offset that is fixed"
            )
        return Placed(positions, self.edges, self.name)

    def __call__(self, data: Dataset) -> Partition:
        """The partition of D by the bins.

        Raises:
            DatasetError: values that cannot be cut so, or an offset that is random.
        """
        if isinstance(self.edges, str):
            raise DatasetError(
                f"{self.words} is in bins with a random offset: one interpretation for each offset, and so a mixture "
                "of hypotheses; scrub it with pscrub.questions.scrub_mixture, or fix an offset in [0, 1)"
            )
        positions = self.positions(data)
        offset = np.asarray(self.edges, dtype=np.float64)
        if offset.ndim == 1 and len(offset) != positions.shape[1]:
            raise DatasetError(
                f"{self.words}: {len(offset)} offsets for {positions.shape[1]} entries; expected one each"
            )
        return Partition.of(np.floor(positions - offset + SLACK), data, self.words)


E = TypeVar("E", bound=Edged)


@dataclass(frozen=True, eq=False)
class Quantiles(Edged):
    """A feature: values in bins of equal weight under D. Equal values share a bin, whatever that does to its weight.

    A value's rank is the weight of smaller values and half of its own; bin i of k holds ranks in [i / k, (i + 1) / k).
    Where many rows share a value bins may be empty. With an offset in (0, 1) the first and the last bin are parts of
    one, k + 1 in all.

    Args:
        of: the values, as for all `Bins`.
        bins: how many, k.
        offset: see `Offset`. Random, rows whose ranks are d apart share a bin with probability max(0, 1 - k d).

    Raises:
        DatasetError: bins below 1, or an offset outside [0, 1); when called: NaN, or fewer distinct values than bins.

    >>> import torch
    >>> data = Dataset({"x": torch.tensor([0.1, 0.5, 2.0, 9.0])}, weights=[3, 1, 1, 1])
    >>> Quantiles("x", 2)(data).labels.tolist()
    [0, 1, 1, 1]
    >>> Quantiles("x", 2).__name__
    'x in 2 quantiles'
    """

    bins: int
    offset: Offset = 0.0

    def __post_init__(self) -> None:
        _check_count(self.bins, "bins")
        _check_offset(self.offset)

    @property
    def name(self) -> str:
        """What the bins are called, whatever the offset."""
        return f"{self.words} in {self.bins} quantiles"

    @property
    def edges(self) -> Offset:
        """The offset."""
        return self.offset

    def positions(self, data: Dataset) -> Array:
        """float64 [N, entries]: `bins` times the rank of each value."""
        values, weights = self.values(data), data.weights.numpy()
        ranks, most = np.empty_like(values), 0
        for i, column in enumerate(values.T):
            distinct, place = np.unique(column, return_inverse=True)
            own = np.bincount(place, weights, len(distinct))
            most = max(most, int((own > 0).sum()))
            ranks[:, i] = (np.cumsum(own) - own / 2)[place]
        if most < self.bins:
            raise DatasetError(
                f"{self.words} has {most} distinct value{'s' * (most != 1)} of positive weight, fewer than "
                f"{self.bins} bins; give fewer bins, or the values themselves as the feature"
            )
        return self.bins * ranks


@dataclass(frozen=True, eq=False)
class Rounding(Edged):
    """A feature: values rounded down to multiples of a width. Bin i holds [(i + offset) width, (i + 1 + offset) width).

    Args:
        of: the values, as for all `Bins`.
        width: of a bin, in the values' units.
        offset: see `Offset`. Random, rows whose values are d apart share a bin with probability max(0, 1 - d / width).

    Raises:
        DatasetError: a width that is not positive and finite, an offset outside [0, 1); when called: NaN or infinity.

    >>> import torch
    >>> data = Dataset({"x": torch.tensor([-0.1, 0.0, 0.2, 0.3])})
    >>> Rounding("x", 0.3)(data).labels.tolist(), Rounding("x", 0.3, offset=0.5)(data).labels.tolist()
    ([0, 1, 1, 2], [0, 0, 1, 1])
    """

    width: float
    offset: Offset = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.width) and self.width > 0):
            raise DatasetError(f"width is {self.width}; expected a positive number, in the values' units")
        _check_offset(self.offset)

    @property
    def name(self) -> str:
        """What the bins are called, whatever the offset."""
        return f"{self.words} rounded to {self.width:g}"

    @property
    def edges(self) -> Offset:
        """The offset."""
        return self.offset

    def positions(self, data: Dataset) -> Array:
        """float64 [N, entries]: values in widths."""
        values = check_finite(self.values(data), self.words)
        return values / self.width


@dataclass(frozen=True, eq=False)
class Placed(Edged):
    """Bins whose scale is known already: `of` holds positions [N, entries]. What `placed` gives.

    Args:
        of: positions [N, entries].
        offset: see `Offset`.
        title: what they are called.
    """

    offset: Offset
    title: str

    @property
    def name(self) -> str:
        """What the bins are called, whatever the offset."""
        return self.title

    @property
    def edges(self) -> Offset:
        """The offset."""
        return self.offset

    def positions(self, data: Dataset) -> Array:
        """float64 [N, entries]: as given."""
        return self.values(data)


@dataclass(frozen=True, eq=False)
class Clusters(Bins):
    """A feature: the cluster that a row's values fall into, by k-means weighted by D (`data.clusters.cluster`).

    Distances are Euclidean, on the values as they are: scale entries that are not to count alike.

    Args:
        of: the values, as for all `Bins`; activations of a node, for instance.
        bins: how many clusters.
        seed: of the first centres.

    Raises:
        DatasetError: bins below 1, or a negative seed; when called: NaN or infinity, or fewer distinct rows than bins.

    >>> import torch
    >>> data = Dataset({"h": torch.tensor([[0.0, 0.0], [5.0, 5.0], [0.1, 0.0], [5.0, 5.2]])})
    >>> Clusters("h", 2)(data).labels.tolist()
    [0, 1, 0, 1]
    """

    bins: int
    seed: int = 0

    def __post_init__(self) -> None:
        _check_count(self.bins, "bins")
        if self.seed < 0:
            raise DatasetError(f"seed is {self.seed}; expected 0 or more")

    @property
    def __name__(self) -> str:
        return f"{self.bins} clusters of {self.words}"

    def __call__(self, data: Dataset) -> Partition:
        """The partition of D by the clusters."""
        values = check_finite(self.values(data), self.words)
        possible = data.weights.numpy() > 0
        distinct = len(np.unique(values[possible], axis=0))
        if distinct < self.bins:
            raise DatasetError(
                f"{self.words} has {distinct} distinct value{'s' * (distinct != 1)} of positive weight, fewer than "
                f"{self.bins} clusters; give fewer, or the values themselves as the feature"
            )
        return Partition.of(cluster(values, data.weights.numpy(), self.bins, self.seed), data, self.words)


def _check_count(bins: Any, what: str) -> None:
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 1:
        raise DatasetError(f"{what} is {bins!r}; expected a whole number of 1 or more")


def _check_offset(offset: Offset) -> None:
    if isinstance(offset, str):
        if offset != RANDOM:
            raise DatasetError(f"offset is '{offset}'; expected a share of a bin in [0, 1), or '{RANDOM}'")
        return
    each = np.asarray(offset, dtype=np.float64)
    if each.ndim > 1 or not bool(((each >= 0) & (each < 1)).all()):
        raise DatasetError(f"offset is {offset}; expected a share of a bin in [0, 1), or '{RANDOM}'")


def _say_offset(offset: Offset) -> str:
    if isinstance(offset, str):
        return ", random offset"
    return f", offset {offset:.3g}" if isinstance(offset, float | int) and offset else ""
