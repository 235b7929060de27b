"""A claim about a real value, at every resolution: bins tell a true claim from a false one, single values do not.

The model passes on x, a real number, and f is the squared difference of what it passes on and x. That its node holds x
is true. That it holds z, as many other numbers that have nothing to do with x, is false. Claimed as they are, both
recover all: no two rows have the same value, so nothing is swapped. In k bins the true claim loses what values within a
bin differ by, 1 / k^2 or so; the false one recovers what is not swapped: one time in n / k a row is its own donor.

x and z are 0, 1 / n, ..., (n - 1) / n, each once. Two of m of them in a row differ in square by (m^2 - 1) / (6 n^2).
"""

from __future__ import annotations

import torch

from pscrub.data.bins import Quantiles
from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.graph.graph import Graph
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Expected, Study


def study(n: int = 256, bins: int = 8) -> Study:
    """The study for a number of rows, and of bins for the claims that are cut.

    Args:
        n: rows.
        bins: how many; they divide n.
    """
    if bins < 1 or n < 2 or n % bins:
        raise StudyError(f"n is {n} and bins is {bins}; expected bins that divide n, and at least two rows")
    x = torch.arange(n, dtype=torch.float64) / n
    z = torch.randperm(n, generator=torch.Generator().manual_seed(0)).double() / n
    data = Dataset({"x": x, "z": z})
    graph = Graph.of({"h": lambda x: x.clone(), "f": lambda h, x: (h - x) ** 2}, inputs=["x"], output="f")

    def says(name: str, feature: str | Quantiles) -> Hypothesis:
        words = f"{feature}" if isinstance(feature, str) else feature.name
        return Hypothesis(name, graph, data, Claim("f", reads=[Claim("h", feature, words=words), Claim("x", "x")]))

    hypotheses = [
        says("true, every value", "x"),
        says("true", Quantiles("x", bins)),
        says("false, every value", "z"),
        says("false", Quantiles("z", bins)),
    ]
    # Rows of one bin of z hold x as it happens to be: twice the variance within the bin.
    held = x[z.argsort()].reshape(bins, -1)
    values = [0.0, ((n // bins) ** 2 - 1) / (6 * n**2), 0.0, float(2 * held.var(1, correction=0).mean())]
    expected = [Expected(h, value) for h, value in zip(hypotheses, values, strict=True)]
    notes = ("`pscrub resolution real_values` shows the claims against the number of bins.",)
    return Study("real_values", hypotheses, __doc__.split("\n")[0], labels=("x",), notes=notes, expected=expected)
