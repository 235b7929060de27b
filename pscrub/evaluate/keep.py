"""What to keep of values on D where not all that draws read fits: a minimum cut, not the largest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

TOTAL = 10**8
"""The cost of computing everything, in whole units of flow."""
NEVER = 2**30
"""More than any cut costs."""
STEPS = 40
"""Of the search for the price of memory."""


def choose_to_keep(
    wanted: Sequence[int],
    reads: Callable[[int], Sequence[int]],
    cost: Mapping[int, float],
    size: Mapping[int, int],
    budget: int,
) -> list[int]:
    """Which values to keep so that what is wanted is computed again as cheaply as it can be.

    A value that is wanted is kept, or computed for each draw from values that are kept or computed in turn. For a price
    of memory the cheapest choice is a minimum cut: each value stands between those that need it and its own cost. The
    price is raised until what is kept fits, and what is left of the budget goes to what saves most a byte.

    Args:
        wanted: numbers of values.
        reads: number -> the numbers that it is computed from, without what costs nothing (columns, what is kept).
        cost: number -> of computing it once for each draw, that of what it reads apart.
        size: number -> bytes that keeping it takes; a value that cannot be kept has none.
        budget: bytes.

    Returns:
        numbers, in ascending order.

    >>> choose_to_keep([2], {2: [1], 1: []}.__getitem__, {1: 9.0, 2: 1.0}, {1: 10, 2: 100}, 50)
    [1]
    """
    order, stack, seen = list[int](), list(wanted), set[int]()
    while stack:
        number = stack.pop()
        if number not in seen:
            seen.add(number)
            order.append(number)
            stack.extend(reads(number))
    graph = _Network(wanted, order, reads, cost, size)
    low, high = 0.0, max(cost.values(), default=1.0) * len(order) / max(min(size.values(), default=1), 1) + 1.0
    chosen = graph.kept(low)
    if _total(chosen, size) > budget:
        chosen, low = [], high * 1e-15
        for _ in range(STEPS):
            price = (low * high) ** 0.5
            found = graph.kept(price)
            if _total(found, size) <= budget:
                chosen, high = found, price
            else:
                low = price
    # One price seldom spends all.
    free = budget - _total(chosen, size)
    for number in sorted(set(wanted) & size.keys() - set(chosen), key=lambda n: -cost[n] / max(size[n], 1)):
        if size[number] <= free:
            chosen, free = [*chosen, number], free - size[number]
    return sorted(chosen)


def _total(numbers: Sequence[int], size: Mapping[int, int]) -> int:
    return sum(size[n] for n in numbers)


class _Network:
    """Two places a value: "needed" and, if it is not kept, "computed", from where all that it reads is needed."""

    def __init__(
        self,
        wanted: Sequence[int],
        order: Sequence[int],
        reads: Callable[[int], Sequence[int]],
        cost: Mapping[int, float],
        size: Mapping[int, int],
    ) -> None:
        self.order, self.size = order, size
        at = {number: 2 + 2 * place for place, number in enumerate(order)}
        self.unit = TOTAL / max(sum(cost[n] for n in order), 1e-300)
        edges: list[tuple[int, int, int]] = [(0, at[n], NEVER) for n in set(wanted)]
        for number in order:
            edges.append((at[number] + 1, 1, round(cost[number] * self.unit)))
            edges += [(at[number] + 1, at[read], NEVER) for read in set(reads(number))]
        self.kept_edges = [(at[number], at[number] + 1) for number in order]
        self.rows, self.columns, self.capacities = (np.array(each) for each in zip(*edges, strict=True))

    def kept(self, price: float) -> list[int]:
        """What a minimum cut keeps at a price of memory, in cost a byte."""
        each = [min(price * self.size[n] * self.unit, NEVER) if n in self.size else NEVER for n in self.order]
        rows = np.concatenate([self.rows, [a for a, _ in self.kept_edges]])
        columns = np.concatenate([self.columns, [b for _, b in self.kept_edges]])
        capacities = np.concatenate([self.capacities, np.round(each)]).astype(np.int32)
        places = 2 + 2 * len(self.order)
        network = csr_array((capacities, (rows, columns)), shape=(places, places))
        residual = network - maximum_flow(network, 0, 1).flow
        residual.eliminate_zeros()
        reached = np.zeros(places, dtype=bool)
        reached[breadth_first_order(residual, 0, return_predecessors=False)] = True
        return [n for n, (a, b) in zip(self.order, self.kept_edges, strict=True) if reached[a] and not reached[b]]
