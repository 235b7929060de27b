"""The commands that ask more of a study than its losses: what a claim leaves out, permits, and takes for granted."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pscrub.commands.studies import AddOptions, add_hypothesis_option, add_study_options, choose_hypotheses
from pscrub.errors import HypothesisError, NothingToTryError, StudyError

if TYPE_CHECKING:
    from pscrub.estimate.baselines import Baseline
    from pscrub.graph.graph import Graph
    from pscrub.hypothesis.study import Study
    from pscrub.result.table import Table

Answer = tuple["Table | str", list[str]]
"""A table (or one JSON document, to be printed as it is) and the lines under it."""


def check_question(arguments: argparse.Namespace) -> None:
    """See that a question can be answered and its picture written, before a study is loaded and work done.

    Raises:
        StudyError: with every option that makes no sense, or a picture that cannot be written.
    """
    faults = []
    if getattr(arguments, "draws", 1) < 1:
        faults.append(f"draws is {arguments.draws}; expected at least 1 of each hypothesis; try 8192")
    if not 0 < getattr(arguments, "level", 0.5) < 1:
        faults.append(f"level is {arguments.level:g}; expected between 0 and 1; try 0.95")
    if arguments.seed < 0:
        faults.append(f"seed is {arguments.seed}; expected 0 or more")
    if faults:
        raise StudyError(faults)
    if getattr(arguments, "out", None) is not None:
        from pscrub.report.document import check_folder

        if arguments.out.is_dir():
            raise StudyError(f"cannot write picture '{arguments.out}': it is a folder; name a file, as frontier.svg")
        check_folder(arguments.out.parent)


def _add_adversary_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(ask=_adversary)
    parser.add_argument("--no-data", action="store_true", help="try the study's features only, none made from data")
    parser.add_argument("--at", action="append", metavar="NODE", help="try these claims or nodes only")
    parser.add_argument("--steps", type=int, default=2, help="most claims joined one after another (default: 2)")
    parser.add_argument("--per-bit", action="store_true", help="prefer claims that forbid little for what they move")
    about = "share of the rows that confirm what holds in the population; 0 where D is all there is (default: 0.5)"
    parser.add_argument("--held-out", type=float, default=0.5, metavar="SHARE", help=about)
    about = "rows of one value of it are not independent of one another, as of one template or document"
    parser.add_argument("--clusters", metavar="COLUMN", help=about)
    parser.add_argument("--rows", type=int, default=20, help="lines of the table (default: 20)")
    add_hypothesis_option(parser)
    _add_options(parser)


def _add_frontier_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(ask=_frontier)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the picture there, as SVG")
    _add_options(parser)


def _add_sharing_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(ask=_sharing)
    add_hypothesis_option(parser)
    _add_options(parser)


def _add_ablations_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(ask=_ablations)
    parser.add_argument(
        "--partner", metavar="COLUMN", help="rows of D: one counterfactual for each row, as a fourth kind"
    )
    add_hypothesis_option(parser)
    _add_options(parser)


def _add_pessimal_options(parser: argparse.ArgumentParser) -> None:
    from pscrub.law.exact import CELLS

    parser.set_defaults(ask=_pessimal)
    parser.add_argument("--limit", type=int, default=CELLS, metavar="N", help=f"most combinations (default: {CELLS:,})")
    add_hypothesis_option(parser)
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    add_study_options(parser)


def _add_resolution_options(parser: argparse.ArgumentParser) -> None:
    from pscrub.hypothesis.cutting import WAYS
    from pscrub.questions.mixtures import OFFSETS
    from pscrub.questions.resolution import BINS

    parser.set_defaults(ask=_resolution)
    about = "the claim, or its node, whose real values are cut (default: the one whose feature is bins)"
    parser.add_argument("--claim", metavar="NAME", help=about)
    about = f"numbers of bins, with commas (default: {','.join(map(str, BINS))}, as far as there are values)"
    parser.add_argument("--bins", metavar="K,K,...", help=about)
    parser.add_argument("--by", choices=WAYS, help="how to cut (default: as the claim's bins are, else by quantiles)")
    about = f"also cut with random offsets, N of them (default: {OFFSETS})"
    parser.add_argument("--offsets", type=int, nargs="?", const=OFFSETS, default=0, metavar="N", help=about)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the picture there, as SVG")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    add_hypothesis_option(parser)
    _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    from pscrub.estimate.stopping import ROUND

    parser.add_argument("--draws", type=int, default=ROUND, help=f"of each hypothesis tried (default: {ROUND:,})")
    parser.add_argument("--level", type=float, default=0.95, help="of all intervals together (default: 0.95)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    add_study_options(parser)


QUESTIONS: dict[str, tuple[str, AddOptions]] = {
    "adversary": ("look for claims whose join with a hypothesis moves its loss", _add_adversary_options),
    "frontier": ("loss recovered against the entropy of the scrubbed inputs, in bits", _add_frontier_options),
    "resolution": ("loss recovered and bits against how finely a real value is cut into bins", _add_resolution_options),
    "sharing": ("each hypothesis under every way of sharing unimportant inputs", _add_sharing_options),
    "ablations": ("each hypothesis under resampling, mean and zero ablation", _add_ablations_options),
    "pessimal": ("each hypothesis with the worst donors that it permits, exactly", _add_pessimal_options),
}
"""Each command -> one line about it, and what gives its parser its options and `ask`: study, arguments -> answers."""


def _adversary(study: Study, arguments: argparse.Namespace) -> Iterator[Answer]:
    from pscrub.hypothesis.tree import unroll
    from pscrub.questions.adversarial.offers import check_nodes, known_nodes
    from pscrub.questions.adversarial.search import adversary
    from pscrub.result.table import Table

    if arguments.rows < 1:
        raise StudyError(f"rows is {arguments.rows}; expected 1 or more lines of the table; try 20")
    chosen = choose_hypotheses(study, arguments.hypothesis)
    if arguments.at:
        check_nodes([unroll(hypothesis) for hypothesis in chosen], arguments.at)
    for hypothesis in chosen:
        nodes = arguments.at and [name for name in arguments.at if name in known_nodes(unroll(hypothesis))]
        try:
            found = adversary(
                hypothesis,
                study.features,
                from_data=not arguments.no_data,
                nodes=nodes,
                draws=arguments.draws,
                steps=arguments.steps,
                per_bit=arguments.per_bit,
                seed=arguments.seed,
                level=arguments.level,
                held_out=arguments.held_out,
                clusters=arguments.clusters,
                labels=study.labels,
            )
        except NothingToTryError as error:
            if arguments.hypothesis:
                raise
            yield Table(("claim",), (), title=f"'{hypothesis.name}'"), list(error.faults)
            continue
        yield replace(found.table(arguments.rows), title=f"against '{hypothesis.name}'"), list(found.below)


def _frontier(study: Study, arguments: argparse.Namespace) -> Iterator[Answer]:
    from pscrub.questions.specificity import frontier

    found = frontier(study, draws=arguments.draws, seed=arguments.seed, level=arguments.level)
    said = "Frontier: no other hypothesis permits as many bits and recovers more, the intervals of all"
    lines = [f"{said} {len(found.rows)} holding together at level {found.level:g} ({found.draws:,} draws of each)."]
    if arguments.out is not None:
        from pscrub.report import plots
        from pscrub.report.document import write_text

        write_text(arguments.out, plots.svg(plots.plot_frontier(found), "frontier"))
        lines.append(f"Picture: {arguments.out}")
    yield replace(found.table(), title=study.name), lines


def _resolution(study: Study, arguments: argparse.Namespace) -> Iterator[Answer]:
    from pscrub.hypothesis.cutting import find_claim
    from pscrub.questions.resolution import resolution_curve
    from pscrub.report.document import dumps

    chosen = []
    for hypothesis in choose_hypotheses(study, arguments.hypothesis):
        try:
            find_claim(hypothesis, arguments.claim)
            chosen.append(hypothesis)
        except HypothesisError:  # a study's others may have no such claim
            if arguments.hypothesis:
                raise
    if not chosen:
        wanted = "one claim whose feature is bins" if arguments.claim is None else f"one claim '{arguments.claim}'"
        raise StudyError(f"no hypothesis of study '{study.name}' has {wanted}; name another with --claim")
    try:
        bins = None if arguments.bins is None else [int(k) for k in arguments.bins.split(",")]
    except ValueError as error:
        raise StudyError(f"--bins {arguments.bins}: expected whole numbers with commas, as 2,4,8") from error
    found = []
    for hypothesis in chosen:
        about = {"by": arguments.by, "offsets": arguments.offsets, "labels": study.labels}
        sample = {"draws": arguments.draws, "seed": arguments.seed, "level": arguments.level}
        found.append(resolution_curve(hypothesis, arguments.claim, bins, **about, **sample))
    if arguments.json:
        yield dumps({"study": study.name, "seed": arguments.seed, "curves": [each.as_document() for each in found]}), []
    else:
        for each in found:
            yield replace(each.table(), title=f"{each.hypothesis}, '{each.claim}' by {each.by}"), list(each.warnings)
    if arguments.out is not None:
        from pscrub.report import plots

        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(plots.svg(plots.plot_resolution(found), "resolution"), encoding="utf-8")


def _sharing(study: Study, arguments: argparse.Namespace) -> Iterator[Answer]:
    from pscrub.questions.sharing import sharing_table

    for hypothesis in choose_hypotheses(study, arguments.hypothesis):
        found = sharing_table(
            hypothesis, draws=arguments.draws, seed=arguments.seed, level=arguments.level, labels=study.labels
        )
        yield replace(found.table(), title=study.name), list(found.warnings)


def _ablations(study: Study, arguments: argparse.Namespace) -> Iterator[Answer]:
    from pscrub.questions.ablations import compare_ablations
    from pscrub.result.table import Table

    baselines: dict[Graph, Baseline] = {}
    for hypothesis in choose_hypotheses(study, arguments.hypothesis):
        try:
            found = compare_ablations(
                hypothesis,
                arguments.draws,
                arguments.seed,
                partner=arguments.partner,
                labels=study.labels,
                randomised=baselines.get(hypothesis.graph),
            )
        except HypothesisError as error:
            yield Table(("ablation",), (), title=hypothesis.name), list(error.faults)
            continue
        baselines[hypothesis.graph] = found.randomised
        yield replace(found.table(arguments.level), title=hypothesis.name), []


def _pessimal(study: Study, arguments: argparse.Namespace) -> Iterator[Answer]:
    from pscrub.questions.worst import scrub_pessimally

    study = replace(study, hypotheses=choose_hypotheses(study, arguments.hypothesis))
    found = scrub_pessimally(study, limit=arguments.limit, seed=arguments.seed)
    yield replace(found.table(), title=study.name), list(found.below)
