"""Modules that people write themselves, of torch's own parts, tiny and with random weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import flex_attention

LENGTH, WIDTH, HEADS = 6, 16, 4
"""Of what each is called on: [rows, LENGTH, WIDTH]."""


class Sequences(nn.Module):
    """An LSTM and a GRU, one after the other, and their last states."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(16, 8, batch_first=True), nn.GRU(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        found, (state, _) = self.lstm(x)
        found, last = self.gru(found)
        return found[:, -1] + state[0] + last[0]


class Cell(nn.Module):
    """An LSTM cell, unrolled."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.LSTMCell(16, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x[:, 0, :8] * 0
        for i in range(LENGTH):
            h, c = self.cell(x[:, i], (h, c))
        found: Tensor = self.last(h)
        return found


class LengthFirst(nn.Module):
    """Attention that has positions first inside."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = nn.MultiheadAttention(16, 4), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(0, 1)
        return self.mlp((y + self.attention(y, y, y, need_weights=False)[0]).transpose(0, 1))  # type: ignore[no-any-return]


class Odd(nn.Module):
    """Complex numbers, a Fourier transform, in-place operations, top-k, weight normalisation, half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
        self.low = nn.Linear(16, 16).to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.fft.rfft(x, dim=-1).abs()
        y = torch.view_as_real(torch.complex(y, y * 2)).sum(-1).topk(8, -1).values
        z = self.mlp(x)
        z += self.low(x.to(torch.bfloat16)).float()
        z.relu_()
        return z.mean(2) + y.sum(2)


class Convolutions(nn.Module):
    """A small U-Net with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv1d(16, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU())
        self.inner, self.up = nn.Conv1d(8, 8, 2, 2), nn.ConvTranspose1d(8, 8, 2, 2)
        self.last = nn.Conv1d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(x.transpose(1, 2))
        found: Tensor = self.last(torch.cat([y, self.up(self.inner(y))], 1))
        return found


class Transformer(nn.Module):
    """torch's encoder and decoder, the batch in either place, a mask in the decoder."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        layer: dict[str, Any] = {"d_model": WIDTH, "nhead": HEADS, "dim_feedforward": 24, "batch_first": batch_first}
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 2, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), 2)

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.batch_first else x.transpose(0, 1)
        mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
        found: Tensor = self.decoder(y, self.encoder(y), tgt_mask=mask, tgt_is_causal=True)
        return found if self.batch_first else found.transpose(0, 1)


class Nano(nn.Module):
    """A GPT as it is written in one sitting: one projection for queries, keys and values, an assigned mask."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.blocks = nn.ModuleList(NanoBlock() for _ in range(2))
        self.norm, self.unembed = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positions
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.unembed(self.norm(x))
        return found


class Half(nn.Module):
    """The same in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.nano = Nano().to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.nano(x.to(torch.bfloat16))
        return found


class NanoBlock(nn.Module):
    """One of its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH), nn.Dropout(0.1))
        self.register_buffer("bias", torch.tril(torch.ones(LENGTH, LENGTH)).view(1, 1, LENGTH, LENGTH))

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.size()
        q, k, v = self.c_attn(self.norm1(x)).split(C, dim=2)
        q, k, v = (each.view(B, T, HEADS, C // HEADS).transpose(1, 2) for each in (q, k, v))
        pattern = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        pattern = pattern.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))  # type: ignore[index]
        z = (functional.softmax(pattern, dim=-1) @ v).transpose(1, 2).contiguous().view(B, T, C)
        x = x + self.c_proj(z)
        x = x + self.mlp(self.norm2(x))
        return x


class Heads(nn.Module):
    """Attention by a function of queries, keys and values [rows, heads, positions, width]."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.attend = attend
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            f(x).view(-1, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)
            for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        found: Tensor = self.o_proj(self.attend(q, k, v).transpose(1, 2).flatten(2))
        return found


def attend_flexibly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """flex_attention, causal and with a slope."""

    def score(value: Tensor, row: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return torch.where(i >= j, value + 0.1 * (j - i), -float("inf"))

    found: Tensor = flex_attention(q, k, v, score_mod=score)
    return found


def attend_by_einops(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as einops writes it."""
    from einops import einsum, rearrange, reduce

    scores = einsum(q, k, "b h i d, b h j d -> b h i j")
    scores = scores - rearrange(reduce(scores, "b h i j -> b h i", "max"), "b h i -> b h i 1")
    found: Tensor = einsum(scores.softmax(-1), v, "b h i j, b h j d -> b h i d")
    return found


class Cached(nn.Module):
    """A position at a time, keys and values of those before in a cache that each forward makes."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.out_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        cache: dict[str, list[Tensor]] = {"k": [], "v": []}
        steps = []
        for q, k in zip(self.q_proj(x).unbind(1), self.mlp(x).unbind(1), strict=True):
            cache["k"].append(k)
            cache["v"].append(k.tanh())
            keys, values = (torch.stack(cache[name], 1) for name in ("k", "v"))
            steps.append(((keys @ q[:, :, None]).softmax(1) * values).sum(1))
        found: Tensor = self.out_proj(torch.stack(steps, 1))
        return found


class Spectrum(nn.Module):
    """A filter on a Fourier transform, its complex value named, and entries chosen by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer, self.gate, self.mlp = nn.Identity(), nn.Linear(WIDTH, 1), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mixer(torch.fft.rfft(x, dim=1) * torch.polar(torch.ones(4), torch.arange(4.0))[:, None])
        z = torch.fft.irfft(y, n=LENGTH, dim=1)
        z[z < 0] *= 0.1
        z[:, torch.arange(LENGTH) % 2 == 0] += self.gate(x)[:, :3]
        found: Tensor = self.mlp(z)
        return found[:, torch.tensor([True, False, True, True, False, True])]


class Lower(nn.Module):
    """Regions of autocast, integers for weights, rows by vmap, positions and rows in one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.dense = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH), nn.Linear(WIDTH, WIDTH)
        weight = torch.randn(WIDTH, WIDTH)
        self.register_buffer("scale", weight.abs().amax(1, keepdim=True) / 127)
        self.register_buffer("weight", (weight / self.get_buffer("scale")).round().to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = self.fc2(self.fc1(x.reshape(-1, WIDTH)).relu())
        z = self.dense(y.float().view(x.shape))
        z = functional.linear(z, self.get_buffer("weight").float() * self.get_buffer("scale"))
        return torch.vmap(lambda row: row.softmax(0).cumsum(0))(z)


def in_order() -> nn.Module:
    """Submodules whose names are keywords of Python, or no names at all."""
    module = nn.Sequential(nn.ReLU(inplace=True))
    for name in ("in", "class", "a-b c", "0:1", "lambda"):
        module.add_module(name, nn.Linear(WIDTH, WIDTH))
    return module


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "encoder layers": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True), 2),
    "recurrent": Sequences,
    "cell": Cell,
    "length first": LengthFirst,
    "odd": Odd,
    "convolutions": Convolutions,
    "encoder and decoder": lambda: Transformer(True),
    "encoder and decoder, length first": lambda: Transformer(False),
    "nanoGPT": Nano,
    "flex_attention": lambda: Heads(attend_flexibly),
    "cache within": Cached,
    "spectrum": Spectrum,
    "lower precision": Lower,
    "bfloat16": Half,
    "keywords for names": in_order,
    "einops": lambda: Heads(attend_by_einops),
}
