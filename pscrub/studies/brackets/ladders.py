"""The nine hypotheses about the bracket classifier: for the published weights, and for those that ship with pscrub."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.graph.graph import Graph
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.studies.brackets import features, graphs
from pscrub.studies.brackets.model import CONTEXT, BracketClassifier

OPENS = "count and starts open"
NAMES = (
    "0a everything exact",
    "0b logits unimportant",
    "1a count and horizon",
    "1b also starts open",
    "2a count from the first bracket",
    "2b with its share estimated",
    "3a horizon from verdicts",
    "3b with the shares seen",
    "4 both 2b and 3b",
)
SHIPPED_NAMES = {
    "1a": "1a count, and horizon with p_1",
    "2a": "2a count from every position",
    "2b": "2b with its output estimated",
}


def published_ladder(model: BracketClassifier, data: Dataset, exact_ties: bool = False) -> list[Hypothesis]:
    """The published claims: heads a1.h0 and a2.h0 tell the count, a2.h1 the horizon, directly to the logits.

    2: both counters read position 1, where a0.h0 looked from the first bracket over the string. 3: the judge reads a
    verdict at every position, which a0.h0's view of the share of open brackets gives.
    """
    tokens, counters, judge, looker = data["tokens"], ("a1.h0", "a2.h0"), "a2.h1", "a0.h0"
    graph = graphs.with_own_reads(graphs.with_direct_terms(graphs.by_head(model, data), model), judge)
    for layer in (1, 2):
        graph = graphs.with_first_position(graph, f"r{layer}", axis=1)
    graph = graphs.with_share_estimated(graphs.with_first_position(graph, looker, axis=2), model, looker)
    shares, seen = features.open_shares(tokens), features.seen_shares(tokens, model, 0, exact_ties)
    mask = Claim("mask", features.lengths(tokens), words="length")
    both = features.count(tokens) & features.starts_open(tokens)
    counts = [Claim(f"{head}@0", features.count(tokens), name=head, words="count") for head in counters]
    opens = [Claim(f"{head}@0", both, name=head, words=OPENS) for head in counters]
    horizon = Claim(f"{judge}@0", features.horizon(tokens), name=judge, words="horizon")
    share = features.share_if_open(tokens)
    looked = Claim(f"{looker}.p1", share, words="p_1 if it starts open")
    phi = Claim(f"{looked.at}.phi", share, words=looked.words)
    estimated = Claim(looked.at, share, reads=[phi], words=looked.words)

    def first(looks: Claim) -> list[Claim]:
        embedded = Claim("embed", features.starts_open(tokens), words="starts open")
        claims = []
        for head in counters:
            read = Claim(f"r{head[1]}.p1", both, reads=[looks, embedded], words=OPENS)
            claims.append(Claim(f"{head}@0", both, reads=[read], name=head, words=OPENS))
        return claims

    def verdicts(from_shares: Tensor) -> Claim:
        codes = features.verdicts(tokens, from_shares)
        judged = features.no_bad_verdict(codes)
        return _by_position(judge, judged, "no bad verdict", lambda i: codes[:, i], "verdict", mask)

    rows = [counts, opens, first(looked), first(estimated), opens, opens, first(estimated)]
    judges = [horizon] * 4 + [verdicts(shares), verdicts(seen), verdicts(seen)]
    return _ladder(graph, data, NAMES, [[*row, each] for row, each in zip(rows, judges, strict=True)])


def shipped_ladder(model: BracketClassifier, data: Dataset) -> list[Hypothesis]:
    """The same nine in the form that fits the shipped weights, whose heads speak to the logits through the MLPs.

    `pscrub run bracket_heads` shows the measurements behind it: a1.h0 tells the count and starts open; a1.h1 and a2.h1
    tell the horizon together with p_1; a1.h0 reads every position, not the first alone; verdicts have to carry the
    token, p_1 and starts open beside p_i.
    """
    tokens, counter, judges = data["tokens"], "a1.h0", ("a1.h1", "a2.h1")
    graph = graphs.with_heads_alone(graphs.by_head(model, data), model)
    graph = graphs.with_output_fitted(graph, data, counter)
    for head in (counter, *judges):
        graph = graphs.with_own_reads(graph, head)
    shares, seen = features.open_shares(tokens), features.seen_shares(tokens, model, 0, exact_ties=True)
    both, share = features.count(tokens) & features.starts_open(tokens), features.share_if_open(tokens)
    mask = Claim("mask", features.lengths(tokens), words="length")
    horizon = torch.stack([features.horizon(tokens).double(), shares[:, 1]], 1)
    at = f"{counter}@0"
    count = Claim(at, features.count(tokens), name=counter, words="count")
    opens = Claim(at, both, name=counter, words=OPENS)
    positions = _by_position(counter, both, OPENS, lambda i: share, "p_1 if it starts open", mask)
    phi = Claim(f"{at}.phi", share, words="p_1 if it starts open")
    estimated = Claim(at, both, reads=[phi], name=counter, words=OPENS)
    telling = [Claim(f"{head}@0", horizon, name=head, words="horizon and p_1") for head in judges]

    def verdicts(from_shares: Tensor) -> list[Claim]:
        codes = features.verdicts(tokens, from_shares)
        whole = [tokens.double(), codes.double()]
        same = torch.stack([shares[:, 1], features.starts_open(tokens).double()], 1)
        judged = torch.cat([features.no_bad_verdict(codes)[:, None].double(), same], 1)

        def position(i: int) -> Tensor:
            return torch.cat([*(each[:, i : i + 1] for each in whole), same], 1)

        words = "verdict, token, p_1, starts open"
        return [
            _by_position(head, judged, "no bad verdict, p_1, starts open", position, words, mask) for head in judges
        ]

    rows = [count, opens, positions, estimated, opens, opens, estimated]
    judging = [telling] * 4 + [verdicts(shares), verdicts(seen), verdicts(seen)]
    names = [SHIPPED_NAMES.get(name.split()[0], name) for name in NAMES]
    return _ladder(graph, data, names, [[row, *each] for row, each in zip(rows, judging, strict=True)])


def _ladder(graph: Graph, data: Dataset, names: Sequence[str], rows: Sequence[Sequence[Claim]]) -> list[Hypothesis]:
    label = Claim("balanced", "balanced")
    roots = [Claim("loss", EXACT), Claim("loss", reads=[label])]
    roots += [Claim("loss", reads=[label, Claim("logits", reads=heads)]) for heads in rows]
    return [Hypothesis(name, graph, data, root) for name, root in zip(names, roots, strict=True)]


def _by_position(
    head: str,
    feature: Tensor,
    words: str,
    position: Callable[[int], Tensor],
    position_words: str,
    mask: Claim,
) -> Claim:
    """A head that reads the residual stream at every position, each agreeing on its own feature, under a true mask."""
    reads = [Claim(f"{head} reads p{i}", position(i), words=f"{position_words}, at {i}") for i in range(CONTEXT)]
    return Claim(f"{head}@0", feature, reads=[*reads, mask], name=head, words=words)
