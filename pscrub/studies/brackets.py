"""Does a transformer that judges bracket strings count brackets and look at the horizon? Nine hypotheses.

The claims are those of the causal scrubbing post on balanced brackets, about a classifier of the same architecture
that ships with pscrub, or about the published one (`-P weights=FILE -P data=FILE`).
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pscrub.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.graph import Graph, Node
from pscrub.hypothesis import EXACT, Claim, Hypothesis
from pscrub.rewrites import estimate, own_copy, replace, split
from pscrub.studies import bracket_features as features
from pscrub.studies.bracket_model import (
    CLOSE,
    CONTEXT,
    D_MODEL,
    HEADS,
    LAYERS,
    OPEN,
    BracketClassifier,
    encode,
    load_classifier,
)
from pscrub.studies.train_brackets import generate
from pscrub.study import Study
from pscrub.trace import input_of, trace

SHIPPED = Path(__file__).parent / "brackets.safetensors"
OPENS = "count and starts open"
HEAD_NAMES = [f"a{layer}.h{head}" for layer in range(LAYERS) for head in range(HEADS)]


@dataclass(frozen=True)
class Roles:
    """Which heads are claimed to do what.

    Args:
        counters: heads whose output at the start token tells the count.
        judge: the head whose output at the start token tells the horizon.
        looker: the head of the first layer that sees, from each position, the share of open brackets.
    """

    counters: tuple[str, ...]
    judge: str
    looker: str


PUBLISHED = Roles(counters=("a1.h0", "a2.h0"), judge="a2.h1", looker="a0.h0")


def study(
    weights: Path | None = None,
    data: Path | None = None,
    balanced: float | None = None,
    rows: int = 30_000,
    seed: int = 0,
) -> Study:
    """The study on the shipped classifier and fresh strings, or on files of the user's.

    Args:
        weights: safetensors of another classifier of this architecture, parameters named as TransformerLens 1.x does.
        data: lines of JSON [string, is it balanced], gzipped or not.
        balanced: share of balanced strings; surplus ones (the last) are dropped.
        rows: lines read, or strings generated.
        seed: of the strings generated.
    """
    model = load_classifier(SHIPPED if weights is None else weights)
    dataset = strings(data, rows, balanced, seed)
    roles = PUBLISHED
    return Study("brackets", hypotheses(model, dataset, roles), __doc__.split("\n")[0], labels=("balanced",))


def hypotheses(model: BracketClassifier, data: Dataset, roles: Roles) -> list[Hypothesis]:
    """The nine hypotheses, 0a to 4, about one classifier."""
    tokens = data["tokens"]
    graph = bracket_graph(model, data, roles)
    shares, seen = features.open_shares(tokens), features.seen_shares(tokens, model, int(roles.looker[-1]))
    label = Claim("balanced", "balanced")
    counts = [Claim(f"{head}@0", features.count(tokens), name=head, words="count") for head in roles.counters]
    opens = [Claim(f"{head}@0", _opens(tokens), name=head, words=OPENS) for head in roles.counters]
    judge = Claim(f"{roles.judge}@0", features.horizon(tokens), name=roles.judge, words="horizon")
    share = features.share_if_open(tokens)
    looked = Claim(f"{roles.looker}.p1", share, words="p_1 if it starts open")
    phi = Claim(f"{looked.at}.phi", share, words=looked.words)
    estimated = Claim(looked.at, share, reads=[phi], words=looked.words)

    def ladder(name: str, heads: list[Claim]) -> Hypothesis:
        return Hypothesis(name, graph, data, Claim("loss", reads=[label, Claim("logits", reads=heads)]))

    return [
        Hypothesis("0a everything exact", graph, data, Claim("loss", EXACT)),
        Hypothesis("0b logits unimportant", graph, data, Claim("loss", reads=[label])),
        ladder("1a count and horizon", [*counts, judge]),
        ladder("1b also starts open", [*opens, judge]),
        ladder("2a count from the first bracket", [*_from_first(roles, looked, tokens), judge]),
        ladder("2b with its share estimated", [*_from_first(roles, estimated, tokens), judge]),
        ladder("3a horizon from verdicts", [*opens, _from_verdicts(roles, tokens, shares)]),
        ladder("3b with the shares seen", [*opens, _from_verdicts(roles, tokens, seen)]),
        ladder("4 both 2b and 3b", [*_from_first(roles, estimated, tokens), _from_verdicts(roles, tokens, seen)]),
    ]


def _opens(tokens: Tensor) -> Tensor:
    return features.count(tokens) & features.starts_open(tokens)


def _from_first(roles: Roles, looked: Claim, tokens: Tensor) -> list[Claim]:
    embedded = Claim("embed", features.starts_open(tokens), words="starts open")
    claims = []
    for head in roles.counters:
        first = Claim(f"r{head[1]}.p1", _opens(tokens), reads=[looked, embedded], words=OPENS)
        claims.append(Claim(f"{head}@0", _opens(tokens), reads=[first], name=head, words=OPENS))
    return claims


def _from_verdicts(roles: Roles, tokens: Tensor, shares: Tensor) -> Claim:
    codes = features.verdicts(tokens, shares)
    positions = [Claim(f"judged.p{i}", codes[:, i], words=f"verdict at {i}") for i in range(CONTEXT)]
    mask = Claim("mask", features.lengths(tokens), words="length")
    verdict = features.no_bad_verdict(codes)
    return Claim(f"{roles.judge}@0", verdict, [*positions, mask], name=roles.judge, words="no bad verdict")


def bracket_graph(model: BracketClassifier, data: Dataset, roles: Roles) -> Graph:
    """The classifier's graph with every node that the hypotheses speak of.

    Traced nodes: embed, mask, a<layer> (heads apart), m<layer>, r<layer> (what attention reads), logits. Rewritten:
    heads a<layer>.h<head>; <node>@0, the node as the logits read it, at the start token; r<layer>.p1 and .rest;
    judged.p0 to .p41, what the judging head reads; the looking head's output at position 1 as estimate and residual.
    """
    cuts = {"embed": "hook_embed", "mask": "hook_mask"}
    cuts |= {f"a{layer}": f"blocks.{layer}.attn.hook_heads" for layer in range(LAYERS)}
    cuts |= {f"m{layer}": f"blocks.{layer}.hook_mlp_out" for layer in range(LAYERS)}
    marks = cuts | {f"r{layer}": input_of(f"blocks.{layer}.ln1") for layer in range(1, LAYERS)}
    loss = Node("loss", ("logits", "balanced"), lambda out, label: cross_entropy(out, label, reduction="none"))
    graph = trace(model, data, cuts=marks, inputs=["tokens"], output="logits", behaviour=loss)
    for layer in range(LAYERS):
        graph = split(graph, f"a{layer}", 1, {f"a{layer}.h{head}": head for head in range(HEADS)}, HEADS)
    graph = _direct_terms(graph, model)
    attention = f"a{roles.judge[1]}"
    graph = own_copy(graph, attention, {"judging": [roles.judge]})
    graph = own_copy(graph, f"r{roles.judge[1]}", {"judged": ["judging"]})
    graph = split(graph, "judged", 1, {f"judged.p{i}": i for i in range(CONTEXT)}, CONTEXT)
    rest = [i for i in range(CONTEXT) if i != 1]
    for read in sorted({f"r{head[1]}" for head in roles.counters}):
        graph = split(graph, read, 1, {f"{read}.p1": 1, f"{read}.rest": rest}, CONTEXT)
    looker = roles.looker
    graph = split(graph, looker, 2, {f"{looker}.p1": 1, f"{looker}.rest": rest}, CONTEXT)
    direction = _direction(model, int(looker[-1]))

    def phi(tokens: Tensor) -> Tensor:
        share = features.open_shares(tokens)[:, 1].to(direction)
        return ((2 * share - 1)[:, None] * direction.to(tokens.device))[:, None, None]

    return estimate(graph, f"{looker}.p1", phi, inputs=["tokens"])


def _direct_terms(graph: Graph, model: BracketClassifier) -> Graph:
    """The logits as a function of the terms of the residual stream at the start token, each a node of its own."""
    terms = ["embed", *HEAD_NAMES, *(f"m{layer}" for layer in range(LAYERS))]
    at_start = [
        Node(f"{term}@0", (term,), lambda value: value.reshape(len(value), CONTEXT, D_MODEL)[:, :1]) for term in terms
    ]
    return replace(graph, "logits", _Logits(model), [node.name for node in at_start], new=at_start)


class _Logits(nn.Module):
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


@torch.no_grad()
def _direction(model: BracketClassifier, head: int) -> Tensor:
    """float32 [56]: v, half of what "(" rather than ")" adds through a first-layer head's values.

    Embeddings are averaged over the positions 1 to 40 before the LayerNorm.
    """
    weights = model.state_dict()
    place = weights["pos_embed.W_pos"][1 : CONTEXT - 1].mean(0)
    opened, closed = (features.first_layer_reads(model, token, place) for token in (OPEN, CLOSE))
    direction: Tensor = (opened - closed) @ weights["blocks.0.attn.W_V"][head] @ weights["blocks.0.attn.W_O"][head] / 2
    return direction


def strings(path: Path | None, rows: int, balanced: float | None, seed: int) -> Dataset:
    """D: columns tokens int64 [N, 42], balanced int64 [N] and text, from a file or generated.

    Raises:
        StudyError: no such file, lines of another form, a share of balanced strings that cannot be had.
    """
    if rows < 1:
        raise StudyError(f"rows is {rows}; expected at least 1")
    if path is None:
        texts = generate(rows, seed)
    else:
        texts = _read(path, rows)
    tokens = encode(texts)
    label = features.count(tokens) & features.horizon(tokens)
    keep = torch.ones(len(texts), dtype=torch.bool)
    if balanced is not None:
        if not 0 < balanced < 1:
            raise StudyError(f"balanced is {balanced}; expected a share between 0 and 1")
        most = round(int((~label).sum()) * balanced / (1 - balanced))
        if most > int(label.sum()):
            raise StudyError(
                f"balanced={balanced}: only {float(label.double().mean()):.3f} of the strings are balanced"
            )
        keep = ~label | (label.cumsum(0) <= most)
    kept = [text for text, wanted in zip(texts, keep.tolist(), strict=True) if wanted]
    return Dataset({"text": kept, "tokens": tokens[keep], "balanced": label[keep].long()})


def _read(path: Path, rows: int) -> list[str]:
    if not path.is_file():
        raise StudyError(f"data file '{path}' does not exist")
    texts: list[str] = []
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if len(texts) == rows:
                break
            try:
                text, _ = json.loads(line)
            except ValueError as error:
                raise StudyError(f"{path}, line {number}: expected [string, true or false]; {error}") from error
            texts.append(text)
    return texts
