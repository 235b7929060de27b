"""Functions run operation by operation: what was computed from the same values is not computed again."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError, PscrubError
from pscrub.graph.graph import Function, Graph, Node
from pscrub.graph.ops import Listed, Moves, Reader, key_of


class Running(Reader):
    """Values of functions on some rows, each operation run once on the same tensors, whichever functions it is in.

    All values are held as long as this is: it is for few rows at a time.

    Args:
        rows: how many.
        device: where they are.
    """

    def __init__(self, rows: int, device: torch.device | str) -> None:
        self.rows, self.place = rows, torch.device(device)
        self._made: dict[Hashable, tuple[Sequence[Any], Any]] = {}  # what is read is held too, or its id is given anew

    @property
    def bytes(self) -> int:
        """Bytes that the values of operations take."""
        made = (value.untyped_storage() for _, value in self._made.values() if isinstance(value, Tensor))
        return sum({each.data_ptr(): each.nbytes() for each in made}.values())  # views take nothing

    def constant(self, tensor: Any) -> Any:
        """The parameter itself."""
        return tensor

    def batch(self) -> int:
        """The number of rows."""
        return self.rows

    def device(self) -> torch.device:
        """The device."""
        return self.place

    def key(self, value: Any) -> Hashable:
        """A tensor by itself, a number by what it is."""
        return ("int", value) if isinstance(value, int) else id(value)

    def apply(self, fn: Callable[..., Any], values: Sequence[Any]) -> Any:
        """The operation's value."""
        key = key_of(fn), *map(self.key, values)
        if key not in self._made:
            self._made[key] = tuple(values), fn(*values)
        return self._made[key][1]

    def value(self, node: Node, values: Sequence[Any]) -> Any:
        """A node's value from those of its inputs.

        Raises:
            NodeError: its function raised.
        """
        try:
            return self.through(node.fn, values)
        except PscrubError:
            raise
        except Exception as error:
            raise node.failure(values, error) from error


def run_on_data(graph: Graph, data: Dataset, node: str, chunk: int = 1024) -> Tensor:
    """The value [N, ...] of a node on every row of D, on the CPU: nothing is kept, and no more run than it takes.

    Args:
        graph: the graph.
        data: D.
        node: its name.
        chunk: rows at a time.

    Raises:
        GraphError: an unknown name, a function that raised, or a value without a batch.

    >>> double = Graph.of({"s": lambda x: 2 * x, "f": lambda s: s + 1}, inputs=["x"], output="f")
    >>> run_on_data(double, Dataset({"x": torch.arange(3)}), "s")
    tensor([0, 2, 4])
    """
    pieces = []
    with torch.no_grad():
        for start in range(0, data.n, chunk):
            rows = {name: data[name][start : start + chunk].to(graph.device) for name in graph.inputs}
            value = graph.run([node], rows)[node].cpu()
            size = min(chunk, data.n - start)
            if value.shape[:1] != (size,):
                raise GraphError(
                    f"node '{node}' has shape {list(value.shape)} on {size} rows; expected the batch first"
                )
            pieces.append(value)
    return torch.cat(pieces)


def find_shapes(graph: Graph, data: Dataset, nodes: Iterable[str]) -> Mapping[str, tuple[int, ...]]:
    """Name -> the shape of a node's value, the batch apart, as seen on two rows of D."""
    rows = min(2, data.n)
    values = {name: data[name][:rows].to(graph.device) for name in graph.inputs}
    running = Running(rows, graph.device)
    with torch.no_grad():
        for name in graph.order(nodes, values):
            values[name] = running.value(graph.nodes[name], [values[read] for read in graph.nodes[name].inputs])
    return {name: tuple(values[name].shape[1:]) for name in nodes}


def is_checked(node: Node) -> bool:
    """Whether all that a node runs was traced and checked, or only cuts values and puts them together."""
    seen = _Seen()
    seen.through(node.fn, [None] * len(node.inputs))
    return seen.checked


class _Seen(Reader):
    """Opens functions to see whether there is one that tracing has not checked; values do not matter."""

    checked = True

    def through(self, fn: Function, values: Sequence[Any]) -> Any:
        if not isinstance(fn, Listed):
            super().through(fn, values)
        elif not fn.checked:
            self.checked = False

    def apply(self, fn: Callable[..., Any], values: Sequence[Any]) -> Any:
        if not isinstance(fn, Moves) and fn not in (operator.add, operator.sub):
            self.checked = False
