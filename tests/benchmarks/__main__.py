"""`python -m tests.benchmarks [PART...] [--quick] [--device cuda] [--out FILE]`; `--help` names the parts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tests.benchmarks import (
    brackets,
    circuits,
    draws,
    engine,
    language,
    large,
    memory,
    patching,
    planning,
    rows,
    runs,
    rust,
    scheduler,
    smollm2,
    spread,
    startup,
)
from tests.benchmarks.timing import machine, unusable

PARTS = (
    "startup",
    "draws",
    "rust",
    "brackets",
    "engine",
    "language",
    "smollm2",
    "circuits",
    "patching",
    "large",
    "rows",
    "memory",
    "runs",
    "spread",
    "scheduler",
    "planning",
)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 2 if the device cannot be had."""
    arguments = _parser().parse_args(argv)
    if fault := unusable(arguments.device):
        print(fault, file=sys.stderr)
        return 2
    lines = [f"{machine(arguments.device)}."]
    print(lines[0], flush=True)
    for name in arguments.parts or PARTS:
        for part in _report(name, arguments):
            print(f"\n{part}", flush=True)
            lines.append(part)
    if arguments.out is not None:
        arguments.out.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _report(name: str, arguments: argparse.Namespace) -> Iterator[str]:
    threads = torch.get_num_threads()
    chosen = brackets.which(arguments.weights, arguments.data, arguments.balanced, arguments.rows)
    match name:
        case "startup":
            yield from startup.report(arguments.quick)
        case "draws":
            torch.set_num_threads(1)
            yield from draws.report(arguments.quick, arguments.device)
        case "rust":
            torch.set_num_threads(1)
            yield from rust.report(arguments.quick)
        case "brackets":
            yield from brackets.report(chosen, arguments.quick, arguments.device)
        case "engine":
            yield from engine.report(chosen, arguments.quick)
        case "language":
            yield from language.report(arguments.quick)
        case "smollm2":
            yield from smollm2.report(arguments.quick)
        case "circuits":
            yield from circuits.report(arguments.quick)
        case "patching":
            yield from patching.report(arguments.quick)
        case "large":
            yield from large.report(arguments.quick)
        case "rows":
            yield from rows.report(arguments.quick)
        case "memory":
            n_rows = memory.ROWS if arguments.rows is None else arguments.rows
            chosen = brackets.which(arguments.weights, arguments.data, arguments.balanced, n_rows)
            yield from memory.report(chosen, arguments.quick, arguments.device)
        case "runs":
            yield from runs.report(chosen, arguments.quick)
        case "spread":
            yield from spread.report(chosen, arguments.quick)
        case "scheduler":
            yield from scheduler.report(arguments.quick)
        case "planning":
            yield from planning.report(arguments.quick)
    torch.set_num_threads(threads)


def parser(base: argparse.ArgumentParser, device: str = "cpu") -> argparse.ArgumentParser:
    """The parser with the options that all benchmarks take."""
    base.add_argument("--quick", action="store_true", help="small sizes and few repeats: shows that it runs")
    base.add_argument("--device", default=device, help=f"where draws are made and the model runs (default: {device})")
    base.add_argument(
        "--weights", type=Path, help="a bracket classifier (default: the published one where it is there)"
    )
    base.add_argument("--data", type=Path, help="its strings")
    base.add_argument(
        "--balanced",
        type=float,
        help="share of balanced strings kept (default, of the published: 0.263 without --rows)",
    )
    base.add_argument("--rows", type=int, help=f"strings read (default: the study's; memory: {memory.ROWS:,})")
    return base


def _parser() -> argparse.ArgumentParser:
    base = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Speed and memory of pscrub.")
    base.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"{', '.join(PARTS)}; all if none")
    base.add_argument("--out", type=Path, metavar="FILE.md", help="also write what is printed there")
    return parser(base)


if __name__ == "__main__":
    sys.exit(main())
