"""Modules to be traced in tests, and hooks of our own to compare with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pscrub.data.dataset import Dataset
from pscrub.graph.cuts import Cut, input_of, output_of
from pscrub.graph.graph import Graph, Node

VOCABULARY, POSITIONS, WIDTH, HEADS = 19, 6, 16, 4


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------------- the three families


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, *, mask: Tensor) -> tuple[Tensor, Tensor]:
        rows, positions, _ = x.shape
        q, k, v = (f(x).view(rows, positions, HEADS, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        pattern = (q @ k.mT / 2).masked_fill(mask, -torch.inf).softmax(-1)
        return self.project((pattern @ v).transpose(1, 2).flatten(2)), pattern


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(inplace=True), nn.Linear(32, WIDTH), nn.Dropout(0.1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), mask=mask)[0]
        return x + self.mlp(self.norm2(x))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(POSITIONS, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.register_buffer("mask", torch.ones(POSITIONS, POSITIONS, dtype=torch.bool).triu(1), persistent=False)
        self.norm, self.unembed = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.unembed.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x, self.mask)
        return self.unembed(self.norm(x))


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens, use_cache=False).logits


def gpt2(attention: str) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=8, n_embd=WIDTH, n_layer=2, n_head=HEADS, attn_implementation=attention,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return Logits(GPT2LMHeadModel(config))


def llama(attention: str) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=2, attn_implementation=attention, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return Logits(LlamaForCausalLM(config))


PLAIN_CUTS: dict[str, str | Cut] = {"position": "positions"}
GPT2_CUTS: dict[str, str | Cut] = {"position": "model.transformer.wpe"}
LLAMA_CUTS: dict[str, str | Cut] = {"cos": output_of("model.model.rotary_emb", index=0)}
for i in range(2):
    block = f"blocks.{i}"
    PLAIN_CUTS |= {f"x{i}": input_of(block), f"a{i}": f"{block}.attention", f"m{i}": f"{block}.mlp"}
    PLAIN_CUTS |= {f"z{i}": input_of(f"{block}.attention.project"), f"k{i}": f"{block}.attention.key"}
    block = f"model.transformer.h.{i}"
    GPT2_CUTS |= {f"x{i}": input_of(block), f"a{i}": f"{block}.attn", f"m{i}": f"{block}.mlp"}
    GPT2_CUTS |= {f"z{i}": input_of(f"{block}.attn.c_proj"), f"r{i}": output_of(block)}
    block = f"model.model.layers.{i}"
    LLAMA_CUTS |= {f"x{i}": input_of(block), f"a{i}": f"{block}.self_attn", f"m{i}": f"{block}.mlp"}
    LLAMA_CUTS |= {f"z{i}": input_of(f"{block}.self_attn.o_proj"), f"v{i}": f"{block}.self_attn.v_proj"}
    LLAMA_CUTS |= {f"h{i}": input_of(f"{block}.self_attn", index="hidden_states")}


@dataclass(frozen=True)
class Traced:
    module: nn.Module
    cuts: dict[str, str | Cut]
    data: Dataset
    graph: Graph


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    return functional.cross_entropy(logits[:, -1], label, reduction="none")


LOSS = Node("loss", ("logits", "label"), cross_entropy)
FAMILIES: dict[str, tuple[Callable[[], nn.Module], dict[str, str | Cut]]] = {
    "plain": (Plain, PLAIN_CUTS),
    "gpt2-eager": (lambda: gpt2("eager"), GPT2_CUTS),
    "gpt2-sdpa": (lambda: gpt2("sdpa"), GPT2_CUTS),
    "llama-eager": (lambda: llama("eager"), LLAMA_CUTS),
    "llama-sdpa": (lambda: llama("sdpa"), LLAMA_CUTS),
}


def hooked(module: nn.Module, cut: str | Cut, see: Callable[[Tensor], Tensor | None]) -> Any:
    """A hook of our own, written without the package's: `see` gets the tensor and may return another in its place."""
    if isinstance(cut, Cut) and cut.side == "input":

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            new = see(args[0] if args else kwargs["hidden_states"])
            if new is None:
                return None
            return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

        return module.get_submodule(cut.path).register_forward_pre_hook(before, with_kwargs=True)

    def after(_: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        new = see(result if isinstance(result, Tensor) else result[0])
        return new if new is None or isinstance(result, Tensor) else (new, *result[1:])

    return module.get_submodule(cut if isinstance(cut, str) else cut.path).register_forward_hook(after)


class Doing(nn.Module):
    """A module whose forward is a function of the module and the columns."""

    def __init__(self, forward: Callable[..., Any], **submodules: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, submodule in submodules.items():
            self.add_module(name, submodule)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        return self.function(self, x) if y is None else self.function(self, x, y)


X = {"x": draw(20, 4)}
