"""Rows of random tokens that repeat, and the heads of SmolLM2-135M that attend as induction needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pscrub.data.dataset import Dataset
from pscrub.studies.smollm2 import HEADS, LAYERS

PERIOD = 24
MATCH = 14
"""Where the target stands first, behind the token that begins a text and 13 others."""
LENGTH = PERIOD + MATCH
BEGIN, LEAST, MOST = 1, 100, 40_000
"""The token that begins a text, and the range of the others: common ones, and no signs of control."""
SPOKEN_OF = 16
"""Tokens next to the match are of so many, so that many rows agree on one."""
ATTENDS = 0.4
"""From what mean share of its attention on a head is said to attend to a place."""
AT_ONCE = 16

Head = tuple[int, int]
"""Layer and number."""


@dataclass(frozen=True)
class Found:
    """Heads that were measured, those that attend most first.

    Args:
        previous: that attend, from the match, to the token before it, and lie below an induction head.
        induction: that attend, from the query at the end, to the match.
    """

    previous: tuple[Head, ...]
    induction: tuple[Head, ...]


def repeated_rows(count: int, seed: int) -> Dataset:
    """D: 24 random tokens that all differ, and the first 13 again, behind the token that begins a text.

    Columns input_ids int64 [count, 38]; query, the last token, target, what came after it the first time, and earlier,
    what came before it, int64 [count]. These three are uniform on 16 tokens, the same for every seed.
    """
    shared, own = (torch.Generator().manual_seed(each) for each in (7, seed))
    few = LEAST + torch.randperm(MOST - LEAST, generator=shared)[:SPOKEN_OF]
    others = torch.arange(LEAST, MOST)
    others = others[~torch.isin(others, few)]
    spoken_of = few[torch.rand(count, SPOKEN_OF, generator=own).argsort(1)[:, :3]]
    rest = torch.stack([others[torch.randperm(len(others), generator=own)[: PERIOD - 3]] for _ in range(count)])
    before = MATCH - 3
    first = torch.cat([rest[:, :before], spoken_of, rest[:, before:]], 1)
    begin = torch.full((count, 1), BEGIN)
    tokens = torch.cat([begin, first, first[:, : MATCH - 1]], 1)
    earlier, query, target = spoken_of.unbind(1)
    return Dataset({"input_ids": tokens, "query": query, "target": target, "earlier": earlier})


@torch.no_grad()
def measure_attention(model: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    """Mean attention over rows int64 [N, 38] to the token before and to the match, each float64 [30, 9] by layer, head.

    The model is left with the kind of attention that it had.
    """
    subject: Any = model
    kind = subject.config._attn_implementation
    subject.set_attn_implementation("eager")
    try:
        before, match = torch.zeros(2, LAYERS, HEADS, dtype=torch.float64).unbind()
        for rows in tokens.split(AT_ONCE):
            found = subject.model(input_ids=rows, output_attentions=True).attentions
            patterns = torch.stack(found).double()
            before += patterns[:, :, :, MATCH, MATCH - 1].sum(1) / len(tokens)
            match += patterns[:, :, :, -1, MATCH].sum(1) / len(tokens)
    finally:
        subject.set_attn_implementation(kind)
    return {"to the token before": before, "to the match": match}


def choose_heads(shares: dict[str, Tensor]) -> Found:
    """Heads whose share is over ATTENDS, of those that `measure_attention` measured."""
    induction = _most(shares["to the match"])
    above = max((layer for layer, _ in induction), default=0)
    previous = tuple(head for head in _most(shares["to the token before"]) if head[0] < above)
    return Found(previous, induction)


def _most(shares: Tensor) -> tuple[Head, ...]:
    order = shares.flatten().argsort(descending=True).tolist()
    return tuple(divmod(each, HEADS) for each in order if shares.flatten()[each] > ATTENDS)
