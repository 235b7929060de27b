"""What `run` takes."""

from __future__ import annotations

import argparse
from pathlib import Path

from pscrub.commands.costs import CLAIM_DRAWS
from pscrub.commands.studies import add_study_options


def add_run_options(run: argparse.ArgumentParser) -> None:
    """Give a parser what `run` takes."""
    from pscrub.result.crews import TRIES

    add_drawing_options(run)
    about = "keep each round of draws there, go on with what is kept, and write report.html, result.nc, result.json"
    run.add_argument("--out", type=Path, metavar="DIR", help=about)
    about = "start over, in DIR-2 if DIR is there, and so on"
    run.add_argument("--fresh", action="store_true", help=about)
    about = (
        "who draws rounds: N processes that share the folder, or threads:N, processes:N, ray, ray://HOST:PORT, which "
        "this one gives them to; ray:gpus=0.5, and ray://HOST:PORT:gpus=0.5, give each half a GPU (default: 1)"
    )
    run.add_argument("--workers", default="1", metavar="N", help=about)
    about = f"how often a round is tried whose worker dies, or in which the model's code raises (default: {TRIES})"
    run.add_argument("--tries", type=int, default=TRIES, metavar="N", help=about)
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


def add_drawing_options(run: argparse.ArgumentParser) -> None:
    """Give a parser what is about draws, and about what is concluded from them."""
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
