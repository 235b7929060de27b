"""A language model opened: exported once, its values under the names that researchers have for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError, TraceError, close
from pscrub.graph.checking import Trial
from pscrub.graph.cuts import Cut
from pscrub.graph.families import Family
from pscrub.graph.graph import Graph, Node
from pscrub.graph.judging import LOGITS, Judge, Loss, Where, label_next_tokens
from pscrub.graph.names import Names
from pscrub.graph.once import Traced
from pscrub.graph.pieces import Piece
from pscrub.graph.points import Point, Sizes
from pscrub.graph.tracing import Rows, open_behaviours, set_checked

COMPONENTS = ("embed", "pos_embed", "z", "mlp_out")
"""Kinds of what is added to the residual stream."""


@dataclass(frozen=True, eq=False)
class Decoder:
    """A language model whose values have names. Made by `open_decoder`.

    Args:
        model: as it was given.
        data: D, with the column of next tokens.
        family: where its values are, and the name of that table.
        sizes: layers and heads.
        points: canonical name -> point, in the order of a forward.
        equality: the largest difference of the graph's logits from the model's, relative to the largest logit.
        tokens: the column of token ids.
        traced: the export that graphs are taken from.
    """

    model: nn.Module
    data: Dataset
    family: Family
    sizes: Sizes
    points: Mapping[str, Point]
    equality: float
    tokens: str
    title: str
    traced: Traced = field(repr=False)
    names: Names = field(repr=False)

    @property
    def length(self) -> int:
        """How many positions there are."""
        return self.points[LOGITS].shape[0]

    @property
    def group(self) -> int:
        """How many query heads one head of keys and values serves."""
        return self.sizes.group

    @property
    def components(self) -> tuple[str, ...]:
        """The nodes of what is added to the residual stream: embeddings, every z, every MLP's output."""
        return tuple(dict.fromkeys(each.node for each in self.points.values() if each.kind in COMPONENTS))

    @property
    def mixing(self) -> tuple[str, ...]:
        """The nodes whose value at a position is computed from other positions too: every z."""
        return tuple(dict.fromkeys(each.node for each in self.points.values() if each.kind == "z"))

    def width(self, node: str) -> int:
        """The size of a node's last axis."""
        return next(p.shape[-1] for p in self.points.values() if p.node == node and p.entries is None)

    def piece(self, name: str) -> Piece:
        """The piece of a node that a name is of, without a position.

        Args:
            name: TransformerLens's (`blocks.5.attn.hook_q`), a kind by layer (`resid_post.5`, `z.5`), a head (`5.1`,
                `L5H1`, `a5.h1`, `A5.1`: its z; `5.1.q`, `a5.h1<q>`, `A5.1.Q`), a group's keys or values where query
                heads share them (`5.g0.k`), an MLP (`m5`, `mlp5`), `embed`, `pos`, `logits`, a submodule's path, or
                `input_of('path')` as `repr` of a cut shows it.

        Raises:
            GraphError: no such point (with close matches), layer or head; a key head named as a query head.
        """
        return self.names.piece(name)

    def nodes(self, kind: str) -> tuple[str, ...]:
        """The nodes of a kind over all layers, or of the one outside layers.

        Raises:
            GraphError: a kind that the model has not.
        """
        found = dict.fromkeys(each.node for each in self.points.values() if each.kind == kind)
        if kind == "resid_pre":  # of later layers, what the layer before gives
            found |= dict.fromkeys(self.nodes("resid_post")[:-1])
        if not found:
            kinds = list(dict.fromkeys(each.kind for each in self.points.values()))
            raise GraphError(f"the model has no points of the kind '{kind}'{close(kind, kinds)}")
        return tuple(found)

    def graph(self, nodes: Iterable[str], behaviour: Node | Sequence[Node] = ()) -> Graph:
        """The graph with these nodes and "logits" [batch, positions, vocabulary].

        Args:
            nodes: names as `piece` takes them; the node of each is cut.
            behaviour: nodes on top, which read columns of D, nodes and "logits"; the last is the graph's output.

        Raises:
            GraphError: an unknown name.
            TraceError: a behaviour that fails or mixes rows.
        """
        found = {self.piece(name).node: name for name in nodes}
        at = {point.node: point.cut for point in self.points.values()}
        for node, name in found.items():
            if node not in at:
                at[node] = self.names.point(name).cut
        cuts = {node: within_wrapper(cut) for node, cut in at.items() if node in found and node != LOGITS}
        below = self.traced.graph(cuts, output=LOGITS)
        on_top = [behaviour] if isinstance(behaviour, Node) else list(behaviour)
        return put_on_top(below, on_top, self.data, self.traced) if on_top else below

    def next_token_loss(self, at: Where = None, *, labels: str = "next_tokens") -> Loss:
        """The cross entropy of the next token in nats, [batch], averaged over positions.

        Args:
            at: a position (from the end if negative), several, a column of positions, or None for all that have one.
            labels: the column of next tokens, int64 [N, positions - 1]: no inputs, so breaking them breaks none.
        """
        return Judge(self.data, self.length).next_token_loss(at, labels)

    def logit_difference(self, answers: str, distractors: str, at: Where = -1) -> Loss:
        """The mean logit of the answers less that of the distractors, [batch]; columns of token ids [N] or [N, k]."""
        return Judge(self.data, self.length).logit_difference(answers, distractors, at)

    def answer_log_prob(self, answers: str, at: Where = -1) -> Loss:
        """The log-probability of the answer in nats, [batch]; of several answers [N, k] that of any of them."""
        return Judge(self.data, self.length).answer_log_prob(answers, at)

    def answer_accuracy(self, answers: str, at: Where = -1) -> Loss:
        """1 where the largest logit is the answer's (one of the answers', [N, k]), else 0, [batch]."""
        return Judge(self.data, self.length).answer_accuracy(answers, at)

    def own_divergence(self, own: str, at: Where = -1) -> Loss:
        """KL of the output from the model's own in nats, [batch].

        Args:
            own: the column of the model's own logits, [N, vocabulary] of one position, or [N, positions, vocabulary]:
                `decoder.on(Dataset({**decoder.data.columns, "own": decoder.own_logits()}))`.
            at: as for `next_token_loss`.
        """
        return Judge(self.data, self.length).own_divergence(own, at)

    def own_logits(self) -> Tensor:
        """The model's own logits [N, positions, vocabulary] on every row of D, on the CPU."""
        graph, found = self.traced.graph({}, output=LOGITS), []
        with torch.no_grad():
            for start in range(0, self.data.n, 64):
                rows = {name: self.data[name][start : start + 64].to(graph.device) for name in graph.inputs}
                found.append(graph.run([LOGITS], rows)[LOGITS].cpu())
        return torch.cat(found)

    def on(self, data: Dataset) -> Decoder:
        """The same export on other data, with as many positions: further columns for labels, other rows.

        Raises:
            TraceError: a column that the model takes is missing, or of another shape.
        """
        faults = []
        for name in self.traced.subject.columns:
            wanted = self.data[name].shape[1:]
            if name not in data.names:
                faults.append(f"the model takes the column '{name}', which is missing{close(name, data.names)}")
            elif data[name].shape[1:] != wanted:
                faults.append(f"column '{name}' is {tuple(data[name].shape[1:])} a row; opened with {tuple(wanted)}")
        if faults:
            raise TraceError(faults)
        return replace(self, data=label_next_tokens(data, self.tokens))

    @property
    def heading(self) -> str:
        """Model, family, layers and heads in a few words."""
        sizes = self.sizes
        shared = f" in {sizes.key_heads} groups" if sizes.key_heads != sizes.heads else ""
        return f"{type(self.model).__name__}, {self.title}: {sizes.layers} layers of {sizes.heads} heads{shared}"

    def __repr__(self) -> str:
        lines = [
            f"Decoder({self.heading})",
            f"  logits equal the model's to {self.equality:.1e} of the largest",
            f"  on {self.data}",
        ]
        for point in self.points.values():
            if point.layer in (None, 0):
                axes = ", ".join(f"{axis} {size}" for axis, size in zip(point.axes, point.shape, strict=True))
                within = "" if point.name == point.node else f" within {point.node}"
                lines.append(f"  {point.name.replace('blocks.0', 'blocks.*')} [{axes}]{within}: {point.cut}")
        return "\n".join(lines)


