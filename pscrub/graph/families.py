"""Where language models keep what researchers name: for each known family a table of kinds and module paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from pscrub.errors import TraceError, close
from pscrub.graph.cuts import Cut, input_of

NAMES = {
    "embed": "hook_embed",
    "pos_embed": "hook_pos_embed",
    "resid_pre": "blocks.{i}.hook_resid_pre",
    "q": "blocks.{i}.attn.hook_q",
    "k": "blocks.{i}.attn.hook_k",
    "v": "blocks.{i}.attn.hook_v",
    "qkv": "blocks.{i}.attn.hook_qkv",
    "z": "blocks.{i}.attn.hook_z",
    "attn_raw": "blocks.{i}.attn.hook_out",
    "attn_out": "blocks.{i}.hook_attn_out",
    "resid_mid": "blocks.{i}.hook_resid_mid",
    "mlp_pre": "blocks.{i}.mlp.hook_pre",
    "mlp_pre_linear": "blocks.{i}.mlp.hook_pre_linear",
    "mlp_post": "blocks.{i}.mlp.hook_post",
    "mlp_raw": "blocks.{i}.mlp.hook_out",
    "mlp_out": "blocks.{i}.hook_mlp_out",
    "resid_post": "blocks.{i}.hook_resid_post",
}
"""Kind of point -> its name in TransformerLens, in the order of a forward; `hook_qkv` is ours."""
STREAM = ("resid_pre", "resid_mid")
"""Kinds that are read off where a submodule reads them, and are read later too: all of that reads the point."""


@dataclass(frozen=True)
class Family:
    """Where the values of a decoder are: a small table, from which its points are named.

    Args:
        block: the path of a block, `{i}` for its number: what it reads is `resid_pre`, what it returns `resid_post`.
        points: kind (see `NAMES`) -> a path, for what that submodule returns, or `input_of(path)`, for what it reads.
            Paths that begin with a dot are within the block. Kinds that are left out have no point.
        fused: how one projection's output, the kind `qkv`, holds q, k and v: "parts", all of q before all of k before
            all of v; "heads", for each head its q, k and v. "" where they are apart.
        heads: query heads of a layer; by default as the model's configuration says.
        key_heads: heads of keys and values, each read by a group of query heads; by default as the configuration says,
            or as many as query heads.

    A decoder of one's own, its attention `blocks.0.attn` with projections apart and no configuration:

    >>> Family("blocks.{i}", {"q": ".attn.to_q", "z": input_of(".attn.to_out"), "mlp_out": ".mlp"}, heads=4).cut("q", 2)
    Cut(path='blocks.2.attn.to_q', side='output', index=None, call=None)
    """

    block: str
    points: Mapping[str, str | Cut]
    fused: Literal["", "parts", "heads"] = ""
    heads: int | None = None
    key_heads: int | None = None

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.points if kind not in NAMES or kind in ("resid_pre", "resid_post")]
        faults = [f"a family's points have no kind '{kind}'{close(kind, NAMES)}" for kind in unknown]
        if "{i}" not in self.block:
            faults.append(
                f"block is '{self.block}'; expected a path with {{i}} for the layer, as in 'model.layers.{{i}}'"
            )
        if bool(self.fused) != ("qkv" in self.points):
            faults.append("'fused' says how the kind 'qkv' holds q, k and v: give both of them or neither")
        if faults:
            raise TraceError(faults)

    def cut(self, kind: str, layer: int) -> Cut | None:
        """Where a kind's value of a layer is; None where the family has none."""
        path = self.block.format(i=layer)
        if kind in ("resid_pre", "resid_post"):
            return Cut(path, "input" if kind == "resid_pre" else "output")
        if kind not in self.points:
            return None
        given = self.points[kind]
        cut = given if isinstance(given, Cut) else Cut(given, "output")
        return Cut((path if cut.path[:1] == "." else "") + cut.path.format(i=layer), cut.side, cut.index, cut.call)


_GATED: dict[str, str | Cut] = {
    "mlp_pre": ".mlp.gate_proj",
    "mlp_pre_linear": ".mlp.up_proj",
    "mlp_post": input_of(".mlp.down_proj"),
    "mlp_out": ".mlp",
}
_LLAMA: dict[str, str | Cut] = {
    "embed": "model.embed_tokens",
    "q": ".self_attn.q_proj",
    "k": ".self_attn.k_proj",
    "v": ".self_attn.v_proj",
    "z": input_of(".self_attn.o_proj"),
    "attn_out": ".self_attn",
    "resid_mid": input_of(".post_attention_layernorm"),
    **_GATED,
}
_NORMED: dict[str, str | Cut] = {
    **_LLAMA,
    "attn_raw": ".self_attn",
    "attn_out": ".post_attention_layernorm",
    "mlp_raw": ".mlp",
    "mlp_out": ".post_feedforward_layernorm",
}
_GPT2: dict[str, str | Cut] = {
    "embed": "transformer.wte",
    "pos_embed": "transformer.wpe",
    "attn_out": ".attn",
    "resid_mid": input_of(".ln_2"),
    "mlp_pre": ".mlp.c_fc",
    "mlp_post": input_of(".mlp.c_proj"),
    "mlp_out": ".mlp",
}
_NEOX: dict[str, str | Cut] = {
    "embed": "gpt_neox.embed_in",
    "qkv": ".attention.query_key_value",
    "z": input_of(".attention.dense"),
    "attn_out": ".attention",
    "mlp_pre": ".mlp.dense_h_to_4h",
    "mlp_post": input_of(".mlp.dense_4h_to_h"),
    "mlp_out": ".mlp",
}
_OPT: dict[str, str | Cut] = {
    "embed": "model.decoder.embed_tokens",
    "pos_embed": "model.decoder.embed_positions",
    "q": ".self_attn.q_proj",
    "k": ".self_attn.k_proj",
    "v": ".self_attn.v_proj",
    "z": input_of(".self_attn.out_proj"),
    "attn_out": ".self_attn",
    "resid_mid": input_of(".final_layer_norm"),
    "mlp_pre": ".fc1",
    "mlp_post": input_of(".fc2"),
    "mlp_out": ".fc2",
}


