"""Joins: by blocks and by interpretation graphs, compared exactly; a semilattice; what cannot be joined."""

import random
from dataclasses import replace
from functools import cache

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, HypothesisError, Node, own_copy, split, unroll
from pscrub.hypothesis.joins import join, join_graphs, permits, same_claims, signature
from pscrub.law.exact import leaf_law
from pscrub.law.of_f import law_of_f
from tests.law.long_chain import LENGTH, chain_tree, claim_chain
from tests.routes.build_case import build
from tests.routes.random_cases import _random_claims, cases, support_size

PAIRS = 100
MODES = ("reader", "each", "all")


def refeatured(rng: random.Random, h: Hypothesis) -> Hypothesis:
    """The same nodes, other features."""
    n, made = h.data.n, {}
    for claim in reversed(h.claims):
        reads = [made[read] for read in claim.reads]
        feature = torch.tensor([rng.randrange(3) for _ in range(n)])
        if reads:  # a function of what is read: told apart where a random word of the inputs' blocks differs
            joint = torch.stack([r.feature for r in reads], 1).unique(dim=0, return_inverse=True)[1]
            feature = torch.tensor([rng.randrange(3) for _ in range(n)])[joint]
        made[claim] = Claim(claim.at, feature, reads, name=claim.name, paths=claim.paths)
    return replace(h, name="other features", claim=made[h.claim])


@cache
def pairs() -> tuple[tuple[Hypothesis, Hypothesis], ...]:
    """Pairs on one graph that can be joined: half of one shape, half of any two shapes."""
    small = [case for mode in MODES for case in cases(mode) if support_size(case) <= 100]
    found, k = [], 0
    while len(found) < PAIRS:
        rng, case = random.Random(f"join {k}"), small[k % len(small)]
        k += 1
        a = build(case, "a")
        if len(found) % 2:
            b = refeatured(rng, a)
        else:
            b = build(replace(case, claims=_random_claims(rng, case, 0.3)), "b")
            b = replace(b, graph=a.graph, data=a.data, claim=b.claim)
        try:
            join(a, b)
        except HypothesisError:
            continue
        found.append((a, b))
    return tuple(found)


