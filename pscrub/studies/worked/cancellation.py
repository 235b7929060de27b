"""s + s - s: one term is said to be all there is, and whether that passes hangs on how the others are drawn.

The claim is incomplete: three parts compute s, and two of them cancel. If these share a draw of their datum they cancel
scrubbed as well, all is recovered, and not even the output moves. Drawn apart they do not.

Source: the appendix's comments (a circuit whose missing parts cancel).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.graph.graph import Graph
from pscrub.hypothesis.behaviours import output_distance
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Expected, Study


def study(largest: int = 2, tilt: float = 0.3) -> Study:
    """The study for a law of s.

    Args:
        largest: s is a whole number from -largest to largest.
        tilt: between -1 and 1; the probability of s is proportional to 1 + tilt s / largest.
    """
    if largest < 1 or not -1 <= tilt <= 1:
        raise StudyError(f"largest is {largest} and tilt {tilt}; expected at least 1, and from -1 to 1")
    s = torch.arange(-largest, largest + 1, dtype=torch.float64)
    data = Dataset({"s": s, "y": s}, 1 + tilt * s / largest)

    def total(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        return first + (second - third)

    parts = {name: (lambda s: 1.0 * s) for name in ("first", "second", "third")}
    graph = Graph.of({**parts, "total": total, "loss": lambda total, y: (total - y) ** 2}, ["s", "y"], "loss")

    def only(name: str, *terms: str, sharing: str = "reader") -> Hypothesis:
        claim = Claim("total", reads=[Claim(term, "exact") for term in terms])
        root = Claim("loss", reads=[claim, Claim("y", "exact")])
        return Hypothesis(name, graph, data, root, sharing=sharing)  # type: ignore[arg-type]

    every = only("all three matter", "first", "second", "third")
    together = only("only the first, one draw for the others", "first")
    apart = only("only the first, the others drawn apart", "first", sharing="each")
    third = only("only the third, one draw for the others", "third")
    variance = largest * (largest + 1) / 3 - (tilt * (largest + 1) / 3) ** 2
    known = [(every, 0.0), (together, 0.0), (apart, 2 * variance), (third, 8 * variance)]
    # The label is s and so is the output: the loss is the distance from the model's own output.
    expected = [Expected(h, value) for h, value in known]
    expected += [Expected(output_distance(h), value, "output distance") for h, value in known]
    notes = (f"The variance of s is {variance:.6g}: drawn apart, second less third adds twice that.",)
    hypotheses = [every, together, apart, third]
    return Study("cancellation", hypotheses, __doc__.split("\n")[0], notes=notes, expected=expected)
