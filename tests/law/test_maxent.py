"""Lemma 1's equations and the law of maximum entropy, against literal listing and against laws known otherwise."""

import itertools
import math
import sys

import numpy as np
import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, PscrubError, unroll
from pscrub import law as maxent
from pscrub.law import Wire, exact
from theory import brute
from theory.cases import cases, hypothesis
from theory.routes import Tried

SMALL = [Tried(case) for case in cases(72, "maxent")]


def two_claims(weights: object = (1, 1, 2, 4)) -> Hypothesis:
    """f reads the parity of x and all of x; four rows."""
    data = Dataset({"x": torch.arange(4)}, weights)
    graph = Graph.of({"s": lambda x: x % 2, "t": lambda x: x // 2, "f": lambda s, t: s + t}, ["x"], "f")
    parity = Claim("s", lambda d: d["x"] % 2)
    return Hypothesis("two", graph, data, Claim("f", reads=[parity, Claim("t", "exact")]))


def cut_law(tried: Tried, found: maxent.Constraints, table: brute.Law | None = None) -> np.ndarray:
    """float64 [cells]: a law of the leaves (the scrubbing law by default), carried to a cut's wires."""
    wires = [(wire.path, wire.datum) for wire in found.cut]
    return tried.probabilities(found, brute.at_cut(tried.case, table or tried.leaf_law, wires))


def test_cells_are_what_the_zeros_leave() -> None:
    """Every tuple of X^n listed: struck out are those that give some node inputs that D does not give it."""
    looked_at = 0
    for tried in SMALL:
        found, n = maxent.list_constraints(tried.hypothesis), len(tried.case.weights)
        assert found.total == n ** len(found.cut)
        if found.total > 4000:
            continue
        looked_at += 1
        run, possible = brute.interpreter(tried.case), brute.on_consistent_inputs(tried.case)
        leaves = brute.leaves(tried.case)
        kept = set()
        for data in itertools.product(range(n), repeat=len(leaves)):
            inputs, _ = run(data)
            if all(inputs[path] in law for path, law in possible.items()):
                kept.add(tuple(data[leaves.index(wire.path)] for wire in found.cut))
        assert kept == {tuple(cell) for cell in found.cells.tolist()}
    assert looked_at > 30


def test_equations_say_lemma_1() -> None:
    """An equation for each tuple of inputs that D gives a node, with its probability; a cell is in one of each node."""
    for tried in SMALL:
        found = maxent.list_constraints(tried.hypothesis)
        for path, law in brute.on_consistent_inputs(tried.case).items():
            rows = [i for i, node in enumerate(found.nodes) if node == path]
            assert sorted(found.rhs[rows]) == pytest.approx(sorted(map(float, law.values())), abs=1e-15)
            assert (found.matrix.toarray()[rows].sum(0) == 1).all()
        assert max(found.violations(cut_law(tried, found)).values()) < 1e-14


def test_minimal_cuts_are_the_minimal_cuts() -> None:
    """All sets of wires of which every way from a leaf to the root crosses exactly one."""
    looked_at = 0
    for tried in SMALL:
        plan = {site.path: site for site in brute.sites(tried.case)}
        root = tried.case.root
        parents = {read: path for path, site in plan.items() for read in site.reads}
        ways = []
        for leaf in brute.leaves(tried.case):
            way, at = [Wire(leaf, datum=True)], leaf
            while at != root:
                way.append(Wire(at))
                at = parents[at]
            ways.append(way)
        wires = sorted({wire for way in ways for wire in way})
        if len(wires) > 11:
            continue
        looked_at += 1
        chosen = itertools.chain.from_iterable(itertools.combinations(wires, k) for k in range(len(wires) + 1))
        expected = {c for c in chosen if all(sum(wire in c for wire in way) == 1 for way in ways)}
        cuts = [tuple(sorted(cut)) for cut in maxent.minimal_cuts(tried.hypothesis)]
        assert len(cuts) == len(set(cuts)) and set(cuts) == expected
        assert cuts[-1] == tuple(sorted(maxent.leaves_of(tried.hypothesis)))
    assert looked_at > 20


def test_a_law_known_by_hand() -> None:
    """Given the row of t, the row of s is any of its parity: p = D(t) D(s) / D(parity)."""
    found = maxent.list_constraints(two_claims())
    p = maxent.solve_newton(found).p
    d = np.array([1, 1, 2, 4]) / 8
    expected = {(s, t): d[t] * d[s] / d[s % 2 :: 2].sum() for s in range(4) for t in range(4) if s % 2 == t % 2}
    assert {tuple(cell): q for cell, q in zip(found.cells.tolist(), p, strict=True)} == pytest.approx(
        expected, abs=1e-14
    )


def test_the_package_law_is_certified() -> None:
    """The law in closed form, from the tree, is the one of most entropy by equations that know no tree."""
    for tried in SMALL:
        tree = tried.tree

        def law(columns: dict[str, np.ndarray], tree=tree) -> np.ndarray:
            rows = torch.stack([torch.from_numpy(columns[path]) for path in tree.leaves], 1)
            return exact.log_prob(tree, rows).numpy()

        found = maxent.certificate(tried.hypothesis, law)
        assert found.holds() and found.residual < 1e-12 and found.feasibility < 1e-12
        assert found.entropy == pytest.approx(brute.entropy(tried.leaf_law), abs=1e-12)
        alone = maxent.certificate(tried.hypothesis)
        assert alone.holds() and alone.entropy == pytest.approx(found.entropy, abs=1e-12)


def test_a_law_that_meets_lemma_1_and_is_another_is_refused() -> None:
    refused = 0
    for tried in SMALL:
        half = brute.mixed(tried.leaf_law, brute.consistent_law(tried.case))
        if half == tried.leaf_law:
            continue
        refused += 1
        found = maxent.list_constraints(tried.hypothesis)
        p = cut_law(tried, found, half)
        certified = maxent.certify(found, np.log(p))
        assert certified.feasibility < 1e-12 and certified.residual > 1e-6 and not certified.holds()
        assert certified.entropy < brute.entropy(tried.leaf_law)
        assert maxent.perturb(found, p).highest > 0
    assert refused > 50


def test_the_gap_bounds_what_is_missing() -> None:
    """No law has more entropy than the certificate of another one allows."""
    for tried in SMALL:
        found = maxent.list_constraints(tried.hypothesis)
        half = brute.mixed(tried.leaf_law, brute.consistent_law(tried.case))
        certified = maxent.certify(found, np.log(cut_law(tried, found, half)))
        assert certified.entropy + certified.gap >= brute.entropy(tried.leaf_law) - 1e-12


def test_a_cell_without_probability_is_refused() -> None:
    found = maxent.list_constraints(two_claims())
    with np.errstate(divide="ignore"):
        log_p = np.log(
            np.where(found.cells[:, 0] == found.cells[:, 1], np.array([1, 1, 2, 4])[found.cells[:, 0]] / 8, 0)
        )
    certified = maxent.certify(found, log_p)
    assert certified.feasibility < 1e-15 and certified.residual == math.inf and not certified.holds()


def test_violations_name_the_node() -> None:
    found = maxent.list_constraints(two_claims())
    uniform_s = {(s, t): (1, 1, 2, 4)[t] / 16 for s in range(4) for t in range(4) if s % 2 == t % 2}
    off = found.violations(np.array([uniform_s[s, t] for s, t in found.cells.tolist()]))
    assert {node for node, error in off.items() if error > 1e-12} == {"f/s"}


def test_newton_agrees_with_the_recursion_at_every_cut() -> None:
    cuts = 0
    for tried in SMALL[:36]:
        for cut in tried.cuts(6):
            cuts += 1
            found = maxent.list_constraints(tried.hypothesis, cut)
            p = cut_law(tried, found)
            assert np.abs(maxent.solve_newton(found).p - p).max() < 1e-12
            moved = maxent.perturb(found, p)
            assert moved.highest < 0 if moved.freedom else moved.moves == 0
    assert cuts > 150


def test_the_conic_solver_agrees() -> None:
    pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    for tried in SMALL[:24]:
        found = maxent.list_constraints(tried.hypothesis)
        if len(found.cells) <= 150:
            assert np.abs(maxent.solve_conic(found).p - cut_law(tried, found)).max() < 1e-6


def test_without_the_conic_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ModuleNotFoundError, match=r"cvxpy is missing.*pip install 'pscrub\[conic\]'"):
        maxent.solve_conic(maxent.list_constraints(two_claims()))


def test_too_many_cells() -> None:
    with pytest.raises(maxent.TooManyCells, match="more than 7 cells"):
        maxent.list_constraints(two_claims(), most=7)
    assert len(maxent.list_constraints(two_claims(), most=8).cells) == 8
    n = 50
    data = Dataset({"x": torch.arange(n)})
    nodes = {f"v{i}": (lambda x: x) for i in range(12)}
    graph = Graph.of({**nodes, "f": lambda v0: v0}, ["x"], "f")
    claim = Claim("f", "exact", reads=[Claim("v0", "exact")])
    assert len(maxent.list_constraints(Hypothesis("one", graph, data, claim)).cells) == n


def test_what_is_no_minimal_cut() -> None:
    h = two_claims()
    for wires in ((), (Wire("f/s"),), (Wire("f/s"), Wire("f/s", True), Wire("f/t")), (Wire("f/s"), Wire("f/tt"))):
        with pytest.raises(PscrubError, match="not a minimal cut of hypothesis 'two'"):
            maxent.list_constraints(h, wires)


def test_newton_says_when_it_has_no_law() -> None:
    with pytest.raises(maxent.NotSolved, match=r"after 1 steps"):
        maxent.solve_newton(maxent.list_constraints(two_claims()), steps=1)


def test_an_ill_formed_hypothesis_is_refused() -> None:
    h = two_claims()
    wrong = Claim("f", "exact", reads=[Claim("s", lambda d: d["x"] % 2)])
    with pytest.raises(PscrubError, match="not a function of what it reads"):
        maxent.list_constraints(Hypothesis("wrong", h.graph, h.data, wrong))


def test_paths_are_the_tree_s() -> None:
    """Two routes that share no code name the same leaves."""
    for case in cases(72, "maxent"):
        h = hypothesis(case)
        assert {wire.path for wire in maxent.leaves_of(h)} == set(unroll(h).leaves)
