"""Results as text and JSON, and hypotheses as trees."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pscrub.errors import StudyError
from pscrub.questions.claims import ClaimCost
from pscrub.questions.verification import StudyVerification, Verification
from pscrub.questions.worked import Agreement
from pscrub.records import write_whole
from pscrub.report import figures as breakdown
from pscrub.report.tables import _known, markdown
from pscrub.result.result import ScrubResult, StudyResult, as_row

WORST = 5
"""Worst draws given of each hypothesis."""


def rows(result: StudyResult, found: Sequence[Agreement] = ()) -> list[dict[str, Any]]:
    """One plain dictionary per hypothesis; `recovered`, `low` and `high` in per cent, null where undefined.

    Of a worked example also `exact`, the E_scrubbed that its formula gives, and `agrees`.
    """
    known = _known(found)
    beside = {name: {"exact": each.exact, "agrees": each.agrees} for name, each in known.items()}
    return [as_row(each) | beside.get(each.hypothesis, {}) for each in result.results]


def document(result: StudyResult, found: Sequence[Agreement] = ()) -> dict[str, Any]:
    """The whole result as plain values, ready for JSON (infinite and NaN become null, with a warning in the row)."""
    return {
        "study": result.study,
        "seed": result.seed,
        "device": result.device,
        "level": result.level,
        "interval": "uncertainty of the draws; D, its weights and the model held fixed",
        "cut_short": result.cut_short,
        "rows": rows(result, found),
        "expected": [each.as_row() for each in found],
        "rewrites": [
            {"kind": c.kind, "node": c.node, "largest_difference_of_f": c.difference, "row": c.row}
            for c in result.rewrites
        ],
        "seconds": {phase: round(spent, 3) for phase, spent in result.seconds.items()},
        "notes": list(result.notes),
        "details": [_details(result, each) for each in result.results],
        "provenance": breakdown.provenance(result),
    }


def _details(result: StudyResult, each: ScrubResult) -> dict[str, Any]:
    return {
        "hypothesis": each.hypothesis,
        "convergence": breakdown.convergence(each, result.level),
        "distributions": breakdown.distributions(result, each),
        "groups": breakdown.groups(result, each),
        "nodes": breakdown.nodes(each),
        "claims": [dict(claim) for claim in each.claims],
        "worst": breakdown.worst(each, WORST),
    }


def claim_figures(cost: ClaimCost) -> dict[str, Any]:
    """What a claim costs as plain values: per cent of loss recovered, and points."""
    found: dict[str, Any] = {"claim": cost.claim, "paths": list(cost.paths)}
    for name, estimate in (("alone", cost.alone), ("without", cost.without), ("gain", cost.gain)):
        found[name] = None if estimate is None else estimate.value
        found |= {f"{name}_low": None if estimate is None else estimate.low}
        found |= {f"{name}_high": None if estimate is None else estimate.high}
    return found


def write(result: StudyResult, folder: Path, found: Sequence[Agreement] = ()) -> list[Path]:
    """The files written: `result.nc`, `result.json` and `table.md`, each whole or not at all.

    A `report.html` that is there, of another result, is taken away (`html.write` makes the one of this result).

    Raises:
        StudyError: the folder cannot be written to.
    """
    check_folder(folder)
    contents = {"result.json": dumps(document(result, found)) + "\n", "table.md": markdown(result, found)}
    try:
        result.save(folder / "result.nc")
        (folder / "report.html").unlink(missing_ok=True)
        for name, text in contents.items():
            encoded = text.encode()
            write_whole(folder / name, lambda file, encoded=encoded: file.write(encoded))  # type: ignore[misc]
    except OSError as error:
        raise StudyError(f"cannot write to output folder '{folder}': {error.strerror or error}") from error
    return [folder / name for name in ("result.nc", *contents)]


def check_folder(folder: Path) -> None:
    """Make the folder, and find out that it can be written to before there is work to lose.

    Raises:
        StudyError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StudyError(f"cannot write to output folder '{folder}': {error.strerror or error}") from error


def dumps(value: Any) -> str:
    """JSON without NaN or infinities, which become null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def verification_document(result: StudyVerification) -> dict[str, Any]:
    """The whole result as plain values, ready for JSON. Entropies are in bits."""
    return {
        "study": result.study,
        "seed": result.seed,
        "failures": list(result.failures),
        "rewrites": [
            {"kind": c.kind, "node": c.node, "largest_difference_of_f": c.difference, "row": c.row}
            for c in result.rewrites
        ],
        "hypotheses": [_verified(each) for each in result.hypotheses],
    }


def _verified(found: Verification) -> dict[str, Any]:
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
