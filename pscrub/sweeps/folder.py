"""The folder of a sweep: a run folder for each point, and beside it what it came to, or why it failed.

    sweep.json                      what the sweep is over, and what is asked of each point
    studies/PARAMETERS/study.json   what the study was at some parameters when it was made first
                       failed.json  or why it could not be made
                       K/           a thousand points
                         NUMBER-HYPOTHESIS-seedSEED/   the run folder of one
                         NUMBER-TAG.json               what it came to; TAG names what was asked for
                         NUMBER.failed.json            or why it failed
                       K-TAG.whole  all of these points are done
    working/                        locks: who is at work on which points

All files are sealed. A run folder is the record; the files beside it are made from it, so that who looks for work, or
for results, need not open each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pscrub.errors import DamagedError, StudyError
from pscrub.records import as_tuples, read_sealed, refuse_disk, write_sealed
from pscrub.result.locks import Locks
from pscrub.sweeps.making import Made
from pscrub.sweeps.plan import NAME, Plan, Point, Points, Value, name_parameters

STUDIES, WORKING = "studies", "working"
MADE, FAILED, WHOLE = "study.json", "failed.json", "whole"
BLOCK = 1000
"""Points of a folder of points: what a look at one costs has a bound."""
OF_STUDY, OF_POINT, OF_FAILURE = ("pscrub sweep study", 1), ("pscrub sweep point", 1), ("pscrub sweep failure", 1)


@dataclass(frozen=True)
class Found:
    """What a hypothesis came to at a point.

    Args:
        hypothesis: its name.
        draws: that were made; 0 where none were needed.
        targets: (what is estimated, estimate, lower limit, upper limit, how the limits were made); None where that is
            undefined.
    """

    hypothesis: str
    draws: int
    targets: tuple[tuple[Any, ...], ...]


class Place:
    """The points of a study at some parameters, and where they are.

    Args:
        path: of their folder.
        values: of the parameters.
        plan: of the sweep.
    """

    def __init__(self, path: Path, values: tuple[Value, ...], plan: Plan) -> None:
        self.path, self.values, self.plan = path, values, plan

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.name

    def made(self) -> Made | None:
        """What the study was when it was made first; None if it has not been.

        Raises:
            DamagedError: the file is not as it was written.
        """
        try:
            return Made.read(read_sealed(self.path / MADE, OF_STUDY))
        except FileNotFoundError:
            return None

    def points(self, made: Made) -> Points:
        """Its points.

        Raises:
            StudyError: the study has not the hypotheses that were chosen.
        """
        chosen = self.plan.hypotheses or made.hypotheses
        missing = [name for name in chosen if name not in made.hypotheses]
        if missing:
            there = ", ".join(f"'{name}'" for name in made.hypotheses)
            raise StudyError([f"the study has no hypothesis '{name}'; it has {there}" for name in missing])
        return Points(self.plan.seeds, chosen, self.plan.together)

    def block_of(self, number: int) -> Path:
        """The folder of the thousand points that a point is among."""
        return self.path / str(number // BLOCK)

    def folder_of(self, point: Point) -> Path:
        """The run folder of a point."""
        return self.block_of(point.number) / point.folder

    def name_of(self, number: int, tag: str = "") -> str:
        """The name of the file that says what a point came to."""
        return f"{number}-{tag or self.plan.tag}.json"

    def whole_of(self, block: int, tag: str = "") -> Path:
        """The file that says that all points of a block are done."""
        return self.path / f"{block}-{tag or self.plan.tag}.{WHOLE}"

    def failure_of(self, number: int | None) -> Path:
        """The file that says why a point, or the study itself, failed."""
        return self.path / FAILED if number is None else self.block_of(number) / f"{number}.{FAILED}"

    def names_in(self, block: int) -> list[str]:
        """The names in the folder of a block."""
        try:
            return os.listdir(self.path / str(block))
        except FileNotFoundError:
            return []

    def found(self, number: int) -> tuple[Found, ...]:
        """What a point came to.

        Raises:
            DamagedError: the file is not as it was written.
        """
        path = self.block_of(number) / self.name_of(number)
        content = read_sealed(path, OF_POINT)
        if (content["place"], content["number"], content["tag"]) != (self.name, number, self.plan.tag):
            raise DamagedError(f"'{path}' is of another place: of point {content['number']} of {content['place']}")
        return tuple(Found(**{name: as_tuples(value) for name, value in each.items()}) for each in content["found"])

    def failure(self, number: int | None) -> str:
        """Why a point, or the study itself, failed."""
        return str(read_sealed(self.failure_of(number), OF_FAILURE))


class SweepFiles:
    """The files of a sweep's folder, to be read.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def is_sweep(self) -> bool:
        """Whether a sweep was begun there."""
        return (self.path / NAME).exists()

    def places(self, plan: Plan) -> list[Place]:
        """Where the points are, for each combination of parameters."""
        folder = self.path / STUDIES
        return [Place(folder / name_parameters(plan.names, each), each, plan) for each in plan.combinations]


