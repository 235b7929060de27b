"""A sweep: a study at all combinations of parameters, its hypotheses, and seeds, each point in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from pscrub.estimate.estimate import Interval
from pscrub.estimate.stopping import Stop
from pscrub.evaluate.compute import MEMORY
from pscrub.hypothesis.study import Study
from pscrub.progress import Progress, quiet
from pscrub.result.manifest import Asked
from pscrub.result.model import hashes_kept
from pscrub.result.provenance import versions
from pscrub.result.result import StudyResult
from pscrub.result.sharing import RunFolder
from pscrub.scrub import scrub
from pscrub.sweeps.driving import Sweeper
from pscrub.sweeps.folder import SweepFiles, SweepFolder
from pscrub.sweeps.making import Maker, Source
from pscrub.sweeps.plan import Fixed, Plan, Value
from pscrub.sweeps.results import SweepResult, drop_damaged, read_sweep


def sweep(
    study: Source,
    out: SweepFolder | Path | str,
    *,
    parameters: Mapping[str, Sequence[Value]] | None = None,
    seeds: Sequence[int] = (0,),
    hypotheses: Sequence[str] = (),
    together: int = 1,
    draws: int | None = None,
    until_width: float | None = None,
    device: torch.device | str = "cpu",
    level: float = 0.95,
    memory: int = MEMORY,
    labels: str | Sequence[str] = (),
    exact: bool = True,
    interval: str = "auto",
    bounds: tuple[float, float] | None = None,
    donors: str = "independent",
    data_uncertainty: bool = False,
    clusters: str | None = None,
    shard: tuple[int, int] | None = None,
    set_aside: bool = False,
    progress: Progress = quiet,
    tell: Callable[[str], None] = lambda line: None,
) -> SweepResult:
    """Scrub each of a study's hypotheses at all combinations of parameters and with all seeds, into one folder.

    Each point, of a combination, a seed and a hypothesis, is a run folder of its own, as `scrub(..., out=...)` makes
    it. What is there is not drawn again: the same call goes on where the one before ended, values, seeds and draws may
    be added, and any number of processes may work on one folder at a time, none drawing a round that another draws. A
    point that fails stops no other; it is told with the reason, and tried again by the next call. An interrupt (Ctrl-C)
    ends the sweep with what is there.

    Args:
        study: its name or file (values of parameters are then read as `-P` texts are); a function of the parameters
            that returns one; or a study, where there are none.
        out: the folder; it is made where it is not there.
        parameters: name -> its values: numbers, texts, truth values or None.
        seeds: of the draws.
        hypotheses: names of those to scrub; all that a study has if none are named.
        together: how many hypotheses are one point. What all hypotheses of a point need (values on D, baselines) is
            computed once for it, and one that is not well formed stops those it is with. 0 for all.
        draws: as `scrub` takes it, like all that follows, for each point.
        until_width: full width, in points of loss recovered, at which to stop.
        device: where activations live and the model runs.
        level: nominal coverage of intervals.
        memory: bytes for activations on D.
        labels: the columns that are labels, in place of what studies say.
        exact: answer exactly where that is cheap.
        interval: "auto", "t", "betting", "bernstein" or "sequence".
        bounds: the least and greatest f there can be, if known.
        donors: "independent" or "permuted".
        data_uncertainty: also give the values in the population that D is a sample of.
        clusters: a column whose values are independent of one another.
        shard: (i, n): work on the i-th of n parts of the points alone, i from 1, and wait for nobody.
        set_aside: move damaged files of points aside, and make them again.
        progress: told of work as it is done.
        tell: told of each point that is begun, and of each failure, in a line.

    Raises:
        StudyError: options that contradict one another, a parameter that the study has not, no values, two points that
            are the same, or another sweep in that folder: with what differs, and before anything is written.
        DamagedError: a file of the sweep's own is not as it was written.
    """
    stop, wanted, maker = Stop(draws, until_width, donors), Interval(interval, level, bounds), Maker(study)
    labels = (labels,) if isinstance(labels, str) else tuple(labels)
    plan = Plan(
        study=maker.name,
        parameters=tuple((name, tuple(values)) for name, values in (parameters or {}).items()),
        seeds=tuple(seeds),
        hypotheses=tuple(hypotheses),
        together=together,
        fixed=Fixed(labels, data_uncertainty or clusters is not None, clusters or "", donors),
        asked=Asked.of(stop, wanted, exact),
        versions=dict(versions()),
    )
    maker.check(plan.names, plan.combinations)

    def scrub_point(some: Study, seed: int, folder: RunFolder) -> StudyResult:
        folder.progress = progress
        return scrub(
            some,
            draws=draws,
            until_width=until_width,
            seed=seed,
            device=device,
            level=level,
            memory=memory,
            exact=exact,
            interval=interval,
            bounds=bounds,
            donors=donors,
            data_uncertainty=data_uncertainty,
            clusters=clusters,
            progress=progress,
            out=folder,
        )

    with out if isinstance(out, SweepFolder) else SweepFolder(out) as folder:
        plan = folder.open(plan)
        with suppress(KeyboardInterrupt):  # what is there is told, and what is not
            if set_aside:
                drop_damaged(folder)
            with hashes_kept():
                Sweeper(folder, plan, maker, scrub_point, shard, set_aside, tell).run()
    return read_sweep(SweepFiles(folder.path))
