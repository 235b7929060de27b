"""Losses and distances to put on top of a graph, one number a row."""

from __future__ import annotations

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError
from pscrub.graph.graph import Graph, Node


def squared_error(own: Tensor, other: Tensor) -> Tensor:
    """float64 [batch]: the squared difference, averaged over a vector's entries."""
    return (own.double() - other.double()).reshape(len(own), -1).square().mean(1)


def divergence(own: Tensor, other: Tensor) -> Tensor:
    """float64 [batch]: KL of the other's distribution from the own one, in nats, of logits along the last axis."""
    p, q = own.double().log_softmax(-1), other.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).reshape(len(own), -1).mean(1)


def flipped(own: Tensor, other: Tensor) -> Tensor:
    """float64 [batch]: 1 where another entry of the last axis is the largest; over other axes, the share."""
    return (own.argmax(-1) != other.argmax(-1)).double().reshape(len(own), -1).mean(1)


def correlation(graph: Graph, data: Dataset, node: str, column: str, output: str = "correlation") -> Graph:
    """The graph whose f has as its expectation over D the correlation of a node with a column, as with a cosine.

    f = z(node) z(column), each with D's mean taken off and divided by D's standard deviation. Scrubbed, the product
    keeps D's moments, so that what is measured is how much of the correlation is kept.

    Source: appendix, section 1.1 (the curve detectors).

    Args:
        graph: whose node.
        data: D, for the moments.
        node: a node [batch] of the graph.
        column: a column [N] of numbers.
        output: name of the new output node.

    Raises:
        GraphError: values of another shape, or that do not vary.
    """
    with torch.no_grad():
        values = graph.run([node], {name: data[name] for name in graph.inputs})[node]
    moments = []
    for name, value in ((node, values), (column, data[column])):
        if value.ndim != 1:
            raise GraphError(f"correlation: '{name}' has shape {tuple(value.shape)}; expected one number a row")
        mean = float((data.weights * value.double()).sum())
        sd = float((data.weights * (value.double() - mean).square()).sum()) ** 0.5
        if not sd > 0:
            raise GraphError(f"correlation: '{name}' does not vary on D")
        moments.append((mean, sd))
    (m, s), (n, t) = moments
    product = Node(output, (node, column), lambda a, b: (a.double() - m) / s * (b.double() - n) / t)
    return Graph([*graph.nodes.values(), product], tuple(dict.fromkeys((*graph.inputs, column))), output)


def accuracy(graph: Graph, logits: str, label: str, output: str = "accuracy") -> Graph:
    """The graph whose f is 1 where the largest of a node's logits [batch, classes] is the label's, and 0 elsewhere."""
    right = Node(output, (logits, label), lambda z, y: (z.argmax(-1) == y).double())
    return Graph([*graph.nodes.values(), right], tuple(dict.fromkeys((*graph.inputs, label))), output)
