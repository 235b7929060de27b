"""From the draws of one hypothesis to its result: the estimate with its interval, loss recovered, warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pscrub.estimate.baselines import Baselines
from pscrub.estimate.estimate import Estimate, Interval
from pscrub.estimate.jackknife import Population
from pscrub.estimate.limits import Limits
from pscrub.estimate.population import Figures, data_uncertainty
from pscrub.estimate.recovered import loss_recovered, no_narrower
from pscrub.result.draws import Draws
from pscrub.result.result import ScrubResult
from pscrub.result.warnings import warn_of_numbers, warn_of_sites


@dataclass(frozen=True, eq=False)
class Found:
    """What was found of one hypothesis, before anything is concluded from it.

    Args:
        draws: all of them.
        exact: E_scrubbed where it needs no draws.
        rule: "draws" if their number was fixed, "width" if it was found on the way.
        seconds: by phase.
        cut_short: drawing was interrupted.
        warnings: those that the numbers do not show.
        population: what the data's uncertainty is made from, if it was asked for.
    """

    draws: Draws
    exact: Estimate | None = None
    rule: str = "draws"
    seconds: Mapping[str, float] = field(default_factory=dict)
    cut_short: bool = False
    warnings: tuple[str, ...] = ()
    population: Population | None = None


def conclude(hypothesis: str, law: str, found: Found, against: Baselines, interval: Interval) -> ScrubResult:
    """The result of one hypothesis.

    Args:
        hypothesis: its name.
        law: its hash.
        found: its draws, or its exact value.
        against: the baselines.
        interval: which is asked for.
    """
    estimate = found.exact
    if estimate is None:
        estimate = found.draws.estimate(found.rule, interval)
    score = loss_recovered(estimate, against)
    data = None
    if found.population is not None:
        data = data_uncertainty(estimate, against.model, found.population)
        data = replace(data, both=_as_wide_as_draws(data.both, estimate, score, against))
    return ScrubResult(
        hypothesis=hypothesis,
        scrubbed=estimate,
        model=against.model,
        randomised=against.randomised,
        recovered=score,
        seconds=dict(found.seconds),
        cut_short=found.cut_short,
        warnings=(
            *warn_of_numbers(found.draws, estimate, score, against, interval.known),
            *warn_of_sites(found.draws.sites),
            *(data.warnings if data else ()),
            *found.warnings,
        ),
        draws=found.draws,
        law_hash=law,
        stopping=found.rule,
        interval=interval.kind,
        bounds=interval.bounds,
        data=data,
    )


def _as_wide_as_draws(both: Figures, scrubbed: Estimate, score: Estimate | None, against: Baselines) -> Figures:
    """Draws and data are never more certain than draws alone, whose intervals may have bounds."""
    drawn = (
        Limits.of(scrubbed),
        against.model.limits(scrubbed.level),
        against.randomised.limits(scrubbed.level),
        None if score is None else Limits.of(score),
    )
    names = ("scrubbed", "model", "randomised", "recovered")
    wider = {name: no_narrower(getattr(both, name), each) for name, each in zip(names, drawn, strict=True)}
    return replace(both, **wider)  # type: ignore[arg-type]


def say_kept(results: Sequence[ScrubResult], saved: bool) -> str:
    """What an error that ended a run says of the results before it; nothing if there are none.

    Args:
        results: so far.
        saved: whether anyone was given them.
    """
    if not results:
        return ""
    draws = ["exact" if r.scrubbed.exact else f"{r.scrubbed.draws:,} draws" for r in results]
    ends = [" so far" if r.cut_short else "" for r in results]
    told = [f"'{r.hypothesis}' ({n}{end})" for r, n, end in zip(results, draws, ends, strict=True)]
    return f"; {'kept' if saved else 'lost, as no `save` was given'}: {', '.join(told)}"
