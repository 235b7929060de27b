"""Families opened: logits and named values are the module's, heads slices; what is named wrongly is refused."""

import os
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pscrub import circuit, unroll
from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError, TraceError
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.graph import Family, input_of, open_decoder, tell_labels
from pscrub.graph.cuts import hook
from pscrub.graph.decoder import Decoder
from pscrub.law.drawing import draw
from tests.graph.zoo import CAUSAL, ENCODERS, NEEDS, tokens

EVERY = (
    "gpt2", "llama", "gemma3_text", "gpt_neox", "gpt_neo", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "olmo2",
    "phi3", "opt", "bert", "roberta", "distilbert", "electra", "opt, norms after", "gpt_neox, one after the other",
    "bridge gpt2", "bridge llama",
)  # fmt: skip
OTHERWISE: dict[str, tuple[str, dict[str, Any]]] = {
    "opt, norms after": ("opt", {"do_layer_norm_before": False}),
    "gpt_neox, one after the other": ("gpt_neox", {"use_parallel_residual": False}),
}
"""Families that a configuration tells apart -> its kind, and what it says."""
TRIED = EVERY if int(os.environ.get("CASES", "15")) > 15 else EVERY[:3]
N = 9
DATA = {"input_ids": tokens(), "good": torch.arange(N), "bad": torch.arange(N) + 9, "end": torch.arange(N) % 5}


def build(kind: str) -> nn.Module:
    import transformers

    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind])
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

        model = build(kind.removeprefix("bridge "))
        bridge: nn.Module = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
        return bridge.eval()
    torch.manual_seed(0)
    kind, more = OTHERWISE.get(kind, (kind, {}))
    options = (CAUSAL | ENCODERS)[kind] | more
    kind_of = "AutoModelForMaskedLM" if kind in ENCODERS else "AutoModelForCausalLM"
    config = transformers.AutoConfig.for_model(kind, **options)
    model: nn.Module = getattr(transformers, kind_of).from_config(config).eval()
    return model


@pytest.fixture(scope="module")
def gpt2() -> Decoder:
    return open_decoder(build("gpt2"), DATA)


@pytest.fixture(scope="module")
def llama() -> Decoder:
    return open_decoder(build("llama"), DATA)


def logits_of(model: nn.Module) -> Tensor:
    """Its own: a bridge gives them as they are."""
    found = model(DATA["input_ids"])
    logits: Tensor = found if isinstance(found, Tensor) else found.logits
    return logits


@pytest.mark.parametrize("kind", TRIED)
def test_points_and_heads_are_what_hooks_see(kind: str) -> None:
    model = build(kind)
    decoder = open_decoder(model, DATA)
    assert decoder.equality <= 1e-6
    graph = decoder.graph(decoder.points)
    values = graph.run(graph.nodes, {"input_ids": DATA["input_ids"]})
    seen: dict[str, Tensor] = {}
    cuts = {point.node: point.cut for point in decoder.points.values() if point.name != "logits"}
    with torch.no_grad(), hook(model, cuts, lambda name, value: seen.setdefault(name, value.clone())):
        logits = logits_of(model)
    assert (values["logits"] - logits).abs().max() <= 1e-6 * logits.abs().max()
    for point in decoder.points.values():
        own = seen.get(point.node, logits).reshape(-1, *values[point.node].shape[1:])
        assert (values[point.node] - own).abs().max() <= 1e-6 * own.abs().max(), point.name
    sizes = decoder.sizes
    for layer in range(sizes.layers):
        parts = {part: sizes.heads for part in "qz"} | {part: sizes.key_heads for part in "kv"}
        for part, heads in parts.items():
            grouped = part in "kv" and sizes.group > 1
            for head in range(heads):
                piece = decoder.piece(f"{layer}.{'g' * grouped}{head}.{part}")
                own = apart(kind, decoder, seen, layer, part)[:, :, head]
                value, own = values[piece.node][..., list(piece.entries or ())], own.expand(N, -1, -1)
                # A bridge's norms are rounded otherwise where their hooks are read, as it warns.
                bridged = kind.startswith("bridge") and (value - own).abs().max() <= 1e-6 * own.abs().max()
                assert bridged or torch.equal(value, own)


