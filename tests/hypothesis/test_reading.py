"""What direct means: the edge alone, however it was cut; and the other path, which is the rest's."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from pscrub import EXACT, Claim, Dataset, Graph, Hypothesis, HypothesisError, Node, split, unroll
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.graph.ops import Same
from pscrub.hypothesis import reading, restrict
from pscrub.hypothesis.isomorphism import make_isomorphic
from pscrub.hypothesis.joins import join, join_graphs
from pscrub.law.drawing import draw
from pscrub.law.of_f import law_of_f
from tests.routes.build_case import build
from tests.routes.oracle import Case, distribution_of_f
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


def with_rest(case: Case, rng: random.Random) -> Case:
    """The case with the rest of some of its claims, of its root always, exact."""
    claims = {
        name: replace(said, rest="exact") if name == case.root or rng.random() < 0.5 else said
        for name, said in case.claims.items()
    }
    return replace(case, claims=claims)


@pytest.mark.parametrize("sharing", ["reader", "all", "each"])
def test_an_exact_rest_is_the_readers_own_datum(sharing: str) -> None:
    """f's law as the recursion has it; isomorphic, joined with itself and evaluated by the engine too."""
    apart = 0
    for k, case in enumerate(cases(sharing)[:20]):
        case = with_rest(case, random.Random(k))
        h = build(case)
        tree = unroll(h)
        expected = {float(f): float(p) for f, p in distribution_of_f(case).items()}
        for same in (tree, unroll(make_isomorphic(h)), unroll(join(h, h)), unroll(join_graphs(h, h))):
            assert law_of_f(same) == pytest.approx(expected)
        data = draw(tree, 50, (0,))
        assert torch.equal(run_scrubbed(tree, Activations(h.graph, h.data), data), Engine(h.data).f(tree, data))
        apart += any(site.apart for site in tree.sites.values())
    assert apart  # claimed inputs that other paths read


def test_a_joined_rest_is_exact_where_either_is() -> None:
    """What one claims and the other's exact rest holds is the datum's own, whole."""
    data = Dataset({"x": torch.arange(6)})
    nodes = {"s": lambda x: x % 2, "t": lambda x: x // 2, "u": lambda x: x * x, "f": lambda s, t, u: s + 10 * t + u}
    g = Graph.of(nodes, ["x"], "f")
    a = Hypothesis("a", g, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % 2)], rest=EXACT))
    b = Hypothesis("b", g, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % 3), Claim("t", "x")]))
    for joined in (join(a, b), join(b, a), join_graphs(a, b)):
        tree = unroll(joined)
        kept = {path for path, site in tree.sites.items() if site.partition.n_blocks == 6}
        assert {path.rpartition("/")[2].replace("f|t", "t") for path in kept - {tree.root}} >= {"s", "t"}
        assert not any(site.parent is None for path, site in tree.sites.items() if path != tree.root)


def test_a_rest_that_is_neither_is_refused() -> None:
    h = Hypothesis("h", graph(), DATA, Claim("f", reads=[Claim("a", "x")], rest="all"))  # type: ignore[arg-type]
    with pytest.raises(HypothesisError, match="rest='all'; expected 'unimportant' or 'exact'"):
        h.check()


def test_a_feature_left_out_with_an_exact_rest_is_the_datum() -> None:
    claim = Claim("f", reads=[Claim("a", torch.zeros(4, dtype=torch.int64))], rest=EXACT)
    h = Hypothesis("h", graph(), DATA, claim)
    assert h.partitions[claim].n_blocks == 4 and claim.feature_name == EXACT
    again = Claim("f", torch.tensor([0, 1, 0, 1]), reads=claim.reads, rest=EXACT)  # no function of a's value alone
    assert Hypothesis("h", graph(), DATA, again).faults == ()


def test_another_behaviour_keeps_the_roots_rest() -> None:
    """f where a column has a value: what the root leaves exact is exact there too."""
    data = Dataset({"x": torch.arange(4), "y": torch.tensor([0, 0, 1, 1])})
    nodes = {"s": lambda x: x % 2, "t": lambda x: 10 * x, "f": lambda s, t: (s + t).double()}
    g = Graph.of(nodes, ["x", "y"], "f")
    h = Hypothesis("h", g, data, Claim("f", reads=[Claim("s", torch.zeros(4))], rest=EXACT))
    # Of t each row's own, of s any row's: 2 or 3 times ten, and one more or not, each of the rows that y is 1 on.
    expected = {0.0: 0.5} | {2.0 * f: 0.125 for f in (20.0, 21.0, 30.0, 31.0)}
    assert law_of_f(unroll(restrict(h, "y", 1))) == pytest.approx(expected)
