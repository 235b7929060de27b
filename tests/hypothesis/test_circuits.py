"""Circuits as text: equal to claims by hand and to hooks; every fault with its line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pscrub import EXACT, Claim, Dataset, Graph, Hypothesis, HypothesisError, circuit, own_copy, split, unroll
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.graph import Subspace
from pscrub.graph.decoder import Decoder
from pscrub.graph.opening import open_decoder
from pscrub.hypothesis import write_circuit
from pscrub.law.drawing import draw

LAYERS, HEADS, WIDTH, N, T = 4, 4, 16, 24, 10
IOI = """
name movers = 3.1 3.0                 # two heads
logits@END <- movers@END
3.1.q@END  <- 2.3@END 1.2@END
2.3.v@S2   <- 0.1@S2 1.1@S2
0.2@S1+1   -> 1.1.k@S1+1
3.1@END    : io
"""


def random_model(kind: str, **options: Any) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, vocab_size=50, bos_token_id=0, eos_token_id=0, **options)
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config).eval()
    return model


def columns() -> Mapping[str, Tensor]:
    rows = torch.arange(N)
    ids = torch.randint(0, 50, (N, T), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "good": rows, "bad": rows + 9, "S1": rows % 3, "S2": 5 + rows % 3, "io": rows % 4}


@pytest.fixture(scope="module")
def gpt2() -> Decoder:
    model = random_model(
        "gpt2", n_layer=LAYERS, n_head=HEADS, n_embd=HEADS * WIDTH, n_positions=T, initializer_range=0.2
    )
    return open_decoder(model, Dataset(columns()))


@pytest.fixture(scope="module")
def llama() -> Decoder:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    model = random_model("llama", num_attention_heads=4, num_key_value_heads=2, **sizes)
    return open_decoder(model, Dataset(columns()))


def read(decoder: Decoder, text: Any, **options: Any) -> Hypothesis:
    return circuit("circuit", decoder, text, behaviour=decoder.logit_difference("good", "bad"), **options)


def scrubbed(h: Hypothesis, n: int = 64) -> tuple[Mapping[str, Tensor], Tensor]:
    """Data, and f by both evaluators."""
    h.check()
    tree = unroll(h)
    data = draw(tree, n, (0,))
    f = run_scrubbed(tree, Activations(h.graph, h.data), data, chunk=n)  # of other sizes float32 is rounded otherwise
    torch.testing.assert_close(Engine(h.data).f(tree, data), f, rtol=1e-4, atol=1e-6)
    return data, f


def by_hand(decoder: Decoder, rest: Any) -> Hypothesis:
    """Two movers and the query of one, at fixed positions, with rewrites alone."""
    nodes = [f"m{i}" for i in range(LAYERS)] + [f"z.{i}" for i in range(LAYERS)] + ["embed", "pos", "3.1.q"]
    g = decoder.graph(nodes, decoder.logit_difference("good", "bad"))
    z, m = "blocks.{}.attn.hook_z", HEADS * WIDTH

    def cut(g: Graph, node: str, axis: int, size: int, name: str, chosen: range) -> Graph:
        left = [each for each in range(size) if each not in chosen]
        return split(g, node, axis, {name: list(chosen), f"{name} (not)": left}, size)

    # z of the movers, and of what the query reads, each with its position apart.
    for name, head in (("3.1", 1), ("3.0", 0)):
        g = own_copy(g, z.format(3), {f"z of {name}": ["logits"]}) if name == "3.1" else g
        source = "z of 3.1" if name == "3.1" else "z of 3.1: (not)"
        if name == "3.1":
            g = cut(g, source, 2, m, "3.1 all", range(head * WIDTH, (head + 1) * WIDTH))
            g = cut(g, "3.1 all", 1, T, "3.1 here", range(T - 1, T))
    qkv = "blocks.3.attn.hook_qkv"
    g = own_copy(g, qkv, {"qkv for 3.1": ["z of 3.1"]}) if "z of 3.1" in g.readers(qkv) else g
    source = "qkv for 3.1" if "qkv for 3.1" in g.nodes else qkv
    g = cut(g, source, 2, 3 * m, "q", range(WIDTH, 2 * WIDTH))
    g = cut(g, "q", 1, T, "q here", range(T - 1, T))
    g = cut(g, z.format(2), 2, m, "2.3", range(3 * WIDTH, 4 * WIDTH))
    g = cut(g, "2.3", 1, T, "2.3 here", range(T - 1, T))
    query = Claim("q here", reads=[Claim("2.3 here", "io")], rest=rest)
    logits = Claim("logits", reads=[Claim("3.1 here", reads=[query], rest=rest)], rest=rest)
    exact = [Claim(name, EXACT) for name in ("good", "bad")]
    return Hypothesis("by hand", g, decoder.data, Claim(g.output, reads=[logits, *exact], rest=rest))


@pytest.mark.parametrize("rest", ["unimportant", "exact"])
def test_it_is_what_one_says_by_hand(gpt2: Decoder, rest: Any) -> None:
    """The same law, site by site, and f with difference 0 on the same data."""
    text = "logits <- 3.1@END \n 3.1.q@END <- 2.3@END \n 2.3@END : io"
    said, own = read(gpt2, text, rest=rest), by_hand(gpt2, rest)
    names = {"2.3 here": "2.3@END", "q here": "3.1.q@END", "3.1 here": "3.1@END"}
    data, f = scrubbed(own)
    tree = unroll(said)
    renamed = {}
    for path, rows in data.items():
        for old, new in names.items():
            path = path.replace(old, new)
        renamed[path] = rows
    assert {path for path in tree.sites if "~" not in path} == {path for path in renamed if "~" not in path}
    for path, site in tree.sites.items():
        if path not in renamed:  # the rest of pieces that the other way of cutting has no need of
            reader = renamed[path.rpartition("/~")[0]]
            renamed[path] = reader if site.parent else torch.zeros_like(reader)
    assert torch.equal(run_scrubbed(tree, Activations(said.graph, said.data), renamed, chunk=len(f)), f)


def patched(decoder: Decoder, rows: Tensor, others: Tensor) -> Tensor:
    """f on rows, where head 3.1's query at the end reads what 2.3 wrote there on other rows, by hooks.

    What the last MLP makes of it is another path, so the MLP's output stays as it was.
    """
    model, ids = decoder.model, decoder.data["input_ids"]
    blocks = model.transformer.h  # type: ignore[union-attr]
    theirs: list[Tensor] = []
    last: list[Tensor] = []
    ours: list[Tensor] = []

    def keep(to: list[Tensor]) -> Any:
        return lambda module, given: to.append(given[0].clone())

    for which, to in ((others, theirs), (rows, ours)):
        handles = [
            blocks[2].attn.c_proj.register_forward_pre_hook(keep(to)),  # type: ignore[index,union-attr]
            blocks[3].mlp.register_forward_hook(lambda module, given, result: last.append(result.clone())),  # type: ignore[index,union-attr]
        ]
        with torch.no_grad():
            model(ids[which])
        for each in handles:
            each.remove()
    head = slice(3 * WIDTH, 4 * WIDTH)
    weight = blocks[2].attn.c_proj.weight[head]  # type: ignore[index,union-attr]
    change = (theirs[0] - ours[0])[:, -1, head] @ weight
    attention = blocks[3].attn  # type: ignore[index,union-attr]
    norm = blocks[3].ln_1  # type: ignore[index,union-attr]
    stream: list[Tensor] = []

    def give_query(module: nn.Module, given: Any, result: Tensor) -> Tensor:
        moved = stream[0].clone()
        moved[:, -1] += change
        query = norm(moved) @ attention.c_attn.weight + attention.c_attn.bias
        result = result.clone()
        result[:, -1, WIDTH : 2 * WIDTH] = query[:, -1, WIDTH : 2 * WIDTH]
        return result

    handles = [
        blocks[3].register_forward_pre_hook(lambda module, given: stream.append(given[0].clone())),  # type: ignore[index,union-attr]
        attention.c_attn.register_forward_hook(give_query),
        blocks[3].mlp.register_forward_hook(lambda module, given, result: last[1]),  # type: ignore[index,union-attr]
    ]
    with torch.no_grad():
        logits = model(ids[rows]).logits[:, -1]
    for each in handles:
        each.remove()
    at = torch.arange(len(rows))
    return (logits[at, decoder.data["good"][rows]] - logits[at, decoder.data["bad"][rows]]).double()


def test_one_edge_is_what_hooks_patch(gpt2: Decoder) -> None:
    h = read(gpt2, "logits@END <- 3.1@END \n 3.1.q@END <- 2.3@END \n 2.3@END : anything", rest="exact")
    data, f = scrubbed(h)
    source = next(path for path in data if path.endswith("/2.3@END"))
    own = patched(gpt2, data[h.claim.name], data[source])
    assert (f - own).abs().max() <= 1e-5 * own.abs().max()
    plain = patched(gpt2, data[h.claim.name], data[h.claim.name])
    assert (own - plain).abs().max() > 1e-3 * own.abs().max()  # the path matters


@pytest.mark.parametrize("rest", ["unimportant", "exact"])
def test_a_circuit_runs_and_writes_itself(gpt2: Decoder, rest: Any) -> None:
    more = "" if rest == "unimportant" else "3.0@END 1.2@END 0.1@S2 0.2@S1+1 : anything"
    h = read(gpt2, IOI + more, rest=rest)
    assert len(unroll(h).sites) > 10 and "3.1@END" in {claim.name for claim in h.claims}
    _, f = scrubbed(h)
    again = read(gpt2, write_circuit(h), rest=rest)
    assert write_circuit(again) == write_circuit(h) and torch.equal(scrubbed(again)[1], f)
    lines = dict(line.split(" <- ") for line in write_circuit(h).splitlines() if " <- " in line)
    assert lines["3.1@END   "].split() == ["3.1.q@END"] and "3.1@END    : io" in write_circuit(h)
    mapped = {reader.strip(): sources.split() for reader, sources in lines.items()}
    if rest == "unimportant":
        plain = read(gpt2, IOI.replace("3.1@END    : io", ""))
        assert torch.equal(scrubbed(read(gpt2, mapped))[1], scrubbed(plain)[1])


@pytest.mark.parametrize("rest", ["unimportant", "exact"])
def test_readers_may_need_a_source_to_agree_on_other_features(gpt2: Decoder, rest: Any) -> None:
    """Each has a copy of its own; with one feature for all of them, the same law and the same f as without copies."""
    text = "logits@END <- 3.1@END 3.0@END m2@END \n 3.1.q@END <- {} \n 3.0.q@END <- {} \n m2@END <- {} \n"
    text += "3.0.k@S2 <- 0.1@S2 \n 0.1@S2 : io"
    h = read(gpt2, text.format("1.1@END(io)", "1.1@END(S1)", "1.1@END(io)"), rest=rest)
    names = [claim.name for claim in h.claims]
    assert names.count("1.1@END(io)") == names.count("1.1@END(S1)") == 1 and "1.1@END" not in names
    assert {h.partitions[claim].n_blocks for claim in h.claims if claim.name.startswith("1.1")} == {4, 3}
    scrubbed(h)
    again = read(gpt2, write_circuit(h), rest=rest)
    assert write_circuit(again) == write_circuit(h)
    copied = read(gpt2, text.format(*["1.1@END(io)"] * 3), rest=rest)
    plain = read(gpt2, text.format(*["1.1@END"] * 3) + "\n 1.1@END : io", rest=rest)
    data, f = scrubbed(plain)
    renamed = {path.replace("1.1@END", "1.1@END(io)"): rows for path, rows in data.items()}
    tree = unroll(copied)
    assert {*tree.sites} == {*renamed}
    assert torch.equal(run_scrubbed(tree, Activations(copied.graph, copied.data), renamed, chunk=len(f)), f)


def test_every_path_is_activation_patching(gpt2: Decoder) -> None:
    """A head's z at one position exchanged, and all that reads it computed anew: by a hook."""
    h = read(gpt2, "logits@END <= 1.2@S2 \n 1.2@S2 : anything", rest="exact")
    data, f = scrubbed(h)
    assert "<= 1.2@S2" in write_circuit(h) and torch.equal(scrubbed(read(gpt2, write_circuit(h), rest="exact"))[1], f)
    model: Any = gpt2.model
    ids, own, other = gpt2.data["input_ids"], data[h.claim.name], data[next(p for p in data if p.endswith("1.2@S2"))]
    kept: list[Tensor] = []
    head, rows = slice(2 * WIDTH, 3 * WIDTH), torch.arange(len(own))

    def exchange(module: nn.Module, given: Any) -> Any:
        kept.append(given[0].clone())
        if len(kept) == 2:
            moved = given[0].clone()
            moved[rows, gpt2.data["S2"][own], head] = kept[0][rows, gpt2.data["S2"][other], head]
            return (moved,)
        return None

    handle = model.transformer.h[1].attn.c_proj.register_forward_pre_hook(exchange)
    with torch.no_grad():
        _, logits = model(ids[other]), model(ids[own]).logits[:, -1]
    handle.remove()
    patched = (logits[rows, gpt2.data["good"][own]] - logits[rows, gpt2.data["bad"][own]]).double()
    assert (f - patched).abs().max() <= 1e-5 * patched.abs().max()


