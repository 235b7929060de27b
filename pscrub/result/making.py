"""What makes a round of one hypothesis: scrubbed inputs from their law, f on them, and what is kept of both."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.estimate.distances import OutputDistances
from pscrub.evaluate.compiled import Compiled
from pscrub.hypothesis.tree import Tree
from pscrub.law.drawing import draw
from pscrub.law.permuted import draw_permuted
from pscrub.progress import Clock, Progress, quiet
from pscrub.result.collect import collect_round
from pscrub.result.draws import Round, SiteDraws
from pscrub.result.keeping import KeptRound
from pscrub.result.sampled import ApartMaker


@dataclass(frozen=True)
class OnlyData:
    """What drawing reads of a hypothesis."""

    name: str
    data: Dataset


@dataclass(frozen=True, eq=False)
class Maker:
    """What makes the rounds of one hypothesis; a round is the same whoever makes it, and wherever.

    Args:
        tree: the treeified hypothesis.
        compiled: computes f.
        sites: what can be drawn for each, nothing drawn.
        law: the hash of its law.
        run: `Manifest.identity` of the run.
        distances: of outputs, if they are kept.
        apart: what makes draws of the population, if these are made.
    """

    tree: Tree
    compiled: Compiled
    sites: Sequence[SiteDraws]
    law: str
    run: str
    distances: OutputDistances | None
    apart: ApartMaker | None

    def __getstate__(self) -> dict[str, Any]:
        """What is sent: of the tree nothing but what drawing reads, and so none of the user's functions."""
        whole = self.tree.hypothesis
        sites = {path: replace(s, claim=None, apart={}, reading=None) for path, s in self.tree.sites.items()}
        tree = Tree(OnlyData(whole.name, whole.data), sites, self.tree.root)  # type: ignore[arg-type]
        return {**self.__dict__, "tree": tree}

    def make(
        self, each: Round, progress: Progress = quiet, alone: AbstractContextManager[Any] | None = None
    ) -> KeptRound:
        """A round.

        Args:
            each: its name and size.
            progress: told of draws that are done.
            alone: held while data are drawn, as Pyro's handlers are one stack for all threads.

        Raises:
            NodeError: a node's function raised.
        """
        clock, alone = Clock(), alone or nullcontext()
        distances = None if self.distances is None else self.distances.anew()
        with alone, clock("drawing"):  # scrubbed inputs from their law
            data = draw_round(self.tree, each)
        with clock("evaluation"):  # f on them
            f = self.compiled.evaluate(data, distances, progress)
        apart = torch.empty(0, dtype=torch.float64)
        if self.apart is not None:
            with clock("draws apart"):  # and of the population
                with alone:
                    drawn = self.apart.drawn(each)
                apart = self.apart.f(drawn)
        taken = {} if distances is None else distances.taken()
        draws = collect_round(self.tree, self.sites, each, data, f, taken)
        return KeptRound(self.tree.hypothesis.name, self.law, self.run, draws, apart, clock.seconds)


def draw_round(tree: Tree, made: Round) -> dict[str, Tensor]:
    """path -> int64 [draws]: the scrubbed inputs of a round, from their law; its name is their seed."""
    name = made.seed, made.index
    return draw_permuted(tree, made.size, name, made.replicates) if made.replicates else draw(tree, made.size, name)
