"""The hypotheses about indirect objects: which heads matter at the end, what they carry, and what reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from pscrub.data.dataset import Dataset
from pscrub.data.partition import Partition
from pscrub.graph.decoder import Decoder
from pscrub.graph.graph import Graph, Node
from pscrub.graph.pieces import Piece, Position, carve
from pscrub.hypothesis.circuits import ANYTHING, circuit
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.studies.ioi.heads import Found, Head
from pscrub.studies.ioi.prompts import LENGTH

END = LENGTH - 1
KEPT = (5, 10, 15, 20, 45)
"""How many heads are kept at the end, those that matter most."""
CHOSEN = 20
"""Of how many the controls are."""
NEAR = 3
"""How many layers a head of a control may be away from those that it is a control of."""


@dataclass(frozen=True)
class Ladder:
    """What all hypotheses are about.

    Args:
        decoder: the model, opened on D.
        found: heads that were measured on other prompts.
        behaviours: nodes on top of "logits"; the last is f, which reads the one before and columns of D.
        seed: of what is random in controls.
    """

    decoder: Decoder
    found: Found
    behaviours: Sequence[Node]
    seed: int

    @property
    def data(self) -> Dataset:
        """D."""
        return self.decoder.data

    @cached_property
    def features(self) -> dict[str, Any]:
        """Laws of donors, by name: what a donor has in common with the row."""
        together = {
            "other names": ("frame", "order"),
            "names exchanged": ("pair", "order"),
            "order exchanged": ("pair", "s"),
        }
        laws = {law: torch.stack([self.data[each] for each in columns], 1) for law, columns in together.items()}
        order = torch.randperm(self.data.n, generator=self._generator())
        return laws | {"shuffled": laws["other names"][order]}

    def hypotheses(self) -> list[Hypothesis]:
        """The ladder, in the order of the table; no rows about kinds of heads that were not found."""
        ends = [
            ("0a everything exact", Claim(self.behaviours[-1].name, EXACT)),
            ("0b logits unimportant", Claim(self.behaviours[-1].name, reads=self._labels())),
        ]
        rows = [Hypothesis(name, self._graph, self.data, claim) for name, claim in ends]
        for family in (self._kept, self._position, self._names, self._edges):
            rows += family()
        return rows

    def random_heads(self, like: Sequence[Head], below: int | None = None) -> tuple[Head, ...]:
        """As many heads of layers at most NEAR away, of no kind that was found and not among those that matter most.

        Args:
            like: the heads that they are a control of.
            below: the layer that they are below, if any.
        """
        found = self.found
        taken = {*found.ranked[:CHOSEN], *found.inhibition, *found.duplicates, *found.induction, *found.previous}
        layers = [layer for layer, _ in like] or [0]
        top = max(layers) + NEAR if below is None else min(max(layers) + NEAR, below - 1)
        left = [head for head in sorted(found.ranked) if min(layers) - NEAR <= head[0] <= top and head not in taken]
        order = torch.randperm(len(left), generator=self._generator())[: len(like)]
        return tuple(left[each] for each in order.tolist())

    def _kept(self) -> Iterator[Hypothesis]:
        """All heads but some are other prompts' at the end, each head's of a prompt of its own."""
        ranked = self.found.ranked
        others = torch.randperm(len(ranked) - KEPT[-1], generator=self._generator())[:CHOSEN] + KEPT[-1]
        rows: dict[str, Sequence[Head]] = {"1a no head matters at the end": ()}
        rows |= {f"1b {count} heads matter": ranked[:count] for count in KEPT}
        rows[f"1c {CHOSEN} random heads matter"] = [ranked[each] for each in others.tolist()]
        rows[f"1d all but those {CHOSEN} matter"] = ranked[CHOSEN:]
        rows[f"1e {CHOSEN} that help matter"] = self.found.helpful[:CHOSEN]
        rows["1f 5 by the logit difference matter"] = self.found.by_difference[:5]
        for name, heads in rows.items():
            yield self._left(name, heads, ANYTHING)
        yield self._left(f"1g as 1b, {CHOSEN}, of other names", ranked[:CHOSEN], "other names")

    def _position(self) -> Iterator[Hypothesis]:
        """What S-inhibition heads write at the end is another prompt's, by law; all else is exact."""
        heads = self.found.inhibition
        if heads:
            yield self._swapped("2a S-inhibition carries nothing", heads, ANYTHING)
            yield self._swapped("2b S-inhibition carries the position", heads, "other names")
            yield self._swapped("2c S-inhibition carries the name", heads, "s")
            yield self._swapped("2d S-inhibition: names exchanged", heads, "names exchanged")
            yield self._swapped("2e S-inhibition: order exchanged", heads, "order exchanged")
            yield self._swapped("2f as 2b, shuffled", heads, "shuffled")
            yield self._swapped("2g random heads carry nothing", self.random_heads(heads), ANYTHING)

    def _names(self) -> Iterator[Hypothesis]:
        """What movers and suppressors write at the end is another prompt's, by law; all else is exact."""
        movers, found = self.found.movers, self.found
        if movers:
            yield self._swapped("3a movers carry nothing", movers, ANYTHING)
            yield self._swapped("3b movers carry IO's name", movers, "io")
            yield self._swapped("3c movers carry the position", movers, "other names")
            yield self._swapped("3d random heads carry nothing", self.random_heads(movers), ANYTHING)
        if found.negative:
            yield self._swapped("3e negative movers carry nothing", found.negative, ANYTHING)
        if found.suppressors:
            yield self._swapped("3f suppressors carry nothing", found.suppressors, ANYTHING)
            yield self._swapped("3g suppressors carry S's name", found.suppressors, "s")

    def _edges(self) -> Iterator[Hypothesis]:
        """Circuits as lines: who reads what, all else exact."""
        found = self.found
        lowest, highest = (each((layer for layer, _ in found.inhibition), default=0) for each in (min, max))
        movers = [head for head in found.movers if head[0] > highest]
        if not (found.inhibition and movers):
            return
        below = min(layer for layer, _ in movers)
        random = self.random_heads(found.inhibition, below)
        top = ["logits <= movers@END", "movers.q@END <- sources@END"]
        for name, heads, law in (
            ("4a movers' queries without S-inhibition", found.inhibition, ANYTHING),
            ("4b of S-inhibition, the position", found.inhibition, "other_names"),
            ("4c of S-inhibition, the name", found.inhibition, "s"),
            ("4d movers' queries without random heads", random, ANYTHING),
        ):
            yield self._circuit(name, {"movers": movers, "sources": heads}, [*top, f"sources@END : {law}"])
        kept = " ".join(["embed@END", *(f"m{layer}@END" for layer in range(below))])
        for name, heads in (
            ("4e of heads, movers' queries read S-inhibition", found.inhibition),
            ("4f of heads, movers' queries read random ones", random),
        ):
            lines = [f"movers.q@END <- {kept}", f"sources@END {kept} : {EXACT}", "movers.q@END : rest=unimportant"]
            yield self._circuit(name, {"movers": movers, "sources": heads}, [*top, *lines])
        values = dict.fromkeys(self._values_of(head) for head in found.inhibition)
        for name, heads in (
            ("4g S-inhibition's values without duplicate-token heads", found.duplicates),
            ("4h S-inhibition's values without induction heads", found.induction),
            ("4i S-inhibition's values without random heads", self.random_heads(found.duplicates, lowest)),
        ):
            if sources := [head for head in heads if head[0] < lowest]:
                lines = ["logits <= readers@END", *(f"{value}@S2 <= sources@S2" for value in values)]
                lines.append(f"sources@S2 : {ANYTHING}")
                yield self._circuit(name, {"readers": found.inhibition, "sources": sources}, lines)

    def _left(self, name: str, kept: Iterable[Head], law: str) -> Hypothesis:
        return self._swapped(name, sorted({*self.found.ranked} - {*kept}), law)

    def _swapped(self, name: str, heads: Sequence[Head], law: str) -> Hypothesis:
        """What heads write at the end is of prompts by a law, each head's of its own, with all that follows from it."""
        feature = Partition.trivial(self.data) if law == ANYTHING else self.features.get(law, law)
        reads = [Claim(f"{a}.{b}@END", feature, words=law) for a, b in heads]
        claim = Claim(self.behaviours[-1].name, reads=[*reads, *self._labels()], rest=EXACT, paths="any")
        return Hypothesis(name, self._graph, self.data, claim)

    def _circuit(self, name: str, groups: Mapping[str, Sequence[Head]], lines: Sequence[str]) -> Hypothesis:
        said = [f"name {group} = {' '.join(f'{a}.{b}' for a, b in heads)}" for group, heads in groups.items()]
        features = {word.replace(" ", "_"): feature for word, feature in self.features.items()}
        text = "\n".join([*said, *lines])
        own = circuit(name, self._held, text, behaviour=self.behaviours, features=features, rest=EXACT)
        return Hypothesis(name, self._graph, self.data, own.claim)

    def _values_of(self, head: Head) -> str:
        layer, number = head
        group = self.decoder.group
        return f"{layer}.g{number // group}.v" if group > 1 else f"{layer}.{number}.v"

    def _labels(self) -> list[Claim]:
        return [Claim(name, EXACT) for name in self.behaviours[-1].inputs if name in self.data.names]

    @cached_property
    def _held(self) -> _Held:
        queries = (f"q.{layer}" for layer, _ in self.found.movers)
        values = (f"v.{layer}" for layer, _ in self.found.inhibition)
        nodes = dict.fromkeys([*self.decoder.components, *queries, *values])
        return _Held(self.decoder, self.decoder.graph([*nodes], self.behaviours))

    @cached_property
    def _graph(self) -> Graph:
        """One graph for all hypotheses, so that D is passed once: every place that any of them speaks of is a node."""
        found, layers = self.found, range(1 + max(layer for layer, _ in self.found.ranked))
        at_end = [f"{a}.{b}" for a, b in sorted(found.ranked)] + [f"{a}.{b}.q" for a, b in found.movers]
        at_end += ["embed", *(f"m{layer}" for layer in layers)]
        lowest = min((layer for layer, _ in found.inhibition), default=0)
        below = (*found.duplicates, *found.induction, *self.random_heads(found.duplicates, lowest))
        at_s2 = [*(f"{a}.{b}" for a, b in below), *(self._values_of(head) for head in found.inhibition)]
        end, s2 = Position(offset=END), Position("S2")
        pieces = [
            replace(self.decoder.piece(name), name=f"{name}@{said}", position=position)
            for names, said, position in ((at_end, "END", end), (dict.fromkeys(at_s2), "S2", s2))
            for name in names
        ]
        return carve(self._held.base, self.data, pieces)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


@dataclass(frozen=True)
class _Held:
    """A decoder whose graph was cut once, for all circuits: to cut it takes longer than to score one.

    Args:
        decoder: which names values.
        base: the graph, with every node that a circuit here speaks of.
    """

    decoder: Decoder
    base: Graph
    data: Dataset = field(init=False)
    length: int = field(init=False)
    group: int = field(init=False)
    components: Sequence[str] = field(init=False)
    mixing: Sequence[str] = field(init=False)
    piece: Callable[[str], Piece] = field(init=False)
    width: Callable[[str], int] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("data", "length", "group", "components", "mixing", "piece", "width"):
            object.__setattr__(self, name, getattr(self.decoder, name))

    def graph(self, nodes: Iterable[str], behaviour: Sequence[Node]) -> Graph:
        """The graph that is held, which has these nodes."""
        return self.base
