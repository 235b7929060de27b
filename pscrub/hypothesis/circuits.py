"""A circuit of a language model as a hypothesis: lines of readers and sources become pieces, nodes and claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.data.partition import Partition
from pscrub.errors import HypothesisError, close
from pscrub.graph.graph import Graph, Node
from pscrub.graph.judging import LOGITS
from pscrub.graph.pieces import Position, Subspace
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.isomorphism import order_upwards
from pscrub.hypothesis.named import Named
from pscrub.hypothesis.notation import Ref, Saying, read_script
from pscrub.hypothesis.reading import find_far
from pscrub.hypothesis.wording import Estimates, Part, Parts, Positions

ANYTHING = "anything"
"""The feature on which all rows agree: what is there is resampled, apart from the rest."""
SHOWN = 5
"""Rows that an error lists."""
Text = str | Mapping[str, Sequence[str]]
Rest = Literal["unimportant", "exact"]


@dataclass(frozen=True, eq=False)
class ByPosition:
    """A feature that is told for each position: where a circuit names it, it is the one of the position there.

    Args:
        values: [N, positions] or [N, positions, k].
    """

    values: Tensor

    def at(self, position: Position, data: Dataset) -> Tensor:
        """[N] or [N, k]: the feature at a position, the same on every row or told by a column."""
        if not position.column:
            return self.values[:, position.offset]
        return self.values[torch.arange(data.n), data[position.column] + position.offset]


def circuit(
    name: str,
    decoder: Named,
    text: Text,
    *,
    behaviour: Node | Sequence[Node],
    positions: Positions | None = None,
    features: Mapping[str, Any] | None = None,
    directions: Mapping[str, Subspace] | None = None,
    rest: Rest = "unimportant",
) -> Hypothesis:
    """The hypothesis that a circuit's lines say, on a graph whose nodes are the model's parts.

    `reader <- sources` is the edge alone: what a source adds to the residual stream, as the reader reads it from there.
    What the reader reads from all other heads, MLPs and embeddings is its rest, and so are other paths from the source.
    `reader <= sources` is every path from a source to the reader.

    - A head without a part (`9.9`) is its z, what it writes. It reads those of its own q, k and v that lines speak of
      (q at its own position, k and v at any), or as lines with its z as the reader say (`0.3@* <- 0.3.v@*-1`). Given
      other sources, it reads them through q, k and v at all positions.
    - `@3`, `@-1`, `@S1+1`: a position, the same on every row or told by a column, with an offset. `@*` in a reader: an
      edge for each position by itself; its sources may stand there (`@*`) or before (`@*-1`). Left out: all positions
      as one value.
    - `mlp_post.5[3,7]`, `m5[0:16]`: entries of the last axis; `resid_post.5[name]`: directions.
    - `places : feature rest=exact`: what two inputs must agree on to be swapped there, and what becomes of the rest.
      `reader <- source(feature)`: what they must agree on for this reader, which then reads a copy of its own.
    - f reads the logits, and its own columns on its own datum, unless lines say what it reads (`loss <- label logits`,
      by the behaviour's name), that it is swapped as a whole (`loss : exact`), or what a column has to agree on.

    A part that reads nothing carries the datum itself unless a line names its feature: "exact" is then what is said of
    it. One that reads others carries what these determine. The loss's own columns, labels and positions, are exact.

    Args:
        name: of the hypothesis.
        decoder: the opened model, and D; or what else names a graph's values so.
        text: the lines (see `notation`), or readers -> sources.
        behaviour: f, a node that reads "logits" and columns of D, as `decoder.logit_difference` makes; or several.
        positions: names in the text -> a position, or a column. `END` is the last one; columns are known by their own.
        features: names in the text -> features as `Claim` takes them, or `ByPosition`. Columns are known by their own
            names, and so are "exact" and "anything" (all rows agree: resampled).
        directions: names in brackets -> directions of a value's last axis.
        rest: of every claim that does not say its own: "unimportant" inputs are resampled, "exact" ones stay.

    Raises:
        HypothesisError: with every fault and its line: words that are no places, heads and points that are not in the
            model, positions off the end on some rows, parts that overlap, edges that the model has not, sources at
            another position than what reads them, parts that lead nowhere, unknown features.

    >>> h = circuit("movers", decoder, "logits@END <- 9.9@END 10.0@END", behaviour=loss)  # doctest: +SKIP
    """
    on_top = [behaviour] if isinstance(behaviour, Node) else [*behaviour]
    parts = Parts(decoder, on_top, positions or {}, directions or {}, {})
    return _make({name: text}, parts, features or {}, rest)[0]


def circuit_ladder(
    texts: Mapping[str, Text],
    decoder: Named,
    *,
    behaviour: Node | Sequence[Node],
    positions: Positions | None = None,
    features: Mapping[str, Any] | None = None,
    directions: Mapping[str, Subspace] | None = None,
    estimates: Estimates | None = None,
    rest: Rest = "unimportant",
) -> list[Hypothesis]:
    """The hypotheses that several texts say, as `circuit` makes them, on one graph with the parts of all of them.

    D is then passed once for all, but for texts that ask for copies of their own (`source(feature)`).

    Args:
        texts: name -> lines. A part that one of them names as a whole cannot be cut by another.
        decoder: as for `circuit`, and so on.
        estimates: a word for one part -> phi, and the columns or nodes that it reads: the part's value x is computed as
            phi + (x - phi). `9.9@END <- estimate_of(9.9@END)` is the edge from phi; what phi leaves is the rest's.

    Raises:
        HypothesisError: as for `circuit`; a fault says in which of several texts.

    >>> ladder = circuit_ladder({"both": "logits <- 9.9 10.0", "one": "logits <- 9.9"}, decoder, behaviour=loss)
    ... # doctest: +SKIP
    """
    on_top = [behaviour] if isinstance(behaviour, Node) else [*behaviour]
    parts = Parts(decoder, on_top, positions or {}, directions or {}, estimates or {})
    return _make(texts, parts, features or {}, rest)


def _make(texts: Mapping[str, Text], parts: Parts, features: Mapping[str, Any], rest: Rest) -> list[Hypothesis]:
    """The hypotheses of texts on one graph.

    Raises:
        HypothesisError: with every fault of reading; then of cutting; then of each text's edges and claims.
    """
    scripts = {name: _read(name, text, parts, len(texts) > 1) for name, text in texts.items()}
    parts.stop_at_faults()
    spoken = [part for script in scripts.values() for part in (*script.edges, *script.said)]
    spoken += [read for script in scripts.values() for reads in script.edges.values() for read in reads]
    graph = parts.cut(spoken)
    found, faults = [], list[str]()
    for name, script in scripts.items():
        own = parts.copy(graph, script.edges)
        try:
            _check_edges(own, script, parts)
            root = _Claims(parts, script, features, rest).root()
        except HypothesisError as error:
            faults += error.faults
        else:
            found.append(Hypothesis(name, own, parts.data, root))
    if faults:
        raise HypothesisError(dict.fromkeys(faults))
    return found


@dataclass(frozen=True)
class _Read:
    """A text, its words found in the model.

    Args:
        edges: reader -> sources.
        said: what lines claim of a part.
        starred: readers at each position by itself, of which not every one needs to be read.
        followed: readers whose sources are read along every path.
        title: of the text: "'name', " of one of several.
        lines: where a part is written first.
    """

    edges: Mapping[Part, Sequence[Part]]
    said: Mapping[Part, Saying]
    starred: frozenset[Part]
    followed: frozenset[Part]
    title: str
    lines: Mapping[Part, int]

    def say(self, part: Part) -> str:
        """A part as faults name it."""
        return f"{self.title}line {self.lines[part]}, '{part.name}'"


def _read(name: str, text: Text, parts: Parts, several: bool) -> _Read:
    parts.begin(f"'{name}', " if several else "")
    try:
        script = read_script(text)
    except HypothesisError as error:
        if not several:
            raise
        parts.faults += [f"{parts.text}{fault}" for fault in error.faults]
        return _Read({}, {}, frozenset(), frozenset(), "", {})
    edges = parts.read_edges(script)
    said = {part: saying for saying in script.sayings for part in parts.find(saying.at)}
    starred, followed = frozenset(parts.starred), frozenset(parts.followed)
    return _Read(parts.link(edges, said), said, starred, followed, parts.text, parts.lines)


def _check_edges(graph: Graph, script: _Read, parts: Parts) -> None:
    """Faults of edges: backwards, through other parts, between positions.

    Raises:
        HypothesisError: with all of them.
    """
    faults: list[str] = []
    for reader, sources in script.edges.items():
        above = graph.ancestors(reader.at)
        far = find_far(graph, Claim(reader.at, reads=[Claim(each.at) for each in sources if each.at in above]))
        for source in sources:
            if source.at not in above:
                later = source.at in graph and reader.at in graph.ancestors(source.at)
                why = f"the model computes '{source.name}' from it" if later else "no path of the model leads there"
                faults.append(f"{script.say(reader)} cannot read '{source.name}': {why}")
            elif reader in script.followed:
                continue
            elif source.at in far:
                between = [n for n in graph.nodes if n in above and source.at in graph.reads(n) and n != reader.at]
                by = f" (by way of {', '.join(between[:SHOWN])})" if between else ""
                faults.append(
                    f"{script.say(reader)} does not read '{source.name}' itself, only through others{by}; say each edge"
                )
            elif reader.piece.node not in parts.decoder.mixing and len(rows := parts.apart(reader, source)):
                shown = ", ".join(map(str, rows[:SHOWN].tolist())) + (", ..." if len(rows) > SHOWN else "")
                faults.append(
                    f"{script.say(reader)} cannot read '{source.name}', which is at another position on rows {shown}: "
                    "what is added to the residual stream is read where it was added; only a head's z reads k and v "
                    "elsewhere"
                )
    if faults:
        raise HypothesisError(faults)


class _Claims:
    """Claims made of parts.

    Args:
        parts: all of them, and D.
        script: what is said of them.
        features: by the names that lines have for them.
        rest: of claims that say none.
    """

    def __init__(self, parts: Parts, script: _Read, features: Mapping[str, Any], rest: Rest) -> None:
        self.parts, self.data, self.features, self.rest = parts, parts.data, features, rest
        self.edges, self.said, self.script = script.edges, script.said, script
        self.faults: list[str] = []

    def root(self) -> Claim:
        """The claim at f: as lines say, or reading the logits as lines say, and its own columns on its own datum.

        Raises:
            HypothesisError: features that are not known or missing, parts that lead nowhere.
        """
        made: dict[Part, Claim] = {}
        every, output = dict.fromkeys([*self.edges, *self.said]), self.parts.output
        said = [part for part in every if part.piece.node == output]
        tops = said or [part for part in self.edges if part.piece.node == LOGITS]
        for top in tops:
            for part in order_upwards(top, lambda part: self.edges.get(part, ())):
                if part not in made:
                    made[part] = self._claim(part, [made[read] for read in self.edges.get(part, ())])
        columns = {} if said else {name: self._column(name) for name in self.parts.columns}
        made |= {part: claim for part in every if (claim := columns.get(part.piece.node)) is not None}
        if not tops:
            self.faults.append(f"no line says what '{LOGITS}' reads, so that nothing leads to '{output}'")
        else:
            end = output if said else LOGITS
            loose = [part for part in every if part not in made and part not in self.script.starred]
            self.faults += [
                f"{self.script.say(part)} is read by no part that leads to '{end}'; say what reads it" for part in loose
            ]
        if self.faults:
            raise HypothesisError(self.faults)
        if said:
            return made[said[0]]
        return Claim(output, reads=[*(made[top] for top in tops), *columns.values()], rest=self.rest)

    def _column(self, name: str) -> Claim:
        part = next((part for part in self.said if part.piece.node == name), None)
        return Claim(name, EXACT) if part is None else self._claim(part, [])

    def _claim(self, part: Part, reads: Sequence[Claim]) -> Claim:
        said = self.said.get(part)
        if said is None and part.feature:
            said = Saying(Ref(part.name, line=self.script.lines[part]), part.feature, "")
        feature, words = self._feature(said, part) if said is not None and said.feature else (None, "")
        rest = self.rest if said is None or not said.rest else "exact" if said.rest == EXACT else "unimportant"
        if feature is None and not reads:
            if self.rest == EXACT and not self.parts.is_of_f(part):
                self.faults.append(
                    f"{self.script.say(part)}: says no feature; with the rest exact, what is to be swapped must say "
                    f"what it agrees on ('{part.name} : feature', '{ANYTHING}' for all rows)"
                )
            feature = EXACT
        paths: Literal["direct", "any"] = "any" if part in self.script.followed else "direct"
        return Claim(part.at, feature, reads, name=part.name, words=words, paths=paths, rest=rest)

    def _feature(self, said: Saying, part: Part) -> tuple[Any, str]:
        name, line = said.feature, f"{self.script.title}line {said.at.line}, '{said.at} : {said.feature}'"
        if name in self.features:
            feature = self.features[name]
            if not isinstance(feature, ByPosition):
                return feature, name
            wanted, shape = [self.data.n, self.parts.length], [*feature.values.shape]
            if shape[:2] != wanted or len(shape) > 3:
                self.faults.append(f"{line}: '{name}' has values {shape}; expected {wanted}, or several each")
                return EXACT, ""
            if part.piece.position is not None:
                return feature.at(part.piece.position, self.data), name
            self.faults.append(f"{line}: '{name}' is told for each position, and '{part.name}' stands at none")
            return EXACT, ""
        if name == ANYTHING:
            return Partition.trivial(self.data), name
        if name != EXACT and name not in self.data.names:
            known = [*self.features, *self.data.names, EXACT, ANYTHING]
            self.faults.append(f"{line}: no feature or column is named '{name}'{close(name, known)}")
            return EXACT, ""
        return name, ""
