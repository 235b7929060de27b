"""The uncertainty of D itself: what E_scrubbed, its baselines and loss recovered would be on another sample of rows.

Infinitesimal jackknife: D's rows are a sample of a population, so the variance of a function E of D's weights is that
of its linearisation, sum_k (dE / d log w_k)^2, whatever the function. The derivatives are those of `gradients`, each
twice, from the first and from the second draws of pairs: these are independent, so that the product of the two has none
of the draws' noise, which would otherwise add to the squares.

Source: Jaeckel, The infinitesimal jackknife (1972); Efron and Stein, The jackknife estimate of variance (1981).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.estimate.baselines import Baseline, model_loss, randomised_loss
from pscrub.estimate.estimate import Estimate
from pscrub.estimate.recovered import Scale
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.on_data import OnData
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.tree import unroll
from pscrub.law.drawing import draw
from pscrub.outcomes import Outcome, Said
from pscrub.records import Equal

BLURRED = 0.25
"""Share of the data's variance that the draws' noise in it may reach before it is warned of and added."""
_U, _V = torch.tensor([[1.0, 0.0, -1.0], [0.0, -1.0, 1.0]], dtype=torch.float64)


class Jackknife(Outcome):
    """How the uncertainty of the data was found."""

    ROWS = "jackknife", "infinitesimal jackknife over {rows:,} rows"
    AND_DRAWS = "jackknife and draws", "{rows}; draws: {method}"


class Blur(Outcome):
    """What the draws' noise does to the uncertainty of the data."""

    NOT_RESOLVED = (
        "data uncertainty not resolved",
        "data uncertainty not resolved: it drowns in the draws' noise, and a bound is given in place; draw more",
    )
    BLURRED = (
        "data uncertainty blurred",
        "data uncertainty blurred: the draws' noise in its variance is {share:.0f} % of it, and twice that was added; "
        "draw more",
    )


@dataclass(frozen=True)
class Figures:
    """E_scrubbed, E_model, E_randomised and loss recovered (None where it has no meaning), each with an interval."""

    scrubbed: Estimate
    model: Estimate
    randomised: Estimate
    recovered: Estimate | None


@dataclass(frozen=True, eq=False)
class DataUncertainty(Equal):
    """The uncertainty of the data, apart and together with that of the draws.

    Args:
        data: intervals for D as a sample, the draws' errors left out.
        both: intervals for both.
        gradients: of E_scrubbed, E_model and E_randomised, two float64 [N] each, from which all else was made.
        covariances: of the three over samples D, in f's units squared, row by row.
        warnings: what to know before believing them.
    """

    data: Figures
    both: Figures
    gradients: tuple[tuple[Tensor, Tensor], ...]
    covariances: tuple[float, ...]
    warnings: tuple[str, ...]

    @property
    def covariance(self) -> Tensor:
        """float64 [3, 3]: of E_scrubbed, E_model and E_randomised over samples D."""
        return torch.tensor(self.covariances, dtype=torch.float64).reshape(3, 3)


def data_uncertainty(
    scrubbed: Estimate,
    model: Baseline,
    randomised: Baseline,
    gradients: Sequence[Tensor | Sequence[Tensor]],
    weights: Tensor,
) -> DataUncertainty:
    """The uncertainty of the data for all four figures jointly, apart and together with the draws'.

    E_scrubbed, E_model and E_randomised move together from one sample D to another; what they share cancels in loss
    recovered, whose interval is Fieller's for their joint covariance. t quantiles, with the degrees of freedom that
    match the two moments of the sum of squares (and Welch's for the sum of both variances). Where the draws' noise in
    the variance is not small against it, which a warning says, twice its standard error is added: too wide, not narrow.

    Args:
        scrubbed: E_scrubbed with the draws' uncertainty.
        model: E_model.
        randomised: E_randomised; a given one is held fixed (a gradient of zeros).
        gradients: of the three, float64 [2, N] each: `Scores.gradient`, `exact_gradient`, `randomised_gradient`.
        weights: float64 [N], D's. Rows, with their weights, are taken to be independent of one another.
    """
    halves = torch.stack([torch.stack([half.double() for half in g]) for g in gradients])  # [3, 2, N]
    rows = 1 / float(weights.square().sum())
    small = rows / (rows - 1) if rows > 1 else math.inf
    covariance = torch.einsum("in,jn->ij", halves[:, 0], halves[:, 1])
    covariance = small * (covariance + covariance.T) / 2
    noise = small * float((halves[0, 0] - halves[0, 1]).square().sum()) / 2 / math.sqrt(rows)
    warnings = tuple(_warn(float(covariance[0, 0]), noise))
    if warnings:
        covariance[0, 0] = covariance[0, 0].clamp(min=0) + 2 * noise
    # What noise is left must not make a variance negative, nor eat up that of the draws.
    spread, axes = torch.linalg.eigh(covariance)
    covariance = axes @ torch.diag(spread.clamp(min=0)) @ axes.T
    drawn = torch.tensor([scrubbed.se**2, model.se**2, randomised.se**2], dtype=torch.float64)
    values = torch.tensor([scrubbed.value, model.value, randomised.value], dtype=torch.float64)
    middle = halves.mean(1)
    found = {}
    for kind, own in (("data", torch.zeros(3, dtype=torch.float64)), ("draws and data", drawn)):
        figures = []
        sources: tuple[Estimate | Baseline, ...] = (scrubbed, model, randomised)
        for i, each in enumerate(sources):
            df = each.df if isinstance(each, Estimate) else math.inf
            variance = float(covariance[i, i].clamp(min=0)), float(own[i])
            freedom = _welch(variance, (_freedom(middle[i], rows), df))
            se = math.sqrt(sum(variance))
            half = float(stats.t.ppf((1 + scrubbed.level) / 2, freedom)) * se
            over = Jackknife.ROWS.say(rows=int(weights.count_nonzero()))
            method = Jackknife.AND_DRAWS.say(rows=over, method=each.method) if own[i] else over
            figures.append(
                Estimate(
                    each.value,
                    each.value - half,
                    each.value + half,
                    scrubbed.level,
                    se,
                    freedom,
                    each.draws,
                    method,
                    kind,
                )
            )
        score = _score(values, covariance, own, middle, rows, figures[0])
        found[kind] = Figures(figures[0], figures[1], figures[2], score)
    kept = tuple((first.clone(), second.clone()) for first, second in halves)
    return DataUncertainty(found["data"], found["draws and data"], kept, tuple(covariance.flatten().tolist()), warnings)


