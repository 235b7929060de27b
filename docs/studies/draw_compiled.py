"""Draws docs/studies/compiled.svg: of every edge of the five compiled programs, the share of pairs that notice it.

python docs/studies/draw_compiled.py
"""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pscrub.studies.compiled.circuits import find_sources, list_edges
from pscrub.studies.compiled.ladder import Ladder
from pscrub.studies.compiled.measured import count_edge
from pscrub.studies.compiled.model import PROGRAMS, load_program

FILE = Path(__file__).with_name("compiled.svg")


def draw_edges(axes: Any, ladder: Ladder) -> Any:
    """Draws readers by sources, coloured by the share of pairs in which an answer is another one; true edges framed.

    Args:
        axes: matplotlib's.
        ladder: of the program, on the sequences whose pairs are counted.

    Returns:
        What was drawn, for a bar of its colours.
    """
    edges = list_edges(ladder.program)
    readers, sources = list(dict.fromkeys(edge.reader for edge in edges)), find_sources(ladder.program)
    shares = [[float("nan")] * len(sources) for _ in readers]
    for edge in edges:
        counted, place = count_edge(ladder, edge), (readers.index(edge.reader), sources.index(edge.source))
        shares[place[0]][place[1]] = counted.noticed / counted.pairs
        if edge in ladder.true:
            axes.add_patch(Rectangle((place[1] - 0.45, place[0] - 0.45), 0.9, 0.9, fill=False, ec="C3", lw=2))
    drawn = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.set(xticks=range(len(sources)), yticks=range(len(readers)), title=ladder.program.name)
    axes.set_xticklabels(sources, rotation=45, ha="right")
    axes.set_yticklabels(readers)
    axes.set_facecolor("0.9")  # where there is no edge
    axes.spines[:].set_visible(False)
    return drawn


if __name__ == "__main__":
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    for own, name in zip(panels, PROGRAMS, strict=False):
        seen = draw_edges(own, Ladder(load_program(name)))
    panels[-1].set_visible(False)
    figure.colorbar(seen, ax=panels[-1], label="share of pairs in which an answer is another one")
    with matplotlib.rc_context({"svg.hashsalt": "pscrub"}):
        figure.savefig(FILE, metadata={"Date": None})
