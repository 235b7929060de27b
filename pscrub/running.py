"""The command that runs a study: into a folder if one is given, in as many processes as are asked for."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pscrub.commands import add_study_options, cost_claims, load_study
from pscrub.errors import GraphError, RoundError, StudyError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from pscrub.hypothesis.study import Study
    from pscrub.progress import Interrupts
    from pscrub.questions.worked import Agreement
    from pscrub.result.result import ScrubResult, StudyResult
    from pscrub.result.sharing import RunFolder
    from pscrub.result.table import Table

CLAIM_DRAWS = 4096
"""Draws with each claim alone, and without it, where `--claims` does not say."""


def run_study(arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    """The exit status of `run`: 0, or that of the interrupt which cut it short."""
    from rich.console import Console

    from pscrub.questions.worked import DRAWS, agreements, figures_table
    from pscrub.report import document as report
    from pscrub.report import tables
    from pscrub.report.measured import measures

    device, errors, shard = find_device(arguments.device), Console(stderr=True), _read_shard(arguments)
    if arguments.helps is not None:
        return _help(arguments, device, shard, interrupts)
    with _open_folder(arguments, shard) as folder:
        with redirect_stdout(sys.stderr), Bar(errors, arguments.study) as bar, _helped(arguments, folder, errors):
            say = partial(errors.print, highlight=False, markup=False, soft_wrap=True)
            if arguments.fresh and folder is not None:
                say(f"into {folder.path}")
            study = _load(arguments)
            bar.total = len(study.hypotheses)
            result, failed = _scrub(arguments, study, device, folder, bar, interrupts)
        if not result.results and (failed is not None or shard is None):
            raise failed or KeyboardInterrupt
        with redirect_stdout(sys.stderr):
            if arguments.claims and not result.cut_short:
                result = cost_claims(result, study, arguments.claims, say)
            found = agreements(study, result, arguments.draws or DRAWS, arguments.seed)
        if arguments.json:
            print(report.dumps(report.document(result, found)))
        else:
            console = Console()
            print_table(console, tables.table(result, found))
            if arguments.measures:
                print_table(console, measures(study, result))
            for line in tables.below(result):
                console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
            if found:
                console.print()
                print_table(console, figures_table(found))
        if folder is not None:
            say("wrote " + ", ".join(map(str, write_files(result, folder.path, found))))
    if failed is not None and result.cut_short:  # else another made them
        raise failed
    return interrupts.status if interrupts.number or (result.cut_short and shard is None) else 0


def _help(
    arguments: argparse.Namespace, device: torch.device, shard: tuple[int, int] | None, interrupts: Interrupts
) -> int:
    """Draw rounds for the command that started this one, as long as that lives."""
    from rich.console import Console

    from pscrub.result.sharing import RunFolder

    parent, _, path = arguments.helps.partition(":")

    def lives() -> None:
        interrupts()
        if os.getppid() != int(parent):
            raise KeyboardInterrupt

    with RunFolder(path, shard=shard, helps=int(parent)) as folder, redirect_stdout(sys.stderr):
        _scrub(arguments, _load(arguments), device, folder, Bar(Console(stderr=True), arguments.study), lives)
    return 0


@contextmanager
def _helped(arguments: argparse.Namespace, folder: RunFolder | None, errors: Console) -> Iterator[None]:
    """Within it `--workers` processes, this one among them, draw rounds once it is known that there are any."""
    from pscrub.workers import Helpers, share_threads

    if arguments.workers < 1:
        raise StudyError(f"--workers {arguments.workers}; expected 1 or more processes")
    if folder is None or arguments.workers == 1:
        yield
        return
    with share_threads(arguments.workers) as threads:
        start = "import sys; from pscrub.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", start, *arguments.argv, "--helps", f"{os.getpid()}:{folder.path}"]
        say = partial(errors.print, highlight=False, markup=False, soft_wrap=True)
        helpers = Helpers(command, arguments.workers - 1, threads, say)
        folder.work, folder.is_helped = helpers.start, helpers.tend
        try:
            yield
        finally:
            for failed in helpers.stop():
                say(f"a worker failed: {failed}")


def _load(arguments: argparse.Namespace) -> Study:
    study = load_study(arguments)
    return replace(study, by=tuple(dict.fromkeys((*study.by, *arguments.by)))) if arguments.by else study


def _scrub(
    arguments: argparse.Namespace,
    study: Study,
    device: torch.device,
    folder: RunFolder | None,
    bar: Bar,
    interrupts: Callable[[], None],
) -> tuple[StudyResult, RoundError | None]:
    """The result, and what is to be said of rounds that failed."""
    from pscrub.result.adding import add_up
    from pscrub.result.result import StudyResult
    from pscrub.scrub import scrub

    def progress(phase: str, done: int, total: int) -> None:
        interrupts()
        if folder is not None:
            folder.is_helped()  # and those that were killed are replaced
        bar.progress(phase, done, total)

    if folder is not None:
        folder.progress = progress
    failed: RoundError | None = None
    try:
        result = scrub(
            study,
            draws=arguments.draws,
            until_width=arguments.until_width,
            seed=arguments.seed,
            device=device,
            interval=arguments.interval,
            bounds=arguments.bounds and tuple(arguments.bounds),
            donors=arguments.donors,
            data_uncertainty=arguments.data_uncertainty,
            exact=not arguments.draws_only,
            clusters=arguments.clusters,
            progress=progress,
            each=bar.each,
            after=None if arguments.after is None else StudyResult.load(arguments.after),
            out=folder,
        )
    except RoundError as error:
        result, failed = error.result, error
    except GraphError:
        if folder is not None and folder.has_rounds:
            write_files(add_up(folder), folder.path)
        raise
    if result.cut_short and folder is not None and folder.has_rounds:
        result = add_up(folder, result)  # with what was there before, and what others made
    return result, failed


def _open_folder(
    arguments: argparse.Namespace, shard: tuple[int, int] | None
) -> AbstractContextManager[RunFolder | None]:
    """The folder of `--out`, if one is given; with `--fresh` the first of DIR, DIR-2, DIR-3 that is not there."""
    from pscrub.result.sharing import RunFolder

    path: Path | None = arguments.out
    if path is None:
        asked = [f"--{name.replace('_', '-')}" for name in _OF_FOLDERS if getattr(arguments, name)]
        asked += ["--workers"] * (arguments.workers > 1)
        if asked:
            raise StudyError(f"{', '.join(asked)} without --out; expected the folder that keeps the rounds")
        return nullcontext(None)
    if arguments.fresh:
        tries = (path.with_name(f"{path.name}-{i}") if i > 1 else path for i in itertools.count(1))
        path = next(each for each in tries if not each.exists())
    return RunFolder(path, shard=shard, set_aside=arguments.without_damaged)


_OF_FOLDERS = ("fresh", "shard", "without_damaged")


def _read_shard(arguments: argparse.Namespace) -> tuple[int, int] | None:
    if arguments.shard is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", arguments.shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise StudyError(f"--shard {arguments.shard}: expected i/n with i from 1 to n, as 3/7")
    if arguments.draws is None:
        raise StudyError(
            "--shard without --draws; how many draws a width takes shows only when rounds of all shards are there; "
            "give --draws, or let processes share one folder without --shard"
        )
    return int(found[1]), int(found[2])


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
        self.bar.update(self.task, description=f"{self.done}/{self.total} {phase}", completed=done, total=total)

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


def add_run_options(run: argparse.ArgumentParser) -> None:
    """Give a parser what `run` takes."""
    from pscrub.estimate.estimate import INTERVALS
    from pscrub.estimate.stopping import DONORS, WIDTH

    stop = run.add_mutually_exclusive_group()
    stop.add_argument("--draws", type=int, help="draws of each hypothesis")
    about = f"draw until each interval is W points of loss recovered wide (default: {WIDTH:g})"
    stop.add_argument("--until-width", type=float, metavar="W", help=about)
    about = "estimate from draws even where the exact law of f costs less than a round of them"
    run.add_argument("--draws-only", action="store_true", help=about)
    about = "the kind of interval; auto picks what suits the losses, and says so (default: auto)"
    run.add_argument("--interval", choices=INTERVALS, default="auto", help=about)
    about = "the least and greatest f there can be, for betting and bernstein (0/1 losses are recognised)"
    run.add_argument("--bounds", type=float, nargs=2, metavar=("LEAST", "GREATEST"), help=about)
    about = (
        "permuted: the rows of a block are used about equally often, within replicates that the interval is made from"
    )
    run.add_argument("--donors", choices=DONORS, default="independent", help=about)
    about = "also give the values in the population that the data are a sample of, with the data's uncertainty"
    run.add_argument("--data-uncertainty", action="store_true", help=about)
    about = "so, rows of one value of a column (template, document) not being independent of one another"
    run.add_argument("--clusters", metavar="COLUMN", help=about)
    run.add_argument("--device", default="cpu", help="where the model runs: cpu, cuda, cuda:1, ...")
    about = "keep each round of draws there, go on with what is kept, and write report.html, result.nc, result.json"
    run.add_argument("--out", type=Path, metavar="DIR", help=about)
    about = "start over, in DIR-2 if DIR is there, and so on"
    run.add_argument("--fresh", action="store_true", help=about)
    about = "draw rounds in N processes, which share the folder (default: 1)"
    run.add_argument("--workers", type=int, default=1, metavar="N", help=about)
    run.add_argument("--helps", help=argparse.SUPPRESS)  # what such a process is told: of whom, and where
    run.add_argument("--shard", metavar="I/N", help="draw only the I-th of N parts of the rounds")
    about = "move damaged files aside, into DIR/damaged, and make them again"
    run.add_argument("--without-damaged", action="store_true", help=about)
    about = "add to the result there, in another folder: more draws, one interval"
    run.add_argument("--after", type=Path, metavar="DIR", help=about)
    about = "break losses down by a dataset column"
    run.add_argument("--by", action="append", default=[], metavar="COLUMN", help=about)
    about = f"also find what each claim costs, with N draws of each variant (default: {CLAIM_DRAWS:,})"
    run.add_argument("--claims", type=int, nargs="?", const=CLAIM_DRAWS, default=0, metavar="N", help=about)
    about = "also print how far outputs moved, how often the answer did, and bits of scrubbed entropy"
    shown = run.add_mutually_exclusive_group()
    shown.add_argument("--measures", action="store_true", help=about)
    shown.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    add_study_options(run)
