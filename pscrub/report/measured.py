"""What is to be held beside loss recovered: how far the output moved, how often its answer, and what may be swapped."""

from __future__ import annotations

from collections.abc import Sequence

from pscrub.estimate.estimate import choose
from pscrub.hypothesis.study import Study
from pscrub.hypothesis.tree import unroll
from pscrub.law.entropy import entropy_budget
from pscrub.result.result import ScrubResult, StudyResult
from pscrub.result.table import Table

MEASURES = {"KL": ("KL, nats", 1.0, None), "flipped": ("other answer, %", 100.0, (0.0, 1.0))}
"""Output distance -> what its column is called, what it is multiplied by, and its bounds where it has any."""
NONE = "–"


def measures(study: Study, result: StudyResult) -> Table:
    """A line for each hypothesis: loss recovered, output distances, bits of scrubbed entropy.

    Distances are between the scrubbed output and the model's own on the root's datum, with intervals: divergence, and
    the share of draws whose largest entry is another. They are of draws, kept where the study names a column `by`;
    there are none where the value is exact. Bits are the entropy of the scrubbed inputs, then what swaps add to D's.

    Args:
        study: what was scrubbed.
        result: what was found of its hypotheses, as many as were reached.
    """
    trees = {each.name: unroll(each) for each in study.hypotheses}
    names = list(dict.fromkeys(name for each in result.results for name in each.draws.distances))
    head = ["hypothesis", "recovered %", f"{100 * result.level:g} % interval"]
    head += [MEASURES[name][0] if name in MEASURES else name for name in names]
    rows = []
    for each in result.results:
        tree = trees[each.hypothesis]
        budget = entropy_budget(tree, bits=True)
        bits = [f"{budget.scrubbed:.1f}", f"{budget.scrubbed - budget.data:.1f}", str(len(tree.leaves))]
        rows.append((*_recovered(each), *_distances(each, names, result.level), *bits))
    return Table((*head, "bits", "above H(D)", "inputs"), tuple(rows))


def _recovered(each: ScrubResult) -> tuple[str, str, str]:
    score = each.recovered
    if score is None:
        return each.hypothesis, "undefined", ""
    return each.hypothesis, f"{score.value:z.2f}", score.ends(".2f")


def _distances(each: ScrubResult, names: Sequence[str], level: float) -> list[str]:
    cells = []
    for name in names:
        values, (_, unit, bounds) = each.draws.distances.get(name), MEASURES.get(name, (name, 1.0, None))
        if values is None or len(values) < 2:
            cells.append(NONE)
            continue
        found = choose(values, level, bounds=bounds)
        ends = ", ".join(f"{unit * end:.3g}" for end in (found.low, found.high))
        cells.append(f"{unit * found.value:.3g} [{ends}]")
    return cells
