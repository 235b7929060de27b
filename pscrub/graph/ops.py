"""A graph's functions opened into single operations, so that what several of them share is computed once.

What is not named in a graph is inlined into every reader: readers of one residual stream each hold the layers in
between. Opened, equal operations on equal values are one value, whoever reads it. A function that was traced is opened
into its operations; what rewrites put around functions is opened too; any other function stays one operation.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate

from pscrub.errors import GraphError
from pscrub.graph.graph import Function

_aten = torch.ops.aten


class Opened(nn.Module):
    """A function made of others, which can be run on what stands for values as well as on values."""

    def open(self, values: Sequence[Any], through: Callable[[Function, Sequence[Any]], Any]) -> Any:
        """What `forward` computes, each function inside being run by `through(function, values)`."""
        raise NotImplementedError

    def forward(self, *values: Tensor) -> Tensor:
        """The function itself."""
        result: Tensor = self.open(values, lambda fn, given: fn(*given))
        return result


class Listed(nn.Module):
    """A function that is a list of operations, which tells a reader of each."""

    checked = False
    """Whether tracing has seen that it treats rows alone as together, and the same every time."""

    def read(self, values: Sequence[Any], reader: Reader) -> Any:
        """What stands for its value."""
        raise NotImplementedError


class Same(Opened):
    """A copy of a value, which is that value."""

    def open(self, values: Sequence[Any], through: Callable[[Function, Sequence[Any]], Any]) -> Any:
        return values[0]


class Moves:
    """What only cuts values and puts them together: equal ones do the same, and rows stay apart."""

    def seen_through(self, args: Any, *_: Any) -> tuple[Any, Any]:
        """What is left to be done, or None, and what it reads (`places.Put`)."""
        return self, args


@dataclass(frozen=True)
class Slice(Moves):
    """Some indices of a value along an axis, the axis kept.

    Args:
        axis: not the batch.
        part: the indices; a run of them is a view.
    """

    axis: int
    part: tuple[int, ...]

    @property
    def is_run(self) -> bool:
        """Whether the indices follow one another."""
        return not self.part or self.part == tuple(range(self.part[0], self.part[0] + len(self.part)))

    def __call__(self, value: Tensor) -> Tensor:
        """[..., indices, ...]."""
        if self.is_run:
            return value.narrow(self.axis, self.part[0] if self.part else 0, len(self.part))
        return value.index_select(self.axis, torch.tensor(self.part, device=value.device))


@dataclass(frozen=True)
class Whole(Moves):
    """Slices of one value, all of its axis, put together again.

    Args:
        axis: that they were cut along.
        parts: the indices of each.
    """

    axis: int
    parts: tuple[tuple[int, ...], ...]

    def __call__(self, *values: Tensor) -> Tensor:
        """The value, indices in their order."""
        runs, back = self._order
        if runs is not None:
            return torch.cat([values[i].narrow(self.axis, start, size) for i, start, size in runs], self.axis)
        joined = torch.cat(values, self.axis)
        return joined.index_select(self.axis, torch.tensor(back, device=joined.device))

    @cached_property
    def _order(self) -> tuple[list[list[int]] | None, list[int]]:
        """Runs that follow one another in one slice (which, where, how long), if they are few; where each index is."""
        where = {index: (i, k) for i, part in enumerate(self.parts) for k, index in enumerate(part)}
        runs = list[list[int]]()
        for i, k in (where[index] for index in sorted(where)):
            if runs and runs[-1][0] == i and sum(runs[-1][1:]) == k:
                runs[-1][2] += 1
            else:
                runs.append([i, k, 1])
        order = [index for part in self.parts for index in part]
        few = len(runs) <= 2 * len(self.parts) and len(where) == len(order)
        return (runs if few else None), sorted(range(len(order)), key=order.__getitem__)


@dataclass(frozen=True)
class Sized(Moves):
    """The value itself, once it is seen to have so many entries along an axis.

    Args:
        node: whose value, for the error.
        axis: not the batch.
        size: how many.
    """

    node: str
    axis: int
    size: int

    def __call__(self, value: Tensor) -> Tensor:
        """The value.

        Raises:
            GraphError: it has another shape.
        """
        if not -value.ndim < self.axis < value.ndim or value.shape[self.axis] != self.size:
            expected = f"an axis {self.axis} of length {self.size}, the batch apart"
            raise GraphError(f"split of '{self.node}': expected {expected}; its value has shape {list(value.shape)}")
        return value


@dataclass(frozen=True)
class Operation:
    """One call of a traced program: its target, and its arguments with places for values.

    Two calls that are equal as such give equal values for equal inputs: exported programs are free of mutation and of
    random numbers (tracing refuses both).

    Args:
        target: what is called.
        shape: arguments and keywords, frozen; equal only if of equal types too (1 is not 1.0).
        arguments: the same as they are passed.
        has_rows: its value is known to be one tensor, the batch first.
    """

    target: Any
    shape: Hashable
    arguments: Any
    has_rows: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operation) and (self.target, self.shape) == (other.target, other.shape)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.target, self.shape))

    @classmethod
    def call(cls, target: Any, *more: Any, values: int = 1, has_rows: bool = False) -> Operation:
        """A call on one value or several, and other arguments after them."""
        arguments: Any = ((*map(_Place, range(values)), *more), {})
        return cls(target, _freeze(arguments), arguments, has_rows)

    @classmethod
    def placed(cls, target: Any, arguments: Any, place: Callable[[Any], int | None], has_rows: bool) -> Operation:
        """A call of arguments and keywords, in which some are values.

        Args:
            target: what is called.
            arguments: with anything for values.
            place: which value an argument stands for; None if it is itself.
            has_rows: its value is one tensor, the batch first.
        """

        def put(each: Any) -> Any:
            at = place(each)
            return each if at is None else _Place(at)

        placed: Any = map_aggregate(arguments, put)
        return cls(target, _freeze(placed), placed, has_rows)

    @classmethod
    def repeated(cls, axes: int) -> Operation:
        """A value [1, ...] and a number of rows -> the value in as many rows; of so many axes more."""
        arguments: Any = ((_Place(0), [_Place(1), *[-1] * axes]), {})
        return cls(_aten.expand.default, _freeze(arguments), arguments)

    @property
    def takes(self) -> int:
        """How many values it takes."""
        found: set[int] = set()
        map_aggregate(self.arguments, lambda each: found.add(each.at) if isinstance(each, _Place) else None)
        return len(found)

    def __call__(self, *values: Any) -> Any:
        """The call on these values, in the order of its places."""
        if self._plain is None:
            args, kwargs = self.filled(values)
            return self.target(*args, **kwargs)
        args, places = list(self._plain[0]), self._plain[1]
        for slot, at in places:
            args[slot] = values[at]
        return self.target(*args, **self.arguments[1])

    @cached_property
    def _plain(self) -> tuple[list[Any], list[tuple[int, int]]] | None:
        """Arguments, and where values go among them; None if some go into lists or keywords."""
        args, kwargs = self.arguments
        slots = [(slot, each.at) for slot, each in enumerate(args) if isinstance(each, _Place)]
        found = list[Any]()
        map_aggregate((args, kwargs), lambda each: found.append(each) if isinstance(each, _Place) else None)
        return (list(args), slots) if len(found) == len(slots) else None

    def filled(self, values: Sequence[Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Arguments and keywords, with something in its places."""
        filled: Any = map_aggregate(self.arguments, lambda each: values[each.at] if isinstance(each, _Place) else each)
        args, kwargs = filled
        return args, kwargs

    def with_sizes(self, sizes: Sequence[Any]) -> Operation:
        """The call with other integers as its second argument, a list, its places kept."""
        (first, old, *rest), kwargs = self.arguments
        new = [before if isinstance(before, _Place) else size for before, size in zip(old, sizes, strict=True)]
        arguments = ((first, new, *rest), kwargs)
        return Operation(self.target, _freeze(arguments), arguments, self.has_rows)


