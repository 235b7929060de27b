"""One hypothesis of a run: its rounds, from the law to what is concluded from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from pscrub.errors import GraphError, StudyError
from pscrub.estimate.baselines import Baselines
from pscrub.estimate.distances import OutputDistances
from pscrub.estimate.estimate import Estimate, Interval
from pscrub.estimate.gradients import Gradients
from pscrub.estimate.jackknife import Population
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.tree import Tree
from pscrub.progress import Clock, add_seconds
from pscrub.result.collect import collect_round, sites_of
from pscrub.result.conclude import Found, conclude
from pscrub.result.draws import Draws, Round
from pscrub.result.exactly import enumerate_law, without_draws
from pscrub.result.keeping import Begun, Filled, Keeper, KeptRound
from pscrub.result.manifest import Asked
from pscrub.result.merging import tell_apart
from pscrub.result.provenance import law_hash
from pscrub.result.result import ScrubResult
from pscrub.result.rounds import Rounds, draw_round
from pscrub.result.sampled import Sampled
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
    """

    engine: Engine
    against: Baselines
    interval: Interval
    asked: Asked
    seed: int
    keep: Keeper
    distances: OutputDistances | None
    gradients: Gradients | None

    def scrub_all(self, trees: Sequence[Tree]) -> Iterator[tuple[ScrubResult, BaseException | None]]:
        """The result of each hypothesis as it is there, of the rounds before what stopped it, if anything did.

        What others are at work on comes last, when nothing else is left to do.
        """
        held = list[Tree]()
        for tree in trees:
            found = self.scrub(tree, wait=False)
            if found is None:
                held.append(tree)
            else:
                yield from found
        for tree in held:
            yield from self.scrub(tree, wait=True) or ()

    def scrub(self, tree: Tree, wait: bool) -> list[tuple[ScrubResult, BaseException | None]] | None:
        """The result of one hypothesis; none if none of its rounds is there; None if others are at work on some.

        Args:
            tree: the treeified hypothesis.
            wait: for what others are at work on.
        """
        name, law = tree.hypothesis.name, law_hash(tree)
        begun = self.keep.begin(name, law, repr(self.asked), partial(self._begin, tree, law))
        before = None
        if self.keep.earlier is not None:
            before = next((each for each in self.keep.earlier.results if each.hypothesis == name), None)
        sampled = None if self.gradients is None else Sampled(tree, self.gradients, self.engine)
        if begun.determined:
            told = None if sampled is None else sampled.found(self.interval, {})
            return [(finish(begun, None, self.interval, population=told), None)]
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
        make = partial(self._make, tree, begun, rounds, sampled)
        cut_short, stopped = False, None
        try:
            for owed in rounds:
                match self.keep.fill(owed, made, make, begun, wait):
                    case Filled.HELD:
                        return None
                    case Filled.ELSEWHERE:
                        cut_short = True
                        break
        except (KeyboardInterrupt, GraphError) as error:
            if not made and before is None:
                raise
            cut_short, stopped = True, error
        if not made and before is None:
            return []
        told = None if sampled is None else sampled.found(self.interval, made, before)
        return [(finish(begun, rounds, self.interval, before, told, cut_short), stopped)]

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

    def _make(self, tree: Tree, begun: Begun, rounds: Rounds, sampled: Sampled | None, each: Round) -> KeptRound:
        clock = Clock()
        with clock("drawing"):  # scrubbed inputs from their law
            data = draw_round(tree, each)
        with clock("evaluation"):  # f on them
            f = self.engine.f(tree, data, self.distances)
        distances = {} if self.distances is None else self.distances.taken()
        apart = torch.empty(0, dtype=torch.float64)
        if sampled is not None:
            with clock("draws apart"):  # and of the population
                apart = sampled.draw(each, rounds.made, rounds.first)
        draws = collect_round(tree, begun.sites, each, data, f, distances)
        return KeptRound(begun.hypothesis, begun.law_hash, self.keep.identity, draws, apart, clock.seconds)


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
