"""What was drawn for a hypothesis, and what it is seen against: plain frozen records that can be joined and saved."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pscrub.errors import StudyError
from pscrub.estimate.estimate import Estimate, Interval
from pscrub.estimate.known import Known, Seen
from pscrub.estimate.replicates import estimate_replicates
from pscrub.estimate.sample import Sample
from pscrub.estimate.stopping import estimate_losses
from pscrub.estimate.sums import Sums
from pscrub.records import Equal


def _numbers() -> Tensor:
    return torch.empty(0, dtype=torch.float64)


def _rows() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class Round:
    """A set of draws made together, of which (seed, index) is the name: the same name gives the same draws.

    Args:
        seed: of the run.
        index: of the round within the run, from 0.
        size: its draws.
        replicates: that its draws are made up of, donors being permuted within each; 0 if they are independent.
        kept: its draws are kept one by one; else only sums of their f are.
    """

    seed: int
    index: int
    size: int
    replicates: int = 0
    kept: bool = True


@dataclass(frozen=True)
class SiteDraws:
    """How a site of the treeified hypothesis was served: what could be drawn for it, and what was.

    Args:
        path: of the site.
        at: the graph nodes that its datum stands for.
        feature: what its datum agrees on with its parent's; "unimportant" if on nothing.
        blocks: how many blocks the feature has.
        smallest: rows of the smallest.
        largest: rows of the largest.
        donors: effective rows that can be drawn given the parent's datum, (sum w)^2 / sum w^2 over its block, averaged
            over D. 1: nothing can be swapped.
        vacuous: the claim is meant to allow swaps, and allows none.
        draws: how many.
        own: of them, those that gave the parent's datum (for unimportant inputs, the root's) back.
        collisions: ordered pairs of different draws of one round that gave the same row.
        pairs: ordered pairs of different draws of one round.
    """

    path: str
    at: tuple[str, ...]
    feature: str
    blocks: int
    smallest: int
    largest: int
    donors: float
    vacuous: bool
    draws: int
    own: int
    collisions: int
    pairs: int

    @property
    def effective(self) -> float:
        """1 / sum p^2 of the rows drawn, p estimated without bias; infinite where no row came twice."""
        return self.pairs / self.collisions if self.collisions else float("inf")


@dataclass(frozen=True)
class Extreme:
    """One of the draws with the largest f.

    Args:
        loss: f.
        data: path of the root or a leaf -> (row, column -> value in short).
    """

    loss: float
    data: Mapping[str, tuple[int, Mapping[str, str]]]


@dataclass(frozen=True, eq=False)
class Draws(Equal):
    """The draws of one hypothesis.

    Of rounds that come after KEPT draws only sums are kept (`Round.kept`), so that memory does not grow with draws.
    What lists draws then lists those that are kept; estimates, `sites` and `worst` are of all.

    Args:
        rounds: in order of seed and index.
        losses: float64 [kept draws], f, pair by pair as `law.draw` stratifies them.
        rows: int64 [kept draws], the root's datum.
        distances: measure -> float64 [kept draws], between the model's output on the root's datum and the scrubbed
            output.
        sites: one for each site but the root.
        worst: the draws with the largest f, largest first.
        sums: of the rounds that are not kept, in order; None if all are.
    """

    rounds: tuple[Round, ...] = ()
    losses: Tensor = field(default_factory=_numbers)
    rows: Tensor = field(default_factory=_rows)
    distances: Mapping[str, Tensor] = field(default_factory=dict)
    sites: tuple[SiteDraws, ...] = ()
    worst: tuple[Extreme, ...] = ()
    sums: Sums | None = None

    def __len__(self) -> int:
        return sum(each.size for each in self.rounds)

    @property
    def kept(self) -> tuple[Round, ...]:
        """The rounds whose draws are kept one by one."""
        return tuple(each for each in self.rounds if each.kept)

    @property
    def sample(self) -> Sample:
        """All losses, as estimates ask about them."""
        return Sample(self.losses, self.sums)

    @property
    def donors(self) -> str:
        """How they were drawn: "permuted" or "independent"."""
        return "permuted" if any(r.replicates for r in self.rounds) else "independent"

    def estimate(self, rule: str, interval: Interval) -> Estimate:
        """E_scrubbed from all rounds (`estimate_losses`, or `estimate_replicates` of permuted donors).

        Args:
            rule: "draws" or "width": how their number was found.
            interval: which is asked for.
        """
        if self.donors == "permuted":
            dealt = [each.replicates for each in (*self.kept, *(r for r in self.rounds if not r.kept))]
            return estimate_replicates(self.by_round, dealt, rule, interval, self.sums)
        return estimate_losses(self.sample, self.pilot, rule, interval)

    @property
    def by_round(self) -> tuple[Tensor, ...]:
        """The losses of each round that is kept."""
        return self.losses.split([r.size for r in self.kept]) if self.kept else ()

    @property
    def pilot(self) -> Tensor:
        """The losses of the first round that is kept."""
        return next(iter(self.by_round), self.losses)


@dataclass(frozen=True, eq=False)
class Groups(Equal):
    """The rows of D by the value of a column.

    Args:
        column: its name.
        names: the values.
        codes: int64 [N], the index of each row's value.
    """

    column: str
    names: tuple[str, ...]
    codes: Tensor


@dataclass(frozen=True, eq=False)
class Reference(Equal):
    """What the draws are seen against.

    Args:
        data_hash: of D's columns and weights.
        weights: float64 [N], of D.
        losses: float64 [N], f on D.
        randomised: float64 [pairs], f on sampled pairs of an output and an independent label; empty if the baseline
            was given.
        groups: the columns that the study is broken down by.
        seen: which values f had on D and on every pair that was looked at; nothing in files of before.
    """

    data_hash: str = ""
    weights: Tensor = field(default_factory=_numbers)
    losses: Tensor = field(default_factory=_numbers)
    randomised: Tensor = field(default_factory=_numbers)
    groups: tuple[Groups, ...] = ()
    seen: Seen = Seen()  # noqa: RUF009 - frozen

    @cached_property
    def known(self) -> Known:
        """What is known of f beside the draws."""
        return Known.of(self.weights, self.losses, self.randomised, self.seen)


WORST = 10
"""Draws kept with their inputs."""
KEPT = 2**22
"""Draws of a hypothesis after which rounds are no longer kept draw by draw."""


class Bar:
    """How large f has to be for a draw to be among the worst of all rounds, as far as those go that were seen.

    What a round holds of the others is let go of: it would add up over many rounds.
    """

    def __init__(self) -> None:
        self._largest: list[float] = []

    def thin(self, draws: Draws) -> Draws:
        """A round's draws, of the worst those that may be among the worst of all."""
        found = [math.inf if w.loss != w.loss else w.loss for w in draws.worst]  # NaN is worst of all
        self._largest = sorted([*self._largest, *found], reverse=True)[:WORST]
        worst = tuple(w for w, f in zip(draws.worst, found, strict=True) if f >= self._largest[-1])
        return draws if len(worst) == len(found) else replace(draws, worst=worst)


