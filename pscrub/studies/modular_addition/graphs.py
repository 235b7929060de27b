"""Graphs of the model of modular addition, rewritten so that frequencies of its numbers and of its logits are nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pscrub.data.dataset import Dataset
from pscrub.graph.graph import Graph, Node
from pscrub.graph.rewrites import own_copy, replace, split
from pscrub.graph.tracing import trace
from pscrub.studies.modular_addition.frequencies import projection
from pscrub.studies.modular_addition.model import D_MLP, HEADS, ModularAddition, P

NUMBERS = ("a", "b")
HEAD_NAMES = tuple(f"h{head}" for head in range(HEADS))
Groups = Mapping[str, Sequence[int]]
"""Name of a part -> its frequencies."""


def whole(model: ModularAddition, data: Dataset) -> Graph:
    """The traced graph: a, b and = embedded, pattern, h0 to h3, mid (what the MLP reads), neurons, logits, loss."""
    block = "blocks.0."
    cuts = {"embed": "hook_embed", "pattern": f"{block}attn.hook_pattern", "heads": f"{block}attn.hook_heads"}
    cuts |= {"mid": f"{block}hook_resid_mid", "neurons": f"{block}mlp.hook_post"}
    loss = Node("loss", ("logits", "sum"), _loss)
    graph = trace(model, data, cuts=cuts, inputs=["tokens"], output="logits", behaviour=loss)
    graph = split(graph, "heads", 1, {name: place for place, name in enumerate(HEAD_NAMES)}, HEADS)
    return split(graph, "embed", 1, {name: place for place, name in enumerate((*NUMBERS, "="))}, len(NUMBERS) + 1)


def with_own_values(graph: Graph) -> Graph:
    """The graph whose heads read numbers of their own, "value of a"; a is what the attention scores are made of."""
    for number in NUMBERS:
        graph = own_copy(graph, number, {f"value of {number}": ["heads"]})
    return graph


def with_number_parts(graph: Graph, model: ModularAddition, groups: Groups, of: str = "") -> Graph:
    """The graph with a and b embedded as the sum of parts, a.<group>, by frequency, and a.rest.

    Args:
        graph: whose numbers.
        model: whose embedding.
        groups: name -> frequencies, none twice.
        of: what the names of the numbers begin with.
    """
    table = model.embed.W_E[:P].detach().double()
    tables = {group: projection(frequencies) @ table for group, frequencies in groups.items()}
    tables["rest"] = table - sum(tables.values())
    for place, number in enumerate(NUMBERS):
        node = f"{of}{number}"
        parts = [Node(f"{node}.{group}", ("tokens",), _Lookup(each, place)) for group, each in tables.items()]
        graph = replace(graph, node, _add, [part.name for part in parts], new=parts)
    return graph


def with_logit_parts(graph: Graph, groups: Groups) -> Graph:
    """The graph whose logits are the sum of parts, logits.<group>, by frequency of the answer, and logits.rest."""
    old = graph.nodes["logits"]
    matrices = {group: projection(frequencies) for group, frequencies in groups.items()}
    matrices["rest"] = torch.eye(P, dtype=torch.float64) - sum(matrices.values())
    computed = Node("logits computed", old.inputs, old.fn)
    parts = [Node(f"logits.{group}", (computed.name,), _Projection(each)) for group, each in matrices.items()]
    return replace(graph, "logits", _add, [part.name for part in parts], new=[computed, *parts])


def with_clusters(graph: Graph, clusters: Mapping[str, Sequence[int]]) -> Graph:
    """The graph with the MLP's neurons cut into named clusters."""
    return split(graph, "neurons", 1, clusters, D_MLP)


def _loss(logits: Tensor, right: Tensor) -> Tensor:
    # In float32 most losses of this model would be rounded to 0.
    return functional.cross_entropy(logits.double(), right, reduction="none")


def _add(*parts: Tensor) -> Tensor:
    return torch.stack(parts).sum(0)


class _Lookup(nn.Module):
    """A part of a number's embedding, [batch, 1, 128], of tokens [batch, 3]."""

    def __init__(self, table: Tensor, place: int) -> None:
        super().__init__()
        self.table, self.place = nn.Parameter(table.float()), place

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.embedding(tokens[:, self.place], self.table)[:, None]


class _Projection(nn.Module):
    """A part of the logits [batch, 113]."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.float())

    def forward(self, logits: Tensor) -> Tensor:
        return logits @ self.matrix
