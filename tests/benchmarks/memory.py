"""Peak resident memory of the bracket study's nine rows, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.brackets import Which
from tests.benchmarks.timing import table

ROOT = Path(__file__).resolve().parents[2]
ROWS = 100_000


def report(chosen: Which, quick: bool = False, device: str = "cpu") -> Iterator[str]:
    """The tables, one after another.

    Args:
        chosen: classifier and strings.
        quick: few rows and draws.
        device: where the model runs.
    """
    yield "### Memory"
    parameters = chosen.parameters | ({"rows": "1000"} if quick else {})
    command = [sys.executable, "-m", "tests.benchmarks.peak", device, "512" if quick else "", json.dumps(parameters)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    yield (
        f"{chosen.name[0].upper()}{chosen.name[1:]}, {found['rows']:,} rows in D, on {device}, "
        f"{'512 draws each' if quick else 'each row until its interval is 1.0 point wide'}: "
        + (f"peak {found['on_device'] / 2**30:.2f} GiB allocated on the device; " if found["on_device"] else "")
        + f"**peak {max(found['peaks'].values()) / 2**30:.2f} GiB** of resident memory. Target: under 4 GiB. "
        + ("" if found["apart"] else "Peaks are of everything up to there, not of the stage alone.")
    )
    head = ["stage", "peak in it, MiB", "resident after it, MiB"]
    rows = [[s, f"{found['peaks'][s] / 2**20:,.0f}", f"{found['after'][s] / 2**20:,.0f}"] for s in found["peaks"]]
    yield table(head, rows)
