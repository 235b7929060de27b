"""The hypotheses about induction in SmolLM2-135M: what its induction heads' keys, queries and values need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from pscrub.data.dataset import Dataset
from pscrub.data.partition import Partition
from pscrub.graph.decoder import Decoder
from pscrub.graph.graph import Graph, Node
from pscrub.graph.pieces import Piece, Position, carve
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.studies.induction_smollm2.heads import LENGTH, MATCH, Found, Head
from pscrub.studies.smollm2 import GROUPS, HEADS

END = LENGTH - 1
PLACES = {"k": MATCH, "q": END, "v": MATCH}
"""Where induction heads' keys, queries and values matter: the place that each is claimed at."""


@dataclass(frozen=True)
class Ladder:
    """What all hypotheses are about.

    Args:
        decoder: the model, opened on D.
        found: heads that were measured on other rows.
        loss: f, which reads "logits".
        seed: of what is random in controls.
    """

    decoder: Decoder
    found: Found
    loss: Node
    seed: int

    @property
    def data(self) -> Dataset:
        """D."""
        return self.decoder.data

    @cached_property
    def random_sources(self) -> tuple[Head, ...]:
        """As many heads as attend to the token before, of the same layers, and others than these."""
        return self._random(self.found.previous, ())

    @cached_property
    def random_readers(self) -> tuple[Head, ...]:
        """As many heads as are induction heads, of the same layers, and others than these."""
        return self._random(self.found.induction, self.random_sources)

    def hypotheses(self) -> list[Hypothesis]:
        """The ladder, in the order of the table."""
        graph = self._graph()
        rows = [Hypothesis("0a everything exact", graph, self.data, Claim(self.loss.name, EXACT))]
        rows += [*self._heads(graph), *self._composition(graph), *self._known(graph)]
        return rows

    def _heads(self, graph: Graph) -> Iterator[Hypothesis]:
        for name, heads in (("0b induction heads", self.found.induction), ("0c random heads", self.random_readers)):
            reads = [Claim(f"{_named(head)}@{END}", self._anything, words="nothing") for head in heads]
            yield self._row(f"{name} resampled", graph, reads)

    def _composition(self, graph: Graph) -> Iterator[Hypothesis]:
        """What a part of all induction heads reads from some heads is resampled, and all else is exact."""
        for number, letter in enumerate(PLACES, 1):
            part = letter.upper()
            sources: dict[str, Sequence[Head]] = {
                f"{number}a {part} without previous-token heads": self.found.previous,
                f"{number}b {part} without random heads": self.random_sources,
            }
            if letter == "k":
                best = self.found.previous[0]
                sources |= {f"{number}c {part} without {_named(each)} alone": [each] for each in self.found.previous}
                sources[f"{number}d {part} without all but {_named(best)}"] = self.found.previous[1:]
            for name, heads in sources.items():
                lost = {head: Claim(_named(head), self._anything, words="nothing") for head in heads}
                yield self._row(name, graph, self._readers(letter, lost))

    def _readers(self, letter: str, sources: Mapping[Head, Claim]) -> list[Claim]:
        """Induction heads at the end, whose part reads the sources below it as claimed."""
        made: dict[str, Claim] = {}
        readers = []
        for head in self.found.induction:
            below = [claim for source, claim in sources.items() if source[0] < head[0]]
            if below:
                at = _placed(head, letter)
                made.setdefault(at, Claim(at, reads=below, rest=EXACT))
                readers.append(Claim(f"{_named(head)}@{END}", reads=[made[at]], rest=EXACT))
        return readers

    def _known(self, graph: Graph) -> Iterator[Hypothesis]:
        """What is read of a part is that of a row that agrees with this one on a token, and all else is exact."""
        query, target, earlier = (self.data[name] for name in ("query", "target", "earlier"))
        order = torch.randperm(self.data.n, generator=self._generator())
        rows: dict[str, Mapping[str, tuple[Any, str]]] = {
            "4a the match's keys know the token before": {"k": (query, "token before")},
            "4b the match's keys know their own token": {"k": (target, "own token")},
            "4c the match's keys know two before": {"k": (earlier, "token two before")},
            "4d as 4a, shuffled": {"k": (query[order], "shuffled")},
            "5a the queries know their own token": {"q": (query, "own token")},
            "5b the queries know the token before": {"q": (earlier, "token before")},
            "6a the match's values know their own token": {"v": (target, "own token")},
            "6b the match's values know the token before": {"v": (query, "token before")},
            "7a all three know their token": {
                "k": (query, "token before"),
                "q": (query, "own token"),
                "v": (target, "own token"),
            },
        }
        for name, known in rows.items():
            made: dict[str, Claim] = {}
            readers = []
            for head in self.found.induction:
                reads = []
                for letter, (feature, words) in known.items():
                    at = _placed(head, letter)
                    reads.append(made.setdefault(at, Claim(at, feature, words=words)))
                readers.append(Claim(f"{_named(head)}@{END}", reads=reads, rest=EXACT))
            yield self._row(name, graph, readers)

    def _graph(self) -> Graph:
        """The graph with heads' outputs, and induction heads' parts at the places that matter, as nodes."""
        sources = (*self.found.previous, *self.random_sources)
        readers = (*self.found.induction, *self.random_readers)
        pieces: dict[str, Piece] = {}

        def add(name: str, *at: int) -> None:
            named = "@".join((name, *map(str, at)))
            position = Position(offset=at[0]) if at else None
            pieces[named] = replace(self.decoder.piece(name), name=named, position=position)

        for head in sources:
            add(_named(head))
        for head in readers:
            add(_named(head), END)
        for head in self.found.induction:
            for letter, place in PLACES.items():
                add(_part(head, letter), place)
        graph = self.decoder.graph([piece.node for piece in pieces.values()], self.loss)
        return carve(graph, self.data, list(pieces.values()))

    def _row(self, name: str, graph: Graph, reads: Sequence[Claim]) -> Hypothesis:
        claim = Claim(self.loss.name, reads=reads, rest=EXACT, paths="any")
        return Hypothesis(name, graph, self.data, claim)

    @property
    def _anything(self) -> Partition:
        return Partition.trivial(self.data)

    def _random(self, heads: Sequence[Head], others: Sequence[Head]) -> tuple[Head, ...]:
        taken = {*self.found.previous, *self.found.induction, *others}
        generator, chosen = self._generator(), dict[Head, None]()
        for layer, _ in heads:
            left = [
                (layer, each) for each in range(HEADS) if (layer, each) not in taken and (layer, each) not in chosen
            ]
            if left:
                chosen[left[int(torch.randint(len(left), (1,), generator=generator))]] = None
        return tuple(chosen)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def _named(head: Head) -> str:
    return f"{head[0]}.{head[1]}"


def _part(head: Head, letter: str) -> str:
    """A query is the head's own, keys and values are of its group."""
    layer, number = head
    return f"{layer}.{number}.q" if letter == "q" else f"{layer}.g{number * GROUPS // HEADS}.{letter}"


def _placed(head: Head, letter: str) -> str:
    return f"{_part(head, letter)}@{PLACES[letter]}"
