"""What sets of draws say of the population together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pscrub.estimate.estimate import Estimate
from pscrub.estimate.jackknife import Population


def pool_populations(both: Sequence[Population], draws: Sequence[int]) -> Population:
    """What sets of draws say together, each weighing as it has draws."""
    shares = [n / sum(draws) for n in draws]

    def pool(sets: Sequence[tuple[tuple[Tensor, Tensor], ...]]) -> tuple[tuple[Tensor, Tensor], ...]:
        stacked = [torch.stack([torch.stack(g) for g in each]) for each in sets]  # [3, 2, units] each
        pooled = sum(share * g for share, g in zip(shares, stacked, strict=True))
        assert isinstance(pooled, Tensor)
        return tuple((first.clone(), second.clone()) for first, second in pooled)

    bends = [each.bends for each in both if each.bends is not None]
    return replace(
        both[0],
        drawn=_pool([each.drawn for each in both], shares),
        gradients=pool([each.gradients for each in both]),
        bends=pool(bends) if len(bends) == len(both) else None,
        excess=sum(share * each.excess for share, each in zip(shares, both, strict=True)),
        noise=math.sqrt(sum((share * each.noise) ** 2 for share, each in zip(shares, both, strict=True))),
        unknown=sum(share * each.unknown for share, each in zip(shares, both, strict=True)),
    )


def _pool(estimates: Sequence[Estimate | None], shares: Sequence[float]) -> Estimate | None:
    """The mean of independent estimates: what lies between each and the ends of its interval adds up by squares."""
    known = [(share, e) for share, e in zip(shares, estimates, strict=True) if e is not None]
    if not known:
        return None
    total = sum(share for share, _ in known)

    def root(parts: Sequence[float]) -> float:
        return math.sqrt(sum(part**2 for part in parts)) / total

    value = sum(share * e.value for share, e in known) / total
    return replace(
        known[0][1],
        value=value,
        low=value - root([share * (e.value - e.low) for share, e in known]),
        high=value + root([share * (e.high - e.value) for share, e in known]),
        se=root([share * e.se for share, e in known]),
        df=min(e.df for _, e in known),
        draws=sum(e.draws for _, e in known),
    )
