"""The values of a graph's nodes on D by name, for whoever asks for one: computed by the plans' numbers, and kept."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError
from pscrub.evaluate.compute import MEMORY, Kept
from pscrub.evaluate.plan import Values
from pscrub.graph.graph import Graph
from pscrub.progress import Progress, quiet


class OnData:
    """The values of a graph's nodes on D, by name.

    Values asked for are computed in one pass over D, every operation once, and kept as far as the budget goes; past it
    they are recomputed from what is kept, on the rows asked for.

    Args:
        graph: the graph.
        data: D.
        device: where values live and functions run.
        memory: bytes that kept values may take. Chunks of work are sized to an eighth of it.

    Raises:
        GraphError: f is not one number a row, or a node's value has no batch.
    """

    def __init__(self, graph: Graph, data: Dataset, device: torch.device | str = "cpu", memory: int = MEMORY) -> None:
        self.graph, self.data, self.device = graph.to(device), data, torch.device(device)
        self.found: dict[Hashable, Any] = {}  # what was made of them, for whoever asks again
        self.values = Values(self.graph)
        self.kept = Kept(self.values, data, self.device, memory)
        numbers = {name: self.values.on_data(name) for name in graph.nodes}
        probe = self.kept.probe([*dict.fromkeys(numbers.values())])
        faults = [
            f"output '{name}' has shape {_say_shape(probe[n])}; expected [batch]: f is one number a row"
            if name == graph.output
            else f"node '{name}' has shape {_say_shape(probe[n])}; expected the batch first"
            for name, n in numbers.items()
            if probe[n].shape[:1] != (2,) or (name == graph.output and probe[n].ndim != 1)
        ]
        if faults:
            raise GraphError(faults)

    @property
    def columns(self) -> dict[str, int]:
        """Column -> its number."""
        return {name: self.values.on_data(name) for name in self.graph.inputs}

    def keep(self, names: Iterable[str], progress: Progress = quiet) -> None:
        """Compute named values on D in one pass and keep them, as many as the budget holds.

        Args:
            names: of nodes or columns.
            progress: told of rows done.
        """
        self.kept.keep([self.values.on_data(name) for name in names], progress)

    def rows(self, name: str, rows: Tensor) -> Tensor:
        """The value [len(rows), ...] of a node or column on rows of D, int64: gathered if kept, else computed."""
        return self.kept.at(self.values.on_data(name), rows)

    def on_data(self, name: str, progress: Progress = quiet) -> Tensor:
        """The value [N, ...] of a node or column on every row of D."""
        self.keep([name], progress)
        return self.kept.whole(self.values.on_data(name))


def _say_shape(value: Any) -> str:
    """The shape of a value on two rows, in words."""
    sizes = [str(size) for size in value.shape]
    return f"[{', '.join(['batch', *sizes[1:]] if sizes[:1] == ['2'] else sizes)}]"
