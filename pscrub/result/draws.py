"""What was drawn for a hypothesis, and what it is seen against: plain frozen records that can be joined and saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pscrub.errors import StudyError
from pscrub.estimate.estimate import Estimate, Interval
from pscrub.estimate.known import Known, Seen
from pscrub.estimate.replicates import estimate_replicates
from pscrub.estimate.stopping import estimate_losses
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
    """

    seed: int
    index: int
    size: int
    replicates: int = 0


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

    Args:
        rounds: in order of seed and index.
        losses: float64 [draws], f, pair by pair as `law.draw` stratifies them.
        rows: int64 [draws], the root's datum.
        distances: measure -> float64 [draws], between the model's output on the root's datum and the scrubbed output.
        sites: one for each site but the root.
        worst: the draws with the largest f, largest first.
    """

    rounds: tuple[Round, ...] = ()
    losses: Tensor = field(default_factory=_numbers)
    rows: Tensor = field(default_factory=_rows)
    distances: Mapping[str, Tensor] = field(default_factory=dict)
    sites: tuple[SiteDraws, ...] = ()
    worst: tuple[Extreme, ...] = ()

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
            return estimate_replicates(self.by_round, [r.replicates for r in self.rounds], rule, interval)
        return estimate_losses(self.losses, self.by_round[0], rule, interval)

    @property
    def by_round(self) -> tuple[Tensor, ...]:
        """The losses of each round."""
        return self.losses.split([r.size for r in self.rounds]) if self.rounds else ()


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
    rounds = [(each, i, start) for each in pieces for i, start in enumerate(_starts(each))]
    rounds.sort(key=lambda r: (r[0].rounds[r[1]].seed, r[0].rounds[r[1]].index))
    made = [each.rounds[i] for each, i, _ in rounds]
    twice = sorted(name for name, times in Counter((r.seed, r.index) for r in made).items() if times > 1)
    if twice:
        listed = ", ".join(f"round {index} of seed {seed}" for seed, index in twice[:3])
        raise StudyError(f"the same draws are in both results ({listed}); expected other rounds or another seed")
    if not made:
        return pieces[0]

    def column(of: Any) -> Tensor:
        return torch.cat([of(each)[start : start + each.rounds[i].size] for each, i, start in rounds])

    measures = [name for name in pieces[0].distances if all(name in each.distances for each in pieces)]
    distances = {name: column(lambda each, name=name: each.distances[name]) for name in measures}
    served = tuple(_add_up(same) for same in zip(*(each.sites for each in pieces), strict=True))
    worst = sorted((w for each in pieces for w in each.worst), key=lambda w: (w.loss == w.loss, -w.loss))[:WORST]
    return Draws(
        tuple(made), column(lambda each: each.losses), column(lambda each: each.rows), distances, served, tuple(worst)
    )


def _starts(draws: Draws) -> list[int]:
    return [0, *np.cumsum([r.size for r in draws.rounds]).tolist()][: len(draws.rounds)]


def _add_up(same: Sequence[SiteDraws]) -> SiteDraws:
    totals = {name: sum(getattr(s, name) for s in same) for name in ("draws", "own", "collisions", "pairs")}
    return replace(same[0], **totals)
