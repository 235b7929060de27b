"""The two-layer attention-only transformer, with what is to be claimed about as named submodules.

Parameters carry the names of TransformerLens 1.x. Positions are sinusoids, added to what queries and keys read and to
nothing else, so that neither the stream nor any value knows where it stands.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pscrub.studies.weights import fill_model

VOCABULARY, LAYERS, HEADS, D_MODEL, D_HEAD, LONGEST = 256, 2, 8, 128, 16, 64
WAVELENGTHS = 1_000.0


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


class _Embed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_E = _weight(VOCABULARY, D_MODEL)

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.embedding(tokens, self.W_E)


class _Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.ones(D_MODEL)), _weight(D_MODEL)

    def forward(self, stream: Tensor) -> Tensor:
        return functional.layer_norm(stream, (D_MODEL,), self.w, self.b)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_Q, self.W_K, self.W_V = (_weight(HEADS, D_MODEL, D_HEAD) for _ in range(3))
        self.W_O = _weight(HEADS, D_HEAD, D_MODEL)
        self.hook_q, self.hook_k, self.hook_v = nn.Identity(), nn.Identity(), nn.Identity()
        self.hook_pattern, self.hook_z, self.hook_result = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, normed: Tensor, positions: Tensor) -> Tensor:
        placed = normed + positions
        query = self.hook_q(_project(placed, self.W_Q))
        key = self.hook_k(_project(placed, self.W_K))
        value = self.hook_v(_project(normed, self.W_V))
        scores = query @ key.transpose(2, 3) / math.sqrt(D_HEAD)
        length = normed.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=normed.device).triu(1)
        pattern = self.hook_pattern(scores.masked_fill(later, -1e9).softmax(-1))
        written: Tensor = self.hook_result(self.hook_z(pattern @ value) @ self.W_O)
        return written


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln1, self.attn = _Norm(), _Attention()

    def forward(self, stream: Tensor, positions: Tensor) -> Tensor:
        written: Tensor = self.attn(self.ln1(stream), positions)
        return stream + written.sum(1)


class _Unembed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_U = _weight(D_MODEL, VOCABULARY)

    def forward(self, stream: Tensor) -> Tensor:
        return stream @ self.W_U


class Induction(nn.Module):
    """Returns logits float32[row, position, 256] of the next token, of tokens int64[row, position], at most 64 long.

    Two layers of eight heads, LayerNorm before each and before the logits, no MLPs. Rows do not interact. The
    ``hook_*`` submodules are identities without parameters, each called once a forward; those of heads' queries, keys,
    values, patterns and results have shape [row, head, position, ...]. A new instance has random weights drawn from its
    own generator: normal with deviation 1 / sqrt(d_model), of the embedding 1; biases 0.

    >>> Induction(seed=1)(torch.tensor([[5, 9, 5]])).shape
    torch.Size([1, 3, 256])
    """

    positions: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.embed, self.hook_embed = _Embed(), nn.Identity()
        self.blocks = nn.ModuleList(_Block() for _ in range(LAYERS))
        self.ln_final, self.unembed = _Norm(), _Unembed()
        self.register_buffer("positions", sinusoids(), persistent=False)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.rpartition(".")[2].startswith("W_"):
                # An embedding as long as what heads add is not drowned by it in the stream.
                std = 1.0 if name == "embed.W_E" else 1 / math.sqrt(D_MODEL)
                nn.init.normal_(parameter, std=std, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        stream = self.hook_embed(self.embed(tokens))
        for block in self.blocks:
            stream = block(stream, self.positions[: tokens.shape[1]])
        logits: Tensor = self.unembed(self.ln_final(stream))
        return logits


def sinusoids() -> Tensor:
    """Returns float32[64, 128]: sines and cosines of the position, by turns, of wavelengths 2 pi to 2,000 pi."""
    speeds = torch.exp(-math.log(WAVELENGTHS) * torch.arange(D_MODEL // 2) / (D_MODEL // 2))
    angles = torch.arange(LONGEST)[:, None] * speeds
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def load_induction(path: str | Path) -> Induction:
    """Returns the model with the weights of a safetensors file, float32 or narrower, in eval mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file, or parameters are missing, unexpected or of another shape: all listed.
    """
    return fill_model(Induction(), path, "induction model")


def _project(read: Tensor, weights: Tensor) -> Tensor:
    """[row, head, position, d_head] of what is read [row, position, d_model] by weights [head, d_model, d_head]."""
    joined: Tensor = read @ weights.transpose(0, 1).flatten(1)
    return joined.view(*joined.shape[:2], HEADS, D_HEAD).transpose(1, 2)
