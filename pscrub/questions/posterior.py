"""A Bayesian reading in Pyro: posteriors of E_scrubbed, E_model, E_randomised and loss recovered, as plain arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from pyro import distributions as dist
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import split_gelman_rubin
from torch import Tensor

from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.bootstrapped import (
    GROUPS,
    Samples,
    atoms_of,
    bootstrap_posterior,
    require_finite,
    sample_baseline,
    seed_apart,
    with_score,
)
from pscrub.estimate.estimate import Estimate
from pscrub.estimate.known import Known
from pscrub.result import arviz as to_arviz


@dataclass(frozen=True, eq=False)
class Posterior:
    """Samples of the posterior, with what they were made from.

    Args:
        samples: name -> float64 [chains, draws]: the four figures (loss recovered in per cent, never clipped, NaN where
            the baselines coincide) and, of the Student-t model, its `df` and `scale`.
        losses: float64 [draws of the program], what was observed.
        model: "Bayesian bootstrap" or "Student-t".
        uncertainty: "draws" (D held fixed) or "draws and data".
        diagnostics: name -> number: `r_hat` of E_scrubbed and `divergences`, where there was a Markov chain.
        notes: what to know before believing them.
    """

    samples: Mapping[str, Samples]
    losses: Samples
    model: str
    uncertainty: str
    diagnostics: Mapping[str, float]
    notes: tuple[str, ...]

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """The equal-tailed credible interval of a figure."""
        tail = (1 - level) / 2
        low, high = np.quantile(self.samples[name], [tail, 1 - tail])
        return float(low), float(high)

    def to_arviz(self) -> Any:
        """ArviZ data: group `posterior` with dimensions chain and draw, and `observed_data` with the losses.

        A baseline that is exact is no part of the posterior but in `constant_data`.
        """
        fixed = [name for name in ("E_model", "E_randomised") if np.ptp(self.samples[name]) == 0]
        groups: dict[str, to_arviz.Variables] = {
            "posterior": {n: (("chain", "draw"), values) for n, values in self.samples.items() if n not in fixed},
            "constant_data": {name: ((), self.samples[name].flat[0]) for name in fixed},
            "observed_data": {"losses": (("loss",), self.losses)},
        }
        about = {
            "model": self.model,
            "uncertainty": self.uncertainty,
            **self.diagnostics,
            "notes": "; ".join(self.notes),
        }
        return to_arviz.inference_data(groups, attrs=about)

    def probability(self, at_least: float, name: str = "loss_recovered") -> float:
        """The posterior probability that a figure is at least so much."""
        return float((self.samples[name] >= at_least).mean())


def bayesian_bootstrap(
    f: Tensor,
    model: Baseline,
    randomised: Baseline,
    *,
    samples: int = 4000,
    chains: int = 4,
    seed: int = 0,
    gradients: Sequence[Tensor] | None = None,
    known: Known | None = None,
) -> Posterior:
    """The posterior by the Bayesian bootstrap: the default, with no law assumed of the losses.

    What is resampled are the half differences within pairs, in which the strata cancel: with Dirichlet(1, ..., 1)
    weights W over P pairs, E_scrubbed is the mean plus sum (W_i - 1 / P) (a_i - b_i) / 2. Its posterior variance is
    that of `mean_of_pairs` times P / (P + 1), less the square of the mean difference. A sampled baseline has a normal
    posterior; an exact one is a constant, for D is held fixed.

    Where an interval with bounds would be taken (`choose`), weights over the draws alone would know nothing of what was
    not drawn. There the law is a Dirichlet process: one draw more at each end of f's range is what is known before any
    is made, E_scrubbed is the sum of W_j v_j over the values v_j with weights Dirichlet(how often each was drawn, and
    once each end), and strata are left out of account, which makes it wider. For 0/1 losses this is the uniform prior.
    So it is for a sampled baseline of rare events.

    With gradients, D has a Bayesian bootstrap too: rows are weighed by N W_k, and each figure moves along its gradient
    d E / d log w (linearised; the noise of the gradient from draws makes it a little wider).

    Source: Rubin, The Bayesian bootstrap (1981).

    Args:
        f: float64 [2 P], pair by pair.
        model: E_model.
        randomised: E_randomised.
        samples: how many, all of them independent.
        chains: that they are handed out as, for diagnostics that compare some; one if they do not go into so many.
        seed: names them.
        gradients: float64 [2, N] each, as in `data_uncertainty`, to include the data's uncertainty.
        known: what f is known to be: `result.reference.known`, `Losses.known`.

    Raises:
        StudyError: losses that are not finite, or that did not vary and of which nothing else is known; no samples.

    >>> f = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> found = bayesian_bootstrap(f, Baseline(0.0, 0.0, 0, "exact"), Baseline(4.0, 0.0, 0, "exact"), samples=1000)
    >>> {name: values.shape for name, values in found.samples.items()}["loss_recovered"]
    (4, 250)
    >>> 95 < found.interval("loss_recovered")[0] < found.interval("loss_recovered")[1] < 105
    True
    """
    f = require_finite(f)
    if samples < 1:
        raise StudyError(f"samples is {samples}; expected at least 1; try 4000")
    atoms, prior = atoms_of(f, known)
    drawn = bootstrap_posterior(f, model, randomised, samples, (seed,), gradients, atoms)
    pairs = min(len(f) // 2, GROUPS)
    notes = [] if pairs >= 30 else [f"too few draws: {pairs} pairs are all that weights are spread over"]
    notes += prior
    figures = {name: values.reshape(1 if samples % chains else chains, -1) for name, values in drawn.items()}
    uncertainty = "draws" if gradients is None else "draws and data"
    return Posterior(figures, f.numpy(), "Bayesian bootstrap", uncertainty, {}, tuple(notes))


def student_t(
    f: Tensor,
    model: Baseline,
    randomised: Baseline,
    *,
    samples: int = 500,
    warmup: int = 300,
    chains: int = 2,
    seed: int = 0,
) -> Posterior:
    """The posterior under a Student-t model of the losses by NUTS, for heavy tails.

    f ~ StudentT(df, E_scrubbed, scale), with df - 1 ~ Gamma(2, 1/10), E_scrubbed ~ Normal(median, 10 spreads) and
    scale ~ HalfNormal(5 spreads), the spread being the middle half's width. A few huge losses widen the tails rather
    than moving the mean. That is an assumption: where losses are skewed, the model's centre is not their mean, and a
    note says so. Strata are left out of account, which makes it wider.

    Args:
        f: float64 [draws].
        model: E_model.
        randomised: E_randomised.
        samples: of each chain.
        warmup: of each chain.
        chains: run one after another.
        seed: names them.

    Raises:
        StudyError: losses that are not finite or do not vary.
    """
    f = require_finite(f)
    middle, quartiles = (
        f.median(),
        torch.quantile(f[:: max(len(f) // 1_000_000, 1)], torch.tensor([0.25, 0.75]).double()),
    )
    spread = float(quartiles[1] - quartiles[0]) or float(f.std())
    if not spread > 0:
        raise StudyError("every draw's loss is the same; a Student-t model needs losses that vary")
    z = (f - middle) / spread

    def heavy_tailed() -> None:
        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        df = 1 + pyro.sample("df - 1", dist.Gamma(2 * one, 0.1 * one))
        centre = pyro.sample("centre", dist.Normal(zero, 10 * one))
        scale = pyro.sample("scale", dist.HalfNormal(5 * one))
        with pyro.plate("draws", len(z)):
            pyro.sample("loss", dist.StudentT(df, centre, scale), obs=z)

    runs: list[dict[str, Tensor]] = []
    divergences = 0
    for chain in range(chains):
        with seed_apart(seed, chain):
            start = {"df - 1": 4.0, "centre": 0.0, "scale": 0.7}
            begin = {name: torch.tensor(value, dtype=torch.float64) for name, value in start.items()}
            kernel = NUTS(heavy_tailed, init_strategy=pyro.infer.autoguide.init_to_value(values=begin))
            run = MCMC(kernel, num_samples=samples, warmup_steps=warmup, disable_progbar=True)
            run.run()
        runs.append(run.get_samples())
        divergences += len(run.diagnostics()["divergences"]["chain 0"])
    drawn = {name: torch.stack([run[name] for run in runs]).double() for name in runs[0]}
    centre = drawn["centre"] * spread + middle
    with seed_apart(seed, chains):
        figures = {"E_scrubbed": centre.numpy()}
        for name, baseline in (("E_model", model), ("E_randomised", randomised)):
            with pyro.plate("posterior", centre.numel()):
                figures[name] = sample_baseline(name, baseline, centre.numel()).reshape(centre.shape).numpy()
    r_hat = float(split_gelman_rubin(centre)) if samples >= 4 else math.nan
    notes = []
    if not r_hat < 1.05:
        notes.append(f"chains disagree: split R-hat of E_scrubbed is {r_hat:.2f}; take more samples")
    if divergences:
        notes.append(f"divergences: {divergences} of {chains * samples} transitions")
    apart = abs(float(f.mean()) - float(centre.mean())) / (float(centre.std()) + float(f.std()) / math.sqrt(len(f)))
    if apart > 3:
        notes.append(
            f"skewed losses: the model's centre {float(centre.mean()):.4g} is not their mean {float(f.mean()):.4g}; "
            "read the Bayesian bootstrap instead"
        )
    found = with_score(figures) | {"df": 1 + drawn["df - 1"].numpy(), "scale": drawn["scale"].numpy() * spread}
    diagnostics = {"r_hat": r_hat, "divergences": float(divergences)}
    return Posterior(found, f.numpy(), "Student-t", "draws", diagnostics, tuple(notes))


def agrees(posterior: Posterior, estimate: Estimate) -> float:
    """The width of E_scrubbed's credible interval over that of an estimate's interval at the same level."""
    low, high = posterior.interval("E_scrubbed", estimate.level)
    return (high - low) / estimate.width if estimate.width else math.nan
