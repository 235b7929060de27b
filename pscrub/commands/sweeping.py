"""The command that sweeps: a study at many parameters, its hypotheses and seeds, in as many processes as asked for."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pscrub.commands.showing import Bar, find_device, print_table
from pscrub.commands.studies import read_shard
from pscrub.errors import StudyError

if TYPE_CHECKING:
    from pscrub.progress import Interrupts
    from pscrub.sweeps.folder import SweepFolder
    from pscrub.sweeps.results import SweepResult

TOLD = 100
"""Lines up to which the table is printed; it is written to the folder in any case."""


def run_sweep(arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    """The exit status of `sweep`: 0; 1 if a point failed; or that of the interrupt which cut it short."""
    from rich.console import Console

    from pscrub.sweeps.folder import SweepFolder
    from pscrub.sweeps.sweeping import sweep

    parameters, seeds, shard = read_grid(arguments.parameters), read_seeds(arguments.seeds), read_shard(arguments.shard)
    errors = Console(stderr=True)
    say = partial(errors.print, highlight=False, markup=False, soft_wrap=True)

    def progress(phase: str, done: int, total: int) -> None:
        interrupts()
        if arguments.helps is not None and os.getppid() != arguments.helps:
            raise KeyboardInterrupt
        folder.is_helped()  # and those that were killed are replaced
        bar.progress(phase, done, total)

    folder = SweepFolder(arguments.out, helps=arguments.helps or 0)
    with redirect_stdout(sys.stderr), Bar(errors, arguments.study) as bar, _helped(arguments, folder, say):
        result = sweep(
            arguments.study,
            folder,
            parameters=parameters,
            seeds=seeds,
            hypotheses=arguments.hypotheses,
            together=arguments.together,
            draws=arguments.draws,
            until_width=arguments.until_width,
            device=find_device(arguments.device),
            labels=arguments.labels or (),
            exact=not arguments.draws_only,
            interval=arguments.interval,
            bounds=arguments.bounds and tuple(arguments.bounds),
            donors=arguments.donors,
            data_uncertainty=arguments.data_uncertainty,
            clusters=arguments.clusters,
            shard=shard,
            set_aside=arguments.without_damaged,
            progress=progress,
            tell=say,
        )
    if arguments.helps is not None:
        return 0
    show_result(result, arguments.out)
    if interrupts.number or (shard is None and not result.status.is_done):
        return interrupts.status
    return 1 if result.status.has_failed else 0


def show_result(result: SweepResult, out: Path) -> None:
    """Print what a sweep has come to, and write its table into its folder."""
    from rich.console import Console

    from pscrub.sweeps.results import TABLE

    console, table = Console(), result.table()
    if len(table.rows) <= TOLD:
        print_table(console, table)
    for line in result.status.below():
        console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
    written = result.write_csv(out / TABLE)
    Console(stderr=True).print(f"wrote {written}", highlight=False, soft_wrap=True)


@contextmanager
def _helped(arguments: argparse.Namespace, folder: SweepFolder, say: Callable[[str], None]) -> Iterator[None]:
    """Within it `--workers` processes, this one among them, work on the sweep."""
    from pscrub.workers import Helpers, share_threads

    if arguments.workers < 1:
        raise StudyError(f"--workers {arguments.workers}; expected 1 or more processes")
    if arguments.workers == 1 or arguments.helps is not None:
        yield
        return
    with share_threads(arguments.workers) as threads:
        start = "import sys; from pscrub.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", start, *arguments.argv, "--helps", str(os.getpid())]
        helpers = Helpers(command, arguments.workers - 1, threads, say)
        folder.is_helped = helpers.tend
        helpers.start()
        try:
            yield
        finally:
            for failed in helpers.stop():
                say(f"a worker failed: {failed}")


def read_grid(texts: list[str]) -> dict[str, list[str]]:
    """Name -> its values, of texts as "rows=100,1000"; several of one name are put together.

    Raises:
        StudyError: with every text of another form.
    """
    found, faults = dict[str, list[str]](), list[str]()
    for text in texts:
        name, equals, values = text.partition("=")
        each = values.split(",")
        if not equals or not name:
            faults.append(f"-P {text}: expected name=value, or name=value,value,...")
        elif not all(each):
            faults.append(f"-P {text}: a value is empty; expected name=value,value,...")
        else:
            found.setdefault(name, []).extend(each)
    if faults:
        raise StudyError(faults)
    return found


def read_seeds(text: str) -> list[int]:
    """The seeds of a text as "0,3,10-19".

    Raises:
        StudyError: it is of another form.
    """
    found = list[int]()
    for each in text.split(","):
        told = re.fullmatch(r"(\d+)(?:-(\d+))?", each.strip())
        if not told or (told[2] and int(told[2]) < int(told[1])):
            raise StudyError(f"--seeds {text}: expected whole numbers with commas, or from-to, as 0,1,10-19")
        found += range(int(told[1]), int(told[2] or told[1]) + 1)
    return found


def add_sweep_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser what `sweep` takes."""
    from pscrub.commands.options import add_drawing_options

    parser.add_argument("study", metavar="STUDY", help="a shipped study's name, or a Python file that defines one")
    about = "the folder of the sweep, which keeps each point in a run folder; the same command again goes on with it"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=about)
    about = "values of a study's parameter, in all combinations with those of others"
    parser.add_argument(
        "-P", action="append", default=[], dest="parameters", metavar="NAME=VALUE,VALUE,...", help=about
    )
    parser.add_argument("--seeds", default="0", metavar="SEED,...", help="as 0,1,10-19 (default: 0)")
    about = "one of the study's, by its whole name (may be given several times; default: all)"
    parser.add_argument("--hypothesis", action="append", default=[], dest="hypotheses", metavar="NAME", help=about)
    about = "hypotheses that share a run folder, and what is computed once for all of them; 0 for all (default: 1)"
    parser.add_argument("--together", type=int, default=1, metavar="K", help=about)
    about = "a column that is a label, where the study does not say (may be given several times)"
    parser.add_argument("--label", action="append", dest="labels", metavar="COLUMN", help=about)
    add_drawing_options(parser)
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="work in N processes (default: 1)")
    parser.add_argument("--helps", type=int, help=argparse.SUPPRESS)  # of whom
    parser.add_argument("--shard", metavar="I/N", help="work only on the I-th of N parts of the points")
    about = "move damaged files of points aside, and make them again"
    parser.add_argument("--without-damaged", action="store_true", help=about)
