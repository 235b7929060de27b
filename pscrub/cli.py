"""The command line: list, show and verify studies, and the way to all other commands. It and `commands` alone print.

Standard output holds the answer; what a study's own functions print while they work goes to standard error.

A command imports what it needs when it is asked for: torch takes seconds that `--help` and `list` need not wait.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from pscrub.commands.folders import (
    add_merge_options,
    add_report_options,
    add_status_options,
    merge_folders,
    report_folder,
    show_status,
)
from pscrub.commands.options import add_run_options
from pscrub.commands.questions import QUESTIONS, check_question
from pscrub.commands.running import run_study
from pscrub.commands.showing import print_table
from pscrub.commands.studies import AddOptions, add_show_options, add_verify_options, load_study
from pscrub.commands.sweeping import add_sweep_options, run_sweep
from pscrub.errors import PscrubError, StudyError
from pscrub.progress import interrupts_kept
from pscrub.studies import shipped

if TYPE_CHECKING:
    from pscrub.progress import Interrupts
    from pscrub.questions.verification import Verification


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0; 1 if a check of `verify` or a point of `sweep` failed; 130, 143 if interrupted; 2 after a
    line about bad input, or about rounds that failed and are missing.
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
        ("sweep", run_sweep, "scrub hypotheses at many parameters and seeds, in one folder", add_sweep_options),
        ("status", show_status, "how far a folder that runs are drawing into has come", add_status_options),
        ("merge", merge_folders, "one folder out of several whose rounds were drawn apart", add_merge_options),
        ("report", report_folder, "write report.html anew from what is kept in a folder", add_report_options),
        ("list", _list, "list the shipped studies", None),
        ("show", _show, "print a study's hypotheses as trees, with one sampled datum", add_show_options),
        ("verify", _verify, "check a study's hypotheses: Lemma 1, entropies, maximum entropy", add_verify_options),
        *((name, _ask, *about) for name, about in QUESTIONS.items()),
    ):
        made = commands.add_parser(name, help=summary)
        made.set_defaults(command=command)
        made.add_options = add_options
    return parser
