"""What commands take that are about a study, and the study that is made of it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING

from pscrub.errors import StudyError, close
from pscrub.studies import load

if TYPE_CHECKING:
    from pscrub.hypothesis.hypothesis import Hypothesis
    from pscrub.hypothesis.study import Study

AddOptions = Callable[[argparse.ArgumentParser], None]
"""What gives a command's parser its options."""


def add_study_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser what all commands take that are about a study."""
    parser.add_argument("study", metavar="STUDY", help="a shipped study's name, or a Python file that defines one")
    parser.add_argument("--seed", type=int, default=0, help="names the draws (default: 0)")
    parser.add_argument(
        "-P", action="append", default=[], dest="parameters", metavar="NAME=VALUE", help="a study's parameter"
    )
    about = "a column that is a label, where the study does not say (may be given several times)"
    parser.add_argument("--label", action="append", dest="labels", metavar="COLUMN", help=about)


def add_show_options(show: argparse.ArgumentParser) -> None:
    """Give a parser what `show` takes."""
    about = (
        "print in their place what each takes beside one run of the model: operations for each draw, values kept on D"
    )
    show.add_argument("--plan", action="store_true", help=about)
    add_study_options(show)


def add_verify_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser what `verify` takes."""
    from pscrub.questions.verification import DRAWS

    about = f"where exact checks cannot reach (default: {DRAWS:,})"
    parser.add_argument("--draws", type=int, default=DRAWS, help=about)
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    add_study_options(parser)


def load_study(arguments: argparse.Namespace) -> Study:
    """The study of the arguments, made with their parameters (and labels); what it prints goes to standard error.

    Raises:
        StudyError: as `pscrub.studies.load`, and a parameter that is not written name=value.
    """
    pairs: dict[str, str] = {}
    for text in arguments.parameters:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise StudyError(f"-P {text}: expected name=value")
        pairs[name] = value
    with redirect_stdout(sys.stderr):
        study = load(arguments.study, pairs)
    return study if arguments.labels is None else replace(study, labels=arguments.labels)


def add_hypothesis_option(parser: argparse.ArgumentParser) -> None:
    """Give a parser the option that names one hypothesis."""
    parser.add_argument("--hypothesis", metavar="NAME", help="one of the study's, or the start of its name")


def choose_hypotheses(study: Study, name: str | None) -> tuple[Hypothesis, ...]:
    """The study's hypotheses, or the one of that name, or whose name alone begins so.

    Raises:
        StudyError: there is none, or several begin so.
    """
    every = tuple(study.hypotheses)
    if name is None:
        return every
    found = [h for h in every if h.name == name] or [h for h in every if h.name.startswith(name)]
    if len(found) != 1:
        known = close(name, [h.name for h in every]) if not found else ": several begin so"
        raise StudyError(f"study '{study.name}' has no hypothesis '{name}'{known}")
    return tuple(found)


def read_shard(text: str | None) -> tuple[int, int] | None:
    """(i, n) of a text as "3/7"; None of none.

    Raises:
        StudyError: it is of another form.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise StudyError(f"--shard {text}: expected i/n with i from 1 to n, as 3/7")
    return int(found[1]), int(found[2])
