"""Where values of several data meet along an axis: what is of one datum on its side of a seam stays on D.

A residual stream of which one position is made anew for each draw, and the rest taken from one datum, is mixed as a
whole. A norm of it, keys and values are mixed at that position only, since each position is made of its own: at the
others they are the model's on that datum, computed once on D.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pscrub.evaluate.attending import is_causal
from pscrub.evaluate.parts import Cut, Shape, Step
from pscrub.evaluate.plan import ROWLESS, Kind, Values
from pscrub.graph.ops import Whole
from pscrub.graph.places import Put


@dataclass(frozen=True)
class Seam:
    """What a value is of, entry by entry of an axis.

    Args:
        axis: not the batch.
        data: of each entry the datum that it is of; None if it is mixed.
    """

    axis: int
    data: tuple[str | None, ...]

    @property
    def pure(self) -> float:
        """The share of entries that are of one datum."""
        return sum(datum is not None for datum in self.data) / len(self.data)

    def pieces(self, wanted: Sequence[int]) -> dict[str | None, tuple[int, ...]]:
        """Datum -> places, among the entries wanted, of those that are of it; in the order of the first."""
        found: dict[str | None, list[int]] = {}
        for place, entry in enumerate(wanted):
            found.setdefault(self.data[entry], []).append(place)
        return {datum: tuple(places) for datum, places in found.items()}


def find_seams(
    values: Values,
    order: Sequence[int],
    shape: Shape,
    step: Callable[[int, Cut], Step | None],
    told: Callable[[int], Tensor | None],
) -> dict[int, Seam]:
    """Number -> the seam of a mixed value, of those that are of some datum at some entries.

    Args:
        values: the numbers.
        order: mixed values, each after what it reads.
        shape: of a value, by its number.
        step: how a part of a value is computed; None if that is not known.
        told: a value that is the same for all rows; None of one that is not, or cannot be read.
    """
    found: dict[int, Seam] = {}
    for n in order:
        fn, args, out = values[n].of, values[n].args, shape(n)
        if out is None:
            continue
        if isinstance(fn, Whole):
            axis, data = fn.axis % len(out), dict[int, str | None]()
            for arg, part in zip(args, fn.parts, strict=True):
                data |= dict.fromkeys(part, values[arg].of if values[arg].kind is Kind.PURE else None)
            seams = [Seam(axis, tuple(data[i] for i in sorted(data)))]
        elif isinstance(fn, Put) and len(out) == 3 and not any(place.is_told for place in fn.places):
            seams = [_put_together(values, fn, args, out[1], found)]
        elif any(arg in found for arg in args) and is_causal(fn, args, told):
            seams = [_attended(values, args[:3], len(out) - 2, out[-2], found)]
        elif any(arg in found for arg in args):
            lengths = {len(found[arg].data) for arg in args if arg in found}
            # Not along the last axis: putting together there, as of keys that are transposed, is slow.
            axes = [axis for axis in range(1, len(out) - 1) if out[axis] in lengths]
            seams = [seam for axis in axes if (seam := _carried(values, n, axis, out[axis], step, found)) is not None]
        else:
            continue
        best = max(seams, key=lambda seam: seam.pure, default=None)
        if best is not None and best.pure:
            found[n] = best
    return found


def _put_together(values: Values, put: Put, args: Sequence[int], size: int, found: Mapping[int, Seam]) -> Seam:
    """What a value is of, position by position, of which pieces at some of them were put together with the rest."""
    first, pieces, _ = put.parts(args)
    there: list[set[str | None]] = [set() for _ in range(size)]
    if first is not None:
        there = [{datum} for datum in _data_of(values, first, 1, size, found)]
    for place, piece in zip(put.places, pieces, strict=True):
        datum = values[piece].of if values[piece].kind is Kind.PURE else None
        for position in range(size) if place.positions is None else place.positions:
            there[position] = {datum} if place.entries is None else there[position] | {datum}
    return Seam(1, tuple(next(iter(each)) if len(each) == 1 else None for each in there))


def _attended(values: Values, args: Sequence[int], axis: int, size: int, found: Mapping[int, Seam]) -> Seam:
    """What causal attention is of: at each position of its query, and of keys and values there and before."""
    queries, keys, read = (_data_of(values, arg, axis, size, found) for arg in args)
    before, data = set[str | None](), list[str | None]()
    for query, *seen in zip(queries, keys, read, strict=True):
        before |= {*seen}
        there = before | {query}
        data.append(next(iter(there)) if len(there) == 1 else None)
    return Seam(axis, tuple(data))


def _data_of(values: Values, n: int, axis: int, size: int, found: Mapping[int, Seam]) -> Sequence[str | None]:
    """What a value is of along an axis, entry by entry; of no one datum where that is not known."""
    if values[n].kind is Kind.PURE:
        return [values[n].of] * size
    seam = found.get(n)
    return seam.data if seam is not None and seam.axis == axis and len(seam.data) == size else [None] * size


def _carried(
    values: Values,
    n: int,
    axis: int,
    size: int,
    step: Callable[[int, Cut], Step | None],
    found: Mapping[int, Seam],
) -> Seam | None:
    """What a value is of along an axis, each entry being made of the same entries of what it reads."""
    known = step(n, ((axis, tuple(range(size))),))
    if known is None:
        return None
    data: list[set[str | None]] = [set() for _ in range(size)]
    for arg, cut in known[1]:
        value = values[arg]
        if value.kind in ROWLESS:
            continue
        if value.kind is Kind.PURE:
            own: Sequence[str | None] = [value.of] * size
        else:
            seam = found.get(arg)
            entries = None if seam is None else dict(cut).get(seam.axis)
            if seam is None or entries is None or len(entries) != size:
                return None
            own = [seam.data[entry] for entry in entries]
        for each, datum in zip(data, own, strict=True):
            each.add(datum)
    return Seam(axis, tuple(each.copy().pop() if len(each) == 1 else None for each in data))
