"""What direct means: the edge alone, however it was cut; and the other path, which is the rest's."""

from __future__ import annotations

import random

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, split, unroll
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.graph.ops import Same
from pscrub.hypothesis import reading
from pscrub.hypothesis.isomorphism import make_isomorphic
from pscrub.law.drawing import draw
from pscrub.law.of_f import law_of_f
from tests.routes.build_case import build
from tests.routes.random_cases import cases

DATA = Dataset({"x": torch.tensor([1, 2, 5, 7])})


def graph() -> Graph:
    nodes = {"b": lambda x: x * 2, "a": lambda x: x * 10, "n": lambda a, b: a * 100 + b, "f": lambda a, n: a + n * 1000}
    return Graph.of(nodes, ["x"], "f")


def hypothesis(paths: str = "direct", sharing: str = "reader") -> Hypothesis:
    reads = [Claim("a", "x"), Claim("b", "x")]
    return Hypothesis("h", graph(), DATA, Claim("f", reads=reads, paths=paths), sharing)  # type: ignore[arg-type]


@pytest.mark.parametrize("sharing", ["reader", "all", "each"])
def test_only_the_edge_is_claimed(sharing: str) -> None:
    """f = a + 1000 n and n = 100 a + b: the a that n reads is the rest's, the a that f reads the claim's."""
    h = hypothesis(sharing=sharing)
    assert h.inlined(h.claim) == {"n"} and h.unimportant(h.claim) == ("a",)
    x = DATA["x"].tolist()
    expected: dict[float, float] = {}
    for own in x:
        for other in x:
            f = 10 * own + 1000 * (100 * 10 * other + 2 * own)
            expected[f] = expected.get(f, 0) + 1 / 16
    assert law_of_f(unroll(h)) == expected
    assert law_of_f(unroll(make_isomorphic(h))) == expected


def test_any_follows_every_path() -> None:
    h = hypothesis("any")
    assert h.unimportant(h.claim) == ()
    assert set(law_of_f(unroll(h))) == {10 * x + 1000 * (1000 * x + 2 * x) for x in DATA["x"].tolist()}


def test_the_engine_and_the_slow_evaluator_agree() -> None:
    tree = unroll(hypothesis())
    data = draw(tree, 50, (0,))
    activations = Activations(tree.hypothesis.graph, DATA)
    f = run_scrubbed(tree, activations, data)
    assert torch.equal(f, Engine(DATA).f(tree, data))
    x, own, other = DATA["x"].double(), data["f"], data["f/~"]
    assert torch.equal(f, 10 * x[own] + 1000 * (1000 * x[other] + 2 * x[own]))


def layers() -> Graph:
    torch.manual_seed(0)
    nodes = {
        "z0": lambda x: x.sin(),
        "z1": lambda x, z0: (x + z0).cos(),
        "z2": lambda x, z0, z1: (x + z0 * z1).sin(),
        "q3": lambda z0, z1, z2: z0 + 2 * z1.flip(1) * z2,
        "f": lambda q3, z2: (q3 * z2).sum(1),
    }
    return Graph.of(nodes, ["x"], "f")


def test_a_slice_is_seen_through() -> None:
    g = layers()
    data = Dataset({"x": torch.randn(6, 4, generator=torch.Generator().manual_seed(1))})
    cut = split(g, "q3", 1, {"q3.all": range(4)}, 4)
    half = split(g, "q3", 1, {"q3.l": [0, 1], "q3.r": [2, 3]}, 4)
    sources = split(cut, "z0", 1, {"z0.l": [0, 1], "z0.r": [2, 3]}, 4)

    def inlined(graph: Graph, claim: Claim) -> set[str]:
        return Hypothesis("h", graph, data, claim).inlined(claim)

    assert inlined(g, Claim("q3", reads=[Claim("z0", "x")])) == set()
    assert inlined(cut, Claim("q3.all", reads=[Claim("z0", "x")])) == {"q3"}
    assert inlined(cut, Claim("q3.all", reads=[Claim("z0", "x")], paths="any")) == {"q3", "z1", "z2"}
    assert inlined(half, Claim("f", reads=[Claim("q3", "x")])) == {"q3.l", "q3.r"}
    assert inlined(half, Claim("q3.l", reads=[Claim("q3", "x")])) == set()
    assert inlined(sources, Claim("q3.all", reads=[Claim("z0.l", "x")])) == {"q3"}
    assert inlined(sources, Claim("q3.all", reads=[Claim("z0", "x")])) == {"q3", "z0.l", "z0.r"}


def with_copies(h: Hypothesis, rng: random.Random) -> Hypothesis:
    """The hypothesis on a graph in which some edges lead through copies; what is claimed stays as it was."""
    nodes = {node.name: node for node in h.graph.nodes.values()}
    for name in (*h.graph.inputs, *h.graph.nodes):
        if rng.random() < 0.5:
            copy = Node(f"{name}'", (name,), Same())
            for reader in h.graph.readers(name):
                if rng.random() < 0.6:
                    old = nodes[reader]
                    nodes[reader] = Node(reader, [copy.name if i == name else i for i in old.inputs], old.fn)
            nodes[copy.name] = copy
    return Hypothesis(h.name, Graph(nodes.values(), h.graph.inputs, h.graph.output), h.data, h.claim, h.sharing)


def compare_with_copies() -> int:
    """How many random hypotheses have another law of f once copies are put into edges."""
    differ = 0
    for sharing in ("reader", "all"):
        for k, case in enumerate(cases(sharing)[:16]):
            h = build(case)
            expected, found = law_of_f(unroll(h)), law_of_f(unroll(with_copies(h, random.Random(k))))
            differ += expected.keys() != found.keys() or any(abs(expected[f] - found[f]) > 1e-9 for f in found)
    return differ


def test_an_edge_stays_an_edge_through_copies() -> None:
    assert compare_with_copies() == 0


def test_copies_that_are_not_seen_through_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_is_cut", lambda graph, name: False)
    assert compare_with_copies() > 0
