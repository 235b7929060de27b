"""Estimates of expectations under the scrubbing law, and which interval suits the losses that were drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from pscrub.errors import StudyError, close
from pscrub.estimate import intervals
from pscrub.outcomes import Outcome, Said

Kind = Literal["auto", "t", "betting", "bernstein", "sequence"]
INTERVALS: tuple[str, ...] = get_args(Kind)
RARE = 100
"""Draws of the rarer of two losses, or degrees of freedom of the error, below which a bounded loss is betted on."""
BEST = 2**16
"""Draws at which a confidence sequence is narrowest, if nothing better is known."""


class Method(Outcome):
    """How an interval was made. `why` says why so, if it was chosen at all."""

    T = "t", "t, within root strata{why}"
    BETTING = "betting", "betting, for losses in [{least:g}, {greatest:g}]{why}"
    BERNSTEIN = "bernstein", "empirical Bernstein, for losses in [{least:g}, {greatest:g}]{why}"
    SEQUENCE = "sequence", "confidence sequence, within root strata, narrowest at {best:,} draws{why}"
    BETTING_SEQUENCE = "betting sequence", "confidence sequence by betting, suited to {best:,} draws{why}"
    TWO_STAGE = "two-stage", "{method}, two-stage"
    NOTHING_SWAPPED = "nothing swapped", "exact: nothing can be swapped"
    ONE_ROW = "one row", "exact: f depends on one row"
    MODEL = "the model's own", "exact: the model's own"


class Why(Outcome):
    """Why an interval was taken."""

    ASKED = "asked for", " (asked for)"
    ASKED_AND = "asked for, and", " (asked for; {reason})"
    PICKED = "picked", " (picked: {reason})"
    INSTEAD = "instead", " (instead of {interval}: losses are not finite)"


class Reason(Outcome):
    """What suits an interval to the losses."""

    NOT_FINITE = "losses not finite", "losses are not finite, so no interval means anything"
    NO_BOUNDS = "no bounds", "the loss has no known bounds{freedom}"
    FREEDOM = "freedom", "; {df:,.0f} degrees of freedom"
    NO_VARIATION = "f did not vary", "f did not vary within pairs"
    ZERO_ONE = "0/1 losses", "0/1 losses, {rarer:,} of the rarer in {draws:,} draws"
    UNSURE = "few degrees of freedom", "bounded losses, whose error rests on {df:.0f} degrees of freedom"
    SURE = "degrees of freedom", "{df:,.0f} degrees of freedom"


@dataclass(frozen=True)
class Interval:
    """Which interval is asked for.

    Args:
        kind: "auto" picks what suits the losses; or "t", "betting", "bernstein" or "sequence", see `choose`.
        level: nominal coverage.
        bounds: the least and greatest loss there can be, if known.
        zero_one: f takes the values 0 and 1, and no other, on D and under the baseline.

    Raises:
        StudyError: a level that is none, an unknown kind, bounds that are not finite or not in order.
    """

    kind: str = "auto"
    level: float = 0.95
    bounds: tuple[float, float] | None = None
    zero_one: bool = False

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

    def ends(self, form: str = ".4g") -> str:
        """The interval to be read: its two ends, or "exact"."""
        return "exact" if self.exact else f"[{self.low:{form}}, {self.high:{form}}]"


def exact_estimate(value: float, level: float, method: str) -> Estimate:
    """An estimate without error."""
    return Estimate(value, value, value, level, 0.0, math.inf, 0, method)


def mean_of_pairs(f: Tensor, level: float = 0.95) -> Estimate:
    """The mean of f with a t interval from the differences within pairs.

    Draws come two by two from strata of the root's datum (`law.drawing`): the two of a pair independently
    and alike, different pairs from different strata. What the strata's means are does not matter (`intervals.t_ends`).

    Args:
        f: float64 [2 P], pair by pair.
        level: nominal coverage.

    >>> e = mean_of_pairs(torch.tensor([1.0, 3.0, 2.0, 4.0, 0.0, 1.0], dtype=torch.float64))
    >>> round(e.value, 4), round(e.se, 4), e.draws
    (1.8333, 0.5, 6)
    """
    return _estimate(intervals.t_ends(f.double().numpy(), level), level, len(f), Method.T.say(why=""))


def choose(
    f: Tensor,
    level: float = 0.95,
    interval: str = "auto",
    bounds: tuple[float, float] | None = None,
    best: int = BEST,
    zero_one: bool = False,
) -> Estimate:
    """The mean of f with the interval that suits it; the method says which was taken, and why.

    Of itself ("auto"): t within root strata, unless the loss is bounded (0/1 losses are recognised) and the normal law
    is not to be trusted: fewer than RARE draws of the rarer of two losses, or an error that rests on fewer than RARE
    degrees of freedom. Then a betting interval, which covers whatever the losses are. A confidence sequence is made by
    betting in the same cases.

    Args:
        f: float64 [2 P], pair by pair.
        level: nominal coverage.
        interval: "auto", "t", "betting", "bernstein" or "sequence".
        bounds: the least and greatest loss there can be, if known; (0, 1) where f takes these two values and no other.
        best: draws at which a confidence sequence is to be narrowest; fixed before drawing.
        zero_one: f is known to be 0/1 (on D and under the baseline), so that draws of all 0 (or all 1) are taken for a
            rare event's that was not seen.

    Raises:
        StudyError: an unknown interval, bounds that f does not keep, or an interval that needs bounds without any.

    >>> rare = torch.zeros(1000, dtype=torch.float64); rare[::200] = 1
    >>> choose(rare).method
    'betting, for losses in [0, 1] (picked: 0/1 losses, 5 of the rarer in 1,000 draws)'
    >>> choose(rare, interval="t").method
    't, within root strata (asked for)'
    """
    _check(interval, bounds)
    finite = bool(f.isfinite().all())
    seen, ends = set(f.unique().tolist()), {0.0, 1.0} if bounds is None else set(map(float, bounds))
    binary = finite and (seen == ends or (zero_one and seen <= ends))
    if bounds is not None and not bool(((f >= bounds[0]) & (f <= bounds[1]) | ~f.isfinite()).all()):
        raise StudyError(
            f"losses from {float(f.min()):g} to {float(f.max()):g} were drawn outside the bounds "
            f"{bounds[0]:g} and {bounds[1]:g}; give bounds that f keeps on every input, or none"
        )
    known = bounds if bounds is not None else (0.0, 1.0) if binary else None
    array, n = f.double().numpy(), len(f)
    t = intervals.t_ends(array, level)
    name, why = interval, Why.ASKED.say()
    picked, reason = _pick(f, float(t.df), float(t.se), known, binary)
    if interval == "auto":
        name, why = picked, Why.PICKED.say(reason=reason)
    elif not finite:
        name, why = "t", Why.INSTEAD.say(interval=interval)
    if name == "t":
        return _estimate(t, level, n, Method.T.say(why=why))
    if name == "sequence" and picked == "betting" and known is not None:
        made = intervals.betting_ends(array, level, known, binary, best)
        why = Why.ASKED_AND.say(reason=reason)
        return _estimate(made, level, n, Method.BETTING_SEQUENCE.say(best=best, why=why))
    if name == "sequence":
        return _estimate(intervals.sequence_ends(array, level, best), level, n, Method.SEQUENCE.say(best=best, why=why))
    if known is None:
        raise StudyError(f"a {name} interval needs the loss's bounds, and f is not 0/1; give bounds=(least, greatest)")
    about = {"least": known[0], "greatest": known[1], "why": why}
    if name == "betting":
        made = intervals.betting_ends(array, level, known, binary)
        return _estimate(made, level, n, Method.BETTING.say(**about))
    return _estimate(intervals.bernstein_ends(array, level, known), level, n, Method.BERNSTEIN.say(**about))


def widen(estimate: Estimate, half: float, method: str) -> Estimate:
    """The estimate with an interval at least `half` to either side."""
    v, e = estimate.value, estimate
    return replace(e, low=min(e.low, v - half), high=max(e.high, v + half), method=method)


def _estimate(ends: intervals.Ends, level: float, draws: int, method: Said) -> Estimate:
    value, low, high, se, df = (float(x) for x in (ends.value, ends.low, ends.high, ends.se, ends.df))
    return Estimate(value, low, high, level, se, df, draws, method)


def _pick(
    f: Tensor, df: float, se: float, known: tuple[float, float] | None, binary: bool
) -> tuple[Literal["t", "betting"], Said]:
    """Which interval suits, and why."""
    if not bool(f.isfinite().all()):
        return "t", Reason.NOT_FINITE.say()
    if known is None and not se:
        return "t", Reason.NO_VARIATION.say()
    if known is None:
        freedom = Said(Reason.FREEDOM.say(df=df), brief="")  # each row's own, which a summary of rows leaves out
        return "t", Reason.NO_BOUNDS.say(freedom=freedom)
    if binary:
        rarer = int(torch.minimum((f == known[0]).sum(), (f == known[1]).sum()))
        return "betting" if rarer < RARE else "t", Reason.ZERO_ONE.say(rarer=rarer, draws=len(f))
    if df < RARE or not se:
        return "betting", Reason.UNSURE.say(df=df)
    return "t", Reason.SURE.say(df=df)


def _check(interval: str, bounds: tuple[float, float] | None) -> None:
    if interval not in INTERVALS:
        raise StudyError(f"unknown interval '{interval}'{close(interval, INTERVALS)}; one of {', '.join(INTERVALS)}")
    if bounds is not None and not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] < bounds[1]):
        raise StudyError(f"bounds are {bounds[0]:g} and {bounds[1]:g}; expected two finite losses, the lesser first")
