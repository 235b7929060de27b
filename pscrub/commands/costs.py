"""What each claim of a study costs, beside its losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pscrub.hypothesis.study import Study
    from pscrub.result.result import StudyResult

CLAIM_DRAWS = 4096
"""Draws with each claim alone, and without it, where `--claims` does not say."""


def cost_claims(result: StudyResult, study: Study, draws: int, tell: Callable[[str], None]) -> StudyResult:
    """The result with what each claim costs; on an interrupt, of the hypotheses done so far.

    Args:
        result: of `study`.
        study: what was scrubbed.
        draws: with each claim alone, and without it.
        tell: told of each hypothesis whose claims are done.
    """
    from pscrub.questions.claims import claim_costs

    done = list(result.results)
    try:
        for i, (each, hypothesis) in enumerate(zip(done, study.hypotheses, strict=True)):
            if each.draws.rounds:  # else nothing can be swapped
                costs = claim_costs(
                    hypothesis,
                    draws=draws,
                    seed=result.seed,
                    level=result.level,
                    labels=study.labels,
                    device=result.device,
                    randomised=each.randomised,
                    known=result.reference.known,
                )
                done[i] = replace(each, claims=tuple(cost.as_row() for cost in costs))
                tell(f"{each.hypothesis}: {len(costs)} claims")
    except KeyboardInterrupt:
        return replace(result, results=tuple(done), cut_short=True)
    return replace(result, results=tuple(done))
