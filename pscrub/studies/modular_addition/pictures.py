"""Draws what was measured of the shipped model: frequencies of numbers, logits and neurons, and one head's attention.

python -m pscrub.studies.modular_addition.pictures docs/studies/modular_addition.svg
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pscrub.studies.modular_addition.frequencies import (
    FREQUENCIES,
    embedding_shares,
    logit_shares,
    neuron_shares,
)
from pscrub.studies.modular_addition.ladder import Found
from pscrub.studies.modular_addition.model import EQUALS, ModularAddition, P, all_pairs
from pscrub.studies.modular_addition.study import find, halves, load_subject


def draw_frequencies(model: ModularAddition, rows: Tensor) -> Figure:
    """A figure of four parts: shares by frequency of the embedding and of the logits, neurons, a head's attention.

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


@torch.no_grad()
def head_scores(model: ModularAddition) -> Tensor:
    """float32 [113, 4]: the attention score that "=" gives a number at the first place, by head."""
    attention = model.blocks[0].get_submodule("attn")
    query_weights, key_weights, _, _ = attention.parameters()
    query = torch.einsum("d,hde->he", model.embed.W_E[EQUALS] + model.pos_embed.W_pos[2], query_weights)
    keys = torch.einsum("nd,hde->nhe", model.embed.W_E[:P] + model.pos_embed.W_pos[0], key_weights)
    scores: Tensor = (keys * query).sum(-1) / query.shape[1] ** 0.5
    return scores


def _spectrum(axes: Any, shares: Tensor, found: Found, title: str) -> None:
    colour = {k: f"C{place}" for place, k in enumerate(found.keys)}
    axes.bar(list(FREQUENCIES), shares[1:], color=[colour.get(k, "0.55") for k in FREQUENCIES])
    for k in (*found.keys, *found.doubles):
        if shares[k] > 0.01:
            axes.annotate(str(k), (k, float(shares[k])), ha="center", va="bottom")
    axes.set(title=title, xlabel="frequency", ylabel="share of variance")


def main() -> None:
    """Returns nothing: writes the picture of the shipped model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where to write it; its ending says in what format")
    options = parser.parse_args()
    with matplotlib.rc_context({"svg.hashsalt": "pscrub"}):
        made = draw_frequencies(load_subject(), halves()[0])
        made.savefig(options.file, metadata={"Date": None} if options.file.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
