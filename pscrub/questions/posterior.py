"""A Bayesian reading in Pyro: posteriors of E_scrubbed, E_model, E_randomised and loss recovered, as plain arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from pscrub.estimate.estimate import Estimate
from pscrub.estimate.intervals import t_ends, tally
from pscrub.estimate.known import Known
from pscrub.estimate.picking import pick_interval
from pscrub.result import arviz as to_arviz

Samples = np.ndarray[Any, np.dtype[np.float64]]
GROUPS = 4096
"""Most terms that a Bayesian bootstrap weighs; more are first averaged in groups of neighbours."""
NORMAL = 1.959964
"""Standard errors to either side that hold 95 % of a normal law."""
CHUNK = 500
"""Samples whose weights are held at once."""
FIGURES = ("E_scrubbed", "E_model", "E_randomised", "loss_recovered")


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
        """ArviZ data: group `posterior` with dimensions chain and draw, and `observed_data` with the losses."""
        groups: dict[str, to_arviz.Variables] = {
            "posterior": {name: (("chain", "draw"), values) for name, values in self.samples.items()},
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
        samples: how many.
        seed: names them.
        gradients: float64 [2, N] each, as in `data_uncertainty`, to include the data's uncertainty.
        known: what f is known to be: `result.reference.known`, `Losses.known`.

    Raises:
        StudyError: losses that are not finite, or that did not vary and of which nothing else is known.

    >>> f = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> found = bayesian_bootstrap(f, Baseline(0.0, 0.0, 0, "exact"), Baseline(4.0, 0.0, 0, "exact"), samples=1000)
    >>> {name: values.shape for name, values in found.samples.items()}["loss_recovered"]
    (1, 1000)
    >>> 95 < found.interval("loss_recovered")[0] < found.interval("loss_recovered")[1] < 105
    True
    """
    f = _finite(f)
    halves = _group(f.reshape(-1, 2) @ torch.tensor([0.5, -0.5], dtype=torch.float64))
    notes = [] if len(halves) >= 30 else [f"too few draws: {len(halves)} pairs are all that weights are spread over"]

    picked = pick_interval(f, t_ends(f.numpy(), 0.95), 0.95, None, Known() if known is None else known)
    if picked.name == "none":
        raise StudyError(f"no posterior: {picked.reason}, as `known`")
    atoms = None
    if picked.bounds is not None and picked.name != "t":
        notes.append(f"prior at {picked.bounds[0]:g} and {picked.bounds[1]:g}, strata left out: {picked.reason}")
        values, counts = tally(f.numpy())
        atoms = values, np.ones(len(values)) if counts is None else counts, picked.bounds

    def weigh(count: int) -> Tensor:
        with pyro.plate("posterior", count):
            if atoms is None:
                scrubbed = f.mean() + _weigh("pairs", halves[:, None])[:, 0]
            else:
                scrubbed = _weigh_values("draws", *atoms)
            base = [scrubbed]
            for name, baseline in (("E_model", model), ("E_randomised", randomised)):
                base.append(_sample_baseline(name, baseline, count))
            found = torch.stack(base, 1)
            if gradients is not None:
                rows = torch.stack([g.double().mean(0) for g in gradients], 1)
                found = found + _weigh("rows", rows * len(rows))
        return found

    with _seed_apart(seed):
        drawn = torch.cat([weigh(min(CHUNK, samples - start)) for start in range(0, samples, CHUNK)])
    figures = {name: drawn[None, :, i].numpy() for i, name in enumerate(FIGURES[:3])}
    uncertainty = "draws" if gradients is None else "draws and data"
    return Posterior(_score(figures), f.numpy(), "Bayesian bootstrap", uncertainty, {}, tuple(notes))


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
    f = _finite(f)
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
        with _seed_apart(seed, chain):
            start = {"df - 1": 4.0, "centre": 0.0, "scale": 0.7}
            begin = {name: torch.tensor(value, dtype=torch.float64) for name, value in start.items()}
            kernel = NUTS(heavy_tailed, init_strategy=pyro.infer.autoguide.init_to_value(values=begin))
            run = MCMC(kernel, num_samples=samples, warmup_steps=warmup, disable_progbar=True)
            run.run()
        runs.append(run.get_samples())
        divergences += len(run.diagnostics()["divergences"]["chain 0"])
    drawn = {name: torch.stack([run[name] for run in runs]).double() for name in runs[0]}
    centre = drawn["centre"] * spread + middle
    with _seed_apart(seed, chains):
        figures = {"E_scrubbed": centre.numpy()}
        for name, baseline in (("E_model", model), ("E_randomised", randomised)):
            with pyro.plate("posterior", centre.numel()):
                figures[name] = _sample_baseline(name, baseline, centre.numel()).reshape(centre.shape).numpy()
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
    found = _score(figures) | {"df": 1 + drawn["df - 1"].numpy(), "scale": drawn["scale"].numpy() * spread}
    diagnostics = {"r_hat": r_hat, "divergences": float(divergences)}
    return Posterior(found, f.numpy(), "Student-t", "draws", diagnostics, tuple(notes))


def agrees(posterior: Posterior, estimate: Estimate) -> float:
    """The width of E_scrubbed's credible interval over that of an estimate's interval at the same level."""
    low, high = posterior.interval("E_scrubbed", estimate.level)
    return (high - low) / estimate.width if estimate.width else math.nan


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


def _sample_baseline(name: str, baseline: Baseline, count: int) -> Tensor:
    """float64 [samples] of an expected loss: a constant, normal, or with the prior at its ends where it is rare events.

    Where its interval has bounds and it has many values, the normal law is as wide as that.
    """
    value = torch.full((count,), baseline.value, dtype=torch.float64)
    if baseline.exact:
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


def _group(values: Tensor) -> Tensor:
    """Means of neighbours, at most GROUPS of them, scaled so that the variance of the mean stays."""
    if len(values) <= GROUPS:
        return values
    size = -(-len(values) // GROUPS)
    whole = values[: len(values) // size * size].reshape(-1, size).mean(1)
    rest = values[len(values) // size * size :]
    return whole if not len(rest) else torch.cat([whole, rest.mean()[None]])


def _finite(f: Tensor) -> Tensor:
    if not bool(f.isfinite().all()):
        raise StudyError(f"non-finite loss: f is infinite or NaN on {int((~f.isfinite()).sum()):,} of {len(f):,} draws")
    return f.double()


def _score(figures: dict[str, Samples]) -> dict[str, Samples]:
    bottom = figures["E_model"] - figures["E_randomised"]
    with np.errstate(divide="ignore", invalid="ignore"):
        score = 100 * (figures["E_scrubbed"] - figures["E_randomised"]) / bottom
    return figures | {"loss_recovered": np.where(bottom == 0, np.nan, score)}


@contextmanager
def _seed_apart(*seed: int) -> Iterator[None]:
    """Torch's global generator, which Pyro's inference draws from, seeded and given back as it was."""
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng(devices=[]), pyro.poutine.block():
        torch.manual_seed(int(state >> 1))  # noqa: TID251 - restored on leaving
        yield
