"""Estimates of expectations under the scrubbing law, and which interval suits the losses that were drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from torch import Tensor

from pscrub.errors import StudyError, close
from pscrub.estimate import intervals
from pscrub.estimate.known import Known
from pscrub.estimate.picking import Pick, is_flat, pick_interval
from pscrub.estimate.sample import Sample
from pscrub.estimate.sides import bernstein_stretch, skewed_quantile, t_quantile
from pscrub.outcomes import Outcome, Said

Kind = Literal["auto", "t", "betting", "bernstein", "sequence"]
INTERVALS: tuple[str, ...] = get_args(Kind)
BEST = 2**16
"""Draws at which a confidence sequence is narrowest, if nothing better is known."""


class Method(Outcome):
    """How an interval was made. `why` says why so, if it was chosen at all."""

    T = "t", "t, within root strata{why}"
    BETTING = "betting", "betting, for losses in [{least:g}, {greatest:g}]{why}"
    BERNSTEIN = "bernstein", "empirical Bernstein, for losses in [{least:g}, {greatest:g}]{why}"
    SEQUENCE = "sequence", "confidence sequence, within root strata, narrowest at {best:,} draws{why}"
    BETTING_SEQUENCE = "betting sequence", "confidence sequence by betting, suited to {best:,} draws{why}"
    NONE = "no interval", "no interval{why}"
    TWO_STAGE = "two-stage", "{method}, two-stage"
    REPLICATES = "t of replicates", "t, of {replicates:,} replicates with permuted donors{why}"
    OF_REPLICATES = (
        "of replicates",
        "{method}, on the means of {replicates:,} replicates with permuted donors: few, and so wide; independent "
        "donors give more to go by",
    )
    AS_INDEPENDENT = (
        "as independent",
        "{method}; donors are permuted, but replicates tell too little of how far they vary: no less than of as many "
        "independent draws",
    )
    NOTHING_SWAPPED = "nothing swapped", "exact: nothing can be swapped"
    LISTED = "law of f", "exact: the law of f ({values:,} values) in {evaluations:,} evaluations"
    CHOSEN = "donors chosen", "exact: donors chosen, not drawn"
    ONE_ROW = "one row", "exact: f depends on one row"
    MODEL = "the model's own", "exact: the model's own"


HOLDS_ON_EACH_SIDE = {each.value for each in (Method.BETTING, Method.SEQUENCE, Method.BETTING_SEQUENCE)}
"""Intervals of which either end alone errs at most half as often as both together may."""


class Why(Outcome):
    """Why an interval was taken."""

    ASKED = "asked for", " (asked for)"
    ASKED_AND = "asked for, and", " (asked for; {reason})"
    PICKED = "picked", " (picked: {reason})"
    INSTEAD = "instead", " (instead of {interval}: {reason})"


@dataclass(frozen=True)
class Interval:
    """Which interval is asked for.

    Args:
        kind: "auto" picks what suits the losses; or "t", "betting", "bernstein" or "sequence", see `choose`.
        level: nominal coverage.
        bounds: the least and greatest loss there can be, if known.
        known: what f was seen to be on D and on the pairs of E_randomised.

    Raises:
        StudyError: a level that is none, an unknown kind, bounds that are not finite or not in order.
    """

    kind: str = "auto"
    level: float = 0.95
    bounds: tuple[float, float] | None = None
    known: Known = field(default_factory=Known)

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise StudyError(f"level is {self.level}; expected between 0 and 1, as 0.95")
        _check(self.kind, self.bounds)


@dataclass(frozen=True)
class Estimate:
    """A value with an interval, for the draws' uncertainty unless `kind` says otherwise.

    Args:
        value: the estimate, in f's units or in per cent.
        low: lower end.
        high: upper end.
        level: nominal coverage of [low, high].
        se: standard error; 0.0 if exact.
        df: degrees of freedom of the standard error; infinite if exact.
        draws: draws averaged; 0 if exact.
        method: how value and interval were made, and why so.
        kind: which uncertainty the interval carries: "draws" (D, its weights and the model are held fixed), "data"
            (D is a sample; the draws' error is left out) or "draws and data".
    """

    value: float
    low: float
    high: float
    level: float
    se: float
    df: float
    draws: int
    method: str
    kind: str = "draws"

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", Said.of(self.method))

    @property
    def interval(self) -> str:
        """The code of how the interval was made (`Method`); "" if it is not an interval for a mean of losses."""
        return Said.of(self.method).kind

    @property
    def exact(self) -> bool:
        """Whether there is nothing random about the value."""
        return self.draws == 0

    @property
    def width(self) -> float:
        """The interval's full width."""
        return self.high - self.low

    def limit(self, side: Literal["lower", "upper"], level: float | None = None) -> float:
        """The limit to one side: the truth lies beyond it 1 - level of the time at most, skewed losses included.

        t's ends err on the heavy side of skewed losses more than half as often as both together. They are moved away
        from the value by as much as the largest skewness asks for that their degrees of freedom allow
        (`sides.skewed_quantile`), on both sides, as pairs do not show its sign. Ends made by betting hold on each side
        as they are, Bernstein's with a little more room, as one of their three events counts for both. Of loss
        recovered against sampled baselines, the baselines' error is moved with that of the draws.

        Args:
            side: "lower" or "upper".
            level: of this side alone, above 1/2; that of the interval's end by default, 0.975 for 0.95.

        Raises:
            StudyError: an unknown side, a level that is none, or one that a betting interval was not made for.

        >>> e = Estimate(1.0, 0.8, 1.2, 0.95, 0.1, 100.0, 400, "t")
        >>> round(e.limit("lower"), 3), round(e.limit("upper"), 3), round(e.limit("upper", 0.95), 3)
        (0.768, 1.232, 1.19)
        """
        own = (1 + self.level) / 2
        level = own if level is None else level
        if side not in ("lower", "upper"):
            raise StudyError(f"unknown side '{side}'{close(side, ('lower', 'upper'))}; lower or upper")
        if not 0.5 < level < 1:
            raise StudyError(f"level is {level}; expected between 0.5 and 1, as 0.95")
        end = self.low if side == "lower" else self.high
        if not math.isfinite(end) or end == self.value:
            return end
        if self.interval == Method.BERNSTEIN.value:
            return self.value + bernstein_stretch(level, self.level) * (end - self.value)
        if self.exact or self.interval in HOLDS_ON_EACH_SIDE:
            if level > own + 1e-12:
                raise StudyError(
                    f"level is {level:g}, and each side of this interval ({self.method}) holds at {own:g}; "
                    f"ask for the interval at level {2 * level - 1:g}"
                )
            return end
        far = float(skewed_quantile(level, self.df)) / float(t_quantile(own, self.df))
        return self.value + far * (end - self.value)

    def ends(self, form: str = ".4g") -> str:
        """The interval to be read: its two ends, or "exact"."""
        return "exact" if self.exact else f"[{self.low:{form}}, {self.high:{form}}]"


def exact_estimate(value: float, level: float, method: str) -> Estimate:
    """An estimate without error."""
    return Estimate(value, value, value, level, 0.0, math.inf, 0, method)


def mean_of_pairs(f: Tensor | Sample, level: float = 0.95) -> Estimate:
    """The mean of f with a t interval from the differences within pairs.

    Draws come two by two from strata of the root's datum (`law.drawing`): the two of a pair independently
    and alike, different pairs from different strata. What the strata's means are does not matter (`intervals.t_ends`).

    Args:
        f: float64 [2 P], pair by pair; or a sample of such.
        level: nominal coverage.

    >>> import torch
    >>> e = mean_of_pairs(torch.tensor([1.0, 3.0, 2.0, 4.0, 0.0, 1.0], dtype=torch.float64))
    >>> round(e.value, 4), round(e.se, 4), e.draws
    (1.8333, 0.5, 6)
    """
    return _estimate(intervals.t_of_moments(Sample.of(f).moments, level), level, len(f), Method.T.say(why=""))


def choose(
    f: Tensor | Sample,
    level: float = 0.95,
    interval: str = "auto",
    bounds: tuple[float, float] | None = None,
    best: int = BEST,
    known: Known | None = None,
) -> Estimate:
    """The mean of f with the interval that suits it; the method says which was taken, and why.

    Of itself ("auto"): t within root strata, unless the loss is bounded (0/1 losses are recognised) and the normal law
    is not to be trusted, see `picking.pick_interval`. Then a betting interval, which covers whatever the losses are, or
    the empirical-Bernstein one where strata differ much. A confidence sequence is made by betting in the same cases.
    Draws that do not vary within pairs have an interval without ends, unless bounds are given or f is known to vary:
    rare values may have been missed.

    Args:
        f: float64 [2 P], pair by pair; or a sample of such.
        level: nominal coverage.
        interval: "auto", "t", "betting", "bernstein" or "sequence".
        bounds: the least and greatest loss there can be, if known; (0, 1) where f takes these two values and no other.
        best: draws at which a confidence sequence is to be narrowest; fixed before drawing.
        known: what f was seen to be elsewhere: draws of all 0 are then taken for a rare event's that was not seen.

    Raises:
        StudyError: an unknown interval, bounds that f does not keep, or an interval that needs bounds without any.

    >>> import torch
    >>> rare = torch.zeros(1000, dtype=torch.float64); rare[::200] = 1
    >>> choose(rare).method
    'betting, for losses in [0, 1] (picked: 0/1 losses, 5 of the rarer in 1,000 draws)'
    >>> choose(rare, interval="t").method
    't, within root strata (asked for)'
    >>> choose(0 * rare).ends(), choose(0 * rare, bounds=(0, 1)).ends()
    ('[-inf, inf]', '[0, 0.003719]')
    """
    _check(interval, bounds)
    f = Sample.of(f)
    if bounds is not None and not f.keeps(bounds):
        raise StudyError(
            f"losses from {f.least:g} to {f.greatest:g} were drawn outside the bounds "
            f"{bounds[0]:g} and {bounds[1]:g}; give bounds that f keeps on every input, or none"
        )
    t = intervals.t_of_moments(f.moments, level)
    picked = pick_interval(f, t, level, bounds, Known() if known is None else known)
    name, why = interval, Why.ASKED.say()
    if interval == "auto":
        name, why = picked.name, Why.PICKED.say(reason=picked.reason)
    elif not f.is_finite or (is_flat(f) and (interval == "t" or (interval == "sequence" and picked.name == "none"))):
        name, why = picked.name, Why.INSTEAD.say(interval=interval, reason=picked.reason)
    if name == "t":
        return _estimate(t, level, len(f), Method.T.say(why=why))
    if name == "none":
        value = float(t.value)
        return Estimate(value, -math.inf, math.inf, level, 0.0, float(t.df), len(f), Method.NONE.say(why=why))
    if name == "sequence" and picked.name == "t":
        ends = intervals.sequence_of_moments(f.moments, level, best)
        return _estimate(ends, level, len(f), Method.SEQUENCE.say(best=best, why=why))
    return _bounded(f, level, name, picked, why, best)


def _bounded(f: Sample, level: float, name: str, picked: Pick, why: Said, best: int) -> Estimate:
    """The interval that needs the loss's bounds."""
    known = picked.bounds
    if known is None:
        raise StudyError(f"a {name} interval needs the loss's bounds, and f is not 0/1; give bounds=(least, greatest)")
    ends = f.bounded_ends(name, level, known, picked.binary, best)
    if name == "sequence":
        why = Why.ASKED_AND.say(reason=picked.reason)
        return _estimate(ends, level, len(f), Method.BETTING_SEQUENCE.say(best=best, why=why))
    method = Method.BETTING if name == "betting" else Method.BERNSTEIN
    return _estimate(ends, level, len(f), method.say(least=known[0], greatest=known[1], why=why))


def widen(estimate: Estimate, half: float, method: str) -> Estimate:
    """The estimate with an interval at least `half` to either side."""
    v, e = estimate.value, estimate
    return replace(e, low=min(e.low, v - half), high=max(e.high, v + half), method=method)


def _estimate(ends: intervals.Ends, level: float, draws: int, method: Said) -> Estimate:
    value, low, high, se, df = (float(x) for x in (ends.value, ends.low, ends.high, ends.se, ends.df))
    return Estimate(value, low, high, level, se, df, draws, method)


def _check(interval: str, bounds: tuple[float, float] | None) -> None:
    if interval not in INTERVALS:
        raise StudyError(f"unknown interval '{interval}'{close(interval, INTERVALS)}; one of {', '.join(INTERVALS)}")
    if bounds is not None and not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] < bounds[1]):
        raise StudyError(f"bounds are {bounds[0]:g} and {bounds[1]:g}; expected two finite losses, the lesser first")
