"""From draws to a result: the estimate with its interval, loss recovered, warnings; and merging of saved results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pscrub import fragile
from pscrub.collect import joined
from pscrub.data_uncertainty import data_uncertainty, pooled_gradient
from pscrub.draws import Draws, Reference
from pscrub.errors import StudyError
from pscrub.estimate import Estimate, choose, concerns, mean_of_pairs, recovered, widened
from pscrub.measures import Baseline
from pscrub.result import ScrubResult, StudyResult

Population = tuple[Sequence[Tensor | Sequence[Tensor]], Tensor]
"""Gradients of E_scrubbed, E_model and E_randomised, and D's weights, as in `data_uncertainty`."""


def estimated(
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
        estimate = widened(estimate, half, estimate.method + ", two-stage")
    return estimate


def concluded(
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
    estimate = estimated(draws, level, stopping, interval, bounds, zero_one) if exact is None else exact
    score = recovered(estimate, model, randomised)
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


def merge(a: StudyResult, b: StudyResult) -> StudyResult:
    """One result out of two of the same study from different rounds of draws: tighter intervals for the same numbers.

    Rounds are named by seed and index. Use another seed for the second run, or `scrub(..., after=a)`, which goes on
    where `a` ended. The first's level, notes and baselines are kept; sampled baselines are averaged.

    Args:
        a: one result.
        b: another, on equal data, with equal laws for hypotheses of equal names. Those of only one are kept.

    Raises:
        StudyError: with everything that shows that the two are not of one study, or share draws.
    """
    others = {each.hypothesis: each for each in b.results}
    shared = [(each, others[each.hypothesis]) for each in a.results if each.hypothesis in others]
    faults = []
    if a.reference.data_hash != b.reference.data_hash:
        faults.append(f"the results are on different data: {a.reference.data_hash} and {b.reference.data_hash}")
    if not shared:
        faults.append("the results have no hypothesis in common")
    for one, other in shared:
        faults += unlike(one, other)
    if faults:
        raise StudyError(faults)
    pairs = {one.hypothesis: _merged(one, other, a) for one, other in shared}
    kept = [pairs.get(each.hypothesis, each) for each in a.results]
    kept += [each for each in b.results if each.hypothesis not in pairs]
    seconds = _added(a.seconds, b.seconds)
    notes = tuple(dict.fromkeys((*a.notes, *b.notes)))
    if a.versions != b.versions:
        notes += (f"Merged from runs of different versions: {_listed(a.versions)}; {_listed(b.versions)}.",)
    cut_short = any(each.cut_short for each in kept)
    return replace(a, results=tuple(kept), seconds=seconds, notes=notes, cut_short=cut_short)


def unlike(one: ScrubResult, other: ScrubResult) -> list[str]:
    """What shows that two results are not of one scrubbing law, model and baseline."""
    name, faults = one.hypothesis, []
    if one.law_hash != other.law_hash:
        faults.append(f"'{name}' is another hypothesis in each: {one.law_hash} and {other.law_hash}")
    for what, first, second in (
        ("E_model", one.model, other.model),
        ("E_randomised", one.randomised, other.randomised),
    ):
        near = math.isclose(first.value, second.value, rel_tol=1e-5, abs_tol=1e-12)
        if not near and first.exact and second.exact and first.value == first.value:
            faults.append(f"'{name}': {what} is {first.value:.9g} in one and {second.value:.9g} in the other")
    return faults


def is_zero_one(reference: Reference) -> bool:
    """Whether f takes the values 0 and 1 on D and under the baseline, both of them, and no other."""
    f = torch.cat([reference.losses, reference.randomised])
    return bool(f.unique().tolist() == [0.0, 1.0])


def _merged(one: ScrubResult, other: ScrubResult, study: StudyResult) -> ScrubResult:
    if one.scrubbed.exact or other.scrubbed.exact:
        return one
    population: Population | None = None
    if one.data is not None and other.data is not None:
        halves = [each.data.gradients[0] for each in (one, other) if each.data is not None]
        gradient = pooled_gradient(halves, (one.scrubbed.draws, other.scrubbed.draws))
        population = ((gradient, *one.data.gradients[1:]), study.reference.weights)
    return concluded(
        one.hypothesis,
        one.law_hash,
        joined((one.draws, other.draws)),
        one.model,
        _pooled(one.randomised, other.randomised),
        study.level,
        "width" if "width" in (one.stopping, other.stopping) else "draws",
        seconds=_added(one.seconds, other.seconds),
        cut_short=one.cut_short or other.cut_short,
        interval=one.interval,
        bounds=one.bounds,
        zero_one=is_zero_one(study.reference),
        population=population,
        warnings=tuple(warning for warning in one.warnings if warning.startswith(fragile.OF_TREE)),
    )


def _pooled(a: Baseline, b: Baseline) -> Baseline:
    """The mean of two sampled baselines, if they are not the same one."""
    if a.exact or b.exact or a == b:
        return a if a.exact or not b.exact else b
    n = a.draws + b.draws
    value = (a.draws * a.value + b.draws * b.value) / n
    return Baseline(value, math.hypot(a.draws * a.se, b.draws * b.se) / n, n, f"{n:,} sampled pairs")


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
    yield from fragile.of_sites(draws.sites)


def _added(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {phase: a.get(phase, 0.0) + b.get(phase, 0.0) for phase in (*a, *(p for p in b if p not in a))}


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
