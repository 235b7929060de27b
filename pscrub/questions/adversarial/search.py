"""Adversarial validation: the claims whose join with a hypothesis moves its scrubbed expected loss most.

Two things may be found. On D as it stands a claim moves E_scrubbed, which fresh draws confirm; but any sample of rows
has chance correlations that some claim is about. That a claim is *missing* holds of the population that D is a sample
of, and is confirmed on rows that the search has not seen (`held_out`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pscrub.data.partition import number_units
from pscrub.errors import NothingToTryError
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.estimate import Estimate, mean_of_pairs
from pscrub.estimate.recovered import points_recovered
from pscrub.estimate.simultaneous import Family, simultaneous_level
from pscrub.estimate.stopping import ROUND
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.tree import Tree, unroll
from pscrub.law.entropy import entropy_budget
from pscrub.outcomes import Outcome
from pscrub.progress import Progress, quiet
from pscrub.questions.adversarial.held_out import Finding, HeldOut, InPopulation, find_in_population
from pscrub.questions.adversarial.moves import LEAST, Move, Option, with_moves
from pscrub.questions.adversarial.offers import Offer, check_asked, check_nodes
from pscrub.questions.comparison import Paired, Sample, draw_losses_of
from pscrub.result.table import Table

FRESH = 1_000_003
"""What is added to the seed for the draws that confirm a winner."""


class OnThisData(Outcome):
    """What an adversary says of D as it stands."""

    MOVED = (
        "moved on this data",
        "on this D: {moves}: E_scrubbed {change:+.6g}, confirmed on fresh draws at level {level:g}",
    )
    NOTHING = "nothing moved on this data", "on this D: nothing found at level {level:g} among {tried:,} claims tried"


@dataclass(frozen=True, eq=False)
class AdversaryResult:
    """What an adversary found.

    Args:
        hypothesis: that was attacked.
        moves: of the first search, those most surely away from 0 first.
        chosen: the moves joined one after another, greedily.
        confirmed: what they do together to E_scrubbed, on fresh draws, one interval at `level`.
        points: the same in points of loss recovered.
        level: of the simultaneous intervals of a search, and of the confirmation.
        draws: of each hypothesis in a search, and in the confirmation.
        model: E_model.
        randomised: E_randomised.
        population: what holds in the population that D is a sample of, by rows held out from a search of their own.
    """

    hypothesis: Hypothesis
    moves: tuple[Move, ...]
    chosen: tuple[Move, ...]
    confirmed: Estimate
    points: Estimate | None
    level: float
    draws: int
    model: Baseline
    randomised: Baseline
    population: InPopulation

    @property
    def found(self) -> bool:
        """Whether a claim is missing in the population that D is a sample of; if none is, seldom."""
        return self.population.finding is Finding.MISSING

    @property
    def moved(self) -> bool:
        """Whether the claims chosen move E_scrubbed on this D, by fresh draws: of D as a sample it says nothing."""
        return bool(self.chosen) and not self.confirmed.low <= 0 <= self.confirmed.high

    @property
    def joined(self) -> Hypothesis:
        """The hypothesis joined with the moves chosen, on its isomorphic graph."""
        return with_moves(self.hypothesis, self.chosen)

    def table(self, most: int = 20) -> Table:
        """The moves of the first search, surest first.

        Args:
            most: of them.
        """
        rows = []
        for move in self.moves[:most]:
            points = "–" if move.points is None else f"{move.points.value:+.2f}"
            change = f"{move.difference.value:+.4g}", move.difference.ends()
            rows.append((move.feature, move.where, *change, points, f"{move.bits:.2f}"))
        head = ("claim", "at", "change of E_scrubbed", "interval", "points", "bits given up")
        return Table(head, tuple(rows), words=2)

    @property
    def below(self) -> tuple[str, ...]:
        """What to know under the table: what holds in the population, what on this D, and what was tried."""
        e, p = self.confirmed, self.points
        points = "." if p is None else f", {p.value:+.2f} points {p.ends()}."
        return (
            f"{self.verdict}.",
            f"{self.on_this_data}.",
            f"On {self.draws:,} fresh draws: E_scrubbed {e.value:+.4g} {e.ends()}{points}",
            f"{len(self.moves):,} claims tried; the table's intervals, for D as it stands, hold together at level "
            f"{self.level:g}. What was not offered was not tried.",
        )

    @property
    def verdict(self) -> str:
        """One sentence on the population that D is a sample of."""
        return self.population.said

    @property
    def on_this_data(self) -> str:
        """One sentence on D as it stands."""
        if not self.moved:
            return OnThisData.NOTHING.say(level=self.level, tried=len(self.moves))
        said = "; then ".join(f"{move.feature} at {move.where}" for move in self.chosen)
        return OnThisData.MOVED.say(moves=said, change=self.confirmed.value, level=self.level)


def adversary(
    hypothesis: Hypothesis,
    features: Mapping[str, Any] | Sequence[Any] = (),
    *,
    from_data: bool = True,
    nodes: Sequence[str] | None = None,
    draws: int = ROUND,
    steps: int = 2,
    per_bit: bool = False,
    seed: int = 0,
    level: float = 0.95,
    family: Family = "max-t",
    held_out: float = 0.5,
    clusters: str | None = None,
    labels: str | Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    memory: int = MEMORY,
    randomised: Baseline | float | None = None,
    progress: Progress = quiet,
) -> AdversaryResult:
    """Which additional claims, of those tried, move E_scrubbed: by how much, how surely, and whether fresh draws agree.

    A claim is tried at each claim that reads nothing and at the unimportant inputs of each reader, which keep their
    common datum; deeper ones alone, and carried on every node from the output to there; at claims that are alike
    together; and on all nodes at once.
    Unimportant inputs drawn apart are also tried drawn together. The move surest to be away from 0 is joined, then the
    next, as long as one is clear. All moves of a search share their random numbers, and their intervals hold together.
    The winner has been picked, so that its own interval flatters it: it is tried again on fresh draws.

    All that is about D as it stands. Whether a claim is missing in the population that D is a sample of is asked apart:
    some of the rows are searched in the same way, by estimates for the population, and what is chosen there is
    confirmed on the rows held out. Rows are taken to be independent of one another, unless `clusters` says otherwise.

    Source: appendix 8.

    Args:
        hypothesis: a well-formed one.
        features: as in `data.features.read_features`.
        from_data: also try columns, their quantiles, and clusters of each node's activations.
        nodes: claim names or graph nodes (of a reader, for its unimportant inputs) to try; all by default.
        draws: of each move, and of the confirmation.
        steps: most moves joined one after another.
        per_bit: prefer what moves E_scrubbed most for each bit of scrubbed entropy that it gives up, so that a claim
            which forbids little goes before one that forbids much.
        seed: names the draws, and the clusters.
        level: of a search's intervals together, and of the confirmation.
        family: how intervals are made to hold together.
        held_out: share of the rows that confirm what holds in the population; 0 where D is all there is.
        clusters: a column; rows of one value are not independent of one another, and are held out together or not.
        labels: as in `measures.randomised_loss`.
        device: where the model runs.
        memory: bytes for activations on D.
        randomised: the baseline, if not E_randomised.
        progress: told of draws done.

    Raises:
        HypothesisError: the hypothesis is not well formed.
        DatasetError: features that cannot be read, no such column of clusters.
        StudyError: there is nothing to try, no such node to try it at, or options that make no sense.

    >>> from pscrub import Claim, Dataset, Graph
    >>> data = Dataset({"x": torch.arange(400) % 4})
    >>> graph = Graph.of({"s": lambda x: 1.0 * x, "f": lambda s, x: (s - x).abs()}, inputs=["x"], output="f")
    >>> parity = Claim("s", lambda d: d["x"] % 2)
    >>> h = Hypothesis("parity alone", graph, data, Claim("f", reads=[parity, Claim("x", "x")]))
    >>> found = adversary(h, {"half": lambda d: d["x"] // 2}, from_data=False, draws=512)
    >>> found.found, found.chosen[0].feature, found.chosen[0].where, round(found.confirmed.value, 1)
    (True, 'half', 's', -1.0)
    """
    check_asked(draws, steps, level, held_out)
    sample, wanted = Sample(draws, seed, labels, Baseline.given(randomised)), _Wanted(level, family, per_bit)
    number_units(hypothesis.data, clusters)  # a column that is not there is told of before the search
    how = HeldOut(held_out, draws, steps, seed, level, per_bit, clusters)
    start = tree = unroll(hypothesis)
    if nodes is not None:
        check_nodes([start], nodes)
    engine = Engine(hypothesis.data, device, memory, progress=progress)
    offer, on_data = Offer(features, from_data, nodes, seed), engine.on_data(hypothesis.graph)
    offered = offer.read(start, on_data)
    first: tuple[Move, ...] = ()
    chosen: list[Move] = []
    for step in range(steps):
        tried = offered.options(tree)
        if not tried and step == 0:
            raise NothingToTryError(f"nothing to try on '{hypothesis.name}': no feature splits a block of its claims")
        moves = _search(tree, tried, sample, engine, wanted)
        first = first or tuple(move for move, _ in moves)
        if not moves or (step and not moves[0][0].clear):
            break
        chosen.append(moves[0][0])
        tree = moves[0][1]
    losses = draw_losses_of({"": start, "joined": tree}, replace(sample, seed=seed + FRESH), engine)
    confirmed = mean_of_pairs(losses.f[1] - losses.f[0], level)
    confirmed = replace(confirmed, method=Paired.FRESH.wrap(confirmed.method))
    points = points_recovered(confirmed, losses.against)
    return AdversaryResult(
        hypothesis=hypothesis,
        moves=first,
        chosen=tuple(chosen),
        confirmed=confirmed,
        points=points,
        level=level,
        draws=losses.f.shape[1],
        model=losses.model,
        randomised=losses.randomised,
        population=find_in_population(hypothesis, offer, how, engine),
    )


@dataclass(frozen=True)
class _Wanted:
    """How intervals of one search are made, and which moves go first."""

    level: float
    family: Family
    per_bit: bool


def _search(tree: Tree, options: Sequence[Option], sample: Sample, engine: Engine, wanted: _Wanted) -> list[Option]:
    """The moves with what they do, the surest first."""
    if not options:
        return []
    trees = {"": tree, **{str(i): option for i, (_, option) in enumerate(options)}}
    losses = draw_losses_of(trees, sample, engine)
    moved = replace(losses, names=losses.names[1:], f=losses.f[1:] - losses.f[0])
    each = simultaneous_level(moved.correlation, wanted.level, wanted.family)
    before = entropy_budget(tree, bits=True).scrubbed
    found = []
    for f, (move, option) in zip(moved.f, options, strict=True):
        difference = mean_of_pairs(f, each)
        points = points_recovered(difference, losses.against)
        bits = before - entropy_budget(option, bits=True).scrubbed
        found.append((replace(move, difference=difference, points=points, bits=bits), option))
    found.sort(key=lambda option: _rank(option[0], wanted.per_bit))
    return found


def _rank(move: Move, per_bit: bool) -> tuple[bool, float]:
    """Clear moves first, by the end of the interval that is nearer to 0; of others, the least like no change."""
    half, size = move.difference.width / 2, abs(move.difference.value)
    if size > half:
        return False, (half - size) / (max(move.bits, LEAST) if per_bit else 1.0)
    return True, -size / half if half else 0.0
