"""How often a claim is called missing that no population lacks, and how often one that is missing is found.

`python -m theory.adversary_population` prints the table, with all of the adversary's defaults; `--repetitions`,
`--rows` and `--case` change it. Each repetition draws its own model, rows and seeds. Rows are a sample: D has chance
correlations that move E_scrubbed on it, where in the population no claim offered does.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from scipy import stats

from pscrub import Claim, Dataset, Graph, Hypothesis
from pscrub.questions import InPopulation, adversary_in_population

Case = tuple[Hypothesis, Mapping[str, Any], bool, str]
"""A hypothesis, the features offered, whether those of the data are too, and what settles the missing claim, by "|"."""


def parity_noise(rng: random.Random, rows: int, strength: float) -> Case:
    """f = (s + w n + v m - y)^2, y = s and `strength` times n's parity; n and m are said not to matter."""
    g = _generator(rng)
    sizes = {"s": rng.choice((2, 3)), "n": 4, "m": rng.choice((4, 6))}
    columns: dict[str, Any] = {name: torch.randint(size, (rows,), generator=g) for name, size in sizes.items()}
    columns["y"] = columns["s"] + strength * (columns["n"] % 2)
    w, v = rng.uniform(0.05, 0.3), rng.uniform(0.05, 0.3)

    def f(seen: torch.Tensor, n: torch.Tensor, m: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (seen + strength * (n % 2) + w * (n // 2 - 0.5) + v * (m - 2) - y) ** 2

    graph = Graph.of({"seen": lambda s: 1.0 * s, "f": f}, inputs=["s", "n", "m", "y"], output="f")
    claim = Claim("f", reads=[Claim("seen", "s"), Claim("y", "exact")])
    offered = {"parity": lambda d: d["n"] % 2, "half of m": lambda d: d["m"] // 2}
    return (
        Hypothesis("n and m do not matter", graph, Dataset(columns), claim),
        offered,
        True,
        "parity|n|y|nodes together",
    )


def real_noise(rng: random.Random, rows: int, strength: float) -> Case:
    """f = (s + w n + v m - y)^2, y = s and normal noise of its own and `strength` times n, which is normal too."""
    g = _generator(rng)
    columns: dict[str, Any] = {"s": torch.randint(3, (rows,), generator=g), "n": torch.randn(rows, generator=g)}
    columns["m"] = torch.randint(4, (rows,), generator=g)
    columns["y"] = columns["s"] + 0.5 * torch.randn(rows, generator=g) + strength * columns["n"]
    w, v = rng.uniform(0.1, 0.5), rng.uniform(0.05, 0.3)

    def f(seen: torch.Tensor, n: torch.Tensor, m: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (seen + w * n + v * (m - 2) - y) ** 2

    graph = Graph.of({"seen": lambda s: 1.0 * s, "f": f}, inputs=["s", "n", "m", "y"], output="f")
    claim = Claim("f", reads=[Claim("seen", "s"), Claim("y", "exact")])
    return Hypothesis("n and m do not matter", graph, Dataset(columns), claim), {}, True, "n |y |nodes together"


def pairs_alone(rng: random.Random, rows: int, strength: float) -> Case:
    """f = (h - t)^2, h = t = u, u unclaimed at h; offered are columns that u has `strength` to do with.

    At strength 0 no single row moves the difference: what moves it is pairs of rows, and its error is not normal.
    """
    g = _generator(rng)
    columns: dict[str, Any] = {"a": torch.randint(2, (rows,), generator=g), "b": torch.randint(3, (rows,), generator=g)}
    columns["u"] = torch.randn(rows, generator=g) + strength * columns["a"]
    nodes: dict[str, Any] = {"h": lambda u: 1.0 * u, "t": lambda u: 1.0 * u, "f": lambda h, t: (h - t) ** 2}
    graph = Graph.of(nodes, inputs=["u"], output="f")
    h = Hypothesis("h does not matter", graph, Dataset(columns), Claim("f", reads=[Claim("t", "exact")]))
    return h, {"a": "a", "b": "b"}, False, "a"


def two_levels(rng: random.Random, rows: int, strength: float) -> Case:
    """f = |h - y|^1.5, h = p + w q, p = s // 2 + w e; y = s // 2 and `strength` where e is 0; e and q do not matter."""
    g = _generator(rng)
    sizes = {"s": 4, "e": 3, "q": 3}
    columns: dict[str, Any] = {name: torch.randint(size, (rows,), generator=g) for name, size in sizes.items()}
    columns["y"] = columns["s"] // 2 + strength * (columns["e"] == 0)
    w = rng.uniform(0.1, 0.3)
    nodes: dict[str, Any] = {
        "p": lambda s, e: s // 2 + strength * (e == 0) + w * e,
        "h": lambda p, q: p + w * q,
        "f": lambda h, y: (h - y).abs() ** 1.5,
    }
    graph = Graph.of(nodes, inputs=["s", "e", "q", "y"], output="f")
    half = partial(lambda d: d["s"] // 2)
    p = Claim("p", half, reads=[Claim("s", half, words="half of s")], words="half of s")
    claim = Claim("f", reads=[Claim("h", half, reads=[p], words="half of s"), Claim("y", "exact")])
    return Hypothesis("e and q do not matter", graph, Dataset(columns), claim), {}, True, "e|y|value"


Build = Callable[[random.Random, int, float], Case]
CASES: dict[str, tuple[Build, float]] = {
    "noise": (parity_noise, 0.0),
    "real noise": (real_noise, 0.0),
    "pairs alone": (pairs_alone, 0.0),
    "two levels": (two_levels, 0.0),
    "parity, 0.1": (parity_noise, 0.1),
    "parity, 0.2": (parity_noise, 0.2),
    "parity, 0.4": (parity_noise, 0.4),
    "real, 0.2": (real_noise, 0.2),
    "real, 0.4": (real_noise, 0.4),
    "two levels, 0.3": (two_levels, 0.3),
}


@dataclass(frozen=True)
class RateInPopulation:
    """How often something is called missing.

    Args:
        case: what was tried.
        rows: of D.
        missing: whether something is.
        found: how often it was said.
        right: of these, with a first move that is about what is missing.
        untold: how often nothing could be told.
        n: repetitions.
    """

    case: str
    rows: int
    missing: bool
    found: int
    right: int
    untold: int
    n: int

    def line(self) -> str:
        """As a row of the table."""
        ends = stats.binomtest(self.found, self.n).proportion_ci(0.95)
        right = f"{self.right}" if self.missing else "–"
        return (
            f"| {self.case} | {self.rows:,} | {'a claim' if self.missing else 'nothing'} | {self.found}/{self.n} | "
            f"{float(ends.low):.3f} to {float(ends.high):.3f} | {right} | {self.untold} |"
        )


def rate_in_population(case: str, rows: int, repetitions: int) -> RateInPopulation:
    """How often the adversary calls a claim missing in a case."""
    outcomes = [_attack(case, rows, k) for k in range(repetitions)]
    found = sum(name == "MISSING" for name, _ in outcomes)
    right = sum(name == "MISSING" and right for name, right in outcomes)
    untold = sum(name not in ("MISSING", "NOT_FOUND") for name, _ in outcomes)
    return RateInPopulation(case, rows, bool(CASES[case][1]), found, right, untold, repetitions)


def _attack(case: str, rows: int, k: int) -> tuple[str, bool]:
    build, strength = CASES[case]
    hypothesis, features, from_data, settles = build(random.Random(f"{case} {rows} {k}"), rows, strength)
    found: InPopulation = adversary_in_population(hypothesis, features, from_data=from_data, seed=k)
    first = found.chosen[0].feature if found.chosen else ""
    return found.finding.name, any(word in first for word in settles.split("|"))


def _generator(rng: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(rng.getrandbits(40))


def rates_in_population(cases: list[str], rows: list[int], repetitions: int) -> Iterator[RateInPopulation]:
    """Every case's rate at every size."""
    for case in cases:
        for size in rows:
            yield rate_in_population(case, size, repetitions)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    arguments = parser.parse_args()
    print("| case | rows | missing | found | 95 % of it | right claim | not told |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for each in rates_in_population(arguments.case, arguments.rows, arguments.repetitions):
        print(each.line(), flush=True)


if __name__ == "__main__":
    main()
