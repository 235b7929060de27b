"""Trees to draw from: a binary tree of claims that all agree on one random feature of D."""

from __future__ import annotations

import torch
from torch import Tensor

from pscrub import Claim, Dataset, Graph, Hypothesis, Tree, unroll
from pscrub.graph.graph import Node


def dataset(n: int, blocks: int, weighted: bool, seed: int = 0) -> Dataset:
    """N rows in random order, n / blocks of each value of "feature"; if weighted, as 0.1 to 1.1."""
    generator = torch.Generator().manual_seed(seed)
    feature = torch.randperm(n, generator=generator) % blocks
    weights = torch.rand(n, dtype=torch.float64, generator=generator) + 0.1 if weighted else None
    return Dataset({"x": torch.zeros(n), "feature": feature}, weights)


def binary_tree(data: Dataset, sites: int) -> Tree:
    """A tree of so many sites, each with up to two children, each of which agrees with it on the feature."""

    def below(i: int) -> list[int]:
        return [j for j in (2 * i + 1, 2 * i + 2) if j < sites]

    def claim(i: int) -> Claim:
        # A copy of the column for each claim: no table is shared, as none would be with a feature for each.
        return Claim(f"g{i}", data["feature"].clone(), reads=[claim(j) for j in below(i)])

    nodes = [Node(f"g{i}", tuple(f"g{j}" for j in below(i)) or ("x",), _sum) for i in range(sites)]
    return unroll(Hypothesis(f"{sites} sites", Graph(nodes, ["x"], "g0"), data, claim(0)))


def _sum(*values: Tensor) -> Tensor:
    return torch.stack(values).sum(0)
