"""Estimates of expectations under the scrubbing law, and which interval suits the losses that were drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from pscrub.errors import StudyError, close
from pscrub.estimate import intervals

Interval = Literal["auto", "t", "betting", "bernstein", "sequence"]
INTERVALS: tuple[str, ...] = get_args(Interval)
RARE = 100
"""Draws of the rarer of two losses, or degrees of freedom of the error, below which a bounded loss is betted on."""
FEW = 30
"""Degrees of freedom below which the error itself is too uncertain to go unmentioned."""
BEST = 2**16
"""Draws at which a confidence sequence is narrowest, if nothing better is known."""


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

    @property
    def exact(self) -> bool:
        """Whether there is nothing random about the value."""
        return self.draws == 0

    @property
    def width(self) -> float:
        """The interval's full width."""
        return self.high - self.low


def exact_estimate(value: float, level: float, method: str) -> Estimate:
    """An estimate without error."""
    return Estimate(value, value, value, level, 0.0, math.inf, 0, method)


def mean_of_pairs(f: Tensor, level: float = 0.95) -> Estimate:
    """The mean of f with a t interval from the differences within pairs.

    Draws come two by two from strata of the root's datum (`program.stratified_rows`): the two of a pair independently
    and alike, different pairs from different strata. What the strata's means are does not matter (`intervals.t_ends`).

    Args:
        f: float64 [2 P], pair by pair.
        level: nominal coverage.

    >>> e = mean_of_pairs(torch.tensor([1.0, 3.0, 2.0, 4.0, 0.0, 1.0], dtype=torch.float64))
    >>> round(e.value, 4), round(e.se, 4), e.draws
    (1.8333, 0.5, 6)
    """
    return _estimate(intervals.t_ends(f.double().numpy(), level), level, len(f), "t, within root strata")


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
    check_interval(interval, bounds)
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
    name, why = interval, "asked for"
    picked, reason = _pick(f, float(t.df), float(t.se), known, binary)
    if interval == "auto":
        name, why = picked, f"picked: {reason}"
    elif not finite:
        name, why = "t", f"instead of {interval}: losses are not finite"
    if name == "t":
        return _estimate(t, level, n, f"t, within root strata ({why})")
    if name == "sequence" and picked == "betting" and known is not None:
        made = intervals.betting_ends(array, level, known, binary, best)
        return _estimate(made, level, n, f"confidence sequence by betting, suited to {best:,} draws ({why}; {reason})")
    if name == "sequence":
        made = intervals.sequence_ends(array, level, best)
        return _estimate(
            made, level, n, f"confidence sequence, within root strata, narrowest at {best:,} draws ({why})"
        )
    if known is None:
        raise StudyError(f"a {name} interval needs the loss's bounds, and f is not 0/1; give bounds=(least, greatest)")
    within = f"for losses in [{known[0]:g}, {known[1]:g}] ({why})"
    if name == "betting":
        return _estimate(intervals.betting_ends(array, level, known, binary), level, n, f"betting, {within}")
    return _estimate(intervals.bernstein_ends(array, level, known), level, n, f"empirical Bernstein, {within}")


def check_interval(interval: str, bounds: tuple[float, float] | None) -> None:
    """Refuse options that no interval can be made from.

    Raises:
        StudyError: an unknown name, bounds that are not finite or not in order.
    """
    if interval not in INTERVALS:
        raise StudyError(f"unknown interval '{interval}'{close(interval, INTERVALS)}; one of {', '.join(INTERVALS)}")
    if bounds is not None and not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] < bounds[1]):
        raise StudyError(f"bounds are {bounds[0]:g} and {bounds[1]:g}; expected two finite losses, the lesser first")


def concerns(f: Tensor, estimate: Estimate) -> Iterator[str]:
    """What to know about an estimate's draws before believing its interval, each beginning with its name.

    The names: "non-finite loss", "no variation", "too few draws", "rare events".

    Args:
        f: float64 [2 P], pair by pair.
        estimate: of their mean.
    """
    bad = int((~f.isfinite()).sum())
    if bad:
        yield (
            f"non-finite loss: the scrubbed expected loss is {estimate.value}; f is infinite or NaN on {bad:,} "
            f"of {len(f):,} draws"
        )
        return
    v = (f.double().reshape(-1, 2).diff().squeeze(1) / 2).square()
    if not bool(v.any()):
        yield f"no variation: f was the same within every pair of {len(f):,} draws; rare values may be missed"
        return
    if estimate.df < FEW:
        yield (
            f"too few draws: the error rests on {estimate.df:.0f} degrees of freedom ({len(f):,} draws), "
            "from few or rare large losses"
        )
    values, counts = f.unique(return_counts=True)
    if len(values) <= 5 and len(f) - int(counts.max()) < RARE:
        others = len(f) - int(counts.max())
        yield f"rare events: f is {float(values[counts.argmax()]):g} on all but {others:,} of {len(f):,} draws"
    else:
        heaviest = v.sort(descending=True).values.cumsum(0)
        half = int((heaviest < heaviest[-1] / 2).sum()) + 1
        if half <= len(v) / 100 or (half <= 2 and len(v) >= 20):
            yield f"rare events: {half:,} of {len(v):,} pairs of draws make up half of the squared error"


def widen(estimate: Estimate, half: float, method: str) -> Estimate:
    """The estimate with an interval at least `half` to either side."""
    v, e = estimate.value, estimate
    return replace(e, low=min(e.low, v - half), high=max(e.high, v + half), method=method)


def _estimate(ends: intervals.Ends, level: float, draws: int, method: str) -> Estimate:
    value, low, high, se, df = (float(x) for x in (ends.value, ends.low, ends.high, ends.se, ends.df))
    return Estimate(value, low, high, level, se, df, draws, method)


def _pick(
    f: Tensor, df: float, se: float, known: tuple[float, float] | None, binary: bool
) -> tuple[Literal["t", "betting"], str]:
    """Which interval suits, and why."""
    n = len(f)
    if not bool(f.isfinite().all()):
        return "t", "losses are not finite, so no interval means anything"
    if known is None:
        return (
            "t",
            f"the loss has no known bounds; {df:,.0f} degrees of freedom" if se else "f did not vary within pairs",
        )
    if binary:
        rarer = int(torch.minimum((f == known[0]).sum(), (f == known[1]).sum()))
        return "betting" if rarer < RARE else "t", f"0/1 losses, {rarer:,} of the rarer in {n:,} draws"
    if df < RARE or not se:
        return "betting", f"bounded losses, whose error rests on {df:.0f} degrees of freedom"
    return "t", f"{df:,.0f} degrees of freedom"
