"""What scrubbing found: the result of one hypothesis and of a study."""

from __future__ import annotations

from dataclasses import dataclass

from pscrub.estimate import Estimate
from pscrub.measures import Baseline
from pscrub.rewrites import RewriteCheck


@dataclass(frozen=True)
class ScrubResult:
    """What scrubbing found about one hypothesis.

    Args:
        hypothesis: its name.
        scrubbed: E_scrubbed, the expectation of f under the scrubbing law.
        model: E_model.
        randomised: E_randomised.
        recovered: loss recovered in per cent; None where the baselines do not differ.
        seconds: wall-clock time by phase.
        cut_short: drawing was interrupted; the estimate is of the rounds that were complete.
        warnings: what to know before believing the numbers.
    """

    hypothesis: str
    scrubbed: Estimate
    model: Baseline
    randomised: Baseline
    recovered: Estimate | None
    seconds: dict[str, float]
    cut_short: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class StudyResult:
    """What scrubbing found about a study's hypotheses, as many as were reached.

    Args:
        study: the study's name.
        results: one for each hypothesis, in order.
        seed: the seed of all draws.
        device: where the model ran.
        level: nominal coverage of the intervals.
        rewrites: how far each rewrite of the graphs changed f on D.
        seconds: wall-clock time by phase, over all hypotheses.
        cut_short: the run was interrupted.
        notes: the study's own.
    """

    study: str
    results: tuple[ScrubResult, ...]
    seed: int
    device: str
    level: float
    rewrites: tuple[RewriteCheck, ...]
    seconds: dict[str, float]
    cut_short: bool
    notes: tuple[str, ...]
