"""What a sweep is over: studies by their parameters, seeds and hypotheses, each combination of which is a point."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pscrub.errors import StudyError
from pscrub.records import as_tuples, read_sealed, write_sealed
from pscrub.result.manifest import Asked

FORM = "pscrub sweep", 1
NAME = "sweep.json"
Value = str | int | float | bool | None
"""What a parameter may be in a sweep: what JSON can hold."""
SLUG = 40
"""Most letters of a name that stand in that of a folder."""


@dataclass(frozen=True)
class Fixed:
    """Options that draws depend on, besides the study and the seed: they are the same for all points, and stay so.

    Args:
        labels: the columns that E_randomised breaks, in place of what the study says; none if it says.
        data_uncertainty: values in the population are given too.
        clusters: a column whose values are independent of one another, or "".
        donors: "independent" or "permuted".
    """

    labels: tuple[str, ...] = ()
    data_uncertainty: bool = False
    clusters: str = ""
    donors: str = "independent"


@dataclass(frozen=True)
class Plan:
    """What a sweep is over, and what is asked of each point.

    Args:
        study: what names the study.
        parameters: names, each with its values.
        seeds: of the draws.
        hypotheses: which of a study's; all if none are named.
        together: how many of them are one point, in one run folder; 0 for all.
        fixed: options that draws depend on.
        asked: draws and intervals; they may change from one start to the next, and no draw with them.
        before: tags of what was asked for at earlier starts.
        versions: of pscrub, Python and the libraries, when the sweep was begun.
    """

    study: str
    parameters: tuple[tuple[str, tuple[Value, ...]], ...]
    seeds: tuple[int, ...]
    hypotheses: tuple[str, ...]
    together: int
    fixed: Fixed
    asked: Asked
    before: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = [f"parameter '{name}' has no values; expected one or more" for name, v in self.parameters if not v]
        faults += [f"{what} are none; expected one or more" for what, v in (("seeds", self.seeds),) if not v]
        faults += [f"seed is {seed}; expected 0 or more" for seed in self.seeds if seed < 0]
        if self.together < 0:
            faults.append(f"together is {self.together}; expected 1 or more hypotheses of a point, or 0 for all")
        same = [("seed", self.seeds), ("hypothesis", self.hypotheses)]
        for what, values in [*same, *((f"parameter {name}", each) for name, each in self.parameters)]:
            for (_, twice), times in Counter(map(typed_value, values)).items():
                if times > 1:
                    faults.append(f"{what} {twice!r} is there twice: two points would be the same; give it once")
        if faults:
            raise StudyError(faults)

    @cached_property
    def tag(self) -> str:
        """Names what is asked of each point."""
        return hashlib.sha256(repr(self.asked).encode()).hexdigest()[:8]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        return tuple(name for name, _ in self.parameters)

    @property
    def combinations(self) -> list[tuple[Value, ...]]:
        """The values of the parameters that studies are made with, the last parameter's changing first."""
        return list(itertools.product(*(values for _, values in self.parameters)))

    def add(self, other: Plan) -> Plan:
        """This one, with what another asks for, and the values and seeds that it has more.

        Raises:
            StudyError: with everything in which the other is another sweep.
        """
        faults = [_tell(name, self, other) for name in _WORDS if getattr(self, name) != getattr(other, name)]
        mine, theirs = dict(self.parameters), dict(other.parameters)
        more = list[tuple[str, tuple[Value, ...]]]()
        for name, values in mine.items():
            if name not in theirs:
                faults.append(f"parameter '{name}' there, not here")
            elif left := _without(values, theirs[name]):
                faults.append(f"parameter {name} has {_say(left)} there, not here")
            else:
                more.append((name, _together(values, theirs[name])))
        faults += [f"parameter '{name}' here, not there" for name in theirs if name not in mine]
        if left_seeds := _without(self.seeds, other.seeds):
            faults.append(f"seeds {_say(left_seeds)} there, not here")
        if faults:
            raise StudyError(faults)
        before = tuple(dict.fromkeys((*self.before, self.tag)))
        made = replace(self, parameters=tuple(more), seeds=_together(self.seeds, other.seeds), asked=other.asked)
        return replace(made, before=tuple(each for each in before if each != made.tag))

    def unite(self, other: Plan) -> Plan:
        """What two sweeps of one study are over together; draws are those of the one that asks for more.

        Raises:
            StudyError: with everything in which they are of different studies, or kinds.
        """
        alike = ("study", "together", "fixed")
        faults = [_tell(name, self, other) for name in alike if getattr(self, name) != getattr(other, name)]
        faults += [f"parameter '{name}' in one, not in the other" for name in sorted({*self.names} ^ {*other.names})]
        if self.hypotheses != other.hypotheses and self.together != 1:
            faults.append("points of several hypotheses (--together) can be merged only where the same were chosen")
        mine, theirs = self.asked, other.asked
        if mine != theirs and (mine.draws is None or theirs.draws is None):
            faults.append(f"what was asked for is another, and not draws in both: {mine} and {theirs}")
        if faults:
            raise StudyError(faults)
        values = dict(other.parameters)
        more = tuple((name, _together(each, values[name])) for name, each in self.parameters)
        chosen = _together(self.hypotheses, other.hypotheses) if self.hypotheses and other.hypotheses else ()
        asked = max(mine, theirs, key=lambda each: each.draws or 0)
        seeds = _together(self.seeds, other.seeds)
        return replace(self, parameters=more, hypotheses=chosen, seeds=seeds, asked=asked, before=())

    def write(self, folder: Path, through: Path) -> None:
        """Write it into a folder, whole or not at all.

        Raises:
            StudyError: it cannot be written.
        """
        write_sealed(asdict(self), folder / NAME, FORM, through)

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """That of a folder.

        Raises:
            DamagedError: it is not as it was written.
            StudyError: there is none, or one of another version.
        """
        try:
            content = read_sealed(folder / NAME, FORM)
        except FileNotFoundError as error:
            raise StudyError(f"no sweep in '{folder}': it has no {NAME}") from error
        content = {name: as_tuples(value) for name, value in content.items()}
        content["asked"] = Asked(**{name: as_tuples(value) for name, value in content["asked"].items()})
        content["fixed"] = Fixed(**{name: as_tuples(value) for name, value in content["fixed"].items()})
        return cls(**{each.name: content[each.name] for each in fields(cls)})


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Args:
        number: its place among those of its combination of parameters.
        seed: of its draws.
        hypotheses: that are scrubbed.
    """

    number: int
    seed: int
    hypotheses: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The name of its run folder."""
        return f"{self.number}-{slug_of(self.hypotheses[0])}-seed{self.seed}"