def apart(kind: str, decoder: Decoder, seen: dict[str, Tensor], layer: int, part: str) -> Tensor:
    """[N, positions, heads, width], cut as the model's own forward cuts it."""
    sizes, name = decoder.sizes, f"blocks.{layer}.attn.hook_"
    if part == "z" or f"{name}qkv" not in seen:
        value, heads = seen[f"{name}{part}"], sizes.key_heads if part in "kv" else sizes.heads
        return value.reshape(N, -1, heads, value.shape[-1] // heads)
    value = seen[f"{name}qkv"]
    if kind.startswith("gpt_neox"):
        return value.view(N, -1, sizes.heads, value.shape[-1] // sizes.heads).chunk(3, -1)["qkv".index(part)]
    width = value.shape[-1] // (sizes.heads + 2 * sizes.key_heads)
    many = [sizes.heads * width, sizes.key_heads * width, sizes.key_heads * width]
    return value.split(many, -1)["qkv".index(part)].reshape(N, value.shape[1], -1, width)


def test_equality_is_told(gpt2: Decoder, capsys: pytest.CaptureFixture[str]) -> None:
    """In a line on standard output, or to whom one says."""
    heard: list[str] = []
    again = open_decoder(gpt2.model, DATA)
    printed = capsys.readouterr()
    open_decoder(gpt2.model, DATA, tell=heard.append)
    open_decoder(gpt2.model, DATA, tell=None)
    said = f"{again.equality:.1e} of the largest, measured on 3 rows"
    assert printed.out == f"GPT2LMHeadModel, gpt2: 2 layers of 4 heads: logits equal the model's to {said}\n"
    assert heard == printed.out.splitlines() and not printed.err and capsys.readouterr().out == ""


def test_the_stream_is_read_by_what_is_added_later(gpt2: Decoder) -> None:
    graph = gpt2.graph(["resid_mid.0", "m0", "resid_post.0"])
    assert set(graph.nodes["blocks.0.hook_resid_post"].inputs) == {"blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"}


@pytest.mark.parametrize(
    ("names", "piece", "node"),
    [
        (["1.2", "L1H2", "a1.h2", "A1.2", "1.2.z", "A1.2.Z", "a1.h2<z>"], "1.2", "blocks.1.attn.hook_z"),
        (["1.2.q", "L1H2.q", "a1.h2<q>", "A1.2.Q"], "1.2.q", "blocks.1.attn.hook_qkv"),
        (["blocks.1.hook_mlp_out", "mlp_out.1", "m1", "mlp1", "MLP 1", "transformer.h.1.mlp", "blocks.1.mlp.hook_out"],
         "blocks.1.hook_mlp_out", "blocks.1.hook_mlp_out"),
        (["blocks.1.hook_resid_pre", "resid_pre.1", "resid_post.0", "transformer.h.0"],
         "blocks.0.hook_resid_post", "blocks.0.hook_resid_post"),
        (["embed", "hook_embed", "transformer.wte"], "hook_embed", "hook_embed"),
        (["pos", "pos_embed", "hook_pos_embed"], "hook_pos_embed", "hook_pos_embed"),
        (["logits"], "logits", "logits"),
    ],
)  # fmt: skip
def test_names_are_resolved(gpt2: Decoder, names: list[str], piece: str, node: str) -> None:
    found = [gpt2.piece(name) for name in names]
    assert {(each.name, each.node) for each in found} == {(piece, node)} and len({each.entries for each in found}) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1.7", "layer 1 has 4 heads, 0 to 3"),
        ("9.1.q", "no layer 9; its 2 are 0 to 1"),
        ("resid_post.2", "no layer 2"),
        ("1.3.k", "group 1 serves query heads 2 to 3: say '1.g1.k'"),
        ("1.0.k", "say '1.g0.k'"),
        ("1.g2.v", "has 2 groups, 0 to 1"),
        ("1.g1.q", "say '1.2'"),
        ("blocks.1.hook_mlp_uot", "did you mean.*blocks.1.hook_mlp_out"),
        ("pos", "no such point"),
    ],
)
def test_wrong_names_are_refused(llama: Decoder, name: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        llama.piece(name)


def test_unknown_families_say_what_is_known_and_take_a_table() -> None:
    model = build("llama")
    with pytest.raises(TraceError, match="no family is named 'lama'; did you mean \"llama\""):
        open_decoder(model, DATA, family="lama")
    model.config.model_type = "novel"
    with pytest.raises(TraceError, match=r"'novel', which is not known; known: gpt2.*Give the table by hand"):
        open_decoder(model, DATA)
    table = Family("model.layers.{i}", {"z": input_of(".self_attn.o_proj"), "mlp_out": ".mlp"}, heads=4)
    assert open_decoder(model, DATA, family=table).piece("1.3").entries == tuple(range(12, 16))


def test_losses_are_those_by_hand_and_know_their_labels(gpt2: Decoder) -> None:
    ids, rows = DATA["input_ids"], torch.arange(N)
    logits = gpt2.own_logits()
    logs = logits.log_softmax(-1)
    own = gpt2.on(Dataset({**gpt2.data.columns, "own": logits.roll(1, 0)}))
    assert torch.equal(gpt2.data["next_tokens"], ids[:, 1:])
    nll = -logs[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    theirs, end = logs.roll(1, 0)[:, -1], DATA["end"]
    last = logits[:, -1]
    for loss, expected, labels in (
        (gpt2.next_token_loss(), nll.mean(1), ("next_tokens",)),
        (gpt2.next_token_loss([0, 3]), nll[:, [0, 3]].mean(1), ("next_tokens",)),
        (gpt2.next_token_loss("end"), nll[rows, end], ("next_tokens",)),
        (gpt2.logit_difference("good", "bad"), last[rows, DATA["good"]] - last[rows, DATA["bad"]], ("good", "bad")),
        (gpt2.answer_log_prob("good", "end"), logs[rows, end, DATA["good"]], ("good",)),
        (gpt2.answer_accuracy("good"), (last.argmax(1) == DATA["good"]).float(), ("good",)),
        (own.own_divergence("own"), (theirs.exp() * (theirs - logs[:, -1])).sum(1), ("own",)),
    ):
        graph = own.graph(["z.0"], loss)
        found = graph.run([graph.output], {name: own.data[name] for name in graph.inputs})[graph.output]
        torch.testing.assert_close(found, expected)
        assert tell_labels(graph).columns == labels and "logits" in tell_labels(graph).outputs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d.logit_difference("god", "bad"), "no column 'god'; did you mean \"good\""),
        (lambda d: d.next_token_loss(-1), "no position -1: expected 0 to 4, those that have a next token"),
        (lambda d: d.answer_log_prob("good", 6), "no position 6"),
        (lambda d: d.answer_log_prob("good", "bad"), "'bad' is none on rows 0, 1"),
        (lambda d: d.next_token_loss(labels="input_ids"), "the model's input"),
        (lambda d: d.on(Dataset({"good": torch.arange(3)})), "'input_ids', which is missing"),
    ],
)
def test_wrong_losses_are_refused(gpt2: Decoder, make: Any, message: str) -> None:
    with pytest.raises((GraphError, TraceError), match=message):
        make(gpt2)


