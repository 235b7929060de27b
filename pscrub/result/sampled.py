"""One hypothesis in the population that D is a sample of: its draws apart, beside the rounds of draws on D."""

from __future__ import annotations

import torch

from pscrub.estimate.estimate import Interval, Method, exact_estimate
from pscrub.estimate.gradients import Gradients, add_by_unit, exact_gradient
from pscrub.estimate.jackknife import Influence, Population, pool_populations
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.tree import Tree
from pscrub.law.apart import draw_apart, plan_places
from pscrub.result.draws import Round
from pscrub.result.result import ScrubResult


class Sampled:
    """What is known of one hypothesis in the population.

    Args:
        tree: the treeified hypothesis.
        gradients: of what its graph's baselines are there.
        engine: evaluates f.
    """

    def __init__(self, tree: Tree, gradients: Gradients, engine: Engine) -> None:
        self.tree, self.gradients, self.engine = tree, gradients, engine
        self.influence = Influence(plan_places(tree, gradients.units))

    def draw(self, each: Round) -> None:
        """As many draws apart as a round has draws on D, under the same name; none where one row is all."""
        if len(self.influence.places.places) > 1:
            apart = draw_apart(self.influence.places, each.size, (each.seed, each.index))
            self.influence.add(apart, self.engine.f(self.tree, apart.data()))

    def found(self, interval: Interval, before: ScrubResult | None = None) -> Population | None:
        """What is known, over these draws and those of a result that they go on from; None if nothing was drawn."""
        if len(self.influence.places.places) == 1:
            return self._exactly(interval)
        if self.tree.is_determined:  # no other row of D is like any, and not because the hypothesis says so
            return self.gradients.beside(torch.zeros_like(self.gradients.of_model), None, unknown=1.0)
        earlier = before.data.population if before is not None and before.data is not None else None
        if not self.influence.draws:
            return earlier
        estimate, unknown, gradient, excess = self.influence.found(interval)
        found = self.gradients.beside(gradient, estimate, unknown, excess)
        if before is not None and earlier is not None:
            return pool_populations((earlier, found), (len(before.draws.losses), self.influence.draws))
        return found

    def _exactly(self, interval: Interval) -> Population:
        """f depends on one row, whatever the sample."""
        data = self.tree.hypothesis.data
        f = self.engine.f(self.tree, dict.fromkeys(self.tree.sites, torch.arange(data.n)))
        value = float(torch.where(data.weights > 0, data.weights * f, 0.0).sum())
        gradient = add_by_unit(exact_gradient(f, data.weights), self.gradients.units)
        return self.gradients.beside(gradient, exact_estimate(value, interval.level, Method.ONE_ROW.say()))
