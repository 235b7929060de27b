"""How often intervals for the population hold: `python -m tests.coverage.population`, part of `make coverage`.

Every data set is scrubbed as a user does, by `scrub(data_uncertainty=True)`. Repetitions are numbered, and each
names its seed; what was measured is kept under out/coverage/population, so that a study that was cut short, or run
with fewer `--repetitions`, goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import textwrap
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, scrub

DRAWS, TIMES, EACH = 4000, 1000, 25
"""Draws of a data set; repetitions in all, and of each cell before the next."""
FEW = 20
"""Intervals below which nothing is said of how often they hold."""
SIZES = (100, 20, 10, 5, 3, 2, 1)
"""Rows that a block has on average."""
ROWS = (100, 500, 2000)
NAMES = ("scrubbed", "model", "randomised", "recovered")
ONE = Graph.of({"out": lambda u: 1.0 * u, "f": lambda out, y: (out - y) ** 2}, ["u", "y"], "f")
TWO = Graph.of({"out": lambda h, t: h + t, "f": lambda out, y: (out - y) ** 2}, ["h", "t", "y"], "f")
Values = Mapping[str, float]
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Situation:
    """A population, and how it is sampled.

    Args:
        words: what it is.
        sample: a hypothesis on so many rows in blocks of such a size on average, and the values in the population.
        clusters: the column of clusters.
    """

    words: str
    sample: Callable[[np.random.Generator, int, int], tuple[Hypothesis, Values]]
    clusters: str | None = None


def one_level(
    rng: np.random.Generator,
    rows: int,
    size: int,
    even: bool = False,
    weighted: str = "",
    clustered: bool = False,
) -> tuple[Hypothesis, Values]:
    """f = (out - y)^2, claimed to be the block's alone: given the block, what out and y share in a row is lost.

    out is the block's tone and a coin e, y half the tone, 0.7 e and 0.7 of another coin. In a cluster of four rows
    about half of them share e.
    """
    blocks = max(rows // size, 1)
    tone = 0.5 * (np.arange(blocks) % 3 - 1)
    b = np.arange(rows) % blocks if even else rng.integers(0, blocks, rows)
    e, other = rng.choice([-1.0, 1.0], size=(2, rows))
    heavy = np.where(rng.random(rows) < 0.25, 1.0, -1.0)  # a quarter, that is met a third as often as it should be
    if weighted == "block":
        p = np.where(np.arange(blocks) % 2 == 0, 1 / 3, 1.0)
        b = rng.choice(blocks, size=rows, p=p / p.sum())
        heavy = np.where(b % 2 == 0, 1.0, -1.0)
    elif weighted == "out":
        e = heavy
    weights = torch.from_numpy(np.where(heavy > 0, 3.0, 1.0)) if weighted else None
    cluster = np.arange(rows) // 4
    if clustered:
        e = np.where(rng.random(rows) < 0.5, rng.choice([-1.0, 1.0], size=rows)[cluster], e)
    columns = {"u": tone[b] + e, "y": np.round(0.5 * tone[b] + 0.7 * e + 0.7 * other, 6), "b": b, "cluster": cluster}
    data = Dataset({name: torch.from_numpy(column) for name, column in columns.items()}, weights)
    claim = Claim("f", reads=[Claim("out", "b"), Claim("y", "exact")])
    square, mean = float((tone**2).mean()), float(tone.mean())
    values = {"model": 0.25 * square + 0.09 + 0.49, "scrubbed": 0.25 * square + 1 + 0.98}
    values["randomised"] = square + 1 + 0.25 * square + 0.98 - mean**2
    return Hypothesis("one level", ONE, data, claim), _scored(values)


def two_levels(rng: np.random.Generator, rows: int, size: int, even: bool = False) -> tuple[Hypothesis, Values]:
    """out = h + t agrees with y's datum on a, h and t each with out's, on b and on c; a is told by b and c together."""
    blocks = max(rows // size, 1)
    b, c = rng.integers(0, blocks, (2, rows))
    of_b, of_c = 0.5 * (np.arange(blocks) % 3 - 1), 0.5 * (np.arange(blocks) % 2 - 0.5)
    e, o, y = rng.choice([-1.0, 1.0], size=(3, rows))
    tone = of_b[b] + of_c[c]
    columns = {"h": of_b[b] + e, "t": of_c[c] + o, "y": np.round(0.5 * tone + 0.7 * e + 0.5 * y, 6)}
    data = Dataset({n: torch.from_numpy(v) for n, v in (columns | {"a": (b + c) % blocks, "b": b, "c": c}).items()})
    parts = Claim("out", "a", reads=[Claim("h", "b"), Claim("t", "c")])
    by_a = np.stack([of_b[(np.arange(blocks) - k) % blocks] + of_c[k] for k in range(blocks)], 1)  # [a, c]
    square, mean = float((by_a**2).mean()), float(by_a.mean())
    values = {
        "model": 0.25 * square + 0.09 + 1 + 0.25,
        "scrubbed": float((0.25 * by_a.mean(1) ** 2 + 1.25 * by_a.var(1)).mean()) + 2 + 0.49 + 0.25,
        "randomised": 1.25 * square - mean**2 + 2 + 0.49 + 0.25,
    }
    return Hypothesis("two levels", TWO, data, Claim("f", reads=[parts, Claim("y", "exact")])), _scored(values)


def _scored(values: dict[str, float]) -> Values:
    top, bottom = values["scrubbed"] - values["randomised"], values["model"] - values["randomised"]
    return values | {"recovered": 100 * top / bottom}


SITUATIONS = {
    "one level": Situation("rows independent, of any block", one_level),
    "one level, even": Situation(
        "as many rows from each block", lambda rng, rows, size: one_level(rng, rows, size, even=True)
    ),
    "two levels": Situation("rows independent, of any block", two_levels),
    "weighted by block": Situation(
        "rows of every second block weigh 3, and are met a third as often",
        lambda rng, rows, size: one_level(rng, rows, size, weighted="block"),
    ),
    "weighted within blocks": Situation(
        "half of the population weighs 3 and is met a third as often, whatever else it is",
        lambda rng, rows, size: one_level(rng, rows, size, weighted="any"),
    ),
    "weighted by what is swapped": Situation(
        "rows whose coin is 1 weigh 3 and are met a third as often",
        lambda rng, rows, size: one_level(rng, rows, size, weighted="out"),
    ),
    "clustered": Situation(
        "clusters of four rows, of any blocks, that share half of what is lost",
        lambda rng, rows, size: one_level(rng, rows, size, clustered=True),
        "cluster",
    ),
}


def measure(name: str, rows: int, size: int, repetition: int) -> dict[str, Any]:
    """One data set: which intervals hold, how wide, and what was refused."""
    situation = SITUATIONS[name]
    rng = np.random.default_rng([zlib.crc32(name.encode()), rows, size, repetition])
    hypothesis, truth = situation.sample(rng, rows, size)
    result = scrub(hypothesis, draws=DRAWS, data_uncertainty=True, clusters=situation.clusters, seed=repetition)[
        hypothesis.name
    ]
    assert result.data is not None
    both, on_data = result.data.both, result.scrubbed
    found: dict[str, Any] = {"unknown": result.data.unknown, "refused": both.scrubbed is None}
    for each in NAMES:
        interval = getattr(both, each)
        found[each] = None if interval is None else interval.low <= truth[each] <= interval.high
    found["plug-in"] = on_data.low <= truth["scrubbed"] <= on_data.high
    if both.scrubbed is not None:
        found |= {
            "error": both.scrubbed.value - truth["scrubbed"],
            "se": both.scrubbed.se,
            "width": both.scrubbed.width,
        }
        found["narrower"] = both.scrubbed.width < on_data.width
    return found


def cells() -> Iterator[tuple[str, int, int]]:
    """(situation, rows, size) of each cell, those first that most is learnt from."""
    for name in SITUATIONS:
        for rows in ROWS:
            for size in SIZES:
                if size <= rows:
                    yield name, rows, size


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The page docs/population.md."""
    parts = [
        "# How often intervals for the population hold",
        f"""Written by `python -m tests.coverage.population`, part of `make coverage`, from fixed seeds. Each
        data set is a sample of a population whose values are known, scrubbed by `scrub(draws={DRAWS:,},
        data_uncertainty=True)`; shares of the nominal 95 % intervals for draws and data that hold these values,
        in per cent, among those that are given ({platform.machine()}, Python {platform.python_version()}). With
        so many repetitions a share of 95 has a standard error of 218 over the root of their number, in points:
        2.2 for 100.""",
        """*Unknown* is the mean share of D's weight in blocks with too few rows for a draw of different ones,
        *refused* the share of data sets that were given no interval for E_scrubbed for it, and *none* that of the
        others that were given none for loss recovered, whose denominator could not be told from 0. *On D* is the
        interval that holds D fixed, seen as if it spoke of the population (of width zero where it is exact).
        *Bias* is the mean error and *se* the root mean square of the standard errors reported, both over the standard
        deviation of the estimates.""",
        f"""Intervals err to the wide side where little is known of their own width: where D has few blocks (100 rows
        in blocks of 20 or 10), above all of loss recovered, which is near 0 in blocks of one level and rests on how
        the blocks' means of two quantities move together; and where the draws' noise in the variance is large (two
        levels, {DRAWS:,} draws): a variance that drowns in it is replaced by a bound, and a warning says so.""",
        _summary(found),
    ]
    head = (
        "| \\|D\\| | rows a block | repetitions | E_scrubbed | recovered | E_model | E_randomised | on D | bias | se "
    )
    for name, situation in SITUATIONS.items():
        rows = [row for row in _rows(found, name)]
        if rows:
            head_lines = [head + "| unknown | refused | none |", "| " + " | ".join(["---:"] * 13) + " |"]
            parts += [f"## {name[0].upper()}{name[1:]}: {situation.words}", "\n".join([*head_lines, *rows])]
    return "\n\n".join(p if p.startswith(("|", "#")) else textwrap.fill(" ".join(p.split()), 118) for p in parts) + "\n"


