"""The process whose memory is measured: the bracket study from the files to the last row, a stage at a time.

`python -m tests.benchmarks.peak DEVICE DRAWS PARAMETERS` prints one JSON document; empty DRAWS run to a width.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

STATUS, REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Stages:
    """Peak and present resident memory, bytes, by stage. Where the kernel cannot forget a peak, peaks only grow."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.after: dict[str, int] = {}
        self.apart = STATUS.exists() and REFS.exists()

    def ended(self, stage: str) -> None:
        """Note what the stage took, and start the next."""
        self.peaks[stage], self.after[stage] = _resident()
        try:
            REFS.write_text("5")  # the peak starts again from what is resident now
        except OSError:
            self.apart = False


def _resident() -> tuple[int, int]:
    if STATUS.exists():
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024, int(lines["VmRSS"].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


def main(device: str, draws: str, parameters: str) -> None:
    """Run the study and print what it took."""
    stages = Stages()
    from pscrub import scrub
    from pscrub.studies import load

    stages.ended("imports")
    study = load("brackets", json.loads(parameters))
    stages.ended("strings, model, graph")
    before = {"activations on D": "checks of rewrites", "randomised loss": "activations on D"}

    def progress(phase: str, *_: int) -> None:
        if phase in before:
            stages.ended(before.pop(phase))

    scrub(
        study,
        draws=int(draws) if draws else None,
        device=device,
        progress=progress,
        each=lambda found: stages.ended(found.hypothesis),
    )
    rows = study.hypotheses[0].data.n
    import torch

    on_device = torch.cuda.max_memory_allocated() if device != "cpu" else 0
    print(
        json.dumps(
            {"rows": rows, "apart": stages.apart, "peaks": stages.peaks, "after": stages.after, "on_device": on_device}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
