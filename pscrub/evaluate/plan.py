"""A treeified hypothesis as numbered values: what is computed once on D, and what for each draw.

Values are numbered: two of one number are equal, and are computed once, whoever reads them and on whatever path. A
value is pure if all that it is computed from has one datum; then it is a row of the value that the model has on D.
Anything else is mixed, and has to be computed for each draw. A site whose blocks have one row that can be drawn has its
parent's datum, so that claims which forbid every swap cost nothing.

Treeified, each path has its own value: paths are told apart by the data of the sites on them, and where these are the
same so is the value.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Tensor

from pscrub.graph.graph import Function, Graph
from pscrub.graph.ops import Moves, Operation, Reader, Sized, Slice, Whole, key_of
from pscrub.hypothesis.ablation import Replaced
from pscrub.hypothesis.tree import Tree


class Kind(Enum):
    """What a number stands for.

    CONSTANT: a parameter. BATCH, DEVICE: the number of rows worked on, and where. UNIFORM: an operation on those alone.
    COLUMN: a column on D, of the dataset's or another. ON_D: an operation on values on D. PURE: a value on D, at the
    row of a datum. MIXED: an operation on values of several data.
    """

    CONSTANT = "constant"
    BATCH = "batch"
    DEVICE = "device"
    UNIFORM = "uniform"
    COLUMN = "column"
    ON_D = "on D"
    PURE = "pure"
    MIXED = "mixed"


ROWLESS = (Kind.CONSTANT, Kind.BATCH, Kind.DEVICE, Kind.UNIFORM)
"""Kinds that have no row for each draw."""


@dataclass(frozen=True)
class Value:
    """What a number stands for: its kind, what makes it, and from which numbers.

    Args:
        kind: which.
        of: an operation, a constant, a column's name (or it itself, if it is not the dataset's), or the path of a site
            whose datum a pure value is on.
        args: numbers of the values that the operation takes; for a pure value that of the value on D.
    """

    kind: Kind
    of: Any = None
    args: tuple[int, ...] = ()


class Values(Reader):
    """Numbers of values of one graph, shared by all trees on it.

    Args:
        graph: the graph.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: list[Value] = []
        self._opened: dict[tuple[int, ...], tuple[int, Function]] = {}
        self._numbers: dict[Hashable, int] = {}
        self._on_data = {name: self._number(Value(Kind.COLUMN, name)) for name in graph.inputs}

    def __getitem__(self, number: int) -> Value:
        return self.known[number]

    def constant(self, tensor: Any) -> int:
        """The number of a parameter: one and the same object, one number."""
        return self._number(Value(Kind.CONSTANT, tensor), key=(Kind.CONSTANT, id(tensor)))

    def batch(self) -> int:
        """The number of the number of rows."""
        return self._number(Value(Kind.BATCH))

    def device(self) -> int:
        """The number of the device."""
        return self._number(Value(Kind.DEVICE))

    def apply(self, fn: Callable[..., Any], values: Sequence[int]) -> int:
        """The number of an operation's value; of an operation that puts slices together, that of what was sliced."""
        args = tuple(values)
        if isinstance(fn, Whole) and (source := self._source(fn, args)) is not None:
            return source
        if isinstance(fn, Moves):
            fn, args = fn.seen_through(args, self._look, self._of_source)
            if fn is None:
                return args[0]
        kinds = {self[each].kind for each in args}
        if kinds <= set(ROWLESS):
            return self._number(Value(Kind.UNIFORM, fn, args))
        if not kinds & {Kind.PURE, Kind.MIXED}:
            return self._number(Value(Kind.ON_D, fn, args))
        data = {self[each].of for each in args if self[each].kind is Kind.PURE}
        if Kind.MIXED in kinds or len(data) > 1:
            return self._number(Value(Kind.MIXED, fn, args))
        on_data = [self[each].args[0] if self[each].kind is Kind.PURE else each for each in args]
        return self.pure(self.apply(fn, on_data), data.pop())

    def has_rows(self, number: int) -> bool:
        """Whether a value is computed on D and has its batch first, so that rows of it can be kept and gathered."""
        value = self[number]
        return value.kind is Kind.ON_D and (not isinstance(value.of, Operation) or value.of.has_rows)

    def column(self, tensor: Tensor) -> int:
        """The number of a column [N, ...] that is not the dataset's: one and the same object, one number."""
        return self._number(Value(Kind.COLUMN, tensor), key=(Kind.COLUMN, id(tensor)))

    def pure(self, number: int, datum: str) -> int:
        """The number of a value on D at the row of a datum."""
        return self._number(Value(Kind.PURE, datum, (number,)))

    def on_data(self, name: str) -> int:
        """The number of a node's value (or a column) on D."""
        return self.run([name], self._on_data)[name]

    def through(self, fn: Function, values: Sequence[int]) -> int:
        """The number of a function's value, opened once for the same values."""
        key = id(fn), *values
        if key not in self._opened:
            self._opened[key] = super().through(fn, values), fn
        return self._opened[key][0]

    def run(self, names: Iterable[str], given: dict[str, int], graph: Graph | None = None) -> dict[str, int]:
        """Name -> number, as `Graph.run` has name -> value; what is made on the way is added to `given`.

        Of the graph's own nodes, or of those of another that reads the same columns.
        """
        wanted, graph = list(names), graph or self.graph
        for name in graph.order(wanted, given):
            node = graph.nodes[name]
            given[name] = self.through(node.fn, [given[each] for each in node.inputs])
        return given

    def _look(self, number: int) -> tuple[Any, tuple[int, ...], tuple[int, str | None]]:
        """What makes a value, from what (on its datum, if it has one), and the value on D with the datum."""
        value, datum = self[number], None
        if value.kind is Kind.PURE:
            number, datum = value.args[0], value.of
            value = self[number]
        return value.of, value.args, (number, datum)

    def _of_source(self, source: tuple[int, Any]) -> int:
        return source[0] if source[1] is None else self.pure(*source)

    def _source(self, whole: Whole, args: tuple[int, ...]) -> int | None:
        """What slices were cut from, if they are all of one value and put together as they were cut."""
        found = set()
        for each, part in zip(args, whole.parts, strict=True):
            value, datum = self[each], None
            if value.kind is Kind.PURE:
                value, datum = self[value.args[0]], value.of
            if value.of != Slice(whole.axis, part):
                return None
            found.add((value.args[0], datum))
        if len(found) != 1:
            return None
        ((source, datum),) = found
        if isinstance(self[source].of, Sized):  # slices have seen to the size: the whole is the value, as it was uncut
            source = self[source].args[0]
        return source if datum is None else self.pure(source, datum)

    def _number(self, value: Value, key: Hashable = None) -> int:
        of = key_of(value.of) if callable(value.of) else value.of
        key = key or (value.kind, of, value.args)
        if key not in self._numbers:
            self._numbers[key] = len(self.known)
            self.known.append(value)
        return self._numbers[key]


