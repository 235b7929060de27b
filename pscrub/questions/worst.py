"""How bad it can get under a hypothesis: each donor chosen to do the most harm, beside the drawn and the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pscrub.errors import HypothesisError, StudyError
from pscrub.estimate.baselines import Baseline, Baselines
from pscrub.estimate.estimate import Estimate, Method, exact_estimate
from pscrub.estimate.recovered import loss_recovered
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Study
from pscrub.hypothesis.tree import unroll
from pscrub.law.entropy import entropy_budget
from pscrub.law.exact import CELLS
from pscrub.law.extremes import Extremes, find_extremes
from pscrub.progress import Progress, quiet
from pscrub.result.table import Table

LEVEL = 0.95
"""Of intervals, if E_randomised is sampled; the losses themselves have none."""


@dataclass(frozen=True)
class PessimalRow:
    """One hypothesis: how much it permits, and what the best, the drawn and the worst of it cost.

    Args:
        name: the hypothesis.
        excess: bits of scrubbed entropy above H(D).
        ends: the expectations; None where there are too many combinations to list.
        why: what was said then.
    """

    name: str
    excess: float
    ends: Extremes | None
    why: str = ""


@dataclass(frozen=True)
class Pessimal:
    """The best, the drawn and the worst scrub of each hypothesis of a study, all exact for D.

    Args:
        study: its name.
        rows: in the study's order.
        model: E_model.
        randomised: E_randomised.
    """

    study: str
    rows: tuple[PessimalRow, ...]
    model: Baseline
    randomised: Baseline

    def recovered(self, loss: float) -> Estimate | None:
        """A loss as per cent recovered; None where the baselines do not differ."""
        estimate = exact_estimate(loss, LEVEL, Method.CHOSEN.say())
        return loss_recovered(estimate, Baselines(self.model, self.randomised))

    def table(self) -> Table:
        """A line for each hypothesis."""
        rows = []
        for row in self.rows:
            losses = () if row.ends is None else (row.ends.least, row.ends.scrubbed, row.ends.greatest)
            cells = [row.name, f"{row.excess:.2f}", *(f"{loss:.4g}" for loss in losses)]
            for share in map(self.recovered, losses[1:]):
                cells.append("–" if share is None else f"{share.value:z.2f}")
            rows.append((*cells, *["–"] * (7 - len(cells))))
        head = ("hypothesis", "bits above H(D)", "best", "E_scrubbed", "pessimal", "recovered, %", "pessimal, %")
        return Table(head, tuple(rows))

    @property
    def below(self) -> tuple[str, ...]:
        """What to know of the table, of each hypothesis that could not be listed too."""
        said = (
            f"E_model {self.model.value:.4g}, E_randomised {self.randomised.value:.4g}. Pessimal: at every site the "
            "row of its block that does most harm, exactly; no law of donors within the blocks loses more."
        )
        return (said, *(f"{row.name}: {row.why}" for row in self.rows if row.why))


def scrub_pessimally(
    study: Study | Sequence[Hypothesis],
    *,
    limit: int = CELLS,
    seed: int = 0,
    randomised: Baseline | float | None = None,
    progress: Progress = quiet,
) -> Pessimal:
    """The expectation of f if every donor is chosen to do the most harm, beside E_scrubbed and the best choice.

    E_scrubbed is an average over the swaps that a hypothesis permits; this is their worst case: an upper bound on the
    loss, whatever the law of donors within the blocks. It is exact for D, and no draws are made. A hypothesis of which
    too many combinations would have to be listed is said to be one, and the others are answered.

    Source: pessimal ablations (Gross and others, Compact proofs of model performance via mechanistic interpretability,
    2024).

    Args:
        study: a study, or hypotheses on one data set and behaviour.
        limit: most combinations at one node, as for `law.law_of_f`.
        seed: names the pairs of E_randomised, where it is sampled.
        randomised: the baseline, if not E_randomised.
        progress: told of rows done.

    Raises:
        HypothesisError: a hypothesis is not well formed.
        StudyError: a limit below 1.
    """
    if limit < 1:
        raise StudyError(f"limit is {limit}; expected 1 or more combinations; try {CELLS:,}")
    study = Study.of(study, "family")
    engine = Engine(study.hypotheses[0].data, "cpu", progress=progress)
    labels = study.label_columns if study.tells_labels else study.labels
    trees = [unroll(hypothesis) for hypothesis in study.hypotheses]
    against = Baselines.of(engine.on_data(study.hypotheses[0].graph), labels, randomised, seed, progress)
    rows = []
    for done, tree in enumerate(trees):
        progress("hypotheses", done, len(trees))
        name, budget = tree.hypothesis.name, entropy_budget(tree, bits=True)
        try:
            rows.append(PessimalRow(name, budget.scrubbed - budget.data, find_extremes(tree, limit)))
        except HypothesisError as error:
            rows.append(PessimalRow(name, budget.scrubbed - budget.data, None, "; ".join(error.faults)))
    return Pessimal(study.name, tuple(rows), against.model, against.randomised)
