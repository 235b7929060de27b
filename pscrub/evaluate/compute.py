"""Plans run: values on D in one pass and kept within a budget, and what is mixed for each draw, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pscrub.data.dataset import Dataset
from pscrub.evaluate.code import Instruction, last_readers, order_with_reads
from pscrub.evaluate.joined import Joined
from pscrub.evaluate.keep import choose_to_keep
from pscrub.evaluate.narrow import Narrowing
from pscrub.evaluate.plan import ROWLESS, Kind, Plan, Values
from pscrub.progress import Progress, quiet
from pscrub.workers import side_by_side

GIB = 2**30
MEMORY = 2 * GIB
"""Default bytes for values kept on the device; chunks take an eighth of it more."""
SMALL = 2 * 2**20
"""Bytes that one value may take in a chunk on a CPU: larger allocations are given back and faulted in each time."""

BYTE = 10
"""Floating-point operations in the time that a byte is read or written."""

Leaf = Callable[[int], Tensor]
"""Number of a value that is not computed -> its value [chunk, ...]."""


@dataclass(frozen=True)
class Fold:
    """What is made of values on D while they pass, chunk by chunk, so that they need not be kept.

    Args:
        roots: numbers of the values.
        work: rows of the chunk, number -> value [chunk, ...] -> whatever is made of them. Called in several threads.
        take: is given what was made, chunk after chunk, in the order of rows.
    """

    roots: Sequence[int]
    work: Callable[[slice, Mapping[int, Tensor]], Any]
    take: Callable[[Any], None]


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
        self.joined = Joined(values)
        self._row_bytes: dict[int, int] = {}
        self._shapes: dict[int, Sequence[int]] = {}
        self._passed_over: set[int] = set()

    @property
    def bytes(self) -> int:
        """Bytes that kept values take."""
        return sum(value.element_size() * value.numel() for value in self.held.values())

    def probe(self, numbers: Sequence[int]) -> dict[int, Any]:
        """Number -> value on two rows, as functions may treat one alone in a way of its own; sizes are noted."""
        return self._try(self.code(numbers), numbers, lambda n: self._leaf(n, torch.zeros(2, dtype=torch.int64)), 2)

    def keep(self, numbers: Iterable[int], progress: Progress = quiet, folds: Sequence[Fold] = ()) -> None:
        """Compute values on D in one pass and keep them; what does not fit is computed again from what is kept.

        Args:
            numbers: of values on D.
            progress: told of rows done.
            folds: what else is to be made of values on D in the same pass.
        """
        chosen = self._choose(numbers)
        roots = list(dict.fromkeys([*chosen, *(n for fold in folds for n in fold.roots)]))
        if not (roots or folds):
            return
        (code, narrow), n_rows, made = self.narrowed(roots), self.data.n, dict[int, Tensor]()
        size = self.chunk(code)

        def work(start: int) -> tuple[slice, dict[int, Tensor], list[Any]]:
            rows = slice(start, min(start + size, n_rows))
            ran = self.run(code, [*narrow.values()], lambda each: self._leaf(each, rows), rows.stop - start)
            found = {n: ran[narrow[n]] for n in roots}
            return rows, {n: found[n] for n in chosen}, [fold.work(rows, found) for fold in folds]

        for rows, found, done in side_by_side(work, range(0, n_rows, size), self.device):
            made = made or self.joined.rooms(found, n_rows)
            for n, value in found.items():
                made[n][rows] = value
            found.clear()  # given back before the next chunk is worked on
            for fold, each in zip(folds, done, strict=True):
                fold.take(each)
            progress("activations on D", rows.stop, n_rows)
        self.held |= made

    def narrowed(self, roots: Sequence[int]) -> tuple[list[Instruction], dict[int, int]]:
        """What is computed to get some values on D, of each only what is read; and under which number each is found."""
        self._measure(self.code(roots))
        narrow = Narrowing(self.values, self.shape, Kind.ON_D, self._is_leaf, self.told).narrow(roots)
        code = self.code([*dict.fromkeys(narrow.values())])
        self._measure(code)
        return code, narrow

    def bytes_of(self, numbers: Sequence[int]) -> int:
        """Bytes that values on D take, if they are kept; found by running on two rows."""
        self._measure(self.code(numbers))
        return self.data.n * sum(self._row_bytes.get(n, 0) for n in numbers)

    def chunk(self, code: Sequence[Instruction]) -> int:
        """How many rows to work on at a time: what lives at once within an eighth of the budget, each value small."""
        live, largest = self.live(code)
        most = self.memory // 8 // live
        if self.device.type == "cpu":
            most = min(most, max(SMALL // largest, 64))
        return int(min(max(most, 16), 65536))

    def live(self, code: Sequence[Instruction]) -> tuple[int, int]:
        """Bytes a row of what lives at once while code runs, and of the largest value."""
        live = peak = largest = 1
        for each in code:
            size = self._row_bytes.get(self._on_data(each.number), 0)
            live, largest = live + size, max(largest, size)
            peak = max(peak, live)
            live -= sum(self._row_bytes.get(self._on_data(n), 0) for n in each.dead)
        return peak, largest

    def peak(self, code: Sequence[Instruction]) -> int:
        """Bytes of what lives at once while code runs on chunks, one a thread on a CPU; what is kept comes on top."""
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        return self.live(code)[0] * min(self.chunk(code), self.data.n) * threads

    def shape(self, number: int) -> Sequence[int] | None:
        """The shape of a value on D, on some number of rows, or of one without rows; None if it was not seen."""
        return self._shapes.get(number)

    def told(self, number: int) -> Tensor | None:
        """A value that is the same for all rows, and for any number of them; None of others, or what cannot be read."""
        if self.values[number].kind not in (Kind.CONSTANT, Kind.UNIFORM):
            return None
        code, none = self.code([number]), torch.arange(0)  # no column is read
        one, two = (self.run(code, [number], lambda n: self._leaf(n, none), rows)[number] for rows in (1, 2))
        if any(type(each) not in (Tensor, torch.nn.Parameter) for each in (one, two)):  # fake ones say nothing
            return None
        fits = one.ndim == two.ndim and all(a in (1, b) for a, b in zip(one.shape, two.shape, strict=True))
        return one if fits and torch.equal(one.expand_as(two), two) else None

    def code_of_draws(self, plan: Plan, roots: Sequence[int]) -> list[Instruction]:
        """What is computed for each draw to get some values of a plan."""
        code = self.code(roots)
        alike: dict[int, int] = {}  # a mixed value takes as much as that of one datum
        for each in code:
            if self.values[each.number].kind is Kind.MIXED:
                args = [alike.get(n, self._on_data(n)) for n in each.args]
                alike[each.number] = self.values.apply(self.values[each.number].of, args)
        self._row_bytes |= {n: self._row_bytes[like] for n, like in alike.items() if like in self._row_bytes}
        if any(n not in self._row_bytes for n in alike):
            rows = dict.fromkeys(plan.datum, torch.arange(min(2, self.data.n)))
            self._try(code, roots, lambda each: self.on_draws(each, rows), min(2, self.data.n))
        together = self.joined.gathered(each.number for each in code)
        return self.code(roots, together) if together else code

    def on_draws(self, number: int, data: Mapping[str, Tensor]) -> Tensor:
        """The value [draws, ...] of what is a column or kept, at the rows of its datum; or of many such (`joined`)."""
        value = self.values[number]
        if value.kind is Kind.MIXED:
            return self.joined.gather(number)(data)
        return self.at(value.args[0], data[value.of])

    def at(self, number: int, rows: Tensor) -> Tensor:
        """The value [rows, ...] on some rows of D, gathered if it is a column or kept, else computed."""
        if self._is_leaf(number):
            return self._leaf(number, rows.to(self.device))
        return self.run(self.code([number]), [number], lambda n: self._leaf(n, rows.to(self.device)), len(rows))[number]

    def whole(self, number: int) -> Tensor:
        """The value [N, ...] on every row of D."""
        if self._is_leaf(number):
            return self._leaf(number, slice(None))
        code, n_rows = self.code([number]), self.data.n
        self._measure(code)
        size = self.chunk(code)

        def work(start: int) -> Tensor:
            rows = slice(start, min(start + size, n_rows))
            return self.run(code, [number], lambda n: self._leaf(n, rows), rows.stop - start)[number]

        return torch.cat(list(side_by_side(work, range(0, n_rows, size), self.device)))

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

    def code(self, roots: Sequence[int], given: Collection[int] = ()) -> list[Instruction]:
        """What is computed to get some values, each after what it reads; columns, kept values and those given are not.

        Args:
            roots: numbers.
            given: numbers of values that whoever runs the code has.
        """
        order, reads = order_with_reads(roots, lambda n: () if n in given else self._reads(n))
        dead = last_readers(order, reads, roots)
        return [Instruction(n, None if n in given else self._fn(n), reads[n], dead.get(n, ())) for n in order]

    def _choose(self, numbers: Iterable[int]) -> list[int]:
        """Which of some values on D to keep, or what they are made of: all that fit, else what saves most."""
        fresh = [n for n in dict.fromkeys(numbers) if n not in self.held and n not in self._passed_over]
        wanted = [n for n in fresh if self.values.has_rows(n)]
        code, free = self.code(wanted), self.memory - self.bytes
        self._measure(code)
        if sum(self._row_bytes[n] for n in wanted) * self.data.n <= free:
            return wanted
        made = [each.number for each in code if self.values[each.number].kind is Kind.ON_D and each.fn is not None]
        costs = self.costs(code)
        cost = {n: costs[n] for n in made}
        size = {n: self._row_bytes[n] * self.data.n for n in made if self.values.has_rows(n)}
        self._passed_over |= set(wanted)
        return choose_to_keep(wanted, lambda n: [arg for arg in self.values[n].args if arg in cost], cost, size, free)

    def flops(self, code: Sequence[Instruction], leaf: Leaf | None = None) -> dict[int, int]:
        """Floating-point operations a row of each value that code computes, found by running it on two rows of D.

        Args:
            code: of values on D, or on draws.
            leaf: gives what is not computed; by default values on D.
        """
        return {n: flops for n, (flops, _) in self._count(code, leaf).items()}

    def costs(self, code: Sequence[Instruction], leaf: Leaf | None = None) -> dict[int, float]:
        """The same with what writing each value takes, in floating-point operations a row."""
        return {n: float(flops + BYTE * size) for n, (flops, size) in self._count(code, leaf).items()}

    def _count(self, code: Sequence[Instruction], leaf: Leaf | None) -> dict[int, tuple[int, int]]:
        """Floating-point operations and bytes a row of each value that code computes."""
        rows, known, found = min(2, self.data.n), dict[int, Any](), dict[int, tuple[int, int]]()
        leaf = leaf or (lambda n: self.at(self._on_data(n), torch.arange(rows)))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            for each in code:
                before = counter.get_total_flops()
                made = known[each.number] = self._value(each, known, leaf, rows)
                if each.fn is not None:
                    size = (
                        made.nbytes if isinstance(made, Tensor) and self.values[each.number].kind not in ROWLESS else 0
                    )
                    found[each.number] = (counter.get_total_flops() - before) // rows, size // rows
                for n in each.dead:
                    del known[n]
        return found

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

    def source(self, number: int) -> Tensor:
        """A column or a kept value on every row of D, where it is."""
        value = self.values[number]
        if value.kind is not Kind.COLUMN:
            return self.held[number]
        column: Tensor = self.columns[value.of] if isinstance(value.of, str) else value.of.to(self.device)
        return column

    def _leaf(self, number: int, rows: slice | Tensor) -> Tensor:
        whole = self.source(number)
        return whole[rows] if isinstance(rows, slice) else whole.index_select(0, rows.to(self.device))

    def _on_data(self, number: int) -> int:
        """The number on D of a pure value; any other's own."""
        value = self.values[number]
        return value.args[0] if value.kind is Kind.PURE else number

    def _is_leaf(self, number: int) -> bool:
        """Whether a value is not computed: a column or a kept value, on D or at the rows of a datum."""
        on_data = self._on_data(number)
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

    def _fn(self, number: int) -> Callable[..., Any] | None:
        value = self.values[number]
        if self._is_leaf(number) or value.kind in (Kind.CONSTANT, Kind.BATCH, Kind.DEVICE):
            return None
        made = self.values[value.args[0]] if value.kind is Kind.PURE else value
        fn: Callable[..., Any] = made.of
        return fn

    def _measure(self, code: Sequence[Instruction]) -> None:
        """Find the bytes a row of each value on D, if there is one of which they are not known."""
        if any(self.values[each.number].kind is Kind.ON_D and each.number not in self._row_bytes for each in code):
            rows = torch.arange(min(2, self.data.n))
            self._try(code, (), lambda each: self._leaf(each, rows), len(rows))

    def _try(self, code: Sequence[Instruction], roots: Sequence[int], leaf: Leaf, rows: int) -> dict[int, Any]:
        """Number -> value of the roots on a few rows; bytes a row of every value are noted."""
        known, kept = dict[int, Any](), dict[int, Any]()
        with torch.no_grad():
            for each in code:
                made = known[each.number] = self._value(each, known, leaf, rows)
                if isinstance(made, Tensor):
                    self._shapes[self._on_data(each.number)] = made.shape
                if self.values[each.number].kind not in ROWLESS:
                    size = made.element_size() * made.numel() // rows if isinstance(made, Tensor) else 0
                    self._row_bytes[self._on_data(each.number)] = size
                kept |= {each.number: made} if each.number in roots else {}
                for n in each.dead:
                    del known[n]
        return kept
