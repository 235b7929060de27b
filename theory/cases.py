"""Random small hypotheses, all from one generator: plain data for enumeration, the package's objects for the rest.

Weights are non-uniform and may be zero, rows may repeat, interpretation nodes may be read twice, unimportant inputs
come in every sharing mode, trees have 2 to 10 leaves and are up to 4 deep.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Node
from theory.brute import unrolled
from theory.case import Case, Claimed

MODES = ("reader", "all", "each", "groups")
SUPPORT = 1500
"""Most tuples of data of positive probability in one case: it is what the enumeration in rationals costs."""


def numbered(values: Sequence[object]) -> tuple[int, ...]:
    """The values as numbers, by first appearance."""
    order = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return tuple(order[value] for value in values)


def hypothesis(case: Case) -> Hypothesis:
    """The case as the package's objects. Its graph adds up what a node reads; nothing here depends on that."""
    data = Dataset({"x": torch.tensor(case.x)}, case.weights)
    inputs = {name: (*said.reads, *said.unimportant) or ("x",) for name, said in case.claims.items()}
    inputs |= {name: ("x",) for said in case.claims.values() for name in said.unimportant}
    graph = Graph([Node(name, read, _total) for name, read in inputs.items()], ["x"], case.root)
    built: dict[str, Claim] = {}

    def claim(name: str) -> Claim:
        if name not in built:  # one object, however many claims read it
            said = case.claims[name]
            built[name] = Claim(name, torch.tensor(said.feature), tuple(claim(read) for read in said.reads))
        return built[name]

    return Hypothesis(case.name, graph, data, claim(case.root), case.sharing)


@cache
def cases(count: int, seed: str = "theory") -> tuple[Case, ...]:
    """That many random cases: 2 to 10 leaves in turn, each with every sharing mode, and depths 1 to 4."""
    return tuple(_case(random.Random(f"{seed} {k}"), f"case {k}", MODES[k // 9 % 4], 2 + k % 9) for k in range(count))


def depth(case: Case) -> int:
    """The number of edges between the root and the farthest node."""

    def below(name: str) -> int:
        return max((1 + below(read) for read in case.claims[name].reads), default=0)

    return below(case.root)


def read_twice(case: Case) -> bool:
    """Whether an interpretation node has two readers, and so two copies in the tree."""
    reads = [read for said in case.claims.values() for read in said.reads]
    return len(set(reads)) < len(reads)


def _total(*values: torch.Tensor) -> torch.Tensor:
    return torch.stack(values).sum(0)


def _case(rng: random.Random, name: str, sharing: str, n_leaves: int) -> Case:
    for tries in itertools.count():
        # Depth is wished for at first, and given up little by little: no case is worth waiting for.
        deepest = rng.choice((1, 2, 3, 4)) if n_leaves < 5 else rng.choice((2, 3, 4, 4))
        shape = Case(name, (), (), _shape(rng, deepest), sharing)
        if sharing == "groups":
            used = sorted({each for said in shape.claims.values() for each in said.unimportant})
            members = [each for each in used if rng.random() < 0.8]
            cut = rng.randint(0, len(members))
            shape = replace(shape, sharing={"p": tuple(members[:cut]), "q": tuple(members[cut:])})
        if depth(shape) < deepest - tries // 300 or sum(site.is_leaf for site in unrolled(shape)) != n_leaves:
            continue
        n = rng.choice((2, 3, 4) if n_leaves > 5 else (2, 3, 4, 5, 6))
        x = tuple(rng.randrange(n) for _ in range(n)) if rng.random() < 0.4 else tuple(range(n))
        weights = (1,) * n if rng.random() < 0.3 else tuple(rng.choice((0, 1, 1, 2, 3, 5)) for _ in range(n))
        if sum(weight > 0 for weight in weights) < 2:
            continue
        case = replace(shape, x=x, weights=weights, claims=_with_features(rng, shape.claims, x))
        if support(case) <= SUPPORT:
            return case
    raise AssertionError


def _shape(rng: random.Random, deepest: int) -> dict[str, Claimed]:
    """Claims without their values, by level, the root at level 0: what a claim reads is at deeper levels than it is."""
    claims: dict[str, Claimed] = {}
    level = {"u0": 0}
    waiting = ["u0"]
    while waiting:
        name = waiting.pop(0)
        claims[name] = Claimed(())
        if level[name] == deepest or (level[name] and rng.random() < 0.35):
            continue
        known = [other for other in level if level[other] > level[name]]
        reads = [rng.choice(known)] if known and rng.random() < 0.4 else []
        for _ in range(rng.choice((1, 1, 2, 2, 3)) - len(reads)):
            new = f"u{len(level)}"
            level[new] = level[name] + 1
            reads.append(new)
            waiting.append(new)
        some = rng.sample(("r0", "r1", "r2"), rng.choice((1, 1, 2))) if rng.random() < 0.45 else ()
        claims[name] = Claimed((), tuple(reads), tuple(sorted(some)))
    return claims


def _with_features(rng: random.Random, shape: Mapping[str, Claimed], x: tuple[int, ...]) -> dict[str, Claimed]:
    """The claims with values: one for each value of x, or for each tuple of values that are read."""
    features: dict[str, tuple[int, ...]] = {}

    def feature(name: str) -> tuple[int, ...]:
        if name not in features:
            if not shape[name].reads and rng.random() < 0.15:
                features[name] = tuple(range(len(x)))  # every row for itself, those that repeat too
                return features[name]
            read: list[Any] = list(zip(*(feature(each) for each in shape[name].reads), strict=True)) or list(x)
            kinds = rng.choice((1, 2, 2, 3, 3))
            lossless = shape[name].reads and rng.random() < 0.4
            meaning = {value: i if lossless else rng.randrange(kinds) for i, value in enumerate(sorted(set(read)))}
            features[name] = numbered([meaning[value] for value in read])
        return features[name]

    return {name: replace(said, feature=feature(name)) for name, said in shape.items()}


def support(case: Case) -> int:
    """The number of tuples of data of positive probability, counted without listing them."""
    possible = [row for row, weight in enumerate(case.weights) if weight]

    def below(name: str, row: int) -> int:
        count = 1
        for read in case.claims[name].reads:
            feature = case.claims[read].feature
            count *= sum(below(read, other) for other in possible if feature[other] == feature[row])
        return count

    drawn = sum(below(case.root, row) for row in possible)
    return drawn * len(possible) ** sum(site.claim is None for site in unrolled(case))
