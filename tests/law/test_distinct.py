"""Rows drawn apart: the law against all sets of distinct rows written out, and its score against differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from pscrub import Claim, Dataset, Graph, Hypothesis, Tree, unroll
from pscrub.data.partition import Partition
from pscrub.hypothesis.tree import refine
from pscrub.law.distinct import ApartLaw, Distinct

X, Z = [0, 0, 0, 1, 1, 0], [0, 1, 0, 1, 1, 1]
WEIGHTS = [0.1, 0.2, 0.1, 0.3, 0.2, 0.1]
EVEN = [1 / 6] * 6


def case(weights: list[float]) -> Tree:
    """A root, a claim two deep that agrees on z and then on x too, and unimportant inputs from all of D."""
    data = Dataset({"x": torch.tensor(X), "z": torch.tensor(Z)}, torch.tensor(weights, dtype=torch.float64))
    nodes: dict[str, Callable[..., Tensor]] = {
        "low": lambda x, z: 1.0 * x + z,
        "s": lambda low, z: low + z,
        "f": lambda s: 1.0 * s,
    }
    graph = Graph.of(nodes, ["x", "z"], "f")
    low = Claim("low", lambda d: 2 * d["x"] + d["z"])
    return unroll(Hypothesis("h", graph, data, Claim("f", reads=[Claim("s", "z", reads=[low])])))


ALONE, CLUSTERS = [0, 1, 2, 3, 4, 5], [0, 1, 2, 1, 3, 0]


def every(
    tree: Tree, weights: Tensor, own: bool = False, units: list[int] = ALONE
) -> Iterator[tuple[dict[str, int], float]]:
    """Every draw with its odds, from the definition: each row by weight among those of its block not yet there."""
    paths = list(tree.sites)
    for rows in itertools.product(range(6), repeat=len(paths)):
        there = dict(zip(paths, rows, strict=True))
        odds = float(weights[rows[0]] / weights.sum())
        for i, path in enumerate(paths[1:], 1):
            site = tree.sites[path]
            labels = (tree.whole if site.parent is None else site.partition).labels.tolist()
            block = labels[0 if site.parent is None else there[site.parent]]
            taken = {units[row] for row in rows[:i]}
            left = [k for k in range(6) if labels[k] == block and weights[k] > 0 and (own or units[k] not in taken)]
            odds *= float(weights[rows[i]] / sum(weights[k] for k in left)) if rows[i] in left else 0.0
        if odds:
            yield there, odds


@pytest.mark.parametrize("units", [ALONE, CLUSTERS])
@pytest.mark.parametrize("weights", [EVEN, WEIGHTS, [0.0, 0.3, 0.2, 0.1, 0.2, 0.2]])
def test_draws_are_of_distinct_rows_with_the_odds_of_the_definition(weights: list[float], units: list[int]) -> None:
    tree = case(weights)
    law = ApartLaw(tree, tree.hypothesis.data.weights, torch.tensor(units))
    drawn = law.draw(tree.seen, 60_000, (1,))
    rows = torch.stack([drawn.data[path] for path in tree.sites])[:, drawn.complete]
    assert all(bool((a != b).all()) for a, b in itertools.combinations(torch.tensor(units)[rows], 2))
    exact = {tuple(there.values()): odds for there, odds in every(tree, tree.hypothesis.data.weights, units=units)}
    whole = sum(exact.values())
    assert float(drawn.complete.double().mean()) == pytest.approx(whole, abs=0.01) and whole < 1
    seen, counts = rows.unique(dim=1, return_counts=True)
    found = {tuple(each): int(n) / 60_000 for each, n in zip(seen.T.tolist(), counts.tolist(), strict=True)}
    assert set(found) <= set(exact)
    for each, odds in exact.items():
        assert abs(found.get(each, 0.0) - odds) < 5.5 * (odds / 60_000) ** 0.5 + 1e-9


def test_a_law_that_lets_rows_come_back_would_be_told_apart() -> None:
    tree = case(EVEN)
    weights = tree.hypothesis.data.weights
    apart, back = (
        sum(odds * (there["f/s/low"] == there["f/s"]) for there, odds in every(tree, weights, own))
        for own in (False, True)
    )
    assert apart == 0 and back > 0.2


@pytest.mark.parametrize("units", [ALONE, CLUSTERS])
@pytest.mark.parametrize("weights", [EVEN, WEIGHTS])
def test_the_score_is_the_derivative_of_the_expectation(weights: list[float], units: list[int]) -> None:
    tree = case(weights)
    w = torch.tensor(weights, dtype=torch.float64)
    f = torch.rand(6**4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value(rows: dict[str, int]) -> float:
        return float(f[sum(row * 6**i for i, row in enumerate(rows.values()))])

    draws = list(every(tree, w, units=units))
    data = {path: torch.tensor([there[path] for there, _ in draws]) for path in tree.sites}
    everything = Distinct(data, torch.ones(len(draws), dtype=torch.bool), {})
    factor = torch.tensor([odds * value(there) for there, odds in draws], dtype=torch.float64)
    score = ApartLaw(tree, w, torch.tensor(units)).score(everything, factor)
    assert len(score) == len(set(units))
    for k in set(units):
        up, down, mine = w.clone(), w.clone(), torch.tensor(units) == k
        up[mine], down[mine] = w[mine] * 1.0001, w[mine] / 1.0001
        slope = sum(odds * value(there) for there, odds in every(tree, up, units=units))
        slope -= sum(odds * value(there) for there, odds in every(tree, down, units=units))
        assert float(score[k]) == pytest.approx(slope / (2 * math.log(1.0001)), abs=1e-6)


def test_carried_sites_pass_rows_on_and_trees_share_their_numbers() -> None:
    tree = case(EVEN)
    weights = tree.hypothesis.data.weights
    drawn = ApartLaw(tree, weights, torch.arange(6), ["f/s"]).draw(tree.seen, 400, (3,))
    assert torch.equal(drawn.data["f/s"], drawn.data["f"]) and not bool(drawn.left["f/s"].any())
    finer = refine(tree, ["f/s/~"], Partition.of(torch.tensor(X), tree.hypothesis.data))
    alike, other = (ApartLaw(tree, weights, torch.arange(6)).draw(tree.seen, 400, (seed,)) for seed in (3, 4))
    joined = ApartLaw(finer, weights, torch.arange(6)).draw(tree.seen, 400, (3,))
    assert torch.equal(joined.data["f"], alike.data["f"]) and not torch.equal(other.data["f"], alike.data["f"])
    here = joined.data["f/s/~"]
    both = joined.complete
    assert bool((torch.tensor(X)[here] == torch.tensor(X)[joined.data["f/s"]])[both].all())
