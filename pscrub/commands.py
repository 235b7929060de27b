"""The commands that ask more of a study than its losses: what a claim leaves out, permits, and takes for granted."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pscrub.errors import HypothesisError, StudyError, close
from pscrub.estimate.baselines import Baseline
from pscrub.graph.graph import Graph
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Study
from pscrub.questions.ablations import compare_ablations
from pscrub.questions.adversarial.search import adversary
from pscrub.questions.comparison import ROUND
from pscrub.questions.sharing import sharing_table
from pscrub.questions.specificity import frontier
from pscrub.report import answers

Answer = tuple[str, answers.Rows, list[str]]
"""A title, a table and the lines under it."""


def add(commands: Any) -> tuple[argparse.ArgumentParser, ...]:
    """The parsers of these commands, each with `ask`: a study and the arguments -> answers to be printed.

    Args:
        commands: the subparsers of the command line.
    """
    against = commands.add_parser("adversary", help="look for claims whose join with a hypothesis moves its loss")
    against.set_defaults(ask=_adversary)
    against.add_argument("--no-data", action="store_true", help="try the study's features only, none made from data")
    against.add_argument("--at", action="append", metavar="NODE", help="try these claims or nodes only")
    against.add_argument("--steps", type=int, default=2, help="most claims joined one after another (default: 2)")
    against.add_argument("--per-bit", action="store_true", help="prefer claims that forbid little for what they move")
    against.add_argument("--rows", type=int, default=20, help="lines of the table (default: 20)")
    plot = commands.add_parser("frontier", help="loss recovered against the entropy of the scrubbed inputs, in bits")
    plot.set_defaults(ask=_frontier)
    plot.add_argument("--out", type=Path, metavar="FILE", help="also write the picture there, as SVG")
    ways = commands.add_parser("sharing", help="each hypothesis under every way of sharing unimportant inputs")
    ways.set_defaults(ask=_sharing)
    instead = commands.add_parser("ablations", help="each hypothesis under resampling, mean and zero ablation")
    instead.set_defaults(ask=_ablations)
    for parser in (against, ways, instead):
        parser.add_argument("--hypothesis", metavar="NAME", help="one of the study's, or the start of its name")
    for parser in (against, plot, ways, instead):
        parser.add_argument("--draws", type=int, default=ROUND, help=f"of each hypothesis tried (default: {ROUND:,})")
        parser.add_argument("--level", type=float, default=0.95, help="of all intervals together (default: 0.95)")
    return against, plot, ways, instead


def _adversary(study: Study, arguments: argparse.Namespace) -> Iterator[Answer]:
    for hypothesis in _chosen(study, arguments.hypothesis):
        try:
            found = adversary(
                hypothesis,
                study.features,
                from_data=not arguments.no_data,
                nodes=arguments.at,
                draws=arguments.draws,
                steps=arguments.steps,
                per_bit=arguments.per_bit,
                seed=arguments.seed,
                level=arguments.level,
                labels=study.labels,
            )
        except StudyError as error:
            if arguments.hypothesis:
                raise
            yield f"'{hypothesis.name}'", (("claim",), []), list(error.faults)
            continue
        yield f"against '{hypothesis.name}'", answers.moves(found, arguments.rows), answers.below_moves(found)


def _frontier(study: Study, arguments: argparse.Namespace) -> Iterator[Answer]:
    found = frontier(study, draws=arguments.draws, seed=arguments.seed, level=arguments.level)
    lines = [
        f"Frontier: no other hypothesis permits as many bits and recovers more, the intervals of all "
        f"{len(found.rows)} holding together at level {found.level:g} ({found.draws:,} draws of each)."
    ]
    if arguments.out is not None:
        from pscrub.report import plots  # matplotlib takes a second that other commands need not wait

        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(plots.svg(plots.frontier(found), "frontier"), encoding="utf-8")
        lines.append(f"Picture: {arguments.out}")
    yield study.name, answers.frontier(found), lines


def _sharing(study: Study, arguments: argparse.Namespace) -> Iterator[Answer]:
    for hypothesis in _chosen(study, arguments.hypothesis):
        found = sharing_table(
            hypothesis, draws=arguments.draws, seed=arguments.seed, level=arguments.level, labels=study.labels
        )
        yield study.name, answers.sharing(found), list(found.warnings)


def _ablations(study: Study, arguments: argparse.Namespace) -> Iterator[Answer]:
    baselines: dict[Graph, Baseline] = {}
    for hypothesis in _chosen(study, arguments.hypothesis):
        try:
            found = compare_ablations(
                hypothesis,
                arguments.draws,
                arguments.seed,
                labels=study.labels,
                randomised=baselines.get(hypothesis.graph),
            )
        except HypothesisError as error:
            yield hypothesis.name, (("ablation",), []), list(error.faults)
            continue
        baselines[hypothesis.graph] = found.randomised
        yield hypothesis.name, answers.ablations(found, arguments.level), []


def _chosen(study: Study, name: str | None) -> tuple[Hypothesis, ...]:
    every = tuple(study.hypotheses)
    if name is None:
        return every
    found = [h for h in every if h.name == name] or [h for h in every if h.name.startswith(name)]
    if len(found) != 1:
        known = close(name, [h.name for h in every]) if not found else ": several begin so"
        raise StudyError(f"study '{study.name}' has no hypothesis '{name}'{known}")
    return tuple(found)
