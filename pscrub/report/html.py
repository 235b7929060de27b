"""The report of a run: one HTML file that needs no network, made from the same figures as `result.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pscrub.outcomes import Said
from pscrub.report import document as report
from pscrub.report import plots, tables
from pscrub.result.result import HEAD, IN_POPULATION, StudyResult

WORST = 3
"""Worst draws shown of each hypothesis."""
LEAVES = 16
"""Data shown of each of them."""
SITES = 14
"""Sites shown of each hypothesis: those for which the fewest data can be drawn."""
CELL = 64
"""Characters shown of a text."""
LIST = 40
"""Characters shown of a list of numbers."""
SAID = {
    "KL": "KL: divergence of the scrubbed output's distribution from the model's own on the root's datum, in nats.",
    "flipped": "flipped: share of draws whose most likely output is another than the model's own.",
    "squared error": "squared error: between the scrubbed output and the model's own on the root's datum.",
}
"""What the output distances are."""

SAID_ABOVE = (tables.Line.WARNING.value, tables.Line.CUT_SHORT.value)
"""Kinds of lines that stand in the box of warnings."""

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem; margin: 2rem auto;
  padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { margin: .4rem 0; max-width: 50rem; } .about { color: #555; }
.warnings { border-left: .3rem solid #D55E00; background: #fdf3ec; padding: .5rem .9rem; margin: 1rem 0; }
.fine { border-left: .3rem solid #009E73; background: #eef8f4; padding: .5rem .9rem; margin: 1rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; margin: .5rem 0; }
th, td { padding: .22rem .6rem; border-bottom: 1px solid #e2e2e2; text-align: right; vertical-align: top;
  white-space: nowrap; }
th[scope=row], td.text { white-space: normal; }
thead th { border-bottom: 1.5px solid #777; font-weight: 600; }
th.text, td.text { text-align: left; } tbody th { font-weight: 500; text-align: left; }
td.data { font-family: ui-monospace, monospace; font-size: .8rem; text-align: left; white-space: pre; }
tr.first td, tr.first th { border-top: 1.5px solid #999; }
figure { margin: .6rem 0; } figure svg { width: 100%; max-width: 56rem; height: auto; }
figcaption { color: #555; font-size: .88rem; max-width: 50rem; }
summary { cursor: pointer; font-weight: 600; margin-top: .6rem; }
@media print { body { max-width: none; margin: 0; font-size: 11px; } figure, tr { break-inside: avoid; }
  h2, h3, summary { break-after: avoid; } .wide { overflow: visible; } td.data { white-space: pre-wrap; } }
"""


