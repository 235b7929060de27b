"""A hypothesis as plain data: what enumeration in rational numbers reads, and nothing of the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Claimed:
    """An interpretation node: its value on each row, the nodes it reads, the unimportant graph nodes beside them."""

    feature: tuple[int, ...]
    reads: tuple[str, ...] = ()
    unimportant: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Case:
    """A hypothesis as plain data.

    Args:
        name: what to call it where a check fails.
        x: the value of each row; equal ones are rows that repeat, and still two inputs.
        weights: of the rows, not scaled.
        claims: by name, the root first. Values are numbered by the first row that has them, as blocks are.
        sharing: of the draws of unimportant inputs.
    """

    name: str
    x: tuple[int, ...]
    weights: tuple[int, ...]
    claims: Mapping[str, Claimed]
    sharing: str | Mapping[str, tuple[str, ...]] = "reader"

    @property
    def root(self) -> str:
        return next(iter(self.claims))

    @property
    def uniform(self) -> bool:
        """Whether all rows that can be drawn are equally likely."""
        return len({weight for weight in self.weights if weight}) == 1
