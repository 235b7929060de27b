"""Hypotheses seen side by side: differences on common random numbers, ladders, many at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline, Baselines, folds_of_baselines, what_is_known
from pscrub.estimate.concerns import find_concerns
from pscrub.estimate.estimate import Estimate, choose, exact_estimate
from pscrub.estimate.known import Known
from pscrub.estimate.recovered import loss_recovered, points_recovered
from pscrub.estimate.simultaneous import Family, simultaneous_level
from pscrub.estimate.stopping import ROUND, sizes_of_rounds
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Study
from pscrub.hypothesis.tree import Tree, unroll
from pscrub.law.drawing import draw_alike
from pscrub.outcomes import Outcome
from pscrub.progress import Progress, quiet
from pscrub.result.table import Table


class Paired(Outcome):
    """How a difference of two expected losses was estimated."""

    COMMON = "common random numbers", "paired differences on common random numbers; {method}"
    SAME = "same hypothesis", "exact: a hypothesis beside itself"
    FRESH = "fresh draws", "paired differences on fresh draws; {method}"


@dataclass(frozen=True)
class Sample:
    """What is drawn to answer a question, and what losses are held against.

    Args:
        draws: of each hypothesis, or of what else is scrubbed (rounded up to pairs).
        seed: names the draws.
        labels: the columns that are labels, for the randomised loss.
        randomised: the baseline, if not E_randomised.
        shown: what f is known to be, if that was found before; else it is looked at on D and on the baseline's pairs.

    Raises:
        StudyError: fewer than one draw, or a negative seed.
    """

    draws: int
    seed: int = 0
    labels: str | Sequence[str] | None = None
    randomised: Baseline | None = None
    shown: Known | None = None

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise StudyError(f"draws is {self.draws}; expected at least 1")
        if self.seed < 0:
            raise StudyError(f"seed is {self.seed}; expected 0 or more")

    def baselines(self, engine: Engine, tree: Tree) -> Baselines:
        """E_model and E_randomised of a tree's graph."""
        on_data = engine.on_data(tree.hypothesis.graph)
        return Baselines.of(on_data, self.labels, self.randomised, self.seed, engine.progress)

    def known(self, engine: Engine, tree: Tree) -> Known:
        """What f is on D and on the pairs that the baselines were made from; ask after these."""
        if self.shown is not None:
            return self.shown
        on_data, given = engine.on_data(tree.hypothesis.graph), self.randomised is not None
        return what_is_known(on_data, self.labels, self.seed, given, engine.progress)


@dataclass(frozen=True, eq=False)
class Losses:
    """f of several scrubbed hypotheses on common random numbers.

    Args:
        names: of the hypotheses, or of what else was scrubbed.
        f: float64 [names, draws], pair by pair; columns share root data, and where they can all other data.
        model: E_model.
        randomised: E_randomised.
        known: what f is on D and on pairs, which says what draws may have missed.
    """

    names: tuple[str, ...]
    f: Tensor
    model: Baseline
    randomised: Baseline
    known: Known = field(default_factory=Known)

    @property
    def against(self) -> Baselines:
        """Both baselines."""
        return Baselines(self.model, self.randomised)

    @cached_property
    def correlation(self) -> Tensor:
        """float64 [names, names]: of the means' errors, from the differences within pairs; 0 where f does not vary."""
        d = self.f.reshape(len(self.f), -1, 2).diff().squeeze(-1)
        scale = d.norm(dim=1)
        unit = torch.where(scale[:, None] > 0, d / scale.clamp(min=1e-300)[:, None], 0.0)
        return unit @ unit.T

    def scores(
        self, level: float = 0.95, family: Family = "max-t", interval: str = "auto"
    ) -> tuple[Estimate | None, ...]:
        """Each hypothesis's loss recovered, the intervals holding all together at the level; None where undefined."""
        each = simultaneous_level(self.correlation, level, family)
        found = (choose(f, each, interval, known=self.known) for f in self.f)
        return tuple(loss_recovered(estimate, self.against) for estimate in found)

    def difference(self, f: Tensor, level: float) -> Estimate:
        """The mean of paired differences of two, float64 [draws], with the interval that suits what f can be."""
        e = choose(f, level, known=self.known.of_difference)
        return replace(e, method=Paired.COMMON.wrap(e.method))

    def table(self, level: float = 0.95) -> Table:
        """Expected losses, losses recovered and paired changes from the first, each kind holding together.

        Args:
            level: of the intervals.
        """
        head = ("ablation", "E_scrubbed", "recovered, %", "interval", "change", "interval")
        rows = []
        for name, f, score in zip(self.names, self.f, self.scores(level), strict=True):
            change = None if name == self.names[0] else compare(self, self.names[0], name, level).difference
            cells = [name, f"{float(f.mean()):.4g}"]
            cells += ["undefined", ""] if score is None else [f"{score.value:.2f}", score.ends()]
            cells += ["", ""] if change is None else [f"{change.value:+.4g}", change.ends()]
            rows.append(tuple(cells))
        return Table(head, tuple(rows))


