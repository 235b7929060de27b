"""A study: hypotheses about one model and dataset, scrubbed together and shown as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pscrub.errors import StudyError, close
from pscrub.hypothesis.ablation import RESAMPLING, Ablation
from pscrub.hypothesis.hypothesis import Hypothesis

E_SCRUBBED = "E_scrubbed"


@dataclass(frozen=True, eq=False)
class Expected:
    """What a worked example is known to give: the expectation of f under a hypothesis, from a formula.

    Args:
        hypothesis: one of the study's, or the same claims about another f (`behaviours`).
        value: the expectation, from the example's own mathematics.
        figure: what it is.
        ablation: what replaces unimportant inputs.
    """

    hypothesis: Hypothesis
    value: float
    figure: str = E_SCRUBBED
    ablation: Ablation = RESAMPLING


@dataclass(frozen=True, eq=False)
class Study:
    """A ladder of hypotheses with what it takes to score them.

    Args:
        name: the study's name.
        hypotheses: in the order of the table, their names distinct, all on one dataset and one behaviour f.
        summary: one line for `pscrub list`.
        labels: the columns that are labels, broken from the output in the randomised loss; by default the columns
            that the graph's output node reads itself.
        notes: printed under the table.
        by: columns [N] of the dataset by whose values the report breaks losses and output distances down.
        features: name -> feature (see `data.features.read_features`) that `pscrub adversary` tries to claim.
        expected: of a worked example, what is known beforehand. `pscrub run` prints it beside what was measured.

    Raises:
        StudyError: no hypotheses, two of one name, two datasets, or a column that the dataset does not have.
    """

    name: str
    hypotheses: Sequence[Hypothesis]
    summary: str = ""
    labels: Sequence[str] | None = None
    notes: Sequence[str] = ()
    by: Sequence[str] = ()
    expected: Sequence[Expected] = ()
    features: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hypotheses", tuple(self.hypotheses))
        names = [h.name for h in self.hypotheses]
        faults = [f"study '{self.name}' has two hypotheses named '{n}'" for n in set(names) if names.count(n) > 1]
        for other in (h for h in self.hypotheses[1:] if h.data is not self.hypotheses[0].data):
            faults.append(f"study '{self.name}': '{other.name}' is on another dataset than '{names[0]}'; expected one")
        if not names:
            faults.append(f"study '{self.name}' has no hypotheses")
        columns = self.hypotheses[0].data.columns if names else {}
        for name in [n for n in self.by if n not in columns and columns]:
            faults.append(f"study '{self.name}' by '{name}': the dataset has no such column{close(name, columns)}")
        if faults:
            raise StudyError(faults)
