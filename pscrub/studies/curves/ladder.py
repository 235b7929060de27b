"""The hypotheses about curve detectors: which channels they read, what these tell, and how they are arranged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.data.partition import Partition
from pscrub.graph.graph import Graph
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.studies.curves.graphs import Level, build_graph_of_units
from pscrub.studies.curves.model import CHANNELS, PLACES, Trunk
from pscrub.studies.curves.tuning import AC, AL, KINDS, OPPOSED, UNORIENTED, Found, Unit

STRONGEST = (10, 20, 40, 80)
HEAVIEST = 40
PLACE_NAMES = tuple(
    f"{row} {column}".strip() or "middle" for row in ("above", "", "below") for column in ("left", "", "right")
)
ON, BOTH, OFF, REST, OTHERS = ("tangential", "tangential or shuffled", "shuffled", "at other places", "not aligned")
"""Parts of the arrangement: pairs of aligned channel and place."""


@dataclass(frozen=True)
class CurveLadder:
    """What all hypotheses are about.

    Args:
        trunk: the model.
        data: D, as `make_images` makes it.
        found: what was measured on other images.
        behaviour: f, "correlation" or "accuracy".
        seed: of what is random in controls.
    """

    trunk: Trunk
    data: Dataset
    found: Found
    behaviour: str
    seed: int

    def hypotheses(self) -> list[Hypothesis]:
        """The ladder, in the order of the table; no rows about kinds of channels that were not found."""
        ends = [
            ("0a everything exact", Claim(self.behaviour, EXACT)),
            ("0b units unimportant", Claim(self.behaviour, reads=[self._label()])),
        ]
        rows = [Hypothesis(name, self.graph, self.data, claim) for name, claim in ends]
        for family in (self._read, self._aligned, self._told, self._arranged):
            rows += family()
        return rows

    @cached_property
    def graph(self) -> Graph:
        """One graph for all hypotheses, so that D is passed once."""
        own = {unit.number: self._levels(unit) for unit in self.found.chosen}
        shared = (self._random, Level("by place", dict(zip(PLACE_NAMES, _one_by_one(), strict=True))))
        return build_graph_of_units(self.trunk, self.data, self.found.chosen, (shared, own), self.behaviour)

    @property
    def oriented(self) -> Tensor:
        """bool [256]: the channels that are oriented."""
        return self.found.channels.oriented(self.found.least)

    def _read(self) -> Iterator[Hypothesis]:
        """Of all that a unit reads some is the image's, all else of other images."""
        if self.oriented.any():
            yield self._kept("1a oriented channels", _oriented)
            yield self._kept("1b unoriented channels", partial(_of, parts=[UNORIENTED]))
            count = int(self.oriented.sum())
            yield self._row(f"1c {count} random channels", [Claim("random channels", EXACT)])
        for place, count in enumerate(STRONGEST):
            kept = tuple(_strongest(each) for each in STRONGEST[: place + 1])
            yield self._kept(f"1d the {count} strongest", partial(_of, parts=kept))
        yield self._kept(f"1e the {HEAVIEST} of most weight", partial(_of, parts=["heaviest"]))

    def _aligned(self) -> Iterator[Hypothesis]:
        if not any(unit.kinds[kind].any() for unit in self.found.chosen for kind in (AC, AL)):
            return
        misaligned = [kind for kind in KINDS if kind not in (AC, AL, UNORIENTED)]
        yield self._kept("2a aligned curves", partial(_of, parts=[AC]))
        yield self._kept("2b aligned lines", partial(_of, parts=[AL]))
        yield self._kept("2c aligned curves and lines", partial(_of, parts=[AC, AL]))
        yield self._kept("2d and opposed curves", partial(_of, parts=[AC, AL, OPPOSED]))
        yield self._kept("2e misaligned channels", partial(_of, parts=misaligned))
        yield self._kept("2f as many random oriented ones as 2c", partial(_of, parts=["by chance"]))

    def _told(self) -> Iterator[Hypothesis]:
        """What channels tell: each kind, or each place, is of an image of its own that agrees on a feature."""
        orientation = self.data["orientation"]
        shuffled = orientation[torch.randperm(self.data.n, generator=self._generator())]
        laws = (("the orientation", "orientation"), ("the tangent", "tangent"), ("the orientation, shuffled", shuffled))
        if self.oriented.any():
            for letter, (words, feature) in zip("abc", laws, strict=True):
                yield self._kept(f"3{letter} kinds tell {words}", _oriented, feature, words)
        for letter, (words, feature) in zip("def", laws, strict=True):
            yield self._row(f"3{letter} places tell {words}", [Claim(at, feature, words=words) for at in PLACE_NAMES])

    def _arranged(self) -> Iterator[Hypothesis]:
        """Of aligned channels, those at the places where the unit's curve runs as they do."""
        if not any(unit.tangential.any() for unit in self.found.chosen):
            return
        yield self._kept("4a tangential places only", partial(_of, parts=[ON, BOTH]))
        yield self._kept("4b as many shuffled places", partial(_of, parts=[OFF, BOTH]))
        yield self._kept("4c all other places", partial(_of, parts=[OFF, REST]))
        yield self._swapped("4d the rest exact: tangential places", partial(_of, parts=[OFF, REST]))
        yield self._swapped("4e the rest exact: shuffled places", partial(_of, parts=[ON, REST]))
        yield self._swapped("4f the rest exact: other places", partial(_of, parts=[ON, BOTH]))
        yield self._swapped("4g the rest exact: no aligned ones", partial(_of, parts=[ON, BOTH, OFF, REST]))

    def _kept(
        self, name: str, of: Callable[[Unit], Iterable[str]], feature: Any = EXACT, words: str = ""
    ) -> Hypothesis:
        return self._row(name, [Claim(part, feature, words=words) for part in self._parts(of)])

    def _swapped(self, name: str, of: Callable[[Unit], Iterable[str]]) -> Hypothesis:
        """Parts are of other images, each of its own; all else is the image's."""
        anything = Partition.trivial(self.data)
        reads = [Claim(part, anything, words="anything") for part in self._parts(of)]
        claim = Claim(self.behaviour, reads=[*reads, self._label()], rest=EXACT, paths="any")
        return Hypothesis(name, self.graph, self.data, claim)

    def _row(self, name: str, reads: Sequence[Claim]) -> Hypothesis:
        claim = Claim(self.behaviour, reads=[*reads, self._label()], paths="any")
        return Hypothesis(name, self.graph, self.data, claim)

    def _parts(self, of: Callable[[Unit], Iterable[str]]) -> list[str]:
        return [part for unit in self.found.chosen for part in of(unit) if part in self.graph]

    def _label(self) -> Claim:
        return Claim("orientation", EXACT)

    @cached_property
    def _random(self) -> Level:
        """As many channels as are oriented, whichever."""
        chosen = torch.zeros(CHANNELS, dtype=torch.bool)
        chosen[torch.randperm(CHANNELS, generator=self._generator())[: int(self.oriented.sum())]] = True
        return Level("at random", {"random channels": _all(chosen), "the other channels": _all(~chosen)})

    def _levels(self, unit: Unit) -> list[Level]:
        generator, oriented = self._generator(unit.number), torch.nonzero(self.oriented).flatten()
        size = int((unit.kinds[AC] | unit.kinds[AL]).sum())
        chance = torch.zeros(CHANNELS, dtype=torch.bool)
        chance[oriented[torch.randperm(len(oriented), generator=generator)[:size]]] = True
        order, heavy = unit.strength.argsort(descending=True), unit.weight.argsort(descending=True)
        strong, before = {}, 0
        for count in (*STRONGEST, CHANNELS):
            strong[_strongest(count)] = _all(_mask(order[before:count]))
            before = count
        heaviest = _mask(heavy[:HEAVIEST])
        cuts = {
            "by chance or not": {"by chance": _all(chance), "not by chance": _all(~chance)},
            "by strength": strong,
            "by weight": {"heaviest": _all(heaviest), "lighter": _all(~heaviest)},
            "by arrangement": _arrange(unit, generator),
            "by kind": {kind: _all(mask) for kind, mask in unit.kinds.items()},
        }
        return [
            Level(_own(unit, name), {_own(unit, part): mask for part, mask in parts.items()})
            for name, parts in cuts.items()
        ]

    def _generator(self, of: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * CHANNELS + of)


