"""The command line: list, show and verify studies, and the way to all other commands. It and `running` alone print.

Standard output holds the answer; what a study's own functions print while they work goes to standard error.

A command imports what it needs when it is asked for: torch takes seconds that `--help` and `list` need not wait.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pscrub.commands import (
    QUESTIONS,
    AddOptions,
    add_show_options,
    add_verify_options,
    check_question,
    load_study,
)
from pscrub.errors import PscrubError, StudyError
from pscrub.progress import interrupts_kept
from pscrub.running import add_run_options, print_table, run_study, write_files
from pscrub.studies import shipped

if TYPE_CHECKING:
    from pscrub.progress import Interrupts
    from pscrub.questions.verification import Verification

LOOK = 2.0
"""Seconds between looks of `status --watch`."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0; 1 if a check of `verify` failed; 2 after a line about bad input, or about rounds that failed
    and are missing; 130, 143 if interrupted.
    """
    with interrupts_kept() as interrupts:
        try:
            arguments = _parser().parse_args(argv)
            arguments.argv = list(sys.argv[1:] if argv is None else argv)
            return int(arguments.command(arguments, interrupts))
        except PscrubError as error:
            print("pscrub:", " ".join("; ".join(error.faults).split()), file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("pscrub: interrupted before there was an estimate", file=sys.stderr)
            return interrupts.status


def _report(arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    from pscrub.report import html
    from pscrub.result.adding import read_result
    from pscrub.result.folder import RunFiles
    from pscrub.result.sharing import RunFolder

    folder = arguments.folder
    if not folder.is_dir():
        raise StudyError(f"no folder '{folder}'; expected one that `pscrub run --out` wrote")
    files = RunFiles(folder)
    if not files.is_run:
        print(html.write_page(read_result(files), folder))
        return 0
    with RunFolder(folder) as files:
        result = read_result(files, arguments.without_damaged)
        print(*write_files(result, folder)[-1:])
    return 0


def _status(arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    from rich.console import Console

    from pscrub.result.folder import RunFiles
    from pscrub.result.status import find_status

    files, console = RunFiles(arguments.folder), Console()
    while True:
        interrupts()
        found = find_status(files)
        print_table(console, found.table())
        for line in found.below():
            console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
        if not arguments.watch or found.is_done:
            return 0
        time.sleep(LOOK)
        if console.is_terminal:
            console.clear()


def _merge(arguments: argparse.Namespace, interrupts: Interrupts) -> int:
    from rich.console import Console

    from pscrub.report import tables
    from pscrub.result.joining import join_folders

    result = join_folders(arguments.folders, arguments.out, arguments.without_damaged)
    console = Console()
    print_table(console, tables.table(result, ()))
    written = write_files(result, arguments.out)
    Console(stderr=True).print("wrote " + ", ".join(map(str, written)), highlight=False, soft_wrap=True)
    return 0


def _list(arguments: argparse.Namespace, _: Interrupts) -> int:
    for name, summary in shipped().items():
        print(f"{name:20} {summary}")
    return 0


def _show(arguments: argparse.Namespace, _: Interrupts) -> int:
    from rich.console import Console

    from pscrub.evaluate.compute import MEMORY
    from pscrub.report import plans, trees

    console = Console()
    if arguments.plan:
        study = load_study(arguments)
        with redirect_stdout(sys.stderr):
            table = plans.plan_table(study, MEMORY)
        print_table(console, table)
        return 0
    if not console.is_terminal:
        console = Console(width=1000)  # in a pipe no line is cut off
    for hypothesis in load_study(arguments).hypotheses:
        with redirect_stdout(sys.stderr):
            tree = trees.hypothesis_tree(hypothesis, arguments.seed)
        console.print(tree)
    return 0


def _ask(arguments: argparse.Namespace, _: Interrupts) -> int:
    from rich.console import Console

    console = Console()
    check_question(arguments)
    answers = arguments.ask(load_study(arguments), arguments)
    while True:
        with redirect_stdout(sys.stderr):
            answer = next(answers, None)
        if answer is None:
            return 0
        table, lines = answer
        if arguments.markdown or isinstance(table, str):
            print(table if isinstance(table, str) else table.markdown())
        else:
            print_table(console, table)
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def _verify(arguments: argparse.Namespace, _: Interrupts) -> int:
    from rich.console import Console

    from pscrub.questions.verification import verify
    from pscrub.report import document as report

    if arguments.draws < 0:
        raise StudyError(f"draws is {arguments.draws}; expected 0 (none) or more")
    console, study, out = Console(), load_study(arguments), sys.stdout

    def show(found: Verification) -> None:
        if arguments.json:
            return
        with redirect_stdout(out):
            print_table(console, found.table())
            for line in found.below:
                console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
            console.print()

    with redirect_stdout(sys.stderr):  # where a study's own functions may print
        result = verify(study, arguments.draws, arguments.seed, show)
    if arguments.json:
        print(report.dumps(report.document(result)))
    for failure in result.failures:
        print(f"pscrub: {failure}", file=sys.stderr)
    return 1 if result.failures else 0


class _Command(argparse.ArgumentParser):
    """The parser of a command, given its options when it is asked for: their defaults stand in modules with torch."""

    add_options: AddOptions | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.add_options is not None:
            self.add_options(self)
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pscrub", description="Causal scrubbing as a probabilistic program: test what a model is claimed to do."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Command)
    for name, command, summary, add_options in (
        ("run", run_study, "scrub a study's hypotheses and print their losses recovered", add_run_options),
        ("status", _status, "how far a folder that runs are drawing into has come", _add_status_options),
        ("merge", _merge, "one folder out of several whose rounds were drawn apart", _add_merge_options),
        ("report", _report, "write report.html anew from what is kept in a folder", _add_report_options),
        ("list", _list, "list the shipped studies", None),
        ("show", _show, "print a study's hypotheses as trees, with one sampled datum", add_show_options),
        ("verify", _verify, "check a study's hypotheses: Lemma 1, entropies, maximum entropy", add_verify_options),
        *((name, _ask, *about) for name, about in QUESTIONS.items()),
    ):
        made = commands.add_parser(name, help=summary)
        made.set_defaults(command=command)
        made.add_options = add_options
    return parser


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `run --out` wrote")
    parser.add_argument("--without-damaged", action="store_true", help="leave damaged files out")


def _add_status_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `run --out` writes")
    parser.add_argument("--watch", action="store_true", help=f"look again every {LOOK:g} s until all is done")


def _add_merge_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="what `run --out` wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for all of it")
    parser.add_argument("--without-damaged", action="store_true", help="leave damaged files out")
