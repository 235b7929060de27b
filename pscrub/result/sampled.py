"""One hypothesis in the population that D is a sample of: its draws apart, beside the rounds of draws on D."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pscrub.estimate.estimate import Interval, Method, exact_estimate
from pscrub.estimate.gradients import Gradients, add_by_unit, exact_gradient
from pscrub.estimate.jackknife import Influence, Population
from pscrub.estimate.pooling import pool_populations
from pscrub.evaluate.compiled import Compiled
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.tree import Tree
from pscrub.law.apart import Apart, Places, draw_apart, plan_places
from pscrub.result.draws import Round
from pscrub.result.keeping import KeptRound
from pscrub.result.result import ScrubResult


class ApartMaker:
    """What makes the draws of the population that go with a round.

    Args:
        places: the rows of a sample that a draw takes.
        compiled: computes f.
    """

    def __init__(self, places: Places, compiled: Compiled) -> None:
        self.places, self.compiled = places, compiled
        self._latest: tuple[Round, Apart] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_latest": None}

    def drawn(self, each: Round) -> Apart:
        """As many draws as a round has on D, under the same name."""
        latest = self._latest
        if latest is None or latest[0] != each:
            latest = self._latest = each, draw_apart(self.places, each.size, (each.seed, each.index))
        return latest[1]

    def f(self, apart: Apart) -> Tensor:
        """float64 [known draws]: f on them; none where clusters are too few for the places."""
        if not bool(apart.known.any()):
            return torch.empty(0, dtype=torch.float64)
        return self.compiled.evaluate(apart.data())


class Sampled:
    """What is known of one hypothesis in the population.

    Sums over rounds are made in the order of the rounds, whoever drew them and when, so that they come to the same: a
    round of which all before it are there is added at once, others in the end, from their draws made again.

    Args:
        tree: the treeified hypothesis.
        gradients: of what its graph's baselines are there.
        engine: evaluates f.
    """

    def __init__(self, tree: Tree, gradients: Gradients, engine: Engine) -> None:
        self.tree, self.gradients, self.engine = tree, gradients, engine
        self.influence = Influence(plan_places(tree, gradients.units))
        self._added = 0

    @cached_property
    def maker(self) -> ApartMaker | None:
        """What makes its draws; nothing where one row is all."""
        places = self.influence.places
        return None if len(places.places) == 1 else ApartMaker(places, self.engine.compile(self.tree))

    def found(
        self, interval: Interval, made: Mapping[int, KeptRound], before: ScrubResult | None = None
    ) -> Population | None:
        """What is known, over finished rounds and those of a result that they go on from; None if nothing was drawn."""
        if len(self.influence.places.places) == 1:
            return self._exactly(interval)
        if self.tree.is_determined:  # no other row of D is like any, and not because the hypothesis says so
            return self.gradients.beside(torch.zeros_like(self.gradients.of_model), None, unknown=1.0)
        self.add(made)
        earlier = before.data.population if before is not None and before.data is not None else None
        if not self.influence.draws:
            return earlier
        estimate, unknown, gradient, excess = self.influence.found(interval)
        bends = None
        if estimate is not None:
            bends = self.influence.bends(self.gradients.all(gradient), estimate.value)
        found = self.gradients.beside(gradient, estimate, unknown, excess, bends)
        if before is not None and earlier is not None:
            return pool_populations((earlier, found), (len(before.draws), self.influence.draws))
        return found

    def add(self, made: Mapping[int, KeptRound], first: int | None = None) -> None:
        """Take in finished rounds: all; or, of those from a first one on, as many as no round is missing before."""
        if self.maker is None:
            return
        for i in sorted(made)[self._added :]:
            if first is not None and i != first + self._added:
                return
            self.influence.add(self.maker.drawn(made[i].name), made[i].apart)
            self._added += 1

    def _exactly(self, interval: Interval) -> Population:
        """f depends on one row, whatever the sample."""
        data = self.tree.hypothesis.data
        f = self.engine.f(self.tree, dict.fromkeys(self.tree.sites, torch.arange(data.n)))
        value = float(torch.where(data.weights > 0, data.weights * f, 0.0).sum())
        gradient = add_by_unit(exact_gradient(f, data.weights), self.gradients.units)
        return self.gradients.beside(gradient, exact_estimate(value, interval.level, Method.ONE_ROW.say()))