def close(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(abs(a[key] - b[key]) < 1e-12 for key in a)


def collapsed_law(h: Hypothesis, like: Hypothesis) -> dict:
    """The law of the leaves of another tree, whose leaves stand for several here that always hold the same datum."""
    tree, wanted = unroll(h), unroll(like).leaves
    law, columns = leaf_law(tree), []
    for path in wanted:
        at = _where(like, path) if "~" not in path else None
        if at is not None:
            mine = [i for i, leaf in enumerate(tree.leaves) if _where(h, leaf)[: len(at)] == at]
        else:
            mine = [i for i, leaf in enumerate(tree.leaves) if _is_draw(h, leaf, like, path)]
        assert mine, (path, tree.leaves)
        assert all(bool((law.cells[:, i] == law.cells[:, mine[0]]).all()) for i in mine)
        columns.append(mine[0])
    out: dict = {}
    for cell, p in zip(law.cells[:, columns].tolist(), law.p.tolist(), strict=True):
        out[tuple(cell)] = out.get(tuple(cell), 0.0) + p
    return out


def _where(h: Hypothesis, path: str) -> tuple[str, ...]:
    """The old graph's nodes along a path."""
    names = path.split("/")
    claim, at = h.claim, []
    for name in names[1:]:
        claim = next((r for r in claim.reads if r.name == name), None)
        at.append(claim.at.rsplit("/", 1)[-1] if claim else name)
    return tuple(at)


def _is_draw(h: Hypothesis, leaf: str, like: Hypothesis, path: str) -> bool:
    """Whether a unit-valued leaf stands for a draw of unimportant inputs."""
    reader, _, draw = path.rpartition("/")
    if draw == "~all":
        return leaf == "~all"
    here, _, name = leaf.rpartition("/")
    if not name.startswith("unit(") or _where(h, here) != _where(like, reader):
        return False
    return draw == "~" or name.endswith(f": {draw[1:]})")


def test_both_constructions_have_the_same_law():
    for a, b in pairs():
        by_blocks, by_graphs = join(a, b), join_graphs(a, b)
        by_graphs.check()  # its graph equals f on D
        assert close(law_of_f(unroll(by_blocks)), law_of_f(unroll(by_graphs)))
        assert close(leaf_law(unroll(by_blocks)).as_dict(), collapsed_law(by_graphs, by_blocks))


def test_some_pairs_differ_in_shape_and_some_joins_are_neither_side():
    differ = sum(unroll(a).sites.keys() != unroll(b).sites.keys() for a, b in pairs())
    new = sum(not same_claims(join(a, b), a) and not same_claims(join(a, b), b) for a, b in pairs())
    assert differ >= 30 and new >= 40


def test_a_join_is_commutative_and_idempotent_and_refines_both_sides():
    for a, b in pairs():
        both = join(a, b)
        assert signature(both) == signature(join(b, a))
        assert signature(join(a, a)) == signature(a)
        assert signature(join(both, a)) == signature(both) == signature(join(b, both))
        for each in (a, b):
            _refines(both, both.claim, each, each.claim)


def _refines(fine, claim, coarse, other):
    assert fine.partitions[claim].refines(coarse.partitions[other])
    mine = {read.at: read for read in claim.reads}
    for read in other.reads:
        if claim.reads:
            _refines(fine, mine[read.at], coarse, read)


def test_a_join_is_associative():
    tried = 0
    for k, (a, b) in enumerate(pairs()):
        third = refeatured(random.Random(k), b)
        try:
            left, right = join(join(a, b), third), join(a, join(b, third))
        except HypothesisError:
            continue
        tried += 1
        assert signature(left) == signature(right)
    assert tried >= 80


def test_a_swap_is_permitted_where_both_permit_it():
    looked = 0
    for a, b in pairs()[1::2]:
        both = join(a, b)
        inside = {claim.at for claim in both.claims}
        for claim in (c for c in a.claims if c.at in inside):
            for x in range(a.data.n):
                for y in range(a.data.n):
                    want = permits(a, claim.at, x, y) and permits(b, claim.at, x, y)
                    assert permits(both, claim.at, x, y) == want
                    looked += 1
    assert looked > 500


@pytest.fixture
def parts():
    data = Dataset({"x": torch.arange(6)})
    functions = {"a": lambda x: x % 2, "b": lambda a: a + 1, "c": lambda x: x % 3, "f": lambda b, c: 1.0 * b * c}
    return Graph.of(functions, ["x"], "f"), data


def test_what_cannot_be_joined_is_said(parts):
    graph, data = parts
    parity = Claim("a", lambda d: d["x"] % 2)
    through = Hypothesis("through b", graph, data, Claim("f", reads=[parity]))
    whole = Hypothesis("b itself", graph, data, Claim("f", reads=[Claim("b", lambda d: d["x"] % 2)]))
    with pytest.raises(HypothesisError, match=r"cannot be joined: .*no path leads from 'a' to 'f'"):
        join(through, whole)
    first = replace(whole, graph=own_copy(graph, "a", {"a2": ["b"]}))
    second = replace(whole, name="split", graph=split(graph, "c", 0 + 1, {"c0": 0}, 1))
    with pytest.raises(HypothesisError, match=r"rewritten in ways .*own copy of 'a'; split of 'c'"):
        join(first, second)
    joined = join(whole, first)  # one graph is a rewrite of the other: the later one is taken
    assert joined.graph is first.graph
    with pytest.raises(HypothesisError, match="different datasets"):
        join(whole, replace(whole, data=Dataset({"x": torch.arange(6)})))
    groups = [replace(whole, sharing={"g": [name]}) for name in ("c", "a")]
    with pytest.raises(HypothesisError, match="different groups"):
        join(*groups)


def test_claims_that_differ_between_readers_need_copies():
    data = Dataset({"x": torch.arange(4)})
    graph = Graph.of({"s": lambda x: x * 1.0, "u": lambda s: s, "v": lambda s: s, "f": lambda u, v: u * v}, ["x"], "f")
    low, high = Claim("s", lambda d: d["x"] % 2, name="low"), Claim("s", lambda d: d["x"] // 2, name="high")
    a = Hypothesis("u", graph, data, Claim("f", reads=[Claim("u", reads=[low])]))
    b = Hypothesis("v", graph, data, Claim("f", reads=[Claim("v", reads=[high])]))
    with pytest.raises(HypothesisError, match="own_copy"):
        join(a, b)
    tree = unroll(join_graphs(a, b))
    assert sorted(tree.sites) == ["f", "f/u", "f/u/low", "f/v", "f/v/high"]


def test_unclaimed_is_the_identity_and_a_whole_node_stays_whole(parts):
    graph, data = parts
    finer = Claim("b", lambda d: d["x"] % 2, reads=[Claim("a", lambda d: d["x"])])
    opened = Hypothesis("opened", graph, data, Claim("f", reads=[finer]))
    other = Hypothesis("c", graph, data, Claim("f", reads=[Claim("c", lambda d: d["x"] % 3)]))
    both = join(opened, other)
    assert {claim.at for claim in both.claims} == {"f", "b", "a", "c"}
    whole = Hypothesis("whole", graph, data, Claim("f", reads=[Claim("b", lambda d: d["x"] // 5)]))
    assert {claim.at for claim in join(opened, whole).claims} == {"f", "b"}


def test_chains_longer_than_python_recurses_are_joined_and_compared():
    parity, half = chain_tree().hypothesis, claim_chain("half", lambda data: data["x"] // 2)
    half = replace(half, graph=parity.graph)
    both = join(parity, half)
    assert [both.partitions[claim].n_blocks for claim in both.claims] == [4] * LENGTH
    assert signature(both) == signature(claim_chain("x", lambda data: data["x"])) != signature(half)
    assert same_claims(parity, replace(parity, name="other")) and not same_claims(parity, half)


def test_claims_that_many_paths_lead_to_are_joined_in_no_time():
    functions = {"n0": lambda x: x * 1.0}  # 2^30 paths lead to it
    claim = Claim("n0", "x")
    for k in range(1, 31):
        functions |= {name: (lambda v: v * 1.0) for name in (f"l{k}", f"r{k}")} | {f"n{k}": lambda v, w: v + w}
        claim = Claim(f"n{k}", reads=[Claim(f"l{k}", reads=[claim]), Claim(f"r{k}", reads=[claim])])
    inputs = {f"{side}{k}": (f"n{k - 1}",) for k in range(1, 31) for side in "lr"}
    inputs |= {f"n{k}": (f"l{k}", f"r{k}") for k in range(1, 31)} | {"n0": ("x",)}
    graph = Graph([Node(name, inputs[name], fn) for name, fn in functions.items()], ["x"], "n30")
    h = Hypothesis("h", graph, Dataset({"x": torch.arange(3)}), claim)
    assert same_claims(join(h, h), h)
