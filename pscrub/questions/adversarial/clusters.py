"""Features made from activations: the clusters that a node's values on D fall into."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2, vq
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.data.features import FEW
from pscrub.data.partition import Partition
from pscrub.evaluate.on_data import OnData

CLUSTERS = (2, 4)

ROUNDS = 20
"""Of k-means."""


def clusters(
    on_data: OnData,
    nodes: Sequence[str],
    data: Dataset,
    seed: int,
    sizes: Sequence[int] = CLUSTERS,
    rows: Tensor | None = None,
) -> dict[str, Partition]:
    """Name -> partition of D by the clusters that the joint activation of some nodes falls into, by k-means.

    An activation of at most FEW values is told apart by them.

    Args:
        on_data: of the graph on D.
        nodes: whose values, flattened and put side by side, are clustered.
        data: D.
        seed: of the first centres (k-means++).
        sizes: numbers of clusters.
        rows: int64, those that centres are made from, the others being put with the centre next to them; all by
            default.
    """
    flat = [on_data.on_data(name).cpu().reshape(data.n, -1).double().numpy() for name in nodes]
    x = np.concatenate(flat, 1)
    said = nodes[0] if len(nodes) == 1 else f"{len(nodes)} nodes together"
    if not np.isfinite(x).all():
        return {}
    distinct = np.unique(x[: 50 * FEW], axis=0)
    if len(distinct) <= FEW:
        whole = Partition.of(x, data)
        if whole.n_blocks <= FEW:
            return {f"value of {said}": whole} if whole.n_blocks > 1 else {}
    own = slice(None) if rows is None else rows.numpy()
    scale = x[own].std(0)
    x = x[:, scale > 0] / max(float(scale.max()), 1e-300)
    made = {}
    for k in sizes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a cluster that became empty is one fewer
            start = _centres(x[own], k, np.random.default_rng((seed, k)))
            centres, label = kmeans2(x[own], start, iter=ROUNDS, minit="matrix")
        if rows is not None:
            label = vq(x, centres)[0]
        partition = Partition.of(label.astype(np.int64), data)
        if partition.n_blocks > 1:
            made[f"{k} clusters of {said}"] = partition
    return made


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
