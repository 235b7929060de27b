"""A Llama with random weights that stands in SmolLM2's place."""

from __future__ import annotations

import torch
from torch import nn

from pscrub.studies import smollm2

HEADS, WIDTH = 4, 8


def random_llama(layers: int, seed: int = 0) -> nn.Module:
    """Of so many layers of 4 heads, two to a group of keys, each 8 wide; the vocabulary is SmolLM2's."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=smollm2.VOCABULARY,
            hidden_size=HEADS * WIDTH,
            intermediate_size=48,
            num_hidden_layers=layers,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            initializer_range=0.3,
            use_cache=False,
        )
        model: nn.Module = LlamaForCausalLM(config)
        return model.eval()
