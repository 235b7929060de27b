"""Exact laws by messages: against rational enumeration, against Pyro's own enumeration, and with planted faults."""

import itertools
import math
import time
from fractions import Fraction
from functools import cache

import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from pscrub import Claim, Dataset, Graph, Hypothesis, HypothesisError, Node, Partition, unroll
from pscrub.law.drawing import program
from pscrub.law.entropy import cut_entropy, entropy_budget
from pscrub.law.exact import (
    Law,
    cut_law,
    cut_log_prob,
    datum_laws,
    inputs_law,
    leaf_law,
    lemma_1,
    log_prob,
    log_prob_by_summation,
    pass_on,
)
from pscrub.law.of_f import law_of_f, scrubbed_expectation
from pscrub.law.wires import cut_wires, cuts
from tests.routes.build_case import build
from tests.routes.oracle import (
    Case,
    CaseClaim,
    GraphNode,
    Polynomial,
    distribution_of_f,
    entropy,
    law,
    leaves,
    marginal,
    mean,
    prior,
    tally,
    treeify,
    wire_laws,
)
from tests.routes.oracle import sites as oracle_sites
from tests.routes.random_cases import MODES, PER_MODE, cases, f_of, law_of

TOLERANCE = 1e-12
each_mode = pytest.mark.parametrize("mode", MODES)
tree_of = cache(lambda case: unroll(build(case)))
sites = cache(oracle_sites)


def order_of(case: Case) -> list[int]:
    """Where each of the tree's leaves stands in the oracle's tuples of data."""
    return [sites(case).index(path) for path in tree_of(case).leaves]


@cache
def leaf_table(case: Case) -> dict[tuple[int, ...], Fraction]:
    """The oracle's law of the leaves, in the tree's order of them."""
    return marginal(law_of(case), order_of(case))


def same(found: Law, expected: dict[tuple[int, ...], Fraction]) -> None:
    table = found.as_dict()
    assert set(table) == set(expected)
    assert all(abs(table[cell] - float(p)) <= TOLERANCE for cell, p in expected.items())


def as_rationals(found: Law, case: Case) -> dict[tuple[int, ...], Fraction]:
    """The law in rational arithmetic: its probabilities are ratios of products of sums of the weights."""
    most = sum(case.weights) ** (2 * len(sites(case)))
    return {cell: Fraction(p).limit_denominator(min(most, 10**7)) for cell, p in found.as_dict().items()}


def labels_of(case: Case, path: str) -> Tensor:
    return tree_of(case).sites[path].partition.labels


@each_mode
def test_data_and_inputs_have_the_laws_of_the_enumeration(mode: str) -> None:
    """Lemma 1 by messages, the oracle's enumeration (as rationals, ==) and D: the laws of all inputs, jointly."""
    for case in cases(mode):
        tree, names, wired = tree_of(case), sites(case), wire_laws(case)
        laws = datum_laws(tree)
        assert all(row.datum <= TOLERANCE and row.inputs <= TOLERANCE for row in lemma_1(tree))
        for site in treeify(case):
            at = names.index(site.name)
            datum = {row: p for (row,), p in marginal(law_of(case), [at]).items()}
            assert datum == {row: p for row, p in enumerate(prior(case)) if p}
            assert all(abs(float(laws[site.name][row]) - float(p)) <= TOLERANCE for row, p in datum.items())
            children = [child.path for child in tree.children(site.name)] or None
            read = children if site.claim and case.claims[site.claim].reads else None
            wires = [(names.index(path), labels_of(case, path).tolist()) for path in read or ()]
            wires = wires or [(at, list(range(len(case.rows))))]
            joint = tally((tuple(label[data[i]] for i, label in wires), p) for data, p in law_of(case).items())
            assert sorted(joint.values()) == sorted(p for p in wired[site.name][0].values() if p)
            same(inputs_law(tree, site.name, laws[site.name]), joint)


