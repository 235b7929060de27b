"""Many rows and many draws of a hand-written graph: seconds and peak memory, each size in a process of its own.

`python -m tests.benchmarks.rows ROWS DRAWS` prints one JSON document.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn import functional

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, scrub
from tests.benchmarks.peak import Stages
from tests.benchmarks.timing import short, table

ROOT = Path(__file__).resolve().parents[2]
SIZES = ((10**6, 10**6), (10**7, 10**6), (10**7, 3 * 10**6), (10**7, 10**7))
MOST = (10**7, 10**8)
"""Takes minutes; not for a quick run."""


def hypothesis_on(rows: int) -> Hypothesis:
    """Three parts of a sum each told by a digit of its own, on rows of eight columns."""
    generator = torch.Generator().manual_seed(0)
    columns = {f"x{i}": torch.randn(rows, generator=generator) for i in range(4)}
    columns |= {f"k{i}": torch.randint(0, 10, (rows,), generator=generator, dtype=torch.int32) for i in range(3)}
    columns["y"] = torch.randint(0, 2, (rows,), generator=generator, dtype=torch.int32)
    nodes = [
        Node("a", ("x0", "k0"), lambda x, k: x + k),
        Node("b", ("x1", "k1"), lambda x, k: x * k),
        Node("c", ("x2", "k2"), lambda x, k: (x > 0) * k),
        Node("out", ("a", "b", "c", "x3"), lambda a, b, c, x: a + b - c + x),
        Node(
            "f",
            ("out", "y"),
            lambda out, y: functional.binary_cross_entropy_with_logits(out, y.float(), reduction="none"),
        ),
    ]
    parts = [Claim(name, f"k{i}") for i, name in enumerate("abc")]
    claim = Claim("f", reads=[Claim("y", "y"), Claim("out", reads=parts)])
    return Hypothesis("digits", Graph(nodes, list(columns), "f"), Dataset(columns), claim)


def report(quick: bool = False) -> Iterator[str]:
    """A table, a line for each size."""
    yield "### Many rows, many draws"
    yield "Eight columns of four bytes, a graph of five nodes; everything a scrub takes, the data set's making apart."
    found = []
    for rows, draws in [(n // 100, d // 100) for n, d in SIZES] if quick else (*SIZES, MOST):
        command = [sys.executable, "-m", "tests.benchmarks.rows", str(rows), str(draws)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        one = json.loads(done.stdout.splitlines()[-1])
        cells = [short(one[name]) for name in ("before", "drawing", "evaluation", "rest")]
        found.append((f"{rows:,}", f"{draws:,}", *cells, f"{one['peak'] / 2**30:.2f}"))
    head = ("rows", "draws", "checks, D and baselines, s", "drawing, s", "evaluation, s", "rest, s", "peak, GiB")
    yield table(head, found)


def main(rows: int, draws: int) -> None:
    """One size, its figures printed."""
    stages, hypothesis = Stages(), hypothesis_on(rows)
    start = time.perf_counter()
    result = scrub(hypothesis, draws=draws, exact=False)
    spent, took = time.perf_counter() - start, result.seconds
    stages.ended("all")
    drawn = {name: took[name] for name in ("drawing", "evaluation")}
    before = sum(seconds for name, seconds in took.items() if name not in drawn)
    rest = spent - before - sum(drawn.values())
    print(json.dumps({"before": before, **drawn, "rest": rest, "peak": max(stages.peaks.values())}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
