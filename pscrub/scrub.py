"""The driver: from hypotheses to scrubbed expected losses and losses recovered."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.errors import StudyError
from pscrub.estimate import Estimate, exactly, mean_of_pairs, recovered, widened
from pscrub.evaluate import MEMORY, Activations, Progress, gathered, quiet, scrubbed
from pscrub.hypothesis import EXACT, Claim, Hypothesis
from pscrub.measures import Baseline, model_loss, randomised_loss
from pscrub.program import draw
from pscrub.result import ScrubResult, StudyResult
from pscrub.rewrites import RewriteCheck, check_rewrites
from pscrub.study import Study
from pscrub.tree import Tree, unroll

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
    progress: Progress = quiet,
    each: Callable[[ScrubResult], None] | None = None,
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
        progress: told of work as it is done.
        each: told of each result as soon as it is there.

    Raises:
        HypothesisError: a hypothesis is not well formed, or its graph is not equal to f on D.
        StudyError: options that contradict one another.
    """
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
    given = Baseline(float(randomised), 0.0, 0, "given") if isinstance(randomised, float | int) else randomised
    clock = _Clock()
    results: list[ScrubResult] = []
    rewrites: tuple[RewriteCheck, ...] = ()
    cut_short = False
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
                activations.foresee([output, *(gathered(tree) for tree in trees)], progress)
            with clock("baselines"):
                model = model_loss(activations, progress)
                baseline = given or randomised_loss(activations, study.labels, seed=seed, progress=progress)
            for tree in trees:
                run = _Run(tree, activations, model, baseline, level, seed, chunk, progress)
                results.append(run.until(draws, WIDTH if until_width is None else until_width))
                if each is not None:
                    each(results[-1])
                if results[-1].cut_short:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        cut_short = True
    seconds = dict(clock.seconds)
    for result in results:
        for phase, spent in result.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + spent
    return StudyResult(
        study.name, tuple(results), seed, str(device), level, rewrites, seconds, cut_short, tuple(study.notes)
    )


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

    def until(self, draws: int | None, width: float) -> ScrubResult:
        clock = _Clock()
        if _is_determined(self.tree):
            rows = torch.arange(self.tree.hypothesis.data.n)
            with clock("evaluation"):
                f = scrubbed(self.tree, self.activations, dict.fromkeys(self.tree.sites, rows), chunk=self.chunk)
            weights = self.tree.hypothesis.data.weights
            value = float(torch.where(weights > 0, weights * f, 0.0).sum())
            return self._result(exactly(value, self.level, "exact: nothing can be swapped"), clock, False, ())
        rounds: list[Tensor] = []
        warnings: tuple[str, ...] = ()
        cut_short = False
        try:
            if draws is not None:
                for size in _sizes(draws + draws % 2):
                    rounds.append(self._round(len(rounds), size, clock))
            else:
                warnings = self._until_narrow(rounds, width, clock)
        except KeyboardInterrupt:
            if not rounds:
                raise
            cut_short = True
        estimate = mean_of_pairs(torch.cat(rounds), self.level)
        if draws is None:
            pilot = mean_of_pairs(rounds[0], self.level)
            half = pilot.width / 2 * math.sqrt(pilot.draws / estimate.draws)
            estimate = widened(estimate, half, estimate.method + ", two-stage")
        return self._result(estimate, clock, cut_short, warnings)

    def _until_narrow(self, rounds: list[Tensor], width: float, clock: _Clock) -> tuple[str, ...]:
        """Stein's two-stage rule: the first round sets how many draws reach the width, whatever later rounds show.

        The interval is the first round's, scaled to all draws, which covers at its level for normal means however many
        draws that takes. If all draws together say it is still too wide, more are made and the wider interval is kept.
        """
        rounds.append(self._round(0, ROUND, clock))
        scale = abs(self.model.value - self.randomised.value) / 100
        wanted = width * scale
        if recovered(mean_of_pairs(rounds[0], self.level), self.model, self.randomised) is None:
            return (f"loss recovered is undefined, so no width can be reached: stopped at {ROUND:,} draws",)
        while True:
            n = sum(len(f) for f in rounds)
            widths = [
                mean_of_pairs(f, self.level).width * math.sqrt(len(f) / n) for f in (rounds[0], torch.cat(rounds))
            ]
            needed = n * (max(widths) / wanted) ** 2
            if needed <= n:
                return ()
            if n >= MOST:
                return (f"stopped at {n:,} draws, before the interval was {width:g} points wide",)
            for size in _sizes(math.ceil((min(needed, MOST) - n) / 2) * 2):
                rounds.append(self._round(len(rounds), size, clock))

    def _round(self, index: int, size: int, clock: _Clock) -> Tensor:
        with clock("drawing"):
            data = draw(self.tree, size, (self.seed, index))
        with clock("evaluation"):
            return scrubbed(self.tree, self.activations, data, chunk=self.chunk, progress=self.progress)

    def _result(self, estimate: Estimate, clock: _Clock, cut_short: bool, warnings: tuple[str, ...]) -> ScrubResult:
        score = recovered(estimate, self.model, self.randomised)
        found = (*_warnings(self.tree, estimate, score, self.model, self.randomised), *warnings)
        name = self.tree.hypothesis.name
        return ScrubResult(name, estimate, self.model, self.randomised, score, dict(clock.seconds), cut_short, found)


def _warnings(
    tree: Tree, estimate: Estimate, score: Estimate | None, model: Baseline, randomised: Baseline
) -> Iterator[str]:
    if not math.isfinite(estimate.value):
        yield f"non-finite loss: the scrubbed expected loss is {estimate.value}; f is infinite or NaN on some draws"
    if not math.isfinite(model.value):
        yield f"non-finite loss: E_model is {model.value}"
    if score is None and math.isfinite(estimate.value):
        yield (
            f"baselines coincide: E_model {model.value:.6g} and E_randomised {randomised.value:.6g} cannot be told "
            "apart, so loss recovered is undefined"
        )
    if not estimate.exact and estimate.se == 0:
        yield f"no variation: f was the same within every pair of {estimate.draws:,} draws; rare values may be missed"
    elif estimate.draws and estimate.df < 30:
        yield (
            f"too few draws: the error rests on {estimate.df:.0f} degrees of freedom ({estimate.draws:,} draws), "
            "from few or rare large losses"
        )
    for path, site in tree.sites.items():
        swaps = int(site.partition.sizes.max()) > 1 or site.partition.n_blocks == 1
        if site.claim is not None and site.parent is not None and not _is_exact(site.claim) and not swaps:
            yield f"vacuous claim: every block of '{path}' has a single row, so nothing is ever swapped there"


def _is_exact(claim: Claim) -> bool:
    """Whether a claim says itself that nothing may be swapped, or says what claims that do so determine."""
    if claim.feature is None:
        return any(_is_exact(read) for read in claim.reads)
    return isinstance(claim.feature, str) and claim.feature == EXACT


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


class _Clock:
    """Seconds spent by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start
