"""Worked examples: what a formula gives, what enumeration gives, what draws give, and whether they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from pscrub.errors import HypothesisError
from pscrub.estimate.estimate import Estimate, choose, mean_of_pairs
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.ablation import Ablation
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import E_SCRUBBED, Expected, Study
from pscrub.hypothesis.tree import unroll
from pscrub.law.drawing import draw
from pscrub.law.of_f import scrubbed_expectation
from pscrub.result.result import ScrubResult, StudyResult
from pscrub.result.table import Table

DRAWS = 16_384
"""Draws of a figure that the study's own result does not hold."""
ROUNDING = 1e-12
"""Largest difference of the two exact routes, relative to the figure (or 1 if that is less)."""
ALARM = 1e-6
"""Probability at which a figure without fault is said not to agree, if its error is normal."""


@dataclass(frozen=True)
class Agreement:
    """One figure of a worked example, by three routes.

    Args:
        hypothesis: its name.
        figure: what it is.
        ablation: what replaced unimportant inputs.
        exact: from the formula.
        enumerated: from the exact law of f; None where that cannot be listed.
        measured: from draws.
    """

    hypothesis: str
    figure: str
    ablation: str
    exact: float
    enumerated: float | None
    measured: Estimate

    @property
    def agrees(self) -> bool:
        """Both exact routes to rounding, and the draws within an error that chance exceeds one time in a million."""
        scale = max(1.0, abs(self.exact))
        if self.enumerated is not None and not abs(self.enumerated - self.exact) <= ROUNDING * scale:
            return False
        m = self.measured
        radius = m.se * float(stats.t.ppf(1 - ALARM / 2, m.df)) if m.se > 0 else 0.0
        return abs(m.value - self.exact) <= radius + 1e-9 * scale

    @property
    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        m = self.measured
        listed = "not listed" if self.enumerated is None else f"{self.enumerated:.10g}"
        about = self.figure if self.ablation == "resampling" else f"{self.figure}, {self.ablation} ablation"
        shown = f"{self.exact:.10g}", listed, f"{m.value:.6g}", m.ends(".6g")
        return self.hypothesis, about, *shown, self.answer

    @property
    def answer(self) -> str:
        """Whether all routes agree, to be read."""
        return "yes" if self.agrees else "NO"

    def as_row(self) -> dict[str, Any]:
        """Plain values by name."""
        m = self.measured
        return {
            "hypothesis": self.hypothesis,
            "figure": self.figure,
            "ablation": self.ablation,
            "exact": self.exact,
            "enumerated": self.enumerated,
            "measured": m.value,
            "low": m.low,
            "high": m.high,
            "draws": m.draws,
            "agrees": self.agrees,
        }


def figures_table(found: Sequence[Agreement]) -> Table:
    """Every figure that a worked example expects, by its formula, by enumeration and by draws."""
    head = ("hypothesis", "figure", "formula", "enumerated", "measured", "interval", "agrees")
    return Table(head, tuple(each.cells for each in found), words=2)


def agreements(
    study: Study, result: StudyResult | None = None, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> tuple[Agreement, ...]:
    """Each figure that a study expects, beside what enumeration and draws give.

    Args:
        study: a worked example.
        result: of the study: its E_scrubbed are taken, not measured again; of one that was read off the law of f, what
            its draws say, as enumeration is the other route.
        draws: of each other figure (rounded up to pairs).
        seed: names the draws.
        level: nominal coverage of the intervals.
    """
    held = {} if result is None else {each.hypothesis: _drawn(each, level) for each in result.results}
    return tuple(_agreement(study, each, held, draws, seed, level) for each in study.expected)


def measure(hypothesis: Hypothesis, ablation: Ablation, draws: int, seed: int, level: float = 0.95) -> Estimate:
    """The expectation of f under the scrubbing law and an ablation, with a t interval; arguments as in `agreements`."""
    tree = unroll(hypothesis)
    f = Engine(hypothesis.data).f(tree, draw(tree, draws + draws % 2, (seed, 0)), ablation=ablation)
    return mean_of_pairs(f, level)


def enumerate_exactly(hypothesis: Hypothesis, ablation: Ablation) -> float | None:
    """The same by enumeration; None where the law of f is too large to list."""
    try:
        return scrubbed_expectation(unroll(hypothesis), ablation=ablation)
    except HypothesisError:
        return None


def _drawn(each: ScrubResult, level: float) -> Estimate:
    return choose(each.draws.sample, level) if each.scrubbed.exact and each.draws.rounds else each.scrubbed


def _agreement(
    study: Study, each: Expected, held: dict[str, Estimate], draws: int, seed: int, level: float
) -> Agreement:
    h = each.hypothesis
    known = None
    if any(h is own for own in study.hypotheses) and (each.figure, each.ablation.kind) == (E_SCRUBBED, "resampling"):
        known = held.get(h.name)
    measured = known or measure(h, each.ablation, draws, seed, level)
    enumerated = enumerate_exactly(h, each.ablation)
    return Agreement(h.name, each.figure, each.ablation.kind, float(each.value), enumerated, measured)