@dataclass(frozen=True, eq=False)
class Plan:
    """What a tree takes.

    Args:
        values: that its numbers are of.
        root: the number of f.
        made: graph node -> number, of what f reads and is made of on the way, as far as it is not unimportant.
        datum: path of a site -> that of the site whose datum it has.
        computed: graph nodes whose values are mixed, and so computed for each draw.
        site: path of the root.
    """

    values: Values
    root: int
    made: Mapping[str, int]
    datum: Mapping[str, str]
    computed: tuple[str, ...]
    site: str

    def mixed_of(self, roots: Sequence[int]) -> list[int]:
        """Numbers of the operations that are run for each draw to compute some values, each after what it reads."""
        return order_of(self.values, roots, lambda each: self.values[each].kind is not Kind.MIXED)

    @property
    def mixed(self) -> tuple[int, ...]:
        """Those of f, computed whole."""
        return tuple(self.mixed_of([self.root]))

    @property
    def frontier(self) -> tuple[int, ...]:
        """Numbers of the values on D that f, computed whole, reads."""
        return self.frontier_of([self.root])

    def frontier_of(self, roots: Sequence[int], datum: str | None = None) -> tuple[int, ...]:
        """Numbers of the values on D whose rows are read to compute some values, on one datum or any."""
        stack, found = list(self.read_by(roots, datum)), set[int]()
        while stack:
            number = stack.pop()
            if self.values[number].kind is Kind.ON_D and not self.values.has_rows(number):
                # Inside a module that has another axis first: what is gathered by row is what such a value is made of.
                stack.extend(self.values[number].args)
            else:
                found.add(number)
        return tuple(sorted(n for n in found if self.values[n].kind not in ROWLESS))

    def read_by(self, roots: Sequence[int], datum: str | None = None) -> tuple[int, ...]:
        """Numbers of the values on D that are read to compute some values, `root` or others, on one datum or any."""
        needed = {*roots, *(arg for each in self.mixed_of(roots) for arg in self.values[each].args)}
        pure = (self.values[n] for n in needed if self.values[n].kind is Kind.PURE)
        read = {value.args[0] for value in pure if datum in (None, value.of)}
        return tuple(sorted(n for n in read if self.values[n].kind not in ROWLESS))