def test_everything_exact_is_the_model(gpt2: Decoder) -> None:
    exact = "movers@END 0.1@S2 1.2@END 0.2@S1+1 : exact"
    h = read(gpt2, IOI.replace("3.1@END    : io", exact), rest="exact")
    data, f = scrubbed(h)
    with torch.no_grad():
        logits = gpt2.model(gpt2.data["input_ids"]).logits[:, -1]
    rows = torch.arange(N)
    own = (logits[rows, rows] - logits[rows, rows + 9]).double()[data[h.claim.name]]
    assert (f - own).abs().max() <= 1e-5 * own.abs().max()


def test_every_position_by_itself(gpt2: Decoder) -> None:
    """An edge for each position, the one before where it says so; none at the first, which has none before."""
    h = read(gpt2, "logits@* <- 3.1@* \n 3.1@* <- 3.1.v@*-1 \n 3.1.v@* <- embed@*")
    claims = {claim.name: [each.name for each in claim.reads] for claim in h.claims}
    assert claims["logits@9"] == ["3.1@9"] and claims["3.1@9"] == ["3.1.v@8"] and claims["3.1.v@8"] == ["embed@8"]
    assert claims["3.1@0"] == [] and len([name for name in claims if name.startswith("embed")]) == T - 1


def test_a_head_reads_other_sources_through_its_q_k_and_v(llama: Decoder) -> None:
    h = read(llama, "logits <- 1.3 \n 1.3 <- 0.1 m0")
    claims = {claim.name: [each.name for each in claim.reads] for claim in h.claims}
    assert claims["1.3"] == ["1.3.q", "1.g1.k", "1.g1.v"] and claims["1.g1.k"] == ["0.1", "m0"]
    scrubbed(h)
    shared = read(llama, "logits <- 1.2 1.3 \n 1.g1.k <- 0.1")  # a group's keys serve both of its heads
    claims = {claim.name: [each.name for each in claim.reads] for claim in shared.claims}
    assert claims["1.2"] == claims["1.3"] == ["1.g1.k"]


