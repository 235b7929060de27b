"""Thousands of claims on many rows: seconds and peak memory of checking, unrolling, drawing, in a process of its own.

`python -m tests.benchmarks.large CLAIMS ROWS DISTINCT` prints one JSON document.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, unroll
from pscrub.law import draw
from tests.benchmarks.peak import Stages
from tests.benchmarks.timing import short, table

ROOT = Path(__file__).resolve().parents[2]
DRAWS = 1000


def star(claims: int, rows: int, distinct: bool) -> Hypothesis:
    """f reads as many heads as there are claims, each told by a feature of its own, or by one of ten."""
    data = Dataset({"x": torch.arange(rows)})
    heads = [Node(f"h{i}", ("x",), lambda x, i=i: x % (2 + i)) for i in range(claims)]
    f = Node("f", tuple(head.name for head in heads), lambda *values: sum(values) * 1.0)

    def feature(i: int) -> Any:
        return lambda d: d["x"] * (i + 1) % 9973 % (2 + i % 200) if distinct else d["x"] % (2 + i % 10)

    reads = [Claim(f"h{i}", feature(i), words=f"feature {i}") for i in range(claims)]
    return Hypothesis("star", Graph([*heads, f], ["x"], "f"), data, Claim("f", reads=reads))


def chain(claims: int, rows: int, distinct: bool) -> Hypothesis:
    """Each claim reads the next one, and says as much of the rows as it, or less."""
    data = Dataset({"x": torch.arange(rows)})
    nodes = [Node("n0", ("x",), lambda x: x % 1000)]
    nodes += [Node(f"n{i}", (f"n{i - 1}",), lambda n: n) for i in range(1, claims)]
    nodes.append(Node("f", (f"n{claims - 1}",), lambda n: n * 1.0))
    claim = Claim("n0", lambda d: d["x"] % 1000)
    for i in range(1, claims):
        claim = Claim(f"n{i}", reads=[claim])
    return Hypothesis("chain", Graph(nodes, ["x"], "f"), data, Claim("f", reads=[claim]))


CASES = (("star", 5000, 100_000, True), ("star", 5000, 100_000, False), ("chain", 1000, 100_000, False))


def report(quick: bool = False) -> Iterator[str]:
    """A table, a line for each hypothesis."""
    yield "### Thousands of claims"
    yield (
        f"Checking (features read, faults looked for), unrolling and drawing {DRAWS:,} data of every site; "
        "`python -m tests.benchmarks large`. Target: 5,000 different features in under 30 s and 3 GiB."
    )
    rows = []
    for kind, claims, n, distinct in CASES:
        size = (claims // 50, n // 50) if quick else (claims, n)
        command = [sys.executable, "-m", "tests.benchmarks.large", kind, *map(str, size), str(int(distinct))]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        what = "features all different" if distinct else "few features"
        seconds = [short(found["seconds"][stage]) for stage in ("check", "unroll", "draw")]
        rows.append(
            (
                f"{kind}, {what}",
                f"{size[0]:,}",
                f"{size[1]:,}",
                *seconds,
                f"{found['peak'] / 2**30:.2f}",
            )
        )
    yield table(("hypothesis", "claims", "rows", "check, s", "unroll, s", "draw, s", "peak, GiB"), rows)


def main(kind: str, claims: int, rows: int, distinct: bool) -> None:
    """One hypothesis, its figures printed."""
    stages, seconds = Stages(), {}
    hypothesis = {"star": star, "chain": chain}[kind](claims, rows, distinct)

    def timed(stage: str, work: Any) -> Any:
        start = time.perf_counter()
        made = work()
        seconds[stage] = time.perf_counter() - start
        stages.ended(stage)
        return made

    timed("check", lambda: hypothesis.check(rewrites=False))
    tree = timed("unroll", lambda: unroll(hypothesis))
    timed("draw", lambda: draw(tree, DRAWS, (0,)))
    print(json.dumps({"seconds": seconds, "peak": max(stages.peaks.values())}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1")
