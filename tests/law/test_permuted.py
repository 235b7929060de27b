"""Donors dealt out: each draw follows the law, rows are used about equally often, replicates are independent."""

import math
from collections import Counter

import pyro
import pytest
import torch
from pyro import poutine

from pscrub import Claim, Dataset, Graph, Hypothesis, Partition, StudyError, Tree, unroll
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.law import draw_permuted, scrubbed_expectation
from pscrub.law.drawing import draw, make_generator
from pscrub.law.permuted import Dealer
from tests.false_alarm import counts_alarm, mean_radius
from tests.law.test_drawing import DATA, SITES, WEIGHTS, tree
from tests.routes.build_case import build
from tests.routes.oracle import FAULTS, Case, distribution_of_f, law, sites
from tests.routes.random_cases import MODES, cases, f_of, law_of

REPLICATES, SIZE = 3000, 8


def one_of_each(case: Case, seed: int, size: int = SIZE) -> Counter[tuple[int, ...]]:
    """How often each tuple of data came at a random place of each replicate: draws that are independent."""
    data = draw_permuted(unroll(build(case)), REPLICATES * size, (seed, 0), REPLICATES)
    place = torch.randint(size, (REPLICATES, 1), generator=make_generator((seed, 1)))
    columns = [data[name].reshape(size, REPLICATES).T.gather(1, place).flatten().tolist() for name in sites(case)]
    return Counter(zip(*columns, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_a_single_draw_follows_the_oracles_law(mode: str) -> None:
    for k, case in enumerate(cases(mode)[:12]):
        counts = one_of_each(case, k, (2, 8)[k % 2])
        assert not counts_alarm(counts, {data: float(p) for data, p in law_of(case).items()})


def test_laws_with_planted_faults_are_found_out() -> None:
    for fault in FAULTS:
        caught = 0
        for mode in MODES:
            for k, case in enumerate(cases(mode)[:6]):
                wrong = law(case, fault)
                if wrong != law_of(case):
                    caught += counts_alarm(one_of_each(case, k), {data: float(p) for data, p in wrong.items()})
        assert caught, fault


def test_rows_that_are_dealt_in_order_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the random permutation the first draw of a block is always given one of the first rows."""
    deal = Dealer.deal

    def in_order(self: Dealer, blocks: torch.Tensor, replicates: int, generator: torch.Generator) -> torch.Tensor:
        return deal(self, blocks, replicates, generator).reshape(-1, replicates).sort(0).values.flatten()

    def first() -> Counter[int]:
        return Counter(draw_permuted(tree(), 400 * SIZE, (0,), 400)["f/~"][:400].tolist())

    law_of_row = {row: p for row, p in enumerate(DATA.weights.tolist()) if p}
    assert not counts_alarm(first(), law_of_row)
    monkeypatch.setattr(Dealer, "deal", in_order)
    assert counts_alarm(first(), law_of_row)


@pytest.mark.parametrize("mode", MODES)
def test_the_mean_is_unbiased(mode: str) -> None:
    """The mean of f over all draws, against the exact law of f, and against laws with a fault."""
    seen = 0
    for k, case in enumerate(cases(mode)[:12]):
        hypothesis = build(case)
        of_case, values = unroll(hypothesis), Activations(hypothesis.graph, hypothesis.data)
        truth, f_law = scrubbed_expectation(of_case), f_of(case)
        data = draw_permuted(of_case, 16 * REPLICATES, (7, k), REPLICATES)
        means = run_scrubbed(of_case, values, data).double().reshape(16, REPLICATES).mean(0)
        span = max(abs(float(value) - truth) for value in f_law)
        # Replicates are independent; what varies least surely is bounded by what was seen of it, twice over.
        radius = mean_radius(2 * float(means.var()) + 1e-12, span, REPLICATES)
        assert abs(float(means.mean()) - truth) <= radius
        for fault in FAULTS:
            wrong = distribution_of_f(case, fault)
            off = abs(float(means.mean()) - float(sum(value * p for value, p in wrong.items())))
            seen += off > radius
    assert seen


# Evenness


def test_each_row_of_a_block_is_used_equally_often() -> None:
    data = Dataset({"x": torch.tensor([0, 1, 0, 1, 1, 0, 2])})
    partition = Partition.of(data["x"], data)
    blocks = torch.tensor([0] * 6 + [1] * 9 + [2] * 5)[make_permutation(20)].repeat_interleave(50)
    rows = Dealer(partition, partition).deal(blocks, 50, make_generator((1,)))
    assert torch.equal(data["x"][rows], blocks)
    of_replicates = rows.reshape(20, 50).T
    for each in of_replicates:
        assert torch.bincount(each, minlength=7).tolist() == [2, 3, 2, 3, 3, 2, 5]
    # Some other order in each replicate, or nothing would be random.
    assert len({tuple(each.tolist()) for each in of_replicates}) == 50


def make_permutation(n: int) -> torch.Tensor:
    return torch.randperm(n, generator=make_generator((9,)))


@pytest.mark.parametrize("draws", [5, 17, 64, 1000])
def test_weighted_rows_are_used_by_their_share(draws: int) -> None:
    data = Dataset({"x": torch.tensor([0, 0, 0, 0, 1, 1])}, [1.0, 5, 0, 2, 1, 3])
    partition = Partition.of(data["x"], data)
    blocks = torch.arange(draws).remainder(2).repeat_interleave(200)
    rows = Dealer(partition, partition).deal(blocks, 200, make_generator((2,)))
    rows, blocks = rows.reshape(draws, 200).T, blocks.reshape(draws, 200).T
    for block in (0, 1):
        inside = torch.where(data["x"] == block, data.weights, 0.0)
        expected = inside / inside.sum() * int((blocks[0] == block).sum())
        counts = torch.stack([torch.bincount(r[b == block], minlength=6) for r, b in zip(rows, blocks, strict=True)])
        assert float((counts - expected).abs().max()) < 2
        assert counts[:, expected == 0].sum() == 0
        # By its share on average, too: each replicate's count of a row is an independent number.
        for row in range(6):
            radius = mean_radius(4.0, 2.0, 200)
            assert abs(float(counts[:, row].double().mean()) - float(expected[row])) <= radius


def test_blocks_further_down_are_shared_out_evenly() -> None:
    """40 rows in 4 blocks that a child agrees on: with 8 draws, 2 in each of them, whatever the rows."""
    data = Dataset({"x": torch.arange(40)})
    whole, quarters = Partition.trivial(data), Partition.of(data["x"] % 4, data)
    rows = Dealer(whole, quarters).deal(torch.zeros(800, dtype=torch.int64), 100, make_generator((3,)))
    assert all(torch.bincount(each % 4).tolist() == [2, 2, 2, 2] for each in rows.reshape(8, 100).T)
    assert len(rows.unique()) == 40


def test_what_a_datum_explains_alone_adds_nothing() -> None:
    """f is a sum over sites: dealt out evenly, each replicate has the same mean; independent draws have not."""
    data = Dataset({"x": torch.arange(6) % 3, "y": torch.tensor([1.0, 4, 9, 16, 25, 36])})
    graph = Graph.of(
        {"a": lambda y: y * 2, "b": lambda y: y**2, "f": lambda a, b: a + b}, inputs=["x", "y"], output="f"
    )
    hypothesis = Hypothesis("h", graph, data, Claim("f", reads=[Claim("a", "x")]))
    of_sum, values = unroll(hypothesis), Activations(graph, data)
    f = run_scrubbed(of_sum, values, draw_permuted(of_sum, 40 * 12, (0,), 40)).double().reshape(12, 40).mean(0)
    assert f.tolist() == pytest.approx([scrubbed_expectation(of_sum)] * 40)
    assert float(run_scrubbed(of_sum, values, draw(of_sum, 480, (0,))).double().reshape(12, 40).mean(0).std()) > 1


# As any drawing


def test_a_seed_names_its_draws_and_nothing_else_is_touched() -> None:
    state = torch.get_rng_state()
    with poutine.trace() as tracer:
        same, again = (draw_permuted(tree(), 96, (3, 1), 4) for _ in range(2))
    other, parts = draw_permuted(tree(), 96, (3, 2), 4), draw_permuted(tree(), 96, (3, 1), 2)
    assert torch.equal(torch.get_rng_state(), state) and not tracer.trace.nodes
    assert not pyro.get_param_store()
    assert list(same) == list(draw(tree(), 2, (0,)))
    for site in SITES:
        assert torch.equal(same[site], again[site]) and same[site].shape == (96,)
        assert site == "f" or not torch.equal(same[site], other[site])
    assert torch.equal(same["f"], parts["f"]) and not torch.equal(same["f/~"], parts["f/~"])  # strata are of all draws


def test_sites_agree_as_the_program_says() -> None:
    for weights in (None, WEIGHTS):
        data = Dataset(DATA.columns, weights)
        rows = draw_permuted(tree(data), 64, (0,), 2)
        assert torch.equal(data["x"][rows["f"]], data["x"][rows["f/a"]])
        assert torch.equal(data["y"][rows["f/a"]], data["y"][rows["f/a/c"]])
        assert all(bool((data.weights[rows[site]] > 0).all()) for site in SITES)


def test_replicates_are_independent() -> None:
    """Of an unimportant datum, the row at one place of the first replicate and at one of the second."""
    two = [draw_permuted(tree(), 4, (5, k), 2)["f/~"] for k in range(1500)]
    weights = DATA.weights.tolist()
    joint = {(a, b): weights[a] * weights[b] for a in range(6) for b in range(6) if weights[a] * weights[b]}
    assert not counts_alarm(Counter((int(t[0]), int(t[1])) for t in two), joint)
    # Within one they are not: two draws of one replicate share its rows out.
    assert counts_alarm(Counter((int(t[0]), int(t[2])) for t in two), joint)


@pytest.mark.parametrize(
    ("draws", "replicates", "seed", "said"),
    [
        (10, 4, 0, "10 draws and 4 replicates"),
        (4, 0, 0, "0 replicates"),
        (0, 1, 0, "0 draws"),
        (4, 2, -1, "seed is -1"),
    ],
)
def test_what_cannot_be_dealt_is_refused(draws: int, replicates: int, seed: int, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        draw_permuted(tree(), draws, (seed,), replicates)


def test_trees_of_one_site_and_of_rows_without_company() -> None:
    alone = Dataset({"x": torch.arange(3)}, [0.0, 1, 2])
    graph = Graph.of({"s": lambda x: x * 1.0, "f": lambda s: s + 1}, inputs=["x"], output="f")
    only: Tree = unroll(Hypothesis("h", graph, alone, Claim("f", reads=[Claim("s", "x")])))
    rows = draw_permuted(only, 12, (0,), 2)
    assert torch.equal(rows["f"], rows["f/s"]) and set(rows["f"].tolist()) == {1, 2}
    assert math.isclose(float((rows["f"] == 2).double().mean()), 2 / 3, abs_tol=0.2)
