"""The balanced-bracket classifier of the published study (spec section 7), with every cut point a named submodule.

Parameters carry the names of TransformerLens 1.x, so published weights load strictly.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pscrub.studies.weights import fill_model

LAYERS, HEADS, D_MODEL, D_HEAD, D_MLP, CONTEXT = 3, 2, 56, 28, 56, 42
START, PADDING, END, OPEN, CLOSE = range(5)
LONGEST = CONTEXT - 2
MASKED_SCORE = -1e5


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


class _LayerNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(D_MODEL))
        self.b = _weight(D_MODEL)

    def forward(self, residual: Tensor) -> Tensor:
        return functional.layer_norm(residual, (D_MODEL,), self.w, self.b, eps=1e-5)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_Q, self.b_Q = _weight(HEADS, D_MODEL, D_HEAD), _weight(HEADS, D_HEAD)
        self.W_K, self.b_K = _weight(HEADS, D_MODEL, D_HEAD), _weight(HEADS, D_HEAD)
        self.W_V, self.b_V = _weight(HEADS, D_MODEL, D_HEAD), _weight(HEADS, D_HEAD)
        self.W_O, self.b_O = _weight(HEADS, D_HEAD, D_MODEL), _weight(D_MODEL)
        self.hook_heads = nn.ModuleList(nn.Identity() for _ in range(HEADS))

    def forward(self, normed: Tensor, mask: Tensor) -> Tensor:
        by_head = normed[:, None]
        query = by_head @ self.W_Q + self.b_Q[:, None]
        key = by_head @ self.W_K + self.b_K[:, None]
        value = by_head @ self.W_V + self.b_V[:, None]
        scores = query @ key.transpose(-1, -2) / math.sqrt(D_HEAD)
        pattern = scores.masked_fill(mask[:, None, None, :] > 0.5, MASKED_SCORE).softmax(-1)
        heads = pattern @ value @ self.W_O
        first, *others = (hook(heads[:, head]) for head, hook in enumerate(self.hook_heads))
        written: Tensor = sum(others, first)
        return written + self.b_O


class _MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_in, self.b_in = _weight(D_MODEL, D_MLP), _weight(D_MLP)
        self.W_out, self.b_out = _weight(D_MLP, D_MODEL), _weight(D_MODEL)

    def forward(self, normed: Tensor) -> Tensor:
        return functional.relu(normed @ self.W_in + self.b_in) @ self.W_out + self.b_out


class _Block(nn.Module):
    """The hooks sit on what attention and MLP read; the residual stream itself passes by them."""

    def __init__(self) -> None:
        super().__init__()
        self.ln1, self.attn, self.ln2, self.mlp = _LayerNorm(), _Attention(), _LayerNorm(), _MLP()
        self.hook_resid_pre, self.hook_resid_mid, self.hook_mlp_out = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, residual: Tensor, mask: Tensor) -> Tensor:
        residual = residual + self.attn(self.ln1(self.hook_resid_pre(residual)), mask)
        written: Tensor = self.hook_mlp_out(self.mlp(self.ln2(self.hook_resid_mid(residual))))
        return residual + written


class _Embed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_E = _weight(CLOSE + 1, D_MODEL)

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.embedding(tokens, self.W_E)


class _PosEmbed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_pos = _weight(CONTEXT, D_MODEL)


class _Unembed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_U, self.b_U = _weight(D_MODEL, 2), _weight(2)

    def forward(self, normed: Tensor) -> Tensor:
        return normed @ self.W_U + self.b_U


class BracketClassifier(nn.Module):
    """Returns logits float32[row, class] at the start token, class 1 being "balanced", of tokens int64[row, position].

    Three layers of two bidirectional heads and a ReLU MLP, pre-LayerNorm; keys at padding score -1e5. Rows do not
    interact. The ``hook_*`` submodules are identities without parameters, each called once a forward. A new instance
    has random weights drawn from its own generator: normal with deviation 0.8 / sqrt(d_model), biases 0.

    >>> BracketClassifier(seed=1)(encode(["()", "(("])).shape
    torch.Size([2, 2])
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.embed, self.pos_embed = _Embed(), _PosEmbed()
        self.blocks = nn.ModuleList(_Block() for _ in range(LAYERS))
        self.ln_final, self.unembed = _LayerNorm(), _Unembed()
        self.hook_embed, self.hook_mask, self.hook_resid_final = nn.Identity(), nn.Identity(), nn.Identity()
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.rpartition(".")[2].startswith("W_"):
                nn.init.normal_(parameter, std=0.8 / math.sqrt(D_MODEL), generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = self.hook_mask((tokens == PADDING).to(torch.float32))
        # Tokens cut after the longest row give the same logits (padding is never attended to), for less work.
        residual = self.hook_embed(self.embed(tokens)) + self.pos_embed.W_pos[: tokens.shape[1]]
        for block in self.blocks:
            residual = block(residual, mask)
        logits: Tensor = self.unembed(self.ln_final(self.hook_resid_final(residual[:, 0])))
        return logits


def encode(strings: list[str]) -> Tensor:
    """Returns tokens int64[row, position] of bracket strings: start, the string, end, padding to 42 positions.

    Raises:
        ValueError: a string is longer than 40 or holds another character than ``(`` and ``)``; all such are counted.

    >>> encode(["()"])[0, :6].tolist()
    [0, 3, 4, 2, 1, 1]
    """
    bad = [row for row, string in enumerate(strings) if len(string) > LONGEST or string.strip("()")]
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(strings)} strings cannot be encoded, the first at row {bad[0]}: {strings[bad[0]]!r}; "
            f"expected at most {LONGEST} characters, each '(' or ')'"
        )
    text = "".join(f"^{string}$".ljust(CONTEXT, "_") for string in strings)
    code = np.zeros(128, dtype=np.int64)
    for character, token in zip("^_$()", range(5), strict=True):
        code[ord(character)] = token
    characters = np.array(bytearray(text, "ascii"), dtype=np.uint8)
    return torch.from_numpy(code[characters].reshape(len(strings), CONTEXT))


def is_balanced(tokens: Tensor) -> Tensor:
    """Returns bool[row]: whether the brackets in tokens int64[row, position] are balanced.

    >>> is_balanced(encode(["(())", "())(", "(()"])).tolist()
    [True, False, False]
    """
    depth = ((tokens == OPEN).long() - (tokens == CLOSE).long()).cumsum(1)
    return (depth[:, -1] == 0) & (depth >= 0).all(1)


def load_classifier(path: str | Path) -> BracketClassifier:
    """Returns the classifier with the weights of a safetensors file, in eval mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file, or parameters are missing, unexpected or of another shape: all listed.
    """
    return fill_model(BracketClassifier(), path, "bracket classifier")
