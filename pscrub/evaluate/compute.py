"""Plans run: values on D in one pass and kept within a budget, and what is mixed for each draw, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.evaluate.plan import ROWLESS, Kind, Plan, Values, order_of
from pscrub.progress import Progress, quiet
from pscrub.workers import side_by_side

SMALL = 2 * 2**20
"""Bytes that one value may take in a chunk on a CPU: larger allocations are given back and faulted in each time."""

Leaf = Callable[[int], Tensor]
"""Number of a value that is not computed -> its value [chunk, ...]."""


@dataclass(frozen=True)
class Instruction:
    """One value to be computed, and the numbers whose values are not needed after it."""

    number: int
    fn: Callable[..., Any] | None
    args: tuple[int, ...]
    dead: tuple[int, ...] = ()


class Kept:
    """Values of one graph on D, by number: kept where the budget goes, computed from what is kept elsewhere.

    Args:
        values: of the graph.
        data: D.
        device: where values live and functions run.
        memory: bytes that kept values may take.
    """

    def __init__(self, values: Values, data: Dataset, device: torch.device, memory: int) -> None:
        self.values, self.data, self.device, self.memory = values, data, device, memory
        self.columns = {name: data[name].to(device) for name in values.graph.inputs}
        self.held: dict[int, Tensor] = {}
        self._row_bytes: dict[int, int] = {}

    @property
    def bytes(self) -> int:
        """Bytes that kept values take."""
        return sum(value.element_size() * value.numel() for value in self.held.values())

    def keep(self, numbers: Iterable[int], progress: Progress = quiet) -> None:
        """Compute values on D in one pass and keep them, as many as the budget holds: first what costs most a byte.

        Args:
            numbers: of values on D.
            progress: told of rows done.
        """
        wanted = [n for n in dict.fromkeys(numbers) if self.values[n].kind is Kind.ON_D and n not in self.held]
        if not wanted:
            return
        if any(n not in self._row_bytes for n in wanted):
            self._row_bytes |= self._measure(self._code(wanted))
        cost = {n: len(order_of(self.values, [n], lambda each: self._is_leaf(each))) for n in wanted}
        chosen, free = [], self.memory - self.bytes
        for n in sorted(wanted, key=lambda n: -cost[n] / max(self._row_bytes[n], 1)):
            size = self._row_bytes[n] * self.data.n
            if size <= free:
                chosen.append(n)
                free -= size
        if not chosen:
            return
        code = self._code(chosen)
        made: dict[int, Tensor] = {}
        rows = torch.arange(self.data.n, device=self.device)
        chunks = rows.split(self.chunk(code))

        def fill(part: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
            start, size = int(part[0]), len(part)
            return part, self.run(code, chosen, lambda each: self._leaf(each, slice(start, start + size)), size)

        for part, found in side_by_side(fill, chunks, self.device):
            for n, value in found.items():
                if n not in made:
                    made[n] = value.new_empty((self.data.n, *value.shape[1:]))
                made[n][part[0] : part[-1] + 1] = value
            progress("activations on D", int(part[-1]) + 1, self.data.n)
        self.held |= made

    def bytes_of(self, numbers: Sequence[int]) -> int:
        """Bytes that values on D take, if they are kept; found by running on two rows."""
        made = [n for n in numbers if self.values[n].kind is Kind.ON_D and n not in self._row_bytes]
        if made:
            self._row_bytes |= self._measure(self._code(made))
        return self.data.n * sum(self._row_bytes.get(n, 0) for n in numbers)

    def chunk(self, code: Sequence[Instruction]) -> int:
        """How many rows to work on at a time: what lives at once within an eighth of the budget, each value small."""
        live = peak = largest = 1
        for each in code:
            size = self._row_bytes.get(each.number, 0)
            live, largest = live + size, max(largest, size)
            peak = max(peak, live)
            live -= sum(self._row_bytes.get(n, 0) for n in each.dead)
        most = self.memory // 8 // peak
        if self.device.type == "cpu":
            most = min(most, max(SMALL // largest, 64))
        return int(min(max(most, 16), 65536))

    def code_of_draws(self, plan: Plan, roots: Sequence[int]) -> list[Instruction]:
        """What is computed for each draw to get some values of a plan."""
        code = self._code(roots)
        rows = dict.fromkeys(plan.datum, torch.arange(min(2, self.data.n)))
        missing = [each for each in code if each.number not in self._row_bytes]
        if missing:
            self._row_bytes |= self._measure(code, lambda each: self.on_draws(each, rows))
        return code

    def on_draws(self, number: int, data: Mapping[str, Tensor]) -> Tensor:
        """The value [draws, ...] of a pure value that is kept, at the rows of its datum."""
        value = self.values[number]
        of = self.values[value.args[0]]
        whole = self.columns[of.of] if of.kind is Kind.COLUMN else self.held[value.args[0]]
        return whole.index_select(0, data[value.of].to(self.device))

    def run(self, code: Sequence[Instruction], roots: Sequence[int], leaf: Leaf, rows: int) -> dict[int, Tensor]:
        """Number -> value [rows, ...] of the roots.

        Args:
            code: of the roots.
            roots: numbers.
            leaf: gives what is not computed.
            rows: how many are worked on.
        """
        known: dict[int, Any] = {}
        with torch.no_grad():
            for each in code:
                known[each.number] = self._value(each, known, leaf, rows)
                for n in each.dead:
                    del known[n]
        return {n: known[n] for n in roots}

    def _value(self, each: Instruction, known: Mapping[int, Any], leaf: Leaf, rows: int) -> Any:
        if each.fn is not None:
            return self.values.graph.call(each.fn, [known[n] for n in each.args])
        value = self.values[each.number]
        match value.kind:
            case Kind.CONSTANT:
                return value.of
            case Kind.BATCH:
                return rows
            case Kind.DEVICE:
                return self.device
        return leaf(each.number)

    def _leaf(self, number: int, rows: slice | Tensor) -> Tensor:
        value = self.values[number]
        return (self.columns[value.of] if value.kind is Kind.COLUMN else self.held[number])[rows]

    def _is_leaf(self, number: int) -> bool:
        """Whether a value is not computed: a column or a kept value, on D or at the rows of a datum."""
        value = self.values[number]
        on_data = value.args[0] if value.kind is Kind.PURE else number
        return on_data in self.held or self.values[on_data].kind is Kind.COLUMN

    def _reads(self, number: int) -> tuple[int, ...]:
        """What a value is computed from; of a pure value that is not kept, pure values on the same datum."""
        value = self.values[number]
        if self._is_leaf(number):
            return ()
        if value.kind is not Kind.PURE:
            return value.args
        args = self.values[value.args[0]].args
        return tuple(n if self.values[n].kind in ROWLESS else self.values.pure(n, value.of) for n in args)

    def _code(self, roots: Sequence[int]) -> list[Instruction]:
        order, last = list[int](), dict[int, int]()
        stack, done = [(each, False) for each in reversed(roots)], set[int]()
        while stack:
            number, read = stack.pop()
            if number in done:
                continue
            if read:
                done.add(number)
                order.append(number)
            else:
                stack.append((number, True))
                stack.extend((arg, False) for arg in reversed(self._reads(number)))
        for place, number in enumerate(order):
            last |= dict.fromkeys(self._reads(number), place)
        dead: dict[int, list[int]] = {}
        for number, place in last.items():
            if number not in roots:
                dead.setdefault(place, []).append(number)
        return [
            Instruction(n, self._fn(n), self._reads(n), tuple(dead.get(place, ()))) for place, n in enumerate(order)
        ]

    def _fn(self, number: int) -> Callable[..., Any] | None:
        value = self.values[number]
        if self._is_leaf(number) or value.kind in (Kind.CONSTANT, Kind.BATCH, Kind.DEVICE):
            return None
        made = self.values[value.args[0]] if value.kind is Kind.PURE else value
        fn: Callable[..., Any] = made.of
        return fn

    def _measure(self, code: Sequence[Instruction], leaf: Leaf | None = None) -> dict[int, int]:
        """Bytes a row of each value, found by running on two rows."""
        rows = torch.arange(min(2, self.data.n), device=self.device)
        leaf = leaf or (lambda each: self._leaf(each, rows))
        known: dict[int, Any] = {}
        found: dict[int, int] = {}
        with torch.no_grad():
            for each in code:
                made = known[each.number] = self._value(each, known, leaf, len(rows))
                if isinstance(made, Tensor) and self.values[each.number].kind not in ROWLESS:
                    found[each.number] = made.element_size() * made.numel() // max(len(rows), 1)
                for n in each.dead:
                    del known[n]
        return found