class SweepFolder(SweepFiles):
    """The folder of a sweep, worked in by a process, and others beside it.

    Args:
        path: of the folder; it is made where it is not there.
        helps: the process that started this one to help it, 0 if none did.
    """

    def __init__(self, path: Path | str, helps: int = 0) -> None:
        super().__init__(path)
        self.helps = helps
        self.is_helped: Callable[[], bool] = lambda: False
        self._locks: Locks | None = None

    def __enter__(self) -> SweepFolder:
        """Be at work in it.

        Raises:
            StudyError: it cannot be written to, or holds other things.
        """
        if self.path.is_dir() and not self.is_sweep and set(os.listdir(self.path)) - {WORKING}:
            raise StudyError(f"'{self.path}' holds other things than a sweep; name another folder")
        try:
            self._locks = Locks(self.path / WORKING, self.helps)
        except OSError as error:
            fault = f"cannot write to output folder '{self.path}': {error.strerror or error}"
            raise StudyError(fault) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.locks.close()
        self._locks = None
        refuse_disk(error, self.path)

    @property
    def locks(self) -> Locks:
        """Of the folder, while it is entered."""
        assert self._locks is not None, "the folder of a sweep is entered before it is worked in"
        return self._locks

    def open(self, plan: Plan) -> Plan:
        """Begin a sweep there, or go on with the one that is there: what it is over now.

        Raises:
            StudyError: it is another, with all that differs.
            DamagedError: `sweep.json` is not as it was written.
        """
        with self.locks.alone(NAME):
            there = Plan.read(self.path) if self.is_sweep else None
            try:
                made = plan if there is None else there.add(plan)
            except StudyError as error:
                end = f"'{self.path}' keeps another sweep; name another folder"
                raise StudyError([*error.faults, end]) from error
            if made != there:
                made.write(self.path, self.locks.folder)
        return made

    def write(self, content: Any, path: Path, form: tuple[str, int]) -> None:
        """Write a sealed file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(content, path, form, self.locks.folder)

    def agree(self, place: Place, study: Made) -> None:
        """Nothing, if the study is what it was when it was made first.

        Raises:
            StudyError: it is another, with all that differs.
        """
        with self.locks.alone(f"{place.name}-study"):
            there = place.made()
            if there is None:
                self.write(study.plain(), place.path / MADE, OF_STUDY)
            elif faults := there.tell_apart(study):
                raise StudyError([f"the study has changed since points of it were made: {each}" for each in faults])
        place.failure_of(None).unlink(missing_ok=True)

    def finish(self, place: Place, number: int, found: tuple[dict[str, Any], ...]) -> None:
        """Say what a point came to."""
        content = {"place": place.name, "number": number, "tag": place.plan.tag, "found": list(found)}
        block = place.block_of(number)
        self.write(content, block / place.name_of(number), OF_POINT)
        for tag in place.plan.before:  # what it had come to when less, or something else, was asked for
            (block / place.name_of(number, tag)).unlink(missing_ok=True)
        place.failure_of(number).unlink(missing_ok=True)

    def fail(self, place: Place, number: int | None, reason: str) -> None:
        """Say why a point, or the study itself, failed."""
        self.write(reason, place.failure_of(number), OF_FAILURE)


def number_of(name: str) -> int:
    """The number of a point, of the name of the file that says what it came to."""
    return int(name.partition("-")[0])


def read_names(names: list[str], tag: str) -> tuple[set[int], set[int], set[int]]:
    """The numbers of points that are done, that failed, and that were begun, as names in the folder of a block say.

    Args:
        names: in the folder.
        tag: of what is asked for.
    """
    done, failed, begun = set[int](), set[int](), set[int]()
    for name in names:
        if told := re.fullmatch(rf"(\d+)(?:(-{tag}\.json)|(\.{re.escape(FAILED)})|-.*(?<!\.json))", name):
            (done if told[2] else failed if told[3] else begun).add(int(told[1]))
    return done, failed - done, begun - done - failed


def read_locked(files: SweepFiles) -> Iterator[tuple[str, int]]:
    """(folder of a place, number) of the points that someone has the lock of, living or not."""
    try:
        names = os.listdir(files.path / WORKING)
    except FileNotFoundError:
        return
    for name in names:
        if found := re.fullmatch(r"(.+)-point-(\d+)\.\d+", name):
            yield found[1], int(found[2])
