"""Pictures of a result for reports and notebooks, as matplotlib figures.

Colours are those that colour-blind readers tell apart, with line styles and marks beside them for readers in grey.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from pscrub.questions.resolution import OWN, Resolution
from pscrub.questions.specificity import Frontier
from pscrub.report import figures
from pscrub.result.result import ScrubResult, StudyResult

BLUE, ORANGE, GREEN, PINK, SKY, RED, BLACK = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7"),
    *("#56B4E9", "#D55E00", "#222222"),
)
"""Of Okabe and Ito."""
MARKS = "osD^vP*X<>"
LAWS = {"D": (BLACK, "--", "on D"), "scrubbed": (BLUE, "-", "scrubbed"), "randomised": (ORANGE, ":", "randomised")}
WIDTH = 8.2
"""Inches, of every figure."""
STYLE: Any = {
    "font.size": 9,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}
STEPS = 300
"""Points to which a distribution's curve is thinned."""


class Picture(Figure):
    """A figure that notebooks show, whatever backend matplotlib has."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def forest(result: StudyResult) -> Figure:
    """Loss recovered of each hypothesis with its interval, between 0 (randomised) and 100 (the model)."""
    shown = [each for each in result.results if each.recovered is not None]
    with _figure(1.0 + 0.32 * len(shown)) as figure:
        axes = figure.subplots()
        for value, text in ((0, "randomised"), (100, "model")):
            axes.axvline(value, color="0.6", lw=1, ls=":")
            axes.text(value, -0.75, text, ha="center", va="bottom", color="0.35")
        for i, each in enumerate(shown):
            score = each.recovered
            assert score is not None
            if math.isfinite(score.width):
                axes.plot([score.low, score.high], [i, i], color=BLUE, lw=2, solid_capstyle="butt")
            axes.plot([score.value], [i], "D" if score.exact else "o", color=BLUE, ms=5)
            interval = score.ends(".2f")
            at = axes.get_yaxis_transform()
            axes.text(1.02, i, f"{score.value:.2f}  {interval}", transform=at, va="center", ha="left")
        axes.set(yticks=range(len(shown)), yticklabels=[_cut_short(each.hypothesis, 44) for each in shown])
        axes.set(ylim=(len(shown) - 0.4, -0.8), xlabel=f"loss recovered, %, with {100 * result.level:g} % interval")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return figure


def convergence(result: StudyResult) -> Figure:
    """The interval of each hypothesis as draws came in, beside the final one."""
    shown = [each for each in result.results if each.draws.rounds]

    def panel(axes: Axes, each: ScrubResult) -> None:
        points = figures.convergence_figures(each, result.level)
        names = (
            ("recovered", "low", "high") if "recovered" in points[0] else ("scrubbed", "scrubbed_low", "scrubbed_high")
        )
        final = each.recovered if names[0] == "recovered" and each.recovered is not None else each.scrubbed
        n = [point["draws"] for point in points]
        value, low, high = ([point[name] for point in points] for name in names)
        if math.isfinite(final.width):  # an interval without ends is everywhere
            axes.axhspan(final.low, final.high, color=ORANGE, alpha=0.35, lw=0)
        if final.exact:
            axes.axhline(final.value, color=ORANGE, lw=1.2)
        ends = [(a, b) if math.isfinite(b - a) else (math.nan, math.nan) for a, b in zip(low, high, strict=True)]
        axes.fill_between(n, [a for a, _ in ends], [b for _, b in ends], color=BLUE, alpha=0.25, lw=0)
        axes.plot(n, value, "o-", color=BLUE, ms=2.5, lw=1.2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if math.isfinite(final.value) and len(n) > 3:  # the first few points would leave the rest a line
            width = max((b - a for a, b in ends[2:] if b > a), default=0.0) or 1.0
            axes.set_ylim(final.value - width, final.value + width)

    return _panels(shown, panel, "draws", "loss recovered, %")


def distributions(result: StudyResult) -> Figure:
    """The share of f at most x under D, under each hypothesis' law and under the baseline."""
    shown = [each for each in result.results if len(each.draws.losses)]
    every = [f[w > 0] for each in shown for f, w in figures.samples(result, each).values()]
    log = bool(every) and _is_wide(torch.cat(every))

    def panel(axes: Axes, each: ScrubResult) -> None:
        for name, (f, weights) in figures.samples(result, each).items():
            colour, style, label = LAWS[name]
            x, share = _cumulative(f, weights)
            axes.step(x, share, where="post", color=colour, ls=style, lw=1.6, label=label)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=5))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0, 1.02)

    return _panels(shown, panel, "f", "share at most f", legend=True)


