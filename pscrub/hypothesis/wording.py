"""The places that a circuit's words refer to, each once: pieces of a language model's nodes, and the graph cut so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pscrub.errors import GraphError, HypothesisError, close
from pscrub.graph.graph import Function, Graph, Node
from pscrub.graph.pieces import Piece, Position, Subspace, carve
from pscrub.graph.rewrites import own_copy, with_estimate
from pscrub.hypothesis.named import Named
from pscrub.hypothesis.notation import EVERY, Ref, Script, Spot, read_ref

END = "END"
"""The last position, unless the data or `positions` have another meaning for it."""
_HEAD = re.compile(r"(?P<layer>\d+)\.(?P<group>g?)(?P<head>\d+)(?:\.(?P<part>[qkv]))?")
_ESTIMATE = re.compile(r"estimate_of\((?P<of>.*)\)")
_NAMED = re.compile(r"'([^']+)'")

Positions = Mapping[str, int | str | Position]
Estimates = Mapping[str, tuple[Function, Sequence[str]]]
Key = tuple[str, tuple[int, ...] | None, Position | None, str, str]


@dataclass(frozen=True, eq=False)
class Part:
    """A place of the model that a circuit speaks of.

    Args:
        name: as it was written first.
        piece: of a node; its name is the node that it is to be.
        head: layer, "q", "k", "v" or "z", and number; None for what is no head.
        line: where it was written first.
        of: the part that it is a copy of, for readers that need it to agree on a feature of its own; or None.
        feature: that feature's name.
        within: which of several texts the line is of: "'name', ", or "" of one text.
    """

    name: str
    piece: Piece
    head: tuple[int, str, int] | None
    line: int
    of: Part | None = None
    feature: str = ""
    within: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether it is all of a node."""
        piece = self.piece
        return piece.entries is None and piece.position is None and piece.within is None

    @property
    def at(self) -> str:
        """The node that a claim about it is at."""
        return self.piece.node if self.is_whole and self.of is None else self.piece.name

    def is_own(self, source: Part) -> bool:
        """Whether a source is q, k or v of the head whose z it is."""
        z, own = self.head, source.head
        return z is not None and own is not None and z[1] == "z" and own[1] != "z" and z[0] == own[0]

    def __str__(self) -> str:
        return f"{self.within}line {self.line}, '{self.name}'"


