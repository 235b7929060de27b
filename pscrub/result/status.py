"""How far a run folder has come, read from its files while others are at work on it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pscrub.estimate.estimate import Estimate, choose
from pscrub.estimate.recovered import loss_recovered
from pscrub.result.adding import Part, read_parts
from pscrub.result.folder import STUDY, WORKING, RunFiles
from pscrub.result.locks import Owner, find_owners
from pscrub.result.table import Table

RECENT = 200
"""Rounds that the speed is told from."""


@dataclass(frozen=True)
class Standing:
    """How far one hypothesis has come.

    Args:
        hypothesis: its name.
        draws: so far.
        owed: draws that are still to be made; of a run until a width, as far as is known by now.
        recovered: loss recovered so far, with an interval that holds whenever it is looked at; None where undefined.
        state: "done", "drawing", "waiting" or "not begun".
    """

    hypothesis: str
    draws: int
    owed: int
    recovered: Estimate | None
    state: str


@dataclass(frozen=True)
class Status:
    """How far a run folder has come.

    Args:
        study: its name.
        standings: one for each hypothesis.
        at_work: processes.
        speed: draws a second lately, of all of them together; None where nobody draws, or too little is known.
        damaged: what was left out.
    """

    study: str
    standings: tuple[Standing, ...]
    at_work: tuple[Owner, ...]
    speed: float | None
    damaged: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        """Whether nothing is owed."""
        return all(each.state == "done" for each in self.standings)

    def table(self) -> Table:
        """A line for each hypothesis."""
        rows = []
        for each in self.standings:
            score, of = each.recovered, each.draws + each.owed
            value = ("", "") if score is None else (f"{score.value:z.2f}", score.ends(".2f"))
            rows.append((each.hypothesis, each.state, f"{each.draws:,}", f"{of:,}", *value))
        head = ("hypothesis", "state", "draws", "of", "recovered %", "anytime interval")
        return Table(head, tuple(rows), words=2, title=self.study)

    def below(self) -> list[str]:
        """What to say under the table: who is at work, how fast, and for how long."""
        done, owed = sum(each.state == "done" for each in self.standings), sum(each.owed for each in self.standings)
        lines = [f"{done} of {len(self.standings)} hypotheses done; {owed:,} draws to be made, as far as is known."]
        for owner in self.at_work:
            lines.append(f"At work: {owner}, for {say_time(time.time() - owner.came)}.")
        if not self.at_work and not self.is_done:
            lines.append("Nobody is at work: the command that made the folder goes on with it.")
        if self.speed is not None:
            lines.append(f"{self.speed:,.0f} draws a second; {say_time(owed / self.speed)} left for what is known.")
        return lines + [f"Left out: {fault}" for fault in self.damaged]


def find_status(files: RunFiles) -> Status:
    """How far a folder has come; damaged files are left out.

    The intervals are confidence sequences: they hold at their level however often they are looked at, and whenever
    drawing stops for what they show. They are wider than those of the result.

    Args:
        files: of the folder. Rounds that were read before are not read again.
    """
    working, parts, faults = files.path / WORKING, dict[str, Part](), list[str]()
    files.forget_manifest()
    manifest = files.manifest
    if (files.path / STUDY).exists():
        parts, faults = read_parts(files, without_damaged=True)
    at_work = tuple(find_owners(working))
    # A round's lock is named HYPOTHESIS-SEED-INDEX.TIMES.
    locked = {path.name.rsplit("-", 2)[0] for path in working.glob("*")} if at_work else set()
    standings = []
    for name in manifest.names:
        part, busy = parts.get(name), files.folder_of(name).name in locked
        draws = 0 if part is None or part.rounds is None else sum(e.name.size for e in part.rounds.made.values())
        owed = part.owed if part is not None else manifest.asked.draws or 0
        state = "done" if part is not None and not owed else "drawing" if busy else "waiting" if draws else "not begun"
        standings.append(Standing(name, draws, owed, None if part is None else _score(part), state))
    speed = _find_speed(files, min(owner.came for owner in at_work)) if at_work else None
    return Status(manifest.study, tuple(standings), at_work, speed, tuple(faults))


def _score(part: Part) -> Estimate | None:
    if part.begun.exact is not None:
        return loss_recovered(part.begun.exact, part.begun.against)
    if part.is_empty or part.rounds is None:
        return None
    losses, asked = part.rounds.draws().sample, part.interval
    return loss_recovered(choose(losses, asked.level, "sequence", asked.bounds, known=asked.known), part.begun.against)


def _find_speed(files: RunFiles, since: float) -> float | None:
    """Draws a second in the latest rounds that were finished since some time."""
    times = sorted((path.stat().st_mtime, size) for path, size in files.sizes() if path.exists())
    recent = [each for each in times if each[0] >= since][-RECENT:]
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        return None
    return sum(size for _, size in recent[1:]) / (recent[-1][0] - recent[0][0])


def say_time(seconds: float) -> str:
    """A time in words: seconds, minutes or hours."""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"