def put_on_top(below: Graph, on_top: Sequence[Node], data: Dataset, traced: Traced) -> Graph:
    """A traced graph with a behaviour on top, opened into operations and tried on a few rows.

    Raises:
        TraceError: the behaviour reads what is not there, fails or mixes rows.
    """
    made = {node.name for node in on_top}
    known = list(dict.fromkeys([*below.nodes, *data.names, *made]))
    faults = [
        f"behaviour '{node.name}' reads unknown '{read}'{close(read, known)}"
        for node in on_top
        for read in node.inputs
        if read not in known
    ]
    faults += [f"behaviour '{name}' has the name of a node or column" for name in made & {*below.nodes, *data.names}]
    if faults:
        raise TraceError(faults)
    reads = list(dict.fromkeys(read for node in on_top for read in node.inputs if read not in made))
    columns = list(dict.fromkeys([*below.inputs, *(read for read in reads if read in data.names)]))
    rows = Rows(data, columns, traced.rows.device)

    def values(size: int) -> dict[str, Tensor]:
        given, own = rows.of(size), traced.rows.of(size)
        # The module's result on these rows is there, unless D is another, or its columns had other sizes exported.
        there = size in traced.results and all(torch.equal(given[name], own[name]) for name in below.inputs)
        found = {below.output: traced.results[size]} if there and below.output in reads else {}
        with torch.no_grad():
            left = [read for read in reads if read in below.nodes and read not in found]
            return found | below.run(left, {n: given[n] for n in below.inputs}) | given

    opened = list(open_behaviours(on_top, values(rows.for_export(traced.check_rows))))
    given = values(traced.check_rows)
    Trial(given, traced.tolerance, "").check(Graph(opened, list(given), opened[-1].name))
    graph = Graph([*below.nodes.values(), *opened], columns, opened[-1].name)
    set_checked(graph)
    return graph


def within_wrapper(cut: Cut) -> Cut:
    return replace(cut, path=f"model.{cut.path}")
