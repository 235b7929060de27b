"""A model that says more at a module's mean: mean ablation harms or helps by which way the inputs are misjudged.

The module's activation is one of two values, and the model, which never saw their mean, adds something there. The
module does not matter on these data. Where the model says too much, mean ablation makes it worse; where it says too
little, better. Resampling changes nothing on either side.

Source: appendix, section 3, the second argument.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.graph.graph import Function, Graph
from pscrub.hypothesis.ablation import Ablation
from pscrub.hypothesis.behaviours import restrict
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Expected, Study


def study(bias: float = 1.0, bump: float = 0.8, mean: float = 0.5, high: float = 0.5) -> Study:
    """The study for a bias and for what the model adds at the mean activation.

    Args:
        bias: by how much the model says too much or too little.
        bump: what it adds at the mean activation; less by (activation - mean)^2 of it, and nothing 1 or more away.
        mean: of the activations, which are 1 below it and 1 above it.
        high: the share of inputs on which the model says too much.
    """
    if not 0 < high < 1:
        raise StudyError(f"high is {high}; expected between 0 and 1")
    levels = torch.tensor([-1.0, 0, 1], dtype=torch.float64)
    around, sides = torch.tensor([-1.0, 1], dtype=torch.float64), torch.tensor([0, 1])
    t, h, side = (each.flatten() for each in torch.meshgrid(levels, mean + around, sides.double(), indexing="ij"))
    weights = torch.tensor([1 - high, high], dtype=torch.float64)[side.long()]
    data = Dataset({"t": t, "h": h, "too_high": side, "y": t}, weights)

    def added(module: Tensor) -> Tensor:
        return bump * (1 - (module - mean) ** 2).clamp(min=0)

    def output(t: Tensor, too_high: Tensor, module: Tensor) -> Tensor:
        return t + bias * (2 * too_high - 1) + added(module)

    functions: Mapping[str, Function] = {
        "module": lambda h: 1.0 * h,
        "output": output,
        "loss": lambda output, y: (output - y) ** 2,
    }
    graph = Graph.of(functions, inputs=["t", "h", "too_high", "y"], output="loss")
    claim = Claim("output", reads=[Claim("t", "t"), Claim("too_high", "too_high")])
    root = Claim("loss", reads=[claim, Claim("y", "exact")])
    hypothesis = Hypothesis("the module does not matter", graph, data, root)
    at = {"resampling": 0.0, "mean": bump, "zero": bump * max(0.0, 1 - mean**2)}
    sides_of = {0.0: (restrict(hypothesis, "too_high", 0.0), -bias), 1.0: (restrict(hypothesis, "too_high", 1.0), bias)}
    expected = []
    for kind, more in at.items():
        law = Ablation(kind)  # type: ignore[arg-type]
        whole = high * (bias + more) ** 2 + (1 - high) * (more - bias) ** 2
        expected.append(Expected(hypothesis, whole, ablation=law))
        for value, (part, off) in sides_of.items():
            where = "too high" if value else "too low"
            expected.append(Expected(part, (off + more) ** 2, f"E_scrubbed where {where}", law))
    notes = (
        "The claim is true on both sides. Mean ablation moves the loss from "
        f"{bias**2:.6g} to {(bias + bump) ** 2:.6g} where the model says too much, and to {(bump - bias) ** 2:.6g} "
        "where it says too little; resampling ablation leaves it.",
    )
    return Study(
        "ablation_mean", [hypothesis], __doc__.split("\n")[0], notes=notes, by=("too_high",), expected=expected
    )