@pytest.mark.parametrize("kind", TRIED)
def test_a_circuit_of_every_family(kind: str) -> None:
    """Edges into a head's parts and an MLP, at positions: exact it is the model, resampled both evaluators agree."""
    decoder = open_decoder(build(kind), DATA)
    key = "1.g0" if decoder.sizes.group > 1 else "1.1"
    serial = any(point.kind == "resid_mid" for point in decoder.points.values())
    lines = f"logits <- 1.1 m1 \n 1.1.q@end <- 0.1@end m0@end \n {key}.k@2 <- 0.2@2 embed@2 \n m1 <- 0.3"
    lines += " 1.0" if serial else ""
    loss = decoder.logit_difference("good", "bad", at="end")
    h = circuit("said", decoder, lines, behaviour=loss)
    h.check()
    tree = unroll(h)
    data = draw(tree, 32, (0,))
    f = run_scrubbed(tree, Activations(h.graph, h.data), data)
    torch.testing.assert_close(Engine(h.data).f(tree, data), f, rtol=1e-4, atol=1e-6)
    assert f.unique().numel() > N  # something is resampled
    exact = lines.replace("logits <- 1.1 m1", "logits <- 1.1 m1 \n 0.1@end m0@end 0.2@2 embed@2 0.3 : exact")
    h = circuit("exact", decoder, exact + ("\n 1.0 : exact" if serial else ""), behaviour=loss, rest="exact")
    tree = unroll(h)
    data = draw(tree, 32, (0,))
    with torch.no_grad():
        logits = logits_of(decoder.model)
    rows = torch.arange(N)
    own = logits[rows, DATA["end"], DATA["good"]] - logits[rows, DATA["end"], DATA["bad"]]
    assert (Engine(h.data).f(tree, data) - own[data[h.claim.name]]).abs().max() <= 1e-5 * logits.abs().max()
