"""Which interval suits losses that were drawn: t, or one with bounds where the normal law is not to be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pscrub.estimate.intervals import Ends
from pscrub.estimate.known import FEW_VALUES, Known
from pscrub.estimate.sample import Sample
from pscrub.outcomes import Outcome, Said

RARE = 100
"""Draws of the rarer of two losses, or degrees of freedom of the error, below which a bounded loss is betted on."""
CONCENTRATED = 30
"""Degrees of freedom below which an error rests on few draws of many, and a loss of seen range is betted on."""
HIDDEN = 0.25
"""Share of the draws' variance that values known and not drawn may add before t is not trusted."""
FLAT = 1e-9
"""Share of f's range within which pairs are held to be equal, as they are up to rounding."""
STRATA = 4.0
"""How many times larger all variance than that within strata is where an interval from pairs is the better one."""


class Reason(Outcome):
    """What suits an interval to the losses."""

    NOT_FINITE = "losses not finite", "losses are not finite, so no interval means anything"
    NO_BOUNDS = "no bounds", "the loss has no known bounds{freedom}"
    FREEDOM = "freedom", "; {df:,.0f} degrees of freedom"
    NO_VARIATION = "f did not vary", "f did not vary within pairs"
    ZERO_ONE = "0/1 losses", "0/1 losses, {rarer:,} of the rarer in {draws:,} draws"
    TWO_VALUES = "two values", "losses of two values, {rarer:,} of the rarer in {draws:,} draws"
    UNSURE = "few degrees of freedom", "bounded losses, whose error rests on {df:.0f} degrees of freedom"
    SURE = "degrees of freedom", "{df:,.0f} degrees of freedom"
    DID_NOT_BUT_CAN = (
        "f can vary and did not",
        "f did not vary within pairs, and has that range on D and on the pairs of E_randomised",
    )
    FEW_EVENTS = (
        "few events",
        "few draws have another value than the usual; range as on D and on the pairs of E_randomised{events}",
    )
    EVENTS = "events", "; {others:,} of {draws:,} draws"
    FEW_PAIRS = (
        "few pairs",
        "the error rests on few of many draws; range as on D and on the pairs of E_randomised{freedom}",
    )
    HIDDEN = (
        "values not drawn",
        "values on D or on the pairs of E_randomised, which give the range, lie beyond all draws",
    )
    NOTHING_KNOWN = (
        "nothing known",
        "f did not vary within pairs, and nothing says between what it can; give its bounds",
    )


@dataclass(frozen=True)
class Pick:
    """An interval that suits, and what it is made from.

    Args:
        name: "none" where no interval means anything.
        reason: why.
        bounds: of the loss, given or seen; None where there are none.
        binary: the loss takes the bounds, and no value between.
    """

    name: Literal["t", "betting", "bernstein", "none"]
    reason: Said
    bounds: tuple[float, float] | None = None
    binary: bool = False


def pick_interval(f: Sample, t: Ends, level: float, bounds: tuple[float, float] | None, known: Known) -> Pick:
    """The interval that suits.

    Of losses with bounds that were given, or of two values: betting where the normal law is not to be trusted, fewer
    than RARE draws of the rarer or degrees of freedom. What f was seen to be on D and on pairs is no proven bound, and
    takes the place of one only where t would mislead: no variation within pairs; few draws of another value than the
    usual; an error that rests on a few of many pairs; values known that lie so far beyond the draws that one of them
    in a few times 1 / n draws would move the mean by more than t allows for, and that would add to the variance.

    Args:
        f: the losses.
        t: their t interval.
        level: of it.
        bounds: the least and greatest loss there can be, if given.
        known: what else is known of f.
    """
    if not f.is_finite:
        return Pick("t", Reason.NOT_FINITE.say())
    drawn = f.values
    df, se = float(t.df), float(t.se)
    freedom = Said(Reason.FREEDOM.say(df=df), brief="")  # each row's own, which a summary of rows leaves out
    ends = _two_values(drawn, bounds, known)
    if ends is not None:
        rarer = min(f.count(ends[0]), f.count(ends[1]))
        reason = Reason.ZERO_ONE if ends == (0, 1) else Reason.TWO_VALUES
        said = reason.say(rarer=rarer, draws=len(f))
        return Pick("betting" if rarer < RARE else "t", said, ends, binary=True)
    seen = known.bounds
    soft = seen if seen is not None and _keeps(f, seen) else None
    if bounds is not None:
        if is_flat(f, bounds):
            return Pick(_betting(f, se), Reason.NO_VARIATION.say(), bounds)
        if df < RARE:
            return Pick("betting", Reason.UNSURE.say(df=df), bounds)
    elif soft is not None:
        if is_flat(f, soft):
            return Pick(_betting(f, se), Reason.DID_NOT_BUT_CAN.say(), soft)
        usual = f.most_common[1] if len(drawn) <= FEW_VALUES else 0
        if usual and len(f) - usual < RARE:
            events = Said(Reason.EVENTS.say(others=len(f) - usual, draws=len(f)), brief="")
            return Pick("betting", Reason.FEW_EVENTS.say(events=events), soft)
        if df < min(CONCENTRATED, len(f) / 10):
            return Pick(_betting(f, se), Reason.FEW_PAIRS.say(freedom=freedom), soft)
    known_range = bounds or soft
    if known_range is not None and hidden(f, se, float(t.high - t.low) / 2, level, known):
        return Pick(_betting(f, se), Reason.HIDDEN.say(), known_range)
    if bounds is not None:
        return Pick("t", Reason.SURE.say(df=df), bounds)
    if is_flat(f):
        return Pick("none", Reason.NOTHING_KNOWN.say())
    return Pick("t", Reason.NO_BOUNDS.say(freedom=freedom))


def is_flat(f: Sample, bounds: tuple[float, float] | None = None) -> bool:
    """Whether f did not vary within pairs, but for rounding: of its range, or of its size where none is known."""
    return f.apart <= FLAT * (f.size if bounds is None else bounds[1] - bounds[0])


def _keeps(f: Sample, bounds: tuple[float, float]) -> bool:
    """Whether f lies between the bounds, but for rounding."""
    slack = FLAT * (bounds[1] - bounds[0])
    return bounds[0] - slack <= f.least and f.greatest <= bounds[1] + slack


def hidden(f: Sample, se: float, half: float, level: float, known: Known) -> bool:
    """Whether values that f is known to have, and that were not drawn, would change what the draws say of it.

    They lie beyond all draws, and so far that log(2 / (1 - level)) of them, as many as may go unseen, move the mean by
    more than a half-width; and as often as they are on D or on pairs they would add HIDDEN to the draws' variance.
    """
    far = half * len(f) / math.log(2 / (1 - level))
    return known.unseen(f.least, f.greatest, f.mean, far) > HIDDEN * se**2 * len(f)


def _two_values(drawn: set[float], bounds: tuple[float, float] | None, known: Known) -> tuple[float, float] | None:
    """The two values that f takes, and no other; None if it is not known to."""
    if bounds is not None:
        return bounds if drawn == set(bounds) or (known.values == bounds and drawn <= set(bounds)) else None
    zero_one, seen = (0.0, 1.0), set(known.seen.values)
    if len(seen) == 2 and drawn <= seen:
        return known.values[0], known.values[1]
    return zero_one if (seen or known.seen.nothing) and drawn | seen == set(zero_one) else None


def _betting(f: Sample, se: float) -> Literal["betting", "bernstein"]:
    """The interval from pairs where strata differ much more than the draws of one: betting cannot see strata."""
    return "bernstein" if f.variance > STRATA * se**2 * len(f) else "betting"
