"""Pieces of a node's value: a head, a position, a set of neurons, a direction, made when a claim names them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError, close
from pscrub.graph.graph import Function, Graph, Node, Rewrite
from pscrub.graph.ops import Same
from pscrub.graph.places import Place, Told
from pscrub.graph.running import find_shapes
from pscrub.graph.together import Along, Box, Coordinates, Reading, Rest, Together

SHOWN = 5
"""Rows that an error lists."""


@dataclass(frozen=True)
class Position:
    """Where along the axis of positions: the same on every row, or told by a column of the data.

    Args:
        column: a column, int64 [N], of each row's position; "" for the same on every row.
        offset: added to the column's; without a column the position itself, counted from the end if negative.
    """

    column: str = ""
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.column}{self.offset:+}" if self.column and self.offset else self.column or str(self.offset)


@dataclass(frozen=True, eq=False)
class Subspace:
    """Directions of the last axis: x is (x @ read) @ write and the rest.

    Args:
        read: float [width, k], what the coordinates are read by.
        write: float [k, width], what they are written by; for orthonormal directions the transpose of `read`.
    """

    read: Tensor
    write: Tensor


@dataclass(frozen=True)
class Piece:
    """A piece of a node's value [batch, positions, width], or [batch, width].

    Args:
        name: what the graph's node of it is to be called.
        node: the node that it is a piece of.
        entries: which of the last axis (a head, neurons); None for all.
        position: which of axis 1; None for all.
        within: directions of what `entries` leave; None for all.
    """

    name: str
    node: str
    entries: tuple[int, ...] | None = None
    position: Position | None = None
    within: Subspace | None = None

    def __str__(self) -> str:
        return f"'{self.name}' of '{self.node}'"


def carve(graph: Graph, data: Dataset, pieces: Sequence[Piece]) -> Graph:
    """The graph in which pieces of nodes are nodes of their own; what they leave of a node is `<node>.rest`.

    The node stays, read by its pieces and its rest only; every reader puts these together again, bit for bit where they
    are cut out, to rounding where they are directions. All pieces are made at once. A rest holds 0 where pieces were
    cut out (not where a column tells the place), and there is none where pieces leave nothing.

    A piece whose position a column tells holds what the node has there on the piece's own datum. Its reader puts it
    where the column says on the *reader's* datum: what a head writes at the second subject of one row is read at the
    second subject of another, wherever that stands. So the column, `<column> (place)` of the new graph, is never drawn:
    a reader takes it from its own datum. What else the node has stays where it is.

    Args:
        graph: the graph.
        data: D: for the shapes of values, and for the positions that columns tell.
        pieces: of any of its nodes, whose values are [batch, width] or [batch, positions, width]. Directions may share
            a box (equal `entries` and `position`) with other directions; else no two pieces meet.

    Raises:
        GraphError: with every fault found: unknown nodes and columns, names that are taken, nodes that the output does
            not depend on, entries or positions that are not there (of a column: which rows, which values), pieces that
            overlap (both are named), directions of wrong shape, or such as tell the same.

    >>> data = Dataset({"x": torch.arange(6.0).reshape(2, 3), "at": torch.tensor([2, 0])})
    >>> g = Graph.of({"h": lambda x: 2 * x[:, :, None], "f": lambda h: h.sum((1, 2))}, inputs=["x"], output="f")
    >>> carved = carve(g, data, [Piece("h@at", "h", position=Position("at"))])
    >>> carved.nodes["f"].inputs, carved.nodes["h@at"].inputs
    (('h.rest', 'h@at', 'at (place)'), ('h', 'at (place)'))
    >>> carved.run(["h@at"], {"x": data["x"], "at": data["at"]})["h@at"].flatten().tolist()
    [4.0, 6.0]
    """
    by_node: dict[str, list[Piece]] = {}
    named: dict[str, Piece] = {}
    faults = list[str]()
    for piece in pieces:
        if piece.name not in named:
            named[piece.name] = piece
            by_node.setdefault(piece.node, []).append(piece)
        elif not _equal(named[piece.name], piece):
            faults.append(f"two pieces are named '{piece.name}', of '{named[piece.name].node}' and '{piece.node}'")
    needed = graph.ancestors(graph.output)
    for node, here in by_node.items():
        if node not in graph:
            faults.append(f"piece {here[0]}: no such node{close(node, [*graph.nodes, *graph.inputs])}")
        elif node not in needed:
            faults.append(f"piece {here[0]}: the output '{graph.output}' does not depend on '{node}'; cut another node")
    columns = {each.position.column for each in named.values() if each.position is not None and each.position.column}
    faults += [_say_column(name, data) for name in sorted(columns) if _say_column(name, data)]
    if faults:
        raise GraphError(faults)
    shapes = find_shapes(graph, data, by_node)
    told = {name: f"{name} (place)" for name in sorted(columns)}
    cuts = {node: _Cutting(node, shapes[node], here, told, data, faults) for node, here in by_node.items()}
    new = [*(Node(told[name], (name,), Told(name), view=True) for name in told)]
    if not faults:
        new += [node for cut in cuts.values() for node in cut.nodes()]
        names = [*(node.name for node in new)]
        taken = {name for name in names if name in graph} | ({*names} if len({*names}) < len(names) else set())
        faults += [f"'{name}' is to be a piece or a rest, and is another node already" for name in sorted(taken)]
    if faults:
        raise GraphError(faults)
    made = {node: cut.put_together() for node, cut in cuts.items()}
    old = [_let_read(each, made) if not made.keys().isdisjoint(each.inputs) else each for each in graph.nodes.values()]
    inputs = tuple(dict.fromkeys((*graph.inputs, *told)))
    return Graph([*old, *new], inputs, graph.output, Rewrite("carve", ", ".join(by_node), graph))


class _Cutting:
    """One node's pieces: where each is, seen to be there and to be no other's.

    Args:
        node: the node.
        shape: of its value, the batch apart.
        pieces: of it.
        told: column -> the node that gives it.
        data: D.
        faults: is given those that are found.
    """

    def __init__(
        self,
        node: str,
        shape: tuple[int, ...],
        pieces: Sequence[Piece],
        told: Mapping[str, str],
        data: Dataset,
        faults: list[str],
    ) -> None:
        self.node, self.shape, self.told, self.rest = node, shape, told, f"{node}.rest"
        self.boxes: dict[tuple[Place, str], list[Piece]] = {}  # a box that directions share, or one piece
        if len(shape) not in (1, 2):
            axes = "".join(f", {n}" for n in shape)
            faults.append(f"'{node}' has values [batch{axes}]; expected [batch, width] or [batch, positions, width]")
            return
        before = len(faults)
        for piece in pieces:
            place = self._place(piece, data, faults)
            if place is not None:
                column = piece.position.column if piece.position is not None else ""
                self.boxes.setdefault((place, column), []).append(piece)
        if len(faults) == before:
            faults += [*self._find_overlaps(data), *self._find_alike()]

    @property
    def full(self) -> bool:
        """Whether what is cut out leaves nothing; boxes do not meet, so their sizes add up."""
        sizes = 0
        for (place, _), pieces in self.boxes.items():
            if pieces[0].within is None:
                rows = 1 if place.is_told or len(self.shape) == 1 else len(place.positions or range(self.shape[0]))
                sizes += rows * len(place.entries or range(self.shape[-1]))
        return sizes == int(np.prod(self.shape))

    def nodes(self) -> Iterable[Node]:
        """The pieces, and the rest if anything is left."""
        for (place, column), pieces in self.boxes.items():
            box = Box(place, 1 + len(self.shape))
            inputs = (self.node, self.told[column]) if column else (self.node,)
            plain = place.positions in (None, _run(place.positions)) and place.entries in (None, _run(place.entries))
            for piece in pieces:
                within = None if piece.within is None else Along(piece.within.read)
                view = not column and within is None and plain
                yield Node(piece.name, inputs, box if within is None else Coordinates(box, within), view)
        if not self.full:
            columns = dict.fromkeys(self.told[c] for (_, c), each in self.boxes.items() if c and each[0].within)
            yield Node(self.rest, (self.node, *columns), self._rest())

    def put_together(self) -> Together:
        """What readers make of the rest and the pieces: the node's value."""
        names = tuple(piece.name for pieces in self.boxes.values() for piece in pieces)
        columns = dict.fromkeys(self.told[column] for _, column in self.boxes if column)
        rest = () if self.full else (self.rest,)
        boxes = [
            (
                place,
                self.told.get(column),
                tuple(each.name for each in pieces),
                [Along(w.write) for p in pieces if (w := p.within)],
            )
            for (place, column), pieces in self.boxes.items()
        ]
        return Together(self.shape, (*rest, *names, *columns), bool(rest), boxes)

    def _rest(self) -> Function:
        blank = tuple(p for (p, _), each in self.boxes.items() if each[0].within is None and not p.is_told)
        without = [
            (place, self.told.get(column), [(Along(w.read), Along(w.write)) for p in pieces if (w := p.within)])
            for (place, column), pieces in self.boxes.items()
            if pieces[0].within is not None
        ]
        return Rest(self.shape, blank, without) if blank or without else Same()

    def _place(self, piece: Piece, data: Dataset, faults: list[str]) -> Place | None:
        before, width = len(faults), self.shape[-1]
        entries, positions, offset = piece.entries, None, None
        if entries is not None:
            entries = tuple(int(each) for each in entries)
            outside = [each for each in entries if not 0 <= each < width]
            twice = sorted(each for each, times in Counter(entries).items() if times > 1)
            if outside or twice or not entries:
                said = f"{outside} outside" if outside else f"{twice} twice" if twice else "none"
                faults.append(f"piece {piece}: entries {said}; expected some of 0 to {width - 1}, each once")
        at = piece.position
        if at is not None and len(self.shape) == 1:
            faults.append(f"piece {piece}: has position {at}, but the node's value [batch, {width}] has no positions")
        elif at is not None and at.column:
            offset, found = at.offset, data[at.column] + at.offset
            off = ((found < 0) | (found >= self.shape[0])).nonzero().flatten().tolist()
            if off:
                shown = ", ".join(f"{int(found[row])} on row {row}" for row in off[:SHOWN])
                more = f" and {len(off) - SHOWN:,} more rows" if len(off) > SHOWN else ""
                faults.append(f"piece {piece}: position {at} is {shown}{more}; expected 0 to {self.shape[0] - 1}")
        elif at is not None:
            if not -self.shape[0] <= at.offset < self.shape[0]:
                faults.append(f"piece {piece}: position {at}; expected {-self.shape[0]} to {self.shape[0] - 1}")
            positions = (at.offset % self.shape[0],)
        if piece.within is not None:
            faults += _find_shape_faults(piece, len(entries) if entries is not None else width)
        return Place(positions, entries, offset) if len(faults) == before else None

    def _find_overlaps(self, data: Dataset) -> Iterable[str]:
        """Boxes that meet: fixed ones by who owns each entry, told ones on every row."""
        heights = self.shape[0] if len(self.shape) == 2 else 1
        owner = np.full((heights, self.shape[-1]), -1)
        boxes = [*self.boxes.items()]
        told = list[tuple[int, np.ndarray[Any, Any], np.ndarray[Any, Any]]]()
        for i, ((place, column), pieces) in enumerate(boxes):
            entries = np.arange(self.shape[-1]) if place.entries is None else np.array(place.entries)
            if column:
                told.append((i, (data[column] + place.offset).numpy(), entries))
                continue
            rows = np.arange(heights) if place.positions is None else np.array(place.positions)
            box = np.ix_(rows, entries)
            for other in sorted({*owner[box].flatten().tolist()} - {-1}):
                yield f"pieces {boxes[other][1][0]} and '{pieces[0].name}' overlap; no entry may be in two"
            owner[box] = i
        for k, (i, at, entries) in enumerate(told):
            met = owner[at][:, entries]
            meets = {int(j): (met == j).any(1) for j in np.unique(met) if j >= 0}
            for j, other, others in told[:k]:
                if np.intersect1d(entries, others).size:
                    meets[j] = at == other
            for j, where in meets.items():
                rows = where.nonzero()[0].tolist()
                if rows:
                    more = f" and {len(rows) - SHOWN:,} more" if len(rows) > SHOWN else ""
                    listed = ", ".join(map(str, rows[:SHOWN])) + more
                    yield f"pieces {boxes[j][1][0]} and '{boxes[i][1][0].name}' overlap on rows {listed}"

    def _find_alike(self) -> Iterable[str]:
        """Boxes that are cut out and have directions too, and directions of one box that tell the same."""
        for pieces in self.boxes.values():
            if len(pieces) == 1:
                continue
            whole = [piece for piece in pieces if piece.within is None]
            if whole:
                other = next(piece for piece in pieces if piece is not whole[0])
                yield f"pieces {whole[0]} and '{other.name}' overlap: they are of one box"
                continue
            known: Tensor | None = None
            for i, piece in enumerate(pieces):
                assert piece.within is not None
                read = piece.within.read.double()
                both = read if known is None else torch.cat([known, read], 1)
                if int(torch.linalg.matrix_rank(both)) < both.shape[1]:
                    others = " and ".join(f"'{each.name}'" for each in pieces[:i])
                    yield f"pieces {others or 'none'} and {piece} overlap: what '{piece.name}' reads, others read too"
                known = both


