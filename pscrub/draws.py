"""What was drawn for a hypothesis, and what it is seen against: plain frozen records that can be joined and saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor


def _numbers() -> Tensor:
    return torch.empty(0, dtype=torch.float64)


def _rows() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


class Equal:
    """Equality of dataclasses field by field, tensors entry by entry (NaN equals NaN)."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Round:
    """A set of draws made together, of which (seed, index) is the name: the same name gives the same draws.

    Args:
        seed: of the run.
        index: of the round within the run, from 0.
        size: its draws.
    """

    seed: int
    index: int
    size: int


@dataclass(frozen=True)
class SiteDraws:
    """How a site of the treeified hypothesis was served: what could be drawn for it, and what was.

    Args:
        path: of the site.
        at: the graph nodes that its datum stands for.
        feature: what its datum agrees on with its parent's; "unimportant" if on nothing.
        blocks: how many blocks the feature has.
        smallest: rows of the smallest.
        largest: rows of the largest.
        donors: effective rows that can be drawn given the parent's datum, (sum w)^2 / sum w^2 over its block, averaged
            over D. 1: nothing can be swapped.
        vacuous: the claim is meant to allow swaps, and allows none.
        draws: how many.
        own: of them, those that gave the parent's datum (for unimportant inputs, the root's) back.
        collisions: ordered pairs of different draws of one round that gave the same row.
        pairs: ordered pairs of different draws of one round.
    """

    path: str
    at: tuple[str, ...]
    feature: str
    blocks: int
    smallest: int
    largest: int
    donors: float
    vacuous: bool
    draws: int
    own: int
    collisions: int
    pairs: int

    @property
    def effective(self) -> float:
        """1 / sum p^2 of the rows drawn, p estimated without bias; infinite where no row came twice."""
        return self.pairs / self.collisions if self.collisions else float("inf")


@dataclass(frozen=True)
class Extreme:
    """One of the draws with the largest f.

    Args:
        loss: f.
        data: path of the root or a leaf -> (row, column -> value in short).
    """

    loss: float
    data: Mapping[str, tuple[int, Mapping[str, str]]]


@dataclass(frozen=True, eq=False)
class Draws(Equal):
    """The draws of one hypothesis.

    Args:
        rounds: in order of seed and index.
        losses: float64 [draws], f, pair by pair as `program.draw` stratifies them.
        rows: int64 [draws], the root's datum.
        distances: measure -> float64 [draws], between the model's output on the root's datum and the scrubbed output.
        sites: one for each site but the root.
        worst: the draws with the largest f, largest first.
    """

    rounds: tuple[Round, ...] = ()
    losses: Tensor = field(default_factory=_numbers)
    rows: Tensor = field(default_factory=_rows)
    distances: Mapping[str, Tensor] = field(default_factory=dict)
    sites: tuple[SiteDraws, ...] = ()
    worst: tuple[Extreme, ...] = ()

    @property
    def by_round(self) -> tuple[Tensor, ...]:
        """The losses of each round."""
        return self.losses.split([r.size for r in self.rounds]) if self.rounds else ()


@dataclass(frozen=True, eq=False)
class Groups(Equal):
    """The rows of D by the value of a column.

    Args:
        column: its name.
        names: the values.
        codes: int64 [N], the index of each row's value.
    """

    column: str
    names: tuple[str, ...]
    codes: Tensor


@dataclass(frozen=True, eq=False)
class Reference(Equal):
    """What the draws are seen against.

    Args:
        data_hash: of D's columns and weights.
        weights: float64 [N], of D.
        losses: float64 [N], f on D.
        randomised: float64 [pairs], f on sampled pairs of an output and an independent label; empty if the baseline
            was given.
        groups: the columns that the study is broken down by.
    """

    data_hash: str = ""
    weights: Tensor = field(default_factory=_numbers)
    losses: Tensor = field(default_factory=_numbers)
    randomised: Tensor = field(default_factory=_numbers)
    groups: tuple[Groups, ...] = ()


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(nan=0.5), b.nan_to_num(nan=0.5))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if is_dataclass(a) and type(a) is type(b):
        return all(_same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_same(*pair) for pair in zip(a, b, strict=True))
    return bool(a == b) or (isinstance(a, float) and isinstance(b, float) and a != a and b != b)
