"""What scrubbing found: draws, results of hypotheses and of studies, as text, HTML, tables and files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pscrub import records
from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.bootstrapped import Samples, posterior_if_any
from pscrub.estimate.estimate import Estimate
from pscrub.estimate.jackknife import Population
from pscrub.estimate.known import Known, Seen
from pscrub.estimate.limits import Sampled
from pscrub.estimate.population import DataUncertainty, Figures
from pscrub.estimate.sums import Sums
from pscrub.graph.equal import RewriteCheck
from pscrub.records import Equal
from pscrub.result import arviz, older
from pscrub.result.draws import Draws, Extreme, Groups, Reference, Round, SiteDraws
from pscrub.result.provenance import versions
from pscrub.result.table import Table, say_loss

HEAD = ("hypothesis", "E_model", "E_randomised", "E_scrubbed", "recovered %", "interval", "draws")
"""What the cells of a table's line are: figures on this D."""
IN_POPULATION = "in the population %"
"""What the cell is called that speaks of the population that D is a sample of."""
ASKED = ("E_scrubbed", "loss_recovered")
"""What ArviZ is given to summarise: a baseline that is exact is a constant, of which its diagnostics are undefined."""
POSTERIOR = 4
"""What tells the seed of a posterior's samples from that of the draws."""


@dataclass(frozen=True, eq=False, repr=False)
class ScrubResult(Equal):
    """What scrubbing found about one hypothesis.

    Args:
        hypothesis: its name.
        scrubbed: E_scrubbed, the expectation of f under the scrubbing law.
        model: E_model.
        randomised: E_randomised.
        recovered: loss recovered in per cent; None where the baselines do not differ.
        seconds: wall-clock time by phase.
        cut_short: drawing was interrupted; the estimate is of the rounds that were complete.
        warnings: what to know before believing the numbers.
        draws: the draws themselves; none where the value is exact.
        law_hash: of the graph's names, the sites and their partitions: equal hashes, equal scrubbing laws.
        stopping: "draws" if their number was fixed, "width" if it was found on the way.
        claims: what each claim costs, as plain figures, if that was asked for (`report.claim_figures`).
        interval: which interval was asked for; "auto" picks one, and the estimate's method says which.
        bounds: the least and greatest loss there can be, if they were given.
        data: the uncertainty of D as a sample, apart and together with the draws', if that was asked for.
    """

    hypothesis: str
    scrubbed: Estimate
    model: Baseline
    randomised: Baseline
    recovered: Estimate | None
    seconds: Mapping[str, float]
    cut_short: bool
    warnings: tuple[str, ...]
    draws: Draws = field(default_factory=Draws)
    law_hash: str = ""
    stopping: str = "draws"
    claims: tuple[Mapping[str, Any], ...] = ()
    interval: str = "auto"
    bounds: tuple[float, float] | None = None
    data: DataUncertainty | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        score = self.recovered
        return (
            self.hypothesis,
            say_loss(self.model.value),
            say_loss(self.randomised.value) + ("" if self.randomised.exact else f" ± {1.96 * self.randomised.se:.2g}"),
            say_loss(self.scrubbed.value),
            "undefined" if score is None else f"{score.value:z.2f}",
            "" if score is None else score.ends(".2f"),
            "exact" if self.scrubbed.exact else f"{self.scrubbed.draws:,}" + (" (cut short)" if self.cut_short else ""),
        )

    @property
    def in_population(self) -> str:
        """Its loss recovered in the population that D is a sample of, for draws and data; "" if not asked for."""
        if self.data is None:
            return ""
        if self.data.both.scrubbed is None:
            return "not known"
        score = self.data.both.recovered
        return "undefined" if score is None else f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"

    def as_row(self) -> dict[str, Any]:
        """Plain values by name; `recovered`, `low` and `high` in per cent, None where undefined.

        Names that end in `_population`, `_data_low` and the like are of the population, all others of this D.
        """
        score = self.recovered
        population: dict[str, Any] = {}
        for kind, figures in (("data", self.data and self.data.data), ("draws_and_data", self.data and self.data.both)):
            for name in ("scrubbed", "model", "randomised", "recovered") if figures else ():
                found = getattr(figures, name)
                population[f"{name}_{kind}_low"] = None if found is None else found.low
                population[f"{name}_{kind}_high"] = None if found is None else found.high
        if self.data is not None and self.data.population is not None:  # the values there, which are not D's
            for name in ("scrubbed", "randomised", "recovered"):
                found = getattr(self.data.both, name)
                population[f"{name}_population"] = None if found is None else found.value
            population["unknown_population"] = self.data.unknown
        return {
            "hypothesis": self.hypothesis,
            "scrubbed": self.scrubbed.value,
            **{f"scrubbed_{name}": getattr(self.scrubbed, name) for name in ("low", "high", "se")},
            "model": self.model.value,
            "randomised": self.randomised.value,
            "randomised_method": self.randomised.method,
            "recovered": None if score is None else score.value,
            **{end: None if score is None else getattr(score, end) for end in ("low", "high")},
            "draws": self.scrubbed.draws,
            "method": self.scrubbed.method,
            "cut_short": self.cut_short,
            "warnings": list(self.warnings),
            "seconds": {phase: round(spent, 3) for phase, spent in self.seconds.items()},
        } | population

    def __repr__(self) -> str:
        name, *values = self.cells
        return f"ScrubResult({name}: " + ", ".join(f"{h} {v}" for h, v in zip(HEAD[1:], values, strict=True) if v) + ")"

    def _repr_html_(self) -> str:
        return Table(HEAD, (self.cells,)).html() + _paragraphs(self.warnings)

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame with a row for each kept draw: seed, round, row of the root's datum, loss, distances."""
        import pandas

        d = self.draws
        repeated = {
            "seed": torch.tensor([r.seed for r in d.kept for _ in range(r.size)]),
            "round": torch.tensor([r.index for r in d.kept for _ in range(r.size)]),
        }
        columns = repeated | {"row": d.rows, "loss": d.losses} | dict(d.distances)
        return pandas.DataFrame({name: column.numpy() for name, column in columns.items()})

    def to_xarray(self) -> Any:
        """An xarray.Dataset over the dimension "draw": loss, row and the distances."""
        attrs = {name: value for name, value in self.as_row().items() if isinstance(value, str | float | int)}
        return arviz.draws_dataset(self.draws, attrs)

    def posterior(self, samples: int = 4000, chains: int = 4, known: Known | None = None) -> dict[str, Samples]:
        """Name -> float64 [chains, samples / chains]: E_scrubbed, E_model, E_randomised, loss recovered in per cent.

        The Bayesian bootstrap of the draws, D held fixed (`questions.bayesian_bootstrap`); all samples are independent,
        and named by the draws' seed. Constants where there is nothing random; NaN where losses are not finite, where
        draws did not vary and nothing is known of what they missed, and for loss recovered where it is undefined.

        Args:
            samples: how many.
            chains: that they are handed out as.
            known: what f is known to be: `StudyResult.reference.known`.
        """
        if samples < 1 or samples % chains:
            raise StudyError(f"samples is {samples}; expected a multiple of {chains}, the number of chains; try 4000")
        f, value = self.draws.losses.double(), self.scrubbed.value
        fixed = torch.full((2,), value, dtype=torch.float64) if self.scrubbed.exact or not len(f) else None
        seed = self.draws.rounds[0].seed if self.draws.rounds else 0, POSTERIOR
        drawn = posterior_if_any(f, fixed, self.model, self.randomised, samples, seed, known)
        if self.recovered is None:
            drawn["loss_recovered"] = np.full(samples, np.nan)
        return {name: values.reshape(chains, -1) for name, values in drawn.items()}

    def to_arviz(self) -> Any:
        """ArviZ data: group `posterior` is what ArviZ summarises and plots, `scrubbed_draws` holds f draw by draw.

        Of the draws themselves, pairs from strata of the root's datum, no diagnostic of chains means anything.
        """
        found = self.posterior()
        posterior = {name: (["chain", "draw"], found[name]) for name in ASKED}
        return arviz.draws_inference_data(self.draws, posterior, {"hypothesis": self.hypothesis})


