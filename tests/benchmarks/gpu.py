"""CPU and GPU beside each other in one call: `python -m tests.benchmarks.gpu [--device cuda] [--quick] [...]`.

Checks that both give the same estimates, then prints the time of everything on both, of what is computed for draws as
one compiled function, and of SmolLM2 (where the extra `smollm2` is installed) beside its own forwards. Ends with status
1 if they differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from pscrub import StudyResult
from pscrub.studies import load
from tests.benchmarks import brackets, compiled, draws, language
from tests.benchmarks.__main__ import parser
from tests.benchmarks.timing import machine, table, unusable

TOLERANCE = 0.05
"""Most that an estimate may differ, in standard errors: the draws are the same, only the model's rounding differs."""


def main(argv: list[str] | None = None) -> int:
    """The exit status: 1 if the devices disagree, 2 if the device cannot be had."""
    arguments = parser(argparse.ArgumentParser(description=__doc__.splitlines()[0]), device="cuda").parse_args(argv)
    if fault := unusable(arguments.device):
        print(fault, file=sys.stderr)
        return 2
    print(machine(arguments.device), flush=True)
    agreed = True
    for part in report(arguments):
        agreed &= part != DIFFER
        print(f"\n{part}", flush=True)
    return 0 if agreed else 1


DIFFER = "**The devices disagree.**"


def report(arguments: argparse.Namespace) -> Iterator[str]:
    """The tables, one after another, or DIFFER among them."""
    chosen = brackets.which(arguments.weights, arguments.data, arguments.balanced, arguments.rows)
    device, quick = arguments.device, arguments.quick
    parameters = chosen.parameters | ({"rows": "1000"} if quick else {})
    found, seconds = {}, {}
    for where in dict.fromkeys(["cpu", device]):
        for warm in ("first run", "second run"):  # the first on a device compiles and loads what the next ones use
            name = f"{where}, {warm}"
            _, seconds[name], found[name] = brackets.run(parameters, where, draws=512 if quick else 65_536)
    yield f"### The bracket table on both: {chosen.name}, {512 if quick else 65_536:,} draws of each row"
    yield brackets.phases(seconds)
    first, last = found["cpu, first run"], list(found.values())[-1]
    yield _differences(first, last)
    if not agree(first, last):
        yield DIFFER
    if not quick:
        yield from brackets.report(chosen, quick, device)
    yield "### What is computed for each draw, compiled"
    study = load("brackets", parameters)
    yield from compiled.report(study.hypotheses, 512 if quick else 16_384, device)
    yield from language.report(quick, device)
    yield f"## Draws on {device}"
    yield from draws.report(quick, device)


def agree(a: StudyResult, b: StudyResult) -> bool:
    """Whether every estimate and baseline of two runs with one seed agrees up to rounding of the model's arithmetic."""
    return len(a.results) == len(b.results) and all(
        abs(x.scrubbed.value - y.scrubbed.value) <= max(TOLERANCE * x.scrubbed.se, 1e-5 * abs(x.randomised.value))
        and abs(x.model.value - y.model.value) <= 1e-5 * abs(x.randomised.value)
        and abs(x.randomised.value - y.randomised.value) <= 1e-5 * abs(x.randomised.value)
        for x, y in zip(a.results, b.results, strict=True)
    )


def _differences(a: StudyResult, b: StudyResult) -> str:
    rows = []
    for x, y in zip(a.results, b.results, strict=True):
        apart = abs(x.scrubbed.value - y.scrubbed.value)
        errors = "—" if x.scrubbed.exact else f"{apart / x.scrubbed.se if x.scrubbed.se else 0:.1e}"
        rows.append([x.hypothesis, f"{x.scrubbed.value:.6f}", f"{y.scrubbed.value:.6f}", f"{apart:.1e}", errors])
    return table(["hypothesis", f"E_scrubbed, {a.device}", b.device, "difference", "in standard errors"], rows)


if __name__ == "__main__":
    sys.exit(main())
