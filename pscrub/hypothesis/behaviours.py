"""Other behaviours of the same model to scrub: how far its output moves, f within a sub-population, a correlation.

Scrubbing explains the expectation of any f. Each function here gives a hypothesis, or a graph, with another f, under
the same claims and the same law of scrubbed inputs: it can be scrubbed, verified and enumerated as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from pscrub.errors import HypothesisError, close
from pscrub.graph.graph import Graph, Node
from pscrub.graph.labels import compared_outputs
from pscrub.graph.losses import divergence, flipped, squared_error
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis, drop_members

Distance = Callable[[Tensor, Tensor], Tensor]
"""The model's own output and another, each [batch, ...] -> [batch]."""
DISTANCES: Mapping[str, Distance] = {"squared error": squared_error, "KL": divergence, "flipped": flipped}


def output_distance(
    hypothesis: Hypothesis, distance: str | Distance = "squared error", labels: str | Sequence[str] | None = None
) -> Hypothesis:
    """The hypothesis whose f is the distance of the scrubbed output from the model's own on the root's datum.

    The outputs are what f reads besides its labels; several outputs' distances are added. Labels are not read, so data
    without labels will do. E_model is 0. The law of the scrubbed inputs stays as it was: to the claims comes one, that
    the model's own output is that of the root's datum.

    Source: the appendix's comments ("output distance").

    Args:
        hypothesis: whose claims.
        distance: "squared error" (mean over a vector's entries), "KL" (nats, of logits along the last axis), "flipped"
            (1 where another entry is the largest), or a function of own and scrubbed outputs.
        labels: the columns that are labels; by default the columns that the output node reads itself.

    Raises:
        HypothesisError: an unknown distance, or an f that reads nothing but labels.

    >>> from pscrub import Dataset
    >>> from pscrub.law.of_f import scrubbed_expectation
    >>> from pscrub.hypothesis.tree import unroll
    >>> data = Dataset({"x": torch.tensor([-1.0, 1.0]), "y": torch.zeros(2)})
    >>> graph = Graph.of({"out": lambda x: x, "f": lambda out, y: (out - y) ** 2}, inputs=["x", "y"], output="f")
    >>> trivial = Hypothesis("x does not matter", graph, data, Claim("f", reads=[Claim("y", "exact")]))
    >>> scrubbed_expectation(unroll(output_distance(trivial)))
    2.0
    """
    if isinstance(distance, str) and distance not in DISTANCES:
        raise HypothesisError(
            f"unknown distance '{distance}'{close(distance, DISTANCES)}; one of {', '.join(DISTANCES)}"
        )
    between = DISTANCES[distance] if isinstance(distance, str) else distance
    graph = hypothesis.graph
    reads = graph.reads(graph.output)
    outputs = compared_outputs(graph, labels)
    if not outputs:
        raise HypothesisError(
            f"the output node '{graph.output}' reads {', '.join(reads)}, labels all: no output to compare"
        )
    own = [_give_own(graph, name) for name in outputs]

    def apart(*values: Tensor) -> Tensor:
        pairs = zip(values[len(outputs) :], values[: len(outputs)], strict=True)
        return torch.stack([between(mine, other).double() for mine, other in pairs]).sum(0)

    inputs = (*outputs, *(node.name for node in own))
    return _other(hypothesis, Node("output distance", inputs, apart), own)


def restrict(hypothesis: Hypothesis, column: str, value: float) -> Hypothesis:
    """The hypothesis whose f is 0 but where a column has that value, and f / P(value) there: E[f | column = value].

    Args:
        hypothesis: whose claims and f.
        column: a column [N] of numbers.
        value: one that it takes.

    Raises:
        HypothesisError: a column that is not there or not of numbers, or does not take that value.
    """
    graph, data = hypothesis.graph, hypothesis.data
    found = data.columns.get(column)
    if not isinstance(found, Tensor) or found.ndim != 1:
        raise HypothesisError(f"within '{column}': expected a column [N] of numbers{close(column, data.columns)}")
    share = float(data.weights[found == value].sum())
    if not share > 0:
        raise HypothesisError(f"within '{column}': it is {value:g} on no row of positive weight")
    old = graph.nodes[graph.output]
    name = f"{column} is {value:g}"
    here = Node(name, (column,), lambda each: (each == value).double() / share)

    def weighed(*values: Tensor) -> Tensor:
        f = old.fn(*values[:-1]).double()
        return torch.where(values[-1] > 0, f * values[-1], 0.0)

    return _other(hypothesis, Node(f"{graph.output} where {name}", (*old.inputs, name), weighed), [here])


def _other(hypothesis: Hypothesis, f: Node, new: Sequence[Node]) -> Hypothesis:
    """The claims of a hypothesis about another f, whose new inputs are those of the root's datum."""
    graph, root = hypothesis.graph, hypothesis.claim
    kept = [node for node in graph.nodes.values() if node.name != graph.output]
    needed = set(Graph([*kept, *new, f], graph.inputs, f.name).order([f.name], ()))
    columns = [name for name in graph.inputs if name in needed]
    other = Graph([node for node in (*kept, *new, f) if node.name in needed], columns, f.name)
    reached = _reach(other, f, new, {read.at for read in root.reads})
    reads = [read for read in root.reads if read.at in reached]
    if not root.reads:  # the old root was taken whole from its datum
        reads = [Claim(name, EXACT) for name in f.inputs if name not in {node.name for node in new}]
    extra = [Claim(node.name, EXACT) for node in new]
    claim = Claim(f.name, reads=[*reads, *extra], paths=root.paths, rest=root.rest)
    return drop_members(Hypothesis(hypothesis.name, other, hypothesis.data, claim, hypothesis.sharing))


def _reach(graph: Graph, f: Node, new: Sequence[Node], claimed: set[str]) -> set[str]:
    """What f depends on, neither through what was added nor through what is claimed (which is reached itself)."""
    added = {node.name for node in new}
    seen: set[str] = set()
    stack = [name for name in f.inputs if name not in added]
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            stack += () if name in claimed else graph.reads(name)
    return seen


def _give_own(graph: Graph, name: str) -> Node:
    """A node's value by a way of its own, that no claim is about."""
    columns = tuple(column for column in graph.inputs if column in graph.order([name], ()))
    return Node(f"own {name}", columns, _Own(graph, name))


class _Own(nn.Module):
    """A node's value from the columns. A module, so that the parameters inside are moved with it."""

    def __init__(self, graph: Graph, name: str) -> None:
        super().__init__()
        needed = set(graph.order([name], ()))
        # Nodes in a list: a module is copied to be moved, and a graph's mapping of them cannot be.
        self.nodes = [node for node in graph.nodes.values() if node.name in needed]
        self.parts = nn.ModuleList(node.fn for node in self.nodes if isinstance(node.fn, nn.Module))
        self.columns = tuple(column for column in graph.inputs if column in needed)
        self.name = name

    def forward(self, *columns: Tensor) -> Tensor:
        graph = Graph(self.nodes, self.columns, self.name)
        return graph.run([self.name], dict(zip(self.columns, columns, strict=True)))[self.name]
