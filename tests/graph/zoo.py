"""Models that people bring, tiny and with random weights: how each is made, and what it is called on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pscrub.graph.cuts import Cut, hook, input_of, output_of
from tests.graph.plain_modules import LENGTH, PLAIN, WIDTH

ROWS, WORDS = 9, 50
TEXT: dict[str, Any] = {"vocab_size": WORDS, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
COMMON: dict[str, Any] = TEXT | {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
    "max_position_embeddings": 32,
}  # fmt: skip
GROUPED = COMMON | {"num_key_value_heads": 2}
HEADS = GROUPED | {"head_dim": 8}
EXPERTS = GROUPED | {"experts_implementation": "batched_mm", "num_experts_per_tok": 2}

CAUSAL: dict[str, dict[str, Any]] = {
    "gpt2": TEXT | {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32},
    "gpt_neo": TEXT | {
        "hidden_size": 16, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": 32, "window_size": 4,
    },
    "gpt_neox": COMMON,
    "bloom": TEXT | {"hidden_size": 16, "n_layer": 2, "n_head": 4},
    "mpt": TEXT | {"d_model": 16, "n_layers": 2, "n_heads": 4, "max_seq_len": 32},
    "falcon": COMMON,
    "phi": GROUPED,
    "phi3": GROUPED,
    "opt": TEXT | {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 24, "word_embed_proj_dim": 16,
        "max_position_embeddings": 32,
    },
    "llama": GROUPED, "mistral": GROUPED, "qwen2": GROUPED, "qwen3": HEADS, "gemma": HEADS, "gemma2": HEADS,
    "gemma3_text": HEADS | {"layer_types": ["sliding_attention", "full_attention"]},
    "olmo2": GROUPED, "stablelm": GROUPED,
    "mixtral": EXPERTS | {"num_local_experts": 3},
    "qwen2_moe": EXPERTS | {"num_experts": 3, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8},
    "mamba": TEXT | {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2},
    "mamba2": TEXT | {
        "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 8, "n_groups": 1,
        "chunk_size": 4,
    },
    "rwkv": TEXT | {"hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16, "intermediate_size": 24},
}  # fmt: skip
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": COMMON | {"pad_token_id": 0},
    "distilbert": {"vocab_size": WORDS, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24},
    "roberta": COMMON | {"pad_token_id": 1},
    "electra": COMMON | {"pad_token_id": 0, "embedding_size": 16},
}
PICTURES: dict[str, dict[str, Any]] = {
    "vit": COMMON | {"image_size": 8, "patch_size": 4},
    "dinov2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 8, "patch_size": 4},
    "clip_vision_model": COMMON | {"image_size": 8, "patch_size": 4},
    "convnext": {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
}
BOTH: dict[str, dict[str, Any]] = {
    "t5": {"vocab_size": WORDS, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4},
    "bart": {
        "vocab_size": WORDS, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32,
    },
}  # fmt: skip
SOUND: dict[str, Any] = COMMON | {
    "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4), "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2,
}  # fmt: skip
CUTS = (
    "q_proj", "k_proj", "v_proj", "query", "key", "value", "query_key_value", "Wqkv", "qkv_proj", "c_attn", "q", "k",
    "v", "q_lin", "k_lin", "v_lin", "attn", "self_attn", "attention", "mixer", "in_proj", "x_proj", "SelfAttention",
    "mlp", "fc1", "fc2", "dense", "feed_forward", "ffn", "intermediate", "output", "DenseReluDense", "gate", "router",
    "experts", "shared_expert", "gate_proj", "up_proj", "lstm", "gru", "cell", "down", "inner", "in", "class",
    "a-b c", "0:1",
)  # fmt: skip
"""Submodules that are cut where a model has them: the last word of their path."""
BEFORE = ("o_proj", "out_proj", "c_proj", "o", "out_lin", "Wo", "dense", "down_proj")
"""The same, cut at what they read: z, before heads are put together, and what MLPs' hidden units give."""
BLOCKS = ("h", "layers", "layer", "blocks", "block", "stages")
"""Lists of blocks, each of which gives the residual stream."""
NEEDS = {"einops": "einops", "bridge gpt2": "transformer_lens", "bridge llama": "transformer_lens"}
"""What has to be there for a specimen besides what all of them need."""


@dataclass(frozen=True)
class Specimen:
    """A module in evaluation mode, and columns that it takes."""

    module: nn.Module
    columns: dict[str, Tensor]


class First(nn.Module):
    """A Hugging Face model as a module of plain tensors, called by keyword; its first output."""

    def __init__(self, model: nn.Module, more: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.more = model, more

    def forward(self, x: Tensor) -> Tensor:
        found = self.model(**{name: x if value is None else value for name, value in self.more.items()})
        if isinstance(found, Tensor):
            return found
        result: Tensor = found[0] if isinstance(found, tuple) else next(iter(found.values()))
        return result


def tokens() -> Tensor:
    """int64 [ROWS, LENGTH]."""
    return torch.randint(2, WORDS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))


