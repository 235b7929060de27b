"""The values of nodes on D, node by node, kept or recomputed within a budget: what the slow evaluator reads."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError
from pscrub.graph.graph import Graph
from pscrub.progress import Progress, quiet
from pscrub.workers import side_by_side

SMALL = 2 * 2**20
"""Bytes that one value may take in a chunk on a CPU."""


class Activations:
    """The values of a graph's nodes on D, gathered by row.

    Values asked for are computed in one pass over D and kept as far as the budget goes; past it they are recomputed
    from what is kept, on the rows asked for.

    Args:
        graph: the graph.
        data: D.
        device: where values live and functions run.
        memory: bytes that kept values may take. Chunks of work are sized to an eighth of it.

    Raises:
        GraphError: f is not one number a row, or a node's value has no batch.
    """

    def __init__(self, graph: Graph, data: Dataset, device: torch.device | str = "cpu", memory: int = 2**31) -> None:
        self.graph, self.data, self.device, self.memory = graph.to(device), data, torch.device(device), memory
        self._columns: dict[str, Tensor] = {name: data[name].to(device) for name in graph.inputs}
        self._kept: dict[str, Tensor] = {}
        # Two rows, as functions may treat one alone in a way of its own: enough to see shapes, and what a row takes.
        probe = self._pass(torch.zeros(2, dtype=torch.int64), list(graph.nodes))
        faults = [
            f"output '{name}' has shape {_say_shape(value)}; expected [batch]: f is one number a row"
            if name == graph.output
            else f"node '{name}' has shape {_say_shape(value)}; expected the batch first"
            for name, value in probe.items()
            if value.shape[:1] != (2,) or (name == graph.output and value.ndim != 1)
        ]
        if faults:
            raise GraphError(faults)
        self._empty = {name: value[:0] for name, value in probe.items()}
        self._row_bytes = {name: value.element_size() * value[0].numel() for name, value in probe.items()}

    @property
    def kept_bytes(self) -> int:
        """Bytes that kept values take now."""
        return sum(value.element_size() * value.numel() for value in self._kept.values())

    def keep(self, names: Iterable[str], progress: Progress = quiet) -> None:
        """Compute named values on D and keep them, those not named making room first; past the budget none are kept.

        Args:
            names: graph nodes that will be gathered from.
            progress: told of rows done.
        """
        wanted = self._choose_stores(names)
        missing = [name for name in wanted if name not in self._kept]
        need = sum(self._row_bytes[name] * self.data.n for name in missing)
        # What may be asked for again stays as long as there is room: hypotheses of a study share most of their leaves.
        for name in [name for name in self._kept if name not in wanted]:
            if self.kept_bytes + need > self.memory:
                del self._kept[name]
        # In the order of the names, whichever fit: what does not is made again from what is kept, row by row.
        free = self.memory - self.kept_bytes
        chosen: list[str] = []
        for name in missing:
            size = self._row_bytes[name] * self.data.n
            if size <= free:
                chosen.append(name)
                free -= size
        self._fill(chosen, progress)

    def rows(self, name: str, rows: Tensor, memo: dict[str, Tensor] | None = None) -> Tensor:
        """The value [len(rows), ...] of a node on rows of D: gathered if kept, else recomputed.

        Args:
            name: node or column.
            rows: int64 [draws].
            memo: values already made for the same rows, added to.
        """
        memo = {} if memo is None else memo
        if name not in memo:
            memo[name] = self._value(name, rows.to(self.device), memo)
        return memo[name]

    def on_data(self, name: str, progress: Progress = quiet) -> Tensor:
        """The value [N, ...] of a node on every row of D."""
        if name in self._columns:
            return self._columns[name]
        self.keep([name], progress)
        size = self.chunk([name])
        rows = torch.arange(self.data.n)
        return torch.cat([self.rows(name, rows[start : start + size]) for start in range(0, self.data.n, size)])

    def chunk(self, names: Iterable[str]) -> int:
        """How many rows to work on at a time so that the named values and what makes them stay within an eighth.

        On a CPU also few enough for each value to stay small: allocations of many megabytes are returned to the system
        and faulted in again for every operation, which measured 1.7 times slower.
        """
        sizes = [self._row_bytes.get(name, 64) for name in names] or [64]
        most = self.memory // 8 // (4 * sum(sizes))
        if self.device.type == "cpu":
            most = min(most, max(SMALL // max(sizes), 64))
        return int(min(max(most, 16), 65536))

    def _value(self, name: str, rows: Tensor, memo: dict[str, Tensor]) -> Tensor:
        store = self._columns.get(name, self._kept.get(name))
        if store is not None:
            return store.index_select(0, rows)
        node = self.graph.nodes[name]
        # A slice is taken of the whole first, which copies nothing, and only its own part is gathered.
        if node.view and (whole := self._kept.get(node.inputs[0])) is not None:
            return node(whole).index_select(0, rows)
        return node(*(self.rows(each, rows, memo) for each in node.inputs))

    def _choose_stores(self, names: Iterable[str]) -> list[str]:
        """What to keep for names to be gathered: a node of which most slices are asked for, in place of its slices."""
        nodes = [name for name in dict.fromkeys(names) if name in self.graph.nodes]
        asked: dict[str, int] = {}
        for name in nodes:
            if self.graph.nodes[name].view:
                whole = self.graph.nodes[name].inputs[0]
                asked[whole] = asked.get(whole, 0) + self._row_bytes[name]
        base = {whole for whole, size in asked.items() if 2 * size > self._row_bytes.get(whole, 0)}
        stores = [self.graph.nodes[n].inputs[0] if self._is_slice_of(n, base) else n for n in nodes]
        return [name for name in dict.fromkeys(stores) if name in self.graph.nodes]

    def _is_slice_of(self, name: str, wholes: set[str]) -> bool:
        return self.graph.nodes[name].view and self.graph.nodes[name].inputs[0] in wholes

    def _fill(self, names: list[str], progress: Progress) -> None:
        if not names:
            return
        n, device = self.data.n, self.device
        made = {name: self._empty[name].new_empty((n, *self._empty[name].shape[1:])) for name in names}

        def fill(rows: Tensor) -> int:
            for name, value in self._pass(rows, names).items():
                made[name][rows[0] : rows[-1] + 1] = value
            return int(rows[-1]) + 1

        chunks = torch.arange(n, device=device).split(self.chunk(self.graph.order(names, self._kept)))
        for done in side_by_side(fill, chunks, device):
            progress("activations on D", done, n)
        self._kept |= made

    def _pass(self, rows: Tensor, names: list[str]) -> dict[str, Tensor]:
        given = {name: column.index_select(0, rows) for name, column in self._columns.items()}
        for name, value in self._kept.items():
            given[name] = value.index_select(0, rows)
        with torch.no_grad():
            return self.graph.run(names, given)


def _say_shape(value: Tensor) -> str:
    """The shape of a value on two rows, in words."""
    sizes = [str(size) for size in value.shape]
    return f"[{', '.join(['batch', *sizes[1:]] if sizes[:1] == ['2'] else sizes)}]"
