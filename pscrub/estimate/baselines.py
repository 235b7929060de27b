"""The baselines that a scrubbed expected loss is measured against: the model's own and the randomised one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.estimate.known import Known, Seen
from pscrub.estimate.limits import Limits, Sampled
from pscrub.estimate.pairs import Pairs, Sample
from pscrub.evaluate.compute import Fold
from pscrub.evaluate.on_data import OnData
from pscrub.outcomes import Outcome, Said
from pscrub.progress import Progress, quiet

EXACT_PAIRS = 20_000_000
"""Evaluations of f up to which the randomised loss is computed over all pairs, however little f on D costs."""
SAMPLED = 20
"""How many times fewer pairs are sampled where all would be more than that."""
SHOWN = 4096
"""Pairs by which a report shows how the randomised loss is spread."""
ROUNDING = 2.0**-48
"""Of the largest magnitude of f, what is left of terms that add up to nothing: 0, not a loss of 1e-19."""


class Way(Outcome):
    """How a baseline was come by."""

    ALL_ROWS = "all rows", "exact, all rows"
    ALL_PAIRS = "all pairs", "exact, all pairs of {rows:,} outputs and {labels:,} distinct labels"
    SAMPLED_PAIRS = "sampled pairs", "{pairs:,} sampled pairs"
    GIVEN = "given", "given"


@dataclass(frozen=True)
class Baseline:
    """An expected loss of reference.

    Args:
        value: the expectation of f, in f's units.
        se: its standard error; 0.0 if exact.
        draws: pairs sampled; 0 if exact.
        method: how it was computed.
        sampled: what is known of the sample, if it is one: its interval is made from that.
    """

    value: float
    se: float
    draws: int
    method: str
    sampled: Sampled | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", Said.of(self.method))

    @classmethod
    def given(cls, value: Baseline | float | None) -> Baseline | None:
        """What a caller gives for a baseline: one, its value, or nothing."""
        return cls(float(value), 0.0, 0, Way.GIVEN.say()) if isinstance(value, float | int) else value

    @property
    def kind(self) -> str:
        """The code of how it was come by (`Way`); "" if a caller made it."""
        return Said.of(self.method).kind

    @property
    def exact(self) -> bool:
        """Whether the value has no sampling error."""
        return self.draws == 0

    def limits(self, level: float) -> Limits:
        """Its value with the ends of its interval: with bounds where the sample is rare events (`Sampled.limits`)."""
        if self.exact:
            return Limits(self.value, self.value, self.value)
        sampled = Sampled() if self.sampled is None else self.sampled
        return sampled.limits(self.value, self.se, self.draws, level)


def model_loss(on_data: OnData, progress: Progress = quiet) -> Baseline:
    """E_D[f], exactly: f on every row, weighted, summed in float64."""
    f = on_data.on_data(on_data.graph.output, progress).double().cpu()
    weights = on_data.data.weights
    # A row of weight zero may hold anything, NaN included.
    return Baseline(float(torch.where(weights > 0, weights * f, 0.0).sum()), 0.0, 0, Way.ALL_ROWS.say())


def randomised_loss(
    on_data: OnData,
    labels: str | Sequence[str] | None = None,
    pairs: int = EXACT_PAIRS,
    seed: int = 0,
    progress: Progress = quiet,
) -> Baseline:
    """E[f] with output and label drawn independently: the output of x, the label of an independent x'.

    Exact while distinct labels times rows is at most `pairs`, or where all of these take less work than f on D (a
    language model's outputs that meet all labels, once they are there): f is evaluated for every distinct label on
    every row's output, weighted (pairs of a row with itself are included: x' is independent). Else over `pairs`
    sampled pairs.

    Source: "Percentage of loss recovered" in the appendix, section 2.1.

    Args:
        on_data: of the graph whose output node is the loss.
        labels: the columns that are labels; by default as `tell_labels` finds them in the graph that was begun with.
        pairs: largest number of evaluations of f that is always made.
        seed: for sampled pairs.
        progress: told of rows done.

    Raises:
        StudyError: the labels cannot be told, or there is no output to break them from (`tell_labels`).
    """
    pairs_of, data = Pairs.of(on_data, labels), on_data.data
    if not pairs_of.within(pairs):
        f = pairs_of.f(sample_of(pairs, seed))
        own = Seen.of(on_data.on_data(on_data.graph.output, progress).double().cpu()[data.weights > 0])
        method = Way.SAMPLED_PAIRS.say(pairs=len(f))
        se = float(f.std()) / math.sqrt(len(f))
        return Baseline(float(f.mean()), se, len(f), method, Sampled.of(f, own.join(Seen.of(f, len(f)))))
    total = float((data.weights * pairs_of.sums(progress)[0]).sum())
    seen = pairs_of.seen
    if not seen.nothing and abs(total) <= ROUNDING * max(-seen.least, seen.greatest):  # as of differences that cancel
        total = 0.0
    return Baseline(total, 0.0, 0, Way.ALL_PAIRS.say(rows=data.n, labels=len(pairs_of.distinct[0])))


def folds_of_baselines(
    on_data: OnData, labels: str | Sequence[str] | None = None, given: Baseline | float | None = None, seed: int = 0
) -> list[Fold]:
    """What `Baselines.of` and `randomised_sample` will ask of pairs, to be made while D passes; none if it is given.

    Raises:
        StudyError: as in `randomised_loss`.
    """
    if given is not None:
        return []
    pairs = Pairs.of(on_data, labels)
    exactly, shown = pairs.within(EXACT_PAIRS), (SHOWN, (seed, 2))
    return pairs.folds(exactly, [shown] if exactly else [sample_of(EXACT_PAIRS, seed), shown])


def sample_of(pairs: int, seed: int) -> Sample:
    """The sample where all pairs would be more than so many."""
    return pairs // SAMPLED, (seed, 1)


@dataclass(frozen=True)
class Baselines:
    """What an expected loss is held against: the ends of the scale of loss recovered, each under its own name.

    Args:
        model: E_model, 100 per cent.
        randomised: E_randomised, 0 per cent.
    """

    model: Baseline
    randomised: Baseline

    @classmethod
    def of(
        cls,
        on_data: OnData,
        labels: str | Sequence[str] | None = None,
        given: Baseline | float | None = None,
        seed: int = 0,
        progress: Progress = quiet,
    ) -> Baselines:
        """Those of a graph: E_model as `model_loss` computes it, E_randomised given or as `randomised_loss` does."""
        model = model_loss(on_data, progress)
        randomised = Baseline.given(given)
        if randomised is None:
            randomised = randomised_loss(on_data, labels, seed=seed, progress=progress)
        return cls(model, randomised)


def what_is_known(
    on_data: OnData, labels: str | Sequence[str] | None, seed: int, given: bool, progress: Progress = quiet
) -> Known:
    """What f is on D and on pairs: on all of them that baselines were made from, once these are made.

    Args:
        on_data: of the graph whose output node is the loss.
        labels: the columns that are labels, as in `randomised_loss`.
        seed: names the pairs by which a report shows how f is spread.
        given: E_randomised was given, so that pairs are not looked at.
        progress: told of rows done.
    """
    weights = on_data.data.weights
    losses = on_data.on_data(on_data.graph.output, progress).double().cpu()
    if given:
        return Known.of(weights, losses, torch.empty(0, dtype=torch.float64))
    randomised = randomised_sample(on_data, labels, seed)
    return Known.of(weights, losses, randomised, Pairs.of(on_data, labels).seen)


def randomised_sample(on_data: OnData, labels: str | Sequence[str] | None, seed: int) -> Tensor:
    """float64 [SHOWN]: f on sampled pairs of an output and an independent label, to see how it is spread.

    Args:
        on_data: of the graph whose output node is the loss.
        labels: the columns that are labels, as in `randomised_loss`.
        seed: names the pairs.
    """
    return Pairs.of(on_data, labels).f((SHOWN, (seed, 2)))
