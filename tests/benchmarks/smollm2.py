"""What the ladders about SmolLM2-135M cost beside its forwards over as many rows as D and the draws have."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pscrub import Dataset, Study, scrub
from pscrub.studies.induction import composed
from pscrub.studies.ioi.heads import measure_heads
from pscrub.studies.ioi.prompts import make_prompts
from pscrub.studies.ioi.study import SELECTING, build
from pscrub.studies.smollm2 import INSTALL, VOCABULARY, is_smollm2_there, load_smollm2
from tests.benchmarks.timing import short, table

DRAWS, AT_ONCE = 128, 64
QUICK = 6
"""Of how many rows one is scored where it is to be quick."""


def report(quick: bool) -> Iterator[str]:
    """For each ladder a table: seconds until the study is there, of the scrub, of the forwards."""
    yield "### The ladders about SmolLM2-135M"
    if not is_smollm2_there():
        yield f"SmolLM2-135M is not installed ({INSTALL}): nothing was measured."
        return
    yield from _measure(
        "ioi",
        make_prompts("scoring", 128),
        lambda model: measure_heads(model, make_prompts("selection", SELECTING)),
        build,
        quick,
    )
    selecting = composed.make_rows("selection", composed.SELECTED, VOCABULARY)["input_ids"]
    yield from _measure(
        "induction_smollm2",
        composed.make_rows("scoring", composed.SCORED, VOCABULARY),
        lambda model: composed.find_composing(model, selecting),
        composed.build_composed,
        quick,
    )


def _measure(
    name: str,
    data: Dataset,
    find: Callable[[nn.Module], Any],
    made_of: Callable[[nn.Module, Dataset, Any], Study],
    quick: bool,
) -> Iterator[str]:
    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    subject = load_smollm2()
    loaded = lap()
    heads = find(subject)
    found = lap()
    study = made_of(subject, data, heads)
    study = replace(study, hypotheses=study.hypotheses[:: QUICK if quick else 1])
    built = lap()
    _forward(subject, data)
    before = lap()
    scrub(study, draws=DRAWS)
    spent = lap()
    _forward(subject, data)
    plain = (before + lap()) / 2
    forwards = 1 + len(study.hypotheses) * DRAWS / data.n
    yield (
        f"`{name}`: {len(study.hypotheses)} hypotheses, {DRAWS} draws of each, {data.n} rows. Forwards: over as many "
        f"rows as D and the draws have, {forwards:.0f} times D, {short(plain)} s each (mean of before and after)."
    )
    row = (short(loaded), short(found), short(built), short(forwards * plain), short(spent))
    yield table(
        ("load, s", "find heads, s", "graph, s", "forwards, s", "scrub, s", "scrub / forwards"),
        [(*row, f"{spent / forwards / plain:.2f}")],
    )


def _forward(model: nn.Module, data: Dataset) -> None:
    with torch.no_grad():
        for some in data["input_ids"].split(AT_ONCE):
            model(input_ids=some)
