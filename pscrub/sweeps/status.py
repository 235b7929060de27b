"""How far a sweep has come, told from the names of its files while others are at work on it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pscrub.errors import DamagedError, StudyError
from pscrub.result.locks import Owner, find_owners
from pscrub.result.status import say_time
from pscrub.result.table import Table
from pscrub.sweeps.folder import BLOCK, WORKING, Place, SweepFiles, read_locked, read_names
from pscrub.sweeps.plan import Plan, Points

LINES = 60
"""Points up to which each has a line of the table; of more, each combination of parameters has one."""
REASONS = 20
"""Failures that are told, each with its reason."""


@dataclass(frozen=True)
class Standing:
    """How far the points of a study at some parameters have come.

    Args:
        place: where they are.
        points: all of them; None if the study has not been made yet, or could not be.
        done: numbers of points that came to something.
        running: that someone is at work on.
        failed: that failed; None stands for the study itself.
    """

    place: Place
    points: Points | None
    done: frozenset[int]
    running: frozenset[int]
    failed: tuple[int | None, ...]

    @property
    def waiting(self) -> int:
        """How many are none of this, as far as is known."""
        return 0 if self.points is None else len(self.points) - len(self.done | self.running | set(self.failed))

    def state(self, number: int) -> str:
        """That of a point."""
        kinds = (("running", self.running), ("done", self.done), ("failed", self.failed))
        return next((name for name, numbers in kinds if number in numbers), "waiting")


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep has come.

    Args:
        plan: what it is over.
        standings: one for each combination of parameters.
        at_work: processes.
    """

    plan: Plan
    standings: tuple[Standing, ...]
    at_work: tuple[Owner, ...]

    @property
    def is_done(self) -> bool:
        """Whether no point is left to be worked on: each is done, or failed."""
        count = self.count()
        return not (count["running"] or count["waiting"] or count["unknown"])

    @property
    def is_whole(self) -> bool:
        """Whether every point came to something."""
        return all(each.points is not None and len(each.done) == len(each.points) for each in self.standings)

    @property
    def has_failed(self) -> bool:
        """Whether any point, or study, failed."""
        return any(each.failed for each in self.standings)

    def count(self) -> dict[str, int]:
        """Points by state; "unknown" are combinations of parameters whose study was not made yet."""
        return {
            "done": sum(len(each.done) for each in self.standings),
            "running": sum(len(each.running) for each in self.standings),
            "failed": sum(len(each.failed) for each in self.standings),
            "waiting": sum(each.waiting for each in self.standings),
            "unknown": sum(each.points is None and not each.failed for each in self.standings),
        }

    def table(self) -> Table:
        """A line for each point, or for each combination of parameters where there are many."""
        names = self.plan.names
        if sum(0 if each.points is None else len(each.points) for each in self.standings) > LINES:
            head = (*names, "points", "done", "running", "failed", "waiting")
            rows = []
            for each in self.standings:
                numbers = (len(each.done), len(each.running), len(each.failed), each.waiting)
                points = "not known yet" if each.points is None else f"{len(each.points):,}"
                rows.append((*map(str, each.place.values), points, *(f"{number:,}" for number in numbers)))
            return Table(head, tuple(rows), words=len(names) or 1, title=self.plan.study)
        lines = []
        for each in self.standings:
            values = tuple(map(str, each.place.values))
            if each.points is None:
                lines.append((*values, "all", "", "failed" if each.failed else "not begun"))
            for point in each.points or ():
                more = f" and {len(point.hypotheses) - 1} more" if len(point.hypotheses) > 1 else ""
                lines.append((*values, point.hypotheses[0] + more, str(point.seed), each.state(point.number)))
        head = (*names, "hypothesis", "seed", "state")
        return Table(head, tuple(lines), words=len(head), title=self.plan.study)

    def below(self) -> list[str]:
        """What to say under the table: how many are done, who is at work, and what failed, and why."""
        count = self.count()
        said = ", ".join(f"{count[name]:,} {name}" for name in ("done", "running", "failed", "waiting"))
        unknown = f"; {count['unknown']:,} studies are not made yet" if count["unknown"] else ""
        lines = [f"Points: {said}{unknown}."]
        lines += [f"At work: {owner}, for {say_time(time.time() - owner.came)}." for owner in self.at_work]
        if not self.at_work and not self.is_whole:
            lines.append("Nobody is at work: the command that made the folder goes on with it.")
        return lines + self.reasons()

    def reasons(self) -> list[str]:
        """Why points failed, a line for each."""
        failed = [(each.place, number) for each in self.standings for number in each.failed]
        lines = []
        for place, number in failed[:REASONS]:
            try:
                why = place.failure(number)
            except (FileNotFoundError, DamagedError):  # another is trying again
                continue
            where = place.path if number is None else place.block_of(number) / f"{number}-..."
            lines.append(f"Failed: {where}: {why}")
        return lines + ([f"and {len(failed) - REASONS:,} more failed"] if len(failed) > REASONS else [])


def find_sweep_status(files: SweepFiles) -> SweepStatus:
    """How far a sweep has come: folders are listed, and no point is opened.

    Args:
        files: of its folder.

    Raises:
        StudyError: there is none.
        DamagedError: `sweep.json`, or what is kept of a study, is not as it was written.
    """
    plan = Plan.read(files.path)
    at_work = tuple(find_owners(files.path / WORKING))
    locked = set(read_locked(files)) if at_work else set()
    standings = []
    for place in files.places(plan):
        done, failed, made = set[int](), list[int | None](), place.made()
        try:
            points = None if made is None else place.points(made)
        except StudyError:  # and so it failed
            points = None
        for block in range(0 if points is None else -(-len(points) // BLOCK)):
            if place.whole_of(block).exists():
                done |= set(range(block * BLOCK, (block + 1) * BLOCK))
                continue
            there, fell, _ = read_names(place.names_in(block), plan.tag)
            done, failed = done | there, [*failed, *sorted(fell)]
        running = frozenset(number for name, number in locked if name == place.name) - done
        if place.failure_of(None).exists():
            failed = [None, *failed]
        failed = [number for number in failed if number not in running]
        standings.append(Standing(place, points, frozenset(done), running, tuple(failed)))
    return SweepStatus(plan, tuple(standings), at_work)
