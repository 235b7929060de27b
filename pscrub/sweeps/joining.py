"""One sweep out of several that were made apart: by shards, seeds, values of parameters, or hypotheses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import reduce
from pathlib import Path

from pscrub.errors import DamagedError, StudyError
from pscrub.result.folder import RunFiles
from pscrub.result.joining import join_folders
from pscrub.sweeps.driving import find_targets
from pscrub.sweeps.folder import Place, SweepFiles, SweepFolder
from pscrub.sweeps.plan import Plan, Point
from pscrub.sweeps.results import SweepResult, read_sweep

Sources = dict[tuple[int, tuple[str, ...]], list[tuple[Place, Point]]]
"""Seed and hypotheses -> the points that are about them, in all the sweeps."""


def join_sweeps(folders: Sequence[Path], out: Path, without_damaged: bool = False) -> SweepResult:
    """The result of several sweeps of one study together, all of whose points are put into a new folder.

    Points that are in several are joined as run folders are (`join_folders`). The new folder can be gone on with: what
    is not whole in it is then made.

    Args:
        folders: what is joined; they stay as they are.
        out: the new folder.
        without_damaged: leave damaged files out; else they are refused.

    Raises:
        StudyError: what is there does not belong together, with all that shows it; or `out` is there already.
        DamagedError: with the files of the first point of which any is not as it was written.
    """
    if out.exists() and any(out.iterdir()):
        raise StudyError(f"'{out}' is there and not empty; expected a new folder to merge into")
    faults = [f"'{path}' is no folder of a sweep; sweeps are merged with sweeps" for path in folders if not _is(path)]
    if faults:
        raise StudyError(faults)
    files = [SweepFiles(folder) for folder in folders]
    plans = [Plan.read(folder) for folder in folders]
    plan = reduce(Plan.unite, plans)
    there: dict[str, list[Place]] = {}
    for each, own in zip(files, plans, strict=True):
        for place in each.places(own):
            if place.made() is not None:
                there.setdefault(place.name, []).append(place)
    for places in there.values():
        _check_one_study(places)
    with SweepFolder(out) as into:
        plan.write(out, into.locks.folder)
        for place in into.places(plan):
            if place.name in there:
                _join_place(place, there[place.name], into, without_damaged)
    return read_sweep(SweepFiles(out))


def _is(folder: Path) -> bool:
    return SweepFiles(folder).is_sweep


def _check_one_study(places: Sequence[Place]) -> None:
    first = places[0].made()
    for place in places[1:]:
        other = place.made()
        if first is not None and other is not None and (faults := first.tell_apart(other)):
            raise StudyError([f"'{places[0].path}' and '{place.path}' are of different studies: {f}" for f in faults])


def _join_place(place: Place, sources: Sequence[Place], into: SweepFolder, without_damaged: bool) -> None:
    made = sources[0].made()
    assert made is not None, "only places of studies that were made are joined"
    into.agree(place, made)
    found: Sources = {}
    for source in sources:
        for point in source.points(made):
            if RunFiles(source.folder_of(point)).has_rounds:
                found.setdefault((point.seed, point.hypotheses), []).append((source, point))
    for point in place.points(made):
        if several := found.get((point.seed, point.hypotheses)):
            _join_point(place, point, several, into, without_damaged)


def _join_point(
    place: Place, point: Point, several: list[tuple[Place, Point]], into: SweepFolder, without_damaged: bool
) -> None:
    folders = [source.folder_of(each) for source, each in several]
    result = join_folders(folders, place.folder_of(point), without_damaged)
    asked = RunFiles(place.folder_of(point)).manifest.asked
    if result.cut_short or len(result.results) < len(point.hypotheses) or asked != place.plan.asked:
        return  # the sweep goes on with it
    if not place.plan.fixed.data_uncertainty:
        into.finish(place, point.number, tuple(asdict(find_targets(each, result.level)) for each in result.results))
        return
    for source, each in several:  # values in the population need the model: they are taken from where they were found
        name = source.name_of(each.number)
        if source.plan.tag == place.plan.tag and (source.block_of(each.number) / name).exists():
            try:
                told = source.found(each.number)
            except DamagedError:
                if not without_damaged:
                    raise
                continue
            into.finish(place, point.number, tuple(map(asdict, told)))
            return
