"""The engine: f of a study's hypotheses on D and on scrubbed inputs, on one device, within a budget of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.evaluate.reference import Watch, run_scrubbed, sources_of
from pscrub.evaluate.values import MEMORY, Activations
from pscrub.graph.graph import Graph
from pscrub.hypothesis.ablation import RESAMPLING, Ablation
from pscrub.hypothesis.tree import Tree
from pscrub.progress import Progress, quiet


class Engine:
    """Where a model runs, and what it has computed so far.

    Whoever scrubs asks it for three things: to foresee what trees will need of D, for values on D, and for f on data
    that were drawn. The values of one graph at a time are held: a study's hypotheses come graph by graph.

    Args:
        data: D.
        device: where activations live and the model runs.
        memory: bytes for activations on D.
        chunk: draws evaluated at a time; by default what the memory allows.
        progress: told of work as it is done.
    """

    def __init__(
        self,
        data: Dataset,
        device: torch.device | str = "cpu",
        memory: int = MEMORY,
        chunk: int | None = None,
        progress: Progress = quiet,
    ) -> None:
        self.data, self.device, self.memory, self.chunk, self.progress = data, device, memory, chunk, progress
        self._held: tuple[Graph, Activations] | None = None

    def on_data(self, graph: Graph) -> Activations:
        """The values of a graph's nodes on D."""
        if self._held is None or self._held[0] is not graph:
            self._held = None  # given back before others are made
            self._held = graph, Activations(graph, self.data, self.device, self.memory)
        return self._held[1]

    def foresee(self, trees: Sequence[Tree]) -> None:
        """Compute in one pass over D what trees of one graph will be asked for, as far as the memory goes."""
        graph = trees[0].hypothesis.graph
        output = (graph.output, *graph.reads(graph.output))
        self.on_data(graph).foresee([output, *(sources_of(tree) for tree in trees)], self.progress)

    def f(
        self, tree: Tree, data: Mapping[str, Tensor], watch: Watch | None = None, ablation: Ablation = RESAMPLING
    ) -> Tensor:
        """float64 [draws]: f on scrubbed inputs; arguments as in `run_scrubbed`."""
        activations, told = self.on_data(tree.hypothesis.graph), self.progress
        return run_scrubbed(tree, activations, data, chunk=self.chunk, progress=told, watch=watch, ablation=ablation)
