"""Heads found by measuring: which attend to the token before, and which to what came after the query's first time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pscrub.studies.induction.model import HEADS, LAYERS, Induction
from pscrub.studies.induction.rows import LENGTH, MATCH

ATTENDS = 0.4
"""From what mean share of its attention on a head is said to attend to a place."""
AT_ONCE = 256


@dataclass(frozen=True)
class Heads:
    """What was measured on the rows for selection.

    Args:
        previous: heads of the first layer that attend, from the match, to the token before it.
        induction: heads of the second layer that attend, from the query, to the match.
    """

    previous: tuple[int, ...]
    induction: tuple[int, ...]


@torch.no_grad()
def mean_patterns(model: Induction, tokens: Tensor) -> Tensor:
    """float64 [2, 8, 31, 31]: mean attention by layer and head, from a place to a place, over rows int64 [N, 31]."""
    patterns = torch.zeros(LAYERS, HEADS, LENGTH, LENGTH, dtype=torch.float64)
    for rows in tokens.split(AT_ONCE):
        with _patterns(model) as seen:
            model(rows)
        patterns += torch.stack(seen).double().sum(1) / len(tokens)
    return patterns


def attention_shares(model: Induction, tokens: Tensor) -> dict[str, Tensor]:
    """Mean attention over rows int64 [N, 31], each float64 [2, 8] by layer and head.

    "to the token before" is from the match to the place before it, "to the match" from the last place to the match,
    "to itself" from the last place to itself.
    """
    patterns = mean_patterns(model, tokens)
    return {
        "to the token before": patterns[:, :, MATCH, MATCH - 1],
        "to the match": patterns[:, :, -1, MATCH],
        "to itself": patterns[:, :, -1, -1],
    }


def find_heads(model: Induction, tokens: Tensor) -> Heads:
    """Heads by where they attend over rows int64 [N, 31]: those over ATTENDS, or else the one that does so most."""
    shares = attention_shares(model, tokens)
    return Heads(_most(shares["to the token before"][0]), _most(shares["to the match"][1]))


def _most(shares: Tensor) -> tuple[int, ...]:
    order = shares.argsort(descending=True).tolist()
    return tuple(head for place, head in enumerate(order) if place == 0 or shares[head] > ATTENDS)


@contextmanager
def _patterns(model: Induction) -> Iterator[list[Tensor]]:
    """A list that a forward fills with each layer's pattern [N, head, position, position]."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        seen.append(made)

    handles = [
        model.blocks[layer].get_submodule("attn.hook_pattern").register_forward_hook(keep) for layer in range(LAYERS)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
