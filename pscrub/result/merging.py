"""Two results of one study, from different rounds of draws, as one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline, Baselines, Way
from pscrub.estimate.estimate import Interval
from pscrub.estimate.jackknife import Population
from pscrub.estimate.pooling import pool_populations
from pscrub.evaluate.on_data import OnData
from pscrub.outcomes import Said
from pscrub.progress import add_seconds
from pscrub.result.conclude import Found, conclude
from pscrub.result.draws import join_draws
from pscrub.result.result import ScrubResult, StudyResult
from pscrub.result.warnings import OfTree

TOLERANCE = 1e-4
"""Relative difference up to which f of two graphs, or their E_randomised, are the same, as for rewrites of one."""
KEPT = {each.value for each in OfTree}
"""Kinds of the warnings that a merge cannot find anew."""


def merge(a: StudyResult, b: StudyResult) -> StudyResult:
    """One result out of two of the same study from different rounds of draws: tighter intervals for the same numbers.

    Rounds are named by seed and index. Use another seed for the second run, or `scrub(..., after=a)`, which goes on
    where `a` ended. The first's level, notes and baselines are kept; sampled baselines are averaged.

    Args:
        a: one result.
        b: another, on equal data, with equal laws for hypotheses of equal names. Those of only one are kept; if there
            are no others, f on D has to be the same in both.

    Raises:
        StudyError: with everything that shows that the two are not of one study (other data, laws, baselines or
            labels), or share draws.
    """
    others = {each.hypothesis: each for each in b.results}
    shared = [(each, others[each.hypothesis]) for each in a.results if each.hypothesis in others]
    faults = tell_labels_apart(a, b)
    if a.reference.data_hash != b.reference.data_hash:
        faults.append(f"the results are on different data: {a.reference.data_hash} and {b.reference.data_hash}")
    if not shared and not _same_f(a, b):
        faults.append("the results have no hypothesis in common, and f on D is another in each")
    for one, other in shared:
        faults += tell_apart(one, other.law_hash, Baselines(other.model, other.randomised), other.draws.donors)
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
    labels = a.labels or b.labels
    return replace(a, results=tuple(kept), seconds=seconds, notes=notes, cut_short=cut_short, labels=labels)


def check_continued(found: StudyResult, after: StudyResult | None) -> None:
    """Nothing, if a run can go on from an earlier result, as far as data and labels tell.

    Raises:
        StudyError: it is of other data, or its E_randomised of other labels.
    """
    if after is None:
        return
    faults = tell_labels_apart(after, found)
    if after.reference.data_hash != found.reference.data_hash:
        faults.append("the earlier result is of other data than this study's")
    if faults:
        raise StudyError(faults)


def tell_labels_apart(a: StudyResult, b: StudyResult) -> list[str]:
    """What shows that the E_randomised of two results are about different labels; nothing where one does not say."""
    if not (a.labels and b.labels) or sorted(a.labels) == sorted(b.labels):
        return []
    return [f"the labels are {', '.join(a.labels)} in one result and {', '.join(b.labels)} in the other"]


def tell_apart(one: ScrubResult, law: str, against: Baselines, donors: str) -> list[str]:
    """What shows that a result is not of some scrubbing law (its hash), baselines and way to draw donors."""
    faults = []
    if one.draws.rounds and one.draws.donors != donors:
        faults.append(f"'{one.hypothesis}': donors are {one.draws.donors} in one and {donors} in the other")
    if one.law_hash != law:
        faults.append(f"'{one.hypothesis}' is another hypothesis in each: {one.law_hash} and {law}")
    return faults + tell_baselines_apart(one.hypothesis, Baselines(one.model, one.randomised), against)


def tell_baselines_apart(name: str, one: Baselines, other: Baselines) -> list[str]:
    """What shows that two baselines of a hypothesis are of different ones; nothing of what was sampled."""
    faults = []
    for what, first, second in (
        ("E_model", one.model, other.model),
        ("E_randomised", one.randomised, other.randomised),
    ):
        near = math.isclose(first.value, second.value, rel_tol=1e-5, abs_tol=1e-12)
        if not near and first.exact and second.exact and first.value == first.value:
            faults.append(f"'{name}': {what} is {first.value:.9g} in one and {second.value:.9g} in the other")
    return faults


def check_one_baseline(on_data: OnData, against: Baselines, found: StudyResult) -> None:
    """Nothing, if another graph of a study has the E_randomised of the first, or another f.

    Graphs that are equal on D may differ off it, where outputs meet other rows' labels. Rewrites of one graph share its
    E_randomised; of graphs that were written apart no one can say which is meant.

    Args:
        on_data: of the other graph.
        against: its baselines.
        found: what was found on the graphs before it.

    Raises:
        StudyError: f is the same on D, and E_randomised is not.
    """
    if not found.results or not found.labels:  # nothing before it, or a baseline that was given
        return
    f, first = on_data.on_data(on_data.graph.output).double().cpu(), found.reference.losses
    scale = max(1.0, float(first.abs().nan_to_num(0, 0, 0).max()))
    before, now = found.results[0].randomised, against.randomised
    near = math.isclose(before.value, now.value, rel_tol=TOLERANCE, abs_tol=TOLERANCE * scale)
    if near or before.value != before.value or not torch.allclose(f, first, TOLERANCE, TOLERANCE * scale, True):
        return
    raise StudyError(
        f"two graphs are equal on D, and their E_randomised are {before.value:.6g} and {now.value:.6g} "
        f"({found.labelled}): off D, where outputs meet other rows' labels, they differ. Make one graph of the other "
        "by a rewrite (`replace`), whose E_randomised is that of the graph that was begun with, or give its value"
    )


def _same_f(a: StudyResult, b: StudyResult) -> bool:
    one, other = a.reference.losses, b.reference.losses
    scale = TOLERANCE * max(1.0, float(one.abs().nan_to_num(0, 0, 0).max())) if one.numel() else TOLERANCE
    return one.shape == other.shape and torch.allclose(one, other, TOLERANCE, scale, equal_nan=True)


def _merge(one: ScrubResult, other: ScrubResult, study: StudyResult) -> ScrubResult:
    if not (one.draws.rounds or other.draws.rounds):  # nothing can be swapped
        return one
    population: Population | None = None
    both = [each.data.population for each in (one, other) if each.data and each.data.population]
    if len(both) == 2:
        population = pool_populations(both, (len(one.draws), len(other.draws)))
    found = Found(
        join_draws((one.draws, other.draws)),
        # What either read off the law is exact for both; draws, forced or not, then only add to the picture.
        exact=next((each.scrubbed for each in (one, other) if each.scrubbed.exact), None),
        rule="width" if "width" in (one.stopping, other.stopping) else "draws",
        seconds=add_seconds(one.seconds, other.seconds),
        cut_short=one.cut_short or other.cut_short,
        warnings=tuple(each for each in one.warnings if Said.of(each).kind in KEPT),
        population=population,
    )
    against = Baselines(one.model, _pool(one.randomised, other.randomised))
    interval = Interval(one.interval, study.level, one.bounds, study.reference.known)
    return conclude(one.hypothesis, one.law_hash, found, against, interval)


def _pool(a: Baseline, b: Baseline) -> Baseline:
    """The mean of two sampled baselines, if they are not the same one."""
    if a.exact or b.exact or a == b:
        return a if a.exact or not b.exact else b
    n = a.draws + b.draws
    value = (a.draws * a.value + b.draws * b.value) / n
    sampled = None if a.sampled is None or b.sampled is None else a.sampled.pool(b.sampled)
    return Baseline(value, math.hypot(a.draws * a.se, b.draws * b.se) / n, n, Way.SAMPLED_PAIRS.say(pairs=n), sampled)


def _list_versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
