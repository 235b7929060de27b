"""Two results of one study, from different rounds of draws, as one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline, Baselines, Way
from pscrub.estimate.estimate import Interval
from pscrub.estimate.jackknife import Population, pool_populations
from pscrub.outcomes import Said
from pscrub.progress import add_seconds
from pscrub.result.conclude import Found, conclude, is_zero_one
from pscrub.result.draws import join_draws
from pscrub.result.result import ScrubResult, StudyResult
from pscrub.result.warnings import OfTree

KEPT = {each.value for each in OfTree}
"""Kinds of the warnings that a merge cannot find anew."""


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
        faults += tell_apart(one, other.law_hash, Baselines(other.model, other.randomised))
    if faults:
        raise StudyError(faults)
    pairs = {one.hypothesis: _merge(one, other, a) for one, other in shared}
    kept = [pairs.get(each.hypothesis, each) for each in a.results]
    kept += [each for each in b.results if each.hypothesis not in pairs]
    seconds = add_seconds(a.seconds, b.seconds)
    notes = tuple(dict.fromkeys((*a.notes, *b.notes)))
    if a.versions != b.versions:
        notes += (
            f"Merged from runs of different versions: {_list_versions(a.versions)}; {_list_versions(b.versions)}.",
        )
    cut_short = any(each.cut_short for each in kept)
    return replace(a, results=tuple(kept), seconds=seconds, notes=notes, cut_short=cut_short)


def tell_apart(one: ScrubResult, law: str, against: Baselines) -> list[str]:
    """What shows that a result is not of some scrubbing law (its hash) and baselines."""
    name, faults = one.hypothesis, []
    if one.law_hash != law:
        faults.append(f"'{name}' is another hypothesis in each: {one.law_hash} and {law}")
    for what, first, second in (
        ("E_model", one.model, against.model),
        ("E_randomised", one.randomised, against.randomised),
    ):
        near = math.isclose(first.value, second.value, rel_tol=1e-5, abs_tol=1e-12)
        if not near and first.exact and second.exact and first.value == first.value:
            faults.append(f"'{name}': {what} is {first.value:.9g} in one and {second.value:.9g} in the other")
    return faults


def _merge(one: ScrubResult, other: ScrubResult, study: StudyResult) -> ScrubResult:
    if one.scrubbed.exact or other.scrubbed.exact:
        return one
    population: Population | None = None
    both = [each.data.population for each in (one, other) if each.data and each.data.population]
    if len(both) == 2:
        population = pool_populations(both, (one.scrubbed.draws, other.scrubbed.draws))
    found = Found(
        join_draws((one.draws, other.draws)),
        rule="width" if "width" in (one.stopping, other.stopping) else "draws",
        seconds=add_seconds(one.seconds, other.seconds),
        cut_short=one.cut_short or other.cut_short,
        warnings=tuple(each for each in one.warnings if Said.of(each).kind in KEPT),
        population=population,
    )
    against = Baselines(one.model, _pool(one.randomised, other.randomised))
    interval = Interval(one.interval, study.level, one.bounds, is_zero_one(study.reference))
    return conclude(one.hypothesis, one.law_hash, found, against, interval)


def _pool(a: Baseline, b: Baseline) -> Baseline:
    """The mean of two sampled baselines, if they are not the same one."""
    if a.exact or b.exact or a == b:
        return a if a.exact or not b.exact else b
    n = a.draws + b.draws
    value = (a.draws * a.value + b.draws * b.value) / n
    return Baseline(value, math.hypot(a.draws * a.se, b.draws * b.se) / n, n, Way.SAMPLED_PAIRS.say(pairs=n))


def _list_versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
