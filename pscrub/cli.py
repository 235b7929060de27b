"""The command line: run, report, list, show and verify studies. The only module that prints."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pscrub import commands as questions
from pscrub.errors import PscrubError, StudyError
from pscrub.estimate.estimate import INTERVALS
from pscrub.hypothesis.study import Study
from pscrub.questions.claims import claim_costs
from pscrub.questions.verification import DRAWS, Verification, verify
from pscrub.questions.worked import DRAWS as FIGURE_DRAWS
from pscrub.questions.worked import agreements
from pscrub.report import answers, tables, trees
from pscrub.report import document as report
from pscrub.result.result import ScrubResult, StudyResult, cells
from pscrub.scrub import WIDTH, scrub
from pscrub.studies import load, shipped

CLAIM_DRAWS = 4096
"""Draws with each claim alone, and without it, where `--claims` does not say."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0; 1 if a check of `verify` failed; 2 after one line about bad input; 130 after an interrupt."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except PscrubError as error:
        print("pscrub:", " ".join("; ".join(error.faults).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pscrub: interrupted before there was an estimate", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    device = _device(arguments.device)
    if arguments.out is not None:
        report.check_folder(arguments.out)
    errors = Console(stderr=True)
    after = None if arguments.after is None else StudyResult.load(arguments.after)
    study = load(arguments.study, _parameters(arguments.parameters))
    if arguments.by:
        study = replace(study, by=tuple(dict.fromkeys((*study.by, *arguments.by))))

    def save(so_far: StudyResult) -> None:
        if arguments.out is not None:
            report.write(so_far, arguments.out)

    with _Bar(errors, study) as bar, _termination_interrupts():
        result = scrub(
            study,
            draws=arguments.draws,
            until_width=arguments.until_width,
            seed=arguments.seed,
            device=device,
            interval=arguments.interval,
            bounds=arguments.bounds and tuple(arguments.bounds),
            data_uncertainty=arguments.data_uncertainty,
            progress=bar.progress,
            each=bar.each,
            save=save,
            after=after,
        )
    if result.cut_short and not result.results:
        raise KeyboardInterrupt
    if arguments.claims and not result.cut_short:
        result = _with_claims(result, study, arguments.claims, errors)
    found = agreements(study, result, arguments.draws or FIGURE_DRAWS, arguments.seed)
    if arguments.json:
        print(report.dumps(report.document(result, found)))
    else:
        console = Console()
        _print_table(console, tables.table(result, found))
        for line in tables.below(result):
            console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
        if found:
            console.print()
            _print_table(console, tables.figures_table(found))
    if arguments.out is not None:
        written = [*report.write(result, arguments.out, found), _written(result, arguments.out)]
        errors.print("wrote " + ", ".join(map(str, written)), highlight=False, soft_wrap=True)
    return 130 if result.cut_short else 0


def _print_table(console: Console, table: Table) -> None:
    needed = Console(width=1000).measure(table)  # no figure is cut off, and in a pipe no line is broken
    console.width = max(console.width, needed.minimum if console.is_terminal else needed.maximum)
    console.print(table)


def _with_claims(result: StudyResult, study: Study, draws: int, errors: Console) -> StudyResult:
    """The result with what each claim costs; on an interrupt, of the hypotheses done so far."""
    done = list(result.results)
    try:
        for i, (each, hypothesis) in enumerate(zip(done, study.hypotheses, strict=True)):
            if not each.scrubbed.exact:
                costs = claim_costs(
                    hypothesis,
                    draws=draws,
                    seed=result.seed,
                    level=result.level,
                    labels=study.labels,
                    device=result.device,
                    randomised=each.randomised,
                )
                done[i] = replace(each, claims=tuple(report.claim_figures(cost) for cost in costs))
                errors.print(f"{each.hypothesis}: {len(costs)} claims", highlight=False, markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        return replace(result, results=tuple(done), cut_short=True)
    return replace(result, results=tuple(done))


def _report(arguments: argparse.Namespace) -> int:
    if not arguments.folder.is_dir():
        raise StudyError(f"no folder '{arguments.folder}'; expected one that `pscrub run --out` wrote")
    print(_written(StudyResult.load(arguments.folder), arguments.folder))
    return 0


def _written(result: StudyResult, folder: Path) -> Path:

    from pscrub.report import html  # matplotlib takes a second that other commands need not wait

    return html.write(result, folder)


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Within it, being asked to end (SIGTERM) is an interrupt: the estimates so far are printed and written."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread, which alone can
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _list(arguments: argparse.Namespace) -> int:
    for name, summary in shipped().items():
        print(f"{name:20} {summary}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)  # in a pipe no line is cut off
    for hypothesis in load(arguments.study, _parameters(arguments.parameters)).hypotheses:
        console.print(trees.hypothesis_tree(hypothesis, arguments.seed))
    return 0


def _ask(arguments: argparse.Namespace) -> int:
    console = Console()
    for title, rows, lines in arguments.ask(load(arguments.study, _parameters(arguments.parameters)), arguments):
        table = answers.rich(rows, title)
        needed = Console(width=1000).measure(table)
        console.width = max(console.width, needed.minimum if console.is_terminal else needed.maximum)
        if arguments.markdown:
            print(answers.markdown(rows))
        else:
            console.print(table)
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.draws < 0:
        raise StudyError(f"draws is {arguments.draws}; expected 0 (none) or more")
    console, study = Console(), load(arguments.study, _parameters(arguments.parameters))

    def show(found: Verification) -> None:
        if not arguments.json:
            console.print(answers.budget_table(found), soft_wrap=not console.is_terminal)
            for line in answers.below_verification(found):
                console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
            console.print()

    result = verify(study, arguments.draws, arguments.seed, show)
    if arguments.json:
        print(report.dumps(report.verification_document(result)))
    for failure in result.failures:
        print(f"pscrub: {failure}", file=sys.stderr)
    return 1 if result.failures else 0


class _Bar:
    """Progress on standard error: a bar a phase on a terminal, a line a result elsewhere."""

    def __init__(self, console: Console, study: Study) -> None:
        self.total, self.done = len(study.hypotheses), 0
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task(study.name, total=None)

    def progress(self, phase: str, done: int, total: int) -> None:
        self.bar.update(self.task, description=f"{self.done}/{self.total} {phase}", completed=done, total=total)

    def each(self, result: ScrubResult) -> None:
        self.done += 1
        name, *_, recovered, interval, draws = cells(result)
        line = f"{self.done}/{self.total}  {name}: {recovered} % recovered {interval}, {draws} draws"
        self.console.print(line, highlight=False, markup=False, soft_wrap=not self.console.is_terminal)

    def __enter__(self) -> _Bar:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros((), device=device).item()  # which a device without data, as "meta", cannot do
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        have = "cpu, cuda" if torch.cuda.is_available() else "cpu (no CUDA device is there)"
        raise StudyError(f"unknown or unusable device '{name}'; this machine has {have}") from error
    return device


def _parameters(given: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise StudyError(f"-P {text}: expected name=value")
        pairs[name] = value
    return pairs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pscrub", description="Causal scrubbing as a probabilistic program: test what a model is claimed to do."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="scrub a study's hypotheses and print their losses recovered")
    run.set_defaults(command=_run)
    stop = run.add_mutually_exclusive_group()
    stop.add_argument("--draws", type=int, help="draws of each hypothesis")
    stop.add_argument(
        "--until-width",
        type=float,
        metavar="W",
        help=f"draw until each interval is W points of loss recovered wide (default: {WIDTH:g})",
    )
    run.add_argument(
        "--interval",
        choices=INTERVALS,
        default="auto",
        help="the kind of interval; auto picks what suits the losses, and says so (default: auto)",
    )
    run.add_argument(
        "--bounds",
        type=float,
        nargs=2,
        metavar=("LEAST", "GREATEST"),
        help="the least and greatest f there can be, for betting and bernstein (0/1 losses are recognised)",
    )
    run.add_argument(
        "--data-uncertainty",
        action="store_true",
        help="also give the uncertainty of the data as a sample, apart and together with the draws'",
    )
    run.add_argument("--device", default="cpu", help="where the model runs: cpu, cuda, cuda:1, ...")
    run.add_argument(
        "--out", type=Path, metavar="DIR", help="write report.html, result.nc, result.json and table.md there"
    )
    run.add_argument("--after", type=Path, metavar="DIR", help="go on from the result there: more draws, one interval")
    run.add_argument(
        "--by", action="append", default=[], metavar="COLUMN", help="break losses down by a dataset column"
    )
    run.add_argument(
        "--claims",
        type=int,
        nargs="?",
        const=CLAIM_DRAWS,
        default=0,
        metavar="N",
        help=f"also find what each claim costs, with N draws of each variant (default: {CLAIM_DRAWS:,})",
    )
    run.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    again = commands.add_parser("report", help="write report.html anew from a saved result")
    again.set_defaults(command=_report)
    again.add_argument("folder", type=Path, metavar="DIR", help="what `run --out` wrote")
    listing = commands.add_parser("list", help="list the shipped studies")
    listing.set_defaults(command=_list)
    show = commands.add_parser("show", help="print a study's hypotheses as trees, with one sampled datum")
    show.set_defaults(command=_show)
    check = commands.add_parser("verify", help="check a study's hypotheses: Lemma 1, entropies, maximum entropy")
    check.set_defaults(command=_verify)
    check.add_argument("--draws", type=int, default=DRAWS, help=f"where exact checks cannot reach (default: {DRAWS:,})")
    check.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    asking = questions.add(commands)
    for command in asking:
        command.set_defaults(command=_ask)
        command.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    for command in (run, show, check, *asking):
        command.add_argument("study", metavar="STUDY", help="a shipped study's name, or a Python file that defines one")
        command.add_argument("--seed", type=int, default=0, help="names the draws (default: 0)")
        command.add_argument(
            "-P", action="append", default=[], dest="parameters", metavar="NAME=VALUE", help="a study's parameter"
        )
    return parser
