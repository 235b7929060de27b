"""One hypothesis of a run: its rounds, from the law to what is concluded from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pscrub.errors import GraphError, StudyError
from pscrub.estimate.baselines import Baselines
from pscrub.estimate.distances import OutputDistances
from pscrub.estimate.estimate import Estimate, Interval
from pscrub.estimate.gradients import Gradients
from pscrub.estimate.jackknife import Population
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.tree import Tree
from pscrub.progress import Clock, add_seconds
from pscrub.result.collect import sites_of
from pscrub.result.conclude import Found, conclude
from pscrub.result.crews import Crew
from pscrub.result.draws import Draws
from pscrub.result.exactly import enumerate_law, without_draws
from pscrub.result.keeping import Begun, Keeper
from pscrub.result.making import Maker
from pscrub.result.manifest import Asked
from pscrub.result.merging import tell_apart
from pscrub.result.provenance import law_hash
from pscrub.result.result import ScrubResult
from pscrub.result.rounds import Rounds
from pscrub.result.sampled import ApartMaker, Sampled
from pscrub.result.scheduling import Course, Failure, Schedule
from pscrub.result.warnings import warn_of_tree


@dataclass(frozen=True, eq=False)
class Run:
    """What all hypotheses on one graph are scrubbed with.

    Args:
        engine: computes f.
        against: E_model and E_randomised.
        interval: which is asked for.
        asked: how many draws are, and what they are concluded by.
        seed: names the draws.
        keep: is told of every round, and knows those of before.
        distances: of outputs, if they are kept.
        gradients: of the baselines in the population, if that is asked for.
        crew: makes rounds.
        failed: is added to.
    """

    engine: Engine
    against: Baselines
    interval: Interval
    asked: Asked
    seed: int
    keep: Keeper
    distances: OutputDistances | None
    gradients: Gradients | None
    crew: Crew
    failed: list[Failure]

    def scrub_all(self, trees: Sequence[Tree]) -> Iterator[ScrubResult]:
        """The result of each hypothesis as it is there; on an interrupt or a fault first what there is of the others.

        What others are at work on comes last, when nothing else is left to do.
        """
        schedule = Schedule(self.keep, self.crew, self.failed)
        return schedule.run(course for tree in trees if (course := self._open(tree)) is not None)

    def _open(self, tree: Tree) -> Course | None:
        """Begin with one hypothesis; nothing if a node's function fails already in that."""
        name, law = tree.hypothesis.name, law_hash(tree)
        try:
            begun = self.keep.begin(name, law, repr(self.asked), partial(self._begin, tree, law))
            sampled = None if self.gradients is None else Sampled(tree, self.gradients, self.engine)
            apart = None if sampled is None or begun.determined else sampled.maker
            maker = None if begun.determined else self._maker(tree, begun, apart)
        except GraphError as error:
            self.failed.append(Failure(name, None, 1, "this process", error))
            return None
        before = None
        if self.keep.earlier is not None:
            before = next((each for each in self.keep.earlier.results if each.hypothesis == name), None)
        if maker is None:
            told = None if sampled is None else sampled.found(self.interval, {})

            def nothing(_: bool) -> ScrubResult:
                return finish(begun, None, self.interval, population=told)

            return Course(begun, None, iter(()), {}, False, lambda: None, nothing)
        if before is not None and (faults := tell_apart(before, law, begun.against, self.asked.donors)):
            raise StudyError(faults)
        made = self.keep.kept(begun)
        rounds = Rounds(
            self.asked.stop,
            self.seed,
            made,
            begun.against,
            self.interval,
            None if before is None else before.draws,
            one=begun.exact is not None,
        )

        def arrived() -> None:
            if sampled is not None:
                sampled.add(made, rounds.first)

        def conclude(cut_short: bool) -> ScrubResult:
            told = None if sampled is None else sampled.found(self.interval, made, before)
            return finish(begun, rounds, self.interval, before, told, cut_short)

        return Course(begun, maker, iter(rounds), made, before is not None, arrived, conclude)

    def _maker(self, tree: Tree, begun: Begun, apart: ApartMaker | None) -> Maker:
        compiled = self.engine.compile(tree, self.distances)
        return Maker(tree, compiled, begun.sites, begun.law_hash, self.keep.identity, self.distances, apart)

    def _begin(self, tree: Tree, law: str) -> Begun:
        clock, against = Clock(), self.against
        exact: Estimate | None = None
        with clock("exact law"):
            if tree.is_determined:
                exact = without_draws(tree, self.engine, self.interval.level)
            elif self.asked.exact:
                exact = enumerate_law(tree, self.engine, self.asked.stop, self.interval)
        return Begun(
            tree.hypothesis.name,
            law,
            against.model,
            against.randomised,
            tuple(warn_of_tree(tree)),
            sites_of(tree),
            tree.is_determined,
            exact,
            repr(self.asked),
            clock.seconds,
        )


def finish(
    begun: Begun,
    rounds: Rounds | None,
    interval: Interval,
    before: ScrubResult | None = None,
    population: Population | None = None,
    cut_short: bool = False,
) -> ScrubResult:
    """The result of a hypothesis from its rounds.

    Args:
        begun: what they are concluded from.
        rounds: what there is, and was owed; None where there is nothing to draw.
        interval: which is asked for.
        before: an earlier result that they add to.
        population: what is known of the population.
        cut_short: some are still owed.
    """
    seconds: list[Mapping[str, float]] = [begun.seconds]
    draws, warnings, rule = Draws(sites=begun.sites), begun.warnings, "draws"
    if rounds is not None:
        draws, warnings = rounds.draws(), begun.warnings + rounds.warnings
        seconds += [rounds.made[i].seconds for i in sorted(rounds.made)]
        rule = "width" if "width" in (rounds.stop.rule, before and before.stopping) else "draws"
    found = Found(draws, begun.exact, rule, add_seconds(*seconds), cut_short, warnings, population)
    return conclude(begun.hypothesis, begun.law_hash, found, begun.against, interval)
