"""What an adversary tries, and where: features offered, those made from the data, and the places that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pscrub.data.features import features_of_columns, read_features
from pscrub.data.partition import Partition
from pscrub.errors import StudyError, close
from pscrub.evaluate.on_data import OnData
from pscrub.hypothesis.tree import Tree
from pscrub.questions.adversarial.clusters import clusters
from pscrub.questions.adversarial.moves import EVERYWHERE, Option, names, options, places

LEAST_DRAWS = 4
"""Of each move."""
MOST_HELD = 0.9
"""Share of the rows that may be held out."""
SHOWN = 12
"""Names that an error lists."""


@dataclass(frozen=True, eq=False)
class Offered:
    """Partitions that claims are made of, and the places where.

    Args:
        at: places -> sites.
        given: name -> partition, tried everywhere.
        local: place -> name -> partition, tried there.
        sharing: also try unimportant inputs drawn together.
    """

    at: Mapping[str, tuple[str, ...]]
    given: Mapping[str, Partition]
    local: Mapping[str, Mapping[str, Partition]]
    sharing: bool

    def options(self, tree: Tree) -> list[Option]:
        """Every move that changes a tree."""
        return list(options(tree, self.at, self.given, self.local, self.sharing))


@dataclass(frozen=True, eq=False)
class Offer:
    """What is to be tried.

    Args:
        features: as in `data.features.read_features`.
        from_data: also columns, their quantiles, and clusters of each node's activations.
        nodes: claim names or graph nodes to try; all if None.
        seed: of the clusters.
    """

    features: Mapping[str, Any] | Sequence[Any]
    from_data: bool
    nodes: Sequence[str] | None
    seed: int

    def read(self, tree: Tree, on_data: OnData, rows: Tensor | None = None) -> Offered:
        """What can be joined to a tree.

        Args:
            tree: of the hypothesis that is attacked.
            on_data: of its graph on D.
            rows: int64, those that quantiles and clusters are made from; all of D by default.

        Raises:
            DatasetError: features that cannot be read.
        """
        data = tree.hypothesis.data
        at = {where: paths for where, paths in places(tree) if self.nodes is None or self._asks(tree, where, paths)}
        given = read_features(data, self.features)
        local: dict[str, dict[str, Partition]] = {}
        if self.from_data:
            given |= {k: p for k, p in features_of_columns(data, rows=rows).items() if k not in given}
            for where, paths in at.items():
                sources = tuple(dict.fromkeys(name for path in paths for name in tree.source(path)))
                if sources and len({tuple(tree.source(path)) for path in paths}) == 1:
                    local[where] = clusters(on_data, sources, data, self.seed, rows=rows)
        return Offered(at, given, local, self.nodes is None)

    def _asks(self, tree: Tree, where: str, paths: Sequence[str]) -> bool:
        """Whether the deepest of a place's sites are about named nodes."""
        return where != EVERYWHERE and bool(set(names(tree, paths[-1:])) & set(self.nodes or ()))


def known_nodes(tree: Tree) -> tuple[str, ...]:
    """The claims and graph nodes at which something can be tried, as `nodes` of `adversary` names them."""

    def found() -> Iterator[str]:
        for where, paths in places(tree):
            if where != EVERYWHERE:
                yield from names(tree, paths[-1:])

    return tuple(dict.fromkeys(found()))


def check_nodes(trees: Sequence[Tree], nodes: Sequence[str]) -> None:
    """See that something can be tried at each of the nodes, in one of the trees at least.

    Raises:
        StudyError: with every name at which nothing can, what could be meant, and what there is.
    """
    known = dict.fromkeys(name for tree in trees for name in known_nodes(tree))
    there = ", ".join([f"'{name}'" for name in list(known)[:SHOWN]] + ["..."] * (len(known) > SHOWN))
    there = f"expected a claim that reads nothing, or one with unimportant inputs: {there or 'there is none'}"
    graph = {name for tree in trees for name in (*tree.hypothesis.graph.nodes, *tree.hypothesis.graph.inputs)}
    faults = []
    for name in dict.fromkeys(nodes):
        if name in graph and name not in known:
            faults.append(f"no claim can be tried at node '{name}' by itself; {there}")
        elif name not in known:
            faults.append(f"no claim or node '{name}' to try claims at{close(name, known)}; {there}")
    if faults:
        raise StudyError(faults)


def check_asked(draws: int, steps: int, level: float, held_out: float) -> None:
    """See that what is asked for can be done, before anything is.

    Raises:
        StudyError: with every option that makes no sense, what was expected, and what to try.
    """
    faults = []
    for name, value, least, why in (
        ("draws", draws, LEAST_DRAWS, "an error shows in pairs of draws only; try 8192"),
        ("steps", steps, 1, "each step joins one claim; try 2"),
    ):
        if not isinstance(value, int) or value < least:
            faults.append(f"{name} is {value}; expected a whole number, {least} or more: {why}")
    if not 0 < level < 1:
        faults.append(f"level is {level}; expected between 0 and 1: the share of intervals that cover; try 0.95")
    if not 0 <= held_out <= MOST_HELD:
        faults.append(
            f"held_out is {held_out}; expected 0 to {MOST_HELD:g}: the share of rows that confirm, 0 where D is all "
            "there is; try 0.5"
        )
    if faults:
        raise StudyError(faults)
