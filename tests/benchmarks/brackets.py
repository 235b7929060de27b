"""The bracket study's nine rows, scrubbed until each interval is one point wide: seconds by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from pscrub import Study, StudyResult, scrub
from pscrub.studies import load
from tests.benchmarks import rust
from tests.benchmarks.timing import short, table

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "brackets"
DRAWS = 10_000


@dataclass(frozen=True)
class Which:
    """Which classifier and strings: the study's own parameters.

    Args:
        name: in words.
        parameters: of the study, as the command line's `-P` takes them.
    """

    name: str
    parameters: dict[str, str]


def which(weights: Path | None, data: Path | None, balanced: float | None, rows: int | None) -> Which:
    """The files named; else the published ones, where they are beside the checkout; else what ships with pscrub."""
    name = "the shipped classifier on generated strings"
    if weights is not None or data is not None:
        name = "the classifier and strings named on the command line"
    elif SHARED.is_dir():
        name = "the published classifier and strings"
        weights, data = SHARED / "model.safetensors", SHARED / "sequences.jsonl.gz"
        balanced = 0.263 if balanced is None and rows is None else balanced
    given = {"weights": weights, "data": data, "balanced": balanced, "rows": rows}
    return Which(name, {key: str(value) for key, value in given.items() if value is not None})


def report(chosen: Which, quick: bool = False, device: str = "cpu") -> Iterator[str]:
    """The tables, one after another.

    Args:
        chosen: classifier and strings.
        quick: few rows and draws.
        device: where the model runs.
    """
    yield "### The bracket table"
    parameters = chosen.parameters | ({"rows": "1000"} if quick else {})
    study, seconds, result = run(parameters, device, draws=512 if quick else None)
    rows = study.hypotheses[0].data.n
    yield (
        f"{chosen.name[0].upper()}{chosen.name[1:]}, {rows:,} rows, {len(study.hypotheses)} hypotheses, "
        f"{'512 draws each' if quick else 'each until its interval is 1.0 point wide (±0.5)'}, on {device}. "
        "Seconds that passed, and of processor time in all. Target: a minute on two cores."
    )
    yield phases({device: seconds})
    yield rows_of(result)
    if rust.imported() is None:
        yield rust.SKIPPED
    elif device == "cpu":
        draws = 500 if quick else DRAWS
        yield f"The draws alone, {draws:,} of each row's hypothesis, beside rust-circuit's sampler, one thread:"
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        trees = {tree.hypothesis.name: tree for tree in rust.unrolled(study)}
        yield rust.trees_beside("hypothesis", trees, draws, 3)
        torch.set_num_threads(threads)


def run(parameters: dict[str, str], device: str, draws: int | None) -> tuple[Study, dict[str, float], StudyResult]:
    """The study, seconds by phase and in all, and what was found, from the files to the last row."""
    wall, cpu = time.perf_counter(), time.process_time()
    study = load("brackets", parameters)
    loaded = time.perf_counter() - wall
    result = scrub(study, draws=draws, device=device)
    seconds = {"load and trace": loaded, **result.seconds}
    total, used = time.perf_counter() - wall, time.process_time() - cpu
    return study, seconds | {"other": total - sum(seconds.values()), "in all": total, "processor": used}, result


def phases(seconds: dict[str, dict[str, float]]) -> str:
    """A table of seconds, a device a row."""
    names = list(next(iter(seconds.values())))
    return table(
        ["seconds", *names], [[device, *(short(spent[n]) for n in names)] for device, spent in seconds.items()]
    )


def rows_of(result: StudyResult) -> str:
    """A table of what was found and how long each row took."""
    rows = []
    for each in result.results:
        score = each.recovered
        found = "—" if score is None else f"{score.value:.1f} [{score.low:.1f}, {score.high:.1f}]"
        spent = (short(each.seconds.get(phase, 0.0)) for phase in ("drawing", "evaluation"))
        rows.append([each.hypothesis, found, f"{each.scrubbed.draws:,}", *spent])
    return table(["hypothesis", "loss recovered, %", "draws", "drawing, s", "evaluation, s"], rows)
