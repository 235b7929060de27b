"""What is kept within a budget: beside every choice there is, and beside the largest saving first."""

import itertools
import random

import pytest

from pscrub.evaluate.keep import choose_to_keep

Reads = dict[int, list[int]]


def spent(kept: set[int], wanted: list[int], reads: Reads, cost: dict[int, float]) -> float:
    """What is computed for each draw, every value once."""
    stack, done = list(wanted), set[int]()
    while stack:
        number = stack.pop()
        if number not in kept and number not in done:
            done.add(number)
            stack += reads[number]
    return sum(cost[n] for n in done)


def case(seed: int) -> tuple[list[int], Reads, dict[int, float], dict[int, int]]:
    rng = random.Random(seed)
    n = rng.randint(3, 9)
    reads = {i: rng.sample(range(i), min(i, rng.choice((0, 1, 1, 2)))) for i in range(n)}
    size = {i: rng.randint(1, 20) for i in range(n) if rng.random() < 0.9}
    return rng.sample(range(n), rng.randint(1, n)), reads, {i: float(rng.randint(1, 50)) for i in range(n)}, size


@pytest.mark.parametrize("seed", range(10))
def test_beside_every_choice(seed: int) -> None:
    wanted, reads, cost, size = case(seed)
    choices = [set(c) for k in range(len(size) + 1) for c in itertools.combinations(size, k)]
    on_line = tried = 0
    best = {}  # bytes -> the least that is spent
    for choice in choices:
        taken = sum(size[n] for n in choice)
        best[taken] = min(best.get(taken, 1e9), spent(choice, wanted, reads, cost))
    for budget in range(0, sum(size.values()) + 1, 3):
        kept = set(choose_to_keep(wanted, reads.__getitem__, cost, size, budget))
        taken = sum(size[n] for n in kept)
        assert kept <= size.keys() and taken <= budget
        own, optimum = spent(kept, wanted, reads, cost), min(c for b, c in best.items() if b <= budget)
        assert optimum <= own <= spent(set(), wanted, reads, cost)
        on_line += own == optimum
        tried += 1
    # One price for all memory finds the best choices wherever they lie on a convex line, and all but always near it.
    assert on_line >= 0.8 * tried


def test_a_narrow_place_is_kept_rather_than_what_is_made_of_it() -> None:
    """Ten wide values are made of one that is narrow and dear: the largest saving first would keep as many as fit."""
    reads: Reads = {0: []} | {i: [0] for i in range(1, 11)}
    cost, size = {0: 100.0} | dict.fromkeys(range(1, 11), 1.0), {0: 10} | dict.fromkeys(range(1, 11), 100)
    assert choose_to_keep(list(range(1, 11)), reads.__getitem__, cost, size, 300) == [0, 1, 2]
    assert choose_to_keep(list(range(1, 11)), reads.__getitem__, cost, size, 9) == []
    assert choose_to_keep(list(range(1, 11)), reads.__getitem__, cost, size, 1000) == list(range(1, 11))


def test_what_cannot_be_kept_is_not() -> None:
    assert choose_to_keep([1], {0: [], 1: [0]}.__getitem__, {0: 5.0, 1: 5.0}, {0: 10}, 100) == [0]
