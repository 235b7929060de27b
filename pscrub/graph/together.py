"""What pieces of a node compute, what is left of the node, and how readers put both together again."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pscrub.graph.graph import Function, Node
from pscrub.graph.ops import Moves, Opened
from pscrub.graph.places import Blank, Pick, Place, Put


class Along(nn.Module, Moves):
    """A value's last axis by a matrix. Its rows stay apart, and nothing is drawn.

    Args:
        matrix: [width, k].
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix.detach().clone())

    def forward(self, value: Tensor) -> Tensor:
        """[..., k]."""
        matrix: Tensor = self.matrix  # type: ignore[assignment]
        return value @ matrix.to(value.dtype)


class Box(Opened):
    """A box of a node's value; what tells its position is read beside."""

    def __init__(self, place: Place, axes: int) -> None:
        super().__init__()
        self.place, self.axes = place, axes

    def open(self, values: Sequence[Any], through: Callable[[Function, Sequence[Any]], Any]) -> Any:
        value, columns = values[0], values[1:]
        for step in self.place.steps(self.axes):
            value = through(step, [value, *columns] if isinstance(step, Pick) else [value])
        return value


class Coordinates(Opened):
    """What a box of a value is along directions."""

    def __init__(self, box: Box, read: Along) -> None:
        super().__init__()
        self.box, self.read = box, read

    def open(self, values: Sequence[Any], through: Callable[[Function, Sequence[Any]], Any]) -> Any:
        return through(self.read, [through(self.box, values)])


class Rest(Opened):
    """What pieces leave of a value: 0 where they were cut out, and boxes without what lies along directions."""

    def __init__(
        self,
        shape: tuple[int, ...],
        blank: tuple[Place, ...],
        without: Sequence[tuple[Place, str | None, Sequence[tuple[Along, Along]]]],
    ) -> None:
        super().__init__()
        self.shape, self.blank = shape, blank
        self.columns = [*dict.fromkeys(column for _, column, _ in without if column)]
        self.boxes = [(Box(place, 1 + len(shape)), column, pairs) for place, column, pairs in without]
        self.inside = nn.ModuleList(each for _, _, pairs in without for pair in pairs for each in pair)
        self.put = Put(shape, tuple(place for place, _, _ in without), True)

    def open(self, values: Sequence[Any], through: Callable[[Function, Sequence[Any]], Any]) -> Any:
        whole, told = values[0], dict(zip(self.columns, values[1:], strict=True))
        left, columns = [], []
        for box, column, pairs in self.boxes:
            columns += [told[column]] if column else []
            value = through(box, [whole, *([told[column]] if column else [])])
            rest = value
            for read, write in pairs:
                rest = through(operator.sub, [rest, through(write, [through(read, [value])])])
            left.append(rest)
        whole = through(self.put, [whole, *left, *columns]) if left else whole
        return through(Blank(self.blank), [whole]) if self.blank else whole


class Together(Opened):
    """A node's value from its rest and its pieces.

    Args:
        shape: the batch apart.
        reads: names of the rest, if there is one, the pieces and what tells positions.
        onto: whether there is a rest.
        boxes: place, what tells it, names of its pieces, and what these are written by if they are directions.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        reads: tuple[str, ...],
        onto: bool,
        boxes: Sequence[tuple[Place, str | None, tuple[str, ...], Sequence[Along]]],
    ) -> None:
        super().__init__()
        self.reads, self.onto = reads, onto
        self.boxes = [(Box(place, 1 + len(shape)), column, names, writes) for place, column, names, writes in boxes]
        self.inside = nn.ModuleList(write for *_, writes in boxes for write in writes)
        self.put = Put(shape, tuple(place for place, _, _, _ in boxes), onto)

    def open(self, values: Sequence[Any], through: Callable[[Function, Sequence[Any]], Any]) -> Any:
        known = dict(zip(self.reads, values, strict=True))
        parts, told = [], []
        for box, column, names, writes in self.boxes:
            columns = [known[column]] if column else []
            told += columns
            if not writes:
                parts.append(known[names[0]])
                continue
            value = through(box, [values[0], *columns])
            for name, write in zip(names, writes, strict=True):
                value = through(operator.add, [value, through(write, [known[name]])])
            parts.append(value)
        return through(self.put, [*values[:1], *parts, *told] if self.onto else [*parts, *told])


class Reading(Opened):
    """A node's function on what nodes that it read were cut into."""

    def __init__(self, old: Node, inputs: tuple[str, ...], made: Mapping[str, Together]) -> None:
        super().__init__()
        self.old, self.old_inputs, self.inputs = old.fn, old.inputs, inputs
        self.names = [name for name in dict.fromkeys(old.inputs) if name in made]
        self.made = [made[name] for name in self.names]
        self.inside = nn.ModuleList(self.made)

    def open(self, values: Sequence[Any], through: Callable[[Function, Sequence[Any]], Any]) -> Any:
        known = dict(zip(self.inputs, values, strict=True))
        for name, together in zip(self.names, self.made, strict=True):
            known[name] = through(together, [known[each] for each in together.reads])
        return through(self.old, [known[name] for name in self.old_inputs])
