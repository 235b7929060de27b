"""What is run to get some values: one instruction a value, each after what it reads, dropped after its last reader."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Instruction:
    """One value to be computed, and the numbers whose values are not needed after it."""

    number: int
    fn: Callable[..., Any] | None
    args: tuple[int, ...]
    dead: tuple[int, ...] = ()


def order_with_reads(
    roots: Sequence[int], reads_of: Callable[[int], tuple[int, ...]]
) -> tuple[list[int], dict[int, tuple[int, ...]]]:
    """Numbers of all that some values need, each after what it reads; and what each reads."""
    reads, order = dict[int, tuple[int, ...]](), list[int]()
    stack = [(each, False) for each in reversed(roots)]
    while stack:
        number, read = stack.pop()
        if read:
            order.append(number)
        elif number not in reads:
            reads[number] = reads_of(number)
            stack.append((number, True))
            stack.extend((arg, False) for arg in reversed(reads[number]))
    return order, reads


def last_readers(
    order: Sequence[int], reads: Mapping[int, Sequence[int]], roots: Collection[int]
) -> dict[int, tuple[int, ...]]:
    """Number -> those that nothing reads after it, roots left out."""
    last: dict[int, int] = {}
    for number in order:
        last |= dict.fromkeys(reads[number], number)
    dead: dict[int, tuple[int, ...]] = {}
    for number in last.keys() - set(roots):
        dead[last[number]] = (*dead.get(last[number], ()), number)
    return dead