def by_group(result: StudyResult, column: str) -> Figure:
    """Mean f by the values of a column, on D and under each hypothesis' law."""
    shown = [each for each in result.results if len(each.draws.losses)]
    names = next(g.names for g in result.reference.groups if g.column == column)
    tables = [[row for row in figures.groups(result, each) if row["column"] == column] for each in shown]
    with _figure(1.3 + 0.32 * len(shown)) as figure:
        axes = figure.subplots()
        colours = (BLUE, ORANGE, GREEN, PINK, SKY, RED, BLACK)
        offsets = np.linspace(-0.22, 0.22, len(names)) if len(names) > 1 else [0.0]
        for i, name in enumerate(names):
            rows = [table[i] for table in tables]
            y = np.arange(len(shown)) + offsets[i]
            x = [math.nan if row["scrubbed"] is None else row["scrubbed"] for row in rows]
            half = [row["scrubbed ±"] or 0.0 for row in rows]
            look: Any = {"color": colours[i % len(colours)], "marker": MARKS[i % len(MARKS)], "ms": 4.5}
            axes.errorbar(x, y, xerr=half, ls="", lw=1.4, label=_cut_short(name, 20), **look)
            for row in rows[:1]:  # the model's own, the same for all
                axes.axvline(row["model"], color=look["color"], lw=1, ls=":")
        axes.set(yticks=range(len(shown)), yticklabels=[_cut_short(each.hypothesis, 44) for each in shown])
        axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="mean f of scrubbed draws (dotted: of the model)")
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper right", ncols=min(len(names), 6), title=column)
    return figure


def plot_frontier(found: Frontier) -> Figure:
    """Loss recovered against scrubbed entropy: each hypothesis with its interval, the frontier joined by a line."""
    shown = [row for row in found.rows if row.recovered is not None]
    with _figure(2.2 + 0.26 * len(shown)) as figure:
        axes = figure.subplots()
        best = sorted((row for row in shown if row.on_frontier), key=lambda row: row.bits)
        heights = [row.recovered.value for row in best if row.recovered is not None]
        axes.step([row.bits for row in best], heights, color="0.7", lw=1, where="pre")
        for i, row in enumerate(shown):
            score = row.recovered
            assert score is not None
            colour = BLUE if row.on_frontier else ORANGE
            label = _cut_short(row.name, 44)
            half = [[score.value - score.low], [score.high - score.value]]
            inside = colour if row.on_frontier else "white"
            look: Any = {"color": colour, "marker": MARKS[i % len(MARKS)], "ms": 6, "mfc": inside}
            axes.errorbar([row.bits], [score.value], yerr=half, ls="", lw=1.4, label=label, **look)
        axes.set(xlabel="entropy of the scrubbed inputs, bits", ylabel="loss recovered, %")
        if shown and max(r.bits for r in shown) > 8 * min(r.bits for r in shown):
            axes.set_xscale("log")
        figure.legend(loc="outside lower center", ncols=2, title="filled: on the frontier")
    return figure


