"""Tables of what an adversary found, of a frontier, and of the ways of sharing, for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.table import Table

from pscrub.estimate.estimate import Estimate
from pscrub.law.entropy import EntropyRow
from pscrub.questions.adversarial.search import AdversaryResult
from pscrub.questions.comparison import Losses, compare
from pscrub.questions.sharing import SharingTable
from pscrub.questions.specificity import Frontier
from pscrub.questions.verification import FEWER, Verification

Rows = tuple[Sequence[str], list[Sequence[str]]]
"""A heading and lines."""


def moves(found: AdversaryResult, most: int = 20) -> Rows:
    """The moves of the first search, surest first."""
    head = ("claim", "at", "change of E_scrubbed", "interval", "points", "bits given up")
    rows = [
        (
            move.feature,
            move.where,
            f"{move.difference.value:+.4g}",
            _interval(move.difference),
            "–" if move.points is None else f"{move.points.value:+.2f}",
            f"{move.bits:.2f}",
        )
        for move in found.moves[:most]
    ]
    return head, list(rows)


def below_moves(found: AdversaryResult) -> list[str]:
    """What to know under the table: the verdict, and what fresh draws say."""
    lines = [found.verdict + "."]
    e, p = found.confirmed, found.points
    lines.append(
        f"On {found.draws:,} fresh draws: E_scrubbed {e.value:+.4g} {_interval(e)}"
        + ("." if p is None else f", {p.value:+.2f} points {_interval(p)}.")
    )
    lines.append(
        f"{len(found.moves):,} claims tried; the table's intervals hold together at level {found.level:g}. "
        "What was not offered was not tried."
    )
    return lines


def frontier(found: Frontier) -> Rows:
    """Loss recovered against scrubbed entropy, hypothesis by hypothesis."""
    head = (
        "hypothesis",
        "scrubbed entropy, bits",
        "above H(D)",
        "inputs",
        "E_scrubbed",
        "recovered, %",
        "interval",
        "",
    )
    rows = [
        (
            row.name,
            f"{row.bits:.2f}",
            f"{row.excess:.2f}",
            str(row.copies),
            f"{row.scrubbed.value:.4g}",
            "–" if row.recovered is None else f"{row.recovered.value:.2f}",
            "–" if row.recovered is None else _interval(row.recovered),
            "frontier" if row.on_frontier else f"below {row.dominated[0]}",
        )
        for row in found.rows
    ]
    return head, list(rows)


def sharing(found: SharingTable) -> Rows:
    """A hypothesis under every way of sharing unimportant inputs."""
    head = ("hypothesis", "sharing", "draws", "bits", "E_scrubbed", "interval", "recovered, %", "change", "interval")
    rows = [
        (
            found.hypothesis if i == 0 else "",
            row.mode,
            str(row.draws),
            f"{row.bits:.2f}",
            f"{row.scrubbed.value:.4g}",
            _interval(row.scrubbed),
            "–" if row.recovered is None else f"{row.recovered.value:.2f}",
            "" if row.change is None else f"{row.change.difference.value:+.4g}",
            "" if row.change is None else _interval(row.change.difference),
        )
        for i, row in enumerate(found.rows)
    ]
    return head, list(rows)


def ablations(found: Losses, level: float) -> Rows:
    """A hypothesis under each ablation on the same draws; changes are from the first."""
    head = ("ablation", "E_scrubbed", "recovered, %", "interval", "change", "interval")
    rows = []
    for name, f, score in zip(found.names, found.f, found.scores(level), strict=True):
        change = None if name == found.names[0] else compare(found, found.names[0], name, level).difference
        rows.append(
            (
                name,
                f"{float(f.mean()):.4g}",
                "undefined" if score is None else f"{score.value:.2f}",
                "" if score is None else _interval(score),
                "" if change is None else f"{change.value:+.4g}",
                "" if change is None else _interval(change),
            )
        )
    return head, list(rows)


def markdown(rows: Rows) -> str:
    """The table as Markdown."""
    head, lines = rows
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def rich(rows: Rows, title: str) -> Table:
    """The table for a terminal."""
    head, lines = rows
    table = Table(*head, title=title, title_justify="left")
    for line in lines:
        table.add_row(*line)
    return table


def _interval(e: Estimate) -> str:
    return "exact" if e.exact else f"[{e.low:.4g}, {e.high:.4g}]"


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


def below_verification(found: Verification) -> list[str]:
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
