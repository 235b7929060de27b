"""Differences in the population: they cover it, where single rows do something and where pairs alone do."""

import math

import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
from pscrub.data.partition import Partition
from pscrub.estimate.difference import Apart, Difference, difference_apart
from pscrub.hypothesis.tree import refine
from pscrub.law.distinct import ApartLaw


def differ(rows: int, slope: float, own: float, k: int, draws: int = 1024) -> Difference:
    """u_j (v_x + own u_x): what claiming a of the unimportant row j adds, a binary, u and v sloping with it."""
    g = torch.Generator().manual_seed(1000 + k)
    a = torch.randint(2, (rows,), generator=g)
    u, v = (slope * a + torch.randn(rows, generator=g, dtype=torch.float64) for _ in range(2))
    data = Dataset({"a": a, "u": u, "v": v})
    graph = Graph.of({"h": lambda u: 1.0 * u, "f": lambda h, v: h * v}, ["u", "v"], "f")
    tree = unroll(Hypothesis("h", graph, data, Claim("f", reads=[Claim("v", "exact")])))
    joined = refine(tree, ["f/~"], Partition.of(a, data))
    made = []
    for each in (tree, joined):
        law = ApartLaw(each, data.weights, torch.arange(rows), ["f/v"])
        drawn = law.draw(tree.seen, draws, (k,))
        root, other = drawn.data["f"], drawn.data["f/~"]
        made.append(Apart(law, drawn, u[other] * (v[root] + own * u[root])))
    return difference_apart(made[0], made[1], 0.95)


def test_the_population_is_covered() -> None:
    for slope, own in ((1.0, 0.0), (0.5, 1.0)):
        truth = slope**2 / 4 * (1 + own)  # of the two covariances with a, over its variance
        found = [differ(100, slope, own, k).estimate for k in range(80)]
        missed = sum(not e.low <= truth <= e.high for e in found)
        assert missed <= 13  # at one in twenty, more has odds below 1 in 10,000
        errors = torch.tensor([(e.value - truth) / e.se for e in found])
        assert 0.6 < float(errors.std()) < 1.3 and abs(float(errors.mean())) < 0.5


def test_pairs_alone_alarm_no_oftener_and_the_bound_is_what_keeps_them() -> None:
    found = [differ(100, 0.0, 1.0, k, 16_384) for k in range(30)]
    assert sum(not d.estimate.low <= 0 <= d.estimate.high for d in found) <= 7
    without = [abs(d.estimate.value) / math.sqrt(max(d.parts[0] + d.parts[2], 1e-300)) for d in found]
    within = [abs(d.estimate.value) / d.estimate.se for d in found]
    assert max(a / b for a, b in zip(without, within, strict=True)) > 1.5


def test_blocks_without_another_row_are_counted() -> None:
    data = Dataset({"a": torch.arange(40) // 2, "u": torch.randn(40), "v": torch.randn(40)})
    graph = Graph.of({"h": lambda u: 1.0 * u, "f": lambda h, v: h * v}, ["u", "v"], "f")
    tree = unroll(Hypothesis("h", graph, data, Claim("f", reads=[Claim("v", "exact")])))
    alone = refine(tree, ["f/~"], Partition.finest(data))
    pairs = refine(tree, ["f/~"], Partition.of(data["a"], data))
    complete = []
    for each in (alone, pairs):
        made = []
        for one in (tree, each):
            law = ApartLaw(one, data.weights, torch.arange(40))
            drawn = law.draw(tree.seen, 80, (0,))
            made.append(Apart(law, drawn, torch.zeros(80, dtype=torch.float64)))
        found = difference_apart(made[0], made[1], 0.95)
        complete.append(found.complete)
    assert complete[0] == 0.0 and complete[1] == 0.0  # v's own row is the root's, and takes no other
