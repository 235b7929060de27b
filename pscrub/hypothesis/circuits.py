"""A circuit of a language model as a hypothesis: lines of readers and sources become pieces, nodes and claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pscrub.data.partition import Partition
from pscrub.errors import HypothesisError, close
from pscrub.graph.graph import Graph, Node
from pscrub.graph.judging import LOGITS
from pscrub.graph.pieces import Subspace
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.isomorphism import order_upwards
from pscrub.hypothesis.notation import Ref, Saying, read_script
from pscrub.hypothesis.reading import find_far
from pscrub.hypothesis.wording import Named, Part, Parts, Positions

ANYTHING = "anything"
"""The feature on which all rows agree: what is there is resampled, apart from the rest."""
SHOWN = 5
"""Rows that an error lists."""


def circuit(
    name: str,
    decoder: Named,
    text: str | Mapping[str, Sequence[str]],
    *,
    behaviour: Node | Sequence[Node],
    positions: Positions | None = None,
    features: Mapping[str, Any] | None = None,
    directions: Mapping[str, Subspace] | None = None,
    rest: Literal["unimportant", "exact"] = "unimportant",
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

    A part that reads nothing carries the datum itself unless a line names its feature: "exact" is then what is said of
    it. One that reads others carries what these determine. The loss's own columns, labels and positions, are exact.

    Args:
        name: of the hypothesis.
        decoder: the opened model, and D; or what else names a graph's values so.
        text: the lines (see `notation`), or readers -> sources.
        behaviour: f, a node that reads "logits" and columns of D, as `decoder.logit_difference` makes; or several.
        positions: names in the text -> a position, or a column. `END` is the last one; columns are known by their own.
        features: names in the text -> features as `Claim` takes them. Columns are known by their own names, and so are
            "exact" and "anything" (all rows agree: resampled).
        directions: names in brackets -> directions of a value's last axis.
        rest: of every claim that does not say its own: "unimportant" inputs are resampled, "exact" ones stay.

    Raises:
        HypothesisError: with every fault and its line: words that are no places, heads and points that are not in the
            model, positions off the end on some rows, parts that overlap, edges that the model has not, sources at
            another position than what reads them, parts that lead nowhere, unknown features.

    >>> h = circuit("movers", decoder, "logits@END <- 9.9@END 10.0@END", behaviour=loss)  # doctest: +SKIP
    """
    script = read_script(text)
    parts = Parts(decoder, positions or {}, directions or {})
    edges = parts.read_edges(script)
    said = {part: saying for saying in script.sayings for part in parts.find(saying.at)}
    parts.stop_at_faults()
    on_top = [behaviour] if isinstance(behaviour, Node) else [*behaviour]
    graph = parts.cut(on_top, [*edges, *(read for reads in edges.values() for read in reads), *said])
    edges = parts.link(edges, said)
    graph = parts.copy(graph, edges)
    _check_edges(graph, edges, parts)
    columns = dict.fromkeys(read for node in on_top for read in node.inputs if read in decoder.data.names)
    claims = _Claims(parts, edges, said, features or {}, rest)
    return Hypothesis(name, graph, decoder.data, claims.root(graph.output, [*columns]))


def _check_edges(graph: Graph, edges: Mapping[Part, Sequence[Part]], parts: Parts) -> None:
    """Faults of edges: backwards, through other parts, between positions.

    Raises:
        HypothesisError: with all of them.
    """
    faults: list[str] = []
    for reader, sources in edges.items():
        above = graph.ancestors(reader.at)
        far = find_far(graph, Claim(reader.at, reads=[Claim(each.at) for each in sources if each.at in above]))
        for source in sources:
            if source.at not in above:
                later = reader.at in graph.ancestors(source.at)
                why = f"the model computes '{source.name}' from it" if later else "no path of the model leads there"
                faults.append(f"{reader} cannot read '{source.name}': {why}")
            elif reader in parts.followed:
                continue
            elif source.at in far:
                between = [n for n in graph.nodes if n in above and source.at in graph.reads(n) and n != reader.at]
                by = f" (by way of {', '.join(between[:SHOWN])})" if between else ""
                faults.append(f"{reader} does not read '{source.name}' itself, only through others{by}; say each edge")
            elif not reader.is_own(source) and len(rows := parts.apart(reader, source)):
                shown = ", ".join(map(str, rows[:SHOWN].tolist())) + (", ..." if len(rows) > SHOWN else "")
                faults.append(
                    f"{reader} cannot read '{source.name}', which is at another position on rows {shown}: what is "
                    "added to the residual stream is read where it was added; only a head's z reads k and v elsewhere"
                )
    if faults:
        raise HypothesisError(faults)


