"""Whether a hypothesis recovers at least so much: a mark that limits to one side are held against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pscrub.estimate.estimate import Estimate


@dataclass(frozen=True)
class Equivalence:
    """Whether a hypothesis recovers at least so much, by limits: "not rejected", "rejected" or "undecided".

    "Not rejected": the lower limit is at or above the mark, on these data, by this kind of scrubbing. That a
    hypothesis is right no score can tell.

    Args:
        answer: which.
        at_least: the mark, in per cent.
        score: loss recovered in per cent, with its interval; None where undefined.
        limits: of the score, each to one side (`Estimate.limit`): "rejected" if the upper one is below the mark.
    """

    answer: Literal["not rejected", "rejected", "undecided"]
    at_least: float
    score: Estimate | None
    limits: tuple[float, float] = (-math.inf, math.inf)


def equivalence(score: Estimate | None, at_least: float = 95.0, level: float | None = None) -> Equivalence:
    """Whether at least so many per cent are recovered: by limits, never by a difference that was not found.

    Either answer is wrong 1 - level of the time at most, whichever side the losses are skewed to: each is read off a
    limit to one side (`Estimate.limit`), which lies farther out than the end of a t interval.

    Args:
        score: loss recovered in per cent, with its interval.
        at_least: the mark, in per cent.
        level: of each side; that of the interval's ends by default, 0.975 for 0.95.

    Raises:
        StudyError: a level that is none, or one that the score's interval was not made for.

    >>> equivalence(Estimate(97.0, 96.1, 97.9, 0.95, 0.5, 1e3, 4000, "t")).answer
    'not rejected'
    >>> equivalence(Estimate(95.2, 94.8, 95.6, 0.95, 0.2, 1e3, 4000, "t")).answer
    'undecided'
    """
    if score is None or not (math.isfinite(score.low) and math.isfinite(score.high)):
        return Equivalence("undecided", at_least, score)
    low, high = score.limit("lower", level), score.limit("upper", level)
    answer: Literal["not rejected", "rejected", "undecided"] = "undecided"
    if low >= at_least:
        answer = "not rejected"
    elif high < at_least:
        answer = "rejected"
    return Equivalence(answer, at_least, score, (low, high))
