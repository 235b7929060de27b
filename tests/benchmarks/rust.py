"""The same draws by pscrub and by rust-circuit's sampler, timed in turn in one process."""

from __future__ import annotations

import functools
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from pscrub import Datum, Partition, Study, Tree, unroll
from pscrub.data.blocks import gather
from pscrub.law.drawing import draw
from tests.benchmarks.cases import binary_tree, dataset
from tests.benchmarks.timing import alternate, short, table

P = ParamSpec("P")
T = TypeVar("T")
TARGETS = {10: 20, 1_000: 500}
SKIPPED = "Skipped: rust_circuit cannot be imported. `make bench` installs it, or `pip install rust-circuit==0.4.12`."


def imported() -> tuple[ModuleType, ModuleType, ModuleType] | None:
    """rust_circuit with its datasets and samplers, if they are installed."""
    try:
        import rust_circuit
        from rust_circuit.causal_scrubbing import dataset as datasets
        from rust_circuit.causal_scrubbing import hypothesis as samplers
    except ImportError:
        return None
    return rust_circuit, datasets, samplers


def report(quick: bool = False) -> Iterator[str]:
    """The tables, one after another, or a line that says why there are none."""
    yield "### Beside rust-circuit 0.4.12"
    if imported() is None:
        yield SKIPPED
        return
    n, counts, repeats = (1_000, (2, 10, 100), 3) if quick else (10_000, (2, 10, 1_000, 10_000), 11)
    yield (
        f"One thread. A row of |D| = {n:,}, uniform, for each of {n:,} parents that agrees with it on a feature; "
        f"medians of {repeats} turns, pscrub being called as often in its turn as takes the same time. Both return the "
        "rows' columns, and were checked to stay within blocks. rust-circuit's `FuncSampler` finds the rows of "
        "each value in parents and data anew. For parents that it has seen before it remembers them (*again*), but "
        "a node's parents are new whenever they are themselves drawn. pscrub does it once for a hypothesis (*set "
        "up*). In brackets: by processor time, which contention for the cores distorts less."
    )
    yield _one_site(n, counts, repeats)
    sites = 10
    yield (
        f"The data of a whole tree of {sites} sites, |D| = {n:,}, {n:,} draws: `pscrub.law.draw` (not stratified) "
        "and rust-circuit's `InterpNode.sample`, reference data and unimportant inputs included."
    )
    # Blocks of one row would be claimed exact, which draws nothing in either.
    trees = {f"{b:,}": binary_tree(dataset(n, b, False), sites) for b in (min(each, n // 2) for each in counts)}
    yield trees_beside("blocks", trees, n, 3 if quick else 5)


def _quietly(function: Callable[P, T]) -> Callable[P, T]:
    """The function without rust-circuit's warning that it draws from a block more often than the block has rows."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="not enough unique dataset samples")
            return function(*args, **kwargs)

    return call


@_quietly
def _one_site(n: int, counts: tuple[int, ...], repeats: int) -> str:
    rows = []
    for blocks in counts:
        calls, set_up = _samplers(n, blocks, repeats)
        times = alternate(calls, repeats, even=True)
        ours, theirs, again = times["pscrub"], times["rust-circuit"], times["again"]
        factor = f"{theirs.wall / ours.wall:,.0f} ({theirs.cpu / ours.cpu:,.0f})"
        cells = [1e3 * ours.wall, 1e3 * theirs.wall, 1e3 * again.wall]
        rows.append([f"{blocks:,}", *map(short, cells), factor, TARGETS.get(blocks, ""), short(1e3 * set_up)])
    head = ["blocks", "pscrub, ms", "rust-circuit, ms", "again, ms", "times faster", "target", "set up, ms"]
    return table(head, rows)


def _samplers(n: int, blocks: int, repeats: int) -> tuple[dict[str, Callable[[], object]], float]:
    """Calls that draw once, with parents that are new each time; seconds that pscrub's table takes, once."""
    libraries = imported()
    assert libraries is not None
    rc, datasets, samplers = libraries
    data = dataset(n, blocks, False)
    feature = data["feature"]
    start = time.perf_counter()
    partition = Partition.of(feature, data)
    block_table = partition.table
    set_up = time.perf_counter() - start
    generator = torch.Generator().manual_seed(0)
    parents = [torch.randint(n, (n,), generator=generator) for _ in range(repeats + 5)]  # some calls are not timed

    def ours(given: Tensor) -> Tensor:
        rows: Tensor = Datum(partition, gather(partition.labels, given), block_table, generator).sample()
        return gather(feature, rows)

    source = datasets.Dataset([rc.Array(feature, "feature")])
    sampler = samplers.FuncSampler(lambda d: d.feature.value)
    references = [source[rows] for rows in parents]

    def theirs(given: Any) -> Tensor:
        values: Tensor = sampler(given, source, generator).feature.value
        return values

    assert torch.equal(ours(parents[0]), feature[parents[0]])
    assert torch.equal(theirs(references[0]), feature[parents[0]])
    first, seen, new = references[0], itertools.cycle(parents), iter(references[1:])
    return {
        "pscrub": lambda: ours(next(seen)),
        "rust-circuit": lambda: theirs(next(new)),
        "again": lambda: theirs(first),
    }, set_up


@_quietly
def trees_beside(what: str, trees: dict[str, Tree], draws: int, repeats: int) -> str:
    """A table of the time that all sites' draws take by both, one tree a row.

    Args:
        what: head of the first column.
        trees: by its cell there; each tree node's unimportant inputs share a draw.
        draws: draws of each tree.
        repeats: timed turns of each.
    """
    rows = []
    for name, tree in trees.items():
        seeds = iter(range(1_000_000))
        theirs = interpretation(tree, draws)
        _check(tree, {path: rows for path, rows in theirs().items() if path in tree.sites})
        _check(tree, draw(tree, draws, (0, 0), stratified=False))

        def ours(tree: Tree = tree, seeds: Iterator[int] = seeds) -> object:
            return draw(tree, draws, (1, next(seeds)), stratified=False)

        times = alternate({"pscrub": ours, "rust-circuit": theirs}, repeats, even=True)
        a, b = times["pscrub"], times["rust-circuit"]
        factor = f"{b.wall / a.wall:,.0f} ({b.cpu / a.cpu:,.0f})"
        rows.append([name, len(tree.sites), short(1e3 * a.wall), short(1e3 * b.wall), factor])
    return table([what, "sites", "pscrub, ms", "rust-circuit, ms", "times faster"], rows)


def unrolled(study: Study) -> list[Tree]:
    """The trees of a study's hypotheses that have more than a root."""
    trees = [unroll(hypothesis) for hypothesis in study.hypotheses]
    return [tree for tree in trees if len(tree.sites) > 1]


def interpretation(tree: Tree, draws: int) -> Callable[[], dict[str, Tensor]]:
    """A call that draws the data of the tree's claims with rust-circuit: path -> int64 [draws].

    Claims that agree on the row itself take the parent's datum, as one would write them there.
    """
    libraries = imported()
    assert libraries is not None
    rc, datasets, samplers = libraries
    n = tree.hypothesis.data.n
    source = datasets.Dataset([rc.Array(torch.arange(n), "row")])
    features: dict[int, Callable[[Any], Tensor]] = {}

    def feature(partition: Partition) -> Callable[[Any], Tensor]:
        return features.setdefault(id(partition), lambda d: partition.labels[d.row.value])

    nodes: dict[str, Any] = {}
    for path, site in tree.sites.items():
        if site.claim is None:
            continue
        exact = site.parent is None or site.partition.n_blocks == n
        sampler = samplers.ExactSampler() if exact else samplers.FuncSampler(feature(site.partition))
        nodes[path] = (
            samplers.InterpNode(sampler, path)
            if site.parent is None
            else nodes[site.parent].make_descendant(sampler, path)
        )
    generator = torch.Generator().manual_seed(0)

    def call() -> dict[str, Tensor]:
        drawn = nodes[tree.root].sample(generator, source, source.sample(draws, generator))
        return {path: drawn.datasets[node].row.value for path, node in nodes.items()}

    return call


def _check(tree: Tree, data: dict[str, Tensor]) -> None:
    for path, rows in data.items():
        site = tree.sites[path]
        if site.parent is not None:
            labels = site.partition.labels
            assert torch.equal(labels[rows], labels[data[site.parent]]), f"'{path}' left its block"
