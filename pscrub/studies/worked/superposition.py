"""Two features in one neuron: is the error of superposition explained by saying nothing about it?

y = a x1^2 + b x2^2 is fitted by (c x1 + d x2)^2 + e, rewritten as a term for each feature and their interference. With
the interference unimportant the scrubbed loss is the model's. Cut in two halves that are drawn apart, the same
interference is taken to cost 2 c^2 d^2 less than it does.

Source: appendix, sections 6 and 6.1.
"""

from __future__ import annotations

import math

import torch

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.graph.graph import Graph, Node
from pscrub.graph.rewrites import replace
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Expected, Study


def study(
    a: float = 1.0, b: float = 0.8, c: float = 0.9, d: float = 0.7, e: float = 0.1, sparsity: float = 0.6
) -> Study:
    """The study for a task, a model and how often a feature is zero.

    Args:
        a: weight of x1^2 in y.
        b: weight of x2^2 in y.
        c: what the neuron reads of x1.
        d: what the neuron reads of x2.
        e: the model's bias.
        sparsity: the probability that a feature is 0.
    """
    data = features(sparsity, a, b)

    def loss(y: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        return (y - prediction) ** 2

    def predicted(x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        return (c * x1 + d * x2) ** 2 + e

    model = Graph.of({"prediction": predicted, "loss": loss}, inputs=["x1", "x2", "y"], output="loss")
    terms = [Node("term of x1", ("x1",), lambda x: c**2 * x**2), Node("term of x2", ("x2",), lambda x: d**2 * x**2)]
    whole = Node("interference", ("x1", "x2"), lambda x1, x2: 2 * c * d * x1 * x2)
    halves = [Node(f"{which} half", ("x1", "x2"), lambda x1, x2: c * d * x1 * x2) for which in ("first", "second")]

    def sums(*values: torch.Tensor) -> torch.Tensor:
        return torch.stack(values).sum(0) + e

    expanded = replace(model, "prediction", sums, [n.name for n in (*terms, whole)], [*terms, whole])
    halved = replace(model, "prediction", sums, [n.name for n in (*terms, *halves)], [*terms, *halves])
    of_features = Claim("prediction", "exact", reads=[Claim("term of x1", "x1"), Claim("term of x2", "x2")])
    claim = Claim("loss", reads=[Claim("y", "exact"), of_features])
    hypotheses = [
        Hypothesis("everything matters", model, data, Claim("loss", "exact")),
        Hypothesis("interference does not matter", expanded, data, claim),
        Hypothesis("nor do its halves, one draw for both", halved, data, claim),
        Hypothesis("nor do its halves, drawn apart", halved, data, claim, sharing="each"),
    ]
    cost = loss_of_model(a, b, c, d, e, sparsity)
    values = [cost, cost, cost, cost - 2 * c**2 * d**2]
    expected = [Expected(h, value) for h, value in zip(hypotheses, values, strict=True)]
    said = (
        f"Drawn apart, the halves are taken to cost 2 c^2 d^2 = {2 * c**2 * d**2:.6g} less than the interference does."
    )
    return Study("superposition", hypotheses, __doc__.split("\n")[0], labels=("y",), notes=(said,), expected=expected)


def features(sparsity: float, a: float, b: float) -> Dataset:
    """D: x1 and x2 independent, each 0 or one of four values, symmetric, with mean 0 and variance 1; y of both."""
    if not 0 <= sparsity < 1:
        raise StudyError(f"sparsity is {sparsity}; expected from 0 to below 1")
    unit = math.sqrt(2 / (5 * (1 - sparsity)))  # so that (1 - sparsity) (1 + 4) unit^2 / 2 = 1
    values = unit * torch.tensor([0.0, -1, 1, -2, 2], dtype=torch.float64)
    p = torch.tensor([sparsity] + [(1 - sparsity) / 4] * 4, dtype=torch.float64)
    x1, x2 = (each.flatten() for each in torch.meshgrid(values, values, indexing="ij"))
    return Dataset({"x1": x1, "x2": x2, "y": a * x1**2 + b * x2**2}, torch.outer(p, p).flatten())


def loss_of_model(a: float, b: float, c: float, d: float, e: float, sparsity: float) -> float:
    """E_model: (A x1^2 + B x2^2 - e - 2 c d x1 x2)^2 expanded, A = a - c^2, B = b - d^2; odd moments are 0."""
    fourth = 34 / (25 * (1 - sparsity))
    A, B = a - c**2, b - d**2
    return (A**2 + B**2) * fourth + 2 * A * B + e**2 - 2 * e * (A + B) + 4 * c**2 * d**2
