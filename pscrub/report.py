"""Results as text and JSON, and hypotheses as trees."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree as RichTree

from pscrub import breakdown
from pscrub.claim_costs import ClaimCost
from pscrub.errors import StudyError
from pscrub.hypothesis import Hypothesis
from pscrub.program import draw
from pscrub.result import HEAD, ScrubResult, StudyResult, as_row, cells
from pscrub.store import write_whole
from pscrub.study import E_SCRUBBED
from pscrub.tree import Site, Tree, unroll
from pscrub.worked import Agreement

WORST = 5
"""Worst draws given of each hypothesis."""
KNOWN = ("exact", "agrees")
"""Columns of a worked example's table besides the usual ones."""
FIGURES = ("hypothesis", "figure", "formula", "enumerated", "measured", "interval", "agrees")
"""Columns of the table of all that a worked example expects."""


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


def table(result: StudyResult, found: Sequence[Agreement] = ()) -> Table:
    """The result as a table for a terminal; of a worked example with what its formula gives."""
    percent = f"{100 * result.level:g} % interval"
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in (
        ("hypothesis", "left"),
        ("E_model", "right"),
        ("E_randomised", "right"),
        ("E_scrubbed", "right"),
        ("recovered %", "right"),
        (percent, "right"),
        ("draws", "right"),
    ):
        out.add_column(name, justify=justify, overflow="fold", min_width=10 if name == "hypothesis" else None)  # type: ignore[arg-type]
    for name in KNOWN if found else ():
        out.add_column(name, justify="right")
    for each in result.results:
        out.add_row(*map(escape, (*cells(each), *_beside(each, found))))
    return out


def figures_table(found: Sequence[Agreement]) -> Table:
    """Every figure that a worked example expects, by its formula, by enumeration and by draws, for a terminal."""
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(FIGURES):
        out.add_column(name, justify="left" if i < 2 else "right", overflow="fold")
    for each in found:
        out.add_row(*map(escape, _figure(each)))
    return out


def markdown(result: StudyResult, found: Sequence[Agreement] = ()) -> str:
    """The result as a Markdown table, its warnings and notes below, and a worked example's figures under these."""
    head = (*HEAD, *KNOWN) if found else HEAD
    tables = [_markdown(head, 1, [(*cells(each), *_beside(each, found)) for each in result.results])]
    if found:
        tables.append(_markdown(FIGURES, 2, [_figure(each) for each in found]))
    said = "\n".join(below(result)) + "\n"
    return "\n".join([tables[0], said, *tables[1:]])


def _markdown(head: Sequence[str], words: int, lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *lines))


def _beside(each: ScrubResult, found: Sequence[Agreement]) -> tuple[str, ...]:
    """The cells of a worked example that the other studies' tables do not have."""
    known = _known(found).get(each.hypothesis)
    return ("", "")[: 2 * bool(found)] if known is None else (f"{known.exact:.6g}", _yes(known.agrees))


def _known(found: Sequence[Agreement]) -> dict[str, Agreement]:
    """Hypothesis -> what is expected of its E_scrubbed."""
    return {each.hypothesis: each for each in found if (each.figure, each.ablation) == (E_SCRUBBED, "resampling")}


def _figure(each: Agreement) -> tuple[str, ...]:
    m = each.measured
    listed = "not listed" if each.enumerated is None else f"{each.enumerated:.10g}"
    about = each.figure if each.ablation == "resampling" else f"{each.figure}, {each.ablation} ablation"
    interval = "exact" if m.exact else f"[{m.low:.6g}, {m.high:.6g}]"
    return each.hypothesis, about, f"{each.exact:.10g}", listed, f"{m.value:.6g}", interval, _yes(each.agrees)


def _yes(agrees: bool) -> str:
    return "yes" if agrees else "NO"