def plot_resolution(found: Sequence[Resolution]) -> Figure:
    """Loss recovered, and entropy of the scrubbed inputs, against the number of bins: a line for each hypothesis.

    Hollow where a tenth of the draws or more give a row back to itself; dashed with random offsets.
    """
    names = [*dict.fromkeys(row.bins for each in found for row in each.rows)]
    places = sorted(names, key=lambda k: math.inf if k is None else k)
    with _figure(3.4 + 0.2 * len(found)) as figure:
        left, right = figure.subplots(1, 2)
        for i, each in enumerate(found):
            colour = (BLUE, ORANGE, GREEN, PINK, SKY, RED, BLACK)[i % 7]
            for random in (False, True):
                rows = [row for row in each.rows if row.random is random and row.recovered is not None]
                if not rows:
                    continue
                x = np.array([places.index(row.bins) for row in rows]) + (0.12 if random else 0.0)
                scores = [row.recovered for row in rows if row.recovered is not None]
                y = [score.value for score in scores]
                half = [[s.value - s.low for s in scores], [s.high - s.value for s in scores]]
                style, label = ("--", ", random offset") if random else ("-", "")
                look: Any = {"color": colour, "ls": style, "lw": 1.4}
                left.errorbar(x, y, yerr=half, capsize=2, **look)
                right.plot(x, [row.bits for row in rows], label=_cut_short(each.hypothesis, 44) + label, **look)
                for axes, heights in ((left, y), (right, [row.bits for row in rows])):
                    for at, height, row in zip(x, heights, rows, strict=True):
                        inside = "white" if row.own is not None and row.own > OWN else colour
                        axes.plot([at], [height], MARKS[i % len(MARKS)], color=colour, mfc=inside, ms=4.5)
        for axes, said in ((left, "loss recovered, %"), (right, "entropy of the scrubbed inputs, bits")):
            axes.set(xticks=range(len(places)), xticklabels=["all" if k is None else str(k) for k in places])
            axes.set(xlabel="bins", ylabel=said)
        figure.legend(loc="outside lower center", ncols=2, title="hollow: 10 % of draws or more swap nothing")
    return figure


def _panels(
    shown: Sequence[ScrubResult],
    panel: Callable[[Axes, ScrubResult], None],
    xlabel: str,
    ylabel: str,
    legend: bool = False,
) -> Figure:
    columns = min(3, max(len(shown), 1))
    lines = max(math.ceil(len(shown) / columns), 1)
    with _figure(0.6 + 1.75 * lines) as figure:
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        for axes, each in zip(grid.flat, shown, strict=False):
            panel(axes, each)
            axes.set_title(_cut_short(each.hypothesis, 36))
        figure.supxlabel(xlabel, fontsize=9)
        figure.supylabel(ylabel, fontsize=9)
        if legend and shown:
            figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element for a page.

    Args:
        figure: one of this module's.
        name: salts the names of what the figure defines, so that several can stand in one page.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


@contextmanager
def _figure(height: float) -> Iterator[Figure]:
    """A figure in this module's style. Nothing of pyplot's is touched."""
    with matplotlib.rc_context(STYLE):
        yield Picture(figsize=(WIDTH, height), layout="constrained")


def _is_wide(f: Tensor) -> bool:
    """Whether values are positive and span orders of magnitude."""
    f = f[f.isfinite()]
    return len(f) > 0 and float(f.min()) > 0 and float(f.max()) > 100 * float(f.min())


def _cumulative(f: Tensor, weights: Tensor) -> tuple[Any, Any]:
    here = (weights > 0) & f.isfinite()
    order = f[here].argsort()
    x, mass = f[here][order].numpy(), weights[here][order].cumsum(0).numpy()
    if len(x) > STEPS:
        places = np.searchsorted(mass, np.linspace(0, mass[-1], STEPS)).clip(max=len(x) - 1)
        places = np.unique([0, *places, len(x) - 1])
        x, mass = x[places], mass[places]
    return x, mass


def _cut_short(text: str, most: int) -> str:
    text = text.replace("$", r"\$")  # matplotlib would read mathematics between two
    return text if len(text) <= most else text[: most - 1] + "…"