class Parts:
    """The parts that words refer to, each once, however many texts speak of it.

    Args:
        decoder: names them.
        behaviour: the nodes of f, the last of which and the columns that they read have their own names.
        positions: aliases.
        directions: by name.
        estimates: word -> what is said to estimate the part's value, and the columns or nodes that it reads.
    """

    def __init__(
        self,
        decoder: Named,
        behaviour: Sequence[Node],
        positions: Positions,
        directions: Mapping[str, Subspace],
        estimates: Estimates,
    ) -> None:
        self.decoder, self.data, self.directions, self.behaviour = decoder, decoder.data, directions, behaviour
        self.output = behaviour[-1].name
        self.columns = tuple(dict.fromkeys(r for node in behaviour for r in node.inputs if r in self.data.names))
        self.estimates, self.estimated = estimates, dict[str, tuple[Part, str]]()
        """Estimate's node -> what it is of, and the word for that."""
        self.text = ""
        """Which of several texts is read: "'name', "."""
        self.lines: dict[Part, int] = {}
        """Where in this text a part is written first."""
        self.positions: dict[str, int | str | Position] = {**positions}
        if END not in self.data.names:
            self.positions.setdefault(END, -1)
        self.length = decoder.length
        self.known: dict[Key, Part] = {}
        self.named: dict[str, Piece] = {}
        self.starred: set[Part] = set()
        """Readers at each position by itself, of which not every one needs to be read."""
        self.followed: set[Part] = set()
        """Readers whose sources are read along every path."""
        self.faults: list[str] = []

    def begin(self, text: str) -> None:
        """Another text is read: what is noted of one only is forgotten."""
        self.text, self.lines, self.starred, self.followed = text, {}, set(), set()

    def stop_at_faults(self) -> None:
        if self.faults:
            raise HypothesisError(dict.fromkeys(self.faults))

    def read_edges(self, script: Script) -> dict[Part, list[Part]]:
        """Reader -> sources, each position by itself where "*" says so, heads as readers by their q, k and v."""
        edges: dict[Part, dict[Part, None]] = {}
        for reader, source in script.edges:
            each, starred = [reader], reader.spot is not None and reader.spot.base == EVERY
            if reader.spot is not None and starred:
                each = [replace(reader, spot=Spot("", p)) for p in self._steps(reader.spot)]
            for one in each:
                sources = self._sources(reader, one, source)
                found = [*self.find(one)]
                self.starred |= {*found} if starred else set()
                for part in found:
                    if not sources:  # "*-1" of the first position: nothing stands before it
                        edges.setdefault(part, {})
                    for read in sources:
                        for to in self._readers(part, read):
                            edges.setdefault(to, {})[read] = None
                            if reader in script.followed:
                                self.followed.add(to)
        return {reader: [*sources] for reader, sources in edges.items()}

    def find(self, ref: Ref) -> Iterable[Part]:
        """The parts that a reference is to: several for every position; none, and a fault, where it is to nothing."""
        if ref.spot is not None and ref.spot.base == EVERY:
            return [part for p in self._steps(ref.spot) for part in self.find(replace(ref, spot=Spot("", p)))]
        try:
            piece = self._piece(ref)
        except GraphError as error:
            where = f"{self.text}line {ref.line}" if ref.line else "estimates"
            self.faults += [f"{where}, '{ref}': {fault}" for fault in error.faults]
            return []
        within = next((n for n, each in self.directions.items() if each is piece.within), "")
        key = (piece.node, piece.entries, piece.position, within, ref.feature)
        if key not in self.known:
            of = next(iter(self.find(replace(ref, feature="")))) if ref.feature else None
            name = str(ref) if of is None else f"{of.name}({ref.feature})"
            self.known[key] = Part(
                name, replace(piece, name=name), self._head(ref), ref.line, of, ref.feature, self.text
            )
        self.lines.setdefault(self.known[key], ref.line)
        return [self.known[key]]

    def cut(self, parts: Iterable[Part]) -> Graph:
        """The graph with every component of the model, and the parts as nodes of their own."""
        for word in self.estimates:
            self.find(Ref(f"estimate_of({word})"))
        own = [part.of or part for part in parts if not self.is_of_f(part) and part.piece.node not in self.estimated]
        parts = list(dict.fromkeys([*own, *(part for part, _ in self.estimated.values())]))
        self.stop_at_faults()
        nodes = dict.fromkeys(part.piece.node for part in parts)
        graph = self.decoder.graph([*nodes, *self.decoder.components], self.behaviour)
        pieces = [part.piece for part in parts if not part.is_whole]
        whole = {part.piece.node: part for part in parts if part.is_whole}
        for piece in pieces:
            if piece.node in whole:
                self.faults.append(f"{whole[piece.node]} is all of what '{piece.name}' is a part of: two claims at one")
        self.stop_at_faults()
        try:
            graph = carve(graph, self.data, pieces) if pieces else graph
            for part, word in self.estimated.values():
                graph = with_estimate(graph, part.at, *self.estimates[word])
            return graph
        except GraphError as error:
            lines = {part.name: f"{part.within}line {part.line}" for part in self.known.values()}
            raise HypothesisError(_name_lines(fault, lines) for fault in error.faults) from error

    def copy(self, graph: Graph, edges: Mapping[Part, Sequence[Part]]) -> Graph:
        """The graph with a copy of what some readers need to agree on another feature than the others do."""
        readers: dict[Part, list[Part]] = {}
        for reader, sources in edges.items():
            for source in sources:
                if source.of is not None:
                    readers.setdefault(source, []).append(reader)
        for source, theirs in readers.items():
            assert source.of is not None
            own = []
            for reader in theirs:
                node = reader.piece.node
                if not reader.is_whole:  # a piece reads its node, which reads the source: for this piece another one
                    node = f"{reader.piece.node} for {reader.name}"
                    if node not in graph:
                        graph = own_copy(graph, reader.piece.node, {node: [reader.at]})
                own.append(node)
            graph = own_copy(graph, source.of.at, {source.at: own})
        return graph

    def link(self, edges: Mapping[Part, Sequence[Part]], said: Iterable[Part]) -> dict[Part, list[Part]]:
        """The edges, and those from a head's z to its own q, k and v where no line says which it reads."""
        own: dict[tuple[int, int], list[Part]] = {}
        for part in dict.fromkeys([*edges, *said]):
            if part.head is not None and part.head[1] != "z":
                for head in self._query_heads(part.head):
                    own.setdefault((part.head[0], head), []).append(part)
        linked = {reader: [*sources] for reader, sources in edges.items()}
        every = dict.fromkeys([*edges, *(read for reads in edges.values() for read in reads), *said])
        for part in every:
            if part.head is None or part.head[1] != "z" or part in edges:
                continue
            mine = own.get((part.head[0], part.head[2]), [])
            here = [each for each in mine if each.head and (each.head[1] != "q" or self.may_meet(each, part))]
            if here:
                linked[part] = here
        return linked

    def is_of_f(self, part: Part) -> bool:
        """Whether it is f itself, or a column that f reads, which no model has to have a name for."""
        return part.piece.node in (self.output, *self.columns)

    def may_meet(self, a: Part, b: Part) -> bool:
        """Whether two parts are at one position on every row, as far as they are at positions."""
        return not len(self.apart(a, b))

    def apart(self, a: Part, b: Part) -> Tensor:
        """The rows on which two parts are at two positions."""
        x, y = a.piece.position, b.piece.position
        if x is None or y is None or x == y:
            return torch.empty(0, dtype=torch.int64)
        left, right = (self.data[p.column] + p.offset if p.column else torch.tensor(p.offset) for p in (x, y))
        differ = (left != right).expand(self.data.n)
        return differ.nonzero().flatten()

    def _piece(self, ref: Ref) -> Piece:
        if ref.name not in self.named:
            self.named[ref.name] = self._named(ref)
        piece = self.named[ref.name]
        if (ref.spot or ref.within) and piece.node in (self.output, *self.columns, *self.estimated):
            raise GraphError("f itself, a column that f reads and an estimate have no parts")
        if ref.within:
            piece = self._within(piece, ref.within)
        return piece if ref.spot is None else replace(piece, position=self._position(ref.spot))

    def _named(self, ref: Ref) -> Piece:
        """What a name is of: f, a column of f's, an estimate, or what the model has."""
        if ref.name in (self.output, *self.columns):
            return Piece(ref.name, ref.name)
        found = _ESTIMATE.fullmatch(ref.name)
        if found is None:
            return self.decoder.piece(ref.name)
        if found["of"] not in self.estimates:
            raise GraphError(f"no estimate is given of '{found['of']}'{close(found['of'], self.estimates)}")
        parts = [*self.find(replace(read_ref(found["of"]), line=ref.line))]
        if len(parts) != 1:
            raise GraphError(f"'{found['of']}' is no one part that could have an estimate")
        node = f"{parts[0].at}.phi"
        self.estimated[node] = parts[0], found["of"]
        return Piece(node, node)

    def _within(self, piece: Piece, said: str) -> Piece:
        if said in self.directions:
            return replace(piece, within=self.directions[said])
        if not re.fullmatch(r"[\d:,]+", said):
            known = ", ".join(self.directions) or "none are given"
            raise GraphError(f"'[{said}]': no directions of that name{close(said, self.directions)} (known: {known})")
        own = range(self.decoder.width(piece.node)) if piece.entries is None else piece.entries
        chosen: list[int] = []
        for each in said.split(","):
            first, _, last = each.partition(":")
            chosen += range(int(first or 0), int(last or len(own))) if ":" in each else [int(each)]
        wrong = [each for each in chosen if each >= len(own)]
        if wrong:
            raise GraphError(f"entries {wrong} are not there; expected some of 0 to {len(own) - 1}")
        return replace(piece, entries=tuple(own[each] for each in chosen))

    def _position(self, spot: Spot) -> Position:
        base: int | str | Position = spot.base
        if spot.base in self.positions:
            base = self.positions[spot.base]
        elif spot.base and spot.base not in self.data.names:
            known = [*self.positions, *self.data.names]
            raise GraphError(f"no position or column is named '{spot.base}'{close(spot.base, known)}")
        if not isinstance(base, Position):
            base = Position("", base) if isinstance(base, int) else Position(base, 0)
        offset = base.offset + spot.offset
        if not base.column and base.offset < 0 <= offset:
            raise GraphError(f"position {spot} is past the last one")
        if not base.column and -self.length <= offset < self.length:
            offset %= self.length
        return Position(base.column, offset)

    def _head(self, ref: Ref) -> tuple[int, str, int] | None:
        found = _HEAD.fullmatch(self.named[ref.name].name)
        return None if found is None else (int(found["layer"]), found["part"] or "z", int(found["head"]))

    def _query_heads(self, head: tuple[int, str, int]) -> Iterable[int]:
        _, part, number = head
        group = self.decoder.group if part in ("k", "v") else 1
        return range(number * group, (number + 1) * group)

    def _steps(self, spot: Spot) -> range:
        """The positions that "*" with an offset runs over."""
        return range(max(0, spot.offset), self.length + min(0, spot.offset))

    def _sources(self, reader: Ref, one: Ref, source: Ref) -> Iterable[Part]:
        """A source as a reader reads it that stands at one of all positions."""
        starred = source.spot is not None and source.spot.base == EVERY
        if not starred or reader.spot is None or reader.spot.base != EVERY or one.spot is None:
            return self.find(source)
        assert source.spot is not None
        at = one.spot.offset - reader.spot.offset + source.spot.offset
        return self.find(replace(source, spot=Spot("", at))) if 0 <= at < self.length else []

    def _readers(self, part: Part, source: Part) -> Iterable[Part]:
        """Who reads a source: a head reads what is not its own through its q, k and v."""
        if part.head is None or part.head[1] != "z":
            return [part]
        if part.is_own(source):
            return [part]
        layer, _, number = part.head
        group = number // self.decoder.group
        theirs = f"{layer}.g{group}" if self.decoder.group > 1 else f"{layer}.{number}"
        names = [f"{layer}.{number}.q", f"{theirs}.k", f"{theirs}.v"]
        return [each for name in names for each in self.find(Ref(name, line=self.lines[part]))]


def _name_lines(fault: str, lines: Mapping[str, str]) -> str:
    """A fault with the line of the first part that it names."""
    found = next((lines[name] for name in _NAMED.findall(fault) if name in lines), None)
    return fault if found is None else f"{found}: {fault}"
