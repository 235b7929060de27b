"""Other tools' circuits: read as they would run them, written and read again, refused where they say what we cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pscrub import Dataset, HypothesisError, circuit, unroll
from pscrub.evaluate.engine import Engine
from pscrub.graph.decoder import Decoder
from pscrub.graph.opening import open_decoder
from pscrub.hypothesis import read_auto_circuit, read_eap, write_circuit, write_eap
from pscrub.law.drawing import draw
from pscrub.questions import compare_ablations, run_on_partners
from tests.hypothesis.test_circuits import random_model

LAYERS, HEADS, WIDTH, T, N = 3, 2, 8, 6, 12
EDGES = {
    "input->a0.h1<v>", "input->m0", "a0.h1->m0", "m0->a1.h0<q>", "a0.h1->a1.h0<k>", "a1.h0->a2.h1<v>",
    "a0.h0->a2.h1<q>", "a2.h1->m2", "m2->logits", "a2.h1->logits", "a1.h0->logits",
}  # fmt: skip


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    model = random_model(
        "gpt2", n_layer=LAYERS, n_head=HEADS, n_embd=HEADS * WIDTH, n_positions=T, initializer_range=0.3
    )
    ids = torch.randint(0, 50, (N, T), generator=torch.Generator().manual_seed(3))
    return open_decoder(model, Dataset({"input_ids": ids, "good": torch.arange(N), "bad": torch.arange(N) + 9}))


def run_as_they_do(decoder: Decoder, rows: Tensor, others: Tensor) -> Tensor:
    """Logits at the end: a node reads the other input's stream, but for the edges in the graph. Plain torch."""
    model: Any = decoder.model
    ids, blocks = decoder.data["input_ids"], model.transformer.h
    start = {w: model.transformer.wte(ids[r]) + model.transformer.wpe(torch.arange(T)) for w, r in
             (("own", rows), ("other", others))}  # fmt: skip
    own, other = {"input": start["own"]}, {"input": start["other"]}

    def stream(reader: str) -> Tensor:
        edges = [name for name in own if f"{name}->{reader}" in EDGES]
        return sum(other.values()) + sum(own[name] - other[name] for name in edges)  # type: ignore[return-value]

    def head(block: Any, h: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        m = HEADS * WIDTH
        weight, bias = block.attn.c_attn.weight, block.attn.c_attn.bias
        cols = [slice(j * m + h * WIDTH, j * m + (h + 1) * WIDTH) for j in range(3)]
        q, k, v = (block.ln_1(x) @ weight[:, c] + bias[c] for x, c in zip((q, k, v), cols, strict=True))
        scores = (q @ k.transpose(1, 2)) / WIDTH**0.5
        scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
        return scores.softmax(-1) @ v @ block.attn.c_proj.weight[h * WIDTH : (h + 1) * WIDTH]

    with torch.no_grad():
        for i, block in enumerate(blocks):
            added, theirs = {}, {}
            for h in range(HEADS):
                added[f"a{i}.h{h}"] = head(block, h, *(stream(f"a{i}.h{h}<{part}>") for part in "qkv"))
                all_of_it = sum(other.values())
                theirs[f"a{i}.h{h}"] = head(block, h, all_of_it, all_of_it, all_of_it)  # type: ignore[arg-type]
            own |= added
            other |= theirs
            bias = block.attn.c_proj.bias
            own[f"bias{i}"] = other[f"bias{i}"] = bias.expand_as(start["own"])
            mlp = block.mlp(block.ln_2(stream(f"m{i}")))
            other[f"m{i}"] = block.mlp(block.ln_2(sum(other.values())))
            own[f"m{i}"] = mlp
        return model.lm_head(model.transformer.ln_f(stream("logits")))[:, -1]


def test_a_circuit_of_theirs_is_what_they_run(decoder: Decoder, tmp_path: Path) -> None:
    """Edges in the graph on the input, all others on one other input; a head that no edge leads to runs on that."""
    every = write_eap(circuit("any", decoder, "logits <- m0", behaviour=loss(decoder)), LAYERS, HEADS)["edges"]
    file = tmp_path / "circuit.json"
    file.write_text(json.dumps({"edges": {name: {"in_graph": name in EDGES, "score": 0.0} for name in every}}))
    text = read_eap(file)
    assert "2.1.q" not in text  # the head 0.0, which no edge leads to, works on the other input as it does in the rest
    h = replace(circuit("theirs", decoder, text, behaviour=loss(decoder)), sharing="all")
    h.check()
    data = draw(unroll(h), 40, (0,))
    f = Engine(decoder.data).f(unroll(h), data)
    rows = data[h.claim.name]
    logits = run_as_they_do(decoder, rows, data["~all"])
    at = torch.arange(len(rows))
    own = (logits[at, decoder.data["good"][rows]] - logits[at, decoder.data["bad"][rows]]).double()
    assert (f - own).abs().max() <= 1e-5 * own.abs().max()


def test_counterfactual_pairs_are_what_they_run(decoder: Decoder) -> None:
    """Each prompt has a corrupted partner of its own: all other edges carry what they do there. Nothing is drawn."""
    every = write_eap(circuit("any", decoder, "logits <- m0", behaviour=loss(decoder)), LAYERS, HEADS)["edges"]
    text = read_eap({"edges": {name: {"in_graph": name in EDGES} for name in every}})
    rows, others = torch.arange(N), (5 * torch.arange(N) + 3) % N
    paired = decoder.on(Dataset({**decoder.data.columns, "corrupted": others}))
    h = circuit("theirs", paired, text, behaviour=loss(paired))
    logits = run_as_they_do(decoder, rows, others)
    own = (logits[rows, paired.data["good"]] - logits[rows, paired.data["bad"]]).double()
    for each in (h, replace(h, sharing="all")):
        f = run_on_partners(each, "corrupted")
        assert (f - own).abs().max() <= 1e-5 * own.abs().max()
        drawn = compare_ablations(each, 40, kinds=(), partner="corrupted").f[0]
        assert (drawn - f[draw(unroll(each), 40, (0, 0))[each.claim.name]]).abs().max() <= 1e-5 * own.abs().max()


def loss(decoder: Decoder) -> Any:
    return decoder.logit_difference("good", "bad")


def test_written_and_read_again_it_is_the_same(decoder: Decoder) -> None:
    text = "logits <- 2.1 m2 \n m2 <- 2.1 \n 2.1.v <- 1.0 \n 1.0.q <- m0 resid_pre.0 \n m0 <- resid_pre.0"
    h = circuit("ours", decoder, text, behaviour=loss(decoder))
    file = write_eap(h, LAYERS, HEADS)
    again = circuit("ours", decoder, read_eap(json.loads(json.dumps(file))), behaviour=loss(decoder))
    lines = [{*write_circuit(each).replace("  ", " ").splitlines()} for each in (h, again)]
    assert {tuple(sorted(line.split())) for line in lines[0]} == {tuple(sorted(line.split())) for line in lines[1]}
    assert sum(edge["in_graph"] for edge in file["edges"].values()) == 7
    assert len(file["edges"]) == sum(
        (1 + i * (HEADS + 1)) * (3 * HEADS + 1) + HEADS for i in range(LAYERS)
    ) + 1 + LAYERS * (HEADS + 1)
    assert file["nodes"]["a0.h0"] == {"in_graph": False} and file["nodes"]["input"] == {"in_graph": True}


def test_auto_circuits_names_are_the_same_edges(decoder: Decoder) -> None:
    names = [
        "A1.0->A2.1.V",
        "MLP 0->A1.0.Q",
        "A0.0->MLP 2",
        "Resid Start->A1.0.Q",
        "A2.1->Resid End",
        "MLP 2->Resid End",
    ]
    eap = ["a1.h0->a2.h1<v>", "m0->a1.h0<q>", "a0.h0->m2", "input->a1.h0<q>", "a2.h1->logits", "m2->logits"]
    assert read_auto_circuit(names) == read_eap({"edges": {name: {"in_graph": True} for name in eap}})
    circuit("auto", decoder, read_auto_circuit(names), behaviour=loss(decoder)).check()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"edges": {"a0.h0->b1": {"in_graph": True}}}, "'a0.h0->b1' is no edge of EAP-IG's; expected"),
        ({"edges": {"a0.h0->m1": {"in_graph": False}}}, "the EAP-IG circuit has no path from the input to the logits"),
        ({"edges": {"a0.h0->m1": {}}}, "no circuit of EAP-IG's form"),
        ({"nodes": {}}, "no circuit of EAP-IG's form"),
        (
            {
                "edges": {"m0->logits": {"in_graph": True}},
                "nodes": {"m0": {"in_graph": True, "neurons": [True, False]}},
            },
            "some neurons left out: m0",
        ),
        ("no such file.json", "cannot be read as JSON"),
    ],
)  # fmt: skip
def test_what_is_none_of_theirs_is_refused(source: Any, said: str) -> None:
    with pytest.raises(HypothesisError, match=said.replace("(", r"\(")):
        read_eap(source)


def test_what_their_form_has_no_name_for_is_refused(decoder: Decoder) -> None:
    h = circuit("ours", decoder, "logits <- 2.1@END m2[3]", behaviour=loss(decoder))
    with pytest.raises(HypothesisError, match="2 faults") as error:
        write_eap(h, LAYERS, HEADS)
    assert "'2.1@END' has a position" in str(error.value) and "'m2[3]' has entries" in str(error.value)
    whole = circuit("ours", decoder, "logits <- 2.1", behaviour=loss(decoder))
    with pytest.raises(HypothesisError, match=r"a model of 2 layers of 2 heads has not: a2.h1->logits"):
        write_eap(whole, 2, 2)
