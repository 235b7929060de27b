"""Draws docs/studies/modular_addition.svg: frequencies of numbers and logits, neurons, and attention scores.

python docs/studies/draw_modular_addition.py
"""

from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pscrub.studies.modular_addition.frequencies import FREQUENCIES, embedding_shares, logit_shares, neuron_shares
from pscrub.studies.modular_addition.ladder import Found
from pscrub.studies.modular_addition.measured import head_scores
from pscrub.studies.modular_addition.model import ModularAddition, P, all_pairs
from pscrub.studies.modular_addition.study import find, halves, load_subject

FILE = Path(__file__).with_name("modular_addition.svg")


def draw_frequencies(model: ModularAddition, rows: Tensor) -> Figure:
    """A figure of four parts: shares by frequency of the embedding and of the logits, neurons, attention scores.

    Args:
        model: whose.
        rows: int64 [N] of `all_pairs`, on which logits and neurons are measured, and key frequencies found.
    """
    found, tokens = find(model, rows), all_pairs()[rows]
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    (first, second), (third, fourth) = figure.subplots(2, 2)
    _spectrum(first, embedding_shares(model), found, "embedding of the numbers")
    _spectrum(second, logit_shares(model, tokens), found, "logits, by the answer")
    shares = neuron_shares(model, tokens, found.keys)
    for place, k in enumerate(found.keys):
        own = shares[place, found.clusters[k]].sort(descending=True).values
        third.plot(own, color=f"C{place}", label=f"cluster {k}: {len(own)} neurons")
    third.set(xlabel="neurons of a cluster, sorted", ylabel="variance that its key explains", ylim=(0, 1))
    third.legend(frameon=False)
    numbers = torch.arange(P)
    score = head_scores(model)
    for head in range(score.shape[1]):
        fourth.plot(numbers, score[:, head] - score[:, head].mean(), label=f"h{head}", lw=1.2)
    fourth.set(xlabel="number", ylabel='attention score from "="', ylim=(-2.5, 3.2))
    fourth.legend(frameon=False, ncols=4)
    for axes in (first, second, third, fourth):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _spectrum(axes: Any, shares: Tensor, found: Found, title: str) -> None:
    colour = {k: f"C{place}" for place, k in enumerate(found.keys)}
    axes.bar(list(FREQUENCIES), shares[1:], color=[colour.get(k, "0.55") for k in FREQUENCIES])
    for k in (*found.keys, *found.doubles):
        if shares[k] > 0.01:
            axes.annotate(str(k), (k, float(shares[k])), ha="center", va="bottom")
    axes.set(title=title, xlabel="frequency", ylabel="share of variance")


if __name__ == "__main__":
    with matplotlib.rc_context({"svg.hashsalt": "pscrub"}):
        draw_frequencies(load_subject(), halves()[0]).savefig(FILE, metadata={"Date": None})
