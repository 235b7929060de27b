"""Activations on a ring, with zero and the mean off it: both ablations blame a module that does nothing.

The output is t, and a term that vanishes wherever the module's activation lies on its ring. That the module does not
matter is true. Resampling keeps to the ring and says so; the mean and zero leave it and find a loss that is not there.

Source: appendix, section 3, the first argument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.graph.graph import Function, Graph
from pscrub.hypothesis.ablation import Ablation
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Expected, Study


def study(radius: float = 1.0, gate: float = 2.0, tilt: float = 0.8, noise: float = 0.5, points: int = 12) -> Study:
    """The study for a ring and what the model does off it.

    Args:
        radius: of the ring.
        gate: what the model adds for each unit by which the squared radius falls short.
        tilt: from 0 to 1: the probability of an angle is proportional to 1 + tilt cos(angle).
        noise: the labels are t +- noise.
        points: angles on the ring.
    """
    if points < 3 or not 0 <= tilt <= 1:
        raise StudyError(f"points is {points} and tilt {tilt}; expected at least 3, and from 0 to 1")
    angles = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    levels, signs = torch.tensor([-1.0, 0, 1], dtype=torch.float64), torch.tensor([-1.0, 1], dtype=torch.float64)
    angle, t, sign = (each.flatten() for each in torch.meshgrid(angles, levels, signs, indexing="ij"))
    data = Dataset({"angle": angle, "t": t, "y": t + noise * sign}, 1 + tilt * angle.cos())

    def ring(angle: Tensor) -> Tensor:
        return radius * torch.stack([angle.cos(), angle.sin()], 1)

    def output(t: Tensor, ring: Tensor) -> Tensor:
        return t + gate * (radius**2 - ring.square().sum(1))

    functions: Mapping[str, Function] = {"ring": ring, "output": output, "loss": lambda output, y: (output - y) ** 2}
    graph = Graph.of(functions, inputs=["angle", "t", "y"], output="loss")
    root = Claim("loss", reads=[Claim("output", reads=[Claim("t", "t")]), Claim("y", "exact")])
    h = Hypothesis("the ring does not matter", graph, data, root)
    # The mean of cos(angle) is tilt / 2, that of its sine 0.
    off = {"resampling": 0.0, "mean": gate * radius**2 * (1 - tilt**2 / 4), "zero": gate * radius**2}
    expected = [Expected(h, each**2 + noise**2, ablation=Ablation(kind)) for kind, each in off.items()]  # type: ignore[arg-type]
    notes = (
        "The claim is true. Resampling ablation approves it; mean and zero ablation reject it, for what the model does "
        f"where it never is: they add {off['mean'] ** 2:.6g} and {off['zero'] ** 2:.6g} to the loss.",
    )
    return Study("ablation_ring", [h], __doc__.split("\n")[0], notes=notes, expected=expected)