@dataclass(frozen=True)
class Comparison:
    """How two hypotheses differ on common random numbers.

    Args:
        first: a name.
        second: a name.
        difference: E_scrubbed of the second less that of the first, in f's units.
        points: the same in points of loss recovered; None where that has no meaning.
        unpaired: width of the interval that independent draws of the same number would give, in f's units.
        correlation: of the two errors.
        warnings: what to know of the difference's interval before believing it.
    """

    first: str
    second: str
    difference: Estimate
    points: Estimate | None
    unpaired: float
    correlation: float
    warnings: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """Which recovers more, as far as limits to one side tell (`Estimate.limit`).

        It names a side, and is wrong half as often as the interval at most. The ends of t, of which the interval is
        made, err more than that on the heavy side of differences that are skewed.
        """
        e = self.points
        if e is not None and e.limit("lower") > 0:
            return f"'{self.second}' recovers more"
        if e is not None and e.limit("upper") < 0:
            return f"'{self.first}' recovers more"
        return "undecided"


def draw_losses(
    study: Study | Sequence[Hypothesis],
    *,
    draws: int = 2 * ROUND,
    seed: int = 0,
    device: torch.device | str = "cpu",
    memory: int = MEMORY,
    chunk: int | None = None,
    randomised: Baseline | float | None = None,
    progress: Progress = quiet,
) -> Losses:
    """f of each hypothesis, on common random numbers: `compare`, `ladder` and simultaneous scores are made from it.

    Hypotheses share the root's data, and every site whose path and block are the same in two of them the datum.

    Args:
        study: a study, or hypotheses on one data set and behaviour.
        draws: of each (rounded up to pairs).
        seed: names the draws.
        device: where the model runs.
        memory: bytes for activations on D.
        chunk: draws evaluated at a time.
        randomised: the baseline, if not E_randomised.
        progress: told of draws done.

    Raises:
        HypothesisError: a hypothesis is not well formed.
        StudyError: several data sets, or too few draws.
    """
    study = Study.of(study)
    trees = {h.name: unroll(h) for h in study.hypotheses}
    sample = Sample(draws, seed, study.labels, Baseline.given(randomised))
    return draw_losses_of(trees, sample, Engine(study.hypotheses[0].data, device, memory, chunk, progress))


