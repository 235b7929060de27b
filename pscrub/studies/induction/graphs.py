"""Graphs of the induction model, with what claims speak of as nodes: heads, their queries, keys and values, places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pscrub.data.dataset import Dataset
from pscrub.graph.graph import Graph, Node
from pscrub.graph.rewrites import inline, replace, split
from pscrub.graph.tracing import trace
from pscrub.studies.induction.model import HEADS, Induction
from pscrub.studies.induction.rows import LENGTH, MATCH

FIRST = tuple(f"0.{head}" for head in range(HEADS))
"""Nodes of what the first layer's heads add to the stream."""
READ = ("q", "k", "v")


def trace_induction(model: Induction, data: Dataset) -> Graph:
    """The traced graph: embed, the first layer's patterns and values, and what its heads add, first; q, k, v and heads
    of the second layer; logits [batch, 256] at the query; loss."""
    first, second = ("blocks.0.attn.", "blocks.1.attn.")
    cuts = {"embed": "hook_embed", "first": f"{first}hook_result", "heads": f"{second}hook_result"}
    cuts |= {"first patterns": f"{first}hook_pattern", "first values": f"{first}hook_v"}
    cuts |= {each: f"{second}hook_{each}" for each in READ}
    on_top = [Node("logits", ("all logits",), _last), Node("loss", ("logits", "target"), _loss)]
    graph = trace(model, data, cuts=cuts, inputs=["tokens"], output="all logits", behaviour=on_top)
    return inline(graph, "all logits")


def with_first_heads(graph: Graph) -> Graph:
    """The graph whose first layer is cut into its heads, 0.0 to 0.7."""
    return split(graph, "first", 1, {name: head for head, name in enumerate(FIRST)}, HEADS)


def with_reaches(graph: Graph, model: Induction, previous: Sequence[int]) -> Graph:
    """The graph whose first layer's heads add what they read at three reaches: "own token", "before" and "farther".

    What is read at the token before is cut in two again: that of the heads that are chosen, "before", and that of
    the others, "others before".
    """
    weights = model.blocks[0].get_submodule("attn").get_parameter("W_O").detach()
    both = ("first patterns", "first values")
    reaches = {"own token": _Reach(weights, 0), "all before": _Reach(weights, 1), "farther": _Reach(weights, None)}
    graph = replace(graph, "first", _add, [*reaches], new=[Node(name, both, fn) for name, fn in reaches.items()])
    graph = inline(graph, "first")
    return split(graph, "all before", 1, _in_two(("before", "others before"), previous, HEADS), HEADS)


def with_heads(graph: Graph, chosen: Sequence[int]) -> Graph:
    """The graph whose second layer is cut in two: heads that are chosen, "induction", and "others".

    What the heads add is cut, and so are queries, keys and values: "q induction", "q others".
    """
    for node in ("heads", *READ):
        named = {"heads": ("induction", "others")}.get(node, (f"{node} induction", f"{node} others"))
        graph = split(graph, node, 1, _in_two(named, chosen, HEADS), HEADS)
    return graph


def with_places(graph: Graph) -> Graph:
    """The graph whose chosen heads' keys and values are cut at the match: "k match", "k elsewhere"."""
    for node in READ[1:]:
        named = (f"{node} match", f"{node} elsewhere")
        graph = split(graph, f"{node} induction", 2, _in_two(named, [MATCH], LENGTH), LENGTH)
    return graph


def _in_two(names: tuple[str, str], chosen: Sequence[int], size: int) -> Mapping[str, Sequence[int]]:
    return {names[0]: sorted(chosen), names[1]: [each for each in range(size) if each not in chosen]}


def _last(logits: Tensor) -> Tensor:
    return logits[:, -1]


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits.double(), target, reduction="none")


def _add(*parts: Tensor) -> Tensor:
    return torch.stack(parts).sum(0)


class _Reach(nn.Module):
    """What heads add [batch, head, position, 128] by what they read so many places back, or farther than one.

    Of patterns [batch, head, position, position] and values [batch, head, position, 16].
    """

    def __init__(self, weights: Tensor, back: int | None) -> None:
        super().__init__()
        self.weights, self.back = nn.Parameter(weights), back

    def forward(self, patterns: Tensor, values: Tensor) -> Tensor:
        if self.back is None:
            kept = patterns.tril(-2)
        else:
            kept = patterns.tril(-self.back).triu(-self.back)
        return kept @ values @ self.weights
