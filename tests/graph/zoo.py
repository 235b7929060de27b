"""Models that people bring, tiny and with random weights: how each is made, and what it is called on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

ROWS, LENGTH, WORDS = 9, 6, 50
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
    "q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "query", "key", "value", "query_key_value", "Wqkv",
    "qkv_proj", "c_attn", "c_proj", "attn", "self_attn", "attention", "mlp", "fc1", "fc2", "dense", "gate",
    "router", "mixer", "in_proj", "x_proj", "feed_forward", "ffn", "intermediate", "output", "layer", "q_lin",
    "k_lin",
)  # fmt: skip
"""Submodules that are cut where a model has them: the last word of their path."""


@dataclass(frozen=True)
class Specimen:
    """A module in evaluation mode, and columns that it takes."""

    module: nn.Module
    columns: dict[str, Tensor]
    cuts: dict[str, str] = field(default_factory=dict)


class First(nn.Module):
    """A Hugging Face model as a module of plain tensors, called by keyword; its first output."""

    def __init__(self, model: nn.Module, more: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.more = model, more

    def forward(self, x: Tensor) -> Tensor:
        found = self.model(**{name: x if value is None else value for name, value in self.more.items()})
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
    return made | {name: lambda n=name: plain(n) for name in PLAIN}


def plain(name: str) -> Specimen:
    """A module of torch's own parts."""
    torch.manual_seed(0)
    return Specimen(
        PLAIN[name]().eval(), {"x": torch.randn(ROWS, LENGTH, 16, generator=torch.Generator().manual_seed(0))}
    )


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


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "encoder layers": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True), 2),
    "recurrent": Sequences,
    "cell": Cell,
    "length first": LengthFirst,
    "odd": Odd,
    "convolutions": Convolutions,
}


def find_cuts(specimen: Specimen) -> dict[str, str]:
    """Node name -> path, of submodules that are called once and give a tensor with the batch first."""
    found: dict[str, list[Any]] = {}
    handles = []
    for path, module in specimen.module.named_modules():
        if path.rpartition(".")[2] in CUTS:
            note = lambda _, __, result, path=path: found.setdefault(path, []).append(result)  # noqa: E731
            handles.append(module.register_forward_hook(note))
    with torch.no_grad():
        specimen.module(*specimen.columns.values())
    for handle in handles:
        handle.remove()
    cuts = {}
    for path, results in found.items():
        first = next((leaf for leaf in tree_leaves(results[0]) if isinstance(leaf, Tensor)), None)
        if len(results) == 1 and first is not None and first.shape[:1] == (ROWS,):
            cuts[path.replace(".", "_")] = path
    return cuts
