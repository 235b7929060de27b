"""Two results of one study, from different rounds of draws, as one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.population import pool_gradients
from pscrub.result import warnings as fragile
from pscrub.result.conclude import Population, conclude, is_zero_one
from pscrub.result.draws import join_draws
from pscrub.result.result import ScrubResult, StudyResult


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
        faults += tell_apart(one, other)
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


def tell_apart(one: ScrubResult, other: ScrubResult) -> list[str]:
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


def _merged(one: ScrubResult, other: ScrubResult, study: StudyResult) -> ScrubResult:
    if one.scrubbed.exact or other.scrubbed.exact:
        return one
    population: Population | None = None
    if one.data is not None and other.data is not None:
        halves = [each.data.gradients[0] for each in (one, other) if each.data is not None]
        gradient = pool_gradients(halves, (one.scrubbed.draws, other.scrubbed.draws))
        population = ((gradient, *one.data.gradients[1:]), study.reference.weights)
    return conclude(
        one.hypothesis,
        one.law_hash,
        join_draws((one.draws, other.draws)),
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


def _added(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {phase: a.get(phase, 0.0) + b.get(phase, 0.0) for phase in (*a, *(p for p in b if p not in a))}


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
