"""What a report shows besides its headline: convergence, distributions, sub-populations, nodes, the worst draws.

Everything is worked out from the result alone, as plain values: the report's tables and plots and `result.json` all
take their figures from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from pscrub.estimate.estimate import Estimate, mean_of_pairs
from pscrub.result.draws import Draws, Groups, Round
from pscrub.result.result import ScrubResult, StudyResult

Values = dict[str, Any]
QUANTILES = (("median", 0.5), ("q95", 0.95), ("q99", 0.99))


def convergence_figures(each: ScrubResult, level: float) -> list[Values]:
    """The interval as draws came in: E_scrubbed, and loss recovered where the baselines are exact and differ.

    Within the first round pairs are taken in random order, and the interval also holds what the pairs left out could
    have changed (strata are not all there); after it whole rounds are added. These are t intervals; the last is the
    result's own, unless that is exact.
    """
    if not each.draws.kept:
        return []
    points = [*_within(each.draws.pilot, level), *_by_rounds(each.draws, level, each.scrubbed)]
    bottom = each.model.value - each.randomised.value
    scale = None if each.recovered is None or bottom == 0 else 100 / bottom
    out = []
    for n, *figures in points:
        point: Values = {"draws": n} | dict(zip(("scrubbed", "scrubbed_low", "scrubbed_high"), figures, strict=True))
        if scale is not None:
            value, *ends = ((x - each.randomised.value) * scale for x in figures)
            point |= {"recovered": value, "low": min(ends), "high": max(ends)}
        out.append(point)
    return out


def distribution_figures(result: StudyResult, each: ScrubResult) -> dict[str, Values]:
    """Mean and quantiles of f under D, the scrubbing law and the baseline; those of which there are draws."""
    return {name: _spread(f, weights) for name, (f, weights) in samples(result, each).items()}


def samples(result: StudyResult, each: ScrubResult) -> dict[str, tuple[Tensor, Tensor]]:
    """name -> (f, weights): under D, under the scrubbing law, under the baseline."""
    held = {
        "D": (result.reference.losses, result.reference.weights),
        "scrubbed": (each.draws.losses, _uniform(each.draws.losses)),
        "randomised": (result.reference.randomised, _uniform(result.reference.randomised)),
    }
    return {name: pair for name, pair in held.items() if len(pair[0])}


def groups(result: StudyResult, each: ScrubResult) -> list[Values]:
    """By column and value: share of D, mean f on D and scrubbed, mean output distances, each with a half-width.

    Half-widths are those of independent draws, which stratified roots make a little too wide.
    """
    return [row for by in result.reference.groups for row in _by_value(result, each, by)]


def nodes(each: ScrubResult) -> list[Values]:
    """By site: blocks, their sizes, share of draws that gave the parent's datum back, effective donors."""
    return [
        {
            "path": s.path,
            "at": list(s.at),
            "feature": s.feature,
            "blocks": s.blocks,
            "smallest": s.smallest,
            "largest": s.largest,
            "donors": s.donors,
            "own": s.own / s.draws if s.draws else None,
            "effective": s.effective if s.draws else None,
        }
        for s in each.draws.sites
    ]


def worst(each: ScrubResult, most: int) -> list[Values]:
    """The draws with the largest f: f, and by path of the root and the leaves a row's number and its values."""
    return [
        {"f": w.loss, "data": {path: {"row": row, **values} for path, (row, values) in w.data.items()}}
        for w in each.draws.worst[:most]
    ]


def provenance(result: StudyResult) -> Values:
    """Seeds, hashes, versions, device and times: what it takes to make the result again."""
    return {
        "study": result.study,
        "started": result.started,
        "device": result.device,
        "versions": dict(result.versions),
        "data": {"hash": result.reference.data_hash, "rows": len(result.reference.losses)},
        "laws": {each.hypothesis: each.law_hash for each in result.results},
        "rounds": {each.hypothesis: _rounds(each.draws) for each in result.results},
    }


def _rounds(draws: Draws) -> list[str]:
    seeds: dict[int, list[Round]] = {}
    for each in draws.rounds:
        seeds.setdefault(each.seed, []).append(each)
    told = []
    for seed, rounds in seeds.items():
        dealt = sum(each.replicates for each in rounds)
        permuted = f", donors permuted within {dealt:,} replicates" if dealt else ""
        told.append(f"seed {seed}: {len(rounds)} rounds, {sum(each.size for each in rounds):,} draws{permuted}")
    return told


def _within(f: Tensor, level: float) -> list[tuple[int, float, float, float]]:
    """Points on the way through one round, in powers of 2 of pairs."""
    pairs = f.reshape(-1, 2)[torch.from_numpy(np.random.default_rng(0).permutation(len(f) // 2))]
    means, v = pairs.mean(1), (pairs[:, 0] - pairs[:, 1]).square() / 4
    points, n, total = [], 16, len(pairs)
    while n < total:
        left_out = float(means[:n].var()) / n * (1 - n / total)
        half = float(stats.t.ppf((1 + level) / 2, n - 1)) * math.sqrt(left_out + float(v[:n].mean()) / total)
        value = float(means[:n].mean())
        points.append((2 * n, value, value - half, value + half))
        n *= 2
    return points


def _by_rounds(draws: Draws, level: float, final: Estimate) -> list[tuple[int, float, float, float]]:
    ends = np.cumsum([r.size for r in draws.kept]).tolist()
    kept = ends if len(ends) <= 32 else [ends[i] for i in np.unique(np.linspace(0, len(ends) - 1, 32).astype(int))]
    own = kept if final.exact or draws.sums is not None else kept[:-1]  # the last is all that was drawn
    estimates = [mean_of_pairs(draws.losses[:end], level) for end in own]
    estimates += [] if final.exact else [final]
    return [(e.draws, e.value, e.low, e.high) for e in estimates]


def _by_value(result: StudyResult, each: ScrubResult, by: Groups) -> list[Values]:
    weights, on_data = result.reference.weights, result.reference.losses
    k = len(by.names)
    share = torch.bincount(by.codes, weights=weights, minlength=k)
    model = torch.bincount(by.codes, weights=torch.where(weights > 0, weights * on_data, 0.0), minlength=k) / share
    drawn = by.codes[each.draws.rows]
    out = []
    for i, name in enumerate(by.names):
        here = drawn == i
        row: Values = {"column": by.column, "value": name, "share": float(share[i]), "model": float(model[i])}
        row |= {"draws": int(here.sum())}
        for measure, column in (("scrubbed", each.draws.losses), *each.draws.distances.items()):
            row |= _mean(measure, column[here], result.level)
        out.append(row)
    return out


def _mean(name: str, values: Tensor, level: float) -> Values:
    n = len(values)
    if n < 2:
        return {name: float(values[0]) if n else None, f"{name} ±": None}
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * float(values.std()) / math.sqrt(n)
    return {name: float(values.mean()), f"{name} ±": half}


def _spread(f: Tensor, weights: Tensor) -> Values:
    here = weights > 0
    order = f[here].argsort()
    values, mass = f[here][order], weights[here][order].cumsum(0)
    places = [min(int(torch.searchsorted(mass, q * mass[-1])), len(values) - 1) for _, q in QUANTILES]
    found: Mapping[str, float] = {name: float(values[i]) for (name, _), i in zip(QUANTILES, places, strict=True)}
    mean = float((values * weights[here][order]).sum() / mass[-1])
    return {"mean": mean, "smallest": float(values[0]), **found, "largest": float(values[-1])}


def _uniform(f: Tensor) -> Tensor:
    return torch.full((len(f),), 1 / max(len(f), 1), dtype=torch.float64)
