"""The oracle itself: laws by hand, the statements it must obey exactly, and what its cases cover."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction as Fr

import pytest

from tests.routes.oracle import (
    FAULTS,
    Case,
    CaseClaim,
    Fault,
    GraphNode,
    Polynomial,
    distribution_of_f,
    drawn_at,
    e_model,
    e_randomised,
    entropy,
    expectation,
    inlined,
    law,
    leaf_law,
    leaves,
    marginal,
    mean,
    prior,
    sites,
    tally,
    treeify,
    unimportant,
    wire_entropies,
    wire_laws,
)
from tests.routes.random_cases import MODES, PER_MODE, cases, f_of, law_of, support_size

each_mode = pytest.mark.parametrize("mode", MODES)


def linear(*coefficients: int) -> Polynomial:
    n = len(coefficients)
    return Polynomial(tuple((c, tuple(int(i == j) for j in range(n))) for i, c in enumerate(coefficients)))


PRODUCT = Polynomial(((1, (1, 1)),))
SAME = linear(1)


def thirds(claims: dict[str, CaseClaim]) -> Case:
    """Rows 0, 1, 3 with probabilities 1/4, 1/2, 1/4 and f = a + b - c, all three equal to x."""
    nodes = {name: GraphNode(("x",), SAME) for name in "abc"} | {"f": GraphNode(("a", "b", "c"), linear(1, 1, -1))}
    return Case(("x",), ((0,), (1,), (3,)), (1, 2, 1), nodes, claims, "f")


def test_cancellation_by_hand() -> None:
    case = thirds({"f": CaseClaim("f", (0, 1, 2), ("a",)), "a": CaseClaim("a", (0, 1, 2))})
    assert sites(case) == ["f", "f/~", "f/a"]
    assert law(case)[(1, 2, 1)] == Fr(1, 8)
    assert (1, 2, 0) not in law(case)
    assert distribution_of_f(case) == {0: Fr(1, 4), 1: Fr(1, 2), 3: Fr(1, 4)}
    apart = replace(case, sharing="each")
    assert sites(apart) == ["f", "f/~b", "f/~c", "f/a"]
    # a + b - c is largest at 3 + 3 - 0 and smallest at 0 + 0 - 3, each of probability 1/4 cubed.
    assert distribution_of_f(apart)[6] == distribution_of_f(apart)[-3] == Fr(1, 64)
    assert expectation(apart) == expectation(case) == e_model(case) == Fr(5, 4)
    for sharing, names in (("all", ["~all", "f", "f/a"]), ({"g": ("b",)}, ["~g", "f", "f/~", "f/a"])):
        assert sites(replace(case, sharing=sharing)) == names


def test_weighted_block_by_hand() -> None:
    """Rows 0 and 1 are alike: each stands in for the other in proportion to its weight."""
    case = thirds({"f": CaseClaim("f", (0, 0, 0), ("a",)), "a": CaseClaim("a", (7, 7, 2))})
    one_datum = marginal(law(case), [0, 2])
    assert one_datum == {
        (0, 0): Fr(1, 12),
        (0, 1): Fr(1, 6),
        (1, 0): Fr(1, 6),
        (1, 1): Fr(1, 3),
        (2, 2): Fr(1, 4),
    }
    wrong: dict[Fault, Fr] = {"weights": Fr(1, 6), "parent_block": Fr(1, 4), "other_row": Fr(0)}
    for fault, p in wrong.items():
        assert marginal(law(case, fault), [0, 2]).get((1, 1), Fr(0)) == p


def test_randomised_by_hand() -> None:
    """f = (s - x)^2 with s = x: where s and x are of two rows, the mean is twice the variance of x."""
    f = Polynomial(((1, (2, 0)), (-2, (1, 1)), (1, (0, 2))))
    nodes = {"s": GraphNode(("x",), SAME), "f": GraphNode(("s", "x"), f)}
    case = Case(("x",), ((0,), (1,), (3,)), (1, 2, 1), nodes, {"f": CaseClaim("f", (0, 0, 0))}, "f")
    assert e_model(case) == 0
    assert e_randomised(case) == 2 * (Fr(2, 4) + Fr(9, 4) - Fr(5, 4) ** 2)


def test_paths_by_hand() -> None:
    """p = x, q = p y, f = p + q: claiming p leaves q's p alone, unless by any path; claiming x goes through both."""
    nodes = {
        "p": GraphNode(("x",), SAME),
        "q": GraphNode(("p", "y"), PRODUCT),
        "f": GraphNode(("p", "q"), linear(1, 1)),
    }
    rows = ((1, 2), (3, 5))
    claims = {"f": CaseClaim("f", (0, 1), ("u",)), "u": CaseClaim("p", (0, 1))}
    direct = Case(("x", "y"), rows, (1, 1), nodes, claims, "f")
    assert unimportant(direct, claims["f"]) == ("q",)
    assert distribution_of_f(direct) == dict.fromkeys((1 + 2, 1 + 15, 3 + 2, 3 + 15), Fr(1, 4))
    through = replace(claims["f"], paths="any")
    either = replace(direct, claims=claims | {"f": through})
    assert inlined(either, through) == {"q"}
    assert unimportant(either, through) == ("y",)
    assert distribution_of_f(either) == dict.fromkeys((1 + 2, 1 + 5, 3 + 6, 3 + 15), Fr(1, 4))
    far = replace(direct, claims=claims | {"u": CaseClaim("x", (0, 1))})
    assert inlined(far, far.claims["f"]) == {"p", "q"}
    assert distribution_of_f(far) == distribution_of_f(either)


