"""Loss recovered: an expected loss on the scale from the randomised loss, 0, to the model's own, 100."""

from __future__ import annotations

import math
from dataclasses import replace

from scipy import optimize

from pscrub.estimate.baselines import Baselines
from pscrub.estimate.estimate import Estimate
from pscrub.estimate.limits import Limits
from pscrub.outcomes import Outcome

FAR = 1e12
"""Times the ratio, or 1, beyond which an end is none."""


class Scale(Outcome):
    """How an interval was carried over to the scale of loss recovered."""

    EXACT_BASELINES = "exact baselines", "{method}; exact baselines"
    FIELLER = "Fieller", "Fieller; {method}"


def loss_recovered(scrubbed: Estimate, against: Baselines) -> Estimate | None:
    """The loss recovered in per cent with its interval, never clipped; None where it has no meaning.

    (E_scrubbed - E_randomised) / (E_model - E_randomised). With exact baselines it is linear in E_scrubbed, whose
    interval carries over. With sampled ones Fieller's interval for a ratio is used, made from both ends of each
    interval (`ratio`): rare events have ends that are not equally far. It is undefined when E_model - E_randomised is
    not distinguishable from 0 (at the interval's level, or to rounding).

    Source: appendix, section 2.1.

    >>> from pscrub.estimate.baselines import Baseline
    >>> e = Estimate(1.5, 1.4, 1.6, 0.95, 0.05, 100, 200, "t")
    >>> r = loss_recovered(e, Baselines(model=Baseline(0.5, 0, 0, "exact"), randomised=Baseline(4.5, 0, 0, "exact")))
    >>> round(r.value, 6), round(r.low, 6), round(r.high, 6)
    (75.0, 72.5, 77.5)
    """
    model, randomised = against.model, against.randomised
    top, bottom = scrubbed.value - randomised.value, model.value - randomised.value
    rounding = 1e-9 * max(abs(model.value), abs(randomised.value), 1e-300)
    if not math.isfinite(top / bottom if bottom else math.nan) or abs(bottom) <= rounding:
        return None
    share = top / bottom
    if model.exact and randomised.exact:
        low, high = sorted(100 * (end - randomised.value) / bottom for end in (scrubbed.low, scrubbed.high))
        if scrubbed.exact:
            low = high = 100 * share  # of width zero, to the last digit
        method = Scale.EXACT_BASELINES.wrap(scrubbed.method)
    else:
        found = ratio(Limits.of(scrubbed), model.limits(scrubbed.level), randomised.limits(scrubbed.level))
        if found is None:
            return None
        low, high = 100 * found[0], 100 * found[1]
        method = Scale.FIELLER.wrap(scrubbed.method)
    s = scrubbed
    return Estimate(100 * share, low, high, s.level, 100 * s.se / abs(bottom), s.df, s.draws, method, s.kind)


def points_recovered(difference: Estimate, against: Baselines) -> Estimate | None:
    """A difference of expected losses in points of loss recovered; None where that has no meaning.

    Fieller's interval where baselines are sampled, their errors being independent of the difference's.
    """
    model, randomised = (each.limits(difference.level) for each in (against.model, against.randomised))
    bottom = model.less(randomised)
    if loss_recovered(replace(difference, value=model.value), against) is None:
        return None
    if against.model.exact and against.randomised.exact:
        low, high = sorted(100 * end / bottom.value for end in (difference.low, difference.high))
        method = Scale.EXACT_BASELINES.wrap(difference.method)
    else:
        # The difference, seen from a randomised loss of 0 without error, is "recovered" out of the denominator.
        found = ratio(Limits.of(difference), bottom, Limits(0.0, 0.0, 0.0))
        if found is None:
            return None
        low, high = 100 * found[0], 100 * found[1]
        method = Scale.FIELLER.wrap(difference.method)
    d = difference
    value, se = 100 * d.value / bottom.value, 100 * d.se / abs(bottom.value)
    return Estimate(value, low, high, d.level, se, d.df, d.draws, method, d.kind)


def ratio(scrubbed: Limits, model: Limits, randomised: Limits) -> tuple[float, float] | None:
    """The ends of (scrubbed - randomised) / (model - randomised), three independent values with intervals.

    r belongs to the interval if 0 belongs to that of scrubbed - r model - (1 - r) randomised. The ends of a sum are
    made from those of its terms: each term's distance to the end that is on that side, added as squares. Of normal
    values, whose ends are equally far, this is Fieller's interval; of rare events each side keeps its own care. None
    where the interval has no two ends, as the denominator's holds 0.

    Source: Fieller, Some problems in interval estimation (1954); Zou and Donner, Construction of confidence limits
    about effect measures: a general approach (2008).

    >>> ratio(Limits(0.5, 0.4, 0.6), Limits(0.0, 0.0, 0.0), Limits(1.0, 1.0, 1.0))
    (0.4, 0.6)
    """
    if not (scrubbed.finite and model.finite and randomised.finite):
        return -math.inf, math.inf
    bottom = model.value - randomised.value
    middle = (scrubbed.value - randomised.value) / bottom

    def excess(r: float, side: float) -> float:
        """How much farther 0 is than the end towards it, for r on that side of the middle."""
        terms = (1.0, scrubbed), (-r, model), (r - 1.0, randomised)
        value = sum(factor * each.value for factor, each in terms)
        squares = 0.0
        for factor, each in terms:
            below = (factor > 0) == (side * bottom < 0)
            squares += (factor * (each.value - each.low if below else each.high - each.value)) ** 2
        return abs(value) - math.sqrt(squares)

    scale = max(abs(middle), 1.0)
    ends = []
    for side in (-1.0, 1.0):
        step = 1e-9 * scale
        while step < FAR * scale and not excess(middle + side * step, side) > 0:
            step *= 2
        if step >= FAR * scale:
            return None
        root = 0.0  # exact terms may be apart by rounding
        if excess(middle, side) < 0:
            root = float(optimize.brentq(lambda x, s=side: excess(middle + s * x, s), 0.0, step, xtol=1e-15 * scale))
        ends.append(middle + side * root)
    return ends[0], ends[1]


def no_narrower(of: Estimate | None, than: Limits | None) -> Estimate | None:
    """The estimate with ends at least as far from its value as those of another: draws and data err more than draws."""
    if of is None or than is None:
        return of
    low, high = of.value - (than.value - than.low), of.value + (than.high - than.value)
    return replace(of, low=min(of.low, low), high=max(of.high, high))
