"""Where in a value a piece of it is, and how pieces are put at their places again.

Any number of pieces is put back in one operation, of which the engine sees through as much as comes from one value:
pieces that are put where they were taken from are that value, and cost nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pscrub.graph.graph import Node
from pscrub.graph.ops import Moves, Opened, Reader, Slice

Cut = tuple[tuple[int, tuple[int, ...]], ...]
"""Axes, never the batch, in ascending order, and which of their entries; none for the whole value."""
Source = tuple[int, Any]
"""Number of a value, on D or for each draw, and the datum that it is on (None if it is on no single one)."""
Look = Callable[[int], tuple[Any, tuple[int, ...], Source]]
"""Number of a value -> the operation that makes it, the numbers that this reads (on the datum), and as a source."""


@dataclass(frozen=True)
class Place:
    """A box of a value [batch, ..., width] of two or three axes.

    Args:
        positions: which of axis 1; None for all, or where a column tells the one.
        entries: which of the last axis; None for all.
        offset: of a box that a column tells the position of: added to the column's.
    """

    positions: tuple[int, ...] | None = None
    entries: tuple[int, ...] | None = None
    offset: int | None = None

    @property
    def is_told(self) -> bool:
        """Whether a column tells its position."""
        return self.offset is not None

    def steps(self, axes: int) -> list[Pick | Slice]:
        """The operations that cut it out of a value of so many axes, first to last; `Pick` reads the column too."""
        steps: list[Pick | Slice] = [Pick(self.offset)] if self.offset is not None else []
        if self.positions is not None:
            steps.append(Slice(1, self.positions))
        return [*steps, Slice(axes - 1, self.entries)] if self.entries is not None else steps

    def of(self, whole: Tensor, column: Tensor | None) -> tuple[Any, ...]:
        """The index of the box in a value: of rows, positions and entries."""
        device, every = whole.device, slice(None)
        entries = every if self.entries is None else _index(self.entries, device)
        if column is not None:
            rows = torch.arange(len(whole), device=device)
            at = column.to(device).long() + (self.offset or 0)
            return (rows, at, every) if self.entries is None else (rows[:, None], at[:, None], entries)
        if whole.ndim == 2:
            return every, entries
        positions = every if self.positions is None else _index(self.positions, device)
        if isinstance(positions, Tensor) and isinstance(entries, Tensor):
            positions = positions[:, None]
        return every, positions, entries


@dataclass(frozen=True)
class Pick(Moves):
    """Of each row the entry of axis 1 that a column tells: value [batch, n, ...], column [batch] -> [batch, 1, ...].

    Args:
        offset: added to the column's.
    """

    offset: int

    def __call__(self, value: Tensor, column: Tensor) -> Tensor:
        """The entries, the axis kept."""
        rows = torch.arange(len(value), device=value.device)
        found: Tensor = value[rows, column.to(value.device).long() + self.offset]
        return found.unsqueeze(1)


@dataclass(frozen=True)
class Put(Moves):
    """Pieces of a value put at their places: of another value, or of one that they fill.

    Called with the value (if there is one), the pieces, and the column of each place that is told, in their order.

    Args:
        shape: of the value, the batch apart.
        places: of the pieces, no two of which meet.
        onto: whether there is a value that they are put on.
    """

    shape: tuple[int, ...]
    places: tuple[Place, ...]
    onto: bool

    def __call__(self, *values: Tensor) -> Tensor:
        """The value [batch, *shape]."""
        first, pieces, columns = self.parts(values)
        whole: Tensor = pieces[0].new_empty((len(pieces[0]), *self.shape)) if first is None else first.clone()
        for place, piece, column in zip(self.places, pieces, columns, strict=True):
            told = column is not None and place.entries is None
            whole[place.of(whole, column)] = piece[:, 0] if told else piece
        return whole

    def seen_through(
        self, args: Sequence[int], look: Look, make: Callable[[Source], int]
    ) -> tuple[Put | None, tuple[int, ...]]:
        """The least that has to be put, and the numbers that it reads: one and no operation if that is all."""
        return Simplifier(look, make).simplify(self, args)

    def parts(self, values: Sequence[Any]) -> tuple[Any | None, Sequence[Any], Sequence[Any | None]]:
        """What is put upon, the pieces, and for each the column that tells its position, if one does."""
        first, values = (values[0], values[1:]) if self.onto else (None, values)
        columns = iter(values[len(self.places) :])
        return first, values[: len(self.places)], [next(columns) if p.is_told else None for p in self.places]


@dataclass(frozen=True)
class Blank(Moves):
    """A value but for some boxes of it, which hold 0: nothing of what is put there is left to be read.

    Args:
        places: none of them told by a column.
    """

    places: tuple[Place, ...]

    def __call__(self, value: Tensor) -> Tensor:
        """The value with the boxes blank."""
        left = value.clone()
        for place in self.places:
            left[place.of(left, None)] = 0
        return left


class Told(Opened):
    """The column that tells where pieces are: read on the reader's own datum, for there the pieces are put.

    Args:
        column: its name.
    """

    def __init__(self, column: str) -> None:
        super().__init__()
        self.column = column

    def open(self, values: Sequence[Any], through: Callable[[Any, Sequence[Any]], Any]) -> Any:
        return values[0]


def only_moves(node: Node) -> bool:
    """Whether a node does no more than cut values and put them together."""
    seen = _Seen()
    seen.through(node.fn, [None] * len(node.inputs))
    return seen.only


class _Seen(Reader):
    """Opens a function to see what it is made of; values do not matter."""

    only = True

    def apply(self, fn: Callable[..., Any], values: Sequence[Any]) -> Any:
        self.only &= isinstance(fn, Moves)

    def constant(self, tensor: Any) -> Any:
        self.only = False

    def batch(self) -> Any:
        return None

    def device(self) -> Any:
        return None


class Simplifier:
    """Sees pieces that come from one value as that value.

    Args:
        look: what a number is.
        make: source -> the number of the value on its datum.
    """

    def __init__(self, look: Look, make: Callable[[Source], int]) -> None:
        self.look, self.make = look, make

    def simplify(self, put: Put, args: Sequence[int]) -> tuple[Put | None, tuple[int, ...]]:
        """The least that has to be put, and the numbers that it reads: one and no operation if that is all.

        Args:
            put: the operation.
            args: numbers of what it is called with.
        """
        first, pieces, columns = put.parts(args)
        found = [self._source(put, *each) for each in zip(put.places, pieces, columns, strict=True)]
        if first is not None:
            base: Source | None = self._under(first, put)
        else:
            base, times = next(iter(Counter(each for each in found if each is not None).most_common(1)), (None, 0))
            base = base if times > 1 or len(found) == 1 else None
        if base is None:
            return put, tuple(args)
        left = [i for i, source in enumerate(found) if source != base]
        onto = self.make(base)
        if not left:
            return None, (onto,)
        told = [column for i in left if (column := columns[i]) is not None]
        return Put(put.shape, tuple(put.places[i] for i in left), True), (onto, *(pieces[i] for i in left), *told)

    def _key(self, number: int) -> Source:
        return self.look(number)[2]

    def _under(self, first: int, put: Put) -> Source:
        """What pieces are put on; blanks that they fill are seen through."""
        of, args, source = self.look(first)
        return (args[0], source[1]) if isinstance(of, Blank) and {*of.places} <= {*put.places} else source

    def _source(self, put: Put, place: Place, piece: int, column: int | None) -> Source | None:
        """What a piece was taken from at the very place where it is put."""
        number, datum = self._key(piece)
        for step in reversed(place.steps(1 + len(put.shape))):
            of, args, _ = self.look(number)
            if of != step:
                return None
            if isinstance(step, Pick) and (column is None or not self._same(args[1], datum, column)):
                return None
            number = args[0]
        return number, datum

    def _same(self, number: int, datum: Any, column: int) -> bool:
        own, its = self._key(column)
        return (number == own and datum == its) if datum is not None else number == column


def narrow_put(put: Put, args: Sequence[int], cut: Cut) -> tuple[Put | None, list[tuple[int, Cut]]] | None:
    """How a part of what is put together is computed: the operation, if one is left, and what is read of its arguments.

    Args:
        put: the operation.
        args: numbers of what it is called with.
        cut: the part.

    Returns: None if it cannot be told, as a column tells where a piece is along an axis that is cut.
    """
    axes, cuts = len(put.shape), dict(cut)
    first, pieces, columns = put.parts(args)
    if axes > 1 and 1 in cuts and any(place.is_told for place in put.places):
        return None
    sizes = [len(cuts[axis + 1]) if axis + 1 in cuts else size for axis, size in enumerate(put.shape)]
    asked, told, places, covered = list[tuple[int, Cut]](), list[tuple[int, Cut]](), list[Place](), 0
    for place, piece, column in zip(put.places, pieces, columns, strict=True):
        positions, own_positions = _meet(place.positions, cuts.get(1) if axes > 1 else None)
        entries, own_entries = _meet(place.entries, cuts.get(axes))
        if positions == () or entries == ():
            continue
        places.append(Place(positions, entries, place.offset))
        own = {1: own_positions, axes: own_entries}
        asked.append((piece, tuple((axis, part) for axis, part in sorted(own.items()) if part is not None)))
        told += [(column, ())] if column is not None else []
        height = 1 if place.is_told or axes == 1 else sizes[0] if positions is None else len(positions)
        covered += height * (sizes[-1] if entries is None else len(entries))
    if first is not None and not places:
        return None, [(first, cut)]
    full = covered == math.prod(sizes)
    if full and len(places) == 1 and not places[0].is_told:
        return None, asked
    onto = [(first, cut)] if first is not None and not full else []
    return Put(tuple(sizes), tuple(places), bool(onto)), [*onto, *asked, *told]


def _meet(box: tuple[int, ...] | None, cut: tuple[int, ...] | None) -> tuple[Any, Any]:
    """Where in a cut a box's indices are, and which of the box's these are; None for all."""
    if cut is None:
        return box, None
    if box is None:
        return None, cut
    place = {index: i for i, index in enumerate(box)}
    met = [(i, place[index]) for i, index in enumerate(cut) if index in place]
    own = tuple(each for _, each in met)
    return tuple(i for i, _ in met), None if own == tuple(range(len(box))) else own


def _index(part: tuple[int, ...], device: torch.device) -> slice | Tensor:
    if part == tuple(range(part[0], part[0] + len(part))):
        return slice(part[0], part[0] + len(part))
    return torch.tensor(part, device=device)
