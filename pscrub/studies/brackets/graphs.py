"""Graphs of the bracket classifier with the nodes that the two ladders of hypotheses speak of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pscrub.data.dataset import Dataset
from pscrub.graph.cuts import input_of
from pscrub.graph.graph import Function, Graph, Node
from pscrub.graph.ops import Opened, Operation, Slice
from pscrub.graph.rewrites import own_copy, replace, split, with_estimate
from pscrub.graph.tracing import trace
from pscrub.studies.brackets import features
from pscrub.studies.brackets.model import CLOSE, CONTEXT, HEADS, LAYERS, OPEN, BracketClassifier

HEAD_NAMES = tuple(f"a{layer}.h{head}" for layer in range(LAYERS) for head in range(HEADS))
MLP_NAMES = tuple(f"m{layer}" for layer in range(LAYERS))


def by_head(model: BracketClassifier, data: Dataset) -> Graph:
    """The traced graph: embed, mask, heads a<layer>.h<head>, MLPs m<layer>, r<layer> that attention reads, logits."""
    cuts = {"embed": "hook_embed", "mask": "hook_mask"}
    cuts |= {f"a{layer}": f"blocks.{layer}.attn.hook_heads" for layer in range(LAYERS)}
    cuts |= {f"m{layer}": f"blocks.{layer}.hook_mlp_out" for layer in range(LAYERS)}
    reads = {f"r{layer}": input_of(f"blocks.{layer}.ln1") for layer in range(1, LAYERS)}
    loss = Node("loss", ("logits", "balanced"), lambda out, label: cross_entropy(out, label, reduction="none"))
    graph = trace(model, data, cuts={**cuts, **reads}, inputs=["tokens"], output="logits", behaviour=loss)
    for layer in range(LAYERS):
        graph = split(graph, f"a{layer}", 1, {f"a{layer}.h{head}": head for head in range(HEADS)}, HEADS)
    return graph


def with_direct_terms(graph: Graph, model: BracketClassifier) -> Graph:
    """The graph whose logits read each term of the residual stream at the start token as its own node, <term>@0."""
    terms = ("embed", *HEAD_NAMES, *MLP_NAMES)
    at_start = [_at_start(term) for term in terms]
    return replace(graph, "logits", _FromTerms(model), [node.name for node in at_start], new=at_start)


def with_heads_alone(graph: Graph, model: BracketClassifier) -> Graph:
    """The graph whose logits are computed from the heads at the start token, <head>@0, through the MLPs there."""
    at_start = [_at_start(head) for head in HEAD_NAMES]
    return replace(graph, "logits", _FromHeads(model), [node.name for node in at_start], new=at_start)


def with_own_reads(graph: Graph, head: str) -> Graph:
    """The graph in which a head reads its own copy of the residual stream, cut into positions <head> reads p<i>."""
    layer = head[1]
    graph = own_copy(graph, f"a{layer}", {f"attention for {head}": [head]})
    graph = own_copy(graph, f"r{layer}", {f"{head} reads": [f"attention for {head}"]})
    return split(graph, f"{head} reads", 1, {f"{head} reads p{i}": i for i in range(CONTEXT)}, CONTEXT)


def with_first_position(graph: Graph, node: str, axis: int) -> Graph:
    """The graph with a node's positions cut into <node>.p1, the first bracket's, and <node>.rest."""
    rest = [i for i in range(CONTEXT) if i != 1]
    return split(graph, node, axis, {f"{node}.p1": 1, f"{node}.rest": rest}, CONTEXT)


def with_share_estimated(graph: Graph, model: BracketClassifier, looker: str) -> Graph:
    """The graph with a first-layer head's output at position 1 written as phi + (output - phi), phi = v (2 p_1 - 1)."""
    direction = _direction(model, int(looker[-1]))

    def phi(tokens: Tensor) -> Tensor:
        share = features.open_shares(tokens)[:, 1].to(direction)
        return ((2 * share - 1)[:, None] * direction.to(tokens.device))[:, None, None]

    return with_estimate(graph, f"{looker}.p1", phi, inputs=["tokens"])