def page(result: StudyResult) -> str:
    """The whole report as HTML. Table cells carry the figure in full as `data-value`, as it stands in `result.json`."""
    document = json.loads(report.dumps(report.document(result)))
    title = f"{result.study}: loss recovered"
    parts = [
        f"<h1>{escape(result.study)}</h1>",
        f'<p class="about">Causal scrubbing: {len(result.results)} hypotheses, {100 * result.level:g} % intervals, '
        f"seed {result.seed}, {escape(result.started) or 'time unknown'}.</p>",
        _warning_box(result),
        _headline(result, document),
        *_section_plots(result),
        *_group_tables(result, document),
        _claim_tables(document),
        _nodes(document),
        _worst(document),
        _provenance(document),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n'
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def write_page(result: StudyResult, folder: Path) -> Path:
    """Write `report.html`, whole or not at all.

    Raises:
        StudyError: the folder cannot be written to.
    """
    report.check_folder(folder)
    return report.write_text(folder / "report.html", page(result))


def _warning_box(result: StudyResult) -> str:
    said = [str(tables.Line.CUT_SHORT.say())] if result.cut_short else []
    said += [f"{each.hypothesis}: {warning}" for each in result.results for warning in each.warnings]
    if not said:
        return '<p class="fine">No warnings.</p>'
    return '<div class="warnings"><strong>Warnings</strong>' + "".join(f"<p>{escape(s)}</p>" for s in said) + "</div>"


def _headline(result: StudyResult, document: Any) -> str:
    population = any(each.data for each in result.results)
    lines = []
    for each, row in zip(result.results, document["rows"], strict=True):
        name, *shown = each.cells
        values = [row["model"], row["randomised"], row["scrubbed"], row["recovered"], [row["low"], row["high"]]]
        line = [_cell(text, value) for text, value in zip(shown, [*values, row["draws"]], strict=True)]
        if population:
            low, high = row.get("recovered_draws_and_data_low"), row.get("recovered_draws_and_data_high")
            line.append(_cell(each.in_population, [low, high]))
        method = escape(row["method"])
        lines.append(f'<tr title="{method}"><th scope="row">{escape(name)}</th>{"".join(line)}</tr>')
    # Each row's own figures are in its tooltip.
    methods = dict.fromkeys(Said.of(each.scrubbed.method).brief for each in result.results)
    said = [
        "Loss recovered is 100 (E_scrubbed − E_randomised) / (E_model − E_randomised): 100 if scrubbing as the "
        "hypothesis allows leaves the expected loss as it is, 0 if it is as bad as shuffled labels.",
        f"E_scrubbed: {'; '.join(methods)}.",
        *(line for line in tables.below(result) if line.kind not in SAID_ABOVE),
    ]
    return (
        "<h2>Loss recovered</h2>"
        + _table("headline", (*HEAD, IN_POPULATION)[: len(HEAD) + population], lines)
        + "".join(f"<p>{escape(s)}</p>" for s in said)
    )


def _section_plots(result: StudyResult) -> Iterable[str]:
    if any(each.recovered is not None for each in result.results):
        yield _show_figure(
            plots.forest(result),
            "Loss recovered by hypothesis",
            "Bar: interval. Diamond: exact, without error of draws.",
        )
    if any(each.draws.rounds for each in result.results):
        yield "<h2>Convergence</h2>"
        yield _show_figure(
            plots.convergence(result),
            "Intervals as draws came in",
            "Line and blue band: estimate and t interval of the draws so far (a random part of the first round, then "
            "whole rounds). Orange: the final interval, or the exact value. The blue band should narrow into it.",
        )
        yield "<h2>How f is spread</h2>"
        yield _show_figure(
            plots.distributions(result),
            "Distribution of f",
            "Share of draws with f at most x: dashed, the model on D; solid, the scrubbed model; dotted, the model's "
            "outputs with independent labels. A solid line to the right of the dashed one is loss that the hypothesis "
            "does not explain.",
        )


def _group_tables(result: StudyResult, document: Any) -> Iterable[str]:
    if not result.reference.groups:
        yield (
            "<h2>Sub-populations</h2><p>None was asked for: name columns of the dataset with <code>--by COLUMN</code> "
            "or <code>Study(..., by=[...])</code>.</p>"
        )
    for by in result.reference.groups:
        yield f"<h2>By {escape(by.column)}</h2>"
        if 1 < len(by.names) <= 8 and any(len(each.draws.losses) for each in result.results):
            yield _show_figure(plots.by_group(result, by.column), f"Scrubbed loss by {by.column}", "")
        measures: dict[str, None] = {}
        found = []
        for row in document["details"]:
            for i, group in enumerate(g for g in row["groups"] if g["column"] == by.column):
                found.append((row["hypothesis"] if i == 0 else "", i == 0, group))
                measures |= dict.fromkeys(name[:-2] for name in group if name.endswith(" ±") and name != "scrubbed ±")
        lines = []
        for name, first, group in found:
            line = f'<th scope="row">{escape(name)}</th>' + _cell(group["value"], kind="text")
            line += _number(group["share"], ".1%") + _number(group["draws"], ",") + _number(group["model"])
            line += "".join(_number(group.get(m), plus=group.get(f"{m} ±")) for m in ("scrubbed", *measures))
            lines.append(f'<tr class="{"first" if first else ""}">{line}</tr>')
        yield _table(
            f"by {by.column}",
            ("hypothesis", by.column, "share of D", "draws", "f on D", "f scrubbed", *measures),
            lines,
        )
        yield "".join(f"<p>{text}</p>" for name, text in SAID.items() if any(m.startswith(name) for m in measures))


def _claim_tables(document: Any) -> str:
    parts = []
    for row in document["details"]:
        lines = []
        for claim in row["claims"]:
            line = f'<th scope="row">{escape(claim["claim"])}</th>' + _number(len(claim["paths"]), ",")
            for name in ("alone", "without", "gain"):
                value, low, high = (claim[key] for key in (name, f"{name}_low", f"{name}_high"))
                text = "undefined" if value is None else f"{value:z.2f} [{low:z.2f}, {high:z.2f}]"
                line += _cell(text, [value, low, high])
            lines.append(f"<tr>{line}</tr>")
        if lines:
            head = ("claim", "sites", "only this scrubbed, %", "all but this, %", "gain, points")
            said = [(claim["claim"], each) for claim in row["claims"] for each in claim.get("warnings", ())]
            notes = "".join(f"<p>{escape(name)}: {escape(each)}</p>" for name, each in said)
            parts.append(f"<h3>{escape(row['hypothesis'])}</h3>" + _table("claims", head, lines) + notes)
    if not parts:
        return (
            "<h2>What each claim costs</h2><p>Not asked for, since it takes further runs: "
            "<code>pscrub run ... --claims</code>.</p>"
        )
    return (
        "<h2>What each claim costs</h2>"
        "<p>Loss recovered when only this claim is scrubbed and all else is exact, and when "
        "all but this claim are scrubbed. <em>Gain</em>: how much more is recovered if this claim alone is made exact, "
        "on the same random numbers. The claim with the largest gain is the weakest. Costs need not add up.</p>"
        + "".join(parts)
    )


def _nodes(document: Any) -> str:
    parts = []
    for row in document["details"]:
        every = row["nodes"]
        kept = {id(node) for node in sorted(every, key=lambda node: node["donors"])[:SITES]}
        lines = []
        for node in (node for node in every if id(node) in kept):
            line = f'<th scope="row" title="{escape(node["path"])}">{escape(_shorten(node["path"]))}</th>'
            line += _cell(_shorten(", ".join(node["at"])), kind="text") + _cell(_shorten(node["feature"]), kind="text")
            low, high = node["smallest"], node["largest"]
            sizes = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            line += _number(node["blocks"], ",") + _cell(sizes, [low, high]) + _number(node["donors"], ",.1f")
            line += _number(node["own"], ".2%") + _number(node["effective"], ",.0f")
            lines.append(f"<tr>{line}</tr>")
        if lines:
            head = ("site", "stands for", "agrees on", "blocks", "rows a block", "donors", "own datum", "effective")
            more = len(every) - len(lines)
            said = f"<p>and {more} sites with more donors, in <code>result.json</code></p>" if more else ""
            parts.append(f"<h3>{escape(row['hypothesis'])}</h3>" + _table("nodes", head, lines) + said)
    if not parts:
        return ""
    return (
        "<h2>Blocks and donors</h2>"
        "<p>Where each site's datum comes from. <em>Donors</em>: effective number of rows that "
        "can be drawn given the datum it must agree with, averaged over D; 1 means that nothing is ever swapped. "
        "<em>Own datum</em>: share of draws that gave that very datum back. <em>Effective</em>: 1 / Σ p² of all rows "
        "drawn for the site; far fewer than rows in D means that few data stand in for all.</p>" + "".join(parts)
    )


def _worst(document: Any) -> str:
    parts = []
    for row in document["details"]:
        if not row["worst"]:
            continue
        tables = []
        for draw in row["worst"][:WORST]:
            data = list(draw["data"].items())
            columns = [name for name in data[0][1] if name != "row"]
            lines = []
            for path, datum in data[:LEAVES]:
                line = "".join(
                    _cell(_shorten(datum[c], LIST if datum[c].startswith("[") else CELL), kind="data", full=datum[c])
                    for c in columns
                )
                head = f'<th scope="row">{escape(_shorten(path))}</th>' + _cell(str(datum["row"]), datum["row"])
                lines.append(f"<tr>{head}{line}</tr>")
            loss = "not finite" if draw["f"] is None else f"{draw['f']:.4g}"
            more = f"<p>and {len(data) - LEAVES} data more</p>" if len(data) > LEAVES else ""
            tables.append(f"<p>f = {loss}</p>" + _table("worst", ("datum of", "row", *columns), lines) + more)
        parts.append(f"<details open><summary>{escape(row['hypothesis'])}</summary>{''.join(tables)}</details>")
    if not parts:
        return ""
    return (
        "<h2>The worst draws</h2>"
        "<p>The draws with the largest f: first the root's datum, then the data that "
        "that the claims allowed in its place.</p>" + "".join(parts)
    )


def _provenance(document: Any) -> str:
    found = document["provenance"]
    data = f"{found['data']['rows']:,} rows, {found['data']['hash']}"
    items = [
        *(("study", found["study"]), ("started", found["started"]), ("device", found["device"]), ("data", data)),
        ("versions", ", ".join(f"{name} {number}" for name, number in found["versions"].items())),
        ("seconds", ", ".join(f"{phase} {spent:.1f}" for phase, spent in document["seconds"].items())),
    ]
    for name, law in found["laws"].items():
        rounds = "; ".join(found["rounds"][name]) or "no draws: exact"
        items.append((name, f"law {law}; {rounds}"))
    for each in document["rewrites"]:
        change = each["largest_difference_of_f"]
        items.append((f"rewrite: {each['kind']} {each['node']}", f"largest change of f on D {change or 0:.2g}"))
    lines = [f'<tr><th scope="row">{escape(name)}</th>{_cell(text, kind="text")}</tr>' for name, text in items]
    return "<h2>Provenance</h2>" + _table("provenance", (), lines)


def _show_figure(figure: Figure, label: str, caption: str) -> str:
    svg = plots.svg(figure, label).replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(name: str, head: Sequence[str], lines: Sequence[str]) -> str:
    text = {"hypothesis", "claim", "site", "stands for", "agrees on", "datum of"}
    left = [h in text or (name == "worst" and h != "row") for h in head]
    top = "".join(
        f'<th scope="col"{" class=text" if l else ""}>{escape(h)}</th>' for h, l in zip(head, left, strict=True)
    )
    head_row = f"<thead><tr>{top}</tr></thead>" if head else ""
    return (
        f'<div class="wide"><table data-name="{escape(name)}">{head_row}<tbody>{"".join(lines)}</tbody></table></div>'
    )


def _number(value: float | None, form: str = ".4g", plus: float | None = None) -> str:
    if value is None:
        return _cell("", None)
    text = format(value, form) + ("" if plus is None else f" ± {plus:.2g}")
    return _cell(text, value if plus is None else [value, plus])


def _cell(text: str, value: Any = None, kind: str = "", full: str | None = None) -> str:
    attributes = f' class="{kind}"' if kind else ""
    attributes += "" if kind else f' data-value="{escape(json.dumps(value))}"'
    attributes += f' title="{escape(full)}"' if full is not None and full != text else ""
    return f"<td{attributes}>{escape(text)}</td>"


def _shorten(text: str, most: int = CELL) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
