"""The least and the greatest that f can come to under the swaps that a hypothesis permits: donors chosen, not drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from pscrub.hypothesis.tree import Tree
from pscrub.law.exact import CELLS
from pscrub.law.of_f import list_by_block
from pscrub.law.wires import inputs_partition


@dataclass(frozen=True)
class Extremes:
    """The expectation of f over the root's datum, all other data chosen among those that the hypothesis permits.

    Args:
        least: every choice is the best one.
        scrubbed: E_scrubbed, where they are drawn.
        greatest: every choice is the worst one: the pessimal scrub. No law of donors within the blocks does worse.
    """

    least: float
    scrubbed: float
    greatest: float


def find_extremes(tree: Tree, limit: int = CELLS) -> Extremes:
    """The expectations of the least, the drawn and the greatest f that the root's datum leaves possible, exactly.

    The root's datum is drawn from D as ever. What can be chosen is what the scrubbing law gives a probability: at each
    tree node a row of its parent's block, the same row for all that one draw gives. Data of weight 0 cannot be chosen.

    Source: the pessimal ablation of proofs about models (Gross and others, 2024), with the blocks of a hypothesis.

    Args:
        tree: the treeified hypothesis.
        limit: most combinations (inputs' blocks, and a value of each graph node read) at one node.

    Raises:
        HypothesisError: more combinations, or more values of shared draws, than can be listed.

    >>> import torch
    >>> from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
    >>> data = Dataset({"x": torch.arange(4), "y": torch.tensor([0, 1, 0, 1])})
    >>> graph = Graph.of({"s": lambda x: x, "f": lambda s, y: 1.0 * s * y}, inputs=["x", "y"], output="f")
    >>> find_extremes(unroll(Hypothesis("parity", graph, data, Claim("f", reads=[Claim("s", "y"), Claim("y", "y")]))))
    Extremes(least=0.5, scrubbed=1.0, greatest=1.5)
    """
    # The root's own output may tell less of its datum than what it reads does.
    partition = inputs_partition(tree, tree.root)
    finer = replace(tree, sites={**tree.sites, tree.root: replace(tree.sites[tree.root], partition=partition)})
    least = torch.full((partition.n_blocks,), math.inf, dtype=torch.float64)
    greatest, drawn = -least, list[float]()
    for block, value, mass in list_by_block(finer, limit):
        there = mass > 0
        block, value = block[there], value[there]
        least.scatter_reduce_(0, block, value, "amin")
        greatest.scatter_reduce_(0, block, value, "amax")
        drawn += (value * mass[there]).tolist()
    weights = partition.block_weights
    kept = weights > 0
    low, high = (math.fsum((weights[kept] * each[kept]).tolist()) for each in (least, greatest))
    return Extremes(low, math.fsum(drawn), high)
