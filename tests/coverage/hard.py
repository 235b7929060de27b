"""Situations in which a t interval misleads: laws of losses with what D and pairs show of them, and small studies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis
from pscrub.estimate.known import Known, Seen

Array = np.ndarray[Any, np.dtype[np.float64]]
ROWS = 2000
"""Rows of D of which f is seen, and a report's sampled pairs."""
SAMPLED = 4096


@dataclass(frozen=True)
class Values:
    """A finite law of f on scrubbed inputs, and those of D and of pairs.

    Args:
        words: for the table.
        values: float64 [k], what f can be.
        p: float64 [k], its law on scrubbed inputs.
        on_data: the law on D; that of scrubbed inputs by default.
        on_pairs: the law under E_randomised; that of scrubbed inputs by default.
        draws: numbers of draws to look at.
    """

    words: str
    values: Array
    p: Array
    draws: tuple[int, ...]
    on_data: Array | None = None
    on_pairs: Array | None = None

    @property
    def mean(self) -> float:
        """The expectation."""
        return float(self.values @ self.p)

    def draw(self, rng: np.random.Generator, draws: int) -> Array:
        """float64 [draws] of scrubbed inputs."""
        return rng.choice(self.values, size=draws, p=self.p)

    def known(self, rng: np.random.Generator) -> Known:
        """What D and sampled pairs show, and all pairs' range."""
        d, pairs = (self.p if law is None else law for law in (self.on_data, self.on_pairs))
        losses = torch.from_numpy(rng.choice(self.values, size=ROWS, p=d))
        randomised = torch.from_numpy(rng.choice(self.values, size=SAMPLED, p=pairs))
        everything = Seen.of(torch.from_numpy(self.values[pairs > 0]), 10**6)
        return Known.of(torch.full((ROWS,), 1 / ROWS, dtype=torch.float64), losses, randomised, everything)


def many(draw: Callable[[np.random.Generator, int], Array], size: int = 200_000) -> tuple[Array, Array]:
    """A continuous law as so many equally likely values."""
    values = draw(np.random.default_rng(0), size)
    return values, np.full(size, 1 / size)


def outliers(share: float, far: float) -> tuple[Array, Array]:
    """Normal losses about 1 of deviation 0.1, of which a share lies so far away."""
    usual, _ = many(lambda rng, n: 1 + 0.1 * rng.standard_normal(n), 20_000)
    return np.append(usual, 1 + far), np.append(np.full(len(usual), (1 - share) / len(usual)), share)


def capped(share: float) -> tuple[Array, Array]:
    """0.01 but for a share, which is exponential of mean 4, capped at 10."""
    values, _ = many(lambda rng, n: np.minimum(rng.exponential(4.0, n), 10.0), 50_000)
    return np.append(values, 0.01), np.append(np.full(len(values), share / len(values)), 1 - share)


def _two(p: float) -> Array:
    return np.array([1 - p, p])


LAWS = {
    "0-1 at 0.9995": Values("1 on 1,999 draws of 2,000", np.array([0.0, 1.0]), _two(0.9995), (200, 2000, 20_000)),
    "0-1 at 0.001": Values("1 on one draw of 1,000", np.array([0.0, 1.0]), _two(0.001), (200, 2000, 20_000)),
    "three-valued": Values(
        "1/2 on 3 % of draws, 1 on 2 %, else 0",
        np.array([0.0, 0.5, 1.0]),
        np.array([0.95, 0.03, 0.02]),
        (50, 500, 5000),
    ),
    "outliers": Values("normal, but 0.3 % lie 100 deviations away", *outliers(0.003, 10.0), (200, 2000, 20_000)),
    "near outliers": Values("normal, but 0.3 % lie 20 deviations away", *outliers(0.003, 2.0), (200, 2000, 20_000)),
    "rarer outliers": Values(
        "normal, but 0.05 % lie 100 deviations away", *outliers(0.0005, 10.0), (200, 2000, 20_000)
    ),
    "0-5 rare": Values(
        "5 on 6.7 draws of 100,000, else 0; 5 on half of the pairs",
        np.array([0.0, 5.0]),
        _two(6.7e-5),
        (1000, 16_384),
        on_data=_two(0.0),
        on_pairs=_two(0.5),
    ),
    "capped cross-entropy": Values(
        "0.01 on 95 % of draws, else exponential of mean 4, capped at 10", *capped(0.05), (100, 1000, 10_000)
    ),
    "rarer cross-entropy": Values(
        "0.01 on 99.5 % of draws, else exponential of mean 4, capped at 10", *capped(0.005), (100, 1000, 10_000)
    ),
    "lognormal": Values(
        "lognormal, of deviation 1.5", *many(lambda rng, n: rng.lognormal(0, 1.5, n)), (100, 1000, 10_000)
    ),
    "exponential": Values("exponential", *many(lambda rng, n: rng.exponential(1.0, n)), (100, 1000, 10_000)),
}

GRAPH = Graph.of({"out": lambda s, h: s + h, "f": lambda out, y: (out - y) ** 2}, ["s", "h", "y"], "f")
BLIND = Graph.of({"out": lambda s, h: s + 0.0 * h, "f": lambda out, y: (out - y) ** 2}, ["s", "h", "y"], "f")


def study(name: str) -> Hypothesis:
    """A small study whose expectation is found by enumeration."""
    rng = np.random.default_rng(1)
    if name == "three rows":
        columns, weights, graph = {"s": [0.0, 1.0, 3.0], "h": [0.0, 0.5, 0.0], "y": [0.0, 1.0, 1.0]}, None, GRAPH
        reads = [Claim("y", "exact")]
    elif name == "root-only":
        # f varies with the root's row only: strata that a row's boundary cuts carry all of the error.
        columns = {"s": [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0], "h": [0.0, 1.0] * 3 + [0.0], "y": [0.0, 0, 3, 3, 1, 1, 8]}
        weights, graph, reads = None, BLIND, [Claim("out", "s"), Claim("y", "exact")]
    elif name == "rare pairs":
        # 0/1: 1 only where one of 20 rows' outputs meets one row's label, each of 200 rows.
        row = torch.arange(200)
        graph = Graph.of({"out": lambda x: x, "f": lambda out, y: 1.0 * ((out < 20) & (y == 0))}, ["x", "y"], "f")
        data = Dataset({"x": row, "y": row})
        return Hypothesis(name, graph, data, Claim("f", reads=[Claim("y", "exact")]))
    else:
        s, h = rng.integers(0, 4, 60), rng.integers(0, 2, 60)
        columns = {"s": s.astype(float), "h": 2.0 * h, "y": s + h + rng.integers(0, 2, 60).astype(float)}
        weights, graph = rng.lognormal(0, 1.5, 60), GRAPH
        reads = [Claim("out", "s"), Claim("y", "exact")]
    data = Dataset({key: torch.tensor(column, dtype=torch.float64) for key, column in columns.items()}, weights)
    return Hypothesis(name, graph, data, Claim("f", reads=reads))
