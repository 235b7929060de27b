"""The generative program is an ordinary Pyro model; what it draws follows its law and touches nothing else."""

import math
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Bernoulli, Categorical
from pyro.infer import TraceEnum_ELBO, infer_discrete
from pyro.ops.contract import einsum
from torch import Tensor

from pscrub import Claim, Dataset, Datum, Graph, Hypothesis, Node, Partition, Tree, program, unroll
from pscrub.law.drawing import draw, stratified_rows
from tests.false_alarm import counts_alarm, mean_radius
from tests.law.long_chain import DRAWS, LENGTH, chain_tree

WEIGHTS = [1.0, 2, 3, 0, 1, 1]
DATA = Dataset({"x": torch.tensor([0, 0, 0, 1, 1, 2]), "y": torch.tensor([0, 1, 0, 1, 0, 1])}, WEIGHTS)
P = DATA.weights


def tree(data: Dataset = DATA) -> Tree:
    """f reads a (claimed: its x), which reads c (claimed: its y within a's), and b, unimportant."""
    graph = Graph.of(
        {"c": lambda x, y: x - y, "a": lambda c, y: c + y, "b": lambda y: y * 2.0, "f": lambda a, b: a * b},
        inputs=["x", "y"],
        output="f",
    )
    inner = Claim("c", torch.stack([data["x"], data["y"]], 1))
    return unroll(Hypothesis("h", graph, data, Claim("f", reads=[Claim("a", "x", reads=[inner])])))


SITES = ["f", "f/~", "f/a", "f/a/~", "f/a/c"]


def enumerated(model: Any, *sites: str) -> Tensor:
    """float64 [N, ...]: the joint law of sites, by Pyro's variable elimination of an enumerated trace."""
    trace = poutine.trace(poutine.enum(model, first_available_dim=-2)).get_trace(1)
    trace.compute_log_prob()
    trace.pack_tensors()
    nodes = trace.nodes
    drawn = [site for site in trace.stochastic_nodes if nodes[site]["type"] == "sample"]
    factors = [
        n["packed"]["log_prob"]
        for n in nodes.values()
        if n["type"] == "sample" and "packed" in n and n["name"] != "draws"
    ]
    own = {site: nodes[site]["infer"].get("_enumerate_symbol") for site in drawn}
    dims = "".join(own[site] for site in sites)
    plates = frozenset("".join(f._pyro_dims for f in factors)) - {s for s in own.values() if s}
    equation = ",".join(f._pyro_dims for f in factors) + "->" + dims
    (log_law,) = einsum(
        equation, *factors, plates="".join(plates), modulo_total=True, backend="pyro.ops.einsum.torch_log"
    )
    return log_law.exp() / log_law.exp().sum()


# The law as a distribution


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_log_prob_sums_to_one_in_each_block(weights: list[float] | None) -> None:
    data = Dataset(DATA.columns, weights)
    partition = Partition.of(data["x"], data)
    datum = Datum(partition, torch.tensor([0, 1, 2]))
    rows = datum.enumerate_support()
    assert rows.shape == (6, 3)
    law = datum.log_prob(rows).exp()
    assert law.sum(0).tolist() == pytest.approx([1, 1, 1], abs=1e-15)
    for block in range(3):
        inside = data.weights * (partition.labels == block)
        assert law[:, block].tolist() == pytest.approx((inside / inside.sum()).tolist(), abs=1e-15)
    whole = Datum(partition)
    assert whole.log_prob(whole.enumerate_support()).exp().tolist() == pytest.approx(data.weights.tolist(), abs=1e-15)


def test_rows_outside_the_block_or_of_weight_zero_are_impossible() -> None:
    datum = Datum(Partition.of(DATA["x"], DATA), torch.tensor(1))
    assert datum.log_prob(torch.arange(6)).tolist() == [-math.inf] * 4 + [0, -math.inf]


def test_shapes_are_those_of_a_distribution() -> None:
    partition = Partition.of(DATA["x"], DATA)
    datum = Datum(partition, torch.tensor([0, 2]))
    assert datum.sample().shape == (2,) and datum.sample((5,)).shape == (5, 2)
    assert datum.expand((4, 2)).sample((3,)).shape == (3, 4, 2)
    assert datum.expand((4, 2)).log_prob(torch.zeros(4, 2, dtype=torch.int64)).shape == (4, 2)
    assert datum.enumerate_support(expand=False).shape == (6, 1)
    assert Datum(partition).sample((7,)).shape == (7,)
    assert isinstance(Datum(logits=torch.zeros(3)), Categorical)  # type: ignore[call-arg]


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_samples_follow_the_law(weights: list[float] | None) -> None:
    data = Dataset(DATA.columns, weights)
    datum = Datum(Partition.of(data["x"], data), torch.tensor([0, 1, 2]), generator=torch.Generator().manual_seed(2))
    drawn, law = datum.sample((10_000,)), datum.log_prob(datum.enumerate_support()).exp()
    for block in range(3):
        counts = torch.bincount(drawn[:, block], minlength=6).tolist()
        assert not counts_alarm(dict(enumerate(counts)), {i: p for i, p in enumerate(law[:, block].tolist()) if p})


