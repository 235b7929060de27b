"""What the ladder of `ioi` costs beside forwards of SmolLM2-135M over as many prompts as D and the draws have."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from pscrub import scrub
from pscrub.studies.ioi.heads import measure_heads
from pscrub.studies.ioi.measured import score_prompts
from pscrub.studies.ioi.prompts import make_prompts
from pscrub.studies.ioi.study import SELECTING, build, load_ioi_model
from pscrub.studies.smollm2 import INSTALL, is_smollm2_there
from tests.benchmarks.timing import short, table

PROMPTS, DRAWS = 128, 128
QUICK = 6
"""Of how many rows one is scored where it is to be quick."""


def report(quick: bool) -> Iterator[str]:
    """A table: seconds until the study is there, of the scrub, of the forwards."""
    yield "### The ladder of `ioi`"
    if not is_smollm2_there():
        yield f"SmolLM2-135M is not installed ({INSTALL}): nothing was measured."
        return
    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    subject, data = load_ioi_model(), make_prompts("scoring", PROMPTS)
    loaded = lap()
    measured = measure_heads(subject, make_prompts("selection", SELECTING))
    found = lap()
    study = build(subject, data, measured)
    study = replace(study, hypotheses=study.hypotheses[:: QUICK if quick else 1])
    built = lap()
    score_prompts(subject, data)
    before = lap()
    scrub(study, draws=DRAWS)
    spent = lap()
    score_prompts(subject, data)
    plain = (before + lap()) / 2
    forwards = 1 + len(study.hypotheses) * DRAWS / PROMPTS
    yield (
        f"{len(study.hypotheses)} hypotheses, {DRAWS} draws of each, {PROMPTS} prompts. Forwards: over as many rows as "
        f"D and the draws have, {forwards:.0f} times D, {short(plain)} s each (mean of before and after)."
    )
    row = (short(loaded), short(found), short(built), short(forwards * plain), short(spent))
    yield table(
        ("load, s", "find heads, s", "graph, s", "forwards, s", "scrub, s", "scrub / forwards"),
        [(*row, f"{spent / forwards / plain:.2f}")],
    )
