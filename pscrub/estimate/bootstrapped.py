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

Samples = np.ndarray[Any, np.dtype[np.float64]]
GROUPS = 4096
"""Most terms that a Bayesian bootstrap weighs; more are first averaged in groups of neighbours."""
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
) -> dict[str, Samples]:
    """Name of each of FIGURES -> float64 [samples], independent ones; `questions.bayesian_bootstrap` says of what.

    Args:
        f: float64 [2 P], finite, pair by pair.
        model: E_model.
        randomised: E_randomised.
        samples: how many.
        seed: names them.
        gradients: float64 [2, N] each, of the three, to include the data's uncertainty.
    """
    halves = _group(f.reshape(-1, 2) @ torch.tensor([0.5, -0.5], dtype=torch.float64))

    def weigh(count: int) -> Tensor:
        with pyro.plate("posterior", count):
            scrubbed = f.mean() + _weigh("pairs", halves[:, None])[:, 0]
            base = [scrubbed]
            for name, baseline in (("E_model", model), ("E_randomised", randomised)):
                value = torch.full((count,), baseline.value, dtype=torch.float64)
                if not baseline.exact and math.isfinite(baseline.value) and 0 < baseline.se < math.inf:
                    value = pyro.sample(name, dist.Normal(value, baseline.se))
                base.append(value)
            found = torch.stack(base, 1)
            if gradients is not None:
                rows = torch.stack([g.double().mean(0) for g in gradients], 1)
                found = found + _weigh("rows", rows * len(rows))
        return found

    with seed_apart(*seed):
        drawn = torch.cat([weigh(min(CHUNK, samples - start)) for start in range(0, samples, CHUNK)])
    return with_score({name: drawn[:, i].numpy() for i, name in enumerate(FIGURES[:3])})


def check_finite(f: Tensor) -> Tensor:
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


def _group(values: Tensor) -> Tensor:
    """Means of neighbours, at most GROUPS of them, scaled so that the variance of the mean stays."""
    if len(values) <= GROUPS:
        return values
    size = -(-len(values) // GROUPS)
    whole = values[: len(values) // size * size].reshape(-1, size).mean(1)
    rest = values[len(values) // size * size :]
    return whole if not len(rest) else torch.cat([whole, rest.mean()[None]])
