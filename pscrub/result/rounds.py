"""The rounds of draws that a hypothesis is still owed: so many draws, or Stein's two stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pscrub.estimate import stopping
from pscrub.estimate.baselines import Baselines
from pscrub.estimate.estimate import Interval, Method, mean_of_pairs
from pscrub.estimate.recovered import loss_recovered
from pscrub.estimate.replicates import round_up, sizes_of_replicates
from pscrub.estimate.stopping import Halt, Stop, more_draws, sizes_of_rounds
from pscrub.outcomes import Said
from pscrub.result import draws as records
from pscrub.result.draws import Draws, Round, join_draws
from pscrub.result.keeping import KeptRound


class Rounds:
    """The rounds to make, stage by stage: those of a stage in any order, by anyone, before the next is asked for.

    A round is named by seed and index. Which rounds there are to be depends on the rule and on what finished rounds
    gave, never on who made them, when, or which were there when a command began: so runs that were cut short, and
    processes that share a folder, come to the same rounds as one that was not. Draws that were asked for are counted
    over the rounds that are there; a run that goes on from an earlier result adds to it, and goes on counting rounds
    where that ended.

    Args:
        stop: when to stop.
        seed: of the run.
        made: the finished rounds, by index; the caller adds to it.
        against: the baselines, which say how wide a point of loss recovered is.
        interval: which is asked for.
        before: the draws of the earlier result.
        one: no interval has to narrow, as E_scrubbed is known without draws: if no number is asked for, one round.
    """

    def __init__(
        self,
        stop: Stop,
        seed: int,
        made: Mapping[int, KeptRound],
        against: Baselines,
        interval: Interval,
        before: Draws | None = None,
        one: bool = False,
    ) -> None:
        self.stop, self.seed, self.made, self.against, self.interval = stop, seed, made, against, interval
        self.before, self.one = before, one
        self.warnings: tuple[Said, ...] = ()
        own = () if before is None else (r.index for r in before.rounds if r.seed == seed)
        self.first = 1 + max(own, default=-1)

    def __iter__(self) -> Iterator[list[Round]]:
        if self.stop.draws is not None:
            yield from self._so_many(self.stop.draws)
        elif not self.one:
            yield from self._until_narrow()
        elif not self.made and self.before is None:
            yield self._name(self._sizes(stopping.ROUND))

    def draws(self) -> Draws:
        """All there are, of the earlier result too."""
        return self._join(sorted(self.made))

    def _so_many(self, draws: int) -> Iterator[list[Round]]:
        draws = round_up(draws) if self.stop.donors == "permuted" else draws + draws % 2
        while (more := draws - sum(each.name.size for each in self.made.values())) > 0:
            yield self._name(self._sizes(more))

    def _sizes(self, draws: int, alike: int | None = None) -> Iterator[tuple[int, int]]:
        """(draws, replicates) of the rounds that so many draws are made in."""
        if self.stop.donors == "permuted":
            return sizes_of_replicates(draws, alike)
        return ((size, 0) for size in sizes_of_rounds(draws))

    def _until_narrow(self) -> Iterator[list[Round]]:
        """Stein: the first round sets how many draws reach the width, whatever later rounds show."""
        upto = self.first
        if self.before is None:
            if upto not in self.made:
                yield self._name(self._sizes(stopping.ROUND))
            upto += 1
        pilot = (self.made[self.first].draws if self.before is None else self.before).pilot
        against, width = self.against, self.stop.width
        if loss_recovered(mean_of_pairs(pilot, self.interval.level), against) is None:
            self.warnings = (Halt.NO_SCALE.say(draws=stopping.ROUND),)
            return
        wanted = width * abs(against.model.value - against.randomised.value) / 100
        while True:
            draws = self._join(range(self.first, upto))
            estimate = draws.estimate(self.stop.rule, self.interval)
            if estimate.interval == Method.NONE.value:
                self.warnings = (Halt.NO_ENDS.say(draws=estimate.draws),)
                return
            more = more_draws(estimate, wanted)
            if more and estimate.draws >= stopping.MOST:
                self.warnings = (Halt.MOST.say(draws=estimate.draws, width=width),)
            if not more or self.warnings:
                return
            first = draws.rounds[0]  # Stein's stages are about errors that are alike: replicates of one size
            sizes = self._sizes(more, first.size // max(first.replicates, 1))
            stage = [Round(self.seed, upto + i, *size) for i, size in enumerate(sizes)]
            upto += len(stage)
            owed = [each for each in stage if each.index not in self.made]
            if owed:
                yield owed

    def _name(self, sizes: Iterable[tuple[int, int]]) -> list[Round]:
        """Rounds of such sizes, in the places that are free; of those that come after KEPT draws only sums are kept."""
        index, named, drawn = self.first, list[Round](), 0 if self.before is None else len(self.before)
        for size in sizes:
            while index in self.made:
                drawn += self.made[index].name.size
                index += 1
            named.append(Round(self.seed, index, *size, kept=drawn < records.KEPT))
            drawn += size[0]
            index += 1
        return named

    def _join(self, indices: Sequence[int]) -> Draws:
        pieces = [] if self.before is None else [self.before]
        return join_draws([*pieces, *(self.made[i].draws for i in indices)])
