"""The driver of a sweep: points that nobody is at work on, then those that others are at work on, until all are there.

Studies are spread over the processes that come, then the thousands of points of each, then points: who finds someone at
work goes elsewhere first. When nothing else is left, rounds of the points that others are at work on are shared, as by
processes that share a run folder.
"""

from __future__ import annotations

import math
import os
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any, TypeVar

from pscrub.errors import PscrubError, tell
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.estimate import Estimate
from pscrub.hypothesis.study import Study
from pscrub.result.result import ScrubResult, StudyResult
from pscrub.result.sharing import RunFolder
from pscrub.result.taking import Listing, Sharing
from pscrub.sweeps.folder import BLOCK, Found, Place, SweepFolder, read_names
from pscrub.sweeps.making import Made, Maker
from pscrub.sweeps.plan import Plan, Point

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
        self._study: tuple[str, Study] | None = None
        self._held = dict[tuple[int, int], None]()

    def run(self) -> None:
        """Return when all points are done, or failed.

        Raises:
            KeyboardInterrupt: of an interrupt; what was drawn is kept.
        """
        self._places = self.folder.places(self.plan)
        self._spread(range(len(self._places)), lambda at: f"{self._places[at].name}-claim", self._work_on_place)
        if self.shard is None:
            for at, number in sorted(self._held, key=lambda each: self._is_far(each[0])):
                self._help(self._places[at], number)

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
                made = Made.of(self._make(place))
            points = place.points(made)
        except Exception as error:
            self._fail(place, None, error)
            return
        blocks = [each for each in range(-(-len(points) // BLOCK)) if not place.whole_of(each).exists()]

        def work(block: int) -> None:
            mine = [n for n in range(block * BLOCK, min((block + 1) * BLOCK, len(points))) if self._is_mine(at, n)]
            names = {place.name_of(number): points[number] for number in mine}
            sharing = Sharing(
                self.folder.locks,
                Listing(place.path / str(block)),
                lambda name: f"{place.name}-point-{names[name].number}",
                lambda name: self._do(place, names[name]),
                lambda name: None,
                self.dice,
            )
            self._held.update(dict.fromkeys((at, names[name].number) for name in sharing.work(list(names))))
            self._close(place, block, len(points))

        self._spread(blocks, lambda block: f"{place.name}-block-{block}-claim", work)

    def _close(self, place: Place, block: int, count: int) -> None:
        """Say that a block is whole, if it is, so that nobody looks into it again."""
        full = count >= (block + 1) * BLOCK  # seeds may be added to the last
        if full and len(read_names(place.names_in(block), self.plan.tag)[0]) == BLOCK:
            place.whole_of(block).touch()

    def _is_mine(self, at: int, number: int) -> bool:
        return self.shard is None or (at + number) % self.shard[1] == self.shard[0] - 1

    def _help(self, place: Place, number: int) -> None:
        """Share the rounds of a point that another is at work on, until it is done."""
        made = place.made()
        assert made is not None, "someone is at work on a point of a study that was made"
        points = place.points(made)
        if not (place.block_of(number) / place.name_of(number)).exists():
            self._do(place, points[number])
        self._close(place, number // BLOCK, len(points))

    def _do(self, place: Place, point: Point) -> None:
        """Scrub a point, and say what it came to, or why it failed."""
        if self._failed_lately(place, point.number):
            return
        path = place.folder_of(point)
        self.tell(f"{_describe(place)}{point.hypotheses[0]}, seed {point.seed}")
        try:
            study = self._make(place)
            known = {hypothesis.name: hypothesis for hypothesis in study.hypotheses}
            some = replace(study, hypotheses=tuple(known[name] for name in point.hypotheses), expected=())
            result = self.scrub(some, point.seed, RunFolder(path, set_aside=self.set_aside))
        except Exception as error:
            self._fail(place, point.number, error)
            return
        if result.cut_short:
            raise KeyboardInterrupt
        self.folder.finish(
            place, point.number, tuple(asdict(find_targets(each, result.level)) for each in result.results)
        )

    def _make(self, place: Place) -> Study:
        """The study of a place; it is kept until that of another is asked for."""
        if self._study is None or self._study[0] != place.name:
            self._study = None  # two models at a time may be one too many
            given = dict(zip(self.plan.names, place.values, strict=True))
            study = self.maker.make(given, self.plan.fixed.labels)
            self.folder.agree(place, Made.of(study))
            self._study = place.name, study
        return self._study[1]

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
