"""Loss recovered: an expected loss on the scale from the randomised loss, 0, to the model's own, 100."""

from __future__ import annotations

import math
from dataclasses import replace

from scipy import stats

from pscrub.estimate.baselines import Baseline, Baselines
from pscrub.estimate.estimate import Estimate
from pscrub.outcomes import Outcome


class Scale(Outcome):
    """How an interval was carried over to the scale of loss recovered."""

    EXACT_BASELINES = "exact baselines", "{method}; exact baselines"
    FIELLER = "Fieller", "Fieller; {method}"


def loss_recovered(scrubbed: Estimate, against: Baselines) -> Estimate | None:
    """The loss recovered in per cent with its interval, never clipped; None where it has no meaning.

    (E_scrubbed - E_randomised) / (E_model - E_randomised). With exact baselines it is linear in E_scrubbed, whose
    interval carries over. With sampled ones Fieller's interval for a ratio of normal estimates is used. It is
    undefined when E_model - E_randomised is not distinguishable from 0 (at the interval's level, or to rounding).

    Source: appendix, section 2.1.

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
    ratio = top / bottom
    if model.exact and randomised.exact:
        ends = sorted(100 * (end - randomised.value) / bottom for end in (scrubbed.low, scrubbed.high))
        ends = [100 * ratio] * 2 if scrubbed.exact else ends  # of width zero, to the last digit
        method = Scale.EXACT_BASELINES.wrap(scrubbed.method)
    else:
        # Half the interval's width in standard errors: t's quantile, or more where the interval is wider.
        z = scrubbed.width / 2 / scrubbed.se if scrubbed.se > 0 else float(stats.norm.ppf((1 + scrubbed.level) / 2))
        shared = randomised.se**2  # the randomised loss is in both differences
        bottom_variance = model.se**2 + shared
        a = bottom**2 - z**2 * bottom_variance
        if a <= 0:
            return None
        b = top * bottom - z**2 * shared
        c = top**2 - z**2 * (scrubbed.se**2 + shared)
        root = math.sqrt(max(b * b - a * c, 0.0))
        ends = [100 * (b - root) / a, 100 * (b + root) / a]
        method = Scale.FIELLER.wrap(scrubbed.method)
    s = scrubbed
    return Estimate(100 * ratio, ends[0], ends[1], s.level, 100 * s.se / abs(bottom), s.df, s.draws, method, s.kind)


def points_recovered(difference: Estimate, against: Baselines) -> Estimate | None:
    """A difference of expected losses in points of loss recovered; None where that has no meaning.

    Fieller's interval where baselines are sampled, their errors being independent of the difference's.
    """
    model, randomised = against.model, against.randomised
    bottom = model.value - randomised.value
    # The difference, seen from a randomised loss of 0 without error, is "recovered" out of the sampled denominator.
    spread = Baseline(bottom, math.hypot(model.se, randomised.se), model.draws + randomised.draws, "difference")
    score = loss_recovered(difference, Baselines(spread, Baseline(0.0, 0.0, 0, "exact")))
    distinct = loss_recovered(replace(difference, value=model.value), against)
    return None if distinct is None else score
