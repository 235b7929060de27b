"""On D as it stands: how often the adversary alarms at complete hypotheses, and finds a claim that was left out.

`python -m theory.adversary_power` prints the table; `--repetitions`, `--draws` and `--level` change it. Each repetition
draws its own model, data and seeds. A hypothesis is complete if no feature of those offered moves E_scrubbed when it is
joined: what is unimportant is independent of all else, whatever it agrees on with the root. D is a whole grid, all
there is: of samples, and of what holds in their population, `theory.adversary_population` speaks.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats

from pscrub import Claim, Dataset, Graph, Hypothesis
from pscrub.questions import AdversaryResult, adversary
from pscrub.studies.worked import cancellation, hash_game, superposition

Case = tuple[Hypothesis, Mapping[str, Any], str]
"""A hypothesis, the features offered, and the feature whose claim is missing ("" if none is)."""


@dataclass(frozen=True)
class Rate:
    """How often, of how many.

    Args:
        case: what was tried.
        found: on D, confirmed on fresh draws.
        right: of the found, those whose first move is the claim that was left out.
        clear: whose search had a move clear of 0 at the simultaneous level.
        n: repetitions.
        gap: mean |E_joined - E_scrubbed| in standard errors of the confirmation.
    """

    case: str
    found: int
    right: int
    clear: int
    n: int
    gap: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of Clopper and Pearson, for the share found."""
        ends = stats.binomtest(self.found, self.n).proportion_ci(0.95)
        return float(ends.low), float(ends.high)


def independent_noise(rng: random.Random) -> Case:
    """f = (s + w n + v m - y)^2: s is claimed; n and m, independent of all else, are said not to matter. Complete."""
    return _noisy(rng, 0.0)


