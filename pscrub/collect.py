"""What is kept of each round of draws, and what the draws are seen against."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pscrub._version import VERSION
from pscrub.dataset import Dataset
from pscrub.draws import Draws, Extreme, Groups, Reference, Round, SiteDraws
from pscrub.errors import StudyError
from pscrub.evaluate import Activations, Progress
from pscrub.hypothesis import EXACT, Claim
from pscrub.measures import Baseline, randomised_sample
from pscrub.partition import Partition
from pscrub.tree import Site, Tree

WORST = 10
"""Draws kept with their inputs."""
LONGEST = 400
"""Characters of a value that are kept of it."""
MOST_GROUPS = 20
"""Values of a column that are told apart; the rarer ones are put together."""
SAMPLE = 4096
"""Pairs of an output and an independent label whose f shows how f is spread under the baseline."""


def sites(tree: Tree) -> tuple[SiteDraws, ...]:
    """What can be drawn for each site but the root; nothing drawn so far."""
    donors: dict[int, float] = {}
    return tuple(_site(tree, site, donors) for path, site in tree.sites.items() if path != tree.root)


def collected(
    tree: Tree,
    kept: Sequence[SiteDraws],
    made: Round,
    data: Mapping[str, Tensor],
    f: Tensor,
    distances: Mapping[str, Tensor],
) -> Draws:
    """One round's draws, with what is kept of its data.

    Args:
        tree: the treeified hypothesis.
        kept: of `sites`.
        made: the round.
        data: path -> int64 [draws].
        f: float64 [draws].
        distances: measure -> float64 [draws].
    """
    n = made.size
    served = []
    for each in kept:
        rows = data[each.path]
        counts = torch.bincount(rows)
        own = int((rows == data[tree.sites[each.path].parent or tree.root]).sum())
        collisions = int((counts * (counts - 1)).sum())
        served.append(replace(each, draws=n, own=own, collisions=collisions, pairs=n * (n - 1)))
    # NaN is worst of all, and topk holds it to be the largest.
    worst = f.topk(min(WORST, n)).indices.tolist()
    extremes = tuple(Extreme(float(f[i]), _inputs(tree, data, i)) for i in worst)
    return Draws((made,), f, data[tree.root], dict(distances), tuple(served), extremes)


def joined(pieces: Iterable[Draws]) -> Draws:
    """All draws of some records of one hypothesis, rounds in order of seed and index.

    Raises:
        StudyError: a round is in two of them.
    """
    pieces = list(pieces)
    rounds = [(each, i, start) for each in pieces for i, start in enumerate(_starts(each))]
    rounds.sort(key=lambda r: (r[0].rounds[r[1]].seed, r[0].rounds[r[1]].index))
    made = [each.rounds[i] for each, i, _ in rounds]
    twice = sorted({(r.seed, r.index) for r in made if sum((r.seed, r.index) == (o.seed, o.index) for o in made) > 1})
    if twice:
        listed = ", ".join(f"round {index} of seed {seed}" for seed, index in twice[:3])
        raise StudyError(f"the same draws are in both results ({listed}); expected other rounds or another seed")
    if not made:
        return pieces[0]

    def column(of: Any) -> Tensor:
        return torch.cat([of(each)[start : start + each.rounds[i].size] for each, i, start in rounds])

    measures = [name for name in pieces[0].distances if all(name in each.distances for each in pieces)]
    distances = {name: column(lambda each, name=name: each.distances[name]) for name in measures}
    served = tuple(_summed(same) for same in zip(*(each.sites for each in pieces), strict=True))
    worst = sorted((w for each in pieces for w in each.worst), key=lambda w: (w.loss == w.loss, -w.loss))[:WORST]
    return Draws(tuple(made), column(_losses), column(_rows), distances, served, tuple(worst))


def reference(
    activations: Activations,
    labels: Sequence[str] | None,
    by: Sequence[str],
    baseline: Baseline,
    seed: int,
    progress: Progress,
) -> Reference:
    """f on D, under the baseline, and D by the columns named."""
    data = activations.data
    losses = activations.on_data(activations.graph.output, progress).double().cpu()
    given = baseline.method == "given"
    randomised = torch.empty(0, dtype=torch.float64) if given else randomised_sample(activations, labels, SAMPLE, seed)
    return Reference(data_hash(data), data.weights, losses, randomised, tuple(_groups(data, name) for name in by))


def data_hash(data: Dataset) -> str:
    """Names D: equal for equal columns and weights."""
    hashed = hashlib.sha256()
    for name, column in data.columns.items():
        array = column.cpu().contiguous() if isinstance(column, Tensor) else column
        hashed.update(f"{name} {tuple(array.shape)} {array.dtype}".encode())
        hashed.update(_bytes(array))
    hashed.update(_bytes(data.weights))
    return hashed.hexdigest()[:16]


def law_hash(tree: Tree) -> str:
    """Names the scrubbing law: equal for equal graph names, sites, what they read, and partitions."""
    hashed = hashlib.sha256()
    graph = tree.hypothesis.graph
    hashed.update(repr([(node.name, node.inputs) for node in graph.nodes.values()] + [graph.output]).encode())
    partitions: dict[int, bytes] = {}
    for path, site in tree.sites.items():
        at = site.claim.at if site.claim is not None else ""
        hashed.update(repr((path, site.parent, at, sorted((site.given or {}).items()))).encode())
        key = id(site.partition)
        if key not in partitions:
            partitions[key] = hashlib.sha256(_bytes(site.partition.labels)).digest()
        hashed.update(partitions[key])
    return hashed.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of pscrub, Python and the libraries that numbers depend on."""
    libraries = {name: version(name) for name in ("torch", "pyro-ppl", "numpy", "scipy")}
    return {"pscrub": VERSION, "python": platform.python_version()} | libraries


def is_exact(claim: Claim) -> bool:
    """Whether a claim says itself that nothing may be swapped, or says what claims that do so determine."""
    if claim.feature is None:
        return any(is_exact(read) for read in claim.reads)
    return isinstance(claim.feature, str) and claim.feature == EXACT


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
    paths = dict.fromkeys((tree.root, *tree.leaves))
    return {path: (int(data[path][draw]), _short(tree.hypothesis.data.row(int(data[path][draw])))) for path in paths}


def _short(row: Mapping[str, Any]) -> dict[str, str]:
    texts = {name: _text(value) for name, value in row.items()}
    return {name: text if len(text) <= LONGEST else text[: LONGEST - 1] + "…" for name, text in texts.items()}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_text(each) for each in value[:LONGEST]) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _starts(draws: Draws) -> list[int]:
    return [0, *np.cumsum([r.size for r in draws.rounds]).tolist()][: len(draws.rounds)]


def _losses(draws: Draws) -> Tensor:
    return draws.losses


def _rows(draws: Draws) -> Tensor:
    return draws.rows


def _summed(same: Sequence[SiteDraws]) -> SiteDraws:
    totals = {name: sum(getattr(s, name) for s in same) for name in ("draws", "own", "collisions", "pairs")}
    return replace(same[0], **totals)


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


def _bytes(array: Any) -> bytes:
    if isinstance(array, Tensor):
        return array.reshape(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b""
    return np.ascontiguousarray(array).tobytes()