def _let_read(old: Node, made: Mapping[str, Together]) -> Node:
    inputs = tuple(
        dict.fromkeys(each for name in old.inputs for each in (made[name].reads if name in made else (name,)))
    )
    return Node(old.name, inputs, Reading(old, inputs, made))


def _run(part: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return part and tuple(range(part[0], part[0] + len(part)))


def _say_column(name: str, data: Dataset) -> str:
    if name not in data.columns:
        return f"no column '{name}' to tell positions by{close(name, data.columns)}"
    column = data[name]
    if not isinstance(column, Tensor) or column.ndim != 1 or column.is_floating_point() or column.is_complex():
        return f"column '{name}' cannot tell positions; expected whole numbers [N], one a row"
    return ""


def _find_shape_faults(piece: Piece, width: int) -> Iterable[str]:
    assert piece.within is not None
    read, write = piece.within.read, piece.within.write
    expected = [(width, k) for k in read.shape[1:2]], [(k, width) for k in read.shape[1:2]]
    if [tuple(read.shape)] != expected[0] or [tuple(write.shape)] != expected[1]:
        yield (
            f"piece {piece}: directions read by {list(read.shape)} and written by {list(write.shape)}; "
            f"expected [{width}, k] and [k, {width}]"
        )
    elif not (read.is_floating_point() and read.isfinite().all() and write.isfinite().all()):
        yield f"piece {piece}: directions that are not all finite numbers"


def _equal(a: Piece, b: Piece) -> bool:
    (x, y), box = (each.within for each in (a, b)), [(each.node, each.entries, each.position) for each in (a, b)]
    alike = x is y or (x and y and torch.equal(x.read, y.read) and torch.equal(x.write, y.write))
    return box[0] == box[1] and bool(alike)
