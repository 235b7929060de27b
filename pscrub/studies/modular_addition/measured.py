"""Prints what is measured of the shipped model, or another: frequencies of numbers, logits, neurons, attention scores.

python -m pscrub.studies.modular_addition.measured
python -m pscrub.studies.modular_addition.measured --weights FILE --keys 4
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pscrub.studies.modular_addition.frequencies import (
    FREQUENCIES,
    embedding_shares,
    logit_shares,
    neuron_shares,
    waves,
)
from pscrub.studies.modular_addition.model import EQUALS, ModularAddition, P, all_pairs
from pscrub.studies.modular_addition.study import KEYS, SHIPPED, find, halves, load_subject

WELL = 0.85
"""From what share of its variance on a neuron is said to be of one frequency."""


def tell_frequencies(model: ModularAddition, rows: Tensor, keys: int = KEYS) -> Iterator[str]:
    """Returns lines of what is measured, each with its newline; shares of variance in per cent.

    Args:
        model: whose.
        rows: int64 [N] of `all_pairs`, on which logits and neurons are measured, and key frequencies found.
        keys: how many of these.
    """
    found, tokens = find(model, rows, keys), all_pairs()[rows]
    for name, shares in (("embedding", embedding_shares(model)), ("logits", logit_shares(model, tokens))):
        others = [k for k in FREQUENCIES if k not in (*found.keys, *found.doubles)]
        most = max(others, key=lambda k: float(shares[k]))
        yield f"{name}: keys {_say(shares, found.keys)}, doubles {_say(shares, found.doubles)}, "
        yield f"of the others most {100 * shares[most]:.2f} ({most})\n"
    shares, best = neuron_shares(model, tokens), neuron_shares(model, tokens, found.keys).max(0).values
    yield f"neurons: {int((shares.max(0).values > WELL).sum())} of {len(best)} are explained to over {WELL:.0%} by a "
    yield f"frequency; {int((best > WELL).sum())} by a key; by their key to {best.median():.0%} in the median\n"
    yield f"clusters: {', '.join(f'{k}: {len(own)}' for k, own in found.clusters.items())} neurons\n"
    scores = head_scores(model).double()
    scores -= scores.mean(0)
    for head in range(scores.shape[1]):
        at = [(waves(torch.arange(P), k).T @ scores[:, head]).square().sum() * 2 / P for k in FREQUENCIES]
        of = torch.stack([scores.new_zeros(()), *at]) / scores[:, head].square().sum()
        yield f"scores of h{head}: keys {_say(of, found.keys)}, doubles {_say(of, found.doubles)}\n"


@torch.no_grad()
def head_scores(model: ModularAddition) -> Tensor:
    """float32 [113, 4]: the attention score that "=" gives a number at the first place, by head."""
    attention = model.blocks[0].get_submodule("attn")
    query_weights, key_weights, _, _ = attention.parameters()
    query = torch.einsum("d,hde->he", model.embed.W_E[EQUALS] + model.pos_embed.W_pos[2], query_weights)
    keys = torch.einsum("nd,hde->nhe", model.embed.W_E[:P] + model.pos_embed.W_pos[0], key_weights)
    scores: Tensor = (keys * query).sum(-1) / query.shape[1] ** 0.5
    return scores


def _say(shares: Tensor, frequencies: Sequence[int]) -> str:
    each = ", ".join(f"{k}: {100 * shares[k]:.1f}" for k in frequencies)
    return f"{100 * shares[list(frequencies)].sum():.1f} ({each})"


def main() -> None:
    """Returns nothing: prints what was measured of a model, on the pairs for selection."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="safetensors (default: the shipped ones)")
    parser.add_argument("--keys", type=int, default=KEYS, help=f"how many frequencies are key ones (default: {KEYS})")
    options = parser.parse_args()
    try:
        model = load_subject(weights=options.weights)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.writelines(tell_frequencies(model, halves()[0], options.keys))


if __name__ == "__main__":
    main()
