"""Where values of several data meet along an axis: what is of one datum on its side of a seam stays on D.

A residual stream of which one position is made anew for each draw, and the rest taken from one datum, is mixed as a
whole. A norm of it, keys and values are mixed at that position only, since each position is made of its own: at the
others they are the model's on that datum, computed once on D.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pscrub.evaluate.parts import Cut, Shape, Step
from pscrub.evaluate.plan import ROWLESS, Kind, Values
from pscrub.graph.ops import Whole


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
    values: Values, order: Sequence[int], shape: Shape, step: Callable[[int, Cut], Step | None], least: float
) -> dict[int, Seam]:
    """Number -> the seam of a mixed value, of those that have one and are of some datum at a share of entries.

    Args:
        values: the numbers.
        order: mixed values, each after what it reads.
        shape: of a value, by its number.
        step: how a part of a value is computed; None if that is not known.
        least: the share.
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
        elif any(arg in found for arg in args):
            lengths = {len(found[arg].data) for arg in args if arg in found}
            # Not along the last axis: putting together there, as of keys that are transposed, is slow.
            axes = [axis for axis in range(1, len(out) - 1) if out[axis] in lengths]
            seams = [seam for axis in axes if (seam := _carried(values, n, axis, out[axis], step, found)) is not None]
        else:
            continue
        best = max(seams, key=lambda seam: seam.pure, default=None)
        if best is not None and best.pure >= least:
            found[n] = best
    return found


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
