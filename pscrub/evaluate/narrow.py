"""Only what is read is computed: slices are pushed up through the operations that they commute with.

A reader of one head at one position needs that head's keys and values everywhere and its query there, and nothing of
other heads. Operations are pushed through where the rule is known to be exact: elementwise ones, products, norms and
softmax over other axes, attention's queries and heads, reshapes that keep the axis, and slices. Anything else is
computed whole, and so is a value of which the parts that are read would take as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from pscrub.evaluate.plan import ROWLESS, Kind, Values, order_of
from pscrub.graph.ops import Operation, Sized, Slice, Whole
from pscrub.graph.places import Pick, Put, narrow_put

_aten = torch.ops.aten

Cut = tuple[tuple[int, tuple[int, ...]], ...]
"""Axes, never the batch, in ascending order, and which of their entries; none for the whole value."""
Asked = list[tuple[int, Cut]]
"""Numbers of values, and what is read of each."""
Step = tuple[Callable[..., Any] | None, Asked]
"""An operation and what it reads; None in its place if its value is what it reads."""
Shape = Callable[[int], Sequence[int] | None]

_EACH = (
    "add sub mul div pow neg exp log sqrt rsqrt tanh sigmoid relu gelu silu abs sin cos erf square reciprocal clamp "
    "where masked_fill maximum minimum eq ne lt le gt ge logical_not logical_and logical_or to _to_copy clone"
)
ELEMENTWISE = {
    getattr(getattr(_aten, name), overload)
    for name in _EACH.split(" ")
    for overload in getattr(_aten, name).overloads()
    if not overload.endswith("out") and not overload.startswith("prim") and overload != "other"
}
NORMS = (_aten.layer_norm.default, _aten.rms_norm.default)
SOFTMAX = (_aten.softmax.int, _aten.log_softmax.int, _aten._softmax.default, _aten._log_softmax.default)
PRODUCTS = (_aten.matmul.default, _aten.bmm.default, _aten.mm.default)
SUMS = (_aten.sum.dim_IntList, _aten.mean.dim)
RESHAPES = (_aten.reshape.default, _aten.view.default, _aten._unsafe_view.default)


class Narrowing:
    """What is read of each mixed value, and the numbers of what is computed in its place.

    Args:
        values: the numbers.
        shape: number of a value on D (or without rows) -> its shape, on any number of rows; None if it is not known.
    """

    def __init__(self, values: Values, shape: Shape) -> None:
        self.values, self._shape_on_data = values, shape
        self._alike: dict[int, int] = {}
        self._kept: dict[int, set[Cut]] = {}
        self._steps: dict[tuple[int, Cut], Step] = {}
        self._made: dict[tuple[int, Cut], int] = {}

    def narrow(self, roots: Sequence[int]) -> dict[int, int]:
        """Number -> that of the same value, for roots, what lies behind them being computed as far as it is read."""
        values = self.values
        order = order_of(values, roots, lambda n: values[n].kind is not Kind.MIXED)
        for n in order:
            args = [self._alike.get(arg, self._on_data(arg)) for arg in values[n].args]
            self._alike[n] = values.apply(values[n].of, args)
        asked: dict[int, set[Cut]] = {n: set() for n in order}
        for root in roots:
            asked.setdefault(root, set()).add(())
        for n in reversed(order):
            steps = {cut: self.step(n, cut) for cut in asked[n]}
            shares = sum(self._share(n, cut) for cut in steps)
            if any(step is None for step in steps.values()) or (shares >= 1 and () not in steps):
                steps = {(): self.step(n, ())}
            elif () in steps:
                steps = {(): steps[()]}
            self._kept[n] = set(steps)
            for cut, step in steps.items():
                assert step is not None
                self._steps[n, cut] = step
                for arg, part in step[1]:
                    if values[arg].kind is Kind.MIXED:
                        asked[arg].add(part)
        for n in order:
            for cut in self._kept[n]:
                fn, reads = self._steps[n, cut]
                numbers = [self._take(arg, part) for arg, part in reads]
                self._made[n, cut] = numbers[0] if fn is None else values.apply(fn, numbers)
        return {root: self._made.get((root, ()), root) for root in roots}

    def step(self, n: int, cut: Cut) -> Step | None:
        """How a part of a mixed value is computed; None if no rule is known. The whole always can be."""
        fn, args, out = self.values[n].of, self.values[n].args, self.shape(n)
        if isinstance(fn, Sized):
            return (None if cut else fn), [(args[0], cut)]  # that it has its size was seen on D
        if isinstance(fn, Slice | Whole) and out is not None:
            axis = fn.axis % len(out)  # an axis may be counted from the last
            if isinstance(fn, Slice):
                return None, [(args[0], _within(cut, axis, fn.part))]
            if cut:
                return _of_parts(fn, axis, args, cut)
        elif isinstance(fn, Put) and cut:
            return narrow_put(fn, args, cut)
        elif isinstance(fn, Pick) and cut:  # one position, the axis kept
            return fn, [(args[0], tuple(each for each in cut if each[0] != 1)), (args[1], ())]
        elif isinstance(fn, Operation) and fn.has_rows and out is not None:
            found = _Rule(self, fn, args, out).step(cut)
            if found is not None:
                return found
        return None if cut else (fn, [(arg, ()) for arg in args])

    def shape(self, n: int) -> Sequence[int] | None:
        """The shape of a value, on some number of rows if it has any."""
        return self._shape_on_data(self._alike.get(n, self._on_data(n)))

    def _take(self, n: int, cut: Cut) -> int:
        """The number of a part of what is read."""
        if (n, cut) in self._made:
            return self._made[n, cut]
        found = self._made.get((n, ()), n)
        for axis, part in cut:
            found = self.values.apply(Slice(axis, part), [found])
        return found

    def _share(self, n: int, cut: Cut) -> float:
        shape = self.shape(n)
        return 1.0 if shape is None else math.prod(len(part) / shape[axis] for axis, part in cut)

    def _on_data(self, n: int) -> int:
        return self.values[n].args[0] if self.values[n].kind is Kind.PURE else n


class _Rule:
    """The rule of one operation of a traced program."""

    def __init__(self, narrowing: Narrowing, fn: Operation, args: Sequence[int], out: Sequence[int]) -> None:
        self.narrowing, self.fn, self.args, self.out = narrowing, fn, args, out
        self.given, self.keywords = fn.filled(list(args))

    def step(self, cut: Cut) -> Step | None:
        """How a part of the value is computed; None if this operation has no rule for it."""
        target, cuts = self.fn.target, dict(cut)
        if target in (_aten.slice.Tensor, _aten.select.int):
            return self._slice(cut)
        if not cut:
            return None
        if target in ELEMENTWISE:
            return self._broadcast(cut)
        x = self.args[0]
        shape = self.narrowing.shape(x)
        if shape is None or not self._has_rows(x):
            return None
        if target in NORMS:
            if any(axis >= len(self.out) - len(self.given[1]) for axis in cuts):
                return None
            return self.fn, [(x, cut), *((arg, ()) for arg in self.args[1:])]
        if target in SOFTMAX:
            return None if self.given[1] % len(self.out) in cuts else (self.fn, [(x, cut)])
        if target in PRODUCTS:
            return self._product(cut)
        if target is _aten.linear.default:
            last = len(self.out) - 1
            rows = ((0, cuts.pop(last)),) if last in cuts else ()
            return self.fn, [(x, _ordered(cuts)), *((arg, rows) for arg in self.args[1:])]
        if target in (_aten.transpose.int, _aten.permute.default):
            axes = list(range(len(self.out)))
            if target is _aten.transpose.int:
                a, b = (each % len(axes) for each in self.given[1:3])
                axes[a], axes[b] = b, a
            else:
                axes = [each % len(axes) for each in self.given[1]]
            return self._moved({axes[axis]: part for axis, part in cut})
        if target is _aten.unsqueeze.default:
            new = self.given[1] % len(self.out)
            return None if new in cuts else self._moved({a - (a > new): part for a, part in cut})
        if target is _aten.squeeze.dim:
            gone = self.given[1] % len(shape)
            if shape[gone] != 1:
                return self._moved(cuts)
            return self._moved({a + (a >= gone): part for a, part in cut})
        if target in SUMS and len(self.given) > 1 and self.given[1]:
            gone = {each % len(shape) for each in self.given[1]}
            left = [axis for axis in range(len(shape)) if len(self.out) == len(shape) or axis not in gone]
            found = {left[axis]: part for axis, part in cut}
            return None if gone & found.keys() else self._moved(found)
        return self._reshape(cut, shape) if target in RESHAPES else None

    def _has_rows(self, number: int) -> bool:
        """Whether the batch is known to be a value's first axis."""
        value = self.narrowing.values[number]
        if value.kind is Kind.PURE:
            value = self.narrowing.values[value.args[0]]
        if value.kind in ROWLESS:
            return False
        return value.kind is Kind.COLUMN or not isinstance(value.of, Operation) or value.of.has_rows

    def _moved(self, cuts: Mapping[int, tuple[int, ...]]) -> Step | None:
        return None if 0 in cuts else (self.fn, [(self.args[0], _ordered(cuts))])

    def _slice(self, cut: Cut) -> Step | None:
        x = self.args[0]
        shape = self.narrowing.shape(x)
        if shape is None or len(self.args) > 1 or not self._has_rows(x):
            return None
        axis = (self.given[1] if len(self.given) > 1 else 0) % len(shape)
        if self.fn.target is _aten.select.int:
            if axis == 0:
                return None
            index = (self.given[2] % shape[axis],)
            others = {a + (a >= axis): part for a, part in cut}
            squeeze = Operation.call(_aten.squeeze.dim, axis, has_rows=True)
            return squeeze, [(x, _ordered({**others, axis: index}))]
        bounds = [*self.given[2:5], *(None, None, 1)[len(self.given[2:5]) :]]
        if axis == 0:  # of rows: all of them, or no rule
            return (None, [(x, cut)]) if bounds[0] in (None, 0) and bounds[1] == 2**63 - 1 and bounds[2] == 1 else None
        return None, [(x, _within(cut, axis, tuple(range(shape[axis])[slice(*bounds)])))]

    def _broadcast(self, cut: Cut) -> Step | None:
        """Of operands aligned at their last axes, those as long as the value there."""
        asked: Asked = []
        for arg in self.args:
            shape = self.narrowing.shape(arg)
            if shape is None:
                return None
            own, behind = {}, len(self.out) - len(shape)
            for axis, part in cut:
                place = axis - behind
                if place < 0 or shape[place] == 1:
                    continue
                if shape[place] != self.out[axis] or (place == 0 and self._has_rows(arg)):
                    return None
                own[place] = part
            asked.append((arg, _ordered(own)))
        return self.fn, asked

    def _product(self, cut: Cut) -> Step | None:
        """Rows of the first factor, columns of the second, and of both what stands before."""
        shapes = [self.narrowing.shape(arg) for arg in self.args]
        if len(self.args) != 2 or any(shape is None or len(shape) < 2 for shape in shapes):
            return None
        asked: Asked = []
        for side, (arg, shape) in enumerate(zip(self.args, shapes, strict=True)):
            assert shape is not None
            own, behind = {}, len(self.out) - len(shape)
            for axis, part in cut:
                place, back = axis - behind, axis - len(self.out)
                if back == (-1, -2)[side] or place < 0 or (back < -2 and shape[place] == 1):
                    continue  # of the other factor
                if shape[place] != self.out[axis] or (place == 0 and self._has_rows(arg)):
                    return None
                own[place] = part
            asked.append((arg, _ordered(own)))
        return self.fn, asked

    def _reshape(self, cut: Cut, shape: Sequence[int]) -> Step | None:
        """Axes that stay what they are: as long, and with as many entries behind them."""
        sizes = list(self.given[1])
        own: dict[int, tuple[int, ...]] = {}
        for axis, part in cut:
            behind = math.prod(self.out[axis + 1 :])
            place = next((i for i in range(1, len(shape)) if math.prod(shape[i + 1 :]) == behind), None)
            if place is None or shape[place] != self.out[axis] or len(sizes) != len(self.out):
                return None
            own[place], sizes[axis] = part, len(part)
        # Numbers of values stand for sizes that depend on the rows: these are read as before.
        fn, others = self.fn.with_sizes(sizes), self.args[1:]
        return fn, [(self.args[0], _ordered(own)), *((arg, ()) for arg in others)]


def _ordered(cuts: Mapping[int, tuple[int, ...]]) -> Cut:
    return tuple(sorted(cuts.items()))


def _within(cut: Cut, axis: int, part: tuple[int, ...]) -> Cut:
    """What is read of a value of which a part is sliced, and of that a part."""
    cuts = dict(cut)
    return _ordered({**cuts, axis: tuple(part[i] for i in cuts[axis]) if axis in cuts else part})


def _of_parts(fn: Whole, axis: int, args: Sequence[int], cut: Cut) -> Step | None:
    """Of slices that are put together along an axis: all of them, or the only one that is read."""
    cuts = dict(cut)
    if axis not in cuts:
        return fn, [(arg, cut) for arg in args]
    wanted = cuts.pop(axis)
    for arg, part in zip(args, fn.parts, strict=True):
        if set(wanted) <= set(part):
            return None, [(arg, _ordered({**cuts, axis: tuple(map(part.index, wanted))}))]
    return None