def hugging_face(kind: str, base: str, options: dict[str, Any], name: str, x: Tensor, **more: Any) -> Specimen:
    """A model made from its configuration."""
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **options)
    model = getattr(transformers, base).from_config(config).eval()
    return Specimen(First(model, {name: None} | more), {"x": x})


def whisper() -> Specimen:
    """The encoder alone, of a spectrogram."""
    import transformers

    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        vocab_size=WORDS, num_mel_bins=8, d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=24, decoder_ffn_dim=24, max_source_positions=6, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    encoder = transformers.WhisperModel(config).eval().get_encoder()
    spectrogram = torch.randn(ROWS, 8, 12, generator=torch.Generator().manual_seed(0))
    return Specimen(First(encoder, {"input_features": None}), {"x": spectrogram})


def bridge(kind: str, architecture: str) -> Specimen:
    """TransformerLens's bridge over a model of Hugging Face."""
    import transformers
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **CAUSAL[kind])
    model = getattr(transformers, architecture)(config).eval()
    return Specimen(
        First(build_bridge_from_module(model, architecture, hf_config=config).eval(), {"input": None}), {"x": tokens()}
    )


def specimens() -> dict[str, Callable[[], Specimen]]:
    """How each is made."""
    made: dict[str, Callable[[], Specimen]] = {}
    for kind, options in CAUSAL.items():
        cache = {} if kind == "rwkv" else {"use_cache": False}
        made[kind] = lambda k=kind, o=options, c=cache: hugging_face(
            k, "AutoModelForCausalLM", o, "input_ids", tokens(), **c
        )
    for kind, options in ENCODERS.items():
        made[kind] = lambda k=kind, o=options: hugging_face(k, "AutoModel", o, "input_ids", tokens())
    picture = torch.randn(ROWS, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for kind, options in PICTURES.items():
        made[kind] = lambda k=kind, o=options: hugging_face(k, "AutoModel", o, "pixel_values", picture)
    for kind, options in BOTH.items():
        made[kind] = lambda k=kind, o=options: hugging_face(
            k, "AutoModel", o, "input_ids", tokens(), decoder_input_ids=None, use_cache=False
        )
    made["clip_text_model"] = lambda: hugging_face(
        "clip_text_model", "AutoModel", COMMON | {"eos_token_id": 2}, "input_ids", tokens()
    )
    sound = torch.randn(ROWS, 400, generator=torch.Generator().manual_seed(0))
    made["wav2vec2"] = lambda: hugging_face("wav2vec2", "AutoModel", SOUND, "input_values", sound)
    made["whisper's encoder"] = whisper
    made["bridge gpt2"] = lambda: bridge("gpt2", "GPT2LMHeadModel")
    made["bridge llama"] = lambda: bridge("llama", "LlamaForCausalLM")
    return made | {name: lambda n=name: plain(n) for name in PLAIN}


def plain(name: str) -> Specimen:
    """A module of torch's own parts."""
    torch.manual_seed(0)
    return Specimen(
        PLAIN[name]().eval(), {"x": torch.randn(ROWS, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))}
    )


def find_cuts(specimen: Specimen) -> dict[str, Cut]:
    """Node name -> what gives (or reads) a value of every row, in its second call if there are several, and matters."""
    candidates: dict[str, Cut] = {}
    for path, module in specimen.module.named_modules():
        *_, parent, last = ["", *path.rpartition(".")[::2]]
        name = path.replace(".", "_")
        if last in CUTS or (last.isdigit() and parent.rpartition(".")[2] in BLOCKS):
            candidates[name] = output_of(path)
        if last in BEFORE:
            candidates[f"{name}_before"] = input_of(path)
        if isinstance(module, nn.LSTM | nn.GRU):
            candidates[f"{name}_h"] = output_of(path, index=(1, 0) if isinstance(module, nn.LSTM) else 1)
    values: dict[str, Any] = {}
    with torch.no_grad():
        with hook(specimen.module, candidates, lambda name, value: values.setdefault(name, value)) as calls:
            plain = specimen.module(*specimen.columns.values())
        found = {}
        for name, cut in candidates.items():
            value, cut = values.get(name), replace(cut, call=1) if calls[name] > 1 else cut
            if (
                not calls[name]
                or not isinstance(value, Tensor)
                or not (value.is_floating_point() or value.is_complex())
            ):
                continue
            if all(size % ROWS for size in value.shape):
                continue
            noise = torch.randn(value.shape, dtype=torch.float32).to(value.dtype)
            with hook(specimen.module, {name: cut}, lambda _, value, noise=noise: noise):
                if not torch.equal(specimen.module(*specimen.columns.values()), plain):
                    found[name] = cut
    return found
