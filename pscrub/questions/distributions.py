"""How far scrubbing moves f and the output: the whole distribution of f, and the output on the same root datum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pscrub.errors import StudyError
from pscrub.estimate.distances import OutputDistances
from pscrub.estimate.estimate import Estimate, choose
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.behaviours import output_distance
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.tree import unroll
from pscrub.law.drawing import draw
from pscrub.law.of_f import law_of_f

Array = np.ndarray[Any, np.dtype[np.float64]]
MEASURES = ("Kolmogorov-Smirnov", "Wasserstein", "energy")
"""Largest difference of the distribution functions; the area between them, in f's units; scipy's energy distance."""
TIE = 1e-9
"""Values of f that differ by less, relative to the largest, are one: f is not always rounded alike in other batches."""
BATCH = 1 << 21
"""Cells of resampled distribution functions that are held at a time."""


@dataclass(frozen=True)
class DistributionDistance:
    """How far two distributions of f are apart.

    Args:
        measure: one of MEASURES.
        estimate: the distance with a bootstrap interval, cut at 0. A distance between samples is never negative, so
            that chance alone makes it positive: whether there is one at all is what `p` says.
        p: the probability of a distance as large if there is none.
    """

    measure: str
    estimate: Estimate
    p: float


@dataclass(frozen=True, eq=False)
class OutputDistance:
    """How far scrubbed outputs are from the model's own on the root's datum.

    Args:
        measure: "squared error", "KL" in nats, or "flipped".
        estimate: the mean, with an interval for the draws' uncertainty.
        values: float64 [draws], pair by pair.
    """

    measure: str
    estimate: Estimate
    values: Tensor = field(repr=False)


def compare_distributions(
    hypothesis: Hypothesis,
    draws: int = 8192,
    seed: int = 0,
    *,
    resamples: int = 999,
    level: float = 0.95,
    device: torch.device | str = "cpu",
    memory: int = MEMORY,
) -> tuple[DistributionDistance, ...]:
    """How far the law of f under scrubbing is from its law on D, by each of MEASURES.

    D is known, so only the scrubbed side is sampled, by independent draws (no strata). Intervals resample these draws;
    p-values hold what was found against as many draws from D's own law, which is exact whatever that law is.

    Source: appendix, section 2.2, which also says why the mean is preferred: noise has to be explained as well.

    Args:
        hypothesis: a well-formed one.
        draws: how many.
        seed: names the draws and the resamples.
        resamples: of each kind.
        level: nominal coverage.
        device: where the model runs.
        memory: bytes for activations on D.

    Raises:
        HypothesisError: the hypothesis is not well formed.
        StudyError: fewer than two draws, or f that is not finite.
    """
    if draws < 2 or resamples < 1:
        raise StudyError(f"draws is {draws} and resamples {resamples}; expected at least 2 and 1")
    tree = unroll(hypothesis)
    engine = Engine(hypothesis.data, device, memory)
    f = engine.f(tree, draw(tree, draws, (seed, 0), stratified=False)).numpy()
    kept = hypothesis.data.weights > 0
    own = engine.on_data(hypothesis.graph).on_data(hypothesis.graph.output).double().cpu()[kept].numpy()
    _check_finite(own, f)
    support, place = _support(np.concatenate([own, f]))
    p = np.bincount(place[: len(own)], hypothesis.data.weights[kept].numpy(), len(support))
    counts = np.bincount(place[len(own) :], minlength=len(support))
    rng, cdf = np.random.default_rng(np.random.SeedSequence((seed, 3))), np.cumsum(p)

    def resampled(law: np.ndarray[Any, Any]) -> Array:
        def some(n: int) -> Array:
            return np.cumsum(rng.multinomial(draws, law / law.sum(), size=n), 1) / draws - cdf

        return _many(some, resamples, support)

    found = _measures(np.cumsum(counts)[None] / draws - cdf, support)[0]
    about = f"{resamples:,} resamples of draws, basic bootstrap; p from draws of D"
    return _distances(found, resampled(counts / draws), resampled(p), draws, level, about)


def compare_samples(
    first: Tensor, second: Tensor, *, resamples: int = 999, seed: int = 0, level: float = 0.95
) -> tuple[DistributionDistance, ...]:
    """How far two samples' distributions are apart, entry i of both being from one draw.

    Such are f of two hypotheses on common random numbers (`compare.Losses.f`), or f on the root's datum and scrubbed.
    Intervals resample draws, both entries of a draw together. p-values swap the entries of a draw at random, which is
    exact if within each draw the two might as well have come the other way round.

    Args:
        first: float [draws].
        second: float [draws].
        resamples: of each kind.
        seed: names the resamples.
        level: nominal coverage.

    Raises:
        StudyError: samples of different sizes, or values that are not finite.

    >>> a = torch.arange(100, dtype=torch.float64)
    >>> [(each.measure, round(each.estimate.value, 3), each.p) for each in compare_samples(a, a + 50)][:2]
    [('Kolmogorov-Smirnov', 0.5, 0.001), ('Wasserstein', 50.0, 0.001)]
    """
    x, y = (np.asarray(each.double().cpu().numpy()) for each in (first, second))
    n = len(x)
    if x.shape != y.shape or x.ndim != 1 or n < 2:
        raise StudyError(
            f"samples have shapes {x.shape} and {y.shape}; expected one number a draw in both, two or more"
        )
    _check_finite(x, y)
    support, place = _support(np.concatenate([x, y]))
    rng = np.random.default_rng(np.random.SeedSequence((seed, 4)))

    def gap(weights: np.ndarray[Any, Any]) -> Array:
        signed = np.concatenate([weights, -weights], 1)
        return np.stack([np.cumsum(np.bincount(place, each, len(support))) for each in signed]) / n

    def again(size: int) -> Array:
        return gap(rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64))

    def swapped(size: int) -> Array:
        return gap(rng.integers(0, 2, size=(size, n)) * 2.0 - 1)

    found = _measures(gap(np.ones((1, n))), support)[0]
    about = f"{resamples:,} resamples of draws, basic bootstrap; p by swapping within draws"
    nulls = _many(swapped, resamples, support)
    return _distances(found, _many(again, resamples, support), nulls, n, level, about)


def exact_distances(hypothesis: Hypothesis) -> dict[str, float]:
    """Measure -> the distance of the exact law of f under scrubbing from its law on D, where that law can be listed.

    Raises:
        HypothesisError: not well formed, or the law is too large to list: use `compare_distributions`.
    """
    law = law_of_f(unroll(hypothesis))
    own = Engine(hypothesis.data).on_data(hypothesis.graph).on_data(hypothesis.graph.output).double().cpu()
    kept = hypothesis.data.weights > 0
    values = np.concatenate([own[kept].numpy(), np.array(list(law))])
    support, place = _support(values)
    p = np.concatenate([-hypothesis.data.weights[kept].numpy(), np.array(list(law.values()))])
    return dict(zip(MEASURES, _measures(np.cumsum(np.bincount(place, p))[None], support)[0].tolist(), strict=True))


def output_distances(
    hypothesis: Hypothesis,
    draws: int = 8192,
    seed: int = 0,
    *,
    labels: str | Sequence[str] | None = None,
    level: float = 0.95,
    device: torch.device | str = "cpu",
    memory: int = MEMORY,
) -> tuple[OutputDistance, ...]:
    """How far the scrubbed output is from the model's own on the same root datum; data without labels will do.

    What is measured goes by the outputs (`measures.OutputDistances`). For another distance, and for exact values, scrub
    `behaviours.output_distance`.

    Source: the appendix's comments ("output distance").

    Args:
        hypothesis: a well-formed one.
        draws: how many (rounded up to pairs).
        seed: names the draws.
        labels: the columns that are labels; by default the columns that the output node reads itself.
        level: nominal coverage.
        device: where the model runs.
        memory: bytes for activations on D.

    Raises:
        HypothesisError: the hypothesis is not well formed.
    """
    apart = output_distance(hypothesis, labels=labels)
    tree = unroll(apart)
    reads = apart.graph.reads(apart.graph.output)  # outputs, then the model's own
    distances = OutputDistances(apart.graph, reads[len(reads) // 2 :])
    Engine(apart.data, device, memory).f(tree, draw(tree, draws + draws % 2, (seed, 0)), distances)
    return tuple(OutputDistance(name, choose(d, level), d) for name, d in distances.taken().items())


def _support(values: Array) -> tuple[Array, np.ndarray[Any, np.dtype[np.intp]]]:
    """The distinct values in order, and the place of each value among them; what is a rounding apart is one value."""
    distinct, place = np.unique(values, return_inverse=True)
    apart = np.diff(distinct) > TIE * np.abs(distinct).max()
    group = np.concatenate([[0], np.cumsum(apart)])
    return distinct[np.concatenate([[True], apart])], group[place]


def _measures(gaps: np.ndarray[Any, Any], support: Array) -> Array:
    """[samples, measures] of differences of distribution functions [samples, support]."""
    steps = np.diff(support)
    between = gaps[:, :-1]
    energy = np.sqrt(2 * (between**2 @ steps))
    return np.stack([np.abs(gaps).max(1), np.abs(between) @ steps, energy], 1)


def _many(some: Callable[[int], Array], samples: int, support: Array) -> Array:
    size = max(1, BATCH // len(support))
    return np.concatenate([_measures(some(min(size, samples - i)), support) for i in range(0, samples, size)])


def _distances(
    found: Array, again: Array, nulls: Array, draws: int, level: float, about: str
) -> tuple[DistributionDistance, ...]:
    out = []
    for i, name in enumerate(MEASURES):
        value = float(found[i])
        low, high = np.quantile(again[:, i], [(1 - level) / 2, (1 + level) / 2]).tolist()
        ends = max(0.0, 2 * value - high), max(value, 2 * value - low)
        se = float(again[:, i].std())
        # A tie that rounding breaks is a tie.
        p = (1 + int((nulls[:, i] >= value * (1 - 1e-9) - 1e-12).sum())) / (len(nulls) + 1)
        out.append(DistributionDistance(name, Estimate(value, *ends, level, se, draws - 1.0, draws, about), p))
    return tuple(out)


def _check_finite(*samples: Array) -> None:
    if not all(bool(np.isfinite(each).all()) for each in samples):
        raise StudyError("f is infinite or NaN somewhere; distances of distributions need finite values")
