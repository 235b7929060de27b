"""Causal attention: how it is known, and how it is computed at some positions alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pscrub.graph.ops import Operation


def is_causal(fn: Any, args: Sequence[int], told: Callable[[int], Tensor | None]) -> bool:
    """Whether a value is causal attention, by itself or by its mask: at each position of nothing that comes later."""
    if not isinstance(fn, Operation) or fn.target is not torch.ops.aten.scaled_dot_product_attention.default:
        return False
    given, keywords = fn.filled(list(args))
    said = dict(zip(("attn_mask", "dropout_p", "is_causal"), given[3:], strict=False)) | dict(keywords)
    if said.get("is_causal") or said.get("attn_mask") is None:
        return bool(said.get("is_causal")) and list(given[:3]) == list(args)
    mask = told(said["attn_mask"]) if list(args) == [*given[:3], said["attn_mask"]] else None
    if mask is None or mask.ndim < 2 or mask.shape[-1] != mask.shape[-2]:
        return False
    # What is hidden by less than everything is seen, if little.
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return not bool(seen.triu(1).any()) and bool(seen.diagonal(dim1=-2, dim2=-1).all())


def attend_causally(
    q: Tensor, k: Tensor, v: Tensor, queries: Sequence[int], scale: float | None, grouped: bool
) -> Tensor:
    """Causal attention [..., queries, width] of queries that stand at some positions, not at the first ones.

    Args:
        q: [..., queries, width].
        k: [..., positions, width].
        v: [..., positions, width].
        queries: where they stand.
        scale: of scores.
        grouped: several heads of queries have one of keys.
    """
    last = max(queries) + 1  # what comes later is seen by none
    where = torch.tensor(queries, device=q.device)
    mask = torch.arange(last, device=q.device) <= where[:, None]
    k, v = k[..., :last, :], v[..., :last, :]
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped)