def compare(losses: Losses, first: str, second: str, level: float = 0.95) -> Comparison:
    """How the second of two hypotheses differs from the first: the paired difference with its interval.

    Where the two hardly differ, t would rest on the few draws where they do, and an interval with bounds is taken, of
    differences of losses such as D and the pairs of E_randomised show (`choose`).

    Args:
        losses: of both, from `draw_losses`.
        first: a name.
        second: a name.
        level: nominal coverage.

    >>> f = torch.tensor([[0.0, 1.0, 2.0, 1.0], [0.5, 1.6, 2.5, 1.6]], dtype=torch.float64)
    >>> losses = Losses(("a", "b"), f, Baseline(0.0, 0, 0, "exact"), Baseline(10.0, 0, 0, "exact"))
    >>> found = compare(losses, "a", "b")
    >>> round(found.difference.value, 2), round(found.points.value, 1), found.answer
    (0.55, -5.5, "'a' recovers more")
    """
    for name in (first, second):
        if name not in losses.names:
            raise StudyError(f"no losses of '{name}'; there are {', '.join(losses.names)}")
    i, j = losses.names.index(first), losses.names.index(second)
    a, b = losses.f[i], losses.f[j]
    difference = losses.difference(b - a, level)
    if i == j:
        difference = exact_estimate(0.0, level, Paired.SAME.say())
    apart = [choose(f, level, known=losses.known) for f in (a, b)]
    unpaired = math.hypot(apart[0].width, apart[1].width)
    points = points_recovered(difference, losses.against)
    warnings = () if i == j else tuple(find_concerns(b - a, difference, losses.known.of_difference))
    return Comparison(first, second, difference, points, unpaired, float(losses.correlation[i, j]), warnings)


def ladder(losses: Losses, level: float = 0.95, family: Family = "max-t") -> tuple[Comparison, ...]:
    """Each step of a ladder: a hypothesis against the one before it, the intervals holding all together at the level.

    Args:
        losses: of the hypotheses, in the ladder's order.
        level: nominal coverage of all the intervals at once.
        family: how that is made sure, see `simultaneous_level`.
    """
    if len(losses.names) < 2:
        raise StudyError("a ladder needs two hypotheses or more")
    steps = Losses(losses.names[1:], losses.f[1:] - losses.f[:-1], losses.model, losses.randomised)
    each = simultaneous_level(steps.correlation, level, family)
    return tuple(compare(losses, a, b, each) for a, b in zip(losses.names[:-1], losses.names[1:], strict=True))


def is_coarser(weaker: Hypothesis, stronger: Hypothesis) -> bool:
    """Whether the stronger hypothesis permits every swap that the weaker one does, at every site that both have.

    A site that only the stronger one has stands for a node that the weaker one evaluates whole. On a ladder of nested
    hypotheses this holds from each rung to the next; recovered loss may rise along it all the same.
    """
    one, other = unroll(weaker), unroll(stronger)
    shared = [path for path in one.sites if path in other.sites]
    return bool(shared) and all(one.sites[p].partition.refines(other.sites[p].partition) for p in shared)


def draw_losses_of(trees: Mapping[str, Tree], sample: Sample, engine: Engine) -> Losses:
    """f of each tree, by name, on common random numbers.

    Args:
        trees: by name, all on one dataset and behaviour.
        sample: what is drawn.
        engine: computes f.
    """
    every = tuple(trees.values())
    strata = every[0].seen.refine(*(tree.seen for tree in every[1:]))
    against, known, rows = None, Known(), list[Tensor]()
    for _, alike in itertools.groupby(every, key=lambda tree: tree.hypothesis.graph):
        together = list(alike)
        folds = []
        if against is None:
            on_data = engine.on_data(together[0].hypothesis.graph)
            folds = folds_of_baselines(on_data, sample.labels, sample.randomised, sample.seed)
        engine.foresee(together, None, folds)
        if against is None:
            against = sample.baselines(engine, together[0])
            known = sample.known(engine, together[0])
        for tree in together:
            f = [
                engine.f(tree, draw_alike(tree, strata, size, (sample.seed, index)))
                for index, size in enumerate(sizes_of_rounds(sample.draws))
            ]
            rows.append(torch.cat(f))
    assert against is not None
    return Losses(tuple(trees), torch.stack(rows), against.model, against.randomised, known)