def test_a_claim_read_twice_is_two_data() -> None:
    """f = a b and a, b = x: the claim about x is read by both, and its copies are drawn apart."""
    nodes = {"a": GraphNode(("x",), SAME), "b": GraphNode(("x",), SAME), "f": GraphNode(("a", "b"), PRODUCT)}
    claims = {
        "f": CaseClaim("f", (0, 0), ("a", "b")),
        "a": CaseClaim("a", (0, 0), ("x",)),
        "b": CaseClaim("b", (0, 0), ("x",)),
        "x": CaseClaim("x", (0, 0)),
    }
    case = Case(("x",), ((1,), (2,)), (1, 1), nodes, claims, "f")
    assert sites(case) == ["f", "f/a", "f/a/x", "f/b", "f/b/x"]
    assert leaves(case) == ["f/a/x", "f/b/x"]
    assert distribution_of_f(case) == {1: Fr(1, 4), 2: Fr(1, 2), 4: Fr(1, 4)}
    assert distribution_of_f(case, "copy") == {1: Fr(1, 2), 4: Fr(1, 2)}


@each_mode
def test_laws_sum_to_one(mode: str) -> None:
    for case in cases(mode):
        assert sum(law_of(case).values()) == 1
        assert len(law_of(case)) == support_size(case)


@each_mode
def test_lemma_1(mode: str) -> None:
    """Every datum is distributed as D, and what a claim reads under the law as what it reads on one row of D."""
    for case in cases(mode):
        drawn, position = law_of(case), {name: i for i, name in enumerate(sites(case))}
        expected = {(row,): p for row, p in enumerate(prior(case)) if p}
        for site in treeify(case):
            assert marginal(drawn, [position[site.name]]) == expected
            read = case.claims[site.claim].reads if site.claim else ()
            if read:
                features = [(case.claims[child].feature, position[f"{site.name}/{child}"]) for child in read]
                under = tally((tuple(label[data[i]] for label, i in features), p) for data, p in drawn.items())
                assert under == {value: p for value, p in wire_laws(case)[site.name][0].items() if p}


@each_mode
def test_closed_form(mode: str) -> None:
    """p(x_1 .. x_n) = P(inputs of root) * product over the other nodes u of P(inputs of u) / P(output of u)."""
    for case in cases(mode):
        wires, names = wire_laws(case), leaves(case)

        def output(site: str, data: dict[str, int], case: Case = case) -> int:
            """The claimed feature, run on the leaves' data."""
            claim = case.claims[site.rpartition("/")[2]]
            if not claim.reads:
                return claim.feature[data[site]]
            read = tuple(output(f"{site}/{child}", data) for child in claim.reads)
            known = zip(*(case.claims[child].feature for child in claim.reads), strict=True)
            return dict(zip(known, claim.feature, strict=True))[read]

        def closed_form(data: dict[str, int], case: Case = case, wires: dict = wires) -> Fr:
            p = Fr(1)
            for site in treeify(case):
                inputs, outputs = wires[site.name]
                if site.claim is None:
                    p *= inputs[(data[site.name],)]
                    continue
                reads = case.claims[site.claim].reads
                read = tuple(output(f"{site.name}/{child}", data) for child in reads) or (data[site.name],)
                p *= inputs[read] / (outputs[output(site.name, data)] if site.parent else 1)
            return p

        for data, p in leaf_law(case).items():
            assert closed_form(dict(zip(names, data, strict=True))) == p


@each_mode
def test_fun_fact_3(mode: str) -> None:
    """Entropy of the scrubbed inputs from the wires' entropies; that of the whole trace is another, never smaller."""
    for case in cases(mode):
        wires = wire_entropies(case)
        of_inputs = wires[case.root][1] + sum(inputs - output for inputs, output in wires.values())
        assert entropy(leaf_law(case)) == pytest.approx(of_inputs, abs=1e-9)
        rows = entropy(dict(enumerate(prior(case))))
        of_trace = len(wires) * rows - sum(output for name, (_, output) in wires.items() if name != case.root)
        assert entropy(law_of(case)) == pytest.approx(of_trace, abs=1e-9)
        assert of_inputs <= of_trace + 1e-9


