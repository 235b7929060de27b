"""N weighted rows of named tensors: the distribution D of the inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pscrub.errors import DatasetError, close

Column = Tensor | np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Dataset:
    """The distribution D: N rows of named columns, each row with a probability.

    A row is one input, its label included; the law of a row is `weights`. Columns are tensors [N, ...], or arrays of
    strings [N] for use in features and in printing (strings cannot be inputs of a graph).

    Args:
        columns: name -> tensor, array or list, the batch dimension first.
        weights: [N], non-negative, finite, with a positive sum; scaled to sum to 1. Uniform by default. Rows of weight
            zero are kept and never drawn.

    Raises:
        DatasetError: with every fault found.

    >>> data = Dataset({"x": torch.tensor([0, 1, 1]), "label": [True, False, True]}, weights=[1, 2, 1])
    >>> data.n, data.weights.tolist()
    (3, [0.25, 0.5, 0.25])
    """

    columns: Mapping[str, Column]
    weights: Tensor = field(default=None)  # type: ignore[assignment]

    def __init__(self, columns: Mapping[str, Any], weights: Any = None) -> None:
        faults: list[str] = []
        kept = {name: _column(name, values, faults) for name, values in columns.items()}
        sizes = {name: len(column) for name, column in kept.items() if column is not None}
        if not columns:
            faults.append("a dataset needs at least one column")
        elif sizes and max(sizes.values()) == 0:
            faults.append("the dataset is empty: its columns have no rows")
        elif len(set(sizes.values())) > 1:
            listed = ", ".join(f"'{name}' has {size}" for name, size in sizes.items())
            faults.append(f"columns of unequal length: {listed} rows")
        n = max(sizes.values(), default=0)
        probabilities = _weights(weights, n, faults)
        if faults:
            raise DatasetError(faults)
        object.__setattr__(self, "columns", MappingProxyType(kept))
        object.__setattr__(self, "weights", probabilities)

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.weights)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in the order given."""
        return tuple(self.columns)

    @property
    def uniform(self) -> bool:
        """Whether every row has the same weight."""
        return bool((self.weights == self.weights[0]).all())

    def __getitem__(self, name: str) -> Any:
        """The column [N, ...] of that name."""
        if name not in self.columns:
            raise DatasetError(f"no column '{name}' in the dataset{close(name, self.columns)}")
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return self.n

    def row(self, index: int) -> dict[str, Any]:
        """One row as plain values by column name."""
        return {name: _plain(column[index]) for name, column in self.columns.items()}

    def take(self, rows: Sequence[int] | Tensor) -> Dataset:
        """The dataset of those rows, in that order, their weights scaled to sum to 1."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        columns = {name: c[index] if isinstance(c, Tensor) else c[index.numpy()] for name, c in self.columns.items()}
        return Dataset(columns, self.weights[index])

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(column.shape)}" for name, column in self.columns.items())
        return f"Dataset({self.n:,} rows{'' if self.uniform else ', weighted'}: {shapes})"


def _column(name: str, values: Any, faults: list[str]) -> Column | None:
    try:
        if isinstance(values, Tensor):
            column: Column = values.detach()
        else:
            array = np.asarray(values)
            column = array.astype(str) if array.dtype.kind in "US" else torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        faults.append(f"column '{name}' is neither a tensor nor convertible to one: {error}")
        return None
    if column.ndim == 0:
        faults.append(f"column '{name}' is a single value; expected one row per input, [N, ...]")
        return None
    return column


def _weights(weights: Any, n: int, faults: list[str]) -> Tensor:
    if weights is None:
        return torch.full((n,), 1 / n if n else 0.0, dtype=torch.float64)
    try:
        w = torch.as_tensor(weights, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        faults.append(f"weights are not numbers: {error}")
        return torch.zeros(n, dtype=torch.float64)
    if w.shape != (n,):
        faults.append(f"weights have shape {tuple(w.shape)}; expected ({n},), one per row")
        return w
    for what, bad in (
        ("NaN", w.isnan()),
        ("infinite", w.isinf()),
        ("negative", w < 0),
    ):
        if bad.any():
            rows = bad.nonzero().flatten()[:3].tolist()
            faults.append(f"weights are {what} at {int(bad.sum())} of {n} rows, e.g. row {rows[0]}")
    if n and bool((w == 0).all()):
        faults.append("weights are all zero: no row could ever be drawn")
    w = w / w.max() if n else w  # so that the sum neither overflows nor loses digits
    return w / w.sum()


def _plain(value: Any) -> Any:
    return (
        value.tolist() if isinstance(value, Tensor | np.ndarray) else value.item() if hasattr(value, "item") else value
    )
