"""The driver of a sweep: points that nobody is at work on, then those that others are at work on, until all are there.

Studies are spread over the processes that come, then the thousands of points of each, then points: who finds someone at
work goes elsewhere first. When nothing else is left, rounds of the points that others are at work on are shared, as by
processes that share a run folder.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any, TypeVar

from pscrub.errors import PscrubError, tell
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.estimate import Estimate
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Study
from pscrub.result.folder import WORKING
from pscrub.result.result import ScrubResult, StudyResult
from pscrub.result.sharing import RunFolder
from pscrub.result.taking import PAUSE, Listing, Sharing
from pscrub.sweeps.folder import BLOCK, Found, Place, SweepFolder, number_of, read_names
from pscrub.sweeps.making import Made, Maker
from pscrub.sweeps.plan import Plan, Point, Points

CROWD = 8
"""Processes that share the rounds of a point: more wait until it is done."""
LONG = 10.0
"""Most seconds between looks at what is nearly done."""
Item = TypeVar("Item")
Scrub = Callable[[Study, int, RunFolder], StudyResult]
"""Scrubs a study with a seed into a run folder."""


class Sweeper:
    """One process that works on a sweep.

    Args:
        folder: of the sweep.
        plan: what it is over.
        maker: of its studies.
        scrub: scrubs a point.
        shard: (i, n): only the i-th of n parts of the points is worked on, i from 1.
        set_aside: damaged files of points are moved aside, and made again.
        tell: told what is about to be done, what was done, and what failed.
    """

    def __init__(
        self,
        folder: SweepFolder,
        plan: Plan,
        maker: Maker,
        scrub: Scrub,
        shard: tuple[int, int] | None = None,
        set_aside: bool = False,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder, self.plan, self.maker, self.scrub = folder, plan, maker, scrub
        self.shard, self.set_aside, self.tell = shard, set_aside, tell
        self.dice = random.Random()
        self._since = folder.locks.came_ns
        self._study: tuple[str, Study, Mapping[str, Hypothesis]] | None = None
        self._points = dict[str, Points]()
        self._held = dict[tuple[int, int], None]()

    def run(self) -> None:
        """Return when all points are done, or failed.

        Raises:
            KeyboardInterrupt: of an interrupt; what was drawn is kept.
        """
        self._places = self.folder.places(self.plan)
        self._spread(range(len(self._places)), lambda at: f"{self._places[at].name}-claim", self._work_on_place)
        if self.shard is None:
            self._help_others()

    def _spread(self, items: Iterable[Item], lock: Callable[[Item], str], work: Callable[[Item], None]) -> None:
        """Work on all items: first on those that nobody else began with, from a random one on where somebody did."""
        left, later = deque(items), list[Item]()
        while left:
            item = left.popleft()
            if self.folder.locks.take(name := lock(item)):
                try:
                    work(item)
                finally:
                    self.folder.locks.release(name)
            else:
                later.append(item)
                if left:
                    left.rotate(-self.dice.randrange(len(left)))
        self.dice.shuffle(later)
        for item in later:
            work(item)

    def _is_far(self, at: int) -> bool:
        return self._study is None or self._study[0] != self._places[at].name

    def _work_on_place(self, at: int) -> None:
        place = self._places[at]
        if self._failed_lately(place, None):
            return
        try:
            made = place.made()
            if made is None:
                made = Made.of(self._make(place)[0])
            points = self._points[place.name] = place.points(made)
        except Exception as error:
            self._fail(place, None, error)
            return
        blocks = range(-(-len(points) // BLOCK))

        def work(block: int) -> None:
            if place.whole_of(block).exists():  # by now
                return
            mine = [n for n in range(block * BLOCK, min((block + 1) * BLOCK, len(points))) if self._is_mine(at, n)]
            sharing = Sharing(
                self.folder.locks,
                Listing(place.path / str(block)),
                lambda name: f"{place.name}-point-{number_of(name)}",
                lambda name: self._do(place, points[number_of(name)]),
                lambda name: None,
                self.dice,
                passes=self.shard is None,  # else nobody comes back to what one who has ended left
            )
            held = sharing.work([place.name_of(number) for number in mine])
            self._held.update(dict.fromkeys((at, number_of(name)) for name in held))
            self._close(place, block)

        self._spread(blocks, lambda block: f"{place.name}-block-{block}-claim", work)

    def _close(self, place: Place, block: int) -> None:
        """Say that a block is whole, if it is, so that nobody looks into it again."""
        full = len(self._points[place.name]) >= (block + 1) * BLOCK  # seeds may be added to the last
        if not full or (whole := place.whole_of(block)).exists():
            return
        if len(read_names(place.names_in(block), self.plan.tag)[0]) == BLOCK:
            whole.touch()

    def _is_mine(self, at: int, number: int) -> bool:
        return self.shard is None or (at + number) % self.shard[1] == self.shard[0] - 1

    def _help_others(self) -> None:
        """Share the rounds of points that others are at work on; wait for those that enough share already."""
        held = dict[tuple[int, int], set[int]]()
        for at, number in self._held:
            held.setdefault((at, number // BLOCK), set()).add(number)
        listings = {(at, block): Listing(self._places[at].path / str(block)) for at, block in held}
        pause = PAUSE
        while held:
            near = [each for each in held if not self._is_far(each[0])] or list(held)
            at, block = self.dice.choice(near)
            place, numbers = self._places[at], held[at, block]
            numbers -= self._tell_finished(place, listings[at, block].look())
            if not numbers:
                del held[at, block]
                self._close(place, block)
                continue
            number = self.dice.choice(sorted(numbers))
            if self._is_crowded(at, number):
                self.folder.is_helped()  # and those that were killed are replaced
                time.sleep(pause)
                pause = min(LONG, 1.5 * pause)
            else:
                self._do(place, self._points[place.name][number])
                numbers.discard(number)
                pause = PAUSE

    def _tell_finished(self, place: Place, names: list[str]) -> set[int]:
        """Points of which the names in a folder say that they are done, or failed lately."""
        done, failed, _ = read_names(names, self.plan.tag)
        return done | {each for each in failed if self._failed_lately(place, each)}

    def _is_crowded(self, at: int, number: int) -> bool:
        """Whether as many share the rounds of a point as may."""
        place = self._places[at]
        point = self._points[place.name][number]
        return self.folder.locks.count_fresh(place.folder_of(point) / WORKING) >= CROWD

    def _do(self, place: Place, point: Point) -> None:
        """Scrub a point, and say what it came to, or why it failed."""
        if self._failed_lately(place, point.number):
            return
        path = place.folder_of(point)
        self.folder.is_helped()
        self.tell(f"{_describe(place)}{point.hypotheses[0]}, seed {point.seed}")
        try:
            study, known = self._make(place)
            some = replace(study, hypotheses=tuple(known[name] for name in point.hypotheses), expected=())
            into = RunFolder(path, set_aside=self.set_aside, helps=self.folder.helps)
            into.is_helped = self.folder.is_helped
            result = self.scrub(some, point.seed, into)
        except Exception as error:
            self._fail(place, point.number, error)
            return
        if result.cut_short:
            raise KeyboardInterrupt
        self.folder.finish(
            place, point.number, tuple(asdict(find_targets(each, result.level)) for each in result.results)
        )

    def _make(self, place: Place) -> tuple[Study, Mapping[str, Hypothesis]]:
        """The study of a place, and its hypotheses by name; they are kept until those of another are asked for."""
        if self._study is None or self._study[0] != place.name:
            self._study = None  # two models at a time may be one too many
            given = dict(zip(self.plan.names, place.values, strict=True))
            study = self.maker.make(given, self.plan.fixed.labels)
            self.folder.agree(place, Made.of(study))
            self._study = place.name, study, {hypothesis.name: hypothesis for hypothesis in study.hypotheses}
        return self._study[1:]

    def _failed_lately(self, place: Place, number: int | None) -> bool:
        """Whether another has tried since this one began; what failed before is tried again."""
        try:
            return os.stat(place.failure_of(number)).st_mtime_ns >= self._since
        except FileNotFoundError:
            return False

    def _fail(self, place: Place, number: int | None, error: Exception) -> None:
        reason = "; ".join(error.faults) if isinstance(error, PscrubError) else tell(error)
        self.folder.fail(place, number, reason)
        what = "the study" if number is None else f"point {number}"
        self.tell(f"{_describe(place)}{what} failed: {reason}")


def find_targets(result: ScrubResult, level: float) -> Found:
    """What the table says of a result: on this D, and in the population where that was asked for.

    Args:
        result: of a hypothesis.
        level: of the limits.
    """
    targets: dict[str, Estimate | Baseline | None] = {
        "loss recovered, %": result.recovered,
        "E_scrubbed": result.scrubbed,
        "E_model": result.model,
        "E_randomised": result.randomised,
    }
    if result.data is not None:
        both = result.data.both
        targets |= {
            "loss recovered in the population, %": both.recovered,
            "E_scrubbed in the population": both.scrubbed,
            "E_model in the population": both.model,
            "E_randomised in the population": both.randomised,
        }
    return Found(result.hypothesis, result.scrubbed.draws, tuple(_line(*each, level) for each in targets.items()))


def _line(target: str, found: Estimate | Baseline | None, level: float) -> tuple[Any, ...]:
    if found is None:
        return target, None, None, None, ""
    ends = found.limits(level) if isinstance(found, Baseline) else found
    numbers = (each if math.isfinite(each) else None for each in (found.value, ends.low, ends.high))
    return target, *numbers, str(found.method)


def _describe(place: Place) -> str:
    named = [f"{name}={value}" for name, value in zip(place.plan.names, place.values, strict=True)]
    return "".join(f"{each}, " for each in named)
