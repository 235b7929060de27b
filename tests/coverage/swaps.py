"""Hypotheses whose E_scrubbed is known, for the study of permuted donors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pscrub import Claim, Dataset, Graph, Hypothesis


def _one_level(data: Dataset, f: Callable[[Tensor, Tensor, Tensor], Tensor], sharing: str = "reader") -> Hypothesis:
    """f reads a of x, swapped within blocks `g`; b of y, swapped freely; and the root's label."""
    graph = Graph.of({"a": lambda x: x + 0, "b": lambda y: y + 0, "f": f}, inputs=["x", "y", "label"], output="f")
    reads = [Claim("a", "g"), Claim("label", "label")]
    return Hypothesis("h", graph, data, Claim("f", reads=reads), sharing)


def _columns(rows: int, block: int, seed: int = 0) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    x, y = (torch.from_numpy(rng.standard_normal(rows)) for _ in range(2))
    g = torch.arange(rows) // block
    return {"x": x + 0.3 * (g % 3), "y": y, "label": torch.from_numpy(rng.standard_normal(rows)), "g": g}


def _mixed(a: Tensor, b: Tensor, label: Tensor) -> Tensor:
    return (a + 0.7 * b - label) ** 2


def _deep(rows: int) -> Hypothesis:
    """Four sites one below the other, blocks within blocks, and unimportant inputs at three of them."""
    columns = _columns(rows, 4) | {"g1": torch.arange(rows) % 2, "g2": torch.arange(rows) % 4}
    functions = {
        "c": lambda x: x * 1.5,
        "b": lambda c, y: c + 0.5 * y,
        "a": lambda b, y: b - 0.3 * y,
        "f": lambda a, y, label: (a + 0.2 * y - label) ** 2,
    }
    graph = Graph.of(functions, inputs=["x", "y", "label"], output="f")
    inner = Claim("b", torch.stack([columns["g1"], columns["g2"]], 1), reads=[Claim("c", "g2")])
    claim = Claim("f", reads=[Claim("a", "g1", reads=[inner]), Claim("label", "label")])
    return Hypothesis("h", graph, Dataset(columns), claim)


def _shared() -> Hypothesis:
    """Two readers of one draw of unimportant inputs, and of one claim, of which each has a draw of its own."""
    columns = _columns(60, 6)
    functions = {
        "a": lambda x, y: x + y,
        "b": lambda x, y: x * y,
        "f": lambda a, b, label: (a + b - label) ** 2,
    }
    graph = Graph.of(functions, inputs=["x", "y", "label"], output="f")
    x = Claim("x", "g")
    reads = [Claim("a", "g", reads=[x]), Claim("b", "g", reads=[x]), Claim("label", "g")]
    return Hypothesis("h", graph, Dataset(columns), Claim("f", reads=reads), "all")


def _heavy() -> Hypothesis:
    columns = _columns(60, 6)
    return _one_level(Dataset(columns), lambda a, b, label: (1.2 * (a + b + label)).exp())


def _outlier() -> Hypothesis:
    """One row in 300 is 100 deviations off."""
    columns = _columns(300, 300)
    columns["y"][7] = 100.0
    return _one_level(Dataset(columns), _sum)


def _lone() -> Hypothesis:
    """Half of D in blocks of one row, the rest in blocks of ten."""
    columns = _columns(60, 10)
    columns["g"] = torch.where(torch.arange(60) < 30, torch.arange(60) + 100, columns["g"])
    return _one_level(Dataset(columns), _mixed)


def _weighted() -> Hypothesis:
    weights = np.random.default_rng(1).lognormal(0, 1.5, 60)
    return _one_level(Dataset(_columns(60, 6), weights.tolist()), _mixed)


def _zero_one(beyond: float) -> Hypothesis:
    return _one_level(Dataset(_columns(60, 6)), lambda a, b, label: 1.0 * (a + b - 0 * label > beyond))


def _truth_of_mixed(data: Dataset) -> float:
    """E of (a + 0.7 b - label)^2, a of the root's block, b of any row: by means and variances, as rows are many."""
    x, y, label, g = (data[name] for name in ("x", "y", "label", "g"))
    mean, spread = _by_block(x, g)
    return float(((mean + 0.7 * y.mean() - label).square() + spread).mean() + 0.49 * y.var(correction=0))


def _truth_of_deep(data: Dataset) -> float:
    """Given the root's datum, f is the square of a sum of independent terms, x being of a row of its `g1`."""
    x, y, label, g = (data[name] for name in ("x", "y", "label", "g1"))
    mean, spread = _by_block(x, g)
    f = (1.5 * mean + 0.4 * y.mean() - label).square() + 2.25 * spread
    return float(f.mean() + (0.25 + 0.09 + 0.04) * y.var(correction=0))


def _truth_of_sum(data: Dataset) -> float:
    """Each term's datum is distributed as D (Lemma 1)."""
    return float(sum((data.weights * data[name]).sum() for name in ("x", "y", "label")))


def _by_block(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(g).double()
    mean = (torch.bincount(g, x) / counts)[g]
    return mean, (torch.bincount(g, (x - mean).square()) / counts)[g]


@dataclass(frozen=True)
class Situation:
    """A hypothesis whose E_scrubbed is known.

    Args:
        words: for the table.
        make: the hypothesis.
        truth: E_scrubbed, of D; by the exact law of f if left out.
    """

    words: str
    make: Callable[[], Hypothesis]
    truth: Callable[[Dataset], float] | None = None


def _blocks(rows: int, block: int, f: Callable[[Tensor, Tensor, Tensor], Tensor] = _mixed) -> Callable[[], Hypothesis]:
    return lambda: _one_level(Dataset(_columns(rows, block)), f)


def _sum(a: Tensor, b: Tensor, label: Tensor) -> Tensor:
    return a + b + label


def _signs(a: Tensor, b: Tensor, label: Tensor) -> Tensor:
    return (a - a.median()).sign() * (b - b.median()).sign() + 0 * label


SITUATIONS: Mapping[str, Situation] = {
    "blocks of 6": Situation("60 rows in blocks of 6, squared error", _blocks(60, 6), _truth_of_mixed),
    "three rows": Situation("three rows", _blocks(3, 3), _truth_of_mixed),
    "many rows": Situation("2,000 rows in blocks of 500", _blocks(2000, 500), _truth_of_mixed),
    "weights": Situation("weights lognormal, deviation 1.5", _weighted),
    "lone": Situation("half of D in blocks of one row", _lone, _truth_of_mixed),
    "deep": Situation("four sites one below the other, 80 rows", lambda: _deep(80), _truth_of_deep),
    "deep, many": Situation("the same, 2,000 rows", lambda: _deep(2000), _truth_of_deep),
    "shared": Situation("one draw of unimportant inputs for two readers", _shared),
    "sum": Situation("f is a sum over sites", _blocks(60, 6, _sum), _truth_of_sum),
    "product": Situation("f is a product, of which no site tells alone", _blocks(60, 60, _signs)),
    "0-1 usual": Situation("0/1 losses, 1 on a third of draws or so", lambda: _zero_one(0.7)),
    "0-1 rare": Situation("0/1 losses, 1 on fewer than 1 in 100 draws", lambda: _zero_one(3.4)),
    "heavy": Situation("exponential of a sum, tails as of a lognormal of deviation 2", _heavy),
    "outlier": Situation("a sum, one row in 300 being 100 deviations off", _outlier, _truth_of_sum),
}
