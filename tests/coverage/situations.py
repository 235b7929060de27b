"""Situations with known answers: laws of losses in root strata, and a population that data sets are sampled from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Law:
    """Losses in pairs from strata.

    Args:
        words: for the table.
        draw: (generator, repetitions, draws) -> float64 [repetitions, draws], pair by pair.
        mean: the expectation.
        bounds: the least and greatest loss, where there are any that a user would know.
        conservative: the default is meant to cover at least, not about, the level.
        why: where no method can cover as it should, the reason.
    """

    words: str
    draw: Callable[[np.random.Generator, int, int], Array]
    mean: float
    bounds: tuple[float, float] | None = None
    conservative: bool = False
    why: str = ""


def strata(draws: int, size: float) -> Array:
    """float64 [draws]: means of the strata, two draws each, that average to 0."""
    place = (np.arange(draws // 2) + 0.5) / (draws // 2)
    return np.repeat(size * np.sin(2 * np.pi * place), 2)


def few_roots(rng: np.random.Generator, times: int, draws: int) -> Array:
    """Five root rows, each with losses of its own mean and spread, one of them far noisier than the others."""
    root = np.repeat(np.arange(draws // 2) * 5 // (draws // 2), 2)
    return np.arange(5.0)[root] + np.array([0.1, 0.2, 0.1, 0.3, 3.0])[root] * rng.standard_normal((times, draws))


LAWS = {
    "light tails": Law(
        "normal, strata's means spread four times as wide",
        lambda rng, times, n: strata(n, 4.0) + rng.standard_normal((times, n)),
        0.0,
    ),
    "skewed": Law(
        "exponential in strata",
        lambda rng, times, n: strata(n, 1.0) + rng.exponential(size=(times, n)),
        1.0,
    ),
    "cross-entropy": Law(
        "0.01 on nine draws of ten, exponential of mean 4 on the tenth",
        lambda rng, times, n: np.where(rng.random((times, n)) < 0.1, rng.exponential(4.0, (times, n)), 0.01),
        0.1 * 4 + 0.9 * 0.01,
        why="at n = 100 ten draws carry the whole loss; the estimate and its error fall together",
    ),
    "very heavy": Law(
        "Pareto with tail index 2.1 (infinite skewness)",
        lambda rng, times, n: rng.pareto(2.1, (times, n)) + 1,
        2.1 / 1.1,
        why="the draws that carry the mean are mostly not among those drawn; no method without bounds can know",
    ),
    "rare 0/1": Law(
        "1 on one draw of a hundred, else 0",
        lambda rng, times, n: (rng.random((times, n)) < 0.01).astype(float),
        0.01,
        conservative=True,
    ),
    "common 0/1": Law(
        "1 on three draws of ten, else 0; a third of the strata all 0",
        lambda rng, times, n: (rng.random((times, n)) < 0.45 * (np.arange(n) // 2 % 3 > 0)).astype(float),
        0.45 * 2 / 3,
    ),
    "bounded and rare": Law(
        "uniform on [0, 1] on one draw of a hundred, else 0; bounds given",
        lambda rng, times, n: np.where(rng.random((times, n)) < 0.01, rng.random((times, n)), 0.0),
        0.005,
        bounds=(0.0, 1.0),
        conservative=True,
    ),
    "few distinct roots": Law(
        "five root rows, the errors of one ten times the others'",
        few_roots,
        2.0,
    ),
}
MEANS = {
    # Strata of which not all are whole: exact means at each number of draws.
    ("common 0/1", n): float(0.45 * (np.arange(n) // 2 % 3 > 0).mean())
    for n in (100, 1000, 10_000)
}


def expectation(name: str, draws: int) -> float:
    """The exact mean of the strata's means."""
    return MEANS.get((name, draws), LAWS[name].mean)
