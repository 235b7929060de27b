"""Records as plain values, ready for JSON, and the files of a run."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pscrub.errors import StudyError
from pscrub.questions.verification import StudyVerification, Verification
from pscrub.questions.worked import Agreement
from pscrub.records import write_whole
from pscrub.report import figures
from pscrub.report.tables import known_of, result_as_markdown
from pscrub.result.result import ScrubResult, StudyResult

WORST = 5
"""Worst draws given of each hypothesis."""


def rows(result: StudyResult, found: Sequence[Agreement] = ()) -> list[dict[str, Any]]:
    """One plain dictionary per hypothesis; `recovered`, `low` and `high` in per cent, null where undefined.

    Of a worked example also `exact`, the E_scrubbed that its formula gives, and `agrees`.
    """
    known = known_of(found)
    beside = {name: {"exact": each.exact, "agrees": each.agrees} for name, each in known.items()}
    return [each.as_row() | beside.get(each.hypothesis, {}) for each in result.results]


def document(record: StudyResult | StudyVerification, found: Sequence[Agreement] = ()) -> dict[str, Any]:
    """A record as plain values, ready for JSON; entropies are in bits.

    Args:
        record: what scrubbing found, or what `verify` did.
        found: of a worked example, what is known beforehand.
    """
    rewrites = [
        {"kind": c.kind, "node": c.node, "largest_difference_of_f": c.difference, "row": c.row} for c in record.rewrites
    ]
    if isinstance(record, StudyVerification):
        return {
            "study": record.study,
            "seed": record.seed,
            "failures": list(record.failures),
            "rewrites": rewrites,
            "hypotheses": [_tell_verification(each) for each in record.hypotheses],
        }
    return {
        "study": record.study,
        "seed": record.seed,
        "device": record.device,
        "level": record.level,
        "labels": list(record.labels),
        "interval": "uncertainty of the draws; D, its weights and the model held fixed",
        "cut_short": record.cut_short,
        "rows": rows(record, found),
        "expected": [each.as_row() for each in found],
        "rewrites": rewrites,
        "seconds": {phase: round(spent, 3) for phase, spent in record.seconds.items()},
        "notes": list(record.notes),
        "details": [_details(record, each) for each in record.results],
        "provenance": figures.provenance(record),
    }


def _details(result: StudyResult, each: ScrubResult) -> dict[str, Any]:
    return {
        "hypothesis": each.hypothesis,
        "convergence": figures.convergence_figures(each, result.level),
        "distributions": figures.distribution_figures(result, each),
        "groups": figures.groups(result, each),
        "nodes": figures.nodes(each),
        "claims": [dict(claim) for claim in each.claims],
        "worst": figures.worst(each, WORST),
    }


def write(result: StudyResult, folder: Path, found: Sequence[Agreement] = ()) -> list[Path]:
    """The files written: `result.nc`, `result.json` and `table.md`, each whole or not at all.

    A `report.html` that is there, of another result, is taken away (`html.write_page` makes the one of this result).

    Raises:
        StudyError: the folder cannot be written to.
    """
    check_folder(folder)
    result.save(folder / "result.nc")
    with naming_folder(folder):
        (folder / "report.html").unlink(missing_ok=True)
    texts = {"result.json": dumps(document(result, found)) + "\n", "table.md": result_as_markdown(result, found)}
    return [folder / "result.nc", *(write_text(folder / name, text) for name, text in texts.items())]


def write_text(path: Path, text: str) -> Path:
    """The path, once a text is written there, whole or not at all.

    Raises:
        StudyError: it cannot be written.
    """
    with naming_folder(path.parent):
        write_whole(path, lambda file: file.write(text.encode()))
    return path


@contextmanager
def naming_folder(folder: Path) -> Iterator[None]:
    """Within it, a file that cannot be written is told of by the name of its folder."""
    try:
        yield
    except OSError as error:
        raise StudyError(f"cannot write to output folder '{folder}': {error.strerror or error}") from error


def check_folder(folder: Path) -> None:
    """Make the folder, and find out that it can be written to before there is work to lose.

    Raises:
        StudyError: it cannot.
    """
    with naming_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass


def dumps(value: Any) -> str:
    """JSON without NaN or infinities, which become null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tell_verification(found: Verification) -> dict[str, Any]:
    c, e, bit = found.certificate, found.entropy, math.log(2)
    return {
        "hypothesis": found.hypothesis,
        "rows": found.rows,
        "leaves": found.leaves,
        "lemma_1": {
            "largest_error": found.lemma_error,
            "nodes": [{"path": r.path, "datum": r.datum, "inputs": r.inputs, "cells": r.cells} for r in found.lemma],
        },
        "entropy_bits": {
            "scrubbed": found.budget.scrubbed,
            "output": found.budget.output,
            "trace": found.budget.trace,
            "data": found.budget.data,
            "nodes": [
                {"path": r.path, "inputs": r.inputs, "kept": r.output, "lost": r.lost} for r in found.budget.rows
            ],
        },
        "theorem_2": c and {"residual": c.residual, "feasibility": c.feasibility, "gap": c.gap, "cells": c.cells},
        "draws": found.draws,
        "smallest_adjusted_p": found.p_values,
        "entropy_from_draws_bits": e
        and {
            "value": e.estimate.value / bit,
            "low": e.estimate.low / bit,
            "high": e.estimate.high / bit,
            "miller_madow": e.miller_madow / bit,
        },
        "not_checked": list(found.unchecked),
        "seconds": round(found.seconds, 3),
    }