@torch.no_grad()
def with_output_fitted(graph: Graph, data: Dataset, head: str, rows: int = 4000) -> Graph:
    """The graph with <head>@0 written as phi + (output - phi), phi the polynomial in p_1 of strings that start open.

    phi is of degree 4 in 2 p_1 - 1 where a string starts open, one constant elsewhere; least squares on the first rows.
    """
    tokens = data["tokens"][:rows]
    target = graph.run([f"{head}@0"], {"tokens": tokens})[f"{head}@0"][:, 0].double()
    coefficients = torch.linalg.lstsq(_powers(tokens), target).solution.float()

    def phi(tokens: Tensor) -> Tensor:
        fitted: Tensor = _powers(tokens).float() @ coefficients.to(tokens.device)
        return fitted[:, None]

    return with_estimate(graph, f"{head}@0", phi, inputs=["tokens"])


def _powers(tokens: Tensor) -> Tensor:
    opens = features.starts_open(tokens).double()
    x = 2 * features.open_shares(tokens)[:, 1] - 1
    return torch.stack([1 - opens, *(opens * x**power for power in range(5))], 1)


def _at_start(name: str) -> Node:
    return Node(f"{name}@0", (name,), _AtStart(name in HEAD_NAMES))


class _AtStart(Opened):
    """What a term writes at the start token, [batch, 1, D_MODEL]; a head's values have an axis for the head."""

    def __init__(self, of_head: bool) -> None:
        super().__init__()
        self.of_head = of_head

    def open(self, values: Sequence[Any], through: Callable[[Function, Sequence[Any]], Any]) -> Any:
        if self.of_head:
            values = [through(Operation.call(torch.ops.aten.squeeze.dim, 1, has_rows=True), values)]
        return through(Slice(1, (0,)), values)


class _FromTerms(nn.Module):
    """The logits from the terms of the residual stream at the start token, positions and output biases added."""

    def __init__(self, model: BracketClassifier) -> None:
        super().__init__()
        self.norm, self.unembed = model.ln_final, model.unembed
        weights = model.state_dict()
        biases = sum(weights[f"blocks.{layer}.attn.b_O"] for layer in range(LAYERS))
        self.fixed = nn.Parameter(weights["pos_embed.W_pos"][0] + biases)

    def forward(self, *terms: Tensor) -> Tensor:
        logits: Tensor = self.unembed(self.norm(torch.stack(terms).sum(0)[:, 0] + self.fixed))
        return logits


class _FromHeads(nn.Module):
    """The logits from the heads at the start token: what it embeds is the same for every string, MLPs are run anew."""

    def __init__(self, model: BracketClassifier) -> None:
        super().__init__()
        weights = model.state_dict()
        self.start = nn.Parameter(weights["embed.W_E"][0] + weights["pos_embed.W_pos"][0])
        self.biases = nn.Parameter(torch.stack([weights[f"blocks.{layer}.attn.b_O"] for layer in range(LAYERS)]))
        self.norms = nn.ModuleList(block.get_submodule("ln2") for block in model.blocks)
        self.mlps = nn.ModuleList(block.get_submodule("mlp") for block in model.blocks)
        self.norm, self.unembed = model.ln_final, model.unembed

    def forward(self, *heads: Tensor) -> Tensor:
        residual = self.start.expand(len(heads[0]), -1)
        for layer, (norm, mlp) in enumerate(zip(self.norms, self.mlps, strict=True)):
            written = torch.stack(heads[HEADS * layer : HEADS * (layer + 1)]).sum(0)[:, 0]
            residual = residual + written + self.biases[layer]
            residual = residual + mlp(norm(residual))
        logits: Tensor = self.unembed(self.norm(residual))
        return logits


@torch.no_grad()
def _direction(model: BracketClassifier, head: int) -> Tensor:
    """float32 [56]: v, half of what "(" rather than ")" adds through a first-layer head's values.

    LayerNormed embeddings are averaged over the positions 1 to 40.
    """
    weights = model.state_dict()
    place = weights["pos_embed.W_pos"][1 : CONTEXT - 1]
    opened, closed = (features.first_layer_reads(model, token, place).mean(0) for token in (OPEN, CLOSE))
    direction: Tensor = (opened - closed) @ weights["blocks.0.attn.W_V"][head] @ weights["blocks.0.attn.W_O"][head] / 2
    return direction
