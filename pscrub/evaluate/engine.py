"""The engine: f of a study's hypotheses on D and on scrubbed inputs, on one device, within a budget of memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.evaluate.code import Instruction
from pscrub.evaluate.compiled import Compiled
from pscrub.evaluate.compute import MEMORY, Fold, Kept
from pscrub.evaluate.narrow import Narrowing
from pscrub.evaluate.on_data import OnData
from pscrub.evaluate.plan import Kind, Plan, make_plan
from pscrub.evaluate.purity import check_purity
from pscrub.graph.graph import Graph
from pscrub.hypothesis.ablation import RESAMPLING, Ablation, replacements
from pscrub.hypothesis.tree import Tree
from pscrub.progress import Progress, quiet


class Watch(Protocol):
    """What looks at the values that f is made of, chunk by chunk of draws."""

    @property
    def names(self) -> Sequence[str]:
        """Of the nodes that it is told of."""

    def see(self, made: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
        """Be told of values [chunk, ...] by name: as made for the draws, and the model's on the root's datum."""


class Engine:
    """Where a model runs, and what it has computed so far.

    Whoever scrubs asks it for three things: to foresee what trees will need of D, for values on D, and for f on data
    that were drawn. The values of one graph at a time are held: a study's hypotheses come graph by graph.

    f is computed by a plan (`evaluate.plan`): values of one datum once on D, for the draws only what is mixed of
    several, under any ablation. `run_scrubbed`, node by node, is the slow evaluator that it is held against.

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

    def on_data(self, graph: Graph) -> OnData:
        """The values of a graph's nodes on D.

        Raises:
            GraphError: when the graph is first seen: a node fails or is not pure (`check_purity`).
        """
        return self._hold(graph).on_data

    def kept(self, graph: Graph) -> Kept:
        """The values of a graph on D by number, as plans have them."""
        return self._hold(graph).on_data.kept

    def plan(self, tree: Tree, ablation: Ablation = RESAMPLING) -> Plan:
        """What a tree takes."""
        held = self._hold(tree.hypothesis.graph)
        plans, key = held.plans.setdefault(tree, {}), (ablation.kind, tuple(ablation.claimed))
        if ablation.kind == RESAMPLING.kind:
            key = (ablation.kind, ())
        if key not in plans:
            plans[key] = make_plan(held.on_data.values, tree, replacements(tree, ablation, held.on_data.on_data))
        return plans[key]

    def asked(self, tree: Tree, watch: Watch | None = None, ablation: Ablation = RESAMPLING) -> Asked:
        """Numbers of f of a tree and of what is watched of it, narrowed to what is read."""
        plan, held = self.plan(tree, ablation), self._hold(tree.hypothesis.graph)
        names, known = () if watch is None else tuple(watch.names), held.asked.setdefault(tree, {})
        if (plan, names) not in known:
            known[plan, names] = Asked.of(
                plan, names, Narrowing(plan.values, held.on_data.kept.shape, told=held.on_data.kept.told)
            )
        return known[plan, names]

    def foresee(self, trees: Sequence[Tree], watch: Watch | None = None, folds: Sequence[Fold] = ()) -> None:
        """Compute in one pass over D what trees of one graph will be asked for, as far as the memory goes.

        Args:
            trees: of one graph.
            watch: what will watch them.
            folds: what else is made of values on D as they pass.
        """
        graph = trees[0].hypothesis.graph
        held = self._hold(graph)
        frontiers = [n for tree in trees for n in self.plan(tree).frontier_of(self.asked(tree, watch).roots)]
        held.on_data.kept.keep([held.on_data.values.on_data(graph.output), *frontiers], self.progress, folds)

    def f(
        self, tree: Tree, data: Mapping[str, Tensor], watch: Watch | None = None, ablation: Ablation = RESAMPLING
    ) -> Tensor:
        """float64 [draws]: f on scrubbed inputs.

        Args:
            tree: the treeified hypothesis.
            data: path -> int64 [draws], the datum of each site (`pscrub.law.draw`).
            watch: told, chunk by chunk, of values that f is made of.
            ablation: what replaces unimportant inputs (and claimed nodes, if it says so): by default what is drawn.

        Raises:
            NodeError: a node's function raised; the hypothesis is named too.
        """
        return self.compile(tree, watch, ablation).evaluate(data, watch, self.progress)

    def compile(self, tree: Tree, watch: Watch | None = None, ablation: Ablation = RESAMPLING) -> Compiled:
        """What computes f of a tree, once what it reads of D is kept.

        Args:
            tree: the treeified hypothesis.
            watch: what will watch it.
            ablation: as `f` takes it.
        """
        plan, kept = self.plan(tree, ablation), self.kept(tree.hypothesis.graph)
        asked = self.asked(tree, watch, ablation)
        kept.keep(plan.frontier_of(asked.roots), self.progress)
        code = kept.code_of_draws(plan, asked.roots)
        size = self.chunk or kept.chunk(code)
        return Compiled.of(kept, code, (tree.hypothesis.name, tree.root), asked, size)

    def peak(self, tree: Tree) -> int:
        """Bytes of all values that live at once while a tree is scrubbed, kept ones and those of the chunks worked on.

        Told before anything is computed on D, but for two rows. Columns and the model come on top.
        """
        plan, kept, roots = self.plan(tree), self.kept(tree.hypothesis.graph), self.asked(tree).roots
        f, frontier = plan.values.on_data(tree.hypothesis.graph.output), plan.frontier_of(roots)
        on_data, _ = kept.narrowed([f, *(n for n in frontier if plan.values[n].kind is Kind.ON_D)])
        kept.code_of_draws(plan, roots)  # sizes are noted
        size = kept.bytes_of([n for n in frontier if plan.values[n].kind is Kind.ON_D])
        return min(size, kept.memory) + max(kept.peak(on_data), kept.peak(self.code_if_kept(tree)))

    def code_if_kept(self, tree: Tree) -> list[Instruction]:
        """What is computed for a draw once all that draws read of D is kept."""
        plan, kept, roots = self.plan(tree), self.kept(tree.hypothesis.graph), self.asked(tree).roots
        read = {*roots, *(n for each in plan.mixed_of(roots) for n in plan.values[each].args)}
        pure = {n for n in read if plan.values[n].kind is Kind.PURE}
        return kept.code(roots, {n for n in pure if plan.values.has_rows(plan.values[n].args[0])})

    def _hold(self, graph: Graph) -> _Held:
        if self._held is None or self._held.graph is not graph:
            self._held = None  # given back before others are made
            if graph not in self._pure:
                check_purity(graph, self.data, self.device)
                self._pure.add(graph)
            self._held = _Held(graph, OnData(graph, self.data, self.device, self.memory))
        return self._held


@dataclass(frozen=True, eq=False)
class _Held:
    """What is held of one graph: its values on D, and the plans of trees."""

    graph: Graph
    on_data: OnData
    plans: WeakKeyDictionary[Tree, dict[Hashable, Plan]] = field(default_factory=WeakKeyDictionary)
    asked: WeakKeyDictionary[Tree, dict[Hashable, Asked]] = field(default_factory=WeakKeyDictionary)


@dataclass(frozen=True)
class Asked:
    """Numbers of what is asked for: f, and by name values that are watched, as made and on the root's datum."""

    f: int
    made: Mapping[str, int]
    own: Mapping[str, int]

    @property
    def roots(self) -> tuple[int, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys((self.f, *self.made.values(), *self.own.values())))

    @classmethod
    def of(cls, plan: Plan, names: Sequence[str], narrowing: Narrowing) -> Asked:
        """What a plan is asked for, if nodes are watched by name."""
        own = {name: plan.values.pure(plan.values.on_data(name), plan.site) for name in names}
        made = plan.values.run(names, dict(plan.made)) if plan.made else own
        whole = narrowing.narrow([plan.root, *(made[name] for name in names)])
        return cls(whole[plan.root], {name: whole[made[name]] for name in names}, own)