def test_neurons_directions_and_the_stream(gpt2: Decoder) -> None:
    basis = torch.linalg.qr(torch.randn(64, 2, generator=torch.Generator().manual_seed(2)))[0]
    latent = Subspace(basis[:, :1], (basis[:, :1] + basis[:, 1:]).T)  # read by one direction, written by another
    text = "logits@END <- resid_post.2[latent]@END m3[3,5]@END \n m3[3,5]@END <- mlp_post.3[0:8]@END"
    h = read(gpt2, text, directions={"latent": latent})
    _, f = scrubbed(h)
    assert len({claim.name for claim in h.claims}) == 7 and f.std() > 0


FAULTS = {
    "logits@END <- 9.9@END": ("line 1, '9.9@END'", "no layer 9"),
    "logits@END <- 3.7@END": ("line 1, '3.7@END'", "4 heads, 0 to 3"),
    "logits <- 3.1 \n 3.1.q <-": ("line 2", "nothing stands after '<-'; expected 'reader <- sources'"),
    "logits <- 3.1 \n foo bar": ("line 2, 'foo bar'", "expected 'reader <- sources'"),
    "logits <- 3.1 \n 3.1.q <- 2.1 -> 3.0": ("line 2", "both '<-' and '->'"),
    "logits <- 3.1 <- 2.1": ("line 1", "has 2 arrows to the left"),
    "logits <- 3.1 : io": ("line 1", "say features on lines of their own"),
    "logits <- 3.1 \n logits <= 2.1": ("line 2, 'logits'", "by the edge alone in line 1"),
    "logits <= 3.1 \n 3.1.q <=": ("line 2", "nothing stands after '<='; expected 'reader <= sources'"),
    "logits <- 3.1@@2": ("line 1", "'3.1@@2' is no place"),
    "logits <- 3.1 \n 3.1 : io S1": ("line 2", "no feature or column is named 'io S1'"),
    "logits <- 3.1 \n 3.1 : rest=all": ("line 2", "rest=all"),
    "name 3x = 3.1 \n logits <- 3.1": ("line 1", "'3x' cannot name a group"),
    "name m = 3.1@END \n logits <- m@S1": ("line 2", "says already where"),
    "logits@END <- 1.1@END \n 1.1.q@END <- 2.3@END": ("line 2, '1.1.q@END'", "the model computes '2.3@END' from it"),
    "logits@END <- 3.1@END \n 3.1.v@S2 <- 0.1@S1": ("line 2, '3.1.v@S2'", "at another position on rows 0, 1, 2"),
    "logits@END <- 3.1@END \n 3.1.k@S2+9 <- 0.1@S2+9": ("line 2", "14 on row 0"),
    "logits <- 3.1 3.1@END": ("line 1", "overlap"),
    "logits <- m3 m3@END": ("line 1", "two claims at one"),
    "logits <- resid_pre.3 2.1": ("line 1", "only through others (by way of", "blocks.2.hook_resid_post"),
    "logits <- 3.1@S5": ("line 1", "no position or column is named 'S5'"),
    "logits <- 3.1 \n 3.1 : iox": ("line 2", 'did you mean "io"?'),
    "logits <- 3.1 \n 2.1.q <- 1.1": ("line 2, '2.1.q'", "is read by no part that leads to 'logits'"),
    "3.1.q <- 2.1": ("no line says what 'logits' reads",),
    "logits <- m3[99]": ("line 1", "entries [99] are not there; expected some of 0 to 63"),
    "logits <- m3[warm]": ("line 1", "no directions of that name"),
    "logits <- 3.1@12": ("line 1", "position 12; expected -10 to 9"),
    "logits <- mlpp.3": ("line 1, 'mlpp.3'", "the model has no point"),
    "logits <- 3.1 \n 3.1.q(io) <- 2.1": ("line 2", "is read with a feature of its own, and reads others"),
    "logits <- 3.1 \n 3.1(io) : io": ("line 2", "names a feature already"),
    "logits <- 3.1(iox)": ("line 1", 'did you mean "io"?'),
    "# nothing": ("the text says nothing",),
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_told_with_its_line(gpt2: Decoder, text: str) -> None:
    with pytest.raises(HypothesisError) as error:
        read(gpt2, text)
    for said in FAULTS[text]:
        assert said in str(error.value)


def test_all_faults_are_listed(gpt2: Decoder) -> None:
    with pytest.raises(HypothesisError, match="3 faults"):
        read(gpt2, "logits <- 9.9 3.9 \n 3.1.q@S7 <- 2.1")


def test_a_groups_key_is_no_query_heads(llama: Decoder) -> None:
    with pytest.raises(HypothesisError, match=r"line 2, '1.3.k': .* say '1.g1.k'"):
        read(llama, "logits <- 1.3 \n 1.3.k <- 0.1")


def test_with_the_rest_exact_what_is_swapped_has_a_feature(gpt2: Decoder) -> None:
    with pytest.raises(HypothesisError, match=r"line 1, '3.1': says no feature; with the rest exact"):
        read(gpt2, "logits <- 3.1", rest="exact")
