"""A traced program kept whole: named values are marks in it, a node's function what lies between some of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from pscrub.graph.layout import FIRST, Layout
from pscrub.graph.ops import Listed, Operation, Reader

_aten = torch.ops.aten


class StepKind(Enum):
    """What a step of a program is."""

    COLUMN, CONSTANT, BATCH, DEVICE, MARK, OPERATION = range(6)


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a program.

    Args:
        kind: which.
        of: the column, the constant's name, the mark's label, or the operation.
        reads: the steps that it reads, by place.
        batch_first: its value is one tensor, the batch first.
        told: the shape of a mark's value, in words.
        ndim: the number of its axes.
        one: its first axis has one entry.
    """

    kind: StepKind
    of: Any = None
    reads: tuple[int, ...] = ()
    batch_first: bool = False
    told: str = ""
    ndim: int = 0
    one: bool = False


class Program:
    """The steps of a traced program, each after what it reads, and its constants.

    Args:
        steps: in order.
        constants: by name: parameters, or what else operations take.
    """

    def __init__(self, steps: Sequence[Step], constants: Mapping[str, Any]) -> None:
        self.steps, self.constants = tuple(steps), dict(constants)

    @property
    def columns(self) -> list[int]:
        """The places of the columns, in their order."""
        return [place for place, step in enumerate(self.steps) if step.kind is StepKind.COLUMN]

    @property
    def marks(self) -> dict[str, int]:
        """Label -> the place of the mark."""
        return {step.of: place for place, step in enumerate(self.steps) if step.kind is StepKind.MARK}

    def through(self, labels: Collection[str]) -> Program:
        """The program in which all that comes after a mark of these reads the mark, and not the value it is a copy of.

        Args:
            labels: of marks.
        """
        instead: dict[int, int] = {}
        steps = list[Step]()
        for place, step in enumerate(self.steps):
            steps.append(replace(step, reads=tuple(instead.get(read, read) for read in step.reads)))
            if step.kind is StepKind.MARK and step.of in labels:
                (source,) = step.reads
                while self.steps[source].kind is StepKind.MARK:
                    (source,) = self.steps[source].reads
                instead.setdefault(source, place)
        return Program(steps, self.constants)


class Marked:
    """A program of which some marks are named: what each step is made of, walking back to named values.

    Shared by all functions of a graph, and never changed or copied.

    Args:
        program: the program.
        named: the places of columns and named marks.
        layouts: place -> where the rows are, of named values that do not have them first.
    """

    def __init__(self, program: Program, named: Sequence[int], layouts: Mapping[int, Layout]) -> None:
        self.steps, self.layouts = program.steps, dict(layouts)
        self.bits = {place: bit for bit, place in enumerate(named)}
        self.named = tuple(named)
        held = {name: bit for bit, name in enumerate(program.constants)}
        sources, constants = list[int](), list[int]()
        for place, step in enumerate(self.steps):
            found = needed = 0
            if place in self.bits:
                found = 1 << self.bits[place]
            elif step.kind is StepKind.CONSTANT:
                needed = 1 << held[step.of]
            else:
                for read in step.reads:
                    found, needed = found | sources[read], needed | constants[read]
            sources.append(found)
            constants.append(needed)
        parts: dict[int, int] = {}
        self.part = [parts.setdefault(found, len(parts)) for found in sources]
        """Of each step: steps of one part are made of the same named values."""
        self.made_of = [tuple(_ones(found)) for found in parts]
        """Of each part: those values, by their places among what is named."""
        self._constants, self._names = constants, tuple(program.constants)
        self._orders: dict[int, list[tuple[int, tuple[int, ...]]]] = {}

    def __deepcopy__(self, memo: Any) -> Marked:
        return self

    def reads(self, place: int) -> tuple[int, ...]:
        """What a step is made of, by places among what is named."""
        return self.made_of[self.part[place]]

    def constants(self, place: int) -> list[str]:
        """The constants that it takes beside."""
        return [self._names[bit] for bit in _ones(self._constants[place])]

    def order(self, target: int) -> list[tuple[int, tuple[int, ...]]]:
        """The steps that a value needs, each with those that are not needed after it."""
        if target not in self._orders:
            needed, stack = set[int](), [target]
            while stack:
                place = stack.pop()
                if place not in needed:
                    needed.add(place)
                    stack.extend(self.before(place))
            order, last = sorted(needed), dict[int, int]()
            for place in order:
                last |= dict.fromkeys(self.before(place), place)
            dead: dict[int, list[int]] = {}
            for place, after in last.items():
                dead.setdefault(after, []).append(place)
            self._orders[target] = [(place, tuple(dead.get(place, ()))) for place in order]
        return self._orders[target]

    def before(self, place: int) -> tuple[int, ...]:
        """The steps that a step reads; none of what is named."""
        return () if place in self.bits else self.steps[place].reads