# An ordinary Pyro model


def test_a_trace_has_one_site_a_tree_node() -> None:
    trace = poutine.trace(program(tree())).get_trace(50)
    assert sorted(site for site in trace.stochastic_nodes if site != "draws") == sorted(SITES)
    assert trace.nodes["draws"]["value"].shape == (50,)
    trace.compute_log_prob()
    row = {site: trace.nodes[site]["value"] for site in SITES}
    x, y = DATA["x"], DATA["y"]
    assert torch.equal(x[row["f"]], x[row["f/a"]])
    assert torch.equal(x[row["f/a"]], x[row["f/a/c"]]) and torch.equal(y[row["f/a"]], y[row["f/a/c"]])
    for site in ("f", "f/~", "f/a/~"):
        assert trace.nodes[site]["log_prob"].exp().tolist() == pytest.approx(P[row[site]].tolist())
    assert torch.isfinite(trace.log_prob_sum())


def test_the_model_returns_its_data() -> None:
    model = program(tree())
    trace = poutine.trace(model).get_trace(20)
    returned = trace.nodes["_RETURN"]["value"]
    assert set(returned) == set(SITES)
    assert all(returned[site] is trace.nodes[site]["value"] for site in SITES)


def test_conditioning_fixes_a_site_and_scores_it() -> None:
    rows = torch.tensor([0, 4, 5])
    trace = poutine.trace(poutine.condition(program(tree()), {"f/a": rows})).get_trace(3)
    assert trace.nodes["f/a"]["is_observed"] and torch.equal(trace.nodes["f/a"]["value"], rows)
    given = poutine.trace(program(tree())).get_trace(3, {"f/a": rows})
    assert given.nodes["f/a"]["is_observed"] and torch.equal(given.nodes["f/a"]["value"], rows)


def test_conditioning_a_child_tells_of_its_parent() -> None:
    """P(root | child is row 1): the rows of its block, by D."""
    model = poutine.condition(program(tree()), {"f/a": torch.tensor([1])})
    law = enumerated(model, "f")
    block = P * (DATA["x"] == 0)
    assert law.tolist() == pytest.approx((block / block.sum()).tolist(), abs=1e-12)


def test_do_cuts_the_agreement_at_one_node() -> None:
    model = pyro.do(program(tree()), {"f/a": torch.tensor([5])})
    law = enumerated(model, "f", "f/a/c")
    expected = P[:, None] * torch.eye(6, dtype=torch.float64)[5]  # the root is D's again, what is below follows
    assert law.flatten().tolist() == pytest.approx(expected.flatten().tolist(), abs=1e-12)


def test_replay_gives_paired_draws() -> None:
    first = poutine.trace(program(tree())).get_trace(100)
    kept = poutine.trace(poutine.block(program(tree()), hide=["f/a/c"])).get_trace(100)
    again = poutine.trace(poutine.replay(program(tree()), first)).get_trace(100)
    assert all(torch.equal(again.nodes[s]["value"], first.nodes[s]["value"]) for s in SITES)
    other = poutine.trace(poutine.replay(program(tree()), kept)).get_trace(100)
    assert all(torch.equal(other.nodes[s]["value"], kept.nodes[s]["value"]) for s in SITES if s != "f/a/c")


def test_exact_enumeration_gives_the_closed_form() -> None:
    law = enumerated(program(tree()), "f", "f/a", "f/a/c")
    x, y = DATA["x"], DATA["y"]
    alike = (x[:, None] == x).double()
    within = alike * P / (alike * P).sum(1, keepdim=True)
    same = alike * (y[:, None] == y)
    within_same = (same * P / (same * P).sum(1, keepdim=True)).nan_to_num(0.0)
    expected = P[:, None, None] * within[:, :, None] * within_same[None]
    torch.testing.assert_close(law, expected, rtol=0, atol=1e-12)


