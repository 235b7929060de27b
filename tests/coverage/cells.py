"""Cells of a coverage study: each with a seed and a file of its own, so that a study that was cut short goes on."""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


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
