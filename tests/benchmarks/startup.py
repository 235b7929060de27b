"""How long commands that need no model take to answer, beside `import torch`, and graphs of many nodes to be made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from pscrub import Graph, Node
from tests.benchmarks.timing import Timing, alternate, short, table

COMMAND = "import sys; from pscrub.cli import main; sys.exit(main([{!r}]))"
STARTS = {
    "import torch": "import torch",
    "import pscrub": "import pscrub",
    "pscrub --help": COMMAND.format("--help"),
    "pscrub list": COMMAND.format("list"),
}
"""What is timed, each in a process of its own -> its code."""
CHAINS = (500, 1_000, 2_000, 4_000)


def report(quick: bool = False) -> Iterator[str]:
    """The tables, one after another.

    Args:
        quick: few repeats, and short chains.
    """
    repeats, chains = (1, (50, 100)) if quick else (11, CHAINS)
    yield "### Start"
    yield (
        f"Processes that start Python, do that and end; medians of {repeats}, begun in turn. Target: under 1.2 of "
        "`import torch`."
    )
    begun = alternate({name: partial(_begin, code) for name, code in STARTS.items()}, repeats)
    base = begun["import torch"].wall
    yield table(
        ["", "s", "of `import torch`"],
        [[f"`{name}`", f"{time.wall:.3f}", f"{time.wall / base:.3f}"] for name, time in begun.items()],
    )
    yield "#### Graphs of many nodes"
    yield (
        "A `Graph` whose nodes each read the one before, given to it in that order and in reverse; medians of "
        f"{repeats} made in turn. *Growth*: the time over that of the line above, over the ratio of their nodes; 1 "
        "where time is in proportion. Target: 2,000 nodes in under a second, growth about 1."
    )
    orders = {"in order": 1, "in reverse": -1}
    nodes = {(n, order): list_chain(n)[::step] for n in chains for order, step in orders.items()}
    made = alternate({key: partial(Graph, chain, ["x"], f"n{key[0] - 1}") for key, chain in nodes.items()}, repeats)
    head = [f"{order}, {what}" for order in orders for what in ("ms", "growth")]
    yield table(["nodes", *head], [[f"{n:,}", *_cells(made, n, chains, orders)] for n in chains])


def _begin(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def list_chain(n: int) -> list[Node]:
    """Nodes n0, n1, ..., of which the first reads the column x and each other the one before."""
    return [Node(f"n{i}", (f"n{i - 1}" if i else "x",), abs) for i in range(n)]


def _cells(made: dict[tuple[int, str], Timing], n: int, chains: tuple[int, ...], orders: dict[str, int]) -> list[str]:
    half = {more: fewer for fewer, more in pairwise(chains)}.get(n)
    cells = []
    for order in orders:
        time = made[n, order].wall
        growth = "" if half is None else f"{time / made[half, order].wall * half / n:.2f}"
        cells += [short(1e3 * time), growth]
    return cells
