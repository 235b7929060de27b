"""Parts of values, by the entries of axes, and what a part of what was put together is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pscrub.graph.ops import Whole

Cut = tuple[tuple[int, tuple[int, ...]], ...]
"""Axes, never the batch, in ascending order, and which of their entries; none for the whole value."""
Asked = list[tuple[int, Cut]]
"""Numbers of values, and what is read of each."""
Step = tuple[Callable[..., Any] | None, Asked]
"""An operation and what it reads; None in its place if its value is what it reads."""
Shape = Callable[[int], Sequence[int] | None]


def ordered(cuts: Mapping[int, tuple[int, ...]]) -> Cut:
    """A part, axis after axis."""
    return tuple(sorted(cuts.items()))


def has_none(cut: Cut) -> bool:
    """Whether no entries are asked for, as of an empty operand that is joined: these are cut of the whole."""
    return any(not part for _, part in cut)


def match_axes(shape: Sequence[int], out: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Which axes of a value become which when it is reshaped, the batch apart, in the least groups of equal size.

    >>> match_axes((2, 10, 32), (2, 10, 4, 8))
    [([1], [1]), ([2], [2, 3])]
    """
    found, i, j = list[tuple[list[int], list[int]]](), 1, 1
    while i < len(shape) and j < len(out):
        ins, outs, have, want = [i], [j], shape[i], out[j]
        while have != want:
            if have < want:
                ins.append(ins[-1] + 1)
                have *= shape[ins[-1]]
            else:
                outs.append(outs[-1] + 1)
                want *= out[outs[-1]]
        found.append((ins, outs))
        i, j = ins[-1] + 1, outs[-1] + 1
    if found:  # axes of one entry are left
        found[-1][0].extend(range(i, len(shape)))
        found[-1][1].extend(range(j, len(out)))
    return found


def move_part(
    parts: Sequence[tuple[int, ...]], sizes: Sequence[int], others: Sequence[int]
) -> list[tuple[int, ...]] | None:
    """A part of axes as the part of other axes of the same entries in the same order; None if it is none of these.

    >>> move_part([(1,), (4, 5)], [4, 8], [32]), move_part([(8, 9, 16, 17)], [32], [4, 8])
    ([(12, 13)], [(1, 2), (0, 1)])
    >>> move_part([(8, 17)], [32], [4, 8]) is None
    True
    """
    entries = _flat(parts, sizes)
    moved = np.unravel_index(np.array(entries, dtype=np.int64), tuple(others))
    found = [tuple(dict.fromkeys(axis.tolist())) for axis in moved]
    return found if _flat(found, others) == entries else None


def _flat(parts: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> list[int]:
    """Where entries of some axes stand when these are one axis."""
    grid = np.ix_(*(np.array(part, dtype=np.int64) for part in parts))
    return [int(i) for i in np.ravel_multi_index(np.broadcast_arrays(*grid), tuple(sizes)).ravel()]


def within(cut: Cut, axis: int, part: tuple[int, ...]) -> Cut:
    """What is read of a value of which a part is sliced, and of that a part."""
    cuts = dict(cut)
    return ordered({**cuts, axis: tuple(part[i] for i in cuts[axis]) if axis in cuts else part})


def of_parts(fn: Whole, axis: int, args: Sequence[int], cut: Cut) -> Step:
    """Of slices that are put together along an axis: those in which the part lies."""
    cuts = dict(cut)
    if axis not in cuts:
        return fn, [(arg, cut) for arg in args]
    wanted, asked, parts = cuts.pop(axis), list[tuple[int, Cut]](), list[tuple[int, ...]]()
    for arg, part in zip(args, fn.parts, strict=True):
        own = {entry: i for i, entry in enumerate(part)}
        if places := tuple(place for place, i in enumerate(wanted) if i in own):
            asked.append((arg, ordered({**cuts, axis: tuple(own[wanted[place]] for place in places)})))
            parts.append(places)
    return (None if len(parts) == 1 else Whole(axis, tuple(parts))), asked
