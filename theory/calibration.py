"""Do the checks from draws reject as often as they say? Rates under the true law, and under laws that are wrong.

`python -m theory.calibration` prints both tables. A check that rejects at 5 % is to reject 5 % of true laws (at one
node alone), or at most that (at any node, adjusted), and as many wrong ones as it can. `python -m theory.calibration
budget` prints how long the entropy budget of a million rows takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, Partition, Tree, unroll
from pscrub.hypothesis import Site
from pscrub.law import draw, entropy_budget
from pscrub.questions import NodeTest, entropy_from_draws, goodness_of_fit, independence_given_output

LEVEL = 0.05
REPETITIONS = 500
Draws = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Setting:
    """A hypothesis and the number of draws that its checks are given."""

    name: str
    tree: Tree
    draws: int


@dataclass(frozen=True)
class Rates:
    """How often checks rejected.

    Args:
        setting: where.
        law: what was drawn from.
        repetitions: independent sets of draws.
        fit_alone: share of single tests of Lemma 1, over nodes and repetitions, with p at most the level.
        fit: share of repetitions in which any node's adjusted p is at most the level.
        independence_alone: as `fit_alone`, of independence given the output.
        independence: as `fit`.
        entropy: share of the 95 % intervals of the mean of -log p that miss the exact entropy.
        miller_madow: mean error of Miller and Madow's estimate, in nats.
    """

    setting: str
    law: str
    repetitions: int
    fit_alone: float
    fit: float
    independence_alone: float
    independence: float
    entropy: float
    miller_madow: float


def settings() -> tuple[Setting, ...]:
    """Hypotheses on weighted rows: few rows and many draws, sparse cells, and more rows than draws."""
    return (
        Setting("5 rows", unroll(ladder(5, 1, 2)), 2000),
        Setting("12 rows", unroll(ladder(12, 2, 4)), 1000),
        Setting("200 rows", unroll(ladder(200, 3, 8)), 1000),
        Setting("3,000 rows", unroll(ladder(3000, 4, 40)), 2000),
    )


def ladder(n: int, depth: int, values: int, seed: int = 0) -> Hypothesis:
    """A claim at each rung, each reading the one below, a side claim, and an unimportant input, on n weighted rows.

    The node at the foot is read from the lowest and the topmost rung, so that the tree has two copies of it.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, values, (n,), generator=generator)
    data = Dataset({"x": x}, torch.rand(n, dtype=torch.float64, generator=generator) ** 2)
    foot = Claim("foot", x)
    nodes, below = [Node("foot", ("x",), _copy), Node("rest", ("x",), _copy)], foot
    for k in range(1, depth + 1):
        side = f"side{k}"
        reads = (
            ["foot", f"rung{k - 1}", side, "rest"]
            if k == depth
            else [f"rung{k - 1}" if k > 1 else "foot", side, "rest"]
        )
        reads = [read for read in dict.fromkeys(reads) if read != "rung0"]
        nodes += [Node(side, ("x",), _copy), Node(f"rung{k}", tuple(reads), _total)]
        coarse = max(values >> k, 2)
        also = (foot,) if k == depth and depth > 1 else ()
        below = Claim(f"rung{k}", x % coarse, [*also, below, Claim(side, (x * 3 + torch.arange(n) // 5) % 3)])
    return Hypothesis(f"ladder of {n} rows", Graph(nodes, ["x"], f"rung{depth}"), data, below)


def _copy(x: Tensor) -> Tensor:
    return x


def _total(*values: Tensor) -> Tensor:
    return torch.stack(values).sum(0)


# ------------------------------------------------------------------------------------------------- laws to draw from


def true_law(tree: Tree, draws: int, seed: tuple[int, ...]) -> Draws:
    """The scrubbing law, from the program."""
    return draw(tree, draws, seed, stratified=False)


def half_consistent(tree: Tree, draws: int, seed: tuple[int, ...]) -> Draws:
    """Half the scrubbing law, half the f-consistent one: it meets Lemma 1, and has less entropy."""
    data = true_law(tree, draws, seed)
    mixed = torch.arange(draws) % 2 == 0
    return {path: torch.where(mixed, data[tree.root], rows) for path, rows in data.items()}


def tenth_consistent(tree: Tree, draws: int, seed: tuple[int, ...]) -> Draws:
    """As half_consistent, with a tenth."""
    data = true_law(tree, draws, seed)
    mixed = torch.arange(draws) % 10 == 0
    return {path: torch.where(mixed, data[tree.root], rows) for path, rows in data.items()}


def unweighted(tree: Tree, draws: int, seed: tuple[int, ...]) -> Draws:
    """The weights of D forgotten."""
    h = tree.hypothesis
    uniform = Hypothesis(h.name, h.graph, Dataset(dict(h.data.columns)), h.claim, h.sharing)
    return true_law(unroll(uniform), draws, seed)


def never_the_own(tree: Tree, draws: int, seed: tuple[int, ...]) -> Draws:
    """The parent's own row is not drawn, where its block has another."""

    def pick(site: Site, parent: Tensor, generator: torch.Generator) -> Tensor:
        rows = _pick(site.partition, parent, generator)
        for _ in range(50):
            rows = torch.where(rows == parent, _pick(site.partition, parent, generator), rows)
        return rows

    return _drawn(tree, draws, seed, pick)


def parents_block(tree: Tree, draws: int, seed: tuple[int, ...]) -> Draws:
    """Data are drawn from the block that the parent's claim, not the own, gives the parent's datum."""
    return _drawn(tree, draws, seed, lambda site, parent, g: _pick(tree.sites[site.parent or ""].partition, parent, g))


def shared_copies(tree: Tree, draws: int, seed: tuple[int, ...]) -> Draws:
    """Both tree nodes of a claim that is read twice are given the datum of the first."""
    data, first = dict(true_law(tree, draws, seed)), dict[object, str]()
    for path, site in tree.sites.items():
        if site.claim is not None:
            data[path] = data[first.setdefault(site.claim, path)]
    return data


WRONG = (half_consistent, tenth_consistent, unweighted, never_the_own, parents_block, shared_copies)


def _pick(partition: Partition, parent: Tensor, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(len(parent), dtype=torch.float64, generator=generator)
    return partition.table.pick(partition.labels[parent], uniform)


def _drawn(tree: Tree, draws: int, seed: tuple[int, ...], pick: Callable[..., Tensor]) -> Draws:
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    data: dict[str, Tensor] = {}
    for path, site in tree.sites.items():
        if site.parent is None:
            data[path] = _pick(tree.whole, torch.zeros(draws, dtype=torch.int64), generator)
        else:
            data[path] = pick(site, data[site.parent], generator)
    return data


# ------------------------------------------------------------------------------------------------------------- rates


def rates(
    setting: Setting,
    law: Callable[[Tree, int, tuple[int, ...]], Draws] = true_law,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Rates:
    """How often each check rejects draws from a law, at a level of 5 %."""
    tree, exact = setting.tree, entropy_budget(setting.tree).scrubbed
    fit, independence = list[tuple[NodeTest, ...]](), list[tuple[NodeTest, ...]]()
    missed, error = 0, 0.0
    for k in range(repetitions):
        data = law(tree, setting.draws, (seed, k))
        fit.append(goodness_of_fit(tree, data))
        independence.append(independence_given_output(tree, data, seed=k))
        entropy = entropy_from_draws(tree, data)
        missed += not entropy.estimate.low <= exact <= entropy.estimate.high
        error += (entropy.miller_madow - exact) / repetitions
    return Rates(
        setting.name, law.__name__, repetitions, *_shares(fit), *_shares(independence), missed / repetitions, error
    )


def _shares(runs: list[tuple[NodeTest, ...]]) -> Iterator[float]:
    tests = [test for run in runs for test in run]
    yield sum(test.p <= LEVEL for test in tests) / max(len(tests), 1)
    yield sum(any(test.adjusted <= LEVEL for test in run) for run in runs) / len(runs)


HEAD = (
    f"{'hypothesis':12} {'law':18} {'sets':>5}  {'fit/node':>8} {'fit':>6}  {'ind/node':>8} {'ind':>6}  "
    f"{'H missed':>8} {'MM error':>9}"
)


def line(r: Rates) -> str:
    """The rates as a line of a table, in per cent; the error of Miller and Madow's estimate in nats."""
    share = [f"{100 * value:.1f}" for value in (r.fit_alone, r.fit, r.independence_alone, r.independence, r.entropy)]
    return (
        f"{r.setting:12} {r.law:18} {r.repetitions:5}  {share[0]:>8} {share[1]:>6}  {share[2]:>8} {share[3]:>6}  "
        f"{share[4]:>8} {r.miller_madow:9.2f}"
    )


def budget_time(n: int = 1_000_000, depth: int = 9) -> str:
    """How long the entropy budget of n rows and 2 + 3 x depth sites takes."""
    tree = unroll(ladder(n, depth, 1024))
    start = time.perf_counter()
    budget = entropy_budget(tree, bits=True)
    spent = time.perf_counter() - start
    nodes = sum(site.claim is not None for site in tree.sites.values())
    return (
        f"entropy budget of {n:,} rows, {nodes} tree nodes and {len(tree.sites) - nodes} unimportant draws: "
        f"{spent:.1f} s; {budget.scrubbed:.1f} bits of {budget.trace:.1f}"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m theory.calibration", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("rates", "budget"), default="rates")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help="sets of draws of the true law")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # noqa: TID251 - a command of its own, and small batches
    if arguments.what == "budget":
        print(budget_time())
        return
    print(
        f"rejections at {100 * LEVEL:g} %, in per cent: of tests at one node (/node), of sets of draws (adjusted)",
        HEAD,
        sep="\n",
    )
    for setting in settings():
        print(line(rates(setting, true_law, arguments.repetitions, arguments.seed)), flush=True)
    print(f"\npower: wrong laws\n{HEAD}")
    for setting in settings():
        for law in WRONG:
            print(line(rates(setting, law, max(arguments.repetitions // 10, 1), arguments.seed + 1)), flush=True)


if __name__ == "__main__":
    main()
