"""What scrubbing found: draws, results of hypotheses and of studies, as text, HTML, tables and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pscrub import records as store
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.estimate import Estimate
from pscrub.estimate.population import DataUncertainty, Figures
from pscrub.graph.equal import RewriteCheck
from pscrub.records import Equal
from pscrub.result import arviz as to_arviz
from pscrub.result.draws import Draws, Extreme, Groups, Reference, Round, SiteDraws


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

    def __repr__(self) -> str:
        name, *values = cells(self)
        return f"ScrubResult({name}: " + ", ".join(f"{h} {v}" for h, v in zip(HEAD[1:], values, strict=True) if v) + ")"

    def _repr_html_(self) -> str:
        return _html((self,), self.warnings)

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame with a row for each draw: seed, round, row of the root's datum, loss, distances."""
        import pandas

        d = self.draws
        repeated = {
            "seed": torch.tensor([r.seed for r in d.rounds for _ in range(r.size)]),
            "round": torch.tensor([r.index for r in d.rounds for _ in range(r.size)]),
        }
        columns = repeated | {"row": d.rows, "loss": d.losses} | dict(d.distances)
        return pandas.DataFrame({name: column.numpy() for name, column in columns.items()})

    def to_xarray(self) -> Any:
        """An xarray.Dataset over the dimension "draw": loss, row and the distances."""
        d = self.draws
        columns = {"loss": d.losses, "row": d.rows} | dict(d.distances)
        attrs = {name: value for name, value in as_row(self).items() if isinstance(value, str | float | int)}
        return to_arviz.dataset({name: (["draw"], column.numpy()) for name, column in columns.items()}, attrs=attrs)

    def to_arviz(self) -> Any:
        """ArviZ data of the draws as one chain: `prior` has the root's row, `prior_predictive` f and the distances.

        Scrubbing runs the generative program forwards, conditioned on nothing, hence the names of the groups.
        """
        d = self.draws
        drawn = {"loss": d.losses} | dict(d.distances)
        groups = {
            "prior": {"row": (["chain", "draw"], d.rows[None].numpy())},
            "prior_predictive": {name: (["chain", "draw"], each[None].numpy()) for name, each in drawn.items()},
        }
        return to_arviz.inference_data(groups, attrs={"hypothesis": self.hypothesis})


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

    def __getitem__(self, hypothesis: str) -> ScrubResult:
        """The result of the hypothesis of that name."""
        found = {each.hypothesis: each for each in self.results}
        if hypothesis not in found:
            raise KeyError(f"no result for '{hypothesis}'; there is {', '.join(found)}")
        return found[hypothesis]

    def __repr__(self) -> str:
        lines = [HEAD, *map(cells, self.results)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
        padded = ["  ".join(f"{c:{'<' if i == 0 else '>'}{widths[i]}}" for i, c in enumerate(line)) for line in lines]
        name = f"{self.study}, {100 * self.level:g} % intervals" + (", cut short" if self.cut_short else "")
        return "\n".join([name, *padded, *self._warnings])

    def _repr_html_(self) -> str:
        return _html(self.results, self._warnings)

    @cached_property
    def _warnings(self) -> tuple[str, ...]:
        return tuple(f"Warning, {each.hypothesis}: {warning}" for each in self.results for warning in each.warnings)

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame with a row for each hypothesis, named as in `result.json`."""
        import pandas

        return pandas.DataFrame([{k: v for k, v in as_row(each).items() if k != "seconds"} for each in self.results])

    def _drawn(self) -> dict[str, Tensor]:
        """name -> [hypotheses, draws], filled up with NaN (rows: -1) to the most draws that any has."""
        names = dict.fromkeys(("loss", *(name for r in self.results for name in r.draws.distances)))
        most = max((len(r.draws.losses) for r in self.results), default=0)
        out = {name: torch.full((len(self.results), most), torch.nan, dtype=torch.float64) for name in names}
        out["row"] = torch.full((len(self.results), most), -1)
        for i, each in enumerate(self.results):
            for name, column in (
                {"loss": each.draws.losses, "row": each.draws.rows} | dict(each.draws.distances)
            ).items():
                out[name][i, : len(column)] = column
        return out

    def _coords(self) -> dict[str, Any]:
        return {"hypothesis": [each.hypothesis for each in self.results]}

    def to_xarray(self) -> Any:
        """An xarray.Dataset: loss, row and distances by hypothesis and draw; estimates by hypothesis; f on D by row.

        Hypotheses with fewer draws than others are filled up with NaN, rows with -1.
        """
        variables: dict[str, Any] = {n: (["hypothesis", "draw"], v.numpy()) for n, v in self._drawn().items()}
        rows = [as_row(each) for each in self.results]
        for name in ("scrubbed", "scrubbed_low", "scrubbed_high", "model", "randomised", "recovered", "low", "high"):
            values = [float("nan") if row[name] is None else row[name] for row in rows]
            variables[name] = (["hypothesis"], values)
        variables |= {"loss_on_data": (["datum"], self.reference.losses.numpy())}
        variables |= {"weight": (["datum"], self.reference.weights.numpy())}
        attrs = {"study": self.study, "seed": self.seed, "level": self.level, "data_hash": self.reference.data_hash}
        return to_arviz.dataset(variables, self._coords(), attrs)

    def to_arviz(self) -> Any:
        """ArviZ data of all hypotheses' draws as one chain, and f on D as observed data."""
        drawn = self._drawn()
        dims = ["chain", "draw", "hypothesis"]
        groups = {
            "prior": {"row": (dims, drawn.pop("row").T[None].numpy())},
            "prior_predictive": {name: (dims, each.T[None].numpy()) for name, each in drawn.items()},
            "observed_data": {"loss": (["datum"], self.reference.losses.numpy())},
            "constant_data": {"weight": (["datum"], self.reference.weights.numpy())},
        }
        return to_arviz.inference_data(groups, self._coords(), {"study": self.study, "seed": self.seed})

    def save(self, path: Path | str) -> Path:
        """Write the result to one netCDF file, whole or not at all; its path.

        Raises:
            StudyError: it cannot be written.
        """
        store.save(self, Path(path))
        return Path(path)

    @classmethod
    def load(cls, path: Path | str) -> StudyResult:
        """A saved result: a file, or a folder with `result.nc` in it.

        Raises:
            StudyError: no such file, no result, or of another version than this pscrub reads.
        """
        path = Path(path)
        found = store.load(path / "result.nc" if path.is_dir() else path, {c.__name__: c for c in _CLASSES})
        assert isinstance(found, StudyResult)
        return found


_CLASSES: tuple[type[Any], ...] = (
    *(Round, SiteDraws, Extreme, Draws, Groups, Reference, ScrubResult, StudyResult),
    *(Estimate, Baseline, RewriteCheck, DataUncertainty, Figures),
)
HEAD = ("hypothesis", "E_model", "E_randomised", "E_scrubbed", "recovered %", "interval", "draws")
"""What the cells of a table's line are."""


def cells(each: ScrubResult) -> tuple[str, ...]:
    """The cells of one result's line of the table."""
    score = each.recovered
    return (
        each.hypothesis,
        _loss(each.model.value),
        _loss(each.randomised.value) + ("" if each.randomised.exact else f" ± {1.96 * each.randomised.se:.2g}"),
        _loss(each.scrubbed.value),
        "undefined" if score is None else f"{score.value:.2f}",
        "" if score is None else "exact" if score.exact else f"[{score.low:.2f}, {score.high:.2f}]",
        "exact" if each.scrubbed.exact else f"{each.scrubbed.draws:,}" + (" (cut short)" if each.cut_short else ""),
    )


def as_row(each: ScrubResult) -> dict[str, Any]:
    """One result as plain values by name; `recovered`, `low` and `high` in per cent, None where undefined."""
    score = each.recovered
    population: dict[str, Any] = {}
    for kind, figures in (("data", each.data and each.data.data), ("draws_and_data", each.data and each.data.both)):
        for name in ("scrubbed", "model", "randomised", "recovered") if figures else ():
            found = getattr(figures, name)
            population[f"{name}_{kind}_low"] = None if found is None else found.low
            population[f"{name}_{kind}_high"] = None if found is None else found.high
    return {
        "hypothesis": each.hypothesis,
        "scrubbed": each.scrubbed.value,
        "scrubbed_low": each.scrubbed.low,
        "scrubbed_high": each.scrubbed.high,
        "scrubbed_se": each.scrubbed.se,
        "model": each.model.value,
        "randomised": each.randomised.value,
        "randomised_method": each.randomised.method,
        "recovered": None if score is None else score.value,
        "low": None if score is None else score.low,
        "high": None if score is None else score.high,
        "draws": each.scrubbed.draws,
        "method": each.scrubbed.method,
        "cut_short": each.cut_short,
        "warnings": list(each.warnings),
        "seconds": {phase: round(spent, 3) for phase, spent in each.seconds.items()},
    } | population


def _loss(value: float) -> str:
    if 0 < abs(value) < 5e-4:
        return f"{value:.1e}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"


def _html(results: tuple[ScrubResult, ...], warnings: tuple[str, ...]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in HEAD)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells(each)) + "</tr>" for each in results)
    said = "".join(f"<p>{escape(warning)}</p>" for warning in warnings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{said}"
