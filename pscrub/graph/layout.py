"""Where the rows of a batch are in a value that does not have them first, and the value with them first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pscrub.graph.equal import find_gap

_aten = torch.ops.aten


@dataclass(frozen=True)
class Layout:
    """Rows along one axis of a value, which may hold other entries too: `before * rows * after` of them, rows amid.

    Args:
        axis: which.
        before: entries that the axis counts slower than rows: positions of [positions * batch, ...].
        after: those that it counts faster: positions of [batch * positions, ...].

    >>> value = torch.arange(12).reshape(3, 4)  # 3 positions of 2 rows, next to one another
    >>> layout = Layout(1, after=2)
    >>> layout.rows_first(value).shape, layout.as_found(layout.rows_first(value)).equal(value)
    (torch.Size([2, 3, 2]), True)
    """

    axis: int
    before: int = 1
    after: int = 1

    def rows_first(self, value: Tensor) -> Tensor:
        """[rows, ...]: the value's other axes in their order, what shared the axis of the rows apart."""
        for operation, *arguments in self.to_rows_first():
            value = operation(value, *arguments)
        return value

    def as_found(self, value: Tensor) -> Tensor:
        """The value that has its rows where they were found, from one that has them first."""
        for operation, *arguments in self.to_as_found():
            value = operation(value, *arguments)
        return value

    def to_rows_first(self) -> list[tuple[Any, ...]]:
        """Operations, each with its arguments after the value."""
        shared = [(_aten.unflatten.int, self.axis, [*self._before, -1, *self._after])]
        place = self.axis + len(self._before)
        return shared * bool(self._before + self._after) + [(_aten.movedim.int, place, 0)] * (place > 0)

    def to_as_found(self) -> list[tuple[Any, ...]]:
        """Operations, each with its arguments after the value."""
        place, last = self.axis + len(self._before), self.axis + len(self._before + self._after)
        shared = [(_aten.flatten.using_ints, self.axis, last)]
        return [(_aten.movedim.int, 0, place)] * (place > 0) + shared * (last > self.axis)

    @property
    def _before(self) -> list[int]:
        return [self.before] if self.before > 1 else []

    @property
    def _after(self) -> list[int]:
        return [self.after] if self.after > 1 else []


FIRST = Layout(0)
"""What is expected: the batch first."""


def find_layouts(whole: Mapping[str, Tensor], part: Mapping[str, Tensor], rows: int, few: int) -> dict[str, Layout]:
    """Where rows are in each value, if anywhere: the axis that grows with them, and the order that keeps rows apart.

    Args:
        whole: values for some rows.
        part: the same for the first few of them.
        rows: how many; no other size of a value should be a multiple of it by chance.
        few: how many, fewer than that.
    """
    found = {}
    for name, value in whole.items():
        layout = next(_candidates(value, part[name], rows, few), None)
        if layout is not None:
            found[name] = layout
    return found


def _candidates(value: Tensor, part: Tensor, rows: int, few: int) -> Iterator[Layout]:
    sizes = list(zip(value.shape, part.shape, strict=False))
    grown = [axis for axis, (many, less) in enumerate(sizes) if many != less]
    if value.ndim != part.ndim or len(grown) != 1:
        return
    many, less = sizes[grown[0]]
    times = many // rows
    if (times * rows, times * few) != (many, less):
        return
    orders = [Layout(grown[0], before, times // before) for before in range(1, times + 1) if times % before == 0]
    for layout in orders:
        if len(orders) == 1 or _keeps_rows(layout, value, part, few):
            yield layout


def _keeps_rows(layout: Layout, value: Tensor, part: Tensor, few: int) -> bool:
    """Whether few rows have alone what they have among more, to the rounding of kernels for other batch sizes."""
    gap, scale = find_gap(layout.rows_first(value)[:few], layout.rows_first(part))
    eps = torch.finfo(value.dtype).eps if value.is_floating_point() or value.is_complex() else 0.0
    return bool(gap <= max(1e-5, eps**0.5) * scale)
