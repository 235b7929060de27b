"""Adversarial validation: the claims whose join with a hypothesis moves its scrubbed expected loss most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pscrub.data.features import features_of_columns, read_features
from pscrub.data.partition import Partition
from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.estimate import Estimate, mean_of_pairs
from pscrub.estimate.intervals import Family, simultaneous_level
from pscrub.estimate.recovered import points_recovered
from pscrub.estimate.stopping import ROUND
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.tree import Tree, unroll
from pscrub.law.entropy import entropy_budget
from pscrub.progress import Progress, quiet
from pscrub.questions.adversarial.clusters import clusters
from pscrub.questions.adversarial.moves import EVERYWHERE, Move, Option, names, options, places, with_moves
from pscrub.questions.comparison import Paired, Sample, draw_losses_of
from pscrub.result.table import Table

FRESH = 1_000_003
"""What is added to the seed for the draws that confirm a winner."""
LEAST = 0.05
"""Bits that a claim counts as giving up at least."""


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

    @property
    def found(self) -> bool:
        """Whether the confirmation's interval leaves 0 out: with nothing to be found, seldom."""
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
        """What to know under the table: the verdict, and what fresh draws say."""
        e, p = self.confirmed, self.points
        points = "." if p is None else f", {p.value:+.2f} points {p.ends()}."
        return (
            f"{self.verdict}.",
            f"On {self.draws:,} fresh draws: E_scrubbed {e.value:+.4g} {e.ends()}{points}",
            f"{len(self.moves):,} claims tried; the table's intervals hold together at level {self.level:g}. "
            "What was not offered was not tried.",
        )

    @property
    def verdict(self) -> str:
        """One sentence."""
        if not self.found:
            return f"nothing found at level {self.level:g} among {len(self.moves):,} claims tried"
        said = "; then ".join(f"{move.feature} at {move.where}" for move in self.chosen)
        change = self.confirmed.value
        return (
            f"found a missing claim: {said}: E_scrubbed {change:+.6g}, confirmed on fresh draws at level {self.level:g}"
        )


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
        labels: as in `measures.randomised_loss`.
        device: where the model runs.
        memory: bytes for activations on D.
        randomised: the baseline, if not E_randomised.
        progress: told of draws done.

    Raises:
        HypothesisError: the hypothesis is not well formed.
        DatasetError: features that cannot be read.
        StudyError: there is nothing to try.

    >>> from pscrub import Claim, Dataset, Graph
    >>> data = Dataset({"x": torch.arange(40) % 4})
    >>> graph = Graph.of({"s": lambda x: 1.0 * x, "f": lambda s, x: (s - x).abs()}, inputs=["x"], output="f")
    >>> parity = Claim("s", lambda d: d["x"] % 2)
    >>> h = Hypothesis("parity alone", graph, data, Claim("f", reads=[parity, Claim("x", "x")]))
    >>> found = adversary(h, {"half": lambda d: d["x"] // 2}, from_data=False, draws=512)
    >>> found.found, found.chosen[0].feature, found.chosen[0].where, round(found.confirmed.value, 1)
    (True, 'half', 's', -1.0)
    """
    if steps < 1:
        raise StudyError(f"steps is {steps}; expected at least 1")
    start = tree = unroll(hypothesis)
    given = read_features(hypothesis.data, features)
    if from_data:
        given |= {k: p for k, p in features_of_columns(hypothesis.data).items() if k not in given}
    at = {where: paths for where, paths in places(tree) if nodes is None or _is_asked(tree, where, paths, nodes)}
    local: dict[str, dict[str, Partition]] = {}
    engine = Engine(hypothesis.data, device, memory, progress=progress)
    if from_data:
        on_data = engine.on_data(hypothesis.graph)
        for where, paths in at.items():
            sources = tuple(dict.fromkeys(name for path in paths for name in tree.source(path)))
            if sources and len({tuple(tree.source(path)) for path in paths}) == 1:
                local[where] = clusters(on_data, sources, hypothesis.data, seed)
    sample, wanted = Sample(draws, seed, labels, Baseline.given(randomised)), _Wanted(level, family, per_bit)
    first: tuple[Move, ...] = ()
    chosen: list[Move] = []
    for step in range(steps):
        tried = list(options(tree, at, given, local, nodes is None))
        if not tried and step == 0:
            raise StudyError(f"nothing to try on '{hypothesis.name}': no feature splits a block of its claims")
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


def _is_asked(tree: Tree, where: str, paths: Sequence[str], nodes: Sequence[str]) -> bool:
    """Whether the deepest of a place's sites are about named nodes."""
    return where != EVERYWHERE and bool(set(names(tree, paths[-1:])) & set(nodes))