@each_mode
def test_leaves_have_the_law_of_the_enumeration(mode: str) -> None:
    """The closed form, the table and the sum over inner data, on every tuple of rows or many."""
    for case in cases(mode):
        tree, table = tree_of(case), leaf_table(case)
        same(leaf_law(tree), table)
        n, k = len(case.rows), len(tree.leaves)
        tuples = itertools.product(range(n), repeat=k) if n**k <= 4000 else [*table][:2000]
        rows = torch.tensor(list(tuples))
        expected = torch.tensor([float(table.get(tuple(row), 0)) for row in rows.tolist()], dtype=torch.float64)
        for route in (log_prob, log_prob_by_summation):
            assert float((route(tree, rows).exp() - expected).abs().max()) <= TOLERANCE


def test_small_laws_are_the_rationals() -> None:
    """Where denominators are small enough for float64 to tell rationals apart, tables are equal to the oracle's, ==."""
    shown = 0
    for case in (case for mode in MODES for case in cases(mode)):
        table = leaf_table(case)
        if max(p.denominator for p in table.values()) < 10**6:
            shown += 1
            assert as_rationals(leaf_law(tree_of(case)), case) == table
    assert shown >= 40


@each_mode
def test_every_cut_has_its_law_and_entropy(mode: str) -> None:
    seen = 0
    for case in cases(mode):
        tree, names = tree_of(case), sites(case)
        for opened in itertools.islice(cuts(tree), 12):
            wires = cut_wires(tree, opened)
            whole = [opened.issuperset([path]) for path in wires]
            columns = [
                (names.index(path), list(range(len(case.rows))) if rows else labels_of(case, path).tolist())
                for path, rows in zip(wires, whole, strict=True)
            ]
            expected = tally((tuple(label[data[i]] for i, label in columns), p) for data, p in law_of(case).items())
            found = cut_law(tree, opened)
            same(found, expected)
            assert found.entropy() == pytest.approx(entropy(expected), abs=TOLERANCE)
            assert cut_entropy(tree, opened) == pytest.approx(entropy(expected), abs=TOLERANCE)
            assert torch.allclose(cut_log_prob(tree, opened, found.cells).exp(), found.p, rtol=0, atol=TOLERANCE)
            seen += 1
    assert seen >= 4 * PER_MODE


@each_mode
def test_fun_fact_3(mode: str) -> None:
    for case in cases(mode):
        budget = entropy_budget(tree_of(case))
        expected = {site: (entropy(inputs), entropy(output)) for site, (inputs, output) in wire_laws(case).items()}
        for row in budget.rows:
            assert (row.inputs, row.output) == pytest.approx(expected[row.path], abs=TOLERANCE)
            assert row.lost >= -TOLERANCE
        assert budget.scrubbed == pytest.approx(entropy(leaf_table(case)), abs=TOLERANCE)
        assert budget.trace == pytest.approx(entropy(law_of(case)), abs=TOLERANCE)
        assert budget.trace >= budget.scrubbed - TOLERANCE
        in_bits = entropy_budget(tree_of(case), bits=True)
        assert in_bits.scrubbed * math.log(2) == pytest.approx(budget.scrubbed, abs=TOLERANCE)


@each_mode
def test_f_has_the_distribution_of_the_enumeration(mode: str) -> None:
    for case in cases(mode):
        tree, expected = tree_of(case), f_of(case)
        found = law_of_f(tree)
        assert set(found) == {float(value) for value in expected}
        assert all(abs(found[float(value)] - float(p)) <= TOLERANCE for value, p in expected.items())
        assert scrubbed_expectation(tree) == pytest.approx(float(mean(expected)), abs=1e-9)


def enumerated(case: Case) -> Tensor:
    """float64 [N, ..., N]: the joint law of all data, by Pyro's parallel enumeration of the program."""
    trace = poutine.trace(poutine.enum(program(tree_of(case)), first_available_dim=-2)).get_trace(1)
    trace.compute_log_prob()
    trace.pack_tensors()
    packed = [trace.nodes[name]["packed"]["log_prob"] for name in sites(case)]
    own = "".join(trace.nodes[name]["infer"]["_enumerate_symbol"] for name in sites(case))
    return torch.einsum(",".join(f._pyro_dims for f in packed) + "->" + own, *(f.exp() for f in packed))


