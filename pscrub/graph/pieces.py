"""Pieces of a node's value: a head, a position, a set of neurons, a direction, made when a claim names them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Position:
    """Where along the axis of positions: the same on every row, or told by a column of the data.

    Args:
        column: a column, int64 [N], of each row's position; "" for the same on every row.
        offset: added to the column's; without a column the position itself, counted from the end if negative.
    """

    column: str = ""
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.column}{self.offset:+}" if self.column and self.offset else self.column or str(self.offset)


@dataclass(frozen=True, eq=False)
class Subspace:
    """Directions of the last axis: x is (x @ read) @ write and the rest.

    Args:
        read: float [width, k], what the coordinates are read by.
        write: float [k, width], what they are written by; for orthonormal directions the transpose of `read`.
    """

    read: Tensor
    write: Tensor


@dataclass(frozen=True)
class Piece:
    """A piece of a node's value [batch, positions, width], or [batch, width].

    Args:
        name: what the graph's node of it is to be called.
        node: the node that it is a piece of.
        entries: which of the last axis (a head, neurons); None for all.
        position: which of axis 1; None for all.
        within: directions of what `entries` leave; None for all.
    """

    name: str
    node: str
    entries: tuple[int, ...] | None = None
    position: Position | None = None
    within: Subspace | None = None