def below(result: StudyResult) -> list[str]:
    """What has to be said under a table: interruption, warnings, baselines, notes, provenance."""
    said = ["The run was cut short: these are the estimates so far."] if result.cut_short else []
    said += [f"Warning, {each.hypothesis}: {warning}" for each in result.results for warning in each.warnings]
    if result.results:
        first = result.results[0]
        said.append(f"E_model: {first.model.method}. E_randomised: {first.randomised.method}.")
    said.append("Intervals are for the uncertainty of the draws: D, its weights and the model are held fixed.")
    said += [line for each in result.results for line in _of_data(each)]
    changed = max((check.difference for check in result.rewrites), default=0.0)
    if result.rewrites:
        said.append(f"Rewrites of the graph: {len(result.rewrites)}, largest change of f on D {changed:.2g}.")
    return [*said, *result.notes]


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


def _of_data(each: ScrubResult) -> list[str]:
    """What is said of the uncertainty of the data: loss recovered (or E_scrubbed) apart and with the draws'."""
    if each.data is None:
        return []
    lines = []
    for kind, figures in (("the data alone", each.data.data), ("the draws and the data", each.data.both)):
        score, loss = figures.recovered, figures.scrubbed
        said = "undefined" if score is None else f"[{score.low:.2f}, {score.high:.2f}] %"
        lines.append(
            f"{each.hypothesis}, uncertainty of {kind} (D a sample of a population): recovered {said}, "
            f"E_scrubbed [{loss.low:.4g}, {loss.high:.4g}]"
        )
    return lines


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


def hypothesis_tree(hypothesis: Hypothesis, seed: int = 0) -> RichTree:
    """The treeified hypothesis for a terminal: node, place, feature, blocks, and one sampled datum per site.

    Args:
        hypothesis: a well-formed one.
        seed: of the sampled datum.

    Raises:
        HypothesisError: it is not well formed.
    """
    tree = unroll(hypothesis)
    data = {path: int(row[0]) for path, row in draw(tree, 2, (seed,)).items()}
    top = RichTree(escape(hypothesis.name), highlight=False)
    for path, site in tree.sites.items():
        if site.parent is None and site.claim is None and "/" not in path:
            top.add(_site_line(tree, site, data))
    _add(tree, tree.sites[tree.root], data, top)
    return top


def _add(tree: Tree, site: Site, data: dict[str, int], under: RichTree) -> None:
    branch = under.add(_site_line(tree, site, data))
    for other in tree.sites.values():
        own = other.claim is None and other.path.startswith(f"{site.path}/~")
        if own:
            branch.add(_site_line(tree, other, data))
    for child in tree.children(site.path):
        _add(tree, child, data, branch)


def _site_line(tree: Tree, site: Site, data: dict[str, int]) -> str:
    row = data[site.path]
    columns = tree.hypothesis.data.row(row)
    words = next((v for v in columns.values() if isinstance(v, str)), None) or _short(columns)
    datum = f"row {row}: {words}"
    if site.claim is None:
        return f"[dim]unimportant, one draw for {escape(', '.join(tree.source(site.path)))}[/dim]  ← {escape(datum)}"
    claim, sizes = site.claim, site.partition.sizes
    low, high = int(sizes.min()), int(sizes.max())
    blocks = f"{site.partition.n_blocks:,} block{'s' * (site.partition.n_blocks != 1)} of " + (
        f"{low:,}" if low == high else f"{low:,} to {high:,}"
    )
    where = "" if claim.name == claim.at else f" at {claim.at}"
    head = f"[bold]{escape(claim.name)}[/bold]{escape(where)}"
    return f"{head}: {escape(claim.feature_name)} ({blocks} rows)  ← {escape(datum)}"


def _short(columns: dict[str, Any]) -> str:
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value)[:40] for name, value in columns.items()}
    return ", ".join(f"{name}={text}" for name, text in shown.items())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = [
    "below",
    "check_folder",
    "document",
    "dumps",
    "figures_table",
    "hypothesis_tree",
    "markdown",
    "rows",
    "table",
    "write",
]
