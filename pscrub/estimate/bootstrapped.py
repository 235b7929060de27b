"""Samples of the posterior of an expected loss by the Bayesian bootstrap, drawn in Pyro."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.intervals import t_ends, tally
from pscrub.estimate.known import Known
from pscrub.estimate.picking import pick_interval
from pscrub.estimate.sample import Sample

Samples = np.ndarray[Any, np.dtype[np.float64]]
Atoms = tuple[Samples, Samples, tuple[float, float]]
GROUPS = 4096
"""Most terms that a Bayesian bootstrap weighs; more are first averaged in groups of neighbours."""
NORMAL = 1.959964
"""Standard errors to either side that hold 95 % of a normal law."""
CHUNK = 500
"""Samples whose weights are held at once."""
FIGURES = ("E_scrubbed", "E_model", "E_randomised", "loss_recovered")


def bootstrap_posterior(
    f: Tensor,
    model: Baseline,
    randomised: Baseline,
    samples: int,
    seed: tuple[int, ...],
    gradients: Sequence[Tensor] | None = None,
    atoms: Atoms | None = None,
) -> dict[str, Samples]:
    """Name of each of FIGURES -> float64 [samples], independent ones; `questions.bayesian_bootstrap` says of what.

    Args:
        f: float64 [2 P], finite, pair by pair.
        model: E_model.
        randomised: E_randomised.
        samples: how many.
        seed: names them.
        gradients: float64 [2, N] each, of the three, to include the data's uncertainty.
        atoms: `atoms_of` f, where t would mislead.

    Raises:
        StudyError: a sampled baseline of which nothing says what it has missed.
    """
    halves = _group(f.reshape(-1, 2) @ torch.tensor([0.5, -0.5], dtype=torch.float64))

    def weigh(count: int) -> Tensor:
        with pyro.plate("posterior", count):
            if atoms is None:
                scrubbed = f.mean() + _weigh("pairs", halves[:, None])[:, 0]
            else:
                scrubbed = _weigh_values("draws", *atoms)
            base = [scrubbed]
            for name, baseline in (("E_model", model), ("E_randomised", randomised)):
                base.append(sample_baseline(name, baseline, count))
            found = torch.stack(base, 1)
            if gradients is not None:
                rows = torch.stack([g.double().mean(0) for g in gradients], 1)
                found = found + _weigh("rows", rows * len(rows))
        return found

    with seed_apart(*seed):
        drawn = torch.cat([weigh(min(CHUNK, samples - start)) for start in range(0, samples, CHUNK)])
    return with_score({name: drawn[:, i].numpy() for i, name in enumerate(FIGURES[:3])})


def posterior_if_any(
    f: Tensor,
    fixed: Tensor | None,
    model: Baseline,
    randomised: Baseline,
    samples: int,
    seed: tuple[int, ...],
    known: Known | None,
) -> dict[str, Samples]:
    """Name of each of FIGURES -> float64 [samples]; NaN where f is not finite or nothing says what draws have missed.

    Args:
        f: float64 [2 P], pair by pair.
        fixed: float64 [2], E_scrubbed twice, where it is exact.
        model: E_model.
        randomised: E_randomised.
        samples: how many.
        seed: names them.
        known: what f is known to be.
    """
    try:
        atoms = atoms_of(require_finite(f), known)[0] if fixed is None else None
        return bootstrap_posterior(f if fixed is None else fixed, model, randomised, samples, seed, None, atoms)
    except StudyError:
        return {name: np.full(samples, np.nan) for name in FIGURES}


def atoms_of(f: Tensor, known: Known | None) -> tuple[Atoms | None, list[str]]:
    """Values, how often each was drawn, and the ends between which f is known to lie, where t would mislead; and why.

    Args:
        f: float64 [2 P], finite, pair by pair.
        known: what f is known to be.

    Raises:
        StudyError: f did not vary, and nothing says what was missed.
    """
    picked = pick_interval(Sample(f), t_ends(f.numpy(), 0.95), 0.95, None, Known() if known is None else known)
    if picked.name == "none":
        raise StudyError(f"no posterior: {picked.reason}, as `known`")
    if picked.bounds is None or picked.name == "t":
        return None, []
    values, counts = tally(f.numpy())
    note = f"prior at {picked.bounds[0]:g} and {picked.bounds[1]:g}, strata left out: {picked.reason}"
    return (values, np.ones(len(values)) if counts is None else counts, picked.bounds), [note]


def sample_baseline(name: str, baseline: Baseline, count: int) -> Tensor:
    """float64 [samples] of an expected loss: a constant, normal, or with the prior at its ends where it is rare events.

    Where its interval has bounds and it has many values, the normal law is as wide as that.

    Args:
        name: of the site.
        baseline: the expected loss.
        count: how many samples.

    Raises:
        StudyError: its sample has one value, and nothing says what it has missed.
    """
    value = torch.full((count,), baseline.value, dtype=torch.float64)
    if baseline.exact or not math.isfinite(baseline.value):
        return value
    sampled, limits = baseline.sampled, baseline.limits(0.95)
    if not limits.finite:
        raise StudyError(f"no posterior: the sample of {name} has one value, and nothing says what it has missed")
    if sampled is not None and sampled.is_rare(baseline.draws):
        ends = sampled.seen.least, sampled.seen.greatest
        return _weigh_values(name, np.array(sampled.values), np.array(sampled.counts, dtype=np.float64), ends)
    half = max(limits.high - limits.value, limits.value - limits.low)
    drawn: Tensor = pyro.sample(name, dist.Normal(value, max(baseline.se, half / NORMAL)))
    return drawn


def require_finite(f: Tensor) -> Tensor:
    """f as float64.

    Raises:
        StudyError: it is infinite or NaN on some draw.
    """
    if not bool(f.isfinite().all()):
        raise StudyError(f"non-finite loss: f is infinite or NaN on {int((~f.isfinite()).sum()):,} of {len(f):,} draws")
    return f.double()


def with_score(figures: dict[str, Samples]) -> dict[str, Samples]:
    """The figures with loss recovered, in per cent; NaN where the baselines coincide."""
    bottom = figures["E_model"] - figures["E_randomised"]
    with np.errstate(divide="ignore", invalid="ignore"):
        score = 100 * (figures["E_scrubbed"] - figures["E_randomised"]) / bottom
    return figures | {"loss_recovered": np.where(bottom == 0, np.nan, score)}


@contextmanager
def seed_apart(*seed: int) -> Iterator[None]:
    """Torch's global generator, which Pyro's inference draws from, seeded and given back as it was."""
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng(devices=[]), pyro.poutine.block():
        torch.manual_seed(int(state >> 1))  # noqa: TID251 - restored on leaving
        yield


def _weigh(name: str, terms: Tensor) -> Tensor:
    """float64 [samples, k]: sums of the terms [n, k] under Dirichlet(1, ..., 1) weights, less their means."""
    weights = pyro.sample(name, dist.Dirichlet(torch.ones(len(terms), dtype=torch.float64)))
    moved: Tensor = weights @ (terms - terms.mean(0))
    return moved


def _weigh_values(name: str, values: Samples, counts: Samples, bounds: tuple[float, float]) -> Tensor:
    """float64 [samples]: means of values [k] under Dirichlet weights: how often each was drawn, and each end once."""
    every = torch.from_numpy(np.append(values, bounds))
    weights = pyro.sample(name, dist.Dirichlet(torch.from_numpy(np.append(counts, [1.0, 1.0]))))
    mean: Tensor = weights @ every
    return mean


def _group(values: Tensor) -> Tensor:
    """Means of neighbours, at most GROUPS of them, scaled so that the variance of the mean stays."""
    if len(values) <= GROUPS:
        return values
    size = -(-len(values) // GROUPS)
    whole = values[: len(values) // size * size].reshape(-1, size).mean(1)
    rest = values[len(values) // size * size :]
    return whole if not len(rest) else torch.cat([whole, rest.mean()[None]])