@each_mode
def test_pyro_enumerates_the_same_laws(mode: str) -> None:
    """The program that draws is the program verified: its marginals and joint laws, from Pyro, are the messages'."""
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    for case in cases(mode):
        tree, joint = tree_of(case), enumerated(case)
        at = {path: sites(case).index(path) for path in tree.sites}
        others = tuple(i for i in range(joint.ndim) if i not in order_of(case))
        table = joint.sum(others) if others else joint
        order = sorted(order_of(case))
        table = table.permute([order.index(i) for i in order_of(case)])
        ours = leaf_law(tree)
        expected = torch.zeros_like(table)
        expected[tuple(ours.cells.T)] = ours.p
        assert float((table - expected).abs().max()) <= TOLERANCE
        marginals = elbo.compute_marginals(program(tree), lambda _: None, 2)
        for path, p in datum_laws(tree).items():
            assert float((marginals[path].probs - p).abs().max()) <= TOLERANCE
            alone = joint.sum(tuple(i for i in range(joint.ndim) if i != at[path])) if joint.ndim > 1 else joint
            assert float((alone - p).abs().max()) <= TOLERANCE


# --------------------------------------------------------------------------------------------------- planted faults


def without_own_datum(message: Tensor, partition: Partition) -> Tensor:
    """A draw that never returns the parent's own row."""
    weights, labels = partition.weights, partition.labels
    rest = partition.block_weights[labels] - weights
    share = torch.where(rest > 1e-15, message / rest, 0.0)
    total = torch.bincount(labels, share, partition.n_blocks)[labels]
    return weights * (total - share) + torch.where(rest > 1e-15, 0.0, message)


def without_weights(message: Tensor, partition: Partition) -> Tensor:
    """A draw that takes each row of positive weight equally often."""
    inside = (partition.weights > 0).double()
    count = torch.bincount(partition.labels, inside, partition.n_blocks)
    mass = torch.bincount(partition.labels, message, partition.n_blocks)
    return inside * torch.where(count > 0, mass / count, 0.0)[partition.labels]


def next_row(message: Tensor, partition: Partition) -> Tensor:
    """A table that is off by one."""
    return pass_on(message, partition).roll(1)


def first_of_block(message: Tensor, partition: Partition) -> Tensor:
    """A draw that always takes the block's first row."""
    mass = torch.bincount(partition.labels, message, partition.n_blocks)
    return torch.zeros_like(message).index_add(
        0, partition.table.rows[partition.table.spans[:, 0][mass > 0]], mass[mass > 0]
    )


@pytest.mark.parametrize("fault", [without_own_datum, without_weights, next_row, first_of_block])
def test_faulty_draws_break_lemma_1(fault) -> None:
    """Each changes the law of some datum in most weighted cases, and the node is named."""
    shown = caught = 0
    for case in (case for mode in MODES for case in cases(mode)):
        tree = tree_of(case)
        wrong = datum_laws(tree, fault)
        differ = {path for path, p in wrong.items() if float((p - tree.hypothesis.data.weights).abs().max()) > 1e-9}
        named = {row.path for row in lemma_1(tree, fault) if row.datum > 1e-9}
        shown, caught = shown + bool(differ), caught + (named == differ and bool(differ))
    print(f"{fault.__name__}: {caught} of {shown}")
    assert shown >= 20 and caught == shown


def test_half_and_half_meets_the_lemma_with_less_entropy() -> None:
    """Half the scrubbing law, half the f-consistent one: told from the scrubbing law by the closed form's law."""
    differ = 0
    for case in (case for mode in MODES for case in cases(mode)):
        table = leaf_table(case)
        same_row = {(row,) * len(tree_of(case).leaves): p for row, p in enumerate(prior(case)) if p}
        mixed = tally((x, p / 2) for x, p in (*table.items(), *same_row.items()))
        if mixed != table:
            differ += 1
            assert entropy(mixed) < entropy_budget(tree_of(case)).scrubbed - 1e-9
    assert differ >= 60


# ---------------------------------------------------------------------------------------------------- corners, size


