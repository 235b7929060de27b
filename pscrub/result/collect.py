"""What is kept of each round of draws, and what the draws are seen against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.data.partition import Partition
from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline, Way, what_is_known
from pscrub.estimate.sums import Sums
from pscrub.evaluate.on_data import OnData
from pscrub.hypothesis.claim import is_exact
from pscrub.hypothesis.tree import Site, Tree
from pscrub.progress import Progress
from pscrub.result.draws import WORST, Draws, Extreme, Groups, Reference, Round, SiteDraws
from pscrub.result.provenance import data_hash

LONGEST = 400
"""Characters of a value that are kept of it."""
MOST_GROUPS = 20
"""Values of a column that are told apart; the rarer ones are put together."""


def sites_of(tree: Tree) -> tuple[SiteDraws, ...]:
    """What can be drawn for each site but the root; nothing drawn so far."""
    donors: dict[int, float] = {}
    return tuple(_site(tree, site, donors) for path, site in tree.sites.items() if path != tree.root)


def collect_round(
    tree: Tree,
    kept: Sequence[SiteDraws],
    made: Round,
    data: Mapping[str, Tensor],
    f: Tensor,
    distances: Mapping[str, Tensor],
) -> Draws:
    """One round's draws, with what is kept of its data; or their sums, where draws are not kept one by one.

    Args:
        tree: the treeified hypothesis.
        kept: of `sites_of`.
        made: the round.
        data: path -> int64 [draws].
        f: float64 [draws].
        distances: measure -> float64 [draws].
    """
    n = made.size
    served = []
    for each in kept:
        rows = data[each.path]
        counts = _count(rows)
        own = int((rows == data[tree.sites[each.path].parent or tree.root]).sum())
        collisions = int((counts * (counts - 1)).sum())
        served.append(replace(each, draws=n, own=own, collisions=collisions, pairs=n * (n - 1)))
    # NaN is worst of all, and topk holds it to be the largest.
    worst = f.topk(min(WORST, n)).indices.tolist()
    extremes = tuple(Extreme(float(f[i]), _inputs(tree, data, i)) for i in worst)
    if made.kept:
        return Draws((made,), f, data[tree.root], dict(distances), tuple(served), extremes)
    nothing = {name: each[:0] for name, each in distances.items()}
    return Draws(
        (made,),
        f[:0].clone(),
        data[tree.root][:0].clone(),
        nothing,
        tuple(served),
        extremes,
        Sums.of(f, made.replicates),
    )


def make_reference(
    on_data: OnData,
    labels: str | Sequence[str] | None,
    by: Sequence[str],
    baseline: Baseline,
    seed: int,
    progress: Progress,
) -> Reference:
    """f on D, under the baseline, and D by the columns named."""
    data = on_data.data
    given = baseline.kind == Way.GIVEN.value or not labels
    known = what_is_known(on_data, labels, seed, given, progress)
    groups = tuple(_groups(data, name) for name in by)
    return Reference(data_hash(data), data.weights, known.losses, known.randomised, groups, known.seen)


def _count(rows: Tensor) -> Tensor:
    """How often each row came: by sorting where D is large, so that rows that were not drawn cost a round nothing."""
    small = int(rows.max()) <= 16 * len(rows)
    return torch.bincount(rows) if small else rows.unique(return_counts=True)[1]


def _site(tree: Tree, site: Site, donors: dict[int, float]) -> SiteDraws:
    partition, claim = site.partition, site.claim
    if id(partition) not in donors:
        donors[id(partition)] = _donors(partition)
    swaps = int(partition.sizes.max()) > 1 or partition.n_blocks == 1
    vacuous = claim is not None and site.parent is not None and not is_exact(claim) and not swaps
    sizes = partition.sizes[partition.sizes > 0]
    return SiteDraws(
        site.path,
        tree.source(site.path) if claim is None else (claim.at,),
        "unimportant" if claim is None else claim.feature_name,
        partition.n_blocks,
        int(sizes.min()),
        int(sizes.max()),
        donors[id(partition)],
        vacuous,
        *(0, 0, 0, 0),
    )


def _donors(partition: Partition) -> float:
    squares = torch.bincount(partition.labels, weights=partition.weights.square(), minlength=partition.n_blocks)
    mass = partition.block_weights
    return max(float((mass**3 / squares)[mass > 0].sum()), 1.0)


def _inputs(tree: Tree, data: Mapping[str, Tensor], draw: int) -> dict[str, tuple[int, dict[str, str]]]:
    rows = {path: int(data[path][draw]) for path in (tree.root, *tree.leaves)}
    texts = {row: _texts(tree.hypothesis.data.row(row)) for row in dict.fromkeys(rows.values())}
    return {path: (row, texts[row]) for path, row in rows.items()}


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    texts = {name: _text(value) for name, value in row.items()}
    return {name: text if len(text) <= LONGEST else text[: LONGEST - 1] + "…" for name, text in texts.items()}


def _text(value: Any) -> str:
    """A value as text, as far as it is shown: of an image the first few entries are written, not thousands."""
    if isinstance(value, list):
        text = "["
        for place, each in enumerate(value):
            text += ", " * (place > 0) + _text(each)
            if len(text) > LONGEST:
                return text
        return text + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _groups(data: Dataset, column: str) -> Groups:
    values = data[column]
    array = values.cpu().numpy() if isinstance(values, Tensor) else values
    if array.ndim != 1:
        raise StudyError(f"column '{column}' has shape {tuple(array.shape)}; expected [N], to be broken down by")
    names, codes, counts = np.unique(array, return_inverse=True, return_counts=True)
    texts = [f"{name:.6g}" if isinstance(name, np.floating) else str(name) for name in names]
    if len(names) > MOST_GROUPS:
        common = np.sort(np.argsort(-counts, kind="stable")[: MOST_GROUPS - 1])
        place = np.full(len(names), len(common))
        place[common] = np.arange(len(common))
        texts = [texts[i] for i in common] + [f"{len(names) - len(common):,} other values"]
        codes = place[codes]
    return Groups(column, tuple(texts), torch.from_numpy(codes.astype(np.int64).reshape(-1)))
