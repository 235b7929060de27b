"""Parts of values, by the entries of axes, and what a part of what was put together is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