def test_marginals_by_traceenum_elbo() -> None:
    model = program(tree())
    marginals = TraceEnum_ELBO(max_plate_nesting=1).compute_marginals(model, lambda _: None, 2)
    assert set(marginals) == set(SITES)
    for site in SITES:  # every datum is distributed as D: Lemma 1
        assert marginals[site].probs.tolist() == [pytest.approx(P.tolist(), abs=1e-12)] * 2


def test_discrete_inference_draws_from_the_posterior() -> None:
    """Evidence through an observed Bernoulli, in a larger model: y is 1 in two sites that lie on different branches."""

    def observed() -> dict[str, Tensor]:
        with pyro.plate("mine", 4000, dim=-2):
            data: dict[str, Tensor] = program(tree())(1)
            both = (DATA["y"][data["f/a/c"]] * DATA["y"][data["f/~"]]).double()
            pyro.sample("y", Bernoulli(both), obs=torch.ones(4000, 1, dtype=torch.float64))
        return data

    with torch.random.fork_rng():
        torch.manual_seed(0)
        data = {site: rows.flatten() for site, rows in infer_discrete(observed, first_available_dim=-3)().items()}
    assert bool((DATA["y"][data["f/a/c"]] == 1).all()) and bool((DATA["y"][data["f/~"]] == 1).all())
    weight = P * DATA["y"]
    counts = torch.bincount(data["f/a/c"], minlength=6).tolist()
    law = {row: p for row, p in enumerate((weight / weight.sum()).tolist()) if p}
    assert not counts_alarm(dict(enumerate(counts)), law)
    assert counts_alarm(dict(enumerate(counts)), {row: p for row, p in enumerate(P.tolist()) if p})


def test_more_than_sixty_sites_are_enumerable() -> None:
    """A chain of 70 nodes: each enumerated site takes a tensor dimension, of which torch has 64."""
    depth = 70
    data = Dataset({"x": torch.tensor([0, 0, 1])}, [1, 2, 3])
    functions = {f"n{i}": (lambda v: v * 1.0) for i in range(depth)}
    nodes = [Node(name, (f"n{i - 1}" if i else "x",), fn) for i, (name, fn) in enumerate(functions.items())]
    claim = Claim("n0", "x")
    for i in range(1, depth):
        claim = Claim(f"n{i}", "x", reads=[claim])
    deep = unroll(Hypothesis("deep", Graph(nodes, ["x"], f"n{depth - 1}"), data, claim))
    assert len(deep.sites) == depth
    model = poutine.condition(program(deep), {deep.root: torch.tensor([2])})
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda _: None, 1)
    assert math.exp(-loss) == pytest.approx(0.5, abs=1e-12)
    last = list(deep.sites)[-1]
    both = poutine.condition(program(deep), {deep.root: torch.tensor([0]), last: torch.tensor([1])})
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(both, lambda _: None, 1)
    assert math.exp(-loss) == pytest.approx(1 / 6 * 2 / 3, abs=1e-12)


def test_large_trees_use_tensor_dimensions_again() -> None:
    """A ladder of 59 sites; each step sees its reader's dimension alone, and unimportant draws no other's."""
    data = Dataset({"x": torch.tensor([0, 0, 1]), "y": torch.arange(3)}, [1, 2, 3])
    nodes = [Node(f"n{k}", (f"n{k - 1}" if k else "x", "y"), lambda v, y: v * 1.0 + y) for k in range(30)]
    claim = Claim("n0", "x")
    for k in range(1, 30):
        claim = Claim(f"n{k}", "x", reads=[claim])
    large = unroll(Hypothesis("ladder", Graph(nodes, ["x", "y"], "n29"), data, claim))
    assert len(large.sites) == 59
    trace = poutine.trace(poutine.enum(program(large), first_available_dim=-2)).get_trace(1)
    dims = {path: trace.nodes[path]["infer"]["_enumerate_dim"] for path in large.sites}
    assert set(dims.values()) == {-2, -3}
    assert all(dims[path] != dims[s.parent] for path, s in large.sites.items() if s.parent is not None)
    known = {large.root: torch.tensor([0]), list(large.sites)[-1]: torch.tensor([1]), "n29/~": torch.tensor([2])}
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(poutine.condition(program(large), known), lambda _: None, 1)
    assert math.exp(-loss) == pytest.approx(1 / 6 * 2 / 3 * 1 / 2, abs=1e-12)


def test_a_draw_that_fails_leaves_nothing_on_pyros_stack() -> None:
    def generator(path: str) -> torch.Generator:
        if path.count("/") > 100:
            raise RuntimeError("no more numbers")
        return torch.Generator().manual_seed(0)

    with pytest.raises(RuntimeError, match="no more numbers"):
        program(chain_tree(), generator=generator)(2)
    assert not poutine.runtime.am_i_wrapped()
    assert set(program(tree())(2)) == set(SITES)


