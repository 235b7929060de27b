"""Intervals that hold together: the level of each at which all hold with the level asked for."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import stats
from torch import Tensor

from pscrub.errors import StudyError

Family = Literal["max-t", "bonferroni", "sidak", "none"]

MAXIMA = 40_000
"""Normal vectors from which the quantile of the largest of correlated errors is read."""


def simultaneous_level(correlation: Tensor, level: float, family: Family = "max-t") -> float:
    """The level of each of several intervals at which all hold together with the level asked for.

    "bonferroni": whatever the errors have to do with one another. "sidak": errors that are independent or positively
    related in absolute value, as normal ones are. "max-t": the quantile of the largest of normal errors with the
    correlation that the pairs show, which gains most where hypotheses share their random numbers. "none": the level.

    Args:
        correlation: [k, k], of the errors.
        level: of all together.
        family: which.

    >>> import torch
    >>> [round(simultaneous_level(torch.eye(10), 0.95, name), 4) for name in ("bonferroni", "sidak")]
    [0.995, 0.9949]
    """
    k = len(correlation)
    if family == "none" or k <= 1:
        return level
    if family == "bonferroni":
        return 1 - (1 - level) / k
    if family == "sidak":
        return float(level ** (1 / k))
    if family != "max-t":
        raise StudyError(f"unknown family '{family}'; expected max-t, bonferroni, sidak or none")
    values, vectors = np.linalg.eigh(correlation.numpy())
    root = vectors * np.sqrt(np.clip(values, 0, None))
    normals = np.random.default_rng(0).standard_normal((MAXIMA, k))  # the same losses have the same intervals
    q = float(np.quantile(np.abs(normals @ root.T).max(1), level))
    # No narrower than one interval alone, no wider than Sidak's: both hold, so only simulation error can cross them.
    return float(min(max(2 * stats.norm.cdf(q) - 1, level), level ** (1 / k)))