class Excerpt(Listed):
    """A function of a traced program: some named values, rows first -> another value, rows first.

    It holds the parameters that it takes and none of the program, which all functions of a graph share. Read operation
    by operation (`graph.ops`), what two excerpts of one graph have in common is read once; called, it runs alone.

    Args:
        marked: the program.
        mark: the place of the value's mark.
        constants: of the program, by name.
        reads: what it takes, by places among what is named; by default what its value is made of.
    """

    def __init__(
        self, marked: Marked, mark: int, constants: Mapping[str, Any], reads: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        step, layout = marked.steps[mark], marked.layouts.get(mark, FIRST)
        (self.target,), self.marked = step.reads, marked
        self.reads = marked.reads(self.target) if reads is None else tuple(reads)
        self.names = tuple(marked.constants(self.target))
        for name in self.names:
            setattr(self, name, constants[name])
        self.last = [Operation.call(of, *more, has_rows=True) for of, *more in layout.to_rows_first()]
        if not self.reads and not step.batch_first:  # one value for all rows, which is in none of them yet
            row = [] if step.one else [Operation.call(_aten.unsqueeze.default, 0)]
            self.last += [*row, Operation.repeated(step.ndim - step.one)]

    @property
    def is_input(self) -> bool:
        """Whether its value is that of its only input."""
        return self.target in self.marked.bits and not self.last and self.target not in self.marked.layouts

    def read(self, values: Sequence[Any], reader: Reader) -> Any:
        """What stands for its value; what other excerpts made of the same values is not made again."""
        marked, given = self.marked, dict(zip(self.reads, values, strict=False))
        # Copies of one function may hold other parameters: what they make is not shared.
        same = [reader.first((marked, name), getattr(self, name)) for name in self.names]
        lot = marked if all(same) else self
        parts: dict[int, dict[int, Any]] = {}

        def known(place: int) -> dict[int, Any]:
            part = marked.part[place]
            if part not in parts:
                parts[part] = reader.made((lot, part), [given[bit] for bit in marked.made_of[part]])
            return parts[part]

        missing, stack = set[int](), [self.target]
        while stack:
            place = stack.pop()
            if place not in missing and place not in known(place):
                missing.add(place)
                stack.extend(marked.before(place))
        for place in sorted(missing):
            reads = [known(each)[each] for each in marked.before(place)]
            known(place)[place] = self._value(place, given, reads, reader)
        value = known(self.target)[self.target]
        for operation in self.last:
            value = reader.apply(operation, [value, reader.batch()][: operation.takes])
        return value

    def forward(self, *values: Tensor) -> Tensor:
        """Its value [batch, ...], each value on the way dropped after its last reader."""
        given, known = dict(zip(self.reads, values, strict=False)), dict[int, Any]()
        reader = _Calling(values[0])
        for place, dead in self.marked.order(self.target):
            reads = [known[each] for each in self.marked.before(place)]
            known[place] = self._value(place, given, reads, reader)
            del reads
            for each in dead:
                del known[each]
        value = known.pop(self.target)
        for operation in self.last:
            value = operation(*[value, reader.batch()][: operation.takes])
        result: Tensor = value
        return result

    def _value(self, place: int, given: Mapping[int, Any], reads: Sequence[Any], reader: Reader) -> Any:
        if place in self.marked.bits:
            value = given[self.marked.bits[place]]
            for target, *more in self.marked.layouts.get(place, FIRST).to_as_found():
                value = reader.apply(Operation.call(target, *more), [value])
            return value
        step = self.marked.steps[place]
        match step.kind:
            case StepKind.CONSTANT:
                return reader.constant(getattr(self, step.of))
            case StepKind.BATCH:
                return reader.batch()
            case StepKind.DEVICE:
                return reader.device()
            case StepKind.MARK:
                return reads[0]
        return reader.apply(step.of, reads)


class _Calling(Reader):
    """Values themselves, on the rows of one of them."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def constant(self, tensor: Any) -> Any:
        return tensor

    def batch(self) -> int:
        return len(self.value)

    def device(self) -> torch.device:
        return self.value.device

    def apply(self, fn: Any, values: Sequence[Any]) -> Any:
        return fn(*values)


def _ones(bits: int) -> Iterator[int]:
    """The places of ones, lowest first."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
