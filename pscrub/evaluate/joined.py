"""Pieces of one value that stand side by side on D, so that those of many data are gathered at once.

A layer's input at forty positions, each of another datum, is forty small gathers and one that puts them together: more
time than the attention that reads it. Kept in one tensor, they are one gather.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.evaluate.plan import Kind, Values
from pscrub.graph.ops import Slice, Whole

MANY = 4
"""Pieces from which they are kept side by side."""


@dataclass(frozen=True)
class Place:
    """Where a piece stands.

    Args:
        whole: [N, entries, ...], all pieces, the axis that they were cut along after the rows.
        first: its first entry.
        axis: of the value that it was cut from.
    """

    whole: Tensor
    first: int
    axis: int


@dataclass(frozen=True, eq=False)
class Gather:
    """What is put together of pieces of several data, read from where they stand side by side.

    Args:
        whole: [N, entries, ...].
        axis: along which they are put together.
        data: the path of each piece's datum.
        piece: int64, of each entry along the axis, which piece it is of; empty where each is the next piece.
        entry: int64, where it stands among all that are kept.
    """

    whole: Tensor
    axis: int
    data: tuple[str, ...]
    piece: Tensor
    entry: Tensor

    def __call__(self, data: Mapping[str, Tensor]) -> Tensor:
        """The value [draws, ...]; of path -> int64 [draws]."""
        rows = torch.stack([data[path] for path in self.data], 1)
        rows = rows.index_select(1, self.piece) if len(self.piece) else rows
        places = rows * self.whole.shape[1] + self.entry
        found = self.whole.flatten(0, 1).index_select(0, places.flatten())
        return found.view(*places.shape, *self.whole.shape[2:]).movedim(1, self.axis)


class Joined:
    """The pieces that stand side by side, by number.

    Args:
        values: that the numbers are of.
    """

    def __init__(self, values: Values) -> None:
        self.values, self.places = values, dict[int, Place]()
        self._gathers: dict[int, Gather] = {}

    def rooms(self, made: Mapping[int, Tensor], rows: int) -> dict[int, Tensor]:
        """Number -> an empty tensor [rows, ...] for its value; views of one where many pieces are of one value.

        Args:
            made: number on D -> its value on some rows.
            rows: of D.
        """
        alike = defaultdict[tuple[int, int], list[int]](list)
        for n, value in made.items():
            if isinstance(cut := self.values[n].of, Slice):
                alike[self.values[n].args[0], cut.axis % value.ndim].append(n)
        found = {}
        for (_, axis), pieces in alike.items():
            like = made[pieces[0]].movedim(axis, 1)
            if len(pieces) < MANY or any(made[n].movedim(axis, 1).shape[2:] != like.shape[2:] for n in pieces):
                continue
            sizes = [made[n].shape[axis] for n in pieces]
            whole, first = like.new_empty((rows, sum(sizes), *like.shape[2:])), 0
            for n, size in zip(pieces, sizes, strict=True):
                self.places[n] = Place(whole, first, axis)
                found[n] = whole.narrow(1, first, size).movedim(1, axis)
                first += size
        return {n: found[n] if n in found else value.new_empty((rows, *value.shape[1:])) for n, value in made.items()}

    def gathered(self, numbers: Iterable[int]) -> list[int]:
        """Those of some numbers that are put together of nothing but many pieces that stand side by side."""
        return [n for n in numbers if self._is_gathered(n)]

    def gather(self, number: int) -> Gather:
        """How one of `gathered` is read."""
        if number not in self._gathers:
            value, at = self.values[number], dict[int, tuple[int, int]]()
            for i, (n, part) in enumerate(zip(value.args, value.of.parts, strict=True)):
                at |= {where: (i, self._place(n).first + k) for k, where in enumerate(part)}
            first = self._place(value.args[0])
            piece, entry = (list(each) for each in zip(*(at[i] for i in sorted(at)), strict=True))
            order = [] if piece == [*range(len(value.args))] else piece
            device = first.whole.device
            kinds = (torch.tensor(each, dtype=torch.int64, device=device) for each in (order, entry))
            paths = tuple(self.values[n].of for n in value.args)
            self._gathers[number] = Gather(first.whole, first.axis, paths, *kinds)
        return self._gathers[number]

    def _place(self, pure: int) -> Place:
        return self.places[self.values[pure].args[0]]

    def _is_gathered(self, number: int) -> bool:
        value = self.values[number]
        if value.kind is not Kind.MIXED or not isinstance(value.of, Whole) or len(value.args) < MANY:
            return False
        if any(self.values[n].kind is not Kind.PURE or self.values[n].args[0] not in self.places for n in value.args):
            return False
        first, *others = (self._place(n) for n in value.args)
        alike = all(each.whole is first.whole for each in others)
        return alike and value.of.axis % first.whole.ndim == first.axis
