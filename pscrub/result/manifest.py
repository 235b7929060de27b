"""What a run folder is of: the study, its data, model and laws, and what was asked for. A sealed JSON file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pscrub.errors import StudyError
from pscrub.estimate.estimate import Interval
from pscrub.estimate.stopping import Stop
from pscrub.hypothesis.tree import Tree
from pscrub.records import as_tuples, read_sealed, write_sealed
from pscrub.result.model import ModelHash
from pscrub.result.provenance import data_hash, law_hash, name_python, versions

FORMAT = "pscrub run"
VERSION = 1
NAME = "manifest.json"
SHOWN = 3
"""Hypotheses that a refusal names."""


@dataclass(frozen=True)
class Asked:
    """What draws are concluded from: it may change from one command to the next, and no draw with it; donors may not.

    Args:
        draws: of each hypothesis; None if a width was asked for.
        width: points of loss recovered, which counts where no draws are asked for.
        interval: its kind.
        level: nominal coverage.
        bounds: the least and greatest f, if they were given.
        exact: E_scrubbed is read off the law of f where that is cheap.
        donors: "independent" or "permuted".
    """

    draws: int | None
    width: float
    interval: str
    level: float
    bounds: tuple[float, float] | None
    exact: bool
    donors: str = "independent"

    @classmethod
    def of(cls, stop: Stop, interval: Interval, exact: bool) -> Asked:
        """That of a run's options.

        Raises:
            StudyError: as `Stop.check`.
        """
        stop.check(interval)
        bounds = None if interval.bounds is None else (float(interval.bounds[0]), float(interval.bounds[1]))
        return cls(stop.draws, float(stop.width), interval.kind, float(interval.level), bounds, exact, stop.donors)

    @property
    def stop(self) -> Stop:
        """When to stop drawing."""
        return Stop(self.draws, None if self.draws is not None else self.width, self.donors)


@dataclass(frozen=True)
class Manifest:
    """What all rounds in a folder are of.

    Args:
        study: its name.
        seed: of the draws.
        data: the hash of D.
        labels: the columns that E_randomised breaks.
        randomised: E_randomised, if it was given.
        distances: whether output distances are kept with the draws, as `by` asks for.
        population: what a unit of D is where draws of the population are kept too: "row", or a column; else "".
        after: the hash of the earlier result that the rounds add to, else "".
        python: whose bytecode the models' code was hashed in.
        models: hashes of weights and code, one for each graph.
        hypotheses: name, hash of the law, and number of the graph.
        asked: of the last command.
        versions: of pscrub, Python and the libraries, when the folder was made.
    """

    study: str
    seed: int
    data: str
    labels: tuple[str, ...]
    randomised: float | None
    distances: bool
    population: str
    after: str
    python: str
    models: tuple[tuple[str, str], ...]
    hypotheses: tuple[tuple[str, str, int], ...]
    asked: Asked
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        study: str,
        trees: Sequence[Tree],
        seed: int,
        asked: Asked,
        about: tuple[tuple[str, ...], float | None, bool, str],
    ) -> Manifest:
        """That of a run that is about to begin; what it goes on from is not said yet.

        Args:
            study: its name.
            trees: of its hypotheses, on one D.
            seed: of the draws.
            asked: for.
            about: labels, randomised, distances and population.
        """
        labels, randomised, distances, population = about
        graphs = {id(tree.hypothesis.graph): tree.hypothesis.graph for tree in trees}
        number = {key: i for i, key in enumerate(graphs)}
        models = [ModelHash.of(graph) for graph in graphs.values()]
        return cls(
            study=study,
            seed=seed,
            data=data_hash(trees[0].hypothesis.data),
            python=name_python(),
            models=tuple((each.weights, each.code) for each in models),
            hypotheses=tuple((t.hypothesis.name, law_hash(t), number[id(t.hypothesis.graph)]) for t in trees),
            asked=asked,
            versions=dict(versions()),
            labels=labels,
            randomised=randomised,
            distances=distances,
            population=population,
            after="",
        )

    @property
    def donors(self) -> str:
        """How donors are drawn."""
        return self.asked.donors

    @property
    def names(self) -> tuple[str, ...]:
        """Of the hypotheses, in order."""
        return tuple(name for name, _, _ in self.hypotheses)

    @cached_property
    def places(self) -> dict[str, int]:
        """Hypothesis -> its place."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def laws(self) -> dict[str, str]:
        """Hypothesis -> the hash of its law."""
        return {name: law for name, law, _ in self.hypotheses}

    @property
    def identity(self) -> str:
        """Names what any round of it depends on, but for the hypothesis and its law, which rounds name themselves."""
        same = (self.study, self.seed, self.data, sorted(self.labels), self.randomised, self.distances)
        donors = () if self.donors == "independent" else (self.donors,)  # folders of before donors could be chosen
        return hashlib.sha256(repr((*same, self.population, self.after, *donors)).encode()).hexdigest()[:16]

    def add(self, other: Manifest) -> Manifest:
        """This one, with what another asks for, and the hypotheses that it has more.

        Raises:
            StudyError: with everything in which the other is of another run.
        """
        faults = self.tell_apart(other)
        if faults:
            raise StudyError(faults)
        known, models = set(self.names), list(self.models)
        more = list[tuple[str, str, int]]()
        for name, law, graph in other.hypotheses:
            if name not in known:
                if other.models[graph] not in models:
                    models.append(other.models[graph])
                more.append((name, law, models.index(other.models[graph])))
        return replace(self, asked=other.asked, hypotheses=(*self.hypotheses, *more), models=tuple(models))

    def tell_apart(self, other: Manifest) -> list[str]:
        """What shows that rounds of one are none of the other: all of it, in words."""
        faults = []
        for name, words in _WORDS.items():
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs and not (name == "labels" and sorted(mine) == sorted(theirs)):
                faults.append(f"{words}: {_say(mine)} there, {_say(theirs)} here")
        here = {name: (law, other.models[graph]) for name, law, graph in other.hypotheses}
        laws, weights, code = list[str](), list[str](), list[str]()
        for name, law, graph in self.hypotheses:
            if name in here:
                laws += [name] * (here[name][0] != law)
                weights += [name] * (here[name][1][0] != self.models[graph][0])
                code += [name] * (self.python == other.python and here[name][1][1] != self.models[graph][1])
        for found, words in (
            (laws, "the scrubbing law is another"),
            (weights, "the model's weights are others"),
            (code, "the code or the constants of the model's functions are others"),
        ):
            if found:
                more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
                faults.append(f"{words}, of " + ", ".join(f"'{each}'" for each in found[:SHOWN]) + more)
        return faults

    def write(self, folder: Path, through: Path) -> None:
        """Write it into a folder, whole or not at all.

        Raises:
            StudyError: it cannot be written.
        """
        write_sealed(asdict(self), folder / NAME, (FORMAT, VERSION), through)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """That of a folder.

        Raises:
            DamagedError: it is not as it was written.
            StudyError: there is none, or one of another version.
        """
        try:
            content = read_sealed(folder / NAME, (FORMAT, VERSION))
        except FileNotFoundError as error:
            raise StudyError(f"no run in '{folder}': it has no {NAME}") from error
        content = {name: as_tuples(value) for name, value in content.items()}
        content["asked"] = Asked(**{name: as_tuples(value) for name, value in content["asked"].items()})
        return cls(**{each.name: content[each.name] for each in fields(cls)})


_WORDS = {
    "study": "the study is another",
    "seed": "the seed is another",
    "data": "the data are others",
    "labels": "the labels are others",
    "randomised": "E_randomised is given otherwise",
    "distances": "output distances (--by) are kept in one and not in the other",
    "population": "what is drawn of the population (--data-uncertainty, --clusters) is another",
    "after": "the earlier result (--after) is another",
    "donors": "donors are drawn otherwise (--donors)",
}


def _say(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return repr(value) if isinstance(value, str) else str(value)
