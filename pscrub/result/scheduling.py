"""Which round is made next, by whom, and what becomes of one that fails.

Rounds of all hypotheses are given out in the order of hypotheses, as many at a time as are worked on; what arrives is
taken in whatever order it comes. No number depends on that order. A hypothesis's rounds come in stages (`Rounds`):
which there are in a stage depends on the rule and on the rounds of the stages before, all of which have to be there;
and all that is concluded is concluded from rounds in the order of their index. So a rule for stopping sees the same
whoever was first, and holds as it does for one worker.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pscrub.errors import GraphError, PscrubError, RoundError, tell
from pscrub.result.conclude import say_kept
from pscrub.result.crews import Crew
from pscrub.result.draws import Bar, Round
from pscrub.result.keeping import Begun, Fault, Keeper, KeptRound, Offer
from pscrub.result.making import Maker
from pscrub.result.result import ScrubResult, StudyResult
from pscrub.workers import give_back

SHOWN = 8
"""Rounds that a fault names."""
TICK = 0.5
"""Seconds after which it is looked whether there was an interrupt, if nothing arrives."""
TIDY = 32
"""Rounds of which only sums are kept, after which memory that they took is given back."""


@dataclass(frozen=True)
class Failure:
    """A round that failed as often as it was tried.

    Args:
        hypothesis: its name.
        round: which; None if what its draws are concluded from could not be found.
        tries: how often.
        worker: who tried last.
        cause: why.
    """

    hypothesis: str
    round: Round | None
    tries: int
    worker: str
    cause: BaseException

    @property
    def why(self) -> str:
        """The cause in words, the hypothesis first."""
        told = "; ".join(self.cause.faults) if isinstance(self.cause, PscrubError) else tell(self.cause)
        name = f"hypothesis '{self.hypothesis}': "
        return name + told.removeprefix(name)


@dataclass(eq=False)
class Course:
    """A hypothesis whose rounds are being made.

    Args:
        begun: what its draws are concluded from.
        maker: makes a round; None where there is nothing to draw.
        stages: the rounds that are owed, stage by stage.
        made: the finished ones, by index.
        has_before: an earlier result has draws of it.
        arrived: told when one was added to `made`.
        finish: its result, cut short or not.
    """

    begun: Begun
    maker: Maker | None
    stages: Iterator[list[Round]]
    made: dict[int, KeptRound]
    has_before: bool
    arrived: Callable[[], None]
    finish: Callable[[bool], ScrubResult]
    offer: Offer | None = None
    coming: Iterator[Round] = field(default_factory=lambda: iter(()))
    ready: deque[Round] = field(default_factory=deque)
    at_work: int = 0
    tries: Counter[int] = field(default_factory=Counter)
    is_short: bool = False
    is_open: bool = False
    bar: Bar = field(default_factory=Bar)

    def next(self) -> Round | None:
        """The next round that is to be made here, if there is one for now: those that failed after the others."""
        if (each := next(self.coming, None)) is None and self.ready:
            return self.ready.popleft()
        return each

    def add(self, found: KeptRound) -> None:
        """Take a finished round in."""
        self.made[found.name.index] = replace(found, draws=self.bar.thin(found.draws))
        if not found.name.kept and len(self.made) % TIDY == 0:
            give_back()
        self.arrived()

    def conclude(self, cut_short: bool = False) -> ScrubResult | None:
        """Its result; none if there is nothing to conclude it from."""
        if self.maker is not None and not self.made and not self.has_before:
            return None
        return self.finish(cut_short or self.is_short)


class Schedule:
    """Hypotheses' rounds on their way.

    Args:
        keep: is told of every round, and knows those of before.
        crew: makes them.
        failed: is added to.
    """

    def __init__(self, keep: Keeper, crew: Crew, failed: list[Failure]) -> None:
        self.keep, self.crew, self.failed = keep, crew, failed
        self._open = deque[Course]()  # with rounds to be looked at
        self._live: dict[Course, None] = {}  # all that are begun and not over
        self._over = deque[Course]()
        self._at_work: dict[tuple[Course, Round], bool] = {}
        self._apart = deque[tuple[Course, Round]]()  # to be made with none beside: they were there when workers broke
        self._is_apart, self._has_moved = False, False

    def run(self, courses: Iterable[Course]) -> Iterator[ScrubResult]:
        """The result of each hypothesis as it is there; on an interrupt or a fault first what there is of the others.

        Args:
            courses: begun one by one, when there is room for more.
        """
        rest = iter(courses)
        self.crew.begin()
        try:
            while True:
                if self._over:
                    if (found := self._over.popleft().conclude()) is not None:
                        yield found
                elif len(self._at_work) < self.crew.room and self._give(rest):
                    pass
                elif self._at_work:
                    self._collect()
                elif not self._wait():
                    return
        except BaseException as error:
            for course, each in (*self._at_work, *self._apart):
                self.keep.leave(course.begun, each)
            if isinstance(error, KeyboardInterrupt | GraphError):
                for course in self._live:
                    if (found := course.conclude(cut_short=True)) is not None:
                        yield found
            raise
        finally:
            self.crew.rest()

    def _give(self, rest: Iterator[Course]) -> bool:
        """Give out the next round, or begin the next hypothesis; whether there was any."""
        if self._apart or self._is_apart:
            if self._at_work:
                return False
            self._is_apart = bool(self._apart)
            if self._apart:
                self._start(*self._apart.popleft())
            return True
        while self._open:
            course = self._open[0]
            made = len(course.made)
            if (each := course.next()) is not None:
                course.at_work += 1
                self._start(course, each)
                return True
            self._has_moved |= len(course.made) > made
            self._open.popleft()
            course.is_open = False
            self._settle(course)
            return True
        for course in rest:
            self._live[course] = None
            self._settle(course)
            return True
        return False

    def _start(self, course: Course, each: Round) -> None:
        assert course.maker is not None, "a hypothesis that has nothing to draw owes no rounds"
        self._at_work[course, each] = self._has_moved = True
        self.crew.give((course, each), course.maker, each)

    def _collect(self) -> None:
        for (course, each), outcome in self.crew.take(TICK):
            if isinstance(outcome, Fault) and outcome.broke and self._is_tried_again(course, each):
                del self._at_work[course, each]
                self._apart.append((course, each))
                continue
            del self._at_work[course, each]
            course.at_work -= 1
            if isinstance(outcome, KeptRound):
                self.keep.put(course.begun, outcome)
                course.add(outcome)
            elif not outcome.broke and self._is_tried_again(course, each):
                course.ready.append(each)
            else:
                self.keep.leave(course.begun, each)
                self._fail(course, each, outcome)
            self._settle(course)

    def _is_tried_again(self, course: Course, each: Round) -> bool:
        course.tries[each.index] += 1
        return course.tries[each.index] < self.crew.tries

    def _fail(self, course: Course, each: Round, fault: Fault) -> None:
        tries = course.tries[each.index]
        self.failed.append(Failure(course.begun.hypothesis, each, tries, fault.worker, fault.cause))
        course.is_short = True

    def _settle(self, course: Course) -> None:
        """See what is next for a hypothesis whose rounds have come, or that is met anew."""
        if course.is_open:
            return
        if course.ready:
            self._reopen(course)
        elif not course.at_work and not (course.offer and course.offer.held):
            self._end_stage(course)

    def _reopen(self, course: Course) -> None:
        course.is_open = True
        self._open.append(course)

    def _end_stage(self, course: Course) -> None:
        """Ask for the next stage if all of the last is there, else conclude from what there is."""
        if course.offer is not None:
            course.is_short |= course.offer.is_short
            for each, fault in course.offer.faults:
                course.tries[each.index] = self.crew.tries
                self._fail(course, each, fault)
        stage = None if course.is_short else next(course.stages, None)
        if stage is not None:
            course.offer = self.keep.offer(course.begun, stage, course.add)
            course.coming = course.offer.ours()
            self._reopen(course)
        elif course in self._live:
            del self._live[course]
            self._over.append(course)
            if course.maker is not None:
                self.crew.forget(course.maker)

    def _wait(self) -> bool:
        """Look again at what others are at work on, after a little if nothing came of that before; if they are."""
        held = [course for course in self._live if course.offer is not None and course.offer.held]
        if held and not self._has_moved and held[0].offer is not None:
            held[0].offer.wait()
        for course in held:
            if course.offer is not None:
                course.coming = course.offer.again()
                self._reopen(course)
        self._has_moved = False
        return bool(held)


def say_failures(failed: Sequence[Failure]) -> list[str]:
    """What failed, and why: those of one hypothesis that failed alike together."""
    alike: dict[str, list[Failure]] = {}
    for each in failed:
        alike.setdefault(each.why, []).append(each)
    said = []
    for why, several in alike.items():
        rounds = sorted({(each.round.seed, each.round.index) for each in several if each.round is not None})
        if not rounds:
            said.append(why)
            continue
        names = ", ".join(f"{seed}-{index}" for seed, index in rounds[:SHOWN])
        more = f" and {len(rounds) - SHOWN:,} more" if len(rounds) > SHOWN else ""
        last = several[-1]
        times = "once" if last.tries == 1 else f"{last.tries} times"
        word = "round" if len(rounds) == 1 else "rounds"
        said.append(f"{why}; {word} {names}{more}, tried {times}, last by {last.worker}")
    return said


def round_error(failed: Sequence[Failure], result: StudyResult) -> RoundError:
    """What a run ends with of which rounds failed.

    Args:
        failed: those that did.
        result: of the rest, which is said to be kept.
    """
    error = RoundError(say_failures(failed), result)
    *others, last = error.faults
    error = RoundError([*others, last + say_kept(result.results, saved=True)], result)
    error.__cause__ = failed[0].cause.__cause__ or failed[0].cause
    return error
