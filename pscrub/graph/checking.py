"""A traced graph beside its module: node by node, rows alone and together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.errors import TraceError, tell
from pscrub.graph.equal import find_gap
from pscrub.graph.graph import Graph
from pscrub.graph.running import Running
from pscrub.graph.subject import describe

See = Callable[[str, Tensor], object]


@dataclass(frozen=True)
class Trial:
    """How a graph is tried beside what it was traced from.

    Args:
        columns: the rows that it is tried on: 1, 2 and all of them.
        tolerance: the largest difference allowed, relative to a value's largest magnitude.
        advice: what to try, at the end of each refusal.
        holds: operations that several nodes run are run once, all values being held; else each is dropped when read.
    """

    columns: Mapping[str, Tensor]
    tolerance: float
    advice: str = ""
    holds: bool = True

    @property
    def sizes(self) -> list[int]:
        most = max(len(column) for column in self.columns.values())
        return sorted({1, min(2, most), most})

    def check(
        self,
        graph: Graph,
        watch: Callable[[Mapping[str, Tensor], See], object] = lambda columns, see: None,
        constant: Collection[str] = (),
        names: Iterable[str] | None = None,
        keep: See = lambda name, value: None,
    ) -> None:
        """Compares nodes with what the module gives, and rows alone with rows together.

        Args:
            graph: of the columns.
            watch: calls its second argument with the name and the value of each node that the module has.
            constant: nodes that have one value for all rows, which the module does not repeat.
            names: the nodes to be tried; by default all.
            keep: is told the name and the graph's value of each node that the module has too.

        Raises:
            TraceError: the first node that fails, has another shape than it should, differs or mixes rows.
        """
        alone: dict[str, Tensor] = {}
        wanted = list(graph.nodes if names is None else names)
        for size in self.sizes:
            values = _Values(self, graph, size, constant)

            def see(name: str, expected: Tensor, values: _Values = values) -> None:
                keep(name, values.of(name))
                self._compare(name, values.of(name), expected, name in constant, values)
                self._compare_alone(name, values, alone)

            watch(values.columns, see)
            for name in wanted:
                if name not in values.seen:
                    self._compare_alone(name, values, alone)

    def _compare(self, name: str, value: Tensor, expected: Tensor, is_constant: bool, values: _Values) -> None:
        wanted = expected.broadcast_to(value.shape) if is_constant else expected
        if value.shape != wanted.shape or value.dtype != wanted.dtype:
            is_, was = (f"{str(each.dtype)[6:]}{[*each.shape]}" for each in (value, wanted))
            advice = values.advice(name)
            raise TraceError(f"node '{name}' is {is_} on {values.size} rows; the module's is {was}{advice}")
        gap, scale = find_gap(value, wanted)
        if gap > self.tolerance * scale:
            raise TraceError(
                f"node '{name}' differs from the module by {gap:.3g} on {values.size} rows (largest magnitude "
                f"{scale:.3g}): the module is random, keeps state from call to call, or changes in place a tensor that "
                f"is also used elsewhere{values.advice(name)}"
            )

    def _compare_alone(self, name: str, values: _Values, alone: dict[str, Tensor]) -> None:
        value = values.of(name)
        values.seen.add(name)
        gap, scale = find_gap(alone.setdefault(name, value), value[:1])
        # Kernels for other batch sizes add up in another order.
        if value.is_floating_point() and gap > max(self.tolerance, torch.finfo(value.dtype).eps ** 0.5) * scale:
            raise TraceError(
                f"node '{name}' of one row changes by {gap:.3g} (largest magnitude {scale:.3g}) when {values.size - 1} "
                f"more stand in its batch: rows must not interact{values.advice(name)}"
            )
        values.drop(name)


class _Values:
    """A graph's values on some rows, each computed when it is asked for."""

    def __init__(self, trial: Trial, graph: Graph, size: int, constant: Collection[str]) -> None:
        self.trial, self.graph, self.size, self.constant = trial, graph, size, constant
        self.columns = {name: column[:size] for name, column in trial.columns.items()}
        self.held = dict(self.columns)
        self.seen: set[str] = set()
        self.running = Running(size, next(iter(self.columns.values())).device) if trial.holds else None
        self.waiting = {name: set(graph.readers(name)) for name in graph.nodes}

    def of(self, name: str) -> Tensor:
        if name not in self.held:
            node = self.graph.nodes[name]
            reads = [self.of(read) for read in node.inputs]
            try:
                value = self.running.through(node.fn, reads) if self.running else node.fn(*reads)
            except Exception as error:
                where = f"node '{name}' fails on {self.size} rows of the example"
                raise TraceError(f"{where}: {tell(error)}{self.advice(name)}") from error
            if not (isinstance(value, Tensor) and value.shape[:1] == (self.size,)):
                found = f"{describe(value)} of shape {[*value.shape]}" if isinstance(value, Tensor) else describe(value)
                expected = f"expected a tensor, [{self.size}, ...]{self.advice(name)}"
                raise TraceError(f"node '{name}' gives {found} for {self.size} rows; {expected}")
            self.held[name] = value
        return self.held[name]

    def drop(self, name: str) -> None:
        """Lets go of what nothing will read, now that a node is done."""
        for read in (name, *self.graph.nodes[name].inputs):
            if read in self.waiting:
                self.waiting[read].discard(name)
                if not self.waiting[read] and read in self.seen:
                    self.held.pop(read, None)

    def advice(self, name: str) -> str:
        repeated = [f"'{read}'" for read in self.graph.nodes[name].inputs if read in self.constant]
        if not repeated:
            return self.trial.advice
        listed = ", ".join(repeated)
        return f"{self.trial.advice}; it reads {listed}, one value for all rows, here repeated in each: try not to cut"