def _bert(name: str) -> Family:
    within: dict[str, str | Cut] = {
        "q": ".attention.self.query",
        "k": ".attention.self.key",
        "v": ".attention.self.value",
        "z": input_of(".attention.output.dense"),
        "attn_out": ".attention.output.dense",
        "resid_mid": ".attention.output",
        "mlp_pre": ".intermediate.dense",
        "mlp_post": input_of(".output.dense"),
        "mlp_out": ".output.dense",
    }
    embeddings = {
        "embed": f"{name}.embeddings.word_embeddings",
        "pos_embed": f"{name}.embeddings.position_embeddings",
    }
    return Family(f"{name}.encoder.layer.{{i}}", embeddings | within)


_ROTARY = Family("model.layers.{i}", _LLAMA)
_POST_NORM = Family("model.layers.{i}", _NORMED | {"resid_mid": input_of(".pre_feedforward_layernorm")})

FAMILIES: Mapping[str, Family] = {
    "gpt2": Family("transformer.h.{i}", _GPT2 | {"qkv": ".attn.c_attn", "z": input_of(".attn.c_proj")}, fused="parts"),
    "gpt_neo": Family(
        "transformer.h.{i}",
        _GPT2
        | {
            "q": ".attn.attention.q_proj",
            "k": ".attn.attention.k_proj",
            "v": ".attn.attention.v_proj",
            "z": input_of(".attn.attention.out_proj"),
        },
    ),
    "gpt_neox": Family("gpt_neox.layers.{i}", _NEOX, fused="heads"),
    "gpt_neox, one after the other": Family(
        "gpt_neox.layers.{i}", _NEOX | {"resid_mid": input_of(".post_attention_layernorm")}, fused="heads"
    ),
    "opt": Family("model.decoder.layers.{i}", _OPT),
    "opt, norms after": Family("model.decoder.layers.{i}", _OPT | {"resid_mid": ".self_attn_layer_norm"}),
    "llama": _ROTARY,
    "mistral": _ROTARY,
    "qwen2": _ROTARY,
    "qwen3": _ROTARY,
    "gemma": _ROTARY,
    "gemma2": _POST_NORM,
    "gemma3_text": _POST_NORM,
    "olmo2": Family("model.layers.{i}", _NORMED | {"resid_mid": input_of(".mlp")}),
    "phi3": Family(
        "model.layers.{i}",
        {kind: cut for kind, cut in _LLAMA.items() if kind not in ("q", "k", "v", "mlp_pre", "mlp_pre_linear")}
        | {"qkv": ".self_attn.qkv_proj"},
        fused="parts",
    ),
    "bert": _bert("bert"),
    "roberta": _bert("roberta"),
    "electra": _bert("electra"),
    "distilbert": Family(
        "distilbert.transformer.layer.{i}",
        {
            "embed": "distilbert.embeddings.word_embeddings",
            "pos_embed": "distilbert.embeddings.position_embeddings",
            "q": ".attention.q_lin",
            "k": ".attention.k_lin",
            "v": ".attention.v_lin",
            "z": input_of(".attention.out_lin"),
            "attn_out": ".attention.out_lin",
            "resid_mid": ".sa_layer_norm",
            "mlp_pre": ".ffn.lin1",
            "mlp_post": input_of(".ffn.lin2"),
            "mlp_out": ".ffn",
        },
    ),
}
"""The configuration's `model_type` -> the table, some in two ways that the configuration tells apart."""


def tell_family(model: nn.Module) -> str:
    """The name in `FAMILIES` of the family that a model's configuration says it is of.

    Raises:
        TraceError: none that is known, with an example of a table by hand.
    """
    config: Any = getattr(model, "config", None)
    name = getattr(config, "model_type", None)
    if name == "gpt_neox" and not config.use_parallel_residual:
        name = "gpt_neox, one after the other"
    if name == "opt" and not config.do_layer_norm_before:
        name = "opt, norms after"
    if name in FAMILIES:
        return str(name)
    known = [each for each in FAMILIES if "," not in each]
    says = f"is of the family '{name}', which is not known" if name else "says no family in config.model_type"
    raise TraceError(
        f"{type(model).__name__} {says}; known: {', '.join(known)}. Give the table by hand, for example "
        'family=Family("model.layers.{i}", {"embed": "model.embed_tokens", "q": ".self_attn.q_proj", '
        '"k": ".self_attn.k_proj", "v": ".self_attn.v_proj", "z": input_of(".self_attn.o_proj"), '
        '"attn_out": ".self_attn", "mlp_out": ".mlp"}, heads=12)'
    )