def make_plan(values: Values, tree: Tree, replaced: Replaced | None = None) -> Plan:
    """The plan of a tree on the graph of some values.

    Each tree node's function is run on the numbers of the claims that it reads, made in the same way, and of its
    unimportant inputs on their own datum; a node that reads no claim has the value that it has on its datum.

    Source: the appendix's algorithm on I^T; section 4.1 for unimportant inputs.

    Args:
        values: of the tree's graph.
        tree: the treeified hypothesis.
        replaced: what sites give in place of the values on their data, under an ablation.
    """
    replaced = replaced or {}
    datum: dict[str, str] = {}
    for path, site in tree.sites.items():
        fixed = site.parent is not None and int(site.partition.sizes.max()) <= 1
        datum[path] = datum[site.parent or ""] if fixed else path
    made, computed = dict[str, int](), dict[str, None]()

    def take(name: str, path: str) -> int:
        if path not in replaced:
            return values.pure(values.on_data(name), datum[path])
        blocks = values.column(replaced[path].labels)
        return values.pure(values.apply(_OfBlock(replaced[path].values[name]), [blocks]), datum[path])

    numbers: dict[str, int] = {}
    for path in reversed(list(tree.sites)):  # children stand after their parents
        site = tree.sites[path]
        if site.claim is None:
            continue
        if path in replaced or not site.given:
            numbers[path] = take(site.claim.at, path)
            continue
        made = {
            name: take(site.apart.get(name, name), source) if tree.sites[source].claim is None else numbers[source]
            for name, source in site.given.items()
        }
        numbers[path] = values.run([site.claim.at], made, site.around(values.graph))[site.claim.at]
        computed |= dict.fromkeys(name for name, n in made.items() if values[n].kind is Kind.MIXED)
    if not tree.sites[tree.root].given:
        made = {}
    return Plan(values, numbers[tree.root], made, datum, tuple(computed), tree.root)


@dataclass(frozen=True, eq=False)
class _OfBlock:
    """What a site gives under an ablation: one value [blocks, ...] for each block of D."""

    values: Tensor

    def __call__(self, labels: Tensor) -> Tensor:
        return self.values[labels.to(self.values.device)]


def order_of(values: Values, roots: Iterable[int], stop: Callable[[int], bool]) -> list[int]:
    """The numbers that roots need, each after what it reads; those at which to stop, and what they read, left out."""
    done: dict[int, None] = {}
    stack = [(each, False) for each in roots]
    while stack:
        number, read = stack.pop()
        if number in done or stop(number):
            continue
        if read:
            done[number] = None
        else:
            stack.append((number, True))
            stack.extend((arg, False) for arg in values[number].args)
    return list(done)
