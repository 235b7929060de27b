"""The command line: run, report, list, show and verify studies. The only module that prints.

Standard output holds the answer; what a study's own functions print while they work goes to standard error.

A command imports what it needs when it is asked for: torch takes seconds that `--help` and `list` need not wait.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pscrub.commands import (
    QUESTIONS,
    AddOptions,
    add_report_options,
    add_show_options,
    add_study_options,
    add_verify_options,
    check_question,
    cost_claims,
    load_study,
)
from pscrub.errors import PscrubError, StudyError
from pscrub.progress import interrupts_kept
from pscrub.studies import shipped

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from pscrub.hypothesis.study import Study
    from pscrub.questions.verification import Verification
    from pscrub.result.result import ScrubResult, StudyResult
    from pscrub.result.table import Table

CLAIM_DRAWS = 4096
"""Draws with each claim alone, and without it, where `--claims` does not say."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0; 1 if a check of `verify` failed; 2 after one line about bad input; 130 after an interrupt."""
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.command(arguments))
    except PscrubError as error:
        print("pscrub:", " ".join("; ".join(error.faults).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pscrub: interrupted before there was an estimate", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from pscrub.questions.worked import DRAWS, agreements, figures_table
    from pscrub.report import document as report
    from pscrub.report import tables
    from pscrub.report.measured import measures
    from pscrub.result.result import StudyResult
    from pscrub.scrub import scrub

    device = _device(arguments.device)
    if arguments.out is not None:
        report.check_folder(arguments.out)
    errors = Console(stderr=True)
    after = None if arguments.after is None else StudyResult.load(arguments.after)
    study = load_study(arguments)
    if arguments.by:
        study = replace(study, by=tuple(dict.fromkeys((*study.by, *arguments.by))))

    def save(so_far: StudyResult) -> None:
        if arguments.out is not None:
            report.write(so_far, arguments.out)

    with redirect_stdout(sys.stderr), _Bar(errors, study) as bar, interrupts_kept() as raise_again:

        def progress(phase: str, done: int, total: int) -> None:
            raise_again()
            bar.progress(phase, done, total)

        result = scrub(
            study,
            draws=arguments.draws,
            until_width=arguments.until_width,
            seed=arguments.seed,
            device=device,
            interval=arguments.interval,
            bounds=arguments.bounds and tuple(arguments.bounds),
            data_uncertainty=arguments.data_uncertainty,
            exact=not arguments.draws_only,
            clusters=arguments.clusters,
            progress=progress,
            each=bar.each,
            save=save,
            after=after,
        )
    if result.cut_short and not result.results:
        raise KeyboardInterrupt
    if arguments.claims and not result.cut_short:
        tell = partial(errors.print, highlight=False, markup=False, soft_wrap=True)
        with redirect_stdout(sys.stderr):
            result = cost_claims(result, study, arguments.claims, tell)
    with redirect_stdout(sys.stderr):
        found = agreements(study, result, arguments.draws or DRAWS, arguments.seed)
    if arguments.json:
        print(report.dumps(report.document(result, found)))
    else:
        console = Console()
        _print_table(console, tables.table(result, found))
        if arguments.measures:
            _print_table(console, measures(study, result))
        for line in tables.below(result):
            console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
        if found:
            console.print()
            _print_table(console, figures_table(found))
    if arguments.out is not None:
        written = [*report.write(result, arguments.out, found), _write_page(result, arguments.out)]
        errors.print("wrote " + ", ".join(map(str, written)), highlight=False, soft_wrap=True)
    return 130 if result.cut_short else 0


def _print_table(console: Console, table: Table) -> None:
    """Print a table, the console being made wide enough that no figure is cut off and, in a pipe, no line broken."""
    shown = table.rich()
    needed = type(console)(width=1000).measure(shown)
    console.width = max(console.width, needed.minimum if console.is_terminal else needed.maximum)
    console.print(shown)


def _report(arguments: argparse.Namespace) -> int:
    from pscrub.result.result import StudyResult

    if not arguments.folder.is_dir():
        raise StudyError(f"no folder '{arguments.folder}'; expected one that `pscrub run --out` wrote")
    print(_write_page(StudyResult.load(arguments.folder), arguments.folder))
    return 0


def _write_page(result: StudyResult, folder: Path) -> Path:
    from pscrub.report import html

    return html.write_page(result, folder)


def _list(arguments: argparse.Namespace) -> int:
    for name, summary in shipped().items():
        print(f"{name:20} {summary}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from pscrub.evaluate.compute import MEMORY
    from pscrub.report import plans, trees

    console = Console()
    if arguments.plan:
        study = load_study(arguments)
        with redirect_stdout(sys.stderr):
            table = plans.plan_table(study, MEMORY)
        _print_table(console, table)
        return 0
    if not console.is_terminal:
        console = Console(width=1000)  # in a pipe no line is cut off
    for hypothesis in load_study(arguments).hypotheses:
        with redirect_stdout(sys.stderr):
            tree = trees.hypothesis_tree(hypothesis, arguments.seed)
        console.print(tree)
    return 0


def _ask(arguments: argparse.Namespace) -> int:
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
            _print_table(console, table)
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def _verify(arguments: argparse.Namespace) -> int:
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
            _print_table(console, found.table())
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


class _Bar:
    """Progress on standard error: a bar a phase on a terminal, a line a result elsewhere."""

    def __init__(self, console: Console, study: Study) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.total, self.done = len(study.hypotheses), 0
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task(study.name, total=None)

    def progress(self, phase: str, done: int, total: int) -> None:
        self.bar.update(self.task, description=f"{self.done}/{self.total} {phase}", completed=done, total=total)

    def each(self, result: ScrubResult) -> None:
        self.done += 1
        name, *_, recovered, interval, draws = result.cells
        drawn = "" if result.scrubbed.exact else f", {draws} draws"
        line = f"{self.done}/{self.total}  {name}: {recovered} % recovered {interval}{drawn}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=not self.console.is_terminal)

    def __enter__(self) -> _Bar:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # which a device without data, as "meta", cannot do
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        have = "cpu, cuda" if torch.cuda.is_available() else "cpu (no CUDA device is there)"
        raise StudyError(f"unknown or unusable device '{name}'; this machine has {have}") from error
    return device


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
        ("run", _run, "scrub a study's hypotheses and print their losses recovered", _add_run_options),
        ("report", _report, "write report.html anew from a saved result", add_report_options),
        ("list", _list, "list the shipped studies", None),
        ("show", _show, "print a study's hypotheses as trees, with one sampled datum", add_show_options),
        ("verify", _verify, "check a study's hypotheses: Lemma 1, entropies, maximum entropy", add_verify_options),
        *((name, _ask, *about) for name, about in QUESTIONS.items()),
    ):
        made = commands.add_parser(name, help=summary)
        made.set_defaults(command=command)
        made.add_options = add_options
    return parser


def _add_run_options(run: argparse.ArgumentParser) -> None:
    from pscrub.estimate.estimate import INTERVALS
    from pscrub.estimate.stopping import WIDTH

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
    about = "also give the values in the population that the data are a sample of, with the data's uncertainty"
    run.add_argument("--data-uncertainty", action="store_true", help=about)
    about = "so, rows of one value of a column (template, document) not being independent of one another"
    run.add_argument("--clusters", metavar="COLUMN", help=about)
    run.add_argument("--device", default="cpu", help="where the model runs: cpu, cuda, cuda:1, ...")
    about = "write report.html, result.nc, result.json and table.md there"
    run.add_argument("--out", type=Path, metavar="DIR", help=about)
    run.add_argument("--after", type=Path, metavar="DIR", help="go on from the result there: more draws, one interval")
    about = "break losses down by a dataset column"
    run.add_argument("--by", action="append", default=[], metavar="COLUMN", help=about)
    about = f"also find what each claim costs, with N draws of each variant (default: {CLAIM_DRAWS:,})"
    run.add_argument("--claims", type=int, nargs="?", const=CLAIM_DRAWS, default=0, metavar="N", help=about)
    about = "also print how far outputs moved, how often the answer did, and bits of scrubbed entropy"
    shown = run.add_mutually_exclusive_group()
    shown.add_argument("--measures", action="store_true", help=about)
    shown.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    add_study_options(run)
