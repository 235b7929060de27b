"""The command that runs a study: into a folder if one is given, in as many processes as are asked for."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pscrub.commands.costs import cost_claims
from pscrub.commands.showing import Bar, find_device, print_table, write_files
from pscrub.commands.studies import load_study, read_shard
from pscrub.errors import GraphError, RoundError, StudyError

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from pscrub.hypothesis.study import Study
    from pscrub.progress import Interrupts
    from pscrub.result.result import StudyResult
    from pscrub.result.sharing import RunFolder


def run_study(arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    """The exit status of `run`: 0, or that of the interrupt which cut it short."""
    from rich.console import Console

    from pscrub.questions.worked import DRAWS, agreements, figures_table
    from pscrub.report import document as report
    from pscrub.report import tables
    from pscrub.report.measured import measures
    from pscrub.result.pools import read_workers

    device, errors, shard = find_device(arguments.device), Console(stderr=True), _read_shard(arguments)
    read_workers(arguments.workers, device.type == "cuda")
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
    """Within it N processes of `--workers N`, this one among them, draw rounds once it is known that there are any."""
    from pscrub.workers import Helpers, share_threads

    count = int(arguments.workers) if arguments.workers.isdigit() else 1
    if folder is None or count == 1:
        yield
        return
    with share_threads(count) as threads:
        start = "import sys; from pscrub.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", start, *arguments.argv, "--helps", f"{os.getpid()}:{folder.path}"]
        say = partial(errors.print, highlight=False, markup=False, soft_wrap=True)
        helpers = Helpers(command, count - 1, threads, say)
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
    from pscrub.result.crews import Workers
    from pscrub.result.pools import read_workers
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
    made = read_workers(arguments.workers, device.type == "cuda")
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
            workers=Workers(None if isinstance(made, int) else made, tries=arguments.tries),
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
        asked += [f"--workers {arguments.workers}"] * (arguments.workers.isdigit() and arguments.workers != "1")
        if asked:
            raise StudyError(f"{', '.join(asked)} without --out; expected the folder that keeps the rounds")
        return nullcontext(None)
    if arguments.fresh:
        tries = (path.with_name(f"{path.name}-{i}") if i > 1 else path for i in itertools.count(1))
        path = next(each for each in tries if not each.exists())
    return RunFolder(path, shard=shard, set_aside=arguments.without_damaged)


_OF_FOLDERS = ("fresh", "shard", "without_damaged")


def _read_shard(arguments: argparse.Namespace) -> tuple[int, int] | None:
    shard = read_shard(arguments.shard)
    if shard is not None and arguments.draws is None:
        raise StudyError(
            "--shard without --draws; how many draws a width takes shows only when rounds of all shards are there; "
            "give --draws, or let processes share one folder without --shard"
        )
    return shard
