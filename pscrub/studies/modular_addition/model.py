"""The transformer that adds modulo 113 (one layer, no LayerNorm), with what is to be claimed about as named submodules.

Parameters carry the names of TransformerLens 1.x. Only the answer's position, "=", is computed past the embeddings.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pscrub.studies.weights import fill_model

P, HEADS, D_MODEL, D_HEAD, D_MLP = 113, 4, 128, 32, 512
EQUALS = P


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


class _Embed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_E = _weight(P + 1, D_MODEL)

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.embedding(tokens, self.W_E)


class _PosEmbed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_pos = _weight(3, D_MODEL)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_Q, self.W_K, self.W_V = (_weight(HEADS, D_MODEL, D_HEAD) for _ in range(3))
        self.W_O = _weight(HEADS, D_HEAD, D_MODEL)
        self.hook_pattern, self.hook_heads = nn.Identity(), nn.Identity()

    def forward(self, residual: Tensor) -> Tensor:
        # Products with all rows at once: weights that are broadcast would be copied for each row.
        query = torch.einsum("nd,hde->nhe", residual[:, -1], self.W_Q)
        key, value = (torch.einsum("npd,hde->nhpe", residual, weights) for weights in (self.W_K, self.W_V))
        scores = (key * query[:, :, None]).sum(-1) / math.sqrt(D_HEAD)
        pattern = self.hook_pattern(scores.softmax(-1))
        read = (pattern[..., None] * value).sum(2)
        written: Tensor = self.hook_heads(torch.einsum("nhe,hed->nhd", read, self.W_O))
        return written


class _MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_in, self.b_in = _weight(D_MODEL, D_MLP), _weight(D_MLP)
        self.W_out, self.b_out = _weight(D_MLP, D_MODEL), _weight(D_MODEL)
        self.hook_post = nn.Identity()

    def forward(self, residual: Tensor) -> Tensor:
        neurons: Tensor = self.hook_post(functional.relu(residual @ self.W_in + self.b_in))
        return neurons @ self.W_out + self.b_out


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = _Attention(), _MLP()
        self.hook_resid_mid = nn.Identity()

    def forward(self, residual: Tensor) -> Tensor:
        middle = self.hook_resid_mid(residual[:, -1] + self.attn(residual).sum(1))
        written: Tensor = middle + self.mlp(middle)
        return written


class _Unembed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_U = _weight(D_MODEL, P)

    def forward(self, residual: Tensor) -> Tensor:
        return residual @ self.W_U


class ModularAddition(nn.Module):
    """Returns logits float32[row, 113] of (a + b) mod 113 at "=", of tokens int64[row, 3] = a, b, "=".

    One layer of four heads and a ReLU MLP of 512 neurons, no LayerNorm, no biases but the MLP's. Rows do not interact.
    The ``hook_*`` submodules are identities without parameters, each called once a forward. A new instance has random
    weights drawn from its own generator: normal with deviation 1 / sqrt(d_model), biases 0.

    >>> ModularAddition(seed=1)(all_pairs()[:2]).shape
    torch.Size([2, 113])
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.embed, self.pos_embed, self.hook_embed = _Embed(), _PosEmbed(), nn.Identity()
        self.blocks = nn.ModuleList([_Block()])
        self.unembed = _Unembed()
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.rpartition(".")[2].startswith("W_"):
                nn.init.normal_(parameter, std=1 / math.sqrt(D_MODEL), generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        residual = self.hook_embed(self.embed(tokens)) + self.pos_embed.W_pos
        logits: Tensor = self.unembed(self.blocks[0](residual))
        return logits


def all_pairs() -> Tensor:
    """Returns tokens int64[12769, 3] of every sum: a, b, "="; b runs fastest.

    >>> all_pairs()[114].tolist()
    [1, 1, 113]
    """
    numbers = torch.arange(P)
    return torch.cartesian_prod(numbers, numbers, torch.tensor([EQUALS]))


def sums(tokens: Tensor) -> Tensor:
    """Returns int64[row]: (a + b) mod 113 of tokens int64[row, 3]."""
    return (tokens[:, 0] + tokens[:, 1]) % P


def load_model(path: str | Path) -> ModularAddition:
    """Returns the model with the weights of a safetensors file, float32 or narrower, in eval mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file, or parameters are missing, unexpected or of another shape: all listed.
    """
    return fill_model(ModularAddition(), path, "model of modular addition")