def _arrange(unit: Unit, generator: torch.Generator) -> dict[str, Tensor]:
    """Parts of the arrangement: shuffled, each aligned channel has as many places, whichever."""
    order = torch.rand(CHANNELS, PLACES, generator=generator).argsort(1)
    shuffled = torch.gather(unit.tangential, 1, order)
    aligned = unit.aligned[:, None].expand(-1, PLACES)
    return {
        ON: unit.tangential & ~shuffled,
        BOTH: unit.tangential & shuffled,
        OFF: shuffled & ~unit.tangential,
        REST: aligned & ~unit.tangential & ~shuffled,
        OTHERS: ~aligned,
    }


def _of(unit: Unit, parts: Iterable[str]) -> list[str]:
    return [_own(unit, part) for part in parts]


def _oriented(unit: Unit) -> list[str]:
    return _of(unit, [kind for kind in KINDS if kind != UNORIENTED])


def _own(unit: Unit, part: str) -> str:
    return f"{unit.number} {part}"


def _strongest(count: int) -> str:
    return f"strongest to {count}"


def _mask(channels: Tensor) -> Tensor:
    mask = torch.zeros(CHANNELS, dtype=torch.bool)
    mask[channels] = True
    return mask


def _all(channels: Tensor) -> Tensor:
    """bool [256, 9]: channels at all places."""
    return channels[:, None].expand(-1, PLACES)


def _one_by_one() -> list[Tensor]:
    """bool [256, 9] for each place: all channels there."""
    return [torch.arange(PLACES).eq(place).expand(CHANNELS, -1) for place in range(PLACES)]
