"""The driver: from hypotheses to scrubbed expected losses and losses recovered."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path

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
from pscrub.hypothesis.tree import unroll
from pscrub.progress import Clock, Progress, add_seconds, quiet
from pscrub.result.collect import make_reference
from pscrub.result.conclude import say_kept
from pscrub.result.crews import Workers, crew_of
from pscrub.result.keeping import Keeper, Unkept
from pscrub.result.manifest import Asked, Manifest
from pscrub.result.merging import check_continued, check_one_baseline
from pscrub.result.result import ScrubResult, StudyResult
from pscrub.result.running import Run
from pscrub.result.scheduling import Failure, round_error
from pscrub.result.sharing import RunFolder


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
    donors: str = "independent",
    data_uncertainty: bool = False,
    clusters: str | None = None,
    progress: Progress = quiet,
    each: Callable[[ScrubResult], None] | None = None,
    save: Callable[[StudyResult], None] | None = None,
    after: StudyResult | None = None,
    out: RunFolder | Path | str | None = None,
    workers: Workers | Executor | Callable[[], Executor] | None = None,
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
        until_width: full width, in points of loss recovered, at which to stop. If `draws` is not given either, as many
            draws are made as the study says (`Study.draws`), or as make intervals 1.0 wide.
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
        donors: "independent", or "permuted": the rows of a block are used about equally often within replicates, of
            which the interval is made. Fewer draws do where blocks have few rows (`docs/fewer_draws.md`).
        data_uncertainty: also give the values in the population that D is a sample of, whose draws never hold a row
            twice (as many draws again), with the data's uncertainty apart and with the draws'.
        clusters: a column; rows of one value are not independent of one another, rows of different ones are. For
            `data_uncertainty`, which it implies.
        progress: told of work as it is done.
        each: told of each result as soon as it is there.
        save: told, after each hypothesis, of the study's result so far, marked as cut short until all are there.
        after: an earlier result of the same study, which this one continues: rounds of draws go on where it ended (or
            begin, with another seed), and the result is of all of them together.
        out: a folder that keeps each round of draws as soon as it is there, and is shared by whoever else scrubs this
            study into it. What it has is not drawn again: `draws` counts what is there.
        workers: who makes rounds of draws: any `concurrent.futures.Executor` (or a function that makes one, so that
            another can be made where one breaks), or `Workers`, which also says how often a round is tried. No number
            depends on it. Model, data and values on D go to each worker once. By default rounds are made here.

    Raises:
        HypothesisError: a hypothesis is not well formed, or its graph is not equal to f on D.
        GraphError: a node fails or is not pure (`check_purity`).
        RoundError: rounds failed as often as they were tried (twice, unless `workers` says otherwise), because a node's
            function raised or a worker died: all of them, when the rest is there, which goes to `save` first and is the
            error's `result`. The rest is no fair sample if rounds failed for what they had drawn.
        StudyError: options that contradict one another, labels that cannot be told, or `after` or `out` is of another
            study.
    """
    study, wanted = Study.of(study), Interval(interval, level, bounds)
    stop = Stop(study.draws if draws is until_width is None else draws, until_width, donors)
    study = study if labels is None else replace(study, labels=labels)
    if seed < 0:
        raise StudyError(f"seed is {seed}; expected 0 or more")
    given, engine = Baseline.given(randomised), Engine(study.hypotheses[0].data, device, memory, chunk, progress)
    found = StudyResult.begun(study.name, tuple(study.notes), seed, str(device), level)
    told = study.label_columns if given is None or study.tells_labels else ()
    found = replace(found, labels=told if given is None else ())
    keep: Keeper = Unkept(after) if out is None else RunFolder.of(out, after)
    asked, clock, places = Asked.of(stop, wanted, exact), Clock(), {h.name: i for i, h in enumerate(study.hypotheses)}
    units, failed = clusters or ("row" if data_uncertainty else ""), list[Failure]()

    def so_far() -> StudyResult:
        results = sorted(found.results, key=lambda result: places[result.hypothesis])
        seconds = add_seconds(clock.seconds, *(result.seconds for result in results))
        cut_short = len(results) < len(places) or any(result.cut_short for result in results)
        return replace(found, results=tuple(results), seconds=seconds, cut_short=cut_short)

    try:
        with keep, crew_of(Workers.of(workers), keep.place, progress) as crew:
            with clock("checks"):  # every fault at once; each graph extensionally equal to f on D
                found = replace(found, rewrites=study.check())
                trees = [unroll(hypothesis) for hypothesis in study.hypotheses]  # I^T
            about = (found.labels, None if given is None else given.value, bool(study.by), units)
            keep.open(partial(Manifest.of, study.name, trees, seed, asked, about))
            if (done := keep.finished(tuple(study.by), each)) is not None:  # nothing is left to draw
                return done
            for graph, each_tree in itertools.groupby(trees, key=lambda tree: tree.hypothesis.graph):
                alike = list(each_tree)
                distances = OutputDistances(graph, told or study.labels) if study.by else None
                with clock("activations on D"):  # with what baselines are made of, in one pass
                    on_data = engine.on_data(graph)
                    engine.foresee(alike, distances, folds_of_baselines(on_data, told, given, seed))
                with clock("baselines"):  # E_model and E_randomised
                    against = Baselines.of(on_data, told, given, seed, progress)
                    check_one_baseline(on_data, against, found)
                    if not found.reference.data_hash:
                        reference = make_reference(on_data, told, study.by, against.randomised, seed, progress)
                        found = keep.agree(replace(found, reference=reference))
                        check_continued(found, keep.earlier)
                gradients = None
                if units:
                    with clock("uncertainty of the data"):
                        gradients = Gradients.of(on_data, told, seed, given, clusters)
                wanted = replace(wanted, known=found.reference.known)
                run = Run(engine, against, wanted, asked, seed, keep, distances, gradients, crew, failed)
                for result in run.scrub_all(alike):
                    found = replace(found, results=(*found.results, result))
                    if each is not None:
                        each(result)
                    if save is not None:
                        save(so_far())
    except KeyboardInterrupt:
        return so_far()
    except GraphError as error:
        raise reword(error, end=say_kept(found.results, save is not None or out is not None)) from error.__cause__
    if failed:
        raise round_error(failed, so_far())
    return so_far()
