"""The bracket classifier with a name for each value that the two ladders of hypotheses speak of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pscrub.data.dataset import Dataset
from pscrub.graph.behaviours import open_function
from pscrub.graph.cuts import Cut, input_of
from pscrub.graph.graph import Function, Graph, Node
from pscrub.graph.rewrites import own_copy, replace
from pscrub.graph.tracing import trace
from pscrub.hypothesis.named import NamedGraph
from pscrub.studies.brackets import features
from pscrub.studies.brackets.model import CLOSE, CONTEXT, HEADS, LAYERS, OPEN, BracketClassifier

HEAD_NAMES = tuple(f"a{layer}.h{head}" for layer in range(LAYERS) for head in range(HEADS))
TERMS = ("embed", *HEAD_NAMES, *(f"m{layer}" for layer in range(LAYERS)))
LOSS = Node("loss", ("logits", "balanced"), lambda out, label: cross_entropy(out, label, reduction="none"))


def by_term(model: BracketClassifier, data: Dataset) -> NamedGraph:
    """The published ladder's: logits read each term at the start token; `a2.h1.in` is what that head alone reads."""
    graph = _with_logits(_trace(model, data), data, _FromTerms(model), TERMS)
    return NamedGraph(own_copy(graph, "r2", {"a2.h1.in": ["a2.h1"]}), data, CONTEXT, mixing=HEAD_NAMES)


def by_head(model: BracketClassifier, data: Dataset) -> NamedGraph:
    """The shipped ladder's: logits are computed from heads at the start token, through the MLPs there.

    `a1.h0.out` is what the logits read of a head; `a1.h0.in` is what that head alone reads.
    """
    graph = _with_logits(_trace(model, data), data, _FromHeads(model), HEAD_NAMES)
    for head in HEAD_NAMES:
        graph = own_copy(graph, head, {f"{head}.out": ["logits"]})
    for head in ("a1.h0", "a1.h1", "a2.h1"):
        graph = own_copy(graph, f"r{head[1]}", {f"{head}.in": [f"{head}.out"]})
    return NamedGraph(graph, data, CONTEXT, mixing=[f"{head}.out" for head in HEAD_NAMES])


def _trace(model: BracketClassifier, data: Dataset) -> Graph:
    """embed, mask, heads a<layer>.h<head>, MLPs m<layer>, r<layer> that attention reads, logits, loss."""
    cuts: dict[str, str | Cut] = {"embed": "hook_embed", "mask": "hook_mask"}
    for i in range(LAYERS):
        cuts |= {f"a{i}.h{head}": f"blocks.{i}.attn.hook_heads.{head}" for head in range(HEADS)}
        cuts |= {f"m{i}": f"blocks.{i}.hook_mlp_out"} | ({f"r{i}": input_of(f"blocks.{i}.ln1")} if i else {})
    return trace(model, data, cuts=cuts, inputs=["tokens"], output="logits", behaviour=LOSS)


def _with_logits(graph: Graph, data: Dataset, fn: nn.Module, names: Sequence[str]) -> Graph:
    """The graph with logits made by a function, opened, so that of what it reads only the start token is computed."""
    values = graph.run(names, {"tokens": data["tokens"][:11]})
    return replace(graph, "logits", open_function(fn, [values[name] for name in names]) or fn, names)


def share_estimate(model: BracketClassifier, head: int) -> Function:
    """Of a first-layer head at a position, [batch, 1, 56]: phi = v (2 p_1 - 1)."""
    direction = _direction(model, head)

    def phi(tokens: Tensor) -> Tensor:
        share = features.open_shares(tokens)[:, 1].to(direction)
        return ((2 * share - 1)[:, None] * direction.to(tokens.device))[:, None]

    return phi


@torch.no_grad()
def fitted_estimate(named: NamedGraph, head: str, rows: int = 4000) -> Function:
    """Of a head at the start token, [batch, 1, 56]: a polynomial in p_1 of strings that start open, one constant else.

    It is of degree 4 in 2 p_1 - 1; least squares on the first rows.
    """
    tokens = named.data["tokens"][:rows]
    target = named.base.run([head], {"tokens": tokens})[head][:, 0].double()
    coefficients = torch.linalg.lstsq(_powers(tokens), target).solution.float()
    return lambda tokens: (_powers(tokens).float() @ coefficients.to(tokens.device))[:, None]


def _powers(tokens: Tensor) -> Tensor:
    opens = features.starts_open(tokens).double()
    x = 2 * features.open_shares(tokens)[:, 1] - 1
    return torch.stack([1 - opens, *(opens * x**power for power in range(5))], 1)


class _FromTerms(nn.Module):
    """The logits from the terms of the residual stream at the start token, positions and output biases added."""

    def __init__(self, model: BracketClassifier) -> None:
        super().__init__()
        self.norm, self.unembed = model.ln_final, model.unembed
        weights = model.state_dict()
        biases = sum(weights[f"blocks.{layer}.attn.b_O"] for layer in range(LAYERS))
        self.fixed = nn.Parameter(weights["pos_embed.W_pos"][0] + biases)

    def forward(self, *terms: Tensor) -> Tensor:
        logits: Tensor = self.unembed(self.norm(torch.stack([term[:, :1] for term in terms]).sum(0)[:, 0] + self.fixed))
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
            written = torch.stack([head[:, :1] for head in heads[HEADS * layer : HEADS * (layer + 1)]]).sum(0)[:, 0]
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
