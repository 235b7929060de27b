"""Draws docs/studies/max_of_k.svg: what the head scores and copies, and losses, drawn and at worst, against bits.

python docs/studies/draw_max_of_k.py
"""

from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure

from pscrub.questions import Pessimal, scrub_pessimally
from pscrub.studies import load
from pscrub.studies.max_of_k.model import D_MODEL, NUMBERS, K, MaxOfK, load_max_model
from pscrub.studies.max_of_k.study import SHIPPED

FILE = Path(__file__).with_name("max_of_k.svg")


@torch.no_grad()
def draw_head(axes: Any, copies: Any, model: MaxOfK) -> None:
    """Draws the score of each number at the first place, by what is asked with, and the logits that its value gives."""
    numbers = torch.arange(NUMBERS)[:, None].expand(-1, K)
    first, last = model.embed(numbers, 0), model.embed(numbers, K - 1)
    scores = (first @ model.W_K) @ (last @ model.W_Q).T / D_MODEL**0.5
    for query in range(NUMBERS):
        axes.plot(scores[:, query], marker="o", ms=3, label=f"from {query}")
    axes.set(xlabel="number at the first place", ylabel="attention score of the last place", title="what is looked at")
    axes.legend(frameon=False, fontsize=8)
    written = first @ model.W_V @ model.W_O @ model.W_U
    most = float(written.abs().max())
    copies.imshow(written, cmap="RdBu_r", vmin=-most, vmax=most)
    copies.set(xlabel="answer", ylabel="number attended to", title="logits of its value")


def draw_losses(axes: Any, found: Pessimal) -> None:
    """Draws the drawn and the worst loss of each hypothesis that was listed against the bits that it permits."""
    for row in found.rows:
        if row.ends is not None:
            axes.plot([row.excess] * 2, [row.ends.scrubbed, row.ends.greatest], color="0.7", lw=1, zorder=1)
            axes.scatter(row.excess, row.ends.scrubbed, color="C0", s=18)
            axes.scatter(row.excess, row.ends.greatest, color="C3", s=18, marker="^")
            axes.annotate(row.name.split()[0], (row.excess, row.ends.greatest), fontsize=8, ha="left", va="bottom")
    axes.axhline(found.model.value, color="0.7", ls=":")
    axes.axhline(found.randomised.value, color="0.7", ls=":")
    axes.set(yscale="log", xlabel="bits of scrubbed entropy above H(D)", ylabel="loss", title="drawn (●) and worst (▲)")


if __name__ == "__main__":
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    first_axes, second_axes, third_axes = figure.subplots(1, 3)
    draw_head(first_axes, second_axes, load_max_model(SHIPPED))
    draw_losses(third_axes, scrub_pessimally(load("max_of_k")))
    with matplotlib.rc_context({"svg.hashsalt": "pscrub"}):
        figure.savefig(FILE, metadata={"Date": None})
