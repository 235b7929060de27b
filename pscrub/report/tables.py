"""The table of a result, for the terminal and for Markdown, and what has to be said under it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pscrub.hypothesis.study import E_SCRUBBED
from pscrub.outcomes import Outcome, Said
from pscrub.questions.worked import Agreement, figures_table
from pscrub.result.result import HEAD, IN_POPULATION, ScrubResult, StudyResult
from pscrub.result.table import Table


class Line(Outcome):
    """What is said under a table."""

    CUT_SHORT = "cut short", "The run was cut short: these are the estimates so far."
    WARNING = "warning", "Warning, {hypothesis}: {warning}"
    BASELINES = "baselines", "E_model: {model}. E_randomised: {randomised}{labels}."
    OF_DRAWS = (
        "of draws",
        "Intervals are for the uncertainty of the draws: D, its weights and the model are held fixed.",
    )
    EXACT = "exact", "All is exact: there is no uncertainty of draws, D, its weights and the model being held fixed."
    OF_DATA = (
        "of data",
        "{hypothesis}, in the population that D is a sample of, for the uncertainty of {what}: recovered {recovered}, "
        "E_scrubbed {value:.4g} [{low:.4g}, {high:.4g}]",
    )
    NOT_KNOWN = "not known", "{hypothesis}, in the population that D is a sample of: not known, see the warning"
    REWRITES = "rewrites", "Rewrites of the graph: {rewrites}, largest change of f on D {change:.2g}."
    NOTE = "note", "{note}"


def table(result: StudyResult, found: Sequence[Agreement] = (), interval: str = "") -> Table:
    """The result as a table; of a worked example with what its formula gives.

    Args:
        result: of a study.
        found: what is known beforehand, and whether it agrees.
        interval: what to call the interval; its level by default.
    """
    interval = interval or f"{100 * result.level:g} % interval"
    more = any(each.data for each in result.results)
    head = [interval if name == "interval" else name for name in HEAD] + [IN_POPULATION] * more
    head += ["exact", "agrees"] * bool(found)
    known = known_of(found)
    rows = []
    for each in result.results:
        beside = known.get(each.hypothesis)
        cells = ("", "") if beside is None else (f"{beside.exact:.6g}", beside.answer)
        rows.append((*each.cells, *[each.in_population] * more, *cells[: 2 * bool(found)]))
    return Table(head, tuple(rows))


def result_as_markdown(result: StudyResult, found: Sequence[Agreement] = ()) -> str:
    """The result as a Markdown table, its warnings and notes below, and a worked example's figures under these."""
    parts = [table(result, found, "interval").markdown() + "\n", "\n".join(below(result)) + "\n"]
    return "\n".join([*parts, *([figures_table(found).markdown() + "\n"] if found else [])])


def known_of(found: Sequence[Agreement]) -> dict[str, Agreement]:
    """Hypothesis -> what is expected of its E_scrubbed."""
    return {each.hypothesis: each for each in found if (each.figure, each.ablation) == (E_SCRUBBED, "resampling")}


def below(result: StudyResult) -> list[Said]:
    """What has to be said under a table: interruption, warnings, baselines, notes, provenance."""
    said = [Line.CUT_SHORT.say()] if result.cut_short else []
    for each in result.results:
        said += [Line.WARNING.say(hypothesis=each.hypothesis, warning=warning) for warning in each.warnings]
    if result.results:
        first = result.results[0]
        labels = f" ({result.labelled})" if result.labels else ""
        said.append(Line.BASELINES.say(model=first.model.method, randomised=first.randomised.method, labels=labels))
    exact = all(each.scrubbed.exact and each.randomised.exact for each in result.results)
    said.append(Line.EXACT.say() if result.results and exact else Line.OF_DRAWS.say())
    said += [line for each in result.results for line in _tell_of_data(each)]
    if result.rewrites:
        changed = max(check.difference for check in result.rewrites)
        said.append(Line.REWRITES.say(rewrites=len(result.rewrites), change=changed))
    return [*said, *(Line.NOTE.say(note=note) for note in result.notes)]


def _tell_of_data(each: ScrubResult) -> Iterator[Said]:
    """What is said of the population: loss recovered and E_scrubbed, for the data alone and with the draws."""
    if each.data is None:
        return
    for what, figures in (("the data alone", each.data.data), ("the draws and the data", each.data.both)):
        score, loss = figures.recovered, figures.scrubbed
        if loss is None:
            yield Line.NOT_KNOWN.say(hypothesis=each.hypothesis)
            return
        said = "undefined" if score is None else f"{score.value:.2f} % [{score.low:.2f}, {score.high:.2f}]"
        ends = {"value": loss.value, "low": loss.low, "high": loss.high}
        yield Line.OF_DATA.say(hypothesis=each.hypothesis, what=what, recovered=said, **ends)
