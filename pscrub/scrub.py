"""The driver: from hypotheses to scrubbed expected losses and losses recovered."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline, model_loss, randomised_loss
from pscrub.estimate.distances import OutputDistances
from pscrub.estimate.estimate import check_interval, exact_estimate, mean_of_pairs
from pscrub.estimate.population import Scores, exact_gradient, pool_gradients, randomised_gradient
from pscrub.estimate.recovered import loss_recovered
from pscrub.evaluate.reference import run_scrubbed, sources_of
from pscrub.evaluate.values import MEMORY, Activations
from pscrub.graph.equal import RewriteCheck, check_rewrites
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Study
from pscrub.hypothesis.tree import Tree, unroll
from pscrub.law.drawing import draw
from pscrub.progress import Clock, Progress, quiet
from pscrub.result import warnings as fragile
from pscrub.result.collect import collect_round, make_reference, sites_of
from pscrub.result.conclude import conclude, estimate_from, is_zero_one
from pscrub.result.draws import Draws, Reference, Round, join_draws
from pscrub.result.merging import tell_apart
from pscrub.result.provenance import law_hash, versions
from pscrub.result.result import ScrubResult, StudyResult

ROUND = 16_384
"""Draws in a round: stratified, evaluated and added to the estimate together, so that stopping early stays unbiased."""
WIDTH = 1.0
"""Default width in points of loss recovered at which drawing stops."""
MOST = 1_000_000
"""Draws after which a run gives up on reaching a width, and says so."""


def scrub(
    study: Study | Hypothesis | Sequence[Hypothesis],
    *,
    draws: int | None = None,
    until_width: float | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    level: float = 0.95,
    memory: int = MEMORY,
    chunk: int | None = None,
    randomised: Baseline | float | None = None,
    interval: str = "auto",
    bounds: tuple[float, float] | None = None,
    data_uncertainty: bool = False,
    progress: Progress = quiet,
    each: Callable[[ScrubResult], None] | None = None,
    save: Callable[[StudyResult], None] | None = None,
    after: StudyResult | None = None,
) -> StudyResult:
    """The scrubbed expected loss and loss recovered of each hypothesis, with intervals for the draws' uncertainty.

    The same seed gives the same numbers whatever the chunk size (up to rounding of the model's own arithmetic).
    Hypotheses of one call share seeds: their draws are common random numbers, not independent. An interrupt
    (Ctrl-C) ends the run with the estimates so far, marked as cut short.

    Args:
        study: a study, a hypothesis, or several on one dataset.
        draws: draws of each hypothesis (rounded up to pairs). Without it, drawing goes on until `until_width`.
        until_width: full width, in points of loss recovered, at which to stop (1.0 if `draws` is not given either).
        seed: names the draws.
        device: where activations live and the model runs.
        level: nominal coverage of intervals.
        memory: bytes for activations on D.
        chunk: draws evaluated at a time; by default what the memory allows.
        randomised: the baseline, if not E_randomised as `measures.randomised_loss` computes it.
        interval: "auto" picks the interval that suits the losses and says so; or "t", "betting", "bernstein" or
            "sequence", see `estimate.choose`.
        bounds: the least and greatest f there can be, if known.
        data_uncertainty: also give the uncertainty of D as a sample of a population, apart and with the draws'.
        progress: told of work as it is done.
        each: told of each result as soon as it is there.
        save: told, after each hypothesis, of the study's result so far, marked as cut short.
        after: an earlier result of the same study, which this one continues: rounds of draws go on where it ended (or
            begin, with another seed), and the result is of all of them together.

    Raises:
        HypothesisError: a hypothesis is not well formed, or its graph is not equal to f on D.
        StudyError: options that contradict one another, or `after` is of another study.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    study = _as_study(study)
    if draws is not None and draws < 1:
        raise StudyError(f"draws is {draws}; expected at least 1")
    if seed < 0:
        raise StudyError(f"seed is {seed}; expected 0 or more")
    if not 0 < level < 1:
        raise StudyError(f"level is {level}; expected between 0 and 1, as 0.95")
    if until_width is not None and not 0 < until_width < math.inf:
        raise StudyError(f"until-width is {until_width}; expected a positive number of points of loss recovered")
    if draws is not None and until_width is not None:
        raise StudyError("draws and until-width were both given; expected one of them")
    check_interval(interval, bounds)
    given = Baseline(float(randomised), 0.0, 0, "given") if isinstance(randomised, float | int) else randomised
    clock = Clock()
    results: list[ScrubResult] = []
    rewrites: tuple[RewriteCheck, ...] = ()
    reference = Reference()
    earlier = {} if after is None else {result.hypothesis: result for result in after.results}
    cut_short = False

    def found() -> StudyResult:
        seconds = dict(clock.seconds)
        for result in results:
            for phase, spent in result.seconds.items():
                seconds[phase] = seconds.get(phase, 0.0) + spent
        about = (study.name, tuple(results), seed, str(device), level, rewrites, seconds, cut_short)
        return StudyResult(*about, tuple(study.notes), reference, versions(), started)

    try:
        with clock("checks"):
            for hypothesis in study.hypotheses:
                hypothesis.check(rewrites=False)
            for graph in dict.fromkeys(h.graph for h in study.hypotheses):
                rewrites += check_rewrites(graph, study.hypotheses[0].data)
        for graph, hypotheses in itertools.groupby(study.hypotheses, key=lambda h: h.graph):
            trees = [unroll(hypothesis) for hypothesis in hypotheses]
            with clock("activations on D"):
                activations = Activations(graph, study.hypotheses[0].data, device, memory)
                output = (graph.output, *graph.reads(graph.output))
                activations.foresee([output, *(sources_of(tree) for tree in trees)], progress)
            with clock("baselines"):
                model = model_loss(activations, progress)
                baseline = given or randomised_loss(activations, study.labels, seed=seed, progress=progress)
                if not results:
                    reference = make_reference(activations, study.labels, study.by, baseline, seed, progress)
                    if after is not None and after.reference.data_hash != reference.data_hash:
                        raise StudyError("the earlier result is of other data than this study's")
                distances = OutputDistances(activations, study.labels) if study.by else None
            gradients: tuple[Tensor, ...] = ()
            if data_uncertainty:
                with clock("uncertainty of the data"):
                    f = activations.on_data(graph.output)
                    gradients = (exact_gradient(f, study.hypotheses[0].data.weights),)
                    gradients += (
                        (torch.zeros_like(gradients[0]),)
                        if given is not None
                        else (randomised_gradient(activations, study.labels, seed=seed),)
                    )
            for tree in trees:
                before = earlier.get(tree.hypothesis.name)
                about = (tree, activations, model, baseline, level, seed, chunk, progress, distances, before)
                run = _Run(*about, interval, bounds, is_zero_one(reference), gradients)
                results.append(run.until(draws, WIDTH if until_width is None else until_width))
                if each is not None:
                    each(results[-1])
                if results[-1].cut_short:
                    raise KeyboardInterrupt
                if save is not None and len(results) < len(study.hypotheses):
                    save(replace(found(), cut_short=True))
    except KeyboardInterrupt:
        cut_short = True
    return found()


@dataclass
class _Run:
    """One hypothesis being scrubbed, round by round."""

    tree: Tree
    activations: Activations
    model: Baseline
    randomised: Baseline
    level: float
    seed: int
    chunk: int | None
    progress: Progress
    distances: OutputDistances | None
    before: ScrubResult | None
    interval: str
    bounds: tuple[float, float] | None
    zero_one: bool
    gradients: tuple[Tensor, ...]
    """Of E_model and E_randomised; none if the uncertainty of the data was not asked for."""

    def until(self, draws: int | None, width: float) -> ScrubResult:
        clock, self.kept, self.law = Clock(), sites_of(self.tree), law_hash(self.tree)
        self.scores = Scores(self.tree)
        self.gradient: Tensor | None = None
        if _is_determined(self.tree):
            rows = torch.arange(self.tree.hypothesis.data.n)
            with clock("evaluation"):
                f = run_scrubbed(self.tree, self.activations, dict.fromkeys(self.tree.sites, rows), chunk=self.chunk)
            weights = self.tree.hypothesis.data.weights
            value = float(torch.where(weights > 0, weights * f, 0.0).sum())
            exact = exact_estimate(value, self.level, "exact: nothing can be swapped")
            self.gradient = exact_gradient(f, weights)
            return self._result(Draws(sites=self.kept), clock, exact=exact)
        made = [] if self.before is None else [self.before.draws]
        stopping = "draws" if draws is not None else "width"
        if self.before is not None:
            faults = tell_apart(self.before, self._result(self.before.draws, clock))
            if faults:
                raise StudyError(faults)
            stopping = "width" if "width" in (stopping, self.before.stopping) else "draws"
        warnings: tuple[str, ...] = ()
        cut_short = False
        try:
            if draws is not None:
                for size in _sizes(draws + draws % 2):
                    made.append(self._round(made, size, clock))
            else:
                warnings = self._until_narrow(made, width, clock)
        except KeyboardInterrupt:
            if not made:
                raise
            cut_short = True
        return self._result(join_draws(made), clock, stopping, cut_short=cut_short, warnings=warnings)

    def _until_narrow(self, made: list[Draws], width: float, clock: Clock) -> tuple[str, ...]:
        """Stein's two-stage rule: the first round sets how many draws reach the width, whatever later rounds show.

        The interval is the first round's, scaled to all draws, which covers at its level for normal means however many
        draws that takes. If all draws together say it is still too wide, more are made and the wider interval is kept.
        """
        if not made:
            made.append(self._round(made, ROUND, clock))
        wanted = width * abs(self.model.value - self.randomised.value) / 100
        if loss_recovered(mean_of_pairs(made[0].by_round[0], self.level), self.model, self.randomised) is None:
            return (f"loss recovered is undefined, so no width can be reached: stopped at {ROUND:,} draws",)
        while True:
            estimate = estimate_from(join_draws(made), self.level, "width", self.interval, self.bounds, self.zero_one)
            n = estimate.draws
            needed = n * (estimate.width / wanted) ** 2
            if needed <= n:
                return ()
            if n >= MOST:
                return (f"stopped at {n:,} draws, before the interval was {width:g} points wide",)
            for size in _sizes(math.ceil((min(needed, MOST) - n) / 2) * 2):
                made.append(self._round(made, size, clock))

    def _round(self, made: Sequence[Draws], size: int, clock: Clock) -> Draws:
        index = 1 + max((r.index for each in made for r in each.rounds if r.seed == self.seed), default=-1)
        with clock("drawing"):
            data = draw(self.tree, size, (self.seed, index))
        watch = None if self.distances is None else self.distances.watch
        with clock("evaluation"):
            f = run_scrubbed(self.tree, self.activations, data, chunk=self.chunk, progress=self.progress, watch=watch)
            if self.gradients:
                self.scores.add(data, f)
        distances = {} if self.distances is None else self.distances.taken()
        return collect_round(self.tree, self.kept, Round(self.seed, index, size), data, f, distances)

    def _result(self, draws: Draws, clock: Clock, stopping: str = "draws", **found: Any) -> ScrubResult:
        about = (self.tree.hypothesis.name, self.law, draws, self.model, self.randomised, self.level, stopping)
        if self.gradients and (self.scores.draws or self.gradient is not None):
            population = ((self._gradient(), *self.gradients), self.tree.hypothesis.data.weights)
            found["population"] = population
        found |= {"interval": self.interval, "bounds": self.bounds, "zero_one": self.zero_one}
        found["warnings"] = (*fragile.warn_of_tree(self.tree), *found.get("warnings", ()))
        return conclude(*about, seconds=dict(clock.seconds), **found)

    def _gradient(self) -> Tensor:
        """Of E_scrubbed, over the draws of this run and of the result that it goes on from."""
        if self.gradient is not None:
            return self.gradient
        own = self.scores.gradient()
        if self.before is None or self.before.data is None:
            return own
        return pool_gradients((self.before.data.gradients[0], own), (self.before.scrubbed.draws, self.scores.draws))


def _is_determined(tree: Tree) -> bool:
    """Whether the root's datum fixes all others: every other site's blocks have one row that can be drawn."""
    return all(path == tree.root or int(s.partition.sizes.max()) <= 1 for path, s in tree.sites.items())


def _sizes(draws: int) -> list[int]:
    whole, rest = divmod(draws, ROUND)
    return [ROUND] * whole + [rest] * (rest > 0)


def _as_study(study: Study | Hypothesis | Sequence[Hypothesis]) -> Study:
    if isinstance(study, Study):
        return study
    hypotheses = (study,) if isinstance(study, Hypothesis) else tuple(study)
    return Study("study", hypotheses)