# Draws with a seed


def test_a_seed_names_its_draws() -> None:
    same, again, other, part = (draw(tree(), 200, seed) for seed in ((3, 1), (3, 1), (3, 2), (4, 1)))
    assert set(same) == set(SITES)
    for site in SITES:
        assert torch.equal(same[site], again[site])
        assert not torch.equal(same[site], other[site]) and not torch.equal(same[site], part[site])


@pytest.mark.parametrize("held", [0, 1])
def test_tables_that_are_not_held_give_the_same_draws(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    expected = draw(tree(), 50, (3,))
    monkeypatch.setattr("pscrub.law.drawing.TABLES", held)
    found = draw(tree(), 50, (3,))
    assert all(torch.equal(found[path], expected[path]) for path in SITES)


def test_drawing_leaves_no_trace() -> None:
    torch_state, store = torch.get_rng_state(), dict(pyro.get_param_store().items())
    with poutine.trace() as tracer:
        draw(tree(), 100, (0,))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert dict(pyro.get_param_store().items()) == store
    assert not tracer.trace.nodes  # not even in a Pyro model that the caller is running


def test_a_model_without_a_generator_is_seeded_as_any_pyro_model() -> None:
    with torch.random.fork_rng():
        found = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            found.append(program(tree())(50)["f/a"])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_draws_follow_the_law_stratified_or_not(stratified: bool, weights: list[float] | None) -> None:
    data = Dataset(DATA.columns, weights)
    drawn = draw(tree(data), 12_000, (7,), stratified)
    law = {row: p for row, p in enumerate(data.weights.tolist()) if p}
    for site in SITES:
        counts = dict(enumerate(torch.bincount(drawn[site], minlength=6).tolist()))
        assert not counts_alarm(counts, law)
    pairs = torch.bincount(drawn["f"] * 6 + drawn["f/a"], minlength=36).tolist()
    alike = (data["x"][:, None] == data["x"]) * data.weights
    joint = (data.weights[:, None] * alike / alike.sum(1, keepdim=True)).flatten().tolist()
    assert not counts_alarm(dict(enumerate(pairs)), {i: p for i, p in enumerate(joint) if p})


def test_uniform_strata_hold_each_row_equally_often() -> None:
    data = Dataset(DATA.columns)
    for passes in (1, 3):
        drawn = draw(tree(data), 2 * 6 * passes, (1,))["f"]
        assert torch.bincount(drawn, minlength=6).tolist() == [2 * passes] * 6


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("strata", [1, 4, 7])
def test_strata_are_unbiased(weights: list[float] | None, strata: int) -> None:
    """Over many stratifications each row comes as often as D says, whatever the strata cut."""
    data = Dataset(DATA.columns, weights)
    partition = Partition.of(data["x"], data)
    generator = torch.Generator().manual_seed(9)
    times = 1500
    shares = torch.stack(
        [
            torch.bincount(stratified_rows(partition, strata, generator), minlength=6) / (2 * strata)
            for _ in range(times)
        ]
    ).double()
    for row, p in enumerate(data.weights.tolist()):
        assert abs(float(shares[:, row].mean()) - p) <= mean_radius(p * (1 - p), 1, times)
        if p == 0:
            assert not shares[:, row].any()
    # And they are strata: no row strays from its share by more than the strata that its weight touches allow.
    assert float((shares - data.weights).abs().max()) <= 2 / strata


def test_pairs_of_a_stratum_are_side_by_side() -> None:
    data = Dataset({"x": torch.arange(100)})
    rows = stratified_rows(Partition.trivial(data), 50, torch.Generator().manual_seed(0)).reshape(50, 2)
    assert torch.equal(rows // 2, torch.arange(50)[:, None].expand(50, 2))
    assert bool((rows[:, 0] != rows[:, 1]).any()) and bool((rows[:, 0] == rows[:, 1]).any())


def test_a_chain_longer_than_python_recurses_is_drawn() -> None:
    large = chain_tree()
    data = draw(large, 6, (0,))
    assert set(data) == set(large.sites) and len(data) == LENGTH + DRAWS
    parity = torch.stack([data[path] % 2 for path, site in large.sites.items() if site.claim is not None])
    assert torch.equal(parity, parity[:1].expand(LENGTH, 6))
    assert all(len(data[path].unique()) > 1 for path in (large.root, list(large.sites)[-1]))