@dataclass(frozen=True)
class _Place:
    at: int


class Reader:
    """What opens functions: it is told of every value that one reads or makes, and says what stands for it.

    `constant(x)`: a parameter. `batch()`: the number of rows. `device()`: where values are. `apply(fn, values)`: the
    value of an operation (an `Operation`, a `Slice`, a `Whole`, or a function that cannot be opened).
    """

    def constant(self, tensor: Any) -> Any:
        """What stands for a parameter, or any other constant."""
        raise NotImplementedError

    def batch(self) -> Any:
        """What stands for the number of rows."""
        raise NotImplementedError

    def device(self) -> Any:
        """What stands for the device that values are on."""
        raise NotImplementedError

    def apply(self, fn: Callable[..., Any], values: Sequence[Any]) -> Any:
        """What stands for the value of an operation."""
        raise NotImplementedError

    def through(self, fn: Function, values: Sequence[Any]) -> Any:
        """What stands for a function's value, all that can be opened in it being opened."""
        if isinstance(fn, Opened):
            return fn.open(values, self.through)
        if isinstance(fn, Listed):
            return fn.read(values, self)
        return self.apply(fn, values)

    def key(self, value: Any) -> Hashable:
        """What tells what stands for a value from others."""
        told: Hashable = value
        return told

    def first(self, key: Hashable, held: Any) -> bool:
        """Whether what is held under a key is the very object that was first told of."""
        return self._firsts.setdefault(key, held) is held

    def made(self, key: Hashable, values: Sequence[Any]) -> dict[int, Any]:
        """What was made so far of some values, to be added to: by its place in a program that the key tells."""
        # The values are held too, or what tells them is given anew.
        return self._made_of.setdefault((key, *map(self.key, values)), (values, {}))[1]

    @cached_property
    def _firsts(self) -> dict[Hashable, Any]:
        return {}

    @cached_property
    def _made_of(self) -> dict[Hashable, tuple[Sequence[Any], dict[int, Any]]]:
        return {}


def key_of(fn: Callable[..., Any]) -> Hashable:
    """What tells a function from others: what it says, of an operation or a slice; of any other that it is the same."""
    return fn if isinstance(fn, Operation | Moves) else id(fn)


def _freeze(value: Any) -> Hashable:
    """The value as something that can be looked up, told apart by type as well."""
    if isinstance(value, Mapping):
        return tuple((key, _freeze(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return tuple(_freeze(each) for each in value)
    if isinstance(value, slice):
        return "slice", _freeze((value.start, value.stop, value.step))
    # 0.0 equals -0.0, and what is divided by them does not.
    return type(value).__name__, value.hex() if isinstance(value, float) else value