def bootstrap(
    hypothesis: Hypothesis,
    times: int,
    draws: int,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    memory: int = MEMORY,
) -> Tensor:
    """float64 [times, 3]: E_scrubbed, E_model and E_randomised on resamples of D's rows: the slow reference.

    Each resample weighs the rows by how often they were drawn, and is scrubbed anew; features are read again. Its
    E_scrubbed has the error of its draws on top. A resample repeats rows, so that a datum more often meets its own
    copy than on a sample of the population: where blocks are small the bootstrap is biased, and the jackknife is not.

    Args:
        hypothesis: a well-formed one.
        times: resamples.
        draws: of each.
        seed: of the resamples and the draws.
        labels: as in `randomised_loss`.
        memory: bytes for activations on D.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 2)))
    data, found = hypothesis.data, []
    for time in range(times):
        counts = rng.multinomial(data.n, np.full(data.n, 1 / data.n))
        again = Dataset(data.columns, data.weights * torch.from_numpy(counts))
        tree = unroll(replace(hypothesis, data=again))
        on_data = OnData(hypothesis.graph, again, memory=memory)
        f = run_scrubbed(tree, Activations(hypothesis.graph, again, memory=memory), draw(tree, draws, (seed, 3, time)))
        baselines = (model_loss(on_data).value, randomised_loss(on_data, labels, seed=seed).value)
        found.append([float(f.mean()), *baselines])
    return torch.tensor(found, dtype=torch.float64)


def _freedom(gradient: Tensor, rows: float) -> float:
    """The degrees of freedom of a sum of squares, from its first two moments: N for normal terms, fewer for others."""
    v = gradient.square()
    total, spread = float(v.sum()), float(v.square().sum() - v.sum() ** 2 / rows)
    return min(max(2 * total**2 / spread, 1.0), max(rows - 1, 1.0)) if spread > 0 else max(rows - 1, 1.0)


def _welch(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    below = sum(v**2 / df for v, df in zip(variances, freedoms, strict=True))
    return float(sum(variances) ** 2 / below) if below > 0 else math.inf


def _score(
    values: Tensor, covariance: Tensor, own: Tensor, middle: Tensor, rows: float, scrubbed: Estimate
) -> Estimate | None:
    """Fieller's interval of the loss recovered: all r with |top - r bottom| within q standard errors of 0."""
    top, bottom = float(_U @ values), -float(_V @ values)
    if not math.isfinite(top / bottom if bottom else math.nan) or abs(bottom) <= 1e-9 * float(values.abs().max()):
        return None
    ratio = top / bottom
    tilt = _U + ratio * _V
    parts = float((tilt @ covariance @ tilt).clamp(min=0)), float(tilt.square() @ own)
    freedom = _welch(parts, (_freedom(tilt @ middle, rows), scrubbed.df))
    q = float(stats.t.ppf((1 + scrubbed.level) / 2, freedom))
    whole = covariance + torch.diag(own)
    a = bottom**2 - q**2 * float(_V @ whole @ _V)
    b = top * bottom + q**2 * float(_U @ whole @ _V)
    c = top**2 - q**2 * float(_U @ whole @ _U)
    if a <= 0:
        return None
    root = math.sqrt(max(b * b - a * c, 0.0))
    se = 100 * math.sqrt(sum(parts)) / abs(bottom)
    method = Scale.FIELLER.wrap(scrubbed.method)
    ends = 100 * (b - root) / a, 100 * (b + root) / a
    return Estimate(100 * ratio, *ends, scrubbed.level, se, freedom, scrubbed.draws, method, scrubbed.kind)


def _warn(variance: float, noise: float) -> Iterator[Said]:
    if variance <= noise and noise > 0:
        yield Blur.NOT_RESOLVED.say()
    elif noise > BLURRED * variance:
        yield Blur.BLURRED.say(share=100 * noise / variance)
