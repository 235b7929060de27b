"""A backup that takes over when a module is knocked out: zero and mean ablation vindicate a claim that is false.

Three modules: the output is M1 plus M2, and M3 in M2's place once M2 gives zero, as it did when trained with dropout.
That M2 does not matter is false. Zero and mean ablation (its mean is zero) set M3 to work and find next to no loss;
resampling gives M2 another input's value, and finds it.

Source: appendix, section 3, the third argument.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.graph.graph import Function, Graph
from pscrub.hypothesis.ablation import Ablation
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Expected, Study


def study(quality: float = 0.9, size: float = 1.0) -> Study:
    """The study for a backup.

    Args:
        quality: what M3 gives of what M2 gives.
        size: M2 gives plus or minus this.
    """
    u, v = (
        each.flatten() for each in torch.meshgrid(*[torch.tensor([-1.0, 1], dtype=torch.float64)] * 2, indexing="ij")
    )
    data = Dataset({"u": u, "v": v, "y": u + size * v})

    def output(m1: Tensor, m2: Tensor, m3: Tensor) -> Tensor:
        return m1 + torch.where(m2.abs() < size / 2, m3, m2)

    functions: Mapping[str, Function] = {
        "m1": lambda u: 1.0 * u,
        "m2": lambda v: size * v,
        "m3": lambda v: quality * size * v,
        "output": output,
        "loss": lambda output, y: (output - y) ** 2,
    }
    graph = Graph.of(functions, inputs=["u", "v", "y"], output="loss")

    def claimed(name: str, **modules: str) -> Hypothesis:
        every = "exact" if {"u", "v"} <= set(modules.values()) else None
        claim = Claim("output", every, reads=[Claim(module, feature) for module, feature in modules.items()])
        return Hypothesis(name, graph, data, Claim("loss", reads=[claim, Claim("y", "exact")]))

    without_2 = claimed("M2 does not matter", m1="u", m3="v")
    without_3 = claimed("M3 does not matter", m1="u", m2="v")
    neither = claimed("neither M2 nor M3 matters", m1="u")
    lacking, other = (1 - quality) ** 2 * size**2, 2 * size**2
    known = [
        (without_2, {"resampling": other, "mean": lacking, "zero": lacking}),
        (without_3, {"resampling": 0.0, "mean": 0.0, "zero": 0.0}),
        # Both at their means: M2 gives zero, and so does the backup, so that only M1 is left.
        (neither, {"resampling": other, "mean": size**2, "zero": size**2}),
    ]
    expected = [
        Expected(h, value, ablation=Ablation(kind))  # type: ignore[arg-type]
        for h, values in known
        for kind, value in values.items()
    ]
    notes = (
        f"That M2 does not matter is false. Zero and mean ablation find a loss of {lacking:.6g} and approve it; "
        f"resampling ablation finds {other:.6g} and rejects it.",
    )
    hypotheses = [h for h, _ in known]
    return Study("ablation_backup", hypotheses, __doc__.split("\n")[0], notes=notes, expected=expected)
