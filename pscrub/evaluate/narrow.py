"""Only what is read is computed: slices are pushed up through the operations that they commute with.

A reader of one head at one position needs that head's keys and values everywhere and its query there, and nothing of
other heads. Operations are pushed through where a rule is known to be exact (`evaluate.rules`): elementwise ones,
products, norms and softmax over other axes, attention's queries and heads, reshapes that keep the axis, and slices.
Anything else is computed whole, and so is a value of which the parts that are read would take as much. What is of one
datum on its side of a seam (`evaluate.seams`) is computed on D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from torch import Tensor

from pscrub.evaluate.parts import Cut, Shape, Step, has_none, of_parts, ordered, within
from pscrub.evaluate.plan import Kind, Values, order_of
from pscrub.evaluate.rules import Rule
from pscrub.evaluate.seams import Seam, find_seams
from pscrub.graph.ops import Operation, Sized, Slice, Whole
from pscrub.graph.places import Pick, Put, narrow_put

LEAST = 0.5
"""Share of what is read that is of one datum, from which a seam is worth two operations in place of one."""


class Narrowing:
    """What is read of each value of a kind, and the numbers of what is computed in its place.

    Args:
        values: the numbers.
        shape: number of a value on D (or without rows) -> its shape, on any number of rows; None if it is not known.
        kind: of the values that are computed: mixed ones, or those on D.
        held: whether a value is there, so that what it is made of is not looked at.
        told: a value that is the same for all rows; None of one that is not, or cannot be read.
    """

    def __init__(
        self,
        values: Values,
        shape: Shape,
        kind: Kind = Kind.MIXED,
        held: Callable[[int], bool] = lambda _: False,
        told: Callable[[int], Tensor | None] = lambda _: None,
    ) -> None:
        self._told = cache(told)
        self.values, self.kind, self._shape_on_data, self._held = values, kind, shape, held
        self._alike: dict[int, int] = {}
        self._kept: dict[int, set[Cut]] = {}
        self._steps: dict[tuple[int, Cut], Step] = {}
        self._made: dict[tuple[int, Cut], int] = {}

    def narrow(self, roots: Sequence[int]) -> dict[int, int]:
        """Number -> that of the same value, for roots, what lies behind them being computed as far as it is read."""
        values = self.values
        order = order_of(values, roots, lambda n: not self._is_computed(n))
        seams: dict[int, Seam] = {}
        if self.kind is Kind.MIXED:
            for n in order:
                args = [self._alike.get(arg, self._on_data(arg)) for arg in values[n].args]
                self._alike[n] = values.apply(values[n].of, args)
            seams = find_seams(values, order, self.shape, self.step, self._told)
        asked: dict[int, set[Cut]] = {n: set() for n in order}
        for root in roots:
            asked.setdefault(root, set()).add(())
        for n in reversed(order):
            if n in seams and (any(map(has_none, asked[n])) or self._pure(n, asked[n], seams[n]) < LEAST):
                del seams[n]
            mixed = asked[n] if n not in seams else {part for cut in asked[n] for part in self._mixed(n, cut, seams[n])}
            steps = {cut: self.step(n, cut) for cut in mixed}
            shares = sum(self._share(n, cut) for cut in steps)
            if any(step is None for step in steps.values()) or (shares >= 1 and () not in steps):
                steps = {(): self.step(n, ())}
                seams.pop(n, None)
            elif () in steps:
                steps = {(): steps[()]}
                seams.pop(n, None)
            self._kept[n] = set(steps)
            for cut, step in steps.items():
                assert step is not None
                self._steps[n, cut] = step
                for arg, part in step[1]:
                    if self._is_computed(arg):
                        asked[arg].add(part)
        for n in order:
            for cut in self._kept[n]:
                fn, reads = self._steps[n, cut]
                numbers = [self._take(arg, part) for arg, part in reads]
                self._made[n, cut] = numbers[0] if fn is None else values.apply(fn, numbers)
            if n in seams:
                self._made |= {(n, cut): self._sewn(n, cut, seams[n]) for cut in asked[n] - self._kept[n]}
        return {root: self._made.get((root, ()), root) for root in roots}

    def step(self, n: int, cut: Cut) -> Step | None:
        """How a part of a value is computed; None if no rule is known. The whole always can be."""
        fn, args, out = self.values[n].of, self.values[n].args, self.shape(n)
        if has_none(cut):
            return None
        if isinstance(fn, Sized):
            return (None if cut else fn), [(args[0], cut)]  # that it has its size was seen on D
        if isinstance(fn, Slice | Whole) and out is not None:
            axis = fn.axis % len(out)  # an axis may be counted from the last
            if isinstance(fn, Slice):
                return None, [(args[0], within(cut, axis, fn.part))]
            if cut:
                return of_parts(fn, axis, args, cut)
        elif isinstance(fn, Put) and cut:
            return narrow_put(fn, args, cut)
        elif isinstance(fn, Pick) and cut:  # one position, the axis kept
            return fn, [(args[0], tuple(each for each in cut if each[0] != 1)), (args[1], ())]
        elif isinstance(fn, Operation) and fn.has_rows and out is not None:
            found = Rule(self.values, self.shape, fn, args, out, self._told).step(cut)
            if found is not None:
                return found
        return None if cut else (fn, [(arg, ()) for arg in args])

    def shape(self, n: int) -> Sequence[int] | None:
        """The shape of a value, on some number of rows if it has any."""
        return self._shape_on_data(self._alike.get(n, self._on_data(n)))

    def _is_computed(self, n: int) -> bool:
        return self.values[n].kind is self.kind and not self._held(n)

    def _pieces(self, n: int, cut: Cut, seam: Seam) -> list[tuple[str | None, tuple[int, ...], Cut]]:
        """What a part is put together of: of each datum, or of several, where it stands and which part it is."""
        shape = self.shape(n)
        assert shape is not None
        wanted = dict(cut).get(seam.axis, tuple(range(shape[seam.axis])))
        found = []
        for datum, places in seam.pieces(wanted).items():
            whole = len(places) == shape[seam.axis] and seam.axis not in dict(cut)
            part = cut if whole else ordered({**dict(cut), seam.axis: tuple(wanted[i] for i in places)})
            found.append((datum, places, part))
        return found

    def _pure(self, n: int, cuts: Iterable[Cut], seam: Seam) -> float:
        """The share of what is asked for that is of one datum."""
        pieces = [(datum, len(places)) for cut in cuts for datum, places, _ in self._pieces(n, cut, seam)]
        return sum(size for datum, size in pieces if datum is not None) / max(sum(size for _, size in pieces), 1)

    def _mixed(self, n: int, cut: Cut, seam: Seam) -> list[Cut]:
        return [part for datum, _, part in self._pieces(n, cut, seam) if datum is None]

    def _sewn(self, n: int, cut: Cut, seam: Seam) -> int:
        """The number of a part: of what is of one datum there, the value on D."""
        numbers, parts = [], []
        for datum, places, part in self._pieces(n, cut, seam):
            if datum is None:
                numbers.append(self._made[n, part])
            else:  # along the seam last, so that pieces of several data are cut from one value
                on_data = self._alike[n]
                for axis, entries in sorted(part, key=lambda each: each[0] == seam.axis):
                    on_data = self.values.apply(Slice(axis, entries), [on_data])
                numbers.append(self.values.pure(on_data, datum))
            parts.append(places)
        return numbers[0] if len(parts) == 1 else self.values.apply(Whole(seam.axis, tuple(parts)), numbers)

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
