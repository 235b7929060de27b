"""How specific hypotheses are: which permits more, by how many bits, and what that costs in loss recovered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from pscrub.errors import HypothesisError
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.estimate import Estimate, choose
from pscrub.estimate.simultaneous import Family
from pscrub.estimate.stopping import ROUND
from pscrub.evaluate.compute import MEMORY
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.joins import join, signature
from pscrub.hypothesis.study import Study
from pscrub.hypothesis.tree import unroll
from pscrub.law.entropy import entropy_budget
from pscrub.progress import Progress, quiet
from pscrub.questions.comparison import draw_losses
from pscrub.result.table import Table

Order = Literal["the same", "more specific", "less specific", "incomparable"]


def order(a: Hypothesis, b: Hypothesis) -> Order:
    """How specific a hypothesis is beside another: the more swaps it permits, the more specific.

    a is less specific where joining b to it changes nothing: all that b forbids, it forbids as well. A partial order on
    hypotheses that can be joined; those that cannot be are incomparable.

    Source: appendix 1.3.

    >>> from pscrub import Claim, Dataset, Graph
    >>> data = Dataset({"x": torch.arange(4)})
    >>> graph = Graph.of({"s": lambda x: x % 2, "f": lambda s: 1.0 * s}, inputs=["x"], output="f")
    >>> named = {"row": "exact", "parity": lambda d: d["x"] % 2, "x // 3": lambda d: d["x"] // 3}
    >>> a, b, c = (Hypothesis(k, graph, data, Claim("f", reads=[Claim("s", v)])) for k, v in named.items())
    >>> order(a, b), order(b, a), order(b, c)
    ('less specific', 'more specific', 'incomparable')
    """
    try:
        both = signature(join(a, b))
    except HypothesisError:
        return "incomparable"
    one, other = signature(a), signature(b)
    if one == other:
        return "the same"
    return "less specific" if both == one else "more specific" if both == other else "incomparable"


def orders(hypotheses: Sequence[Hypothesis]) -> dict[tuple[str, str], Order]:
    """(name, name) -> how specific the first is beside the second, for each pair in the order given."""
    pairs = [(a, b) for i, a in enumerate(hypotheses) for b in hypotheses[i + 1 :]]
    return {(a.name, b.name): order(a, b) for a, b in pairs}


@dataclass(frozen=True)
class FrontierRow:
    """One hypothesis: how much it permits and how much it recovers.

    Args:
        name: the hypothesis.
        bits: entropy of the scrubbed inputs, as measure of how specific it is.
        copies: of the input, n; entropies of trees of different n measure different things as well.
        excess: bits above H(D), the entropy if nothing may be swapped.
        recovered: per cent, with an interval; None where undefined.
        scrubbed: E_scrubbed, with an interval.
        dominated: names of those that permit at least as many bits and surely recover more.
    """

    name: str
    bits: float
    copies: int
    excess: float
    recovered: Estimate | None
    scrubbed: Estimate
    dominated: tuple[str, ...] = ()

    @property
    def on_frontier(self) -> bool:
        """Whether no other one of the family is surely better at no fewer bits."""
        return not self.dominated


@dataclass(frozen=True)
class Frontier:
    """Loss recovered against scrubbed entropy, for a family of hypotheses on common random numbers.

    Args:
        study: its name.
        rows: in the family's order.
        level: at which all intervals hold together.
        draws: of each.
        model: E_model.
        randomised: E_randomised.
    """

    study: str
    rows: tuple[FrontierRow, ...]
    level: float
    draws: int
    model: Baseline
    randomised: Baseline

    def table(self) -> Table:
        """A line for each hypothesis."""
        bits = ("scrubbed entropy, bits", "above H(D)", "inputs")
        rows = []
        for row in self.rows:
            cells = [row.name, f"{row.bits:.2f}", f"{row.excess:.2f}", str(row.copies), f"{row.scrubbed.value:.4g}"]
            cells += ["–", "–"] if row.recovered is None else [f"{row.recovered.value:.2f}", row.recovered.ends()]
            rows.append((*cells, "frontier" if row.on_frontier else f"below {row.dominated[0]}"))
        return Table(("hypothesis", *bits, "E_scrubbed", "recovered, %", "interval", ""), tuple(rows))


def frontier(
    study: Study | Sequence[Hypothesis],
    *,
    draws: int = ROUND,
    seed: int = 0,
    level: float = 0.95,
    family: Family = "max-t",
    device: torch.device | str = "cpu",
    memory: int = MEMORY,
    randomised: Baseline | float | None = None,
    progress: Progress = quiet,
) -> Frontier:
    """Loss recovered against scrubbed entropy in bits: what each hypothesis permits, and what is left when it is done.

    Source: fun fact 3 for the entropy; appendix 1.3 and 4.1 for its reading (more entropy, more swaps, more claimed).

    Args:
        study: a study, or hypotheses on one data set and behaviour.
        draws: of each.
        seed: names the draws.
        level: of all intervals together.
        family: how that is made sure.
        device: where the model runs.
        memory: bytes for activations on D.
        randomised: the baseline, if not E_randomised.
        progress: told of draws done.
    """
    study = Study.of(study, "family")
    losses = draw_losses(
        study, draws=draws, seed=seed, device=device, memory=memory, randomised=randomised, progress=progress
    )
    scores = losses.scores(level, family)
    rows = []
    for hypothesis, f, score in zip(study.hypotheses, losses.f, scores, strict=True):
        tree = unroll(hypothesis)
        budget = entropy_budget(tree, bits=True)
        value = choose(f, level, known=losses.known)
        excess = budget.scrubbed - budget.data
        rows.append(FrontierRow(hypothesis.name, budget.scrubbed, len(tree.leaves), excess, score, value))
    found = tuple(_judge(row, rows) for row in rows)
    return Frontier(study.name, found, level, losses.f.shape[1], losses.model, losses.randomised)


def _judge(row: FrontierRow, rows: Sequence[FrontierRow]) -> FrontierRow:
    better = [
        other.name
        for other in rows
        if other.recovered is not None
        and row.recovered is not None
        and other.bits >= row.bits
        and other.recovered.low > row.recovered.high
    ]
    return replace(row, dominated=tuple(better))
