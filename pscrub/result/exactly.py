"""E_scrubbed without draws, where none are needed: nothing can be swapped, or the law of f is short enough to list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pscrub.estimate import stopping
from pscrub.estimate.estimate import Estimate, Interval, Method, exact_estimate
from pscrub.estimate.stopping import Stop
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.tree import Tree
from pscrub.law.of_f import list_within


def without_draws(tree: Tree, engine: Engine, level: float) -> Estimate:
    """E_scrubbed of a tree whose root's datum fixes all others.

    Args:
        tree: one that is determined.
        engine: computes f.
        level: of intervals.
    """
    data = tree.hypothesis.data
    f = engine.f(tree, dict.fromkeys(tree.sites, torch.arange(data.n)))
    value = float(torch.where(data.weights > 0, data.weights * f, 0.0).sum())
    return exact_estimate(value, level, Method.NOTHING_SWAPPED.say())


def enumerate_law(tree: Tree, engine: Engine, stop: Stop, interval: Interval) -> Estimate | None:
    """E_scrubbed from the law of f, if it takes no more evaluations of f than the first round of draws; else None.

    No uncertainty of draws is left in it, as long as D is what it is: the interval has no width. That does not make
    draws of no use. How f is spread, its worst, what sites were given, losses by groups and the uncertainty of the data
    are made from them; hypotheses are compared and claims' costs told by common random numbers; a run that goes on, or
    is merged, adds to them. So the draws that are asked for are made, the very ones that the seed names; where no
    number is, one round.

    None too if an interval of some kind is asked for by name: that is one about draws.

    Args:
        tree: the treeified hypothesis.
        engine: has the values of leaves on D.
        stop: how many draws are asked for; a round is all of them, or `stopping.ROUND`.
        interval: which is asked for.
    """
    if interval.kind != "auto":
        return None
    on_data = engine.on_data(tree.hypothesis.graph)
    every = dict.fromkeys(name for path in tree.leaves for name in tree.source(path))

    def read(names: Sequence[str], rows: Tensor) -> Mapping[str, Tensor]:
        on_data.keep(every)  # in one pass over D, at the first leaf: each by itself would run all that is below it
        return {name: on_data.rows(name, rows).cpu() for name in names}

    found = list_within(tree, min(stop.draws or stopping.ROUND, stopping.ROUND), read)
    if found is None:
        return None
    method = Method.LISTED.say(values=found.values, evaluations=found.evaluations)
    return exact_estimate(found.value, interval.level, method)
