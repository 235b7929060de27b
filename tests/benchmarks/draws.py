"""Draws per second of the generative program against |D|, the number of blocks, weights and the size of the tree."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pyro
import torch

from pscrub import Datum, Partition, Tree, program
from pscrub.estimate.stopping import ROUND
from pscrub.law.drawing import draw
from tests.benchmarks.cases import binary_tree, dataset
from tests.benchmarks.timing import Timing, alternate, short, table

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SITES = (2, 10, 50)
LAWS = {False: "uniform", True: "weighted"}
Key = tuple[int, bool, str]


def report(quick: bool = False, device: str = "cpu") -> Iterator[str]:
    """The tables, one after another.

    Args:
        quick: small sizes and few repeats.
        device: where rows are drawn.
    """
    sizes, repeats, draws = ((1_000, 4_000), 3, 1_024) if quick else (SIZES, 31, ROUND)
    yield "### Draws per second"
    yield (
        f"One thread, calls of {draws:,} draws, medians of {repeats} calls made in turn. *Program*: {_whole(device)} "
        "of a tree of two sites, the child agreeing with the root on a feature of so many blocks; millions of draws of "
        "the whole tree a second. *Site*: the child's datum alone, given the root's. *Set up*: the feature read into "
        "blocks and its table made, once for a hypothesis."
    )
    rows, ratios = [], []
    for n in sizes:
        counts = _blocks(n)
        times, set_up = _at_size(n, counts, draws, repeats, device)
        for blocks in counts:
            rate = [short(draws / times[blocks, w, what].wall / 1e6) for w in LAWS for what in ("program", "site")]
            ready = [short(1e3 * set_up[blocks, w]) for w in LAWS]
            rows.append([f"{n:,}", f"{blocks:,}", *rate, *ready])
        ratios.append([f"{n:,}", *(_ratio(times, counts, w, what) for w in LAWS for what in ("program", "site"))])
    each = [f"{what}, {law}" for law in LAWS.values() for what in ("program", "site")]
    ready = [f"set up, {law}, ms" for law in LAWS.values()]
    yield table(["\\|D\\|", "blocks", *(f"{name}, M/s" for name in each), *ready], rows)
    yield "#### From 2 blocks to |D|/2"
    yield "Time of the slowest number of blocks over that of the fastest; in brackets by processor time. Target: 3."
    yield table(["\\|D\\|", *each], ratios)
    yield "#### Size of the tree"
    n, blocks = (4_000, 100) if quick else (10_000, 1_000)
    yield f"|D| = {n:,}, every site but the root with {blocks:,} blocks of its own; millions of draws a second."
    yield _tree_sizes(n, blocks, draws, repeats, device)


def _blocks(n: int) -> list[int]:
    return [blocks for blocks in (2, 10, 1_000) if blocks < n // 2] + [n // 2]


def _at_size(
    n: int, counts: list[int], draws: int, repeats: int, device: str
) -> tuple[dict[Key, Timing], dict[tuple[int, bool], float]]:
    calls: dict[Key, Callable[[], object]] = {}
    set_up: dict[tuple[int, bool], float] = {}
    for blocks in counts:
        for weighted in LAWS:
            data = dataset(n, blocks, weighted)
            start = time.perf_counter()
            partition = Partition.of(data["feature"], data)
            assert len(partition.table.rows) == n and partition.n_blocks == blocks
            set_up[blocks, weighted] = time.perf_counter() - start
            calls[blocks, weighted, "program"] = whole_program(binary_tree(data, 2), draws, device)
            calls[blocks, weighted, "site"] = one_site(partition, draws, device)
    return alternate(calls, repeats, device), set_up


def whole_program(tree: Tree, draws: int, device: str) -> Callable[[], object]:
    """A call that draws the data of all sites: as the driver does on the CPU, by the Pyro model itself elsewhere."""
    if device == "cpu":
        seeds = iter(range(1_000_000))
        return lambda: draw(tree, draws, (0, next(seeds)))
    model = program(tree, device, torch.Generator(device).manual_seed(0))

    def call() -> object:
        with pyro.poutine.block():
            return model(draws)

    return call


def one_site(partition: Partition, draws: int, device: str) -> Callable[[], object]:
    """A call that draws a row for each of so many random parents."""
    table, labels = partition.table.to(device), partition.labels.to(device)
    generator = torch.Generator(device).manual_seed(0)
    parents = torch.randint(len(labels), (draws,), device=device, generator=generator)
    return lambda: Datum(partition, labels[parents], table, generator).sample()


def _ratio(times: dict[Key, Timing], counts: list[int], weighted: bool, what: str) -> str:
    wall, cpu = ([getattr(times[blocks, weighted, what], clock) for blocks in counts] for clock in ("wall", "cpu"))
    return f"{max(wall) / min(wall):.1f} ({max(cpu) / min(cpu):.1f})"


def _tree_sizes(n: int, blocks: int, draws: int, repeats: int, device: str) -> str:
    calls = {
        (sites, weighted): whole_program(binary_tree(dataset(n, blocks, weighted), sites), draws, device)
        for sites in SITES
        for weighted in LAWS
    }
    times = alternate(calls, repeats, device)
    rows = []
    for sites in SITES:
        rates = [draws / times[sites, weighted].wall / 1e6 for weighted in LAWS]
        rows.append([sites, *map(short, rates), *(short(sites * rate) for rate in rates)])
    return table(["sites", *LAWS.values(), *(f"{law}, times sites" for law in LAWS.values())], rows)


def _whole(device: str) -> str:
    return "`pscrub.law.drawing.draw`" if device == "cpu" else "the Pyro model on the device"
