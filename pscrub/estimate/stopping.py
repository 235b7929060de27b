"""When to stop drawing: after so many draws, or when an interval is narrow enough, by Stein's two stages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from pscrub.errors import StudyError, close
from pscrub.estimate.estimate import Estimate, Interval, Method, choose, mean_of_pairs, widen
from pscrub.estimate.sample import Sample
from pscrub.outcomes import Outcome

Donors = Literal["independent", "permuted"]
DONORS: tuple[str, ...] = get_args(Donors)
ROUND = 16_384
"""Draws in a round: stratified, evaluated and added to the estimate together, so that stopping early stays unbiased."""
WIDTH = 1.0
"""Default width in points of loss recovered at which drawing stops."""
MOST = 1_000_000
"""Draws after which a run gives up on reaching a width, and says so."""


class Halt(Outcome):
    """Why drawing ended before an interval was narrow enough."""

    NO_SCALE = (
        "no width",
        "loss recovered is undefined, so no width can be reached: stopped at {draws:,} draws",
    )
    NO_ENDS = (
        "no ends",
        "no width can be reached, as f did not vary and nothing says how far it can: stopped at {draws:,} draws; "
        "give its bounds",
    )
    MOST = "too wide", "stopped at {draws:,} draws, before the interval was {width:g} points wide"


@dataclass(frozen=True)
class Stop:
    """How many draws to make of each hypothesis.

    Args:
        draws: a number of them; rounded up to pairs.
        until_width: in its place, the full width in points of loss recovered at which to stop; WIDTH by default.
        donors: "independent", or "permuted" within replicates (`estimate.replicates`).

    Raises:
        StudyError: both, values that no run could stop at, or unknown donors.
    """

    draws: int | None = None
    until_width: float | None = None
    donors: str = "independent"

    def __post_init__(self) -> None:
        if self.draws is not None and self.draws < 1:
            raise StudyError(f"draws is {self.draws}; expected at least 1")
        if self.until_width is not None and not 0 < self.until_width < math.inf:
            raise StudyError(
                f"until-width is {self.until_width}; expected a positive number of points of loss recovered"
            )
        if self.draws is not None and self.until_width is not None:
            raise StudyError("draws and until-width were both given; expected one of them")
        if self.donors not in DONORS:
            raise StudyError(f"unknown donors '{self.donors}'{close(self.donors, DONORS)}; one of {', '.join(DONORS)}")

    def check(self, interval: Interval) -> None:
        """Nothing, if draws of these donors have an interval of that kind.

        Raises:
            StudyError: a confidence sequence is asked for, and donors are permuted.
        """
        if self.donors == "permuted" and interval.kind == "sequence":
            raise StudyError(
                "a confidence sequence may be looked at after any draw, and permuted donors are dealt out replicate by "
                "replicate; use independent donors, or another interval"
            )

    @property
    def width(self) -> float:
        """Points of loss recovered at which to stop, if no number of draws is given."""
        return WIDTH if self.until_width is None else self.until_width

    @property
    def rule(self) -> str:
        """The code of the rule: "draws" or "width"."""
        return "width" if self.draws is None else "draws"


def sizes_of_rounds(draws: int) -> Iterator[int]:
    """The sizes of the rounds that so many draws, rounded up to pairs, are made in."""
    draws += draws % 2
    for start in range(0, draws, ROUND):
        yield min(draws - start, ROUND)


def estimate_losses(losses: Tensor | Sample, pilot: Tensor, rule: str, interval: Interval) -> Estimate:
    """E_scrubbed from all rounds, with the interval that suits the losses or was asked for (`choose`).

    Where the first round set how many draws to make, a t interval is no narrower than that round allows: the pilot's,
    scaled to all draws, covers at its level for normal means however many that takes. Betting and empirical-Bernstein
    intervals have room to spare, and a confidence sequence allows any stopping.

    Source: Stein, A two-sample test for a linear hypothesis whose power is independent of the variance (1945).

    Args:
        losses: float64 [draws], of all rounds; or a sample of such.
        pilot: float64 [draws], of the first.
        rule: "draws" or "width": how their number was found.
        interval: which is asked for.
    """
    estimate = choose(losses, interval.level, interval.kind, interval.bounds, known=interval.known)
    if rule == "width" and estimate.interval == Method.T.value:
        first = mean_of_pairs(pilot, interval.level)
        half = first.width / 2 * math.sqrt(first.draws / estimate.draws)
        estimate = widen(estimate, half, Method.TWO_STAGE.wrap(estimate.method))
    return estimate


def more_draws(estimate: Estimate, wanted: float) -> int:
    """How many more draws, in pairs, the width asks for, up to MOST in all; 0 where it is reached.

    An interval narrows as the root of the draws. If all draws together say that it is still too wide, more are made,
    and the wider interval is kept.

    Args:
        estimate: from all draws so far.
        wanted: the full width, in f's units.
    """
    needed = estimate.draws * (estimate.width / wanted) ** 2
    if needed <= estimate.draws:
        return 0
    return max(math.ceil((min(needed, MOST) - estimate.draws) / 2) * 2, 2)