def drawn_twice(case: Case, unimportant_inputs: bool) -> bool:
    """Whether a claim, or the unimportant inputs of one, stand in the tree twice."""
    origins = [site.origin for site in treeify(case) if (site.claim is None) == unimportant_inputs]
    return len(set(origins)) < len(origins)


COULD_SHOW: dict[Fault, Callable[[Case], bool]] = {
    "parent_block": lambda case: len(case.claims) > 1,
    "other_row": lambda case: len(case.claims) > 1,
    "root_block": lambda case: any(name.count("/") > 1 for name in sites(case)),
    "weights": lambda case: len(set(case.weights)) > 1,
    "per_node": lambda case: drawn_twice(case, True),
    "copy": lambda case: drawn_twice(case, False),
}


def test_faults_change_the_law() -> None:
    """Each planted fault shows in the law of many cases, and never where there is nothing to get wrong."""
    every = [case for mode in MODES for case in cases(mode)]
    at_least = {"parent_block": 60, "root_block": 25, "other_row": 60, "weights": 50, "per_node": 15, "copy": 40}
    assert set(COULD_SHOW) == set(at_least) == set(FAULTS)
    for fault in FAULTS:
        could = {case for case in every if COULD_SHOW[fault](case)}
        shows = set()
        for case in every:
            wrong = law(case, fault)
            assert sum(wrong.values()) == 1
            shows |= {case} if wrong != law_of(case) else set()
        assert shows <= could
        assert len(shows) >= at_least[fault]
        if fault in ("weights", "per_node"):  # the root's datum shows the one; independent data are never the same
            assert shows == could


def traits(case: Case) -> set[str]:
    tree = treeify(case)
    depth_of = {site.name: site.name.count("/") for site in tree if site.claim}
    depths_of_claims = {(site.claim, depth_of[site.name]) for site in tree if site.claim}
    reading = [claim for claim in case.claims.values() if claim.reads]
    far = [r for c in reading for r in c.reads if case.claims[r].at not in case.nodes[c.at].inputs]
    readers_of: Counter[str] = Counter()
    for site in tree:
        if site.claim:
            claim = case.claims[site.claim]
            readers_of.update({drawn_at(case, site.name, node) for node in unimportant(case, claim)})
    found = {
        f"{len(case.rows)} rows": True,
        f"depth {max(depth_of.values())}": True,
        "6 leaves or more": len(leaves(case)) >= 6,
        "uniform": len(set(case.weights)) == 1,
        "weight 0": 0 in case.weights,
        "equal rows": len(set(case.rows)) < len(case.rows),
        "copies of a claim": drawn_twice(case, False),
        "copies of unimportant inputs": drawn_twice(case, True),
        "a claim at two depths": len(depths_of_claims) > len(case.claims),
        "inlined for a far input": bool(far),
        "inlined for any path": any(inlined(case, c) != inlined(case, replace(c, paths="direct")) for c in reading),
        "claim about a column": any(claim.at in case.columns for claim in case.claims.values()),
        "leaf claim about a node": any(c.at in case.nodes and not c.reads for c in case.claims.values()),
        "a draw with two readers": max(readers_of.values(), default=0) > 1,
        "a block of several rows": any(1 < len({*claim.feature}) < len(case.rows) for claim in case.claims.values()),
        "E_scrubbed is not E_model": mean(f_of(case)) != e_model(case),
    }
    return {name for name, holds in found.items() if holds}


def test_what_the_cases_cover() -> None:
    for mode in MODES:
        assert len(cases(mode)) == PER_MODE
        assert all(2 <= len(leaves(case)) <= 10 for case in cases(mode))
        seen = Counter(trait for case in cases(mode) for trait in traits(case))
        print(mode, dict(sorted(seen.items())))
        at_least = {
            "2 rows": 3,
            "3 rows": 3,
            "depth 2": 5,
            "depth 3": 5,
            "6 leaves or more": 3,
            "uniform": 5,
            "weight 0": 3,
            "equal rows": 3,
            "copies of a claim": 10,
            "copies of unimportant inputs": 5 if mode in ("reader", "each") else 0,
            "a claim at two depths": 8,
            "inlined for a far input": 4,
            "inlined for any path": 2,
            "claim about a column": 15,
            "leaf claim about a node": 10,
            "a draw with two readers": 4 if mode in ("all", "groups") else 0,
            "a block of several rows": 8,
            "E_scrubbed is not E_model": 10,
        }
        assert {trait: seen[trait] for trait, least in at_least.items() if seen[trait] < least} == {}
    assert {len(case.rows) for mode in MODES for case in cases(mode)} == {2, 3, 4, 5, 6}
    depths = {max(name.count("/") for name in sites(c) if "~" not in name) for mode in MODES for c in cases(mode)}
    assert depths == {1, 2, 3, 4}
