"""What commands show: tables, progress on standard error, and the files that are made of a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pscrub.errors import StudyError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from pscrub.questions.worked import Agreement
    from pscrub.result.result import ScrubResult, StudyResult
    from pscrub.result.table import Table


def write_files(result: StudyResult, folder: Path, found: Sequence[Agreement] = ()) -> list[Path]:
    """Write what is made of a result into a folder; the paths."""
    from pscrub.report import document as report
    from pscrub.report import html

    return [*report.write(result, folder, found), html.write_page(result, folder)]


def print_table(console: Console, table: Table) -> None:
    """Print a table, the console being made wide enough that no figure is cut off and, in a pipe, no line broken."""
    shown = table.rich()
    needed = type(console)(width=1000).measure(shown)
    console.width = max(console.width, needed.minimum if console.is_terminal else needed.maximum)
    console.print(shown)


class Bar:
    """Progress on standard error: a bar a phase on a terminal, a line a result elsewhere.

    Args:
        console: of standard error.
        study: what is loaded.
    """

    def __init__(self, console: Console, study: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.total, self.done = 0, 0
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task(f"loading {study}", total=None)

    def progress(self, phase: str, done: int, total: int) -> None:
        """Show how far a phase has come."""
        count = f"{self.done}/{self.total} " if self.total else ""  # of a sweep it is not known
        self.bar.update(self.task, description=count + phase, completed=done, total=total)

    def each(self, result: ScrubResult) -> None:
        """Print the line of a result."""
        self.done += 1
        name, *_, recovered, interval, draws = result.cells
        drawn = "" if result.scrubbed.exact else f", {draws} draws"
        line = f"{self.done}/{self.total}  {name}: {recovered} % recovered {interval}{drawn}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=not self.console.is_terminal)

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()


def find_device(name: str) -> torch.device:
    """A device by its name.

    Raises:
        StudyError: it is not there, or cannot hold data.
    """
    import torch

    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # which a device without data, as "meta", cannot do
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        have = "cpu, cuda" if torch.cuda.is_available() else "cpu (no CUDA device is there)"
        raise StudyError(f"unknown or unusable device '{name}'; this machine has {have}") from error
    return device
