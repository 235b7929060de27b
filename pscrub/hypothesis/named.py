"""What gives words of a circuit their meaning: a model whose values have names, or a graph by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError, close
from pscrub.graph.graph import Graph, Node
from pscrub.graph.pieces import Piece
from pscrub.graph.running import find_shapes


class Named(Protocol):
    """A model whose values have names: what `open_decoder` gives, or a graph by hand with heads and positions.

    Its graph has a node "logits" [batch, positions, any], and q, k, v, z of heads as pieces that are named `9.8.q`,
    `9.g2.k` (of a group), `9.8` (z).
    """

    @property
    def data(self) -> Dataset:
        """D."""

    @property
    def length(self) -> int:
        """How many positions there are."""

    @property
    def group(self) -> int:
        """How many query heads one head of keys and values serves."""

    @property
    def components(self) -> Sequence[str]:
        """Nodes that are in every circuit's graph, so that what reads one of them through another is no edge."""

    @property
    def mixing(self) -> Sequence[str]:
        """Nodes whose value at a position is computed from other positions too, as attention does."""

    def piece(self, name: str) -> Piece:
        """What a word names; a GraphError if nothing."""

    def width(self, node: str) -> int:
        """The size of a node's last axis."""

    def graph(self, nodes: Iterable[str], behaviour: Sequence[Node]) -> Graph:
        """The graph with these nodes, named as words or as pieces name them, "logits" and f on top."""


@dataclass(frozen=True, eq=False)
class NamedGraph:
    """A graph by hand, with f on top, as `circuit` takes a model: nodes by their names, their positions and entries.

    Args:
        base: G, of nodes whose names have neither spaces nor any of `@[]()`; "logits" is one.
        data: D.
        length: how many positions there are, along axis 1 of [batch, positions, width].
        mixing: nodes whose value at a position is computed from other positions too: only they may read a source there.

    >>> import torch
    >>> from pscrub.hypothesis.circuits import circuit
    >>> nodes = {"m0": lambda x: x[..., None], "a0": lambda m0: m0.cumsum(1), "logits": lambda a0: a0.exp()}
    >>> graph = Graph.of({**nodes, "loss": lambda logits: logits[:, -1, 0]}, ["x"], "loss")
    >>> named = NamedGraph(graph, Dataset({"x": torch.randn(9, 3)}), length=3, mixing=["a0"])
    >>> h = circuit("last place", named, "logits <- a0@2", behaviour=graph.nodes["loss"])
    >>> h.claim.reads[0].at, h.claim.reads[0].reads[0].at
    ('logits', 'a0@2')
    """

    base: Graph
    data: Dataset
    length: int
    mixing: Sequence[str] = ()
    group: int = field(init=False, default=1)
    components: Sequence[str] = field(init=False, default=())

    def piece(self, name: str) -> Piece:
        """All of the node of that name.

        Raises:
            GraphError: there is none.
        """
        if name not in self.base.nodes:
            raise GraphError(f"the graph has no node '{name}'{close(name, self.base.nodes)}")
        return Piece(name, name)

    def width(self, node: str) -> int:
        """The size of a node's last axis."""
        return find_shapes(self.base, self.data, [node])[node][-1]

    def graph(self, nodes: Iterable[str], behaviour: Sequence[Node]) -> Graph:
        """The graph itself, which has these nodes, and f on top.

        Raises:
            GraphError: f is another than the graph's output.
        """
        if behaviour[-1].name != self.base.output:
            raise GraphError(
                f"the behaviour is '{behaviour[-1].name}'; expected the graph's output '{self.base.output}'"
            )
        return self.base
