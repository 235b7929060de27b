"""Prints and draws what is measured of the shipped model: frequencies of numbers, logits, neurons, attention scores.

python -m pscrub.studies.modular_addition.pictures docs/studies/modular_addition.svg
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
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
    waves,
)
from pscrub.studies.modular_addition.ladder import Found
from pscrub.studies.modular_addition.model import EQUALS, ModularAddition, P, all_pairs
from pscrub.studies.modular_addition.study import find, halves, load_subject

WELL = 0.85
"""From what share of its variance on a neuron is said to be of one frequency."""


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


@torch.no_grad()
def head_scores(model: ModularAddition) -> Tensor:
    """float32 [113, 4]: the attention score that "=" gives a number at the first place, by head."""
    attention = model.blocks[0].get_submodule("attn")
    query_weights, key_weights, _, _ = attention.parameters()
    query = torch.einsum("d,hde->he", model.embed.W_E[EQUALS] + model.pos_embed.W_pos[2], query_weights)
    keys = torch.einsum("nd,hde->nhe", model.embed.W_E[:P] + model.pos_embed.W_pos[0], key_weights)
    scores: Tensor = (keys * query).sum(-1) / query.shape[1] ** 0.5
    return scores


def tell_frequencies(model: ModularAddition, rows: Tensor) -> Iterator[str]:
    """Returns lines of what the figure shows, each with its newline; shares in per cent.

    Args:
        model: whose.
        rows: as in `draw_frequencies`.
    """
    found, tokens = find(model, rows), all_pairs()[rows]
    for name, shares in (("embedding", embedding_shares(model)), ("logits", logit_shares(model, tokens))):
        yield f"{name}: keys {_say(shares, found.keys)}, doubles {_say(shares, found.doubles)}\n"
    shares, best = neuron_shares(model, tokens), neuron_shares(model, tokens, found.keys).max(0).values
    yield f"neurons: {int((shares.max(0).values > WELL).sum())} of {len(best)} are explained to over {WELL:.0%} by a "
    yield f"frequency; {int((best > WELL).sum())} by a key; by their key to {best.median():.0%} in the median\n"
    scores = head_scores(model).double()
    scores -= scores.mean(0)
    for head in range(scores.shape[1]):
        at = [(waves(torch.arange(P), k).T @ scores[:, head]).square().sum() * 2 / P for k in FREQUENCIES]
        of = torch.stack([scores.new_zeros(()), *at]) / scores[:, head].square().sum()
        yield f"scores of h{head}: keys {_say(of, found.keys)}, doubles {_say(of, found.doubles)}\n"


def _say(shares: Tensor, frequencies: Sequence[int]) -> str:
    each = ", ".join(f"{k}: {100 * shares[k]:.1f}" for k in frequencies)
    return f"{100 * shares[list(frequencies)].sum():.1f} ({each})"


def _spectrum(axes: Any, shares: Tensor, found: Found, title: str) -> None:
    colour = {k: f"C{place}" for place, k in enumerate(found.keys)}
    axes.bar(list(FREQUENCIES), shares[1:], color=[colour.get(k, "0.55") for k in FREQUENCIES])
    for k in (*found.keys, *found.doubles):
        if shares[k] > 0.01:
            axes.annotate(str(k), (k, float(shares[k])), ha="center", va="bottom")
    axes.set(title=title, xlabel="frequency", ylabel="share of variance")


def main() -> None:
    """Returns nothing: prints what was measured of the shipped model, and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="where to write it; its ending says in what format")
    options = parser.parse_args()
    with matplotlib.rc_context({"svg.hashsalt": "pscrub"}):
        model, rows = load_subject(), halves()[0]
        sys.stdout.writelines(tell_frequencies(model, rows))
        made = draw_frequencies(model, rows)
        made.savefig(options.file, metadata={"Date": None} if options.file.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
