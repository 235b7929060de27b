"""Features that an adversary may claim: those offered, and those made from the data and from activations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2
from torch import Tensor

from pscrub.dataset import Dataset
from pscrub.errors import DatasetError, PscrubError
from pscrub.evaluate import Activations
from pscrub.partition import Partition

FEW = 16
"""Distinct values up to which a column is a feature as it is; a longer one is cut into quantiles."""
WIDE = 8
"""Columns of more entries a row are left alone."""
QUANTILES = (2, 4)
CLUSTERS = (2, 4)
ROUNDS = 20
"""Of k-means."""


def offered(data: Dataset, features: Mapping[str, Any] | Sequence[Any]) -> dict[str, Partition]:
    """Name -> partition of D by each feature offered.

    Args:
        data: D.
        features: name -> values [N] or [N, k], a function of the dataset, the name of a column or a Partition; or a
            list of columns' names and functions, named after themselves.

    Raises:
        DatasetError: with every feature that cannot be read.

    >>> import torch
    >>> data = Dataset({"x": torch.arange(4)})
    >>> {name: p.n_blocks for name, p in offered(data, {"parity": lambda d: d["x"] % 2, "x": "x"}).items()}
    {'parity': 2, 'x': 4}
    """
    if not isinstance(features, Mapping):
        features = {f if isinstance(f, str) else str(getattr(f, "__name__", f)): f for f in features}
    made: dict[str, Partition] = {}
    faults: list[str] = []
    for name, feature in features.items():
        try:
            if isinstance(feature, Partition):
                made[name] = Partition(feature.labels, data.weights)
                continue
            values = data[feature] if isinstance(feature, str) else feature(data) if callable(feature) else feature
            made[name] = Partition.of(values, data, f"feature '{name}'")
        except PscrubError as error:
            faults += error.faults
        except Exception as error:  # the user's own function
            faults.append(f"feature '{name}' raised {type(error).__name__}: {error}")
    if faults:
        raise DatasetError(faults)
    return made


def from_columns(data: Dataset, quantiles: Sequence[int] = QUANTILES) -> dict[str, Partition]:
    """Name -> partition of D by each column of few values, and by quantiles of those of many; constants left out.

    Args:
        data: D. Strings of many values, and columns of more than WIDE entries a row, are left out.
        quantiles: numbers of parts of equal size.

    >>> import torch
    >>> data = Dataset({"bit": torch.arange(40) % 2, "x": torch.arange(40.0)})
    >>> {name: p.n_blocks for name, p in from_columns(data).items()}
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
            made |= dict(_told_apart(name, one, data, quantiles))
    return {name: partition for name, partition in made.items() if partition.n_blocks > 1}


def clusters(
    activations: Activations, nodes: Sequence[str], data: Dataset, seed: int, sizes: Sequence[int] = CLUSTERS
) -> dict[str, Partition]:
    """Name -> partition of D by the clusters that the joint activation of some nodes falls into, by k-means.

    An activation of at most FEW values is told apart by them.

    Args:
        activations: of the graph on D.
        nodes: whose values, flattened and put side by side, are clustered.
        data: D.
        seed: of the first centres (k-means++).
        sizes: numbers of clusters.
    """
    flat = [activations.on_data(name).cpu().reshape(data.n, -1).double().numpy() for name in nodes]
    x = np.concatenate(flat, 1)
    said = nodes[0] if len(nodes) == 1 else f"{len(nodes)} nodes together"
    if not np.isfinite(x).all():
        return {}
    distinct = np.unique(x[: 50 * FEW], axis=0)
    if len(distinct) <= FEW:
        whole = Partition.of(x, data)
        if whole.n_blocks <= FEW:
            return {f"value of {said}": whole} if whole.n_blocks > 1 else {}
    scale = x.std(0)
    x = x[:, scale > 0] / max(float(scale.max()), 1e-300)
    made = {}
    for k in sizes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a cluster that became empty is one fewer
            label = kmeans2(x, _centres(x, k, np.random.default_rng((seed, k))), iter=ROUNDS, minit="matrix")[1]
        partition = Partition.of(label.astype(np.int64), data)
        if partition.n_blocks > 1:
            made[f"{k} clusters of {said}"] = partition
    return made


def _told_apart(name: str, values: Any, data: Dataset, quantiles: Sequence[int]) -> Iterator[tuple[str, Partition]]:
    if len(np.unique(values)) <= FEW:
        yield name, Partition.of(values, data)
    elif values.dtype.kind in "iuf" and np.isfinite(values).all():
        for k in quantiles:
            edges = np.quantile(values, np.arange(1, k) / k)
            yield f"{name} in {k} parts", Partition.of(np.searchsorted(edges, values, side="right"), data)


def _centres(x: np.ndarray[Any, Any], k: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """float64 [k, d]: rows far from one another, each drawn with odds of its squared distance to those before it."""
    chosen = [x[int(rng.integers(len(x)))]]
    near = ((x - chosen[0]) ** 2).sum(1)
    while len(chosen) < k:
        total = near.sum()
        row = int(rng.choice(len(x), p=near / total)) if total > 0 else int(rng.integers(len(x)))
        chosen.append(x[row])
        near = np.minimum(near, ((x - x[row]) ** 2).sum(1))
    return np.stack(chosen)
