"""How a part of an operation's value is computed from parts of what it reads, where that is known to be exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pscrub.evaluate.attending import attend_causally, is_causal
from pscrub.evaluate.parts import Asked, Cut, Shape, Step, match_axes, move_part, ordered, within
from pscrub.evaluate.plan import ROWLESS, Kind, Values
from pscrub.graph.ops import Operation

_aten = torch.ops.aten

_EACH = (
    "add sub mul div pow neg exp log sqrt rsqrt tanh sigmoid relu gelu silu abs sin cos erf square reciprocal clamp "
    "where masked_fill maximum minimum eq ne lt le gt ge logical_not logical_and logical_or to _to_copy clone "
    "contiguous alias detach rsub round floor ceil sign softplus elu leaky_relu hardtanh mish bitwise_and bitwise_or "
    "bitwise_not __and__ __or__"
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
INDEXED = (_aten.index.Tensor, _aten.index_select.default, _aten.gather.default)
RESHAPES = (_aten.reshape.default, _aten.view.default, _aten._unsafe_view.default)


class Rule:
    """The rule of one operation of a traced program.

    Args:
        values: the numbers.
        shape: of a value, by its number.
        fn: the operation.
        args: numbers of what it reads.
        out: shape of its value.
        told: a value that is the same for all rows; None of one that is not, or cannot be read.
    """

    def __init__(
        self,
        values: Values,
        shape: Shape,
        fn: Operation,
        args: Sequence[int],
        out: Sequence[int],
        told: Callable[[int], Tensor | None],
    ) -> None:
        self.values, self.shape, self.fn, self.args, self.out, self.told = values, shape, fn, args, out, told
        self.given, self.keywords = fn.filled(list(args))

    def step(self, cut: Cut) -> Step | None:
        """How a part of the value is computed; None if this operation has no rule for it."""
        target, cuts = self.fn.target, dict(cut)
        if target in (_aten.slice.Tensor, _aten.select.int):
            return self._slice(cut)
        if target in INDEXED:
            shape = self.shape(self.args[0])
            return None if shape is None or not self._has_rows(self.args[0]) else self._indexed(cut, shape)
        if not cut:
            return None
        if target in ELEMENTWISE:
            return self._broadcast(cut)
        if target in _OF_SEVERAL:
            return None if 0 in cuts else _OF_SEVERAL[target](self, cut)
        x = self.args[0]
        shape = self.shape(x)
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
            return self.fn, [(x, ordered(cuts)), *((arg, rows) for arg in self.args[1:])]
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
        if target is _aten.expand.default:
            return self._expanded(cut, shape)
        if target is _aten.flatten.using_ints:
            first, end = ((*self.given[1:], *(0, -1)[len(self.given) - 1 :])[i] % len(shape) for i in range(2))
            if first == 0 or first in cuts:
                return None
            return self._moved({a + (end - first) * (a > first): part for a, part in cut})
        return self._reshape(cut, shape) if target in RESHAPES else None

    def _has_rows(self, number: int) -> bool:
        """Whether the batch is known to be a value's first axis."""
        value = self.values[number]
        if value.kind is Kind.PURE:
            value = self.values[value.args[0]]
        if value.kind in ROWLESS:
            return False
        return value.kind is Kind.COLUMN or not isinstance(value.of, Operation) or value.of.has_rows

    def _moved(self, cuts: Mapping[int, tuple[int, ...]]) -> Step | None:
        return None if 0 in cuts else (self.fn, [(self.args[0], ordered(cuts))])

    def _slice(self, cut: Cut) -> Step | None:
        x = self.args[0]
        shape = self.shape(x)
        if shape is None or len(self.args) > 1 or not self._has_rows(x):
            return None
        axis = (self.given[1] if len(self.given) > 1 else 0) % len(shape)
        if self.fn.target is _aten.select.int:
            if axis == 0:
                return None
            index = (self.given[2] % shape[axis],)
            others = {a + (a >= axis): part for a, part in cut}
            squeeze = Operation.call(_aten.squeeze.dim, axis, has_rows=True)
            return squeeze, [(x, ordered({**others, axis: index}))]
        bounds = [*self.given[2:5], *(None, None, 1)[len(self.given[2:5]) :]]
        if axis == 0:  # of rows: all of them, or no rule
            return (None, [(x, cut)]) if bounds[0] in (None, 0) and bounds[1] == 2**63 - 1 and bounds[2] == 1 else None
        return None, [(x, within(cut, axis, tuple(range(shape[axis])[slice(*bounds)])))]

    def _broadcast(self, cut: Cut) -> Step | None:
        """Of operands aligned at their last axes, those as long as the value there."""
        asked: Asked = []
        for arg in self.args:
            shape = self.shape(arg)
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
            asked.append((arg, ordered(own)))
        return self.fn, asked

    def _product(self, cut: Cut) -> Step | None:
        """Rows of the first factor, columns of the second, and of both what stands before."""
        if len(self.args) != 2:
            return None
        asked = [self._part_of(arg, cut, free) for arg, free in zip(self.args, (-1, -2), strict=True)]
        return None if None in asked else (self.fn, [each for each in asked if each is not None])

    def _part_of(self, arg: int, cut: Cut, free: int) -> tuple[int, Cut] | None:
        """What is read of a factor, aligned at its last axes, one of which the value's axis there says nothing of."""
        shape = self.shape(arg)
        if shape is None or len(shape) < 2:
            return None
        own, behind = {}, len(self.out) - len(shape)
        for axis, part in cut:
            place, back = axis - behind, axis - len(self.out)
            if back == free or place < 0 or (back < -2 and shape[place] == 1):
                continue  # of other factors
            if shape[place] != self.out[axis] or (place == 0 and self._has_rows(arg)):
                return None
            own[place] = part
        return arg, ordered(own)

    def _attention(self, cut: Cut) -> Step | None:
        """Queries of some positions, with their rows of the mask; columns of values; of all what stands before.

        Keys and values are read at all positions, or where attention is causal at those up to the last query. Which of
        them a query sees depends on where it stands: a part of the queries is told that.
        """
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
        told = dict(zip(names, self.given, strict=False)) | dict(self.keywords)
        mask, causal, last = told.get("attn_mask"), bool(told.get("is_causal")), len(self.out) - 1
        operands = [told[name] for name in names[:3]] + [mask] * (mask is not None)
        if operands != list(self.args) or told.get("dropout_p") or (mask is not None and causal):
            return None
        if told.get("enable_gqa") and any(axis < last - 1 for axis, _ in cut):
            return None
        kept = tuple((axis, part) for axis, part in cut if axis != last - 1)
        factors = [(operands[0], cut, -1), (operands[1], kept, -1), (operands[2], kept, -2)]
        if mask is not None:
            shape = self.shape(mask)
            if shape is None or len(shape) < 2:
                return None
            factors.append((mask, tuple((axis, p) for axis, p in cut if axis != last - 1 or shape[-2] != 1), -1))
        asked = [self._part_of(*each) for each in factors]
        if None in asked:
            return None
        fn, queries, found = self.fn, dict(cut).get(last - 1), [each for each in asked if each is not None]
        if queries is not None and is_causal(self.fn, self.args, self.told):
            seen = tuple(range(max(queries) + 1))  # what comes later is seen by none
            found[1:] = [self._up_to(seen, *each, -1 if each[0] == mask else -2) for each in found[1:]]
        if causal and queries is not None:
            more = queries, told.get("scale"), bool(told.get("enable_gqa"))
            fn = Operation.call(attend_causally, *more, values=3, has_rows=True)
        return fn, found

    def _up_to(self, seen: tuple[int, ...], arg: int, cut: Cut, axis: int) -> tuple[int, Cut]:
        """What is read of keys, values and columns of a mask if the first ones are."""
        shape = self.shape(arg)
        assert shape is not None
        return (arg, cut) if len(seen) == shape[axis] else (arg, ordered({**dict(cut), len(shape) + axis: seen}))

    def _embedded(self, cut: Cut) -> Step | None:
        """Rows of a table: columns of it, rows at some places."""
        table, where = self.given[:2]
        if [table, where] != list(self.args) or not self._has_rows(where) or self._has_rows(table):
            return None
        cuts, last = dict(cut), len(self.out) - 1
        columns = ((1, cuts.pop(last)),) if last in cuts else ()
        return self.fn, [(table, columns), (where, ordered(cuts))]

    def _joined(self, cut: Cut) -> Step | None:
        """Of what is joined along an axis: all of it, or what the part lies in."""
        operands = list(self.given[0])
        shapes = [self.shape(each) for each in operands]
        if operands != list(self.args) or any(shape is None or len(shape) != len(self.out) for shape in shapes):
            return None
        axis, cuts = (self.given[1] if len(self.given) > 1 else 0) % len(self.out), dict(cut)
        if axis == 0 or not all(map(self._has_rows, operands)):
            return None
        if axis not in cuts:
            return self.fn, [(each, cut) for each in operands]
        wanted, start = cuts.pop(axis), 0
        for each, shape in zip(operands, shapes, strict=True):
            assert shape is not None
            if all(start <= i < start + shape[axis] for i in wanted):
                return None, [(each, ordered({**cuts, axis: tuple(i - start for i in wanted)}))]
            start += shape[axis]
        return None

    def _summed(self, cut: Cut) -> Step | None:
        """Of a product in letters, every factor at the letters that are cut."""
        equation, operands = self.given[0].replace(" ", ""), list(self.given[1])
        reads, _, writes = equation.partition("->")
        terms = reads.split(",")
        if operands != list(self.args) or "." in equation or len(writes) != len(self.out):
            return None
        if any(len(set(term)) != len(term) for term in (*terms, writes)):
            return None
        parts, asked = {writes[axis]: part for axis, part in cut}, list[tuple[int, Cut]]()
        for each, term in zip(operands, terms, strict=True):
            own = {place: parts[letter] for place, letter in enumerate(term) if letter in parts}
            if 0 in own and self._has_rows(each):
                return None
            if any((self.shape(each) or ())[place : place + 1] == (1,) for place in own):
                return None  # repeated along the axis, not cut
            asked.append((each, ordered(own)))
        return self.fn, asked

    def _expanded(self, cut: Cut, shape: Sequence[int]) -> Step | None:
        """Axes that are repeated are repeated less often."""
        sizes, own, behind = list(self.given[1]), dict[int, tuple[int, ...]](), len(self.out) - len(shape)
        if behind or len(sizes) != len(self.out):
            return None
        for axis, part in cut:
            sizes[axis] = len(part)
            if shape[axis] == self.out[axis]:
                own[axis] = part
        return self.fn.with_sizes(sizes), [(self.args[0], ordered(own)), *((arg, ()) for arg in self.args[1:])]

    def _indexed(self, cut: Cut, shape: Sequence[int]) -> Step | None:
        """Positions that the program names are a slice; of others, those that are read."""
        target, cuts = self.fn.target, dict(cut)
        if target is _aten.index.Tensor:
            named = [(axis, each) for axis, each in enumerate(self.given[1]) if each is not None]
            if len(named) != 1:
                return None
            ((axis, index),) = named
        else:
            axis, index = self.given[1] % len(shape), self.given[2]
        if axis == 0 or [self.args[0], index] != list(self.args) or self.args[0] != self.given[0]:
            return None
        if target is _aten.gather.default:
            if not cut or 0 in cuts or not self._has_rows(index):
                return None
            return self.fn, [(self.args[0], ordered({a: p for a, p in cut if a != axis})), (index, cut)]
        if (positions := self._positions(index, shape[axis])) is None:
            return None
        return None, [(self.args[0], within(cut, axis, positions))]

    def _positions(self, number: int, size: int) -> tuple[int, ...] | None:
        """What a constant [positions] of the program says, if it is one that can be read."""
        value = self.values[number]
        found = value.of
        if value.kind is not Kind.CONSTANT or type(found) not in (Tensor, torch.nn.Parameter):  # fake ones say nothing
            return None
        if found.ndim != 1 or found.dtype not in (torch.int64, torch.int32) or not len(found):
            return None
        return tuple(int(i) % size for i in found.tolist())

    def _reshape(self, cut: Cut, shape: Sequence[int]) -> Step | None:
        """Of axes that are split or joined: the entries that stand where the part does, if these are a part too."""
        sizes, cuts, own = list(self.given[1]), dict(cut), dict[int, tuple[int, ...]]()
        if len(sizes) != len(self.out) or shape[0] != self.out[0] or 0 in cuts:
            return None
        for ins, outs in match_axes(shape, self.out):
            if cuts.keys().isdisjoint(outs):
                continue
            parts = [cuts.get(axis, tuple(range(self.out[axis]))) for axis in outs]
            found = move_part(parts, [self.out[axis] for axis in outs], [shape[axis] for axis in ins])
            if found is None:
                return None
            stays = len(ins) == len(outs)  # then all of an axis that was asked for is asked for, as of any part
            own |= {axis: part for axis, part in zip(ins, found, strict=True) if stays or len(part) < shape[axis]}
            for axis in outs:
                sizes[axis] = len(cuts[axis]) if axis in cuts else sizes[axis]
        # Numbers of values stand for sizes that depend on the rows: these are read as before.
        fn, others = self.fn.with_sizes(sizes), self.args[1:]
        return fn, [(self.args[0], ordered(own)), *((arg, ()) for arg in others)]


_OF_SEVERAL: Mapping[Any, Callable[[Rule, Cut], Step | None]] = {
    _aten.scaled_dot_product_attention.default: Rule._attention,
    _aten.cat.default: Rule._joined,
    _aten.einsum.default: Rule._summed,
    _aten.embedding.default: Rule._embedded,
}
