"""`python -m theory`: checks every claim and prints one table. The exit status is 0 if all of them hold."""

from __future__ import annotations

import argparse
import sys
import time

import torch

from theory import (
    closed_form,
    fun_fact_3,
    lemma_1,
    own_datum,
    product_reading,
    soft_agreement,
    theorem_2,
    trace_entropy,
)
from theory.brute import leaves, sites
from theory.case import Case
from theory.cases import cases, depth, read_twice
from theory.routes import Tried
from theory.table import table

CLAIMS = (lemma_1, theorem_2, fun_fact_3, closed_form, trace_entropy, own_datum, product_reading, soft_agreement)
NAMES = tuple(claim.__name__.rpartition(".")[2] for claim in CLAIMS)
ENOUGH = 300
"""From so many cases on, a fault that was planted less than 20 times counts as a failure."""


def main(arguments: list[str] | None = None) -> int:
    """0 if every claim holds and every planted fault was caught, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m theory", description="Checks what is claimed, and prints one table."
    )
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--cases", type=int, default=ENOUGH, help=f"random hypotheses to check on (default {ENOUGH})")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.claims) - set(NAMES))
    if unknown:
        parser.error(f"no claim {', '.join(unknown)}; known: {', '.join(NAMES)}")
    start = time.monotonic()
    torch.set_num_threads(1)  # noqa: TID251 - nobody calls this; tables are small, a second thread gets in the way
    tries = [Tried(case) for case in cases(chosen.cases)]
    least = 20 if chosen.cases >= ENOUGH else 0
    reports = [
        claim.check(tries, least) for claim, name in zip(CLAIMS, NAMES, strict=True) if name in (chosen.claims or NAMES)
    ]
    print(described([tried.case for tried in tries]))
    print(table(reports))
    failed = [report.claim for report in reports if not report.holds]
    print(f"{'not all hold: ' + ', '.join(failed) if failed else 'all hold'}; {time.monotonic() - start:.0f} s")
    return int(bool(failed))


def described(listed: list[Case]) -> str:
    """One line: what kinds of case there are, and how many of each."""
    n_leaves = [len(leaves(case)) for case in listed]
    kinds = {
        "not uniform": [not case.uniform for case in listed],
        "with weights of zero": [0 in case.weights for case in listed],
        "with repeated rows": [len(set(case.x)) < len(case.x) for case in listed],
        "with nodes read twice": [read_twice(case) for case in listed],
        "with unimportant inputs": [any(site.claim is None for site in sites(case)) for case in listed],
    }
    counted = ", ".join(f"{sum(each)} {what}" for what, each in kinds.items())
    deepest = max(depth(case) for case in listed)
    return f"{len(listed)} cases: {counted}; {min(n_leaves)} to {max(n_leaves)} leaves, depth to {deepest}"


if __name__ == "__main__":
    sys.exit(main())
