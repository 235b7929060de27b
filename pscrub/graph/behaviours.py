"""Functions that users put on top of a module, opened into operations where torch can trace them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.fx.node import map_aggregate

from pscrub.graph.export import Parts, Rows, export_functional, mark_op, read_program
from pscrub.graph.graph import Function
from pscrub.graph.program import Excerpt, Marked


def open_function(fn: Function, values: Sequence[Tensor]) -> Excerpt | None:
    """A function's operations, as a module that takes what it takes; None where torch cannot trace it.

    Functions make the number of rows a constant (`len(x)`, `int(x.shape[0])`), which torch.export refuses: then it is
    traced at two sizes, and what is proportional to them is taken to be the number of rows.

    Args:
        fn: values of inputs, each [batch, ...] -> a value.
        values: of inputs, on an odd number of rows that is no other size of theirs.
    """

    class Calling(nn.Module):
        def forward(self, values: tuple[Tensor, ...]) -> Tensor:
            marked: Tensor = mark_op()(fn(*values), "value")
            return marked

    names, rows = [str(place) for place in range(len(values))], len(values[0])
    try:
        return _taken_apart(Parts(export_functional(Calling(), values), names))
    except Exception:
        try:
            fewer = next(n for n in range(rows - 2, 2, -2) if all(n not in value.shape[1:] for value in values))
            large, small = (
                export_functional(Calling(), [v[:n] for v in values], any_rows=False) for n in (rows, fewer)
            )
            return _taken_apart(_AtTwoSizes(large, small, names))
        except Exception:
            return None  # the function itself is run, and says what is wrong with it, if anything is


def _taken_apart(parts: Parts) -> Excerpt:
    program = read_program(parts)
    (mark,) = program.marks.values()
    columns = program.columns
    return Excerpt(Marked(program, columns, {}), mark, program.constants, range(len(columns)))


class _AtTwoSizes(Parts):
    """A program that was traced for a number of rows, beside the same traced for fewer."""

    def __init__(self, program: ExportedProgram, other: ExportedProgram, columns: Sequence[str]) -> None:
        super().__init__(program, columns)
        self.twins = dict(zip(program.graph.nodes, other.graph.nodes, strict=True))
        if any((node.op, node.target) != (twin.op, twin.target) for node, twin in self.twins.items()):
            raise ValueError("other operations for another number of rows")
        own = Parts(other, columns).constants
        if not all(torch.equal(held, own[self.twins[node]]) for node, held in self.constants.items()):
            raise ValueError("a literal that depends on the number of rows")
        first = next(iter(self.columns))
        self.sizes = [each.meta["val"].shape[0] for each in (first, self.twins[first])]

    def is_batch_first(self, node: fx.Node) -> bool:
        """Whether a value's first size is the number of rows, at both sizes."""
        found = [each.meta.get("val") for each in (node, self.twins[node])]
        return all(
            isinstance(value, Tensor) and value.shape[:1] == (size,)
            for value, size in zip(found, self.sizes, strict=True)
        )

    def arguments(self, node: fx.Node) -> Any:
        """Integers that differ with the size are multiples of the number of rows."""
        held, twin = super().arguments(node), self.twins[node]
        others = iter(_integers((twin.args, twin.kwargs)))
        most, fewer = self.sizes

        def put(value: Any) -> Any:
            if not isinstance(value, int):
                return value
            other = next(others)
            if value == other:
                return value
            if value % most or value * fewer != other * most:
                raise ValueError("an integer that is no multiple of the number of rows")
            return Rows(value // most)

        return map_aggregate(held, put)


def _integers(held: Any) -> list[int]:
    found: list[int] = []

    def see(value: Any) -> Any:
        found.extend([value] * isinstance(value, int))
        return value

    map_aggregate(held, see)
    return found