@dataclass(frozen=True)
class Points:
    """The points of a study at some parameters: seed after seed, so that seeds can be added.

    Args:
        seeds: in order.
        hypotheses: in order.
        together: how many of them are one point; 0 for all.
    """

    seeds: tuple[int, ...]
    hypotheses: tuple[str, ...]
    together: int

    def __len__(self) -> int:
        return len(self.seeds) * self._groups

    def __getitem__(self, number: int) -> Point:
        seed, group = divmod(number, self._groups)
        first = group * self._size
        return Point(number, self.seeds[seed], self.hypotheses[first : first + self._size])

    def __iter__(self) -> Iterator[Point]:
        return (self[number] for number in range(len(self)))

    @property
    def _size(self) -> int:
        return self.together or len(self.hypotheses)

    @property
    def _groups(self) -> int:
        return -(-len(self.hypotheses) // self._size)


def name_parameters(names: Sequence[str], values: Sequence[Value]) -> str:
    """The name of the folder of a combination: as much of it as file systems take, and what tells it from others."""
    text = ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
    told = hashlib.sha256(
        repr([(name, typed_value(value)) for name, value in zip(names, values, strict=True)]).encode()
    )
    return f"{slug_of(text) or 'study'}-{told.hexdigest()[:8]}"


def slug_of(text: str) -> str:
    """A text as far as file systems take it."""
    return re.sub(r"[^A-Za-z0-9._+=,-]+", "_", text).strip("._")[:SLUG]


_WORDS = {
    "study": "the study is another",
    "hypotheses": "the hypotheses that were chosen are others",
    "together": "so many hypotheses are one point (--together)",
    "fixed": "labels, donors or what is drawn of the population are others",
}


def typed_value(value: Any) -> tuple[str, Any]:
    """What tells values apart: 1, 1.0 and True are three."""
    return type(value).__name__, value


def _together(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*first, *_without(second, first))


def _without(values: tuple[Any, ...], others: tuple[Any, ...]) -> tuple[Any, ...]:
    known = set(map(typed_value, others))
    return tuple(each for each in values if typed_value(each) not in known)


def _tell(name: str, one: Plan, other: Plan) -> str:
    return f"{_WORDS[name]}: {_say(getattr(one, name))} there, {_say(getattr(other, name))} here"


def _say(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "all"
    return str(value)
