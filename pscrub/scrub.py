"""The driver: from hypotheses to scrubbed expected losses and losses recovered."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from pscrub.errors import GraphError, StudyError, reword
from pscrub.estimate.baselines import Baseline, Baselines, folds_of_baselines
from pscrub.estimate.distances import OutputDistances
from pscrub.estimate.estimate import Interval
from pscrub.estimate.gradients import Gradients
from pscrub.estimate.stopping import Stop
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Study
from pscrub.hypothesis.tree import Tree, unroll
from pscrub.law.drawing import draw
from pscrub.progress import Clock, Progress, add_seconds, quiet
from pscrub.result.collect import collect_round, make_reference, sites_of
from pscrub.result.conclude import Found, conclude, say_kept
from pscrub.result.draws import Draws, join_draws
from pscrub.result.exactly import enumerate_law, without_draws
from pscrub.result.merging import check_continued, check_one_baseline, tell_apart
from pscrub.result.provenance import law_hash
from pscrub.result.result import ScrubResult, StudyResult
from pscrub.result.rounds import Rounds
from pscrub.result.sampled import Sampled
from pscrub.result.warnings import warn_of_tree


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
    labels: str | Sequence[str] | None = None,
    exact: bool = True,
    randomised: Baseline | float | None = None,
    interval: str = "auto",
    bounds: tuple[float, float] | None = None,
    data_uncertainty: bool = False,
    clusters: str | None = None,
    progress: Progress = quiet,
    each: Callable[[ScrubResult], None] | None = None,
    save: Callable[[StudyResult], None] | None = None,
    after: StudyResult | None = None,
) -> StudyResult:
    """The scrubbed expected loss and loss recovered of each hypothesis, with intervals for the draws' uncertainty.

    The same seed gives the same numbers whatever the chunk size (up to rounding of the model's own arithmetic).
    Hypotheses of one call share seeds: their draws are common random numbers, not independent. An interrupt
    (Ctrl-C) ends the run with the estimates so far, marked as cut short.

    Where the law of f takes no more evaluations than the first round of draws (`law.list_within`), E_scrubbed is exact
    for this D and the method says so; the draws are made all the same (`enumerate_law` says why).

    Args:
        study: a study, a hypothesis, or several on one dataset.
        draws: draws of each hypothesis (rounded up to pairs). Without it, drawing goes on until `until_width`.
        until_width: full width, in points of loss recovered, at which to stop (1.0 if `draws` is not given either).
        seed: names the draws.
        device: where activations live and the model runs.
        level: nominal coverage of intervals.
        memory: bytes for activations on D.
        chunk: draws evaluated at a time; by default what the memory allows.
        labels: the columns that are labels, which E_randomised breaks from outputs, in place of what the study says.
        exact: answer exactly where that is cheap; False forces estimates from draws.
        randomised: the baseline, if not E_randomised as `measures.randomised_loss` computes it.
        interval: "auto" picks the interval that suits the losses and says so; or "t", "betting", "bernstein" or
            "sequence", see `estimate.choose`.
        bounds: the least and greatest f there can be, if known.
        data_uncertainty: also give the values in the population that D is a sample of, whose draws never hold a row
            twice (as many draws again), with the data's uncertainty apart and with the draws'.
        clusters: a column; rows of one value are not independent of one another, rows of different ones are. For
            `data_uncertainty`, which it implies.
        progress: told of work as it is done.
        each: told of each result as soon as it is there.
        save: told, after each hypothesis, of the study's result so far, marked as cut short.
        after: an earlier result of the same study, which this one continues: rounds of draws go on where it ended (or
            begin, with another seed), and the result is of all of them together.

    Raises:
        HypothesisError: a hypothesis is not well formed, or its graph is not equal to f on D.
        GraphError: a node fails or is not pure (`check_purity`). Finished rounds go to `save` first.
        StudyError: options that contradict one another, labels that cannot be told, or `after` is of another study.
    """
    study, stop, asked = Study.of(study), Stop(draws, until_width), Interval(interval, level, bounds)
    study = study if labels is None else replace(study, labels=labels)
    if seed < 0:
        raise StudyError(f"seed is {seed}; expected 0 or more")
    given = Baseline.given(randomised)
    engine = Engine(study.hypotheses[0].data, device, memory, chunk, progress)
    earlier = {} if after is None else {result.hypothesis: result for result in after.results}
    found = StudyResult.begun(study.name, tuple(study.notes), seed, str(device), level)
    told = study.label_columns if given is None or study.tells_labels else ()
    found = replace(found, labels=told if given is None else ())
    clock = Clock()

    def so_far(cut_short: bool) -> StudyResult:
        seconds = add_seconds(clock.seconds, *(result.seconds for result in found.results))
        return replace(found, seconds=seconds, cut_short=cut_short)

    try:
        with clock("checks"):  # every fault at once; each graph extensionally equal to f on D
            found = replace(found, rewrites=study.check())
        for graph, hypotheses in itertools.groupby(study.hypotheses, key=lambda h: h.graph):
            trees = [unroll(hypothesis) for hypothesis in hypotheses]  # I^T
            distances = OutputDistances(graph, told or study.labels) if study.by else None
            with clock("activations on D"):  # with what baselines are made of, in one pass
                on_data = engine.on_data(graph)
                engine.foresee(trees, distances, folds_of_baselines(on_data, told, given, seed))
            with clock("baselines"):  # E_model and E_randomised
                against = Baselines.of(on_data, told, given, seed, progress)
                check_one_baseline(on_data, against, found)
                if not found.results:
                    reference = make_reference(on_data, told, study.by, against.randomised, seed, progress)
                    found = replace(found, reference=reference)
                    check_continued(found, after)
            gradients = None
            if data_uncertainty or clusters is not None:
                with clock("uncertainty of the data"):
                    gradients = Gradients.of(on_data, told, seed, given, clusters)
            asked = replace(asked, known=found.reference.known)
            run = _Run(engine, against, asked, stop, seed, distances, gradients, exact)
            for tree in trees:
                result, stopped = run.scrub(tree, earlier.get(tree.hypothesis.name))
                found = replace(found, results=(*found.results, result))
                if each is not None:
                    each(result)
                if save is not None and (stopped is not None or len(found.results) < len(study.hypotheses)):
                    save(so_far(cut_short=True))
                if stopped is not None:
                    raise stopped
    except KeyboardInterrupt:
        return so_far(cut_short=True)
    except GraphError as error:
        raise reword(error, end=say_kept(found.results, save is not None)) from error.__cause__
    return so_far(cut_short=False)


@dataclass(frozen=True, eq=False)
class _Run:
    """What all hypotheses on one graph are scrubbed with."""

    engine: Engine
    against: Baselines
    interval: Interval
    stop: Stop
    seed: int
    distances: OutputDistances | None
    gradients: Gradients | None
    exact: bool

    def scrub(self, tree: Tree, before: ScrubResult | None) -> tuple[ScrubResult, BaseException | None]:
        """The result of one hypothesis, gone on from an earlier one, of the rounds before what stopped it, if any."""
        name, law, kept, clock = tree.hypothesis.name, law_hash(tree), sites_of(tree), Clock()
        warnings = tuple(warn_of_tree(tree))
        sampled = None if self.gradients is None else Sampled(tree, self.gradients, self.engine)
        if tree.is_determined:
            with clock("evaluation"):
                own = without_draws(tree, self.engine, self.interval.level)
                told = None if sampled is None else sampled.found(self.interval)
            found = Found(Draws(sites=kept), own, "draws", clock.seconds, warnings=warnings, population=told)
            return conclude(name, law, found, self.against, self.interval), None
        if before is not None and (faults := tell_apart(before, law, self.against)):
            raise StudyError(faults)
        made = [] if before is None else [before.draws]
        with clock("exact law"):
            exact = enumerate_law(tree, self.engine, self.stop, self.interval) if self.exact else None
        rounds = Rounds(self.stop, self.seed, made, self.against, self.interval, one=exact is not None)
        stopped: BaseException | None = None
        try:
            for each in rounds:
                with clock("drawing"):  # scrubbed inputs from their law
                    data = draw(tree, each.size, (each.seed, each.index))
                with clock("evaluation"):  # f on them
                    f = self.engine.f(tree, data, self.distances)
                distances = {} if self.distances is None else self.distances.taken()
                if sampled is not None:
                    with clock("draws apart"):  # and of the population
                        sampled.draw(each)
                made.append(collect_round(tree, kept, each, data, f, distances))
        except (KeyboardInterrupt, GraphError) as error:
            if not made:
                raise
            stopped = error
        rule = "width" if "width" in (self.stop.rule, before and before.stopping) else "draws"
        warnings, told = warnings + rounds.warnings, None if sampled is None else sampled.found(self.interval, before)
        found = Found(join_draws(made), exact, rule, clock.seconds, stopped is not None, warnings, told)
        return conclude(name, law, found, self.against, self.interval), stopped
