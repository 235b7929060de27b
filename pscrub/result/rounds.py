"""The rounds of draws that a hypothesis is still owed: so many draws, or Stein's two stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pscrub.estimate import stopping
from pscrub.estimate.baselines import Baselines
from pscrub.estimate.estimate import Interval, Method, mean_of_pairs
from pscrub.estimate.recovered import loss_recovered
from pscrub.estimate.stopping import Halt, Stop, estimate_losses, more_draws, sizes_of_rounds
from pscrub.outcomes import Said
from pscrub.result.draws import Draws, Round, join_draws


class Rounds:
    """The rounds to make, one by one; what each gave must be among `made` before the next is asked for.

    A round is named by seed and index: a run that goes on from an earlier one goes on counting where that ended.

    Args:
        stop: when to stop.
        seed: of the run.
        made: the draws so far; the caller adds to it.
        against: the baselines, which say how wide a point of loss recovered is.
        interval: which is asked for.
        one: no interval has to narrow, as E_scrubbed is known without draws: if no number is asked for, one round.
    """

    def __init__(
        self,
        stop: Stop,
        seed: int,
        made: Sequence[Draws],
        against: Baselines,
        interval: Interval,
        one: bool = False,
    ) -> None:
        self.one = one
        self.stop, self.seed, self.made, self.against, self.interval = stop, seed, made, against, interval
        self.warnings: tuple[Said, ...] = ()

    def __iter__(self) -> Iterator[Round]:
        if self.stop.draws is not None:
            sizes = sizes_of_rounds(self.stop.draws)
        elif self.one:
            sizes = iter([] if self.made else [stopping.ROUND])
        else:
            sizes = self._until_narrow()
        for size in sizes:
            own = (r.index for each in self.made for r in each.rounds if r.seed == self.seed)
            yield Round(self.seed, 1 + max(own, default=-1), size)

    def _until_narrow(self) -> Iterator[int]:
        """Stein: the first round sets how many draws reach the width, whatever later rounds show."""
        if not self.made:
            yield stopping.ROUND
        against, width = self.against, self.stop.width
        if loss_recovered(mean_of_pairs(self.made[0].by_round[0], self.interval.level), against) is None:
            self.warnings = (Halt.NO_SCALE.say(draws=stopping.ROUND),)
            return
        wanted = width * abs(against.model.value - against.randomised.value) / 100
        while True:
            draws = join_draws(self.made)
            estimate = estimate_losses(draws.losses, draws.by_round[0], self.stop.rule, self.interval)
            if estimate.interval == Method.NONE.value:
                self.warnings = (Halt.NO_ENDS.say(draws=estimate.draws),)
                return
            more = more_draws(estimate, wanted)
            if more and estimate.draws >= stopping.MOST:
                self.warnings = (Halt.MOST.say(draws=estimate.draws, width=width),)
            if not more or self.warnings:
                return
            yield from sizes_of_rounds(more)
