"""From draws to a result: the estimate with its interval, loss recovered, warnings; and merging of saved results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pscrub.estimate.baselines import Baseline
from pscrub.estimate.estimate import Estimate, choose, concerns, mean_of_pairs, widen
from pscrub.estimate.population import data_uncertainty
from pscrub.estimate.recovered import loss_recovered
from pscrub.result import warnings as fragile
from pscrub.result.draws import Draws, Reference
from pscrub.result.result import ScrubResult

Population = tuple[Sequence[Tensor | Sequence[Tensor]], Tensor]
"""Gradients of E_scrubbed, E_model and E_randomised, and D's weights, as in `data_uncertainty`."""


def estimate_from(
    draws: Draws,
    level: float,
    stopping: str,
    interval: str = "auto",
    bounds: tuple[float, float] | None = None,
    zero_one: bool = False,
) -> Estimate:
    """E_scrubbed from all rounds, with the interval that suits the losses or was asked for (`estimate.choose`).

    Where the first round set how many draws to make, a t interval is no narrower than that round allows. Betting and
    empirical-Bernstein intervals have room to spare, and a confidence sequence allows any stopping.
    """
    estimate = choose(draws.losses, level, interval, bounds, zero_one=zero_one)
    if stopping == "width" and estimate.method.startswith("t,"):
        pilot = mean_of_pairs(draws.by_round[0], level)
        half = pilot.width / 2 * math.sqrt(pilot.draws / estimate.draws)
        estimate = widen(estimate, half, estimate.method + ", two-stage")
    return estimate


def conclude(
    hypothesis: str,
    law: str,
    draws: Draws,
    model: Baseline,
    randomised: Baseline,
    level: float,
    stopping: str = "draws",
    exact: Estimate | None = None,
    seconds: Mapping[str, float] | None = None,
    cut_short: bool = False,
    warnings: tuple[str, ...] = (),
    interval: str = "auto",
    bounds: tuple[float, float] | None = None,
    zero_one: bool = False,
    population: Population | None = None,
) -> ScrubResult:
    """The result of one hypothesis.

    Args:
        hypothesis: its name.
        law: its hash.
        draws: all of its draws.
        model: E_model.
        randomised: E_randomised.
        level: nominal coverage of the intervals.
        stopping: "draws" or "width".
        exact: E_scrubbed where it needs no draws.
        seconds: by phase.
        cut_short: drawing was interrupted.
        warnings: those that the numbers do not show.
        interval: its name, as in `estimate.choose`.
        bounds: the least and greatest loss there can be, if known.
        zero_one: f is 0/1 on D and under the baseline.
        population: what the data's uncertainty is made from, if it was asked for.
    """
    estimate = estimate_from(draws, level, stopping, interval, bounds, zero_one) if exact is None else exact
    score = loss_recovered(estimate, model, randomised)
    data = None if population is None else data_uncertainty(estimate, model, randomised, *population)
    found = (*_warnings(draws, estimate, score, model, randomised), *(data.warnings if data else ()), *warnings)
    about = (
        hypothesis,
        estimate,
        model,
        randomised,
        score,
        dict(seconds or {}),
        cut_short,
        found,
        draws,
        law,
        stopping,
    )
    return ScrubResult(*about, interval=interval, bounds=bounds, data=data)


def is_zero_one(reference: Reference) -> bool:
    """Whether f takes the values 0 and 1 on D and under the baseline, both of them, and no other."""
    f = torch.cat([reference.losses, reference.randomised])
    return bool(f.unique().tolist() == [0.0, 1.0])


def _warnings(
    draws: Draws, estimate: Estimate, score: Estimate | None, model: Baseline, randomised: Baseline
) -> Iterator[str]:
    if estimate.exact and not math.isfinite(estimate.value):
        yield f"non-finite loss: the scrubbed expected loss is {estimate.value}; f is infinite or NaN on some rows"
    elif not estimate.exact:
        yield from concerns(draws.losses, estimate)
    if not math.isfinite(model.value):
        yield f"non-finite loss: E_model is {model.value}"
    if score is None and math.isfinite(estimate.value):
        yield (
            f"baselines coincide: E_model {model.value:.6g} and E_randomised {randomised.value:.6g} cannot be told "
            "apart, so loss recovered is undefined"
        )
    yield from fragile.warn_of_sites(draws.sites)