class _Claims:
    """Claims made of parts.

    Args:
        parts: all of them, and D.
        edges: reader -> sources.
        said: what lines claim of a part.
        features: by the names that lines have for them.
        rest: of claims that say none.
    """

    def __init__(
        self,
        parts: Parts,
        edges: Mapping[Part, Sequence[Part]],
        said: Mapping[Part, Saying],
        features: Mapping[str, Any],
        rest: Literal["unimportant", "exact"],
    ) -> None:
        self.parts, self.data = parts, parts.data
        self.edges, self.said, self.features, self.rest = edges, said, features, rest
        self.faults: list[str] = []

    def root(self, output: str, columns: Sequence[str]) -> Claim:
        """The claim at f, which reads the logits as lines say, and its own columns on its own datum.

        Raises:
            HypothesisError: features that are not known or missing, parts that lead nowhere.
        """
        made: dict[Part, Claim] = {}
        tops = [part for part in self.edges if part.piece.node == LOGITS]
        for top in tops:
            for part in order_upwards(top, lambda part: self.edges.get(part, ())):
                if part not in made:
                    made[part] = self._claim(part, [made[read] for read in self.edges.get(part, ())])
        if not tops:
            self.faults.append(f"no line says what '{LOGITS}' reads, so that nothing leads to '{output}'")
        else:
            every = dict.fromkeys([*self.edges, *self.said])
            loose = [part for part in every if part not in made and part not in self.parts.starred]
            self.faults += [f"{part} is read by no part that leads to '{LOGITS}'; say what reads it" for part in loose]
        if self.faults:
            raise HypothesisError(self.faults)
        reads = [*(made[top] for top in tops), *(Claim(column, EXACT) for column in columns)]
        return Claim(output, reads=reads, rest=self.rest)

    def _claim(self, part: Part, reads: Sequence[Claim]) -> Claim:
        said = self.said.get(part)
        if said is None and part.feature:
            said = Saying(Ref(part.name, line=part.line), part.feature, "")
        feature, words = self._feature(said) if said is not None and said.feature else (None, "")
        rest = self.rest if said is None or not said.rest else "exact" if said.rest == EXACT else "unimportant"
        if feature is None and not reads:
            if self.rest == EXACT:
                self.faults.append(
                    f"{part}: says no feature; with the rest exact, what is to be swapped must say what it agrees on "
                    f"('{part.name} : feature', '{ANYTHING}' for all rows)"
                )
            feature = EXACT
        paths: Literal["direct", "any"] = "any" if part in self.parts.followed else "direct"
        return Claim(part.at, feature, reads, name=part.name, words=words, paths=paths, rest=rest)

    def _feature(self, said: Saying) -> tuple[Any, str]:
        name = said.feature
        if name in self.features:
            return self.features[name], name
        if name == ANYTHING:
            return Partition.trivial(self.data), name
        if name != EXACT and name not in self.data.names:
            known = [*self.features, *self.data.names, EXACT, ANYTHING]
            self.faults.append(
                f"line {said.at.line}, '{said.at} : {name}': no feature or column is named '{name}'{close(name, known)}"
            )
            return EXACT, ""
        return name, ""


def write_circuit(hypothesis: Hypothesis) -> str:
    """A circuit's lines, as `circuit` reads them.

    Args:
        hypothesis: one that `circuit` made, or whose claims below the root have names as it reads them.

    >>> print(write_circuit(h))  # doctest: +SKIP
    logits@END <- 9.9@END 10.0@END
    """
    root, lines, sayings = hypothesis.claim, [], []
    for claim in hypothesis.claims[1:]:
        if claim.at in hypothesis.data.names:
            continue
        if claim.reads:
            arrow = "<=" if claim.paths == "any" else "<-"
            lines.append((claim.name, [arrow, *(read.name for read in claim.reads)]))
        # Exact is what a part that reads nothing is, unless the rest is so too: then every such part says a feature.
        plain = claim.feature == EXACT if isinstance(claim.feature, str) else claim.feature is None
        said = claim.words or ("" if plain and (claim.reads or root.rest != EXACT) else claim.feature_name)
        rest = f"rest={claim.rest}" if claim.reads and claim.rest != root.rest else ""
        if (said or rest) and not claim.name.endswith(f"({said})"):
            sayings.append((claim.name, [":", *(each for each in (said, rest) if each)]))
    width = max((len(name) for name, _ in [*lines, *sayings]), default=0)
    return "\n".join(f"{name:{width}} {' '.join(words)}" for name, words in [*lines, *sayings])
