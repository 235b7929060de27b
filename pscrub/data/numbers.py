"""Numbers that a user gives for each row of D, in any of the forms of a feature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import DatasetError

Array = np.ndarray[Any, np.dtype[np.float64]]


def read_numbers(of: Any, data: Dataset, what: str) -> Array:
    """float64 [N, entries]: numbers that a user gives, each row's flattened.

    Args:
        of: name of a column, values [N, ...], or a function of the dataset that returns them.
        data: D.
        what: what errors call them.

    Raises:
        DatasetError: no such column, no numbers, NaN, or another number of rows.
    """
    given = data[of] if isinstance(of, str) else of(data) if callable(of) else of
    try:
        array = given.detach().double().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
        values = array.astype(np.float64) if array.dtype.kind in "biuf" else None
    except (TypeError, ValueError, RuntimeError) as error:
        raise DatasetError(f"{what}: expected numbers, one or several a row; {error}") from error
    if values is None:
        raise DatasetError(f"{what} holds {array.dtype} values; bins are for numbers: give the values as the feature")
    if values.shape[:1] != (data.n,):
        raise DatasetError(f"{what} has shape {values.shape}; expected [{data.n}, ...]: one value or array a row")
    flat = values.reshape(data.n, -1)
    if flat.shape[1] == 0:
        raise DatasetError(f"{what} has no entries: shape {values.shape}; expected a number a row, or several")
    bad = np.isnan(flat).any(1)
    if bad.any():
        where = int(np.flatnonzero(bad)[0])
        raise DatasetError(f"{what} is NaN at {int(bad.sum())} of {data.n} rows, e.g. row {where}; NaN is in no bin")
    return flat


def check_finite(values: Array, what: str) -> Array:
    """The values [N, entries], of which none is infinite.

    Raises:
        DatasetError: one is.
    """
    bad = np.isinf(values).any(1)
    if bad.any():
        where = int(np.flatnonzero(bad)[0])
        raise DatasetError(
            f"{what} is infinite at {int(bad.sum())} of {len(values)} rows, e.g. row {where}; quantiles can hold it, "
            "for they go by rank"
        )
    return values


def name_values(values: Any, name: str) -> Callable[[Dataset], Any]:
    """Values under a name of their own: a feature, of whatever dataset they are asked for."""

    def given(data: Dataset) -> Any:
        return values

    given.__name__ = name
    return given
