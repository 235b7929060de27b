"""Numbers for values, so that equal operations on equal values are seen to be one value, in whatever graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from pscrub.graph.graph import Function, Graph
from pscrub.graph.ops import Moves, Reader, Sized, Slice, Whole, key_of


class Numbers(Reader):
    """Numbers of values on one and the same inputs: equal numbers, equal values, in whatever graph they stand."""

    def __init__(self) -> None:
        self._opened: dict[tuple[int, ...], tuple[int, Function]] = {}
        self.known: list[tuple[Any, tuple[int, ...]]] = []
        self._numbers: dict[Hashable, int] = {}

    def constant(self, tensor: Any) -> int:
        """The number of a parameter: one and the same object, one number."""
        return self._number(("constant", id(tensor)), tensor, ())

    def batch(self) -> int:
        """The number of the number of rows."""
        return self._number(("batch",), None, ())

    def device(self) -> int:
        """The number of the device."""
        return self._number(("device",), None, ())

    def apply(self, fn: Callable[..., Any], values: Sequence[int]) -> int:
        """The number of an operation's value; of slices that are put together as they were cut, that of the whole."""
        args = tuple(values)
        if isinstance(fn, Sized):
            return args[0]  # the value itself
        if isinstance(fn, Whole):
            cut = [self.known[each] for each in args]
            pairs = zip(cut, fn.parts, strict=True)
            if len({of for _, of in cut}) == 1 and all(each == Slice(fn.axis, part) for (each, _), part in pairs):
                return cut[0][1][0]
        if isinstance(fn, Moves):
            fn, args = fn.seen_through(args, lambda each: (*self.known[each], (each, None)), lambda source: source[0])
        return args[0] if fn is None else self._number((key_of(fn), args), fn, args)

    def through(self, fn: Function, values: Sequence[int]) -> int:
        """The number of a function's value, opened once for the same values."""
        key = id(fn), *values
        if key not in self._opened:
            self._opened[key] = super().through(fn, values), fn
        return self._opened[key][0]

    def f_of(self, graph: Graph) -> int:
        """The number of a graph's output."""
        given = {name: self._number(("column", name), None, ()) for name in graph.inputs}
        for name in graph.order([graph.output], given):
            node = graph.nodes[name]
            given[name] = self.through(node.fn, [given[each] for each in node.inputs])
        return given[graph.output]

    def _number(self, key: Hashable, fn: Any, args: tuple[int, ...]) -> int:
        if key not in self._numbers:
            self._numbers[key] = len(self.known)
            self.known.append((fn, args))
        return self._numbers[key]
