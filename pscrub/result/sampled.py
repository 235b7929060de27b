"""One hypothesis in the population that D is a sample of: its draws apart, beside the rounds of draws on D."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pscrub.estimate.estimate import Interval, Method, exact_estimate
from pscrub.estimate.gradients import Gradients, add_by_unit, exact_gradient
from pscrub.estimate.jackknife import Influence, Population, pool_populations
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.tree import Tree
from pscrub.law.apart import Apart, draw_apart, plan_places
from pscrub.result.draws import Round
from pscrub.result.keeping import KeptRound
from pscrub.result.result import ScrubResult


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
        self._latest: tuple[Round, Apart] | None = None

    def draw(self, each: Round, made: Mapping[int, KeptRound], first: int) -> Tensor:
        """float64 [known draws]: f on as many draws apart as a round has draws on D, under the same name.

        None where one row is all.

        Args:
            each: the round.
            made: the finished ones.
            first: the index of the first that there is to be.
        """
        if len(self.influence.places.places) == 1:
            return torch.empty(0, dtype=torch.float64)
        self._add(made, first)
        apart = self._apart(each)
        self._latest = each, apart
        if not bool(apart.known.any()):  # too few clusters for the places
            return torch.empty(0, dtype=torch.float64)
        return self.engine.f(self.tree, apart.data())

    def found(
        self, interval: Interval, made: Mapping[int, KeptRound], before: ScrubResult | None = None
    ) -> Population | None:
        """What is known, over finished rounds and those of a result that they go on from; None if nothing was drawn."""
        if len(self.influence.places.places) == 1:
            return self._exactly(interval)
        if self.tree.is_determined:  # no other row of D is like any, and not because the hypothesis says so
            return self.gradients.beside(torch.zeros_like(self.gradients.of_model), None, unknown=1.0)
        self._add(made)
        earlier = before.data.population if before is not None and before.data is not None else None
        if not self.influence.draws:
            return earlier
        estimate, unknown, gradient, excess = self.influence.found(interval)
        found = self.gradients.beside(gradient, estimate, unknown, excess)
        if before is not None and earlier is not None:
            return pool_populations((earlier, found), (len(before.draws.losses), self.influence.draws))
        return found

    def _add(self, made: Mapping[int, KeptRound], first: int | None = None) -> None:
        """Take in finished rounds: all; or, of those from a first one on, as many as no round is missing before."""
        for i in sorted(made)[self._added :]:
            if first is not None and i != first + self._added:
                return
            self.influence.add(self._apart(made[i].name), made[i].apart)
            self._added += 1

    def _apart(self, each: Round) -> Apart:
        if self._latest is not None and self._latest[0] == each:
            return self._latest[1]
        return draw_apart(self.influence.places, each.size, (each.seed, each.index))

    def _exactly(self, interval: Interval) -> Population:
        """f depends on one row, whatever the sample."""
        data = self.tree.hypothesis.data
        f = self.engine.f(self.tree, dict.fromkeys(self.tree.sites, torch.arange(data.n)))
        value = float(torch.where(data.weights > 0, data.weights * f, 0.0).sum())
        gradient = add_by_unit(exact_gradient(f, data.weights), self.gradients.units)
        return self.gradients.beside(gradient, exact_estimate(value, interval.level, Method.ONE_ROW.say()))
