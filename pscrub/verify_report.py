"""What `pscrub verify` found, as text, tables and plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rich.table import Table

from pscrub.entropy import EntropyRow
from pscrub.verify import FEWER, StudyVerification, Verification

SHOWN = 8
"""Leaves of one reader beyond which one line of the table sums them up."""


def budget_table(found: Verification) -> Table:
    """The entropy budget as a table for a terminal: bits that come into each node, that it keeps, and that it loses."""
    out = Table(title=found.hypothesis, title_justify="left", pad_edge=False)
    out.add_column("node", justify="left", overflow="fold")
    for name in ("inputs", "bits in", "kept", "lost"):
        out.add_column(name, justify="right", no_wrap=True)
    cells = {row.path: row.cells for row in found.lemma}
    for name, rows in _grouped(found.budget.rows):
        count = f"{max(cells[row.path] for row in rows):,}"
        sums = [math.fsum(getattr(row, what) for row in rows) for what in ("inputs", "output", "lost")]
        out.add_row(name.replace("[", r"\["), count, *(f"{abs(value):.3f}" for value in sums))
    return out


def _grouped(rows: tuple[EntropyRow, ...]) -> Iterator[tuple[str, list[EntropyRow]]]:
    """Each node's line of the table, leaves of one reader that are many taken together."""
    paths = [row.path for row in rows]
    readers = {path.rpartition("/")[0] for path in paths}
    groups: dict[str, list[EntropyRow]] = {}
    for row in rows:
        reader = row.path.rpartition("/")[0]
        leaf = row.path not in readers and not row.path.rpartition("/")[2].startswith("~")
        groups.setdefault(f"{reader}/*" if leaf and reader else row.path, []).append(row)
    for name, group in groups.items():
        if len(group) > SHOWN:
            yield f"{name} ({len(group)} leaves)", group
        else:
            yield from ((row.path, [row]) for row in group)


def lines(found: Verification) -> list[str]:
    """What was found, in words."""
    b = found.budget
    said = [
        f"well formed; {found.rows:,} rows, {found.leaves} leaves",
        f"Lemma 1, exactly: at {len(found.lemma)} sites, largest error {found.lemma_error:.1e}",
        f"entropy of the scrubbed inputs {b.scrubbed:.3f} bits = output {b.output:.3f} + lost "
        f"{b.scrubbed - b.output:.3f}; of all data drawn {b.trace:.3f}",
    ]
    if found.certificate is not None:
        c = found.certificate
        said.append(
            f"Theorem 2, certified: log p in the constraints' row space to {c.residual:.1e} nats, {c.cells:,} cells"
        )
    if found.entropy is not None:
        p, e, bit = found.p_values, found.entropy.estimate, math.log(2)
        said.append(
            f"{found.draws:,} draws: inputs of {len(found.fit)} nodes, smallest adjusted p {p['inputs']:.2g}; "
            f"independence at {len(found.independence)} nodes ({min(found.draws, FEWER):,} draws), "
            f"{p['independence']:.2g}; entropy {e.value / bit:.3f} bits [{e.low / bit:.3f}, {e.high / bit:.3f}]"
        )
    return said + [f"not checked: {what}" for what in found.unchecked]


def document(result: StudyVerification) -> dict[str, Any]:
    """The whole result as plain values, ready for JSON. Entropies are in bits."""
    return {
        "study": result.study,
        "seed": result.seed,
        "failures": list(result.failures),
        "rewrites": [
            {"kind": c.kind, "node": c.node, "largest_difference_of_f": c.difference, "row": c.row}
            for c in result.rewrites
        ],
        "hypotheses": [_plain(each) for each in result.hypotheses],
    }


def _plain(found: Verification) -> dict[str, Any]:
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
