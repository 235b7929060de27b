"""The entropy of scrubbed inputs, node by node, from the partitions of D alone."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from pscrub.data.partition import Partition
from pscrub.hypothesis.tree import Tree
from pscrub.law.wires import cut_wires, inputs_partition


@dataclass(frozen=True)
class EntropyRow:
    """What one tree node reads, keeps and loses.

    Args:
        path: the node, or draw of unimportant inputs.
        inputs: H(inputs of u).
        output: H(output of u).
    """

    path: str
    inputs: float
    output: float

    @property
    def lost(self) -> float:
        """H(inputs of u) - H(output of u): the information lost here, which scrubbing makes up at random."""
        return self.inputs - self.output


@dataclass(frozen=True)
class EntropyBudget:
    """Where the entropy of the scrubbed inputs comes from.

    Args:
        rows: one for each tree node and draw of unimportant inputs.
        output: H(output), of the root's partition.
        scrubbed: H(x_1, ..., x_n) = H(output) + sum of what is lost, over all nodes (fun fact 3).
        trace: the entropy of all data of the program's trace, inner nodes included: K H(D) - sum of H(output of u) over
            the K sites but the root. Never smaller than `scrubbed`.
        data: H(D).
        unit: "nats" or "bits".
    """

    rows: tuple[EntropyRow, ...]
    output: float
    scrubbed: float
    trace: float
    data: float
    unit: str


def entropy_budget(tree: Tree, bits: bool = False) -> EntropyBudget:
    """The entropy of the scrubbed inputs and its terms, node by node, in one pass over D per wire.

    Source: fun fact 3.

    Args:
        tree: the treeified hypothesis.
        bits: in bits rather than nats.

    >>> import torch
    >>> from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
    >>> data = Dataset({"x": torch.arange(4)})
    >>> graph = Graph.of({"s": lambda x: x % 2, "f": lambda s: s * 1.0}, inputs=["x"], output="f")
    >>> tree = unroll(Hypothesis("parity", graph, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % 2)])))
    >>> budget = entropy_budget(tree, bits=True)
    >>> [(row.path, row.inputs, row.output, row.lost) for row in budget.rows], budget.scrubbed, budget.trace
    ([('f', 1.0, 1.0, 0.0), ('f/s', 2.0, 1.0, 1.0)], 2.0, 3.0)
    """
    unit = math.log(2) if bits else 1.0
    whole = Partition.finest(tree.hypothesis.data).entropy / unit
    known: dict[object, float] = {}  # a claim's inputs are the same wherever it is read
    rows = []
    for path, site in tree.sites.items():
        if not site.is_leaf and site.claim not in known:
            known[site.claim] = inputs_partition(tree, path).entropy / unit
        output = site.partition.entropy / unit  # 0 for unimportant inputs, whose draw agrees on nothing
        rows.append(EntropyRow(path, whole if site.is_leaf else known[site.claim], output))
    root = next(row for row in rows if row.path == tree.root)
    scrubbed = root.output + math.fsum(row.lost for row in rows)
    trace = len(rows) * whole - math.fsum(row.output for row in rows if row.path != tree.root)
    return EntropyBudget(tuple(rows), root.output, scrubbed, trace, whole, "bits" if bits else "nats")


def cut_entropy(tree: Tree, opened: Collection[str], bits: bool = False) -> float:
    """The entropy of a cut's wires: H(output) and what is lost at the nodes on the output's side, in nats or bits."""
    cut_wires(tree, opened)
    budget = entropy_budget(tree, bits)
    return budget.output + math.fsum(row.lost for row in budget.rows if row.path in opened)