def chain(n: int, nodes: int, seed: int = 0) -> Hypothesis:
    """A ladder of claims over n weighted rows, `nodes` tree nodes in all."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 1024, (n,), generator=generator)
    data = Dataset({"x": x}, torch.rand(n, dtype=torch.float64, generator=generator))
    depth = (nodes - 1) // 2
    graph = [Node("s0", ("x",), lambda x: x), Node("t0", ("x",), lambda x: x)]
    below = Claim("s0", x % 1024)
    for k in range(1, depth + 1):
        graph += [Node(f"s{k}", (f"s{k - 1}", f"t{k - 1}"), lambda s, t: s + t), Node(f"t{k}", ("x",), lambda x: x)]
        below = Claim(f"s{k}", x % (1024 >> min(k, 9)), reads=[below, Claim(f"t{k - 1}", x % (1024 >> min(k, 9)))])
    return Hypothesis("chain", Graph(graph, ["x"], f"s{depth}"), data, below)


def test_budgets_of_many_rows_take_one_pass_a_node() -> None:
    """|D| = 100,000 and 21 nodes here; `python -m theory.calibration budget` prints the time for 1,000,000."""
    tree = unroll(chain(100_000, 21))
    assert len(tree.sites) == 21
    start = time.perf_counter()
    budget = entropy_budget(tree)
    assert time.perf_counter() - start < 10
    assert budget.scrubbed < budget.trace


def test_laws_too_large_are_refused() -> None:
    tree = unroll(chain(200, 7))
    with pytest.raises(HypothesisError, match="more than 1,000 cells"):
        leaf_law(tree, limit=1000)
    with pytest.raises(HypothesisError, match="no exact law of f"):
        law_of_f(tree, limit=10)
    with pytest.raises(HypothesisError, match="no site 's3/s7'"):
        inputs_law(tree, "s3/s7")
    with pytest.raises(HypothesisError, match="cannot be on the output's side"):
        cut_law(tree, ["s3/s2"])


def test_shared_draws_of_many_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset({"x": torch.arange(120), "y": torch.arange(120)})
    functions = {"s": lambda x, y: x + y, "t": lambda x, y: x - y, "f": lambda s, t: 1.0 * (s + t)}
    x = Claim("x", "x")
    claim = Claim("f", reads=[Claim("s", "x", [x]), Claim("t", "x", [x])])
    tree = unroll(Hypothesis("shared", Graph.of(functions, ["x", "y"], "f"), data, claim, sharing="all"))
    assert law_of_f(tree) == pytest.approx({2.0 * k: 1 / 120 for k in range(120)})
    monkeypatch.setattr("pscrub.law.of_f.SETTINGS", 100)
    with pytest.raises(HypothesisError, match="unimportant draws shared by several nodes, '~all'"):
        law_of_f(tree)


def test_rows_of_weight_zero_may_hold_anything() -> None:
    """They are never evaluated, and their features give no inputs that count."""
    data = Dataset({"x": torch.tensor([1.0, 2.0, math.nan, 3.0])}, weights=[1, 2, 0, 1])
    graph = Graph.of({"s": lambda x: x, "f": lambda s: s}, ["x"], "f")
    tree = unroll(Hypothesis("zero", graph, data, Claim("f", reads=[Claim("s", torch.tensor([0, 0, 1, 1]))])))
    assert law_of_f(tree) == {1.0: 0.25, 2.0: 0.5, 3.0: 0.25}
    assert log_prob(tree, torch.tensor([[2], [3]])).exp().tolist() == [0, 0.25]


def test_product_in_the_lemma_read_literally_is_false() -> None:
    """A root that reads x twice gives (0, 0) and (1, 1), never (0, 1)."""
    nodes = {"a": GraphNode(("x",), Polynomial(((1, (1,)),))), "b": GraphNode(("x",), Polynomial(((1, (1,)),)))}
    nodes["f"] = GraphNode(("a", "b"), Polynomial(((1, (1, 1)),)))
    claims = {"a": CaseClaim("a", (0, 1)), "b": CaseClaim("b", (0, 1)), "f": CaseClaim("f", (0, 1), ("a", "b"))}
    case = Case(("x",), ((0,), (1,)), (1, 1), nodes, claims, "f")
    assert inputs_law(tree_of(case), "f").as_dict() == {(0, 0): 0.5, (1, 1): 0.5}
    assert leaf_law(tree_of(case)).entropy(bits=True) == 1
    assert distribution_of_f(case) == {0: Fraction(1, 2), 1: Fraction(1, 2)} and len(leaves(case)) == 2
    assert sum(law(case).values()) == 1