def _summary(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Over all cells, how often intervals for E_scrubbed and loss recovered hold."""
    told = []
    for each, words in (("scrubbed", "E_scrubbed"), ("recovered", "loss recovered")):
        runs = [[r[each] for r in cell if not r["refused"] and r[each] is not None] for cell in found.values()]
        shares = 100 * np.array([np.mean(held) for held in runs if len(held) >= FEW])
        if len(shares):
            low, middle, high = (f"{q:.1f}" for q in (shares.min(), np.median(shares), shares.max()))
            few, many = int((shares < 93).sum()), int((shares > 97).sum())
            told.append(
                f"{words} in {len(shares)} cells, {low} to {high} per cent, {middle} in the middle, in {few} cells "
                f"under 93 and in {many} above 97"
            )
    return f"Of cells with intervals, these hold: {'; '.join(told)}." if told else ""


def _rows(found: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> Iterator[str]:
    for _, rows, size in (cell for cell in cells() if cell[0] == name):
        runs = found.get(f"{name}/{rows}/{size}", ())
        if not runs:
            continue
        refused = float(np.mean([r["refused"] for r in runs]))
        given = [r for r in runs if not r["refused"]]
        figures = [f"{rows:,}", f"{size}", f"{len(runs):,}"]
        few = len(given) < FEW
        for each in ("scrubbed", "recovered", "model", "randomised", "plug-in"):
            held = [r[each] for r in (runs if each in ("model", "randomised", "plug-in") else given)]
            held = [h for h in held if h is not None]
            figures.append(
                "–" if not held or (few and each in ("scrubbed", "recovered")) else f"{100 * np.mean(held):.1f}"
            )
        figures[3] = f"**{figures[3]}**" if figures[3] != "–" else "–"
        if few:
            figures += ["–", "–"]
        else:
            spread = float(np.std([r["error"] for r in given]))
            error, se = np.mean([r["error"] for r in given]), math.sqrt(np.mean([r["se"] ** 2 for r in given]))
            figures += [f"{error / spread:.2f}", f"{se / spread:.2f}"]
        none = "–" if not given else f"{100 * np.mean([r['recovered'] is None for r in given]):.1f}"
        figures += [f"{100 * np.mean([r['unknown'] for r in runs]):.1f}", f"{100 * refused:.1f}", none]
        yield "| " + " | ".join(figures) + " |"


def main() -> None:
    """Work through the repetitions that are missing, then write the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.coverage.population", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=TIMES)
    parser.add_argument("--only", default="", help="cells whose name begins so")
    parser.add_argument("--out", type=Path, default=Path("docs/population.md"))
    parser.add_argument("--cells", type=Path, default=Path("out/coverage/population"), help="where cells are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.cells.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, Any]]] = {}
    # Every cell a little, then more: a study that is cut short has something to say of all of them.
    for least in range(EACH, arguments.repetitions + EACH, EACH):
        for name, rows, size in cells():
            key = f"{name}/{rows}/{size}"
            file = arguments.cells / (key.replace("/", "_").replace(" ", "-").replace(",", "") + ".json")
            runs = json.loads(file.read_text()) if file.is_file() else []
            if len(runs) < min(least, arguments.repetitions) and key.startswith(arguments.only):
                start = time.process_time()
                more = range(len(runs), min(least, arguments.repetitions))
                runs += [measure(name, rows, size, repetition) for repetition in more]
                partial = file.with_suffix(".part")
                partial.write_text(json.dumps(runs))
                partial.replace(file)
                given = [r["scrubbed"] for r in runs if not r["refused"]]
                share = f"{100 * np.mean(given):.1f} % of {len(given)}" if given else "none given"
                print(
                    f"{key}: {share}, {len(runs)} done, {time.process_time() - start:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
            found[key] = runs
    arguments.out.write_text(table(found))


if __name__ == "__main__":
    main()
