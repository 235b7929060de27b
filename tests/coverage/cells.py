"""Cells of a coverage study: each with a seed and a file of its own, so that a study that was cut short goes on."""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


def rng_of(*seed: Any) -> np.random.Generator:
    """The generator of a cell of that name."""
    return np.random.default_rng(zlib.crc32(repr(seed).encode()))


def say(text: str) -> None:
    """Tell of work that is done."""
    print(text, file=sys.stderr, flush=True)


def work_through(
    every: Sequence[tuple[str, Callable[[], dict[str, Any]]]], folder: Path, fresh: bool
) -> tuple[dict[str, dict[str, Any]], float]:
    """What each cell gave, and the seconds of work that they took.

    Args:
        every: name and work of each.
        folder: where cells are kept; those that lie there are not worked again.
        fresh: forget them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for k, (name, work) in enumerate(every, start=1):
        file = folder / (name.replace("/", "_").replace(" ", "-") + ".json")
        if fresh or not file.is_file():
            start = time.process_time()
            row = work()
            row["seconds"] = time.process_time() - start
            partial = file.with_suffix(".part")
            partial.write_text(json.dumps(row))
            partial.replace(file)
        found[name] = json.loads(file.read_text())
        say(f"{k}/{len(every)} {name}: {found[name]['seconds']:.1f} s")
    return found, sum(row.pop("seconds") for row in found.values())


def run_study(
    module: str,
    about: str | None,
    page: str,
    cells: Callable[[int], Iterable[tuple[str, Callable[[], dict[str, Any]]]]],
    table: Callable[[dict[str, dict[str, Any]], float, int], str],
) -> None:
    """A study's command: work through the cells that are missing, then write the page.

    Args:
        module: the study's, in `tests.coverage`.
        about: what its help says.
        page: in `docs`, without its ending; cells are kept in `out/PAGE/SEED`.
        cells: name and work of each, by seed.
        table: the page, of what cells gave, the seconds that they took, and the seed.
    """
    parser = argparse.ArgumentParser(prog=f"python -m tests.coverage.{module}", description=about)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    parser.add_argument("--out", type=Path, default=Path(f"docs/{page}.md"))
    parser.add_argument("--cells", type=Path, help=f"where cells are kept (default: out/{page}/SEED)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.cells or Path(f"out/{page}") / str(arguments.seed)
    text = table(*work_through(list(cells(arguments.seed)), folder, arguments.fresh), arguments.seed)
    arguments.out.write_text(text)
    print(text)
