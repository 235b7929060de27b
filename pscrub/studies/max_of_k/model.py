"""The model of the largest of four numbers: one attention head, no MLP, no LayerNorm."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from pscrub.studies.weights import fill_model

NUMBERS, K, D_MODEL = 6, 4, 32


class MaxOfK(nn.Module):
    """Logits [batch, 6] at the last of four places, of numbers [batch, 4] from 0 to 5.

    Each place embeds its number and itself. The last place's query scores the four keys; what the values are weighted
    to is added to what the last place embeds, and both are read by the logits.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weights(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) / math.sqrt(D_MODEL))

        self.W_E, self.W_pos = weights(NUMBERS, D_MODEL), weights(K, D_MODEL)
        self.W_Q, self.W_K, self.W_V = (weights(D_MODEL, D_MODEL) for _ in range(3))
        self.W_O, self.W_U = weights(D_MODEL, D_MODEL), weights(D_MODEL, NUMBERS)

    def embed(self, numbers: Tensor, place: int) -> Tensor:
        """float32 [batch, 32]: what a place embeds, of numbers [batch, 4]."""
        return nn.functional.embedding(numbers[:, place], self.W_E) + self.W_pos[place]

    def forward(self, numbers: Tensor) -> Tensor:
        residual = torch.stack([self.embed(numbers, place) for place in range(K)], 1)
        pattern = attend(residual[:, -1] @ self.W_Q, residual @ self.W_K)
        head = torch.einsum("bk,bkd->bd", pattern, residual @ self.W_V) @ self.W_O
        logits: Tensor = (residual[:, -1] + head) @ self.W_U
        return logits


def attend(query: Tensor, keys: Tensor) -> Tensor:
    """float32 [batch, 4]: what the last place attends to, from its query [batch, 32] and keys [batch, 4, 32]."""
    scores: Tensor = (keys * query[:, None]).sum(2) / math.sqrt(D_MODEL)
    return scores.softmax(1)


def all_sequences() -> Tensor:
    """int64 [1296, 4]: every sequence of four numbers, in order.

    >>> all_sequences()[[0, 1, -1]].tolist()
    [[0, 0, 0, 0], [0, 0, 0, 1], [5, 5, 5, 5]]
    """
    return torch.cartesian_prod(*[torch.arange(NUMBERS)] * K)


def load_max_model(path: str | Path) -> MaxOfK:
    """Returns the model with the weights of a safetensors file, in eval mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file, or holds other parameters.
    """
    return fill_model(MaxOfK(), path, "model of the largest of four")
