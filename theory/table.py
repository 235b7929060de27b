"""What a claim's checks found, and the one table that shows it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Route:
    """One way to check a claim, and the worst that came of it.

    Args:
        name: of the route.
        bound: errors up to this count as rounding; 0 where the comparison is ==.
        unit: of what was checked: cases, nodes, cuts.
        note: said beside it, such as why it was not run.
        needed: whether a route that checked nothing is a failure.
    """

    name: str
    bound: float
    unit: str = "cases"
    note: str = ""
    needed: bool = True
    checks: int = 0
    worst: float = 0.0

    def see(self, error: float | bool) -> None:
        """Count a check and its error; True stands for a difference where none may be, however small."""
        self.checks += 1
        size = (math.inf if error else 0.0) if isinstance(error, bool) else float(error)
        self.worst = math.inf if math.isnan(size) else max(self.worst, size)

    @property
    def holds(self) -> bool:
        """Whether every check stayed within the bound, and there were some."""
        return self.worst <= self.bound and (self.checks > 0 or not self.needed)


@dataclass
class Fault:
    """A fault planted on purpose where it makes a difference, and how often a check caught it.

    Args:
        name: of the fault, and of the check if there are several.
        expected: whether the check is meant to catch it; where it cannot, `note` says why.
        least: how many must have been planted.
    """

    name: str
    expected: bool = True
    note: str = ""
    least: int = 20
    planted: int = 0
    caught: int = 0

    def see(self, caught: bool) -> None:
        """Count a planted fault, and whether it was caught."""
        self.planted += 1
        self.caught += bool(caught)

    @property
    def holds(self) -> bool:
        """Whether all were caught, of enough; if the check cannot see the fault, whether none was, as the note says."""
        return self.planted >= self.least and self.caught == (self.planted if self.expected else 0)


@dataclass
class Report:
    """What came of checking one claim.

    Args:
        claim: its name.
        says: the claim in one line.
        cases: how many it was checked on.
        routes: to it.
        faults: that the routes were shown.
    """

    claim: str
    says: str
    cases: int
    routes: Sequence[Route] = field(default_factory=list)
    faults: Sequence[Fault] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every route held and every fault was caught."""
        return all(each.holds for each in (*self.routes, *self.faults))


def progress(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, telling on stderr how far they have come: once a second on a screen, else at the end."""
    start = said = time.monotonic()
    screen = sys.stderr.isatty()
    for i, item in enumerate(items):
        yield item
        now = time.monotonic()
        last = i == len(items) - 1
        if last or (screen and now - said > 1):
            said = now
            text = f"{what}: {i + 1} of {len(items)} cases, {now - start:.0f} s"
            print("\r" * screen + text, end="\n" if last else "", file=sys.stderr, flush=True)


def table(reports: Sequence[Report]) -> str:
    """The table: for each claim its routes, each with its worst error, and its faults, each with those caught."""
    head = ("claim, route or planted fault", "checked on", "worst error", "bound", "")
    rows: list[tuple[str, ...] | str | None] = []
    notes: list[str] = []

    def noted(note: str) -> str:
        if note and note not in notes:
            notes.append(note)
        return f" [{notes.index(note) + 1}]" if note else ""

    for report in reports:
        verdict = "holds" if report.holds else "FAILS"
        rows += [None, f"{report.claim}: {report.says}", (f"  {verdict}", f"{report.cases:,} cases", "", "", "")]
        for route in report.routes:
            name = f"  {route.name}{noted(route.note)}"
            if not route.checks and not route.needed:
                rows.append((name, "not run", "", "", ""))
                continue
            worst = "none (==)" if route.bound == 0 and route.worst == 0 else f"{route.worst:.1e}"
            bound = f"{route.bound:.0e}" if route.bound else "=="
            rows.append((name, f"{route.checks:,} {route.unit}", worst, bound, "" if route.holds else "FAILS"))
        for fault in report.faults:
            caught = f"{fault.caught:,} caught"
            name = f"  planted: {fault.name}{noted(fault.note)}"
            rows.append((name, f"{fault.planted:,} planted", caught, "", "" if fault.holds else "FAILS"))
    widths = [
        max(len(row[i]) for row in (head, *(row for row in rows if isinstance(row, tuple)))) for i in range(len(head))
    ]

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

    def line(row: tuple[str, ...] | str | None) -> str:
        if not isinstance(row, tuple):
            return rule if row is None else row
        numbers = (text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
        return "  ".join((row[0].ljust(widths[0]), *numbers)).rstrip()

    lines = [*map(line, (head, *rows)), rule]
    lines += [f"[{i + 1}] {note}" for i, note in enumerate(notes)]
    return "\n".join(lines)
