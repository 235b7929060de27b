"""Eleven edges of indirect objects in a GPT-2 of 12 x 12 heads: in seven lines, and by hand; the same numbers.

The law is the same site by site. On the same data f is the same bit for bit by the slow evaluator, given as many draws
at a time (another number rounds otherwise in float32), and by the engine to rounding.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pscrub import EXACT, Claim, Dataset, Graph, Hypothesis, circuit, own_copy, split, unroll
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.graph.decoder import Decoder
from pscrub.graph.opening import open_decoder
from pscrub.hypothesis.tree import Tree
from pscrub.law.drawing import draw
from tests.benchmarks.circuits import EDGES
from tests.hypothesis.test_circuits import random_model

LAYERS = HEADS = 12
WIDTH, N, T, DRAWS = 4, 40, 16, 96
PLACES = {"S1": 2, "S2": 9}
IOI = f"{EDGES}\n7.3@END 8.6@END 0.1@S2 4.11@S1+1 : names"


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    model = random_model(
        "gpt2", n_layer=LAYERS, n_head=HEADS, n_embd=HEADS * WIDTH, n_positions=T, initializer_range=0.2
    )
    ids = torch.randint(0, 50, (N, T), generator=torch.Generator().manual_seed(1))
    rows = torch.arange(N)
    return open_decoder(model, Dataset({"input_ids": ids, "good": rows, "bad": rows + 9, "names": rows % 8}))


def cut(graph: Graph, node: str, axis: int, size: int, name: str, chosen: list[int]) -> Graph:
    """A part of a node, and what that leaves."""
    return split(graph, node, axis, {name: chosen, f"{name} (not)": [i for i in range(size) if i not in chosen]}, size)


def place(graph: Graph, node: str, width: int, first: int, name: str, position: int) -> Graph:
    """A head's entries of a node at one position, as a node of its own."""
    graph = cut(graph, node, 2, width, f"{name} everywhere", list(range(first, first + WIDTH)))
    return cut(graph, f"{name} everywhere", 1, T, name, [position])


def by_hand(decoder: Decoder, rest: Any) -> Hypothesis:
    """With `split` and `own_copy` alone: copies of the movers' layers for the logits, each part cut out of its node."""
    qkv, z, m = "blocks.{}.attn.hook_qkv", "blocks.{}.attn.hook_z", HEADS * WIDTH
    parts = {"q": 0, "k": m, "v": 2 * m}
    end, s2, after = T - 1, PLACES["S2"], PLACES["S1"] + 1
    graph = decoder.graph(
        [*decoder.components, "9.9.q", "10.0.q", "7.3.v", "8.6.v", "5.5.k"], decoder.logit_difference("good", "bad")
    )
    for layer, head in ((9, 9), (10, 0)):
        name = f"z of {layer} for the logits"
        graph = own_copy(graph, z.format(layer), {name: ["logits"]})
        graph = place(graph, name, m, head * WIDTH, f"{layer}.{head}@END", end)
        own = f"qkv of {layer} for the logits"
        graph = own_copy(graph, qkv.format(layer), {own: [name]})
        graph = place(graph, own, 3 * m, head * WIDTH, f"{layer}.{head}.q@END", end)
    for layer, head, spot, at in (
        (7, 3, "END", end),
        (8, 6, "END", end),
        (0, 1, "S2", s2),
        (5, 5, "S2", s2),
        (4, 11, "S1+1", after),
    ):
        graph = place(graph, z.format(layer), m, head * WIDTH, f"{layer}.{head}@{spot}", at)
    for layer, head, part, spot, at in ((7, 3, "v", "S2", s2), (8, 6, "v", "S2", s2), (5, 5, "k", "S1+1", after)):
        name = f"{layer}.{head}.{part}@{spot}"
        graph = place(graph, qkv.format(layer), 3 * m, parts[part] + head * WIDTH, name, at)
    graph = cut(graph, "logits", 1, T, "logits@END", [end])
    exact = [Claim(name, EXACT) for name in ("good", "bad")]

    def claim(at: str, *reads: Claim, feature: Any = None) -> Claim:
        return Claim(at, feature, reads, rest=rest)

    key = claim("5.5.k@S1+1", claim("4.11@S1+1", feature="names"))
    early = [claim("0.1@S2", feature="names"), claim("5.5@S2", key)]
    values = [claim(f"{head}.v@S2", *early) for head in ("7.3", "8.6")]
    inhibition = [claim(f"{v.at[:3]}@END", v, feature="names") for v in values]
    movers = [claim(f"{head}@END", claim(f"{head}.q@END", *inhibition)) for head in ("9.9", "10.0")]
    logits = claim("logits@END", *movers)
    return Hypothesis("by hand", graph, decoder.data, Claim(graph.output, reads=[logits, *exact], rest=rest))


def reference(tree: Tree, data: Any) -> torch.Tensor:
    graph = tree.hypothesis.graph
    return run_scrubbed(tree, Activations(graph, tree.hypothesis.data), data, chunk=DRAWS)


@pytest.mark.parametrize("rest", ["unimportant", "exact"])
def test_the_lines_are_what_one_says_by_hand(decoder: Decoder, rest: Any) -> None:
    loss = decoder.logit_difference("good", "bad")
    said = circuit("IOI", decoder, IOI, behaviour=loss, positions=PLACES, rest=rest)
    assert len([line for line in IOI.splitlines() if line]) == 7
    own = by_hand(decoder, rest)
    own.check()
    one, other = unroll(said), unroll(own)
    claimed = [path for path, site in one.sites.items() if site.claim is not None]
    assert claimed == [path for path, site in other.sites.items() if site.claim is not None] and len(claimed) == 32
    for path in claimed:
        assert one.sites[path].partition == other.sites[path].partition
    free = [path for path, site in one.sites.items() if site.claim is None and site.parent is None]
    assert free == [path for path, site in other.sites.items() if site.claim is None and site.parent is None]
    data = draw(one, DRAWS, (0,))
    theirs = {path: data[path] if path in data else data[path.rpartition("/~own")[0]] for path in other.sites}
    f = reference(other, theirs)
    assert torch.equal(reference(one, data), f) and f.unique().numel() > N  # difference 0
    for tree, given in ((one, data), (other, theirs)):
        torch.testing.assert_close(Engine(decoder.data).f(tree, given), f, rtol=1e-5, atol=1e-6)
