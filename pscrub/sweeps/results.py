"""What a sweep came to, as one table: a line for each point, hypothesis and target."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pscrub.errors import DamagedError
from pscrub.records import write_whole
from pscrub.result import arviz
from pscrub.result.table import Table
from pscrub.sweeps.folder import BLOCK, SweepFiles
from pscrub.sweeps.plan import Value, typed_value
from pscrub.sweeps.status import SweepStatus, find_sweep_status

TABLE = "table.csv"
COLUMNS = ("seed", "hypothesis", "target", "estimate", "low", "high", "draws", "method")
"""Columns of the table, after those of the parameters."""
FIGURES = ("estimate", "low", "high", "draws")
"""Those that are numbers."""


@dataclass(frozen=True)
class Row:
    """What was estimated of a hypothesis at a point.

    Args:
        parameters: their values, in the sweep's order.
        seed: of the draws.
        hypothesis: its name.
        target: what is estimated, as "E_scrubbed"; in f's units, or in per cent where it says so.
        estimate: of it; NaN where it is undefined.
        low: lower limit, at the sweep's level.
        high: upper limit.
        draws: of the hypothesis; 0 where E_scrubbed is exact.
        method: how the limits were made.
    """

    parameters: tuple[Value, ...]
    seed: int
    hypothesis: str
    target: str
    estimate: float
    low: float
    high: float
    draws: int
    method: str


@dataclass(frozen=True)
class SweepResult:
    """What a sweep has come to so far.

    Args:
        rows: in the order of parameters, seeds and hypotheses.
        status: which points are done, running and failed.
        left_out: what was damaged.
    """

    rows: tuple[Row, ...]
    status: SweepStatus
    left_out: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters' columns."""
        return tuple(f"{name} of the study" if name in COLUMNS else name for name in self.status.plan.names)

    @property
    def failed(self) -> list[str]:
        """Why points failed, a line for each."""
        return self.status.reasons()

    def table(self) -> Table:
        """Loss recovered of each hypothesis at each point."""
        head = (*self.names, "seed", "hypothesis", "recovered %", f"{100 * self.level:g} % interval", "draws")
        lines = []
        for row in self.rows:
            if row.target == "loss recovered, %":
                defined = not math.isnan(row.estimate)
                cells = (f"{row.estimate:z.2f}", f"[{row.low:z.2f}, {row.high:z.2f}]") if defined else ("undefined", "")
                cells = (cells[0], "exact") if defined and not row.draws and row.low == row.high else cells
                lines.append((*map(str, row.parameters), str(row.seed), row.hypothesis, *cells, f"{row.draws:,}"))
        return Table(head, tuple(lines), words=len(self.names) + 2, title=self.status.plan.study)

    @property
    def level(self) -> float:
        """Nominal coverage of the limits."""
        return self.status.plan.asked.level

    def csv(self) -> str:
        """The rows as CSV, under a line of names; empty cells where a number is undefined."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*self.names, *COLUMNS])
        for row in self.rows:
            cells = [getattr(row, name) for name in COLUMNS]
            writer.writerow([*row.parameters, *("" if each != each else each for each in cells)])
        return out.getvalue()

    def write_csv(self, path: Path) -> Path:
        """The path, once the rows are written there as CSV, whole or not at all."""
        write_whole(path, lambda file: file.write(self.csv().encode()))
        return path

    def to_dataframe(self) -> Any:
        """A pandas.DataFrame with a line for each row, its columns those of the CSV."""
        import pandas

        return pandas.DataFrame(
            [[*row.parameters, *(getattr(row, name) for name in COLUMNS)] for row in self.rows],
            columns=[*self.names, *COLUMNS],
        )

    def to_xarray(self) -> Any:
        """An xarray.Dataset of estimates, limits and draws over parameters, seed, hypothesis and target.

        What is not there, as points that failed, is NaN. Values of parameters that are numbers are labels as numbers.
        """
        plan = self.status.plan
        values: dict[str, list[Any]] = {
            name: list(each) for name, (_, each) in zip(self.names, plan.parameters, strict=True)
        } | {"seed": list(plan.seeds)}
        values["hypothesis"] = list(dict.fromkeys(row.hypothesis for row in self.rows))
        values["target"] = list(dict.fromkeys(row.target for row in self.rows))
        places = [{typed_value(label): i for i, label in enumerate(each)} for each in values.values()]
        keys = ((*row.parameters, row.seed, row.hypothesis, row.target) for row in self.rows)
        at = [[place[typed_value(label)] for place, label in zip(places, key, strict=True)] for key in keys]
        where = tuple(np.array(at, dtype=int).reshape(len(at), len(values)).T)
        variables = dict[str, Any]()
        for figure in FIGURES:
            array = np.full([len(each) for each in values.values()], np.nan)
            array[where] = [getattr(row, figure) for row in self.rows]
            variables[figure] = list(values), array
        coords = {name: _as_numbers(each) for name, each in values.items()}
        return arviz.dataset(variables, coords, {"study": plan.study, "level": self.level})

    def __repr__(self) -> str:
        return "\n".join([self.table().text(), *self.status.below()])

    def _repr_html_(self) -> str:
        return self.table().html()


def read_sweep(files: SweepFiles, without_damaged: bool = False) -> SweepResult:
    """What a sweep has come to, read from the files of its points.

    Args:
        files: of its folder.
        without_damaged: leave damaged files out.

    Raises:
        StudyError: there is none.
        DamagedError: with every file that is not as it was written.
    """
    status, faults = find_sweep_status(files), list[str]()
    rows = list(_read_rows(status, faults))
    if faults and not without_damaged:
        raise DamagedError([*faults, "make them again, from the points' own folders, with --without-damaged"])
    return SweepResult(tuple(rows), status, tuple(faults))


def drop_damaged(files: SweepFiles) -> None:
    """Remove what says, damaged, what points came to: it is made again from their run folders.

    Args:
        files: of the folder of a sweep.
    """
    for each in find_sweep_status(files).standings:
        for number in each.done:
            try:
                each.place.found(number)
            except FileNotFoundError:
                each.place.whole_of(number // BLOCK).unlink(missing_ok=True)
            except DamagedError:
                each.place.whole_of(number // BLOCK).unlink(missing_ok=True)
                (each.place.block_of(number) / each.place.name_of(number)).unlink(missing_ok=True)


def _read_rows(status: SweepStatus, faults: list[str]) -> Iterator[Row]:
    for each in status.standings:
        for number in sorted(each.done):
            try:
                found = each.place.found(number)
            except (FileNotFoundError, DamagedError) as error:
                faults += error.faults if isinstance(error, DamagedError) else [f"'{error.filename}' is gone"]
                continue
            assert each.points is not None, "points that are done are of a study that was made"
            for one in found:
                for target, *numbers, method in one.targets:
                    estimate, low, high = (math.nan if number is None else number for number in numbers)
                    seed = each.points[number].seed
                    yield Row(each.place.values, seed, one.hypothesis, target, estimate, low, high, one.draws, method)


def _as_numbers(values: list[Any]) -> list[Any]:
    """The values as numbers if all are, or read as such."""
    for kind in (int, float):
        try:
            return [each if isinstance(each, bool) else kind(each) for each in map(_plainly, values)]
        except (TypeError, ValueError):
            continue
    return values


def _plainly(value: Any) -> Any:
    return value if isinstance(value, str | bool) else str(value)
