"""The engine: f of a study's hypotheses on D and on scrubbed inputs, on one device, within a budget of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import NodeError, reword
from pscrub.evaluate.compute import Kept
from pscrub.evaluate.plan import Plan, Values, make_plan
from pscrub.evaluate.purity import check_purity
from pscrub.evaluate.reference import Watch, run_scrubbed
from pscrub.evaluate.values import MEMORY, Activations
from pscrub.graph.graph import Graph
from pscrub.hypothesis.ablation import RESAMPLING, Ablation
from pscrub.hypothesis.tree import Tree
from pscrub.progress import Progress, quiet
from pscrub.workers import side_by_side


class Engine:
    """Where a model runs, and what it has computed so far.

    Whoever scrubs asks it for three things: to foresee what trees will need of D, for values on D, and for f on data
    that were drawn. The values of one graph at a time are held: a study's hypotheses come graph by graph.

    f is computed by a plan (`evaluate.plan`): values of one datum once on D, for the draws only what is mixed of
    several. `run_scrubbed`, node by node, is the slow evaluator that it is held against.

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
        self._held: _Held | None = None
        self._pure: set[Graph] = set()

    def on_data(self, graph: Graph) -> Activations:
        """The values of a graph's nodes on D.

        Raises:
            GraphError: when the graph is first seen: a node fails or is not pure (`check_purity`).
        """
        return self._hold(graph).activations

    def kept(self, graph: Graph) -> Kept:
        """The values of a graph on D by number, as plans have them."""
        return self._hold(graph).kept

    def plan(self, tree: Tree) -> Plan:
        """What a tree takes."""
        held = self._hold(tree.hypothesis.graph)
        if tree not in held.plans:
            held.plans[tree] = make_plan(held.kept.values, tree)
        return held.plans[tree]

    def foresee(self, trees: Sequence[Tree]) -> None:
        """Compute in one pass over D what trees of one graph will be asked for, as far as the memory goes.

        That is f and what it reads, for the baselines, and what the trees' mixed values read.
        """
        graph = trees[0].hypothesis.graph
        held, names = self._hold(graph), [graph.output, *graph.reads(graph.output)]
        output = {name: held.kept.values.on_data(name) for name in names if name in graph.nodes}
        frontiers = [n for tree in trees for n in self.plan(tree).frontier]
        held.kept.keep([*output.values(), *frontiers], self.progress)
        held.activations.give({name: held.kept.held[n] for name, n in output.items() if n in held.kept.held})

    def f(
        self, tree: Tree, data: Mapping[str, Tensor], watch: Watch | None = None, ablation: Ablation = RESAMPLING
    ) -> Tensor:
        """float64 [draws]: f on scrubbed inputs; arguments as in `run_scrubbed`.

        Raises:
            NodeError: a node's function raised; the hypothesis is named too.
        """
        try:
            return self._f(tree, data, watch, ablation)
        except NodeError as error:
            raise reword(error, f"hypothesis '{tree.hypothesis.name}': ") from error.__cause__

    def _f(self, tree: Tree, data: Mapping[str, Tensor], watch: Watch | None, ablation: Ablation) -> Tensor:
        held = self._hold(tree.hypothesis.graph)
        if ablation.kind != RESAMPLING.kind:  # what replaces a node's value is looked up by node
            a, told = held.activations, self.progress
            return run_scrubbed(tree, a, data, chunk=self.chunk, progress=told, watch=watch, ablation=ablation)
        plan, kept = self.plan(tree), held.kept
        roots = (plan.root, *(plan.given.values() if watch is not None else ()))
        kept.keep(plan.frontier_of(roots), self.progress)
        code = kept.code_of_draws(plan, roots)
        draws, size = len(data[tree.root]), self.chunk or kept.chunk(code)

        def evaluate(start: int) -> tuple[Tensor, dict[int, Tensor]]:
            part = {path: rows[start : start + size] for path, rows in data.items()}
            found = kept.run(code, roots, lambda n: kept.on_draws(n, part), len(part[tree.root]))
            return found[plan.root].double().cpu(), found

        pieces: list[Tensor] = []
        for value, found in side_by_side(evaluate, range(0, draws, size), held.activations.device):
            if watch is not None:
                rows = data[tree.root][len(pieces) * size : (len(pieces) + 1) * size]
                watch({name: found[n] for name, n in plan.given.items()}, rows)
            pieces.append(value)
            self.progress("draws", min(len(pieces) * size, draws), draws)
        return torch.cat(pieces)

    def _hold(self, graph: Graph) -> _Held:
        if self._held is None or self._held.graph is not graph:
            self._held = None  # given back before others are made
            if graph not in self._pure:
                check_purity(graph, self.data, self.device)
                self._pure.add(graph)
            activations = Activations(graph, self.data, self.device, self.memory)
            kept = Kept(Values(activations.graph), self.data, activations.device, self.memory)
            self._held = _Held(graph, activations, kept)
        return self._held


@dataclass(frozen=True, eq=False)
class _Held:
    """What is held of one graph: values by name, values by number, and the plans of trees."""

    graph: Graph
    activations: Activations
    kept: Kept
    plans: WeakKeyDictionary[Tree, Plan] = field(default_factory=WeakKeyDictionary)
