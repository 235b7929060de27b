"""A study: hypotheses about one model and dataset, scrubbed together and shown as one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pscrub.errors import HypothesisError, StudyError, close
from pscrub.graph.equal import RewriteCheck, check_rewrites
from pscrub.graph.labels import name_labels, tell_labels
from pscrub.hypothesis.ablation import RESAMPLING, Ablation
from pscrub.hypothesis.hypothesis import Hypothesis

E_SCRUBBED = "E_scrubbed"
SHOWN = 8
"""Hypotheses that a study's repr lists."""


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
        labels: the column or columns that are labels, broken from the output in the randomised loss; by default as
            they are told from the graphs (`tell_labels`), and asked for where they cannot be.
        notes: printed under the table.
        by: columns [N] of the dataset by whose values the report breaks losses and output distances down.
        features: name -> feature (see `data.features.read_features`) that `pscrub adversary` tries to claim.
        draws: draws of each hypothesis where a run asks for neither draws nor a width; without it, as many as make
            intervals a point wide. For models on which each draw is dear.
        expected: of a worked example, what is known beforehand. `pscrub run` prints it beside what was measured.

    Raises:
        StudyError: no hypotheses, two of one name, two datasets, or a column that the dataset does not have.
    """

    name: str
    hypotheses: Sequence[Hypothesis]
    summary: str = ""
    labels: str | Sequence[str] | None = None
    notes: Sequence[str] = ()
    by: Sequence[str] = ()
    expected: Sequence[Expected] = ()
    features: Mapping[str, Any] = field(default_factory=dict)
    draws: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hypotheses", tuple(self.hypotheses))
        if self.labels is not None:
            object.__setattr__(self, "labels", name_labels(self.labels))
        names = [h.name for h in self.hypotheses]
        twice = [name for name, times in Counter(names).items() if times > 1]
        faults = [f"study '{self.name}' has two hypotheses named '{name}'" for name in twice]
        for other in (h for h in self.hypotheses[1:] if h.data is not self.hypotheses[0].data):
            faults.append(f"study '{self.name}': '{other.name}' is on another dataset than '{names[0]}'; expected one")
        if self.draws is not None and self.draws < 1:
            faults.append(f"study '{self.name}': draws is {self.draws}; expected at least 1, or None")
        if not names:
            faults.append(f"study '{self.name}' has no hypotheses")
        columns = self.hypotheses[0].data.columns if names else {}
        for name in [n for n in self.by if n not in columns and columns]:
            faults.append(f"study '{self.name}' by '{name}': the dataset has no such column{close(name, columns)}")
        if faults:
            raise StudyError(faults)

    @classmethod
    def of(cls, study: Study | Hypothesis | Sequence[Hypothesis], name: str = "study") -> Study:
        """The study itself, or one of that name of a hypothesis or of several.

        Raises:
            StudyError: the hypotheses make no study.
        """
        if isinstance(study, Study):
            return study
        return cls(name, (study,) if isinstance(study, Hypothesis) else study)

    @cached_property
    def label_columns(self) -> tuple[str, ...]:
        """The columns that are labels: those named, or those that its graphs tell, as far as they do.

        Raises:
            StudyError: no graph tells, or two tell different ones.
        """
        if self.labels is not None:
            return tuple(self.labels)
        told: dict[tuple[str, ...], str] = {}
        faults: dict[str, None] = {}
        for graph, name in {h.graph.original: h.name for h in reversed(self.hypotheses)}.items():
            try:
                told[tell_labels(graph).columns] = name
            except StudyError as error:
                faults |= dict.fromkeys(error.faults)
        if not told:
            raise StudyError(faults)
        if len(told) > 1:
            said = "; ".join(f"by that of '{name}' {', '.join(columns)}" for columns, name in told.items())
            raise StudyError(f"study '{self.name}': its graphs tell different labels, {said}. Name them: labels=...")
        return next(iter(told))

    @property
    def tells_labels(self) -> bool:
        """Whether its labels are named, or told by its graphs."""
        try:
            return bool(self.label_columns)
        except StudyError:
            return False

    def check(self) -> tuple[RewriteCheck, ...]:
        """How far each rewrite of each graph changed f on D, once every hypothesis is found to be well formed.

        Raises:
            HypothesisError: with the faults of every hypothesis that is not well formed.
            GraphError: a rewrite changed f.
        """
        faults: list[str] = []
        for hypothesis in self.hypotheses:
            try:
                hypothesis.check(rewrites=False)
            except HypothesisError as error:
                faults += error.faults
        if faults:
            raise HypothesisError(faults)
        # Only now: running G on D is what takes long. Hypotheses of a ladder mostly share their graph.
        graphs = dict.fromkeys(hypothesis.graph for hypothesis in self.hypotheses)
        return tuple(check for graph in graphs for check in check_rewrites(graph, self.hypotheses[0].data))

    def __repr__(self) -> str:
        first = self.hypotheses[0]
        # Claims and not sites, which only unrolling would tell: it reads every feature, and so may take long or fail.
        counts = {each.name: len(each.claims) for each in self.hypotheses[:SHOWN]}
        more = len(self.hypotheses) - SHOWN
        return "\n".join(
            [
                f"Study '{self.name}': {len(self.hypotheses):,} hypothes{'is' if len(self.hypotheses) == 1 else 'es'}",
                *(f"  {name}: {n:,} claim{'s' * (n != 1)}" for name, n in counts.items()),
                *([f"  and {more:,} more"] if more > 0 else []),
                f"  on {first.data}",
                f"  labels: {', '.join(self.label_columns) or 'none'}"
                if self.tells_labels or self.labels is not None
                else "  labels: cannot be told",
            ]
        )
