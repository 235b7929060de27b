"""k-means on the rows of D, each with its weight, from a seed: the same numbers give the same clusters."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Labels = np.ndarray[Any, np.dtype[np.int64]]
ROUNDS = 50
"""Most rounds of one run; what little moves after that is left."""
RUNS = 4
"""From other first centres; the one that leaves the least is taken."""


def cluster(values: Array, weights: Array, k: int, seed: int = 0) -> Labels:
    """int64 [N]: the cluster 0 ... k - 1 of each row, the same for equal rows.

    Lloyd's rounds from centres drawn by k-means++, both weighted; rows of weight zero go to the nearest centre and move
    none. Of RUNS runs the one with the least weighted squared distance. A cluster is empty only where rows differ by no
    more than rounding, or where ROUNDS ran out.

    Source: Arthur and Vassilvitskii, k-means++: the advantages of careful seeding (2007).

    Args:
        values: float64 [N, d], finite, of at least k distinct rows of positive weight.
        weights: float64 [N], of the rows.
        k: how many clusters.
        seed: of the first centres.

    >>> cluster(np.array([[0.0], [9.0], [1.0], [10.0]]), np.ones(4), 2).tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])
    True
    """
    possible = weights > 0
    scale = np.abs(values - values[possible].mean(0)).max() or 1.0
    x = (values - values[possible].mean(0)) / scale  # squares neither overflow nor lose the digits that tell rows apart
    runs = [_run(x[possible], weights[possible], k, np.random.default_rng((seed, k, i))) for i in range(RUNS)]
    centres = min(runs, key=lambda run: run[0])[1]
    labels: Labels = _distances(x, centres).argmin(1)
    return labels


def _run(x: Array, weights: Array, k: int, rng: np.random.Generator) -> tuple[float, Array]:
    """What is left of the weighted squared distance, and the centres [k, d]."""
    centres, labels = _first_centres(x, weights, k, rng), np.full(len(x), -1)
    for _ in range(ROUNDS):
        squared = _distances(x, centres)
        near = squared.argmin(1)
        if np.array_equal(near, labels):
            break
        labels, left = near, squared.min(1)
        mass = np.bincount(labels, weights, k)
        # d passes over N numbers: a table [k, N] of who is where would take as much as the distances.
        sums = np.stack([np.bincount(labels, weights * column, k) for column in x.T], 1)
        centres = sums / np.where(mass > 0, mass, 1.0)[:, None]
        for i in np.flatnonzero(mass == 0):  # an empty cluster goes to the row that is worst served
            centres[i] = x[int(left.argmax())]
            left = np.minimum(left, ((x - centres[i]) ** 2).sum(1))
    return float((weights * _distances(x, centres).min(1)).sum()), centres


def _first_centres(x: Array, weights: Array, k: int, rng: np.random.Generator) -> Array:
    """float64 [k, d]: distinct rows far from one another, each drawn with odds of weight times squared distance."""
    chosen = [x[int(rng.choice(len(x), p=weights / weights.sum()))]]
    near = ((x - chosen[0]) ** 2).sum(1)
    while len(chosen) < k:
        odds = weights * near
        row = int(rng.choice(len(x), p=odds / odds.sum())) if odds.sum() > 0 else int(near.argmax())
        chosen.append(x[row])
        near = np.minimum(near, ((x - x[row]) ** 2).sum(1))
    return np.stack(chosen)


def _distances(x: Array, centres: Array) -> Array:
    """float64 [N, k]: squared, never below 0."""
    squared = (x**2).sum(1)[:, None] - 2 * x @ centres.T + (centres**2).sum(1)
    found: Array = np.maximum(squared, 0.0)
    return found
