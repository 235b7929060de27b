"""The same loss by another function: a sine judged on labels that are all 0.

Whatever x it is given, a sine over whole periods has the same mean square: the randomised loss is the model's, and loss
recovered has no meaning. The output on the same x does move. Where sin + sin - sin is claimed to be its first term
alone, and the others share a draw, not even that shows what is missing.

Source: the appendix's comments (sine and cosine; sin + sin - sin).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.graph.graph import Function, Graph
from pscrub.hypothesis.behaviours import output_distance
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Expected, Study


def study(points: int = 24, periods: int = 2, amplitude: float = 1.0) -> Study:
    """The study for a grid of x over whole periods, x being counted in steps of the grid.

    Args:
        points: values of x in a period.
        periods: how many.
        amplitude: of the sine.
    """
    if points < 3 or periods < 1:
        raise StudyError(f"points is {points} and periods {periods}; expected at least 3 and 1")
    step = torch.arange(points * periods)
    place = step % points
    data = Dataset({"x": step, "y": torch.zeros(len(step), dtype=torch.float64), "place": place})

    def sine(x: Tensor) -> Tensor:
        return amplitude * (2 * math.pi * (x % points).double() / points).sin()

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return (output - y) ** 2

    one = Graph.of({"output": sine, "loss": loss}, inputs=["x", "y"], output="loss")
    parts: Mapping[str, Function] = dict.fromkeys(("first", "second", "third"), sine)
    sums: Mapping[str, Function] = {
        **parts,
        "output": lambda first, second, third: first + (second - third),
        "loss": loss,
    }
    three = Graph.of(sums, inputs=["x", "y"], output="loss")
    label = Claim("y", "exact")
    # x and -x have sines of opposite sign.
    size = Claim("output", torch.minimum(place, (points - place) % points), words="size of the sine")
    first = Claim("loss", reads=[Claim("output", reads=[Claim("first", "place")]), label])
    matters = Hypothesis("x matters", one, data, Claim("loss", reads=[Claim("output", "place"), label]))
    sign = Hypothesis("the sine's sign does not matter", one, data, Claim("loss", reads=[size, label]))
    trivial = Hypothesis("x does not matter", one, data, Claim("loss", reads=[label]))
    together = Hypothesis("sin + sin - sin: only the first, one draw", three, data, first)
    apart = Hypothesis("sin + sin - sin: only the first, drawn apart", three, data, first, sharing="each")
    square = amplitude**2
    known = [
        (matters, square / 2, 0.0),
        (sign, square / 2, square),
        (trivial, square / 2, square),
        (together, square / 2, 0.0),
        (apart, 3 * square / 2, square),
    ]
    expected = [Expected(h, value) for h, value, _ in known]
    expected += [Expected(output_distance(h), value, "output distance") for h, _, value in known]
    notes = ("Loss recovered is undefined here: the randomised loss is the model's. Output distances tell them apart.",)
    hypotheses = [h for h, *_ in known]
    return Study("sin_cos", hypotheses, __doc__.split("\n")[0], labels=("y",), notes=notes, expected=expected)
