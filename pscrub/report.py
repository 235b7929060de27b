"""Results as text and JSON, and hypotheses as trees."""

from __future__ import annotations

import json
import math
import tempfile
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
from pscrub.tree import Site, Tree, unroll

WORST = 5
"""Worst draws given of each hypothesis."""


def rows(result: StudyResult) -> list[dict[str, Any]]:
    """One plain dictionary per hypothesis; `recovered`, `low` and `high` in per cent, null where undefined."""
    return [as_row(each) for each in result.results]


def document(result: StudyResult) -> dict[str, Any]:
    """The whole result as plain values, ready for JSON (infinite and NaN become null, with a warning in the row)."""
    return {
        "study": result.study,
        "seed": result.seed,
        "device": result.device,
        "level": result.level,
        "interval": "uncertainty of the draws; D, its weights and the model held fixed",
        "cut_short": result.cut_short,
        "rows": rows(result),
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


def table(result: StudyResult) -> Table:
    """The result as a table for a terminal."""
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
    for each in result.results:
        out.add_row(*map(escape, cells(each)))
    return out


def markdown(result: StudyResult) -> str:
    """The result as a Markdown table, its warnings and notes below."""
    lines = [" | ".join(HEAD), " | ".join(["---"] + ["---:"] * (len(HEAD) - 1))]
    lines += [" | ".join(cells(each)) for each in result.results]
    return "\n".join(f"| {line} |" for line in lines) + "\n\n" + "\n".join(below(result)) + "\n"


def below(result: StudyResult) -> list[str]:
    """What has to be said under a table: interruption, warnings, baselines, notes, provenance."""
    said = ["The run was cut short: these are the estimates so far."] if result.cut_short else []
    said += [f"Warning, {each.hypothesis}: {warning}" for each in result.results for warning in each.warnings]
    if result.results:
        first = result.results[0]
        said.append(f"E_model: {first.model.method}. E_randomised: {first.randomised.method}.")
    said.append("Intervals are for the uncertainty of the draws: D, its weights and the model are held fixed.")
    changed = max((check.difference for check in result.rewrites), default=0.0)
    if result.rewrites:
        said.append(f"Rewrites of the graph: {len(result.rewrites)}, largest change of f on D {changed:.2g}.")
    return [*said, *result.notes]


def write(result: StudyResult, folder: Path) -> list[Path]:
    """The files written: `result.nc`, `result.json` and `table.md`, each whole or not at all.

    A `report.html` that is there, of another result, is taken away (`html.write` makes the one of this result).

    Raises:
        StudyError: the folder cannot be written to.
    """
    check_folder(folder)
    contents = {"result.json": dumps(document(result)) + "\n", "table.md": markdown(result)}
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
    "hypothesis_tree",
    "markdown",
    "rows",
    "table",
    "write",
]
