"""The coverage study's results as Markdown."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tests.coverage.situations import LAWS

Row = dict[str, Any]
LEVEL = 0.95
SIZES = (100, 1000, 10_000)
"""Numbers of draws."""
TIMES = 2000
"""Repetitions of what is quickly repeated."""
FEWER = 1000
"""Repetitions of what is not."""


def table(found: Mapping[str, Row], seconds: float) -> str:
    """The page docs/coverage.md.

    Args:
        found: the results of each cell, by its name.
        seconds: of work that they took.
    """
    parts = [
        "# How often the intervals cover",
        f"""Written by `make coverage` (`python -m tests.coverage`), which anyone can run again: fixed seeds, the
        package's
        own code, nominal level {100 * LEVEL:g} %, coverage in per cent. The cells took {seconds:,.0f} s of work on
        one core
        ({platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}).""",
        "## A fixed number of draws, in pairs from strata",
        f"""*Default* is what `interval="auto"` picks: t within strata, or betting where a loss with known bounds (0/1
        losses
        are recognised) is rare or its error rests on few draws. Widths are mean full widths over t's. *As meant*: 93
        to 97
        where a method can, at least 95 where betting is picked more often than not or meant to be. {TIMES:,}
        repetitions
        (standard error 0.5 at 95 %); general betting intervals {FEWER:,}.""",
        "\n".join(_fixed(found)),
        "## A denominator near zero (Fieller)",
        f"""Loss recovered of 50 %, E_randomised from n sampled pairs, its distance from E_model in standard errors.
        {2 * TIMES:,} repetitions. Where the two cannot be told apart at the level there is no score but a warning;
        *either*
        counts that as an interval of all numbers, which Fieller's then is. No interval that is always bounded can cover
        here (Gleser and Hwang, 1987).""",
        "\n".join(_near_zero(found)),
        "## Stopping when narrow (`until_width`)",
        f"""Two stages: the pilot's width sets how many draws are made, and the interval is no narrower than the
        pilot's,
        scaled. *Plain t* forgets that. {FEWER:,} repetitions (standard error 0.7).""",
        "\n".join(_stopping(found)),
        "## Watched every 100 draws, to 20,000",
        f"""Share of runs in which the interval held the truth at *every* one of 200 looks: what stopping when pleased
        can
        rely on. Width: the asymptotic sequence's over fixed-n t's, at 100, 1,000, 5,000 and 20,000 draws. {FEWER:,}
        runs
        (standard error 0.7).""",
        "\n".join(_watched(found)),
        """Rare 0/1 losses: the sequence is made by betting while fewer than 100 of the rarer have been seen, as
        `choose`
        does; an asymptotic one has a width of 0 until the first event. With exponential losses on a tenth of the
        draws, the
        first looks, at ten such losses or so, are too early for a sequence that is narrowest at 1,000 draws. In `scrub`
        looks are 16,384 draws apart, and its sequence is narrowest at 65,536.""",
        "## Common random numbers on the bracket ladder",
        """Each step of `pscrub run brackets`, 8,192 draws of each hypothesis (`pscrub.questions.ladder`): the
        difference in points of loss recovered, and the widths of the interval of the paired difference and of that of
        independent draws, in nats.""",
        "\n".join(_ladder(found)),
    ]
    return "\n\n".join(_wrapped(part) for part in parts) + "\n"


def _wrapped(part: str) -> str:
    return part if part.startswith(("|", "#")) else textwrap.fill(" ".join(part.split()), 118)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _fixed(found: Mapping[str, Row]) -> Iterator[str]:
    methods = ("t", "betting", "bernstein", "sequence")
    yield (
        "| situation | n | default | betting picked | t | betting | Bernstein | sequence "
        "| widths: default, betting, Bernstein, sequence | as meant |"
    )
    yield "| --- " + "| ---: " * 7 + "| --- | --- |"
    for name, law in LAWS.items():
        for n in SIZES:
            row = found[f"fixed/{name}/{n}"]
            default, often = row["default"]["coverage"], row["default"]["betting"]
            conservative = law.conservative or often > 0.5
            meant = default >= 0.95 if conservative else 0.93 <= default <= 0.97
            verdict = ("yes, conservative" if conservative else "yes") if meant else f"no: {law.why or 'not known'}"
            widths = [
                f"{row[m]['width'] / row['t']['width']:.2f}" if m in row else "–" for m in ("default", *methods[1:])
            ]
            cover = " | ".join(_share(row.get(m, {}).get("coverage")) for m in methods)
            yield (
                f"| {name}: {law.words} | {n:,} | **{_share(default)}** | {_share(often)} | {cover} "
                f"| {', '.join(widths)} | {verdict} |"
            )


def _near_zero(found: Mapping[str, Row]) -> Iterator[str]:
    yield "| standard errors | n | either | where defined | undefined | median width, points |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    for key, row in _of("near zero", found):
        covered, width = row["default"]["coverage"], row["default"]["width"]
        yield (
            f"| {key[0]} | {int(key[1]):,} | **{_share(row['either'])}** | {_share(covered)} "
            f"| {_share(row['undefined'])} | {width:.0f} |"
        )


def _stopping(found: Mapping[str, Row]) -> Iterator[str]:
    yield "| situation | pilot | draws in all (mean) | two-stage | plain t |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for key, row in _of("stopping", found):
        covered, plain = row["default"]["coverage"], row["t"]["coverage"]
        yield f"| {key[0]} | {int(key[1]):,} | {row['draws']:,.0f} | **{_share(covered)}** | {_share(plain)} |"


def _watched(found: Mapping[str, Row]) -> Iterator[str]:
    yield "| situation | narrowest at | sequence | t | width over t |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for key, row in _of("watched", found):
        ratios = ", ".join(f"{r:.2f}" for r in row["ratio"].values())
        name, covered, plain = key[0].replace("0-1", "0/1"), row["default"]["coverage"], row["t"]["coverage"]
        yield f"| {name} | {int(key[1]):,} | **{_share(covered)}** | {_share(plain)} | {ratios} |"


def _ladder(found: Mapping[str, Row]) -> Iterator[str]:
    yield "| step | difference, points | interval | paired | unpaired | unpaired / paired | correlation |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for _key, cell in _of("ladder", found):
        for step, row in cell.items():
            paired, unpaired = row["paired"], row["unpaired"]
            yield (
                f"| {step} | {row['difference']:.2f} | [{row['low']:.2f}, {row['high']:.2f}] | {paired:.3f} "
                f"| {unpaired:.3f} | {unpaired / paired:.2f} | {row['correlation']:.2f} |"
            )


def _of(kind: str, found: Mapping[str, Row]) -> Iterator[tuple[list[str], Row]]:
    for key, row in found.items():
        if key.startswith(f"{kind}/"):
            yield key.split("/")[1:], row
