"""Tables of results, for the terminal and for Markdown, and what has to be said under them."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from pscrub.hypothesis.study import E_SCRUBBED
from pscrub.questions.worked import Agreement
from pscrub.result.result import HEAD, ScrubResult, StudyResult, cells

KNOWN = ("exact", "agrees")
"""Columns of a worked example's table besides the usual ones."""

FIGURES = ("hypothesis", "figure", "formula", "enumerated", "measured", "interval", "agrees")
"""Columns of the table of all that a worked example expects."""


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
