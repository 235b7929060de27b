"""Features of D, read into partitions: those that a user gives, and those made from the columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.data.partition import Partition
from pscrub.errors import DatasetError, PscrubError

FEW = 16
"""Distinct values up to which a column is a feature as it is; a longer one is cut into quantiles."""
WIDE = 8
"""Columns of more entries a row are left alone."""
QUANTILES = (2, 4)


def read_feature(data: Dataset, feature: Any, what: str, partition: str = "its partition") -> Partition:
    """The partition of D by one feature, in any of the forms that a user may give it.

    Args:
        data: D.
        feature: values [N] or [N, k], a function of the dataset that returns values or a Partition, the name of a
            column, or a Partition. Of a Partition the blocks are taken, and the weights are those of D.
        what: what errors call its values.
        partition: what errors call it where it is a Partition.

    Raises:
        DatasetError: no such column, values that cannot be compared, a Partition of another number of rows or made on
            other data: on a dataset that shares no column with this one, or in which a shared one differs. What the
            user's own function raises is passed on.

    >>> import torch
    >>> data = Dataset({"x": torch.arange(4)})
    >>> [read_feature(data, each, "a feature").n_blocks for each in ("x", [0, 0, 0, 1], lambda d: d["x"] % 3)]
    [4, 2, 3]
    """
    values = data[feature] if isinstance(feature, str) else feature(data) if callable(feature) else feature
    if isinstance(values, Partition):
        if len(values.labels) != data.n:
            raise DatasetError(f"{partition} has {len(values.labels)} rows, the dataset {data.n}")
        if (other := _find_other(values, data)) is not None:
            raise DatasetError(
                f"{partition} was made on another dataset, {other}; make it on this one, or, if row i is row i of "
                "that, give Partition(partition.labels, data.weights)"
            )
        return Partition(values.labels, data.weights, data.columns)
    return Partition.of(values, data, what)


def _find_other(partition: Partition, data: Dataset) -> str | None:
    """How the rows that a partition was made on are other than those of D, in words; None if they are not.

    Columns make the rows: weights may differ (a bootstrap's), and columns may have come or gone since.
    """
    made, own = partition.columns, data.columns
    if made is None or made is own:
        return None
    shared = [name for name in own if name in made]
    for name in shared:
        a, b = made[name], own[name]
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride() and a.data_ptr() == b.data_ptr():
                continue  # the same memory, as of a dataset made of another's columns
            a, b = a.cpu(), b.cpu()
        if type(a) is not type(b) or a.shape != b.shape:
            return f"whose column '{name}' is {list(a.shape)} of {a.dtype}; this one's is {list(b.shape)} of {b.dtype}"
        differ = torch.as_tensor((a != b) & ((a == a) | (b == b))).reshape(len(a), -1).any(1)  # NaN is like NaN
        if differ.any():
            row = int(differ.nonzero()[0])
            return f"whose column '{name}' differs from this one's at {int(differ.sum())} rows, e.g. row {row}"
    return None if shared else f"with which this one shares no column ({', '.join(made)}; {', '.join(own)})"


def read_features(data: Dataset, features: Mapping[str, Any] | Sequence[Any]) -> dict[str, Partition]:
    """Name -> partition of D by each feature offered.

    Args:
        data: D.
        features: name -> values [N] or [N, k], a function of the dataset, the name of a column or a Partition; or a
            list of columns' names and functions, named after themselves.

    Raises:
        DatasetError: with every feature that cannot be read.

    >>> import torch
    >>> data = Dataset({"x": torch.arange(4)})
    >>> {name: p.n_blocks for name, p in read_features(data, {"parity": lambda d: d["x"] % 2, "x": "x"}).items()}
    {'parity': 2, 'x': 4}
    """
    if not isinstance(features, Mapping):
        features = {f if isinstance(f, str) else str(getattr(f, "__name__", f)): f for f in features}
    made: dict[str, Partition] = {}
    faults: list[str] = []
    for name, feature in features.items():
        try:
            made[name] = read_feature(data, feature, f"feature '{name}'", f"feature '{name}'")
        except PscrubError as error:
            faults += error.faults
        except Exception as error:  # the user's own function
            faults.append(f"feature '{name}' raised {type(error).__name__}: {error}")
    if faults:
        raise DatasetError(faults)
    return made


def features_of_columns(
    data: Dataset, quantiles: Sequence[int] = QUANTILES, rows: Tensor | None = None
) -> dict[str, Partition]:
    """Name -> partition of D by each column of few values, and by quantiles of those of many; constants left out.

    Args:
        data: D. Strings of many values, and columns of more than WIDE entries a row, are left out.
        quantiles: numbers of parts of equal size.
        rows: int64, those that the quantiles are of; all by default.

    >>> import torch
    >>> data = Dataset({"bit": torch.arange(40) % 2, "x": torch.arange(40.0)})
    >>> {name: p.n_blocks for name, p in features_of_columns(data).items()}
    {'bit': 2, 'x in 2 parts': 2, 'x in 4 parts': 4}
    """
    made: dict[str, Partition] = {}
    for column in data:
        values = data[column].cpu().numpy() if isinstance(data[column], Tensor) else data[column]
        flat = values.reshape(len(values), -1)
        if flat.shape[1] > WIDE:
            continue
        for i, one in enumerate(flat.T):
            name = column if values.ndim == 1 else f"{column}[{i}]"
            made |= dict(_told_apart(name, one, data, quantiles, slice(None) if rows is None else rows.numpy()))
    return {name: partition for name, partition in made.items() if partition.n_blocks > 1}


def _told_apart(
    name: str, values: Any, data: Dataset, quantiles: Sequence[int], rows: Any
) -> Iterator[tuple[str, Partition]]:
    if len(np.unique(values)) <= FEW:
        yield name, Partition.of(values, data)
    elif values.dtype.kind in "iuf" and np.isfinite(values).all():
        for k in quantiles:
            edges = np.quantile(values[rows], np.arange(1, k) / k)
            yield f"{name} in {k} parts", Partition.of(np.searchsorted(edges, values, side="right"), data)