@dataclass(frozen=True, eq=False, repr=False)
class StudyResult(Equal):
    """What scrubbing found about a study's hypotheses, as many as were reached.

    Args:
        study: the study's name.
        results: one for each hypothesis, in order.
        seed: the seed of all draws (of the first, in a merged result: the rounds name theirs).
        device: where the model ran.
        level: nominal coverage of the intervals.
        rewrites: how far each rewrite of the graphs changed f on D.
        seconds: wall-clock time by phase, over all hypotheses.
        cut_short: the run was interrupted.
        notes: the study's own.
        reference: f on D and under the baseline, groups, the hash of D.
        versions: of pscrub, Python and the libraries.
        started: when, in ISO 8601 and UTC.
        labels: the columns that E_randomised breaks from the output; none if it was given, or the file does not say.
    """

    study: str
    results: tuple[ScrubResult, ...]
    seed: int
    device: str
    level: float
    rewrites: tuple[RewriteCheck, ...]
    seconds: Mapping[str, float]
    cut_short: bool
    notes: tuple[str, ...]
    reference: Reference = field(default_factory=Reference)
    versions: Mapping[str, str] = field(default_factory=dict)
    started: str = ""
    labels: tuple[str, ...] = ()

    @classmethod
    def begun(cls, study: str, notes: tuple[str, ...], seed: int, device: str, level: float) -> StudyResult:
        """The result of a run that begins now: of no hypothesis yet."""
        return cls(
            study=study,
            results=(),
            seed=seed,
            device=device,
            level=level,
            rewrites=(),
            seconds={},
            cut_short=True,
            notes=notes,
            versions=dict(versions()),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def __getitem__(self, hypothesis: str) -> ScrubResult:
        """The result of the hypothesis of that name."""
        found = {each.hypothesis: each for each in self.results}
        if hypothesis not in found:
            raise KeyError(f"no result for '{hypothesis}'; there is {', '.join(found)}")
        return found[hypothesis]

    def __iter__(self) -> Iterator[ScrubResult]:
        """The results, in the study's order."""
        return iter(self.results)

    def __repr__(self) -> str:
        name = f"{self.study}, {100 * self.level:g} % intervals" + (", cut short" if self.cut_short else "")
        name += f", {self.labelled}" * bool(self.labels)
        return "\n".join([name, self.table.text(), *self._warnings])

    def _repr_html_(self) -> str:
        return self.table.html() + _paragraphs(self._warnings)

    @property
    def labelled(self) -> str:
        """What the labels are, to be read: "label: y"; "" if it is not known."""
        return f"label{'s' * (len(self.labels) > 1)}: {', '.join(self.labels)}" if self.labels else ""

    @property
    def table(self) -> Table:
        """A line for each hypothesis: on this D, and in the population if that was asked for."""
        more = any(each.data for each in self.results)
        rows = tuple((*each.cells, each.in_population)[: len(HEAD) + more] for each in self.results)
        return Table((*HEAD, IN_POPULATION)[: len(HEAD) + more], rows)

    @cached_property
    def _warnings(self) -> tuple[str, ...]:
        return tuple(f"Warning, {each.hypothesis}: {warning}" for each in self.results for warning in each.warnings)

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame with a row for each hypothesis, named as in `result.json`."""
        import pandas

        return pandas.DataFrame([{k: v for k, v in each.as_row().items() if k != "seconds"} for each in self.results])

    def to_xarray(self) -> Any:
        """An xarray.Dataset: loss, row and distances by hypothesis and draw; estimates by hypothesis; f on D by row.

        Hypotheses with fewer draws than others are filled up with NaN, rows with -1.
        """
        rows = [each.as_row() for each in self.results]
        names = ("scrubbed", "scrubbed_low", "scrubbed_high", "model", "randomised", "recovered", "low", "high")
        values = {name: [float("nan") if row[name] is None else row[name] for row in rows] for name in names}
        attrs = {"study": self.study, "seed": self.seed, "level": self.level, "data_hash": self.reference.data_hash}
        return arviz.study_dataset(self._draws, values, self.reference, attrs)

    def to_arviz(self) -> Any:
        """ArviZ data: posteriors by hypothesis in `posterior`, draws in `scrubbed_draws`, f on D as observed data.

        Posteriors of different hypotheses are drawn apart: for how two differ, ask `questions.compare`.
        """
        each = [result.posterior(known=self.reference.known) for result in self.results]
        dims = ["chain", "draw", "hypothesis"]
        posterior = {name: (dims, np.stack([one[name] for one in each], -1)) for name in ASKED if each}
        about = {"study": self.study, "seed": self.seed}
        return arviz.study_inference_data(self._draws, posterior, self.reference, about)

    @property
    def _draws(self) -> dict[str, Draws]:
        return {each.hypothesis: each.draws for each in self.results}

    def save(self, path: Path | str) -> Path:
        """Write the result to one netCDF file, whole or not at all; its path.

        Raises:
            StudyError: it cannot be written.
        """
        records.write_record(self, Path(path))
        return Path(path)

    @classmethod
    def load(cls, path: Path | str) -> StudyResult:
        """A saved result: a file, or a folder with `result.nc` in it.

        Raises:
            StudyError: no such file, no result, or of another version than this pscrub reads.
        """
        path = Path(path)
        found = records.read_record(path / "result.nc" if path.is_dir() else path, MAKERS)
        assert isinstance(found, StudyResult)
        return found


def _make_scrub_result(warnings: Sequence[str], **others: Any) -> ScrubResult:
    return ScrubResult(warnings=older.read_warnings(warnings), **others)


MAKERS: Mapping[str, Callable[..., Any]] = {
    **{each.__name__: each for each in (Round, SiteDraws, Extreme, Draws, Groups, Reference)},
    **{each.__name__: each for each in (RewriteCheck, Figures, Seen, Sampled, Sums, Population, StudyResult)},
    "Estimate": older.make_estimate,
    "Baseline": older.make_baseline,
    "DataUncertainty": older.make_data_uncertainty,
    "ScrubResult": _make_scrub_result,
}
"""Name in a file -> what makes the record of that name."""


def _paragraphs(warnings: Sequence[str]) -> str:
    return "".join(f"<p>{escape(warning)}</p>" for warning in warnings)
