"""Draws docs/studies/induction.svg: where heads attend on a row of random tokens that repeats, and shares by head.

python docs/studies/draw_induction.py
"""

from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pscrub.studies.induction.heads import attention_shares, find_heads, mean_patterns
from pscrub.studies.induction.model import HEADS, Induction
from pscrub.studies.induction.rows import random_rows
from pscrub.studies.induction.study import SELECTED, choose_model

FILE = Path(__file__).with_name("induction.svg")


def draw_attention(model: Induction, tokens: Tensor) -> Figure:
    """A figure of four parts: shares of attention by head in each layer, and the patterns of a head of each.

    Args:
        model: whose.
        tokens: int64 [N, 31], on which heads are measured and found; patterns are means over them.
    """
    found, shares, patterns = find_heads(model, tokens), attention_shares(model, tokens), mean_patterns(model, tokens)
    figure = Figure(figsize=(10, 7.2), layout="constrained")
    (first, second), (third, fourth) = figure.subplots(2, 2, height_ratios=(1, 2.2))
    chosen = (found.previous, found.induction)
    for layer, (axes, name) in enumerate(zip((first, second), ("to the token before", "to the match"), strict=True)):
        colours = ["C0" if head in chosen[layer] else "0.6" for head in range(HEADS)]
        axes.bar(range(HEADS), shares[name][layer], color=colours)
        axes.set(title=f"layer {layer}, {name}", xlabel="head", ylabel="mean attention", ylim=(0, 1))
        axes.spines[["top", "right"]].set_visible(False)
    for layer, axes in enumerate((third, fourth)):
        head = chosen[layer][0]
        axes.imshow(patterns[layer, head], cmap="Blues", vmin=0, vmax=1)
        axes.set(title=f"head {layer}.{head}, mean pattern", xlabel="attends to place", ylabel="from place")
    return figure


if __name__ == "__main__":
    with matplotlib.rc_context({"svg.hashsalt": "pscrub"}), torch.no_grad():
        draw_attention(choose_model(), random_rows("selection", SELECTED)).savefig(FILE, metadata={"Date": None})