def weighted_noise(rng: random.Random) -> Case:
    """The same with n and m claimed, each by its own feature that leaves it free within blocks. Complete."""
    h, features, _ = _noisy(rng, 0.0)
    noise = [Claim("n", lambda d: d["n"] // 2), Claim("m", lambda d: d["m"] % 2)]
    return Hypothesis(h.name, h.graph, h.data, Claim("f", reads=[*h.claim.reads, *noise])), features, ""


def complete_game(rng: random.Random) -> Case:
    """Appendix 7, joined with the setting. Complete."""
    study = _game(rng)
    return study.hypotheses[2], {"setting": "hard", "bit": "bit"}, ""


def false_game(rng: random.Random) -> Case:
    """Appendix 7: the setting is missing."""
    return _game(rng).hypotheses[1], {"setting": "hard", "bit": "bit"}, "setting"


def split_interference(rng: random.Random) -> Case:
    """Appendix 6.1: that both halves are one datum's is missing."""
    a, b, c, d = (rng.uniform(0.5, 1.2) for _ in range(4))
    study = superposition.study(a, b, c, d, rng.uniform(-0.2, 0.2), rng.uniform(0, 0.6))
    return study.hypotheses[3], {"x1": "x1", "x2": "x2", "x1 x2": lambda d: d["x1"] * d["x2"]}, "one datum|x1 x2"


def cancelling(rng: random.Random) -> Case:
    """s + s - s, the last two apart: that they are one datum's is missing."""
    study = cancellation.study(rng.randint(1, 4), rng.uniform(-0.8, 0.8))
    return study.hypotheses[2], {"s": "s"}, "one datum|s"


def missing(strength: float) -> Callable[[random.Random], Case]:
    """f = (s + w n + v m - y)^2 where y holds `strength` times the parity of n: the claim about n is missing."""

    def case(rng: random.Random) -> Case:
        return _noisy(rng, strength)

    case.__doc__ = f"y also holds {strength:g} times n's parity: that claim is missing."
    return case


COMPLETE = {
    "independent noise": independent_noise,
    "noise claimed in part": weighted_noise,
    "7 with the setting": complete_game,
}
PLANTED = {
    "6.1 halves apart": split_interference,
    "7 true bit on HARD": false_game,
    "s + s - s apart": cancelling,
    "parity, 0.1": missing(0.1),
    "parity, 0.2": missing(0.2),
    "parity, 0.4": missing(0.4),
}


def rate(case: str, repetitions: int, draws: int, level: float) -> Rate:
    """How often the adversary finds something in a case."""
    found = right = clear = 0
    gaps = []
    for k in range(repetitions):
        hypothesis, features, wanted = {**COMPLETE, **PLANTED}[case](random.Random(f"{case} {k}"))
        result = _attacked(hypothesis, features, draws, level, k)
        found += result.moved
        right += result.moved and result.chosen[0].feature in wanted.split("|")
        clear += result.moves[0].clear
        gaps.append(abs(result.confirmed.value) / result.confirmed.se if result.confirmed.se else 0.0)
    return Rate(case, found, right, clear, repetitions, sum(gaps) / len(gaps))


def _attacked(hypothesis: Hypothesis, features: Mapping[str, Any], draws: int, level: float, k: int) -> AdversaryResult:
    # Sidak's level in place of the quantile of the largest error: a search takes a tenth of the time.
    how: Any = {"steps": 1, "family": "sidak", "randomised": 1.0, "held_out": 0.0}
    return adversary(hypothesis, features, draws=draws, seed=k, level=level, **how)


def _noisy(rng: random.Random, strength: float) -> Case:
    sizes = {"s": rng.choice((2, 3)), "n": 4, "m": rng.choice((4, 6))}
    grid = torch.cartesian_prod(*(torch.arange(size) for size in sizes.values()))
    weights = torch.ones(len(grid), dtype=torch.float64)
    for i, size in enumerate(sizes.values()):
        weights *= torch.tensor([rng.uniform(0.5, 1.5) for _ in range(size)], dtype=torch.float64)[grid[:, i]]
    columns: dict[str, Any] = {name: grid[:, i] for i, name in enumerate(sizes)}
    columns["y"] = columns["s"] + strength * (columns["n"] % 2)
    w, v = rng.uniform(0.05, 0.3), rng.uniform(0.05, 0.3)

    def f(seen: torch.Tensor, n: torch.Tensor, m: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        parity = strength * (n % 2)
        return (seen + parity + w * (n // 2 - 0.5) + v * (m - 2) - y) ** 2

    graph = Graph.of({"seen": lambda s: 1.0 * s, "f": f}, inputs=["s", "n", "m", "y"], output="f")
    claim = Claim("f", reads=[Claim("seen", "s"), Claim("y", "exact")])
    parity = {"parity": lambda d: d["n"] % 2, "s": "s", "m": "m", "half of m": lambda d: d["m"] // 2}
    h = Hypothesis("n and m do not matter", graph, Dataset(columns, weights), claim)
    return h, parity, "parity|n|y" if strength else ""


def _game(rng: random.Random) -> Any:
    return hash_game.study(
        hard_right=rng.uniform(5, 100), hard_wrong=-rng.uniform(10, 1000), skill=rng.uniform(0.3, 0.7), numbers=16
    )


def rates(repetitions: int, draws: int, level: float) -> Iterator[Rate]:
    """Every case's rate."""
    for case in (*COMPLETE, *PLANTED):
        yield rate(case, repetitions, draws, level)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--draws", type=int, default=1024)
    parser.add_argument("--level", type=float, default=0.95)
    arguments = parser.parse_args()
    print(f"| case | missing | found at {arguments.level:g} | 95 % of it | right claim | clear in search | gap, SE |")
    print("|---|---|---|---|---|---|---|")
    for each in rates(arguments.repetitions, arguments.draws, arguments.level):
        low, high = each.interval
        what = "nothing" if each.case in COMPLETE else "a claim"
        print(
            f"| {each.case} | {what} | {each.found}/{each.n} | {low:.3f} to {high:.3f} | "
            f"{each.right if what == 'a claim' else '–'} | {each.clear}/{each.n} | {each.gap:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
