"""Frequencies of numbers modulo 113: projections on them, and which ones a model uses, measured on given pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pscrub.studies.modular_addition.model import ModularAddition, P

FREQUENCIES = range(1, P // 2 + 1)
"""Those that differ: k and 113 - k are the same cosine."""


def fold(k: int) -> int:
    """The frequency of 1 to 56 that has the cosine of k.

    >>> fold(2 * 8), fold(2 * 42)
    (16, 29)
    """
    return min(k % P, -k % P)


def waves(numbers: Tensor, k: int) -> Tensor:
    """float64 [N, 2]: cosine and sine of 2 pi k n / 113 for numbers int64 [N]."""
    angle = 2 * math.pi * (k * numbers % P).double() / P
    return torch.stack([angle.cos(), angle.sin()], 1)


def projection(frequencies: Sequence[int]) -> Tensor:
    """float64 [113, 113]: the projection of functions of a number modulo 113 on those frequencies.

    >>> projected = projection(FREQUENCIES)
    >>> torch.allclose(projected, torch.eye(P, dtype=torch.float64) - 1 / P)
    True
    """
    numbers = torch.arange(P)
    basis = torch.cat([waves(numbers, k) for k in frequencies], 1) * math.sqrt(2 / P)
    return basis @ basis.T


def embedding_shares(model: ModularAddition) -> Tensor:
    """float64 [57]: the share of the embedded numbers' variance at each frequency; 0 at 0, which is the mean."""
    embedded = model.embed.W_E[:P].detach().double()
    return _shares(embedded - embedded.mean(0))


@torch.no_grad()
def logit_shares(model: ModularAddition, tokens: Tensor) -> Tensor:
    """float64 [57]: the share of the logits' variance that lies at each frequency of the answer, over some pairs.

    An answer's mean logit over the pairs is taken off; entry 0 is of what all answers have in common.
    """
    logits = model(tokens).double()
    return _shares((logits - logits.mean(0)).T)


@torch.no_grad()
def neuron_shares(model: ModularAddition, tokens: Tensor, frequencies: Sequence[int] = FREQUENCIES) -> Tensor:
    """float64 [len(frequencies), 512]: how much of a neuron's variance over some pairs each explains, by least squares.

    A frequency explains what the cosines and sines of a and of b, and their products, can: eight terms.
    """
    with _neurons(model) as seen:
        model(tokens)
    activations = seen[0].double()
    activations -= activations.mean(0)
    total = activations.square().sum(0).clamp(min=1e-30)
    shares = []
    for k in frequencies:
        a, b = waves(tokens[:, 0], k), waves(tokens[:, 1], k)
        products = (a[:, :, None] * b[:, None]).flatten(1)
        terms, _ = torch.linalg.qr(torch.cat([torch.ones(len(a), 1, dtype=torch.float64), a, b, products], 1))
        shares.append((terms.T @ activations).square().sum(0) / total)
    return torch.stack(shares)


def key_frequencies(model: ModularAddition, tokens: Tensor, count: int) -> tuple[int, ...]:
    """The frequencies that most of the logits' variance over some pairs lies at, the largest share first."""
    order = logit_shares(model, tokens)[1:].argsort(descending=True)[:count] + 1
    return tuple(order.tolist())


def group_neurons(model: ModularAddition, tokens: Tensor, keys: Sequence[int]) -> dict[int, list[int]]:
    """Key frequency -> the neurons that it explains better, over some pairs, than another key frequency does."""
    best = neuron_shares(model, tokens, keys).argmax(0)
    return {k: torch.nonzero(best == place).flatten().tolist() for place, k in enumerate(keys)}


def _shares(values: Tensor) -> Tensor:
    """float64 [57]: the share of the squares of values [113, ...] at each frequency of the first axis."""
    numbers, total = torch.arange(P), values.square().sum()
    constant = values.mean(0).square().sum() * P
    each = [(waves(numbers, k).T @ values).square().sum() * 2 / P for k in FREQUENCIES]
    return torch.stack([constant, *each]) / total


@contextmanager
def _neurons(model: ModularAddition) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        seen.append(made)

    handle = model.blocks[0].get_submodule("mlp.hook_post").register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