def join_draws(pieces: Iterable[Draws]) -> Draws:
    """All draws of some records of one hypothesis, rounds in order of seed and index.

    Raises:
        StudyError: a round is in two of them, or only some have permuted donors.
    """
    pieces = list(pieces)
    if len({each.donors for each in pieces if each.rounds}) > 1:
        raise StudyError(
            "donors are permuted in some of the draws and independent in others; they make no one estimate"
        )
    rounds = [(each, i, place) for each in pieces for i, place in enumerate(_places(each))]
    rounds.sort(key=lambda r: (r[0].rounds[r[1]].seed, r[0].rounds[r[1]].index))
    made = [each.rounds[i] for each, i, _ in rounds]
    twice = sorted(name for name, times in Counter((r.seed, r.index) for r in made).items() if times > 1)
    if twice:
        listed = ", ".join(f"round {index} of seed {seed}" for seed, index in twice[:3])
        raise StudyError(f"the same draws are in both results ({listed}); expected other rounds or another seed")
    if not made:
        return pieces[0]

    def column(of: Any) -> Tensor:
        kept = [of(each)[start : start + each.rounds[i].size] for each, i, (start, _) in rounds if each.rounds[i].kept]
        return torch.cat(kept) if kept else of(pieces[0])[:0]

    measures = [name for name in pieces[0].distances if all(name in each.distances for each in pieces)]
    distances = {name: column(lambda each, name=name: each.distances[name]) for name in measures}
    served = tuple(_add_up(same) for same in zip(*(each.sites for each in pieces), strict=True))
    worst = sorted((w for each in pieces for w in each.worst), key=lambda w: (w.loss == w.loss, -w.loss))[:WORST]
    summed = [
        each.sums.line(each.rounds[i].replicates, *place)
        for each, i, place in rounds
        if each.sums is not None and not each.rounds[i].kept
    ]
    losses, rows = column(lambda each: each.losses), column(lambda each: each.rows)
    return Draws(tuple(made), losses, rows, distances, served, tuple(worst), Sums.join(summed))


def _places(draws: Draws) -> list[tuple[int, int]]:
    """Of each round: where its draws begin, and 0; or the line of its sums, and where its replicates' means begin."""
    found, kept, lines, dealt = list[tuple[int, int]](), 0, 0, 0
    for each in draws.rounds:
        found.append((kept, 0) if each.kept else (lines, dealt))
        kept += each.size * each.kept
        lines += not each.kept
        dealt += each.replicates * (not each.kept)
    return found


def _add_up(same: Sequence[SiteDraws]) -> SiteDraws:
    totals = {name: sum(getattr(s, name) for s in same) for name in ("draws", "own", "collisions", "pairs")}
    return replace(same[0], **totals)
