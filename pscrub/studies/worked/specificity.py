"""One node or three: hypotheses of one behaviour at several levels of specificity.

f is how many of three bits are set, computed as (x0 + x1) + x2, compared with a label. One hypothesis says that the sum
is computed, and no more: the sum's node is evaluated whole. Another also says how, in three nodes that matter in three
ways, and so permits each bit to come from an input of its own. Both recover all; the second has the greater scrubbed
entropy. A model that computes otherwise (`-P shortcut=1`) fulfils the first and not the second.

Source: appendix, section 1.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.graph.graph import Function, Graph
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Expected, Study


def study(noise: int = 4, shortcut: float = 0.0) -> Study:
    """The study for a model.

    Args:
        noise: values of a column that nothing reads; it is what swaps leave free.
        shortcut: how much of the noise's parity the model adds to the first bit's node and takes from the second's.
    """
    if noise < 1:
        raise StudyError(f"noise is {noise}; expected at least 1")
    grid = torch.cartesian_prod(*(torch.arange(k) for k in (2, 2, 2, noise)))
    bits, extra = grid[:, :3], grid[:, 3]
    data = Dataset({"bits": bits, "noise": extra, "count": bits.sum(1).double()})

    def first(bits: Tensor, noise: Tensor) -> Tensor:
        return bits[:, 0].double() + shortcut * (noise % 2).double()

    def second(bits: Tensor, noise: Tensor) -> Tensor:
        return bits[:, 1].double() - shortcut * (noise % 2).double()

    functions: dict[str, Function] = {
        "first": first,
        "second": second,
        "third": lambda bits: bits[:, 2].double(),
        "sum": lambda first, second, third: first + second + third,
        "loss": lambda sum, count: (sum - count) ** 2,
    }
    graph = Graph.of(functions, inputs=["bits", "noise", "count"], output="loss")
    label = Claim("count", "exact")
    nodes = [Claim(n, data["bits"][:, i], words=f"bit {i}") for i, n in enumerate(("first", "second", "third"))]

    def says(name: str, claim: Claim) -> Hypothesis:
        return Hypothesis(name, graph, data, Claim("loss", reads=[label, claim]))

    pair = torch.stack([data["bits"][:, 0], data["bits"][:, 1]], 1)
    hypotheses = [
        Hypothesis("everything matters", graph, data, Claim("loss", "exact")),
        says("one node: the bits", Claim("sum", data["bits"], words="the bits")),
        says("one node: their sum", Claim("sum", "count")),
        says("three nodes, a bit each", Claim("sum", reads=nodes)),
        says("two of them, the first two bits each", Claim("sum", reads=[*_wide(nodes[:2], pair), nodes[2]])),
        Hypothesis("sum does not matter", graph, data, Claim("loss", reads=[label])),
    ]
    # Drawn apart, the two parities differ in half of the cases: (shortcut)^2 in each.
    apart = shortcut**2 / 2 if noise % 2 == 0 else shortcut**2 * 2 * (noise // 2) * (noise - noise // 2) / noise**2
    values = [0.0, 0.0, 0.0, apart, apart, 2 * 0.75]
    expected = [Expected(h, value) for h, value in zip(hypotheses, values, strict=True)]
    notes = ("`pscrub frontier specificity` shows the same against the entropy of the scrubbed inputs.",)
    return Study("specificity", hypotheses, __doc__.split("\n")[0], labels=("count",), notes=notes, expected=expected)


def _wide(claims: list[Claim], feature: Tensor) -> list[Claim]:
    return [Claim(claim.at, feature, words="the first two bits") for claim in claims]
