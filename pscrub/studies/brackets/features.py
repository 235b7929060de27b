"""What bracket strings are claimed to be told by: shares of open brackets, and verdicts on each position."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from pscrub.studies.brackets.model import (
    CLOSE,
    CONTEXT,
    D_HEAD,
    D_MODEL,
    END,
    LONGEST,
    OPEN,
    PADDING,
    BracketClassifier,
)


def lengths(tokens: Tensor) -> Tensor:
    """int64 [N]: brackets in each string."""
    return ((tokens == OPEN) | (tokens == CLOSE)).sum(1)


def open_shares(tokens: Tensor) -> Tensor:
    """float64 [N, 42]: p_i, the share of "(" among the brackets at position i or later; 1/2 where there are none."""
    opened = (tokens == OPEN).double().flip(1).cumsum(1).flip(1)
    brackets = ((tokens == OPEN) | (tokens == CLOSE)).double().flip(1).cumsum(1).flip(1)
    return torch.where(brackets > 0, opened / brackets.clamp(min=1), 0.5)


def count(tokens: Tensor) -> Tensor:
    """bool [N]: as many "(" as ")"."""
    return open_shares(tokens)[:, 1] == 0.5


def starts_open(tokens: Tensor) -> Tensor:
    """bool [N]: the first bracket is "("."""
    return tokens[:, 1] == OPEN


def horizon(tokens: Tensor) -> Tensor:
    """bool [N]: no suffix holds more "(" than ")"."""
    return (open_shares(tokens) <= 0.5).all(1)


def share_if_open(tokens: Tensor) -> Tensor:
    """float64 [N]: p_1 of a string that starts open; -1 for every other."""
    return torch.where(starts_open(tokens), open_shares(tokens)[:, 1], -1.0)


OTHER, END_AFTER_OPEN, END_AFTER_CLOSE, MORE_OPEN, NOT_MORE_OPEN = range(5)


def verdicts(tokens: Tensor, shares: Tensor) -> Tensor:
    """int64 [N, 42]: of each position: padding; end after "("; end after ")"; p_i > 1/2; p_i <= 1/2.

    Args:
        tokens: int64 [N, 42].
        shares: float64 [N, 42], p_i or what is taken for it.
    """
    before = torch.roll(tokens, 1, 1)
    code = torch.where(shares > 0.5, MORE_OPEN, NOT_MORE_OPEN)
    code = torch.where(tokens == END, torch.where(before == OPEN, END_AFTER_OPEN, END_AFTER_CLOSE), code)
    return torch.where(tokens == PADDING, OTHER, code)


def no_bad_verdict(codes: Tensor) -> Tensor:
    """bool [N]: no position's verdict is "end after (" or "p_i > 1/2"."""
    return ~((codes == END_AFTER_OPEN) | (codes == MORE_OPEN)).any(1)


@torch.no_grad()
def first_layer_reads(model: BracketClassifier, token: int, place: Tensor) -> Tensor:
    """float32 [..., 56]: a token's embedding at positions embedded as `place` [..., 56], LayerNormed."""
    weights = model.state_dict()
    scale, shift = weights["blocks.0.ln1.w"], weights["blocks.0.ln1.b"]
    return layer_norm(weights["embed.W_E"][token] + place, (D_MODEL,), scale, shift, 1e-5)


@torch.no_grad()
def seen_shares(tokens: Tensor, model: BracketClassifier, head: int, exact_ties: bool) -> Tensor:
    """float64 [N, 42]: the share of "(" that a head of the first layer sees from an open bracket at each position.

    The sum over positions j holding "(" of w[length, i, j]: the head's mean attention from a "(" at i to brackets
    before i, and from i on, as two means, normalised over the string's brackets. Keys are the average of the
    LayerNormed "(" and ")" embeddings at a position. The start token sees every bracket alike.

    From the start of a balanced string, and after each balanced prefix of it, the sum is 1/2 by mathematics, and by
    rounding a little more or less. With `exact_ties` it is 1/2.
    """
    weights = model.state_dict()
    attention = {name: weights[f"blocks.0.attn.{name}"][head] for name in ("W_Q", "b_Q", "W_K", "b_K")}
    opened, closed = (first_layer_reads(model, token, weights["pos_embed.W_pos"]) for token in (OPEN, CLOSE))
    query = opened @ attention["W_Q"] + attention["b_Q"]
    key = (opened + closed) / 2 @ attention["W_K"] + attention["b_K"]
    weight = (query @ key.T / math.sqrt(D_HEAD)).double().exp()
    i, j = torch.arange(CONTEXT)[:, None], torch.arange(CONTEXT)[None]
    table = torch.zeros(LONGEST + 1, CONTEXT, CONTEXT, dtype=torch.float64)
    for length in range(1, LONGEST + 1):
        bracket = (j >= 1) & (j <= length)
        for side in (bracket & (j < i), bracket & (j >= i)):
            many = side.sum(1, keepdim=True).clamp(min=1)
            table[length] += side * (torch.where(side, weight, 0.0).sum(1, keepdim=True) / many)
        table[length] /= table[length].sum(1, keepdim=True)
    shares = torch.einsum("nij,nj->ni", table[lengths(tokens)], (tokens == OPEN).double())
    return shares.round(decimals=12) if exact_ties else shares
