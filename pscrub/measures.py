"""The baselines that a scrubbed expected loss is measured against: the model's own and the randomised one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pscrub.errors import StudyError, close
from pscrub.evaluate import Activations, Progress, quiet
from pscrub.graph import Graph
from pscrub.partition import Partition

EXACT_PAIRS = 20_000_000
"""Evaluations of f up to which the randomised loss is computed over all pairs rather than sampled."""


@dataclass(frozen=True)
class Baseline:
    """An expected loss of reference.

    Args:
        value: the expectation of f, in f's units.
        se: its standard error; 0.0 if exact.
        draws: pairs sampled; 0 if exact.
        method: how it was computed.
    """

    value: float
    se: float
    draws: int
    method: str

    @property
    def exact(self) -> bool:
        """Whether the value has no sampling error."""
        return self.draws == 0


def model_loss(activations: Activations, progress: Progress = quiet) -> Baseline:
    """E_D[f], exactly: f on every row, weighted, summed in float64."""
    f = activations.on_data(activations.graph.output, progress).double().cpu()
    weights = activations.data.weights
    # A row of weight zero may hold anything, NaN included.
    return Baseline(float(torch.where(weights > 0, weights * f, 0.0).sum()), 0.0, 0, "exact, all rows")


def randomised_loss(
    activations: Activations,
    labels: Sequence[str] | None = None,
    pairs: int = EXACT_PAIRS,
    seed: int = 0,
    progress: Progress = quiet,
) -> Baseline:
    """E[f] with output and label drawn independently: the output of x, the label of an independent x'.

    Exact while distinct labels times rows is at most `pairs`: f is evaluated for every distinct label on every row's
    output, weighted (pairs of a row with itself are included: x' is independent). Else over `pairs` sampled pairs.

    Source: "Percentage of loss recovered" in the appendix, section 2.1.

    Args:
        activations: of the graph whose output node is the loss.
        labels: the columns that are labels; by default the columns that the output node reads itself.
        pairs: largest number of evaluations of f.
        seed: for sampled pairs.
        progress: told of evaluations done.

    Raises:
        StudyError: the output node reads no column, or no other node, so that there is nothing to break apart.
    """
    graph, data = activations.graph, activations.data
    reads = graph.reads(graph.output)
    labels = _labels(graph, labels)
    outputs = tuple(name for name in reads if name not in labels)
    for name in labels:
        if name not in reads:
            raise StudyError(f"label '{name}' is not read by the output node '{graph.output}'{close(name, reads)}")
    if not labels or not outputs:
        raise StudyError(
            f"the randomised loss needs an output node that reads a label column and a model's output; "
            f"'{graph.output}' reads {', '.join(reads)}. Name the labels, or give the baseline's value"
        )
    distinct = _distinct_rows([data[name] for name in labels], data.weights)
    activations.keep(outputs, progress)
    n = data.n
    if len(distinct) * n <= pairs:
        return _over_all_pairs(activations, labels, outputs, distinct, progress)
    rng = np.random.default_rng(np.random.SeedSequence((seed, 1)))
    x, y = (torch.from_numpy(rng.choice(n, size=pairs // 20, p=data.weights.numpy())) for _ in range(2))
    f = torch.cat(
        [
            _f(activations, outputs, labels, x_rows, y_rows)
            for x_rows, y_rows in zip(*(each.split(activations.chunk(outputs)) for each in (x, y)), strict=True)
        ]
    )
    se = float(f.std()) / math.sqrt(len(f))
    return Baseline(float(f.mean()), se, len(f), f"{len(f):,} sampled pairs")


def randomised_sample(activations: Activations, labels: Sequence[str] | None, draws: int, seed: int) -> Tensor:
    """float64 [draws]: f on sampled pairs of an output and an independent label, to see how it is spread.

    Args:
        activations: of the graph whose output node is the loss.
        labels: the columns that are labels, as in `randomised_loss`.
        draws: how many.
        seed: names the pairs.
    """
    graph, data = activations.graph, activations.data
    labels = _labels(graph, labels)
    outputs = tuple(name for name in graph.reads(graph.output) if name not in labels)
    rng = np.random.default_rng(np.random.SeedSequence((seed, 2)))
    x, y = (torch.from_numpy(rng.choice(data.n, size=draws, p=data.weights.numpy())) for _ in range(2))
    size = activations.chunk(outputs)
    return torch.cat(
        [_f(activations, outputs, labels, *each) for each in zip(x.split(size), y.split(size), strict=True)]
    )


class OutputDistances:
    """How far scrubbed outputs are from the model's own on the root's datum, draw by draw.

    The outputs are the nodes that f reads besides its labels. One number a row is compared by squared error. Several
    are taken to be logits (or log-probabilities) along the last axis: the divergence of the scrubbed distribution from
    the model's in nats, "KL", and whether the most likely entry is another one, "flipped"; over other axes, the mean.

    Args:
        activations: of the graph on D.
        labels: the columns that are labels, as in `randomised_loss`.
    """

    def __init__(self, activations: Activations, labels: Sequence[str] | None = None) -> None:
        graph = activations.graph
        known = _labels(graph, labels)
        self.activations = activations
        self.outputs = tuple(n for n in graph.reads(graph.output) if n not in known and n in graph.nodes)
        self._seen: list[dict[str, Tensor]] = []

    def watch(self, given: Mapping[str, Tensor], rows: Tensor) -> None:
        """Compare, in a chunk of draws, the outputs that f is computed from with the model's own.

        Args:
            given: the values [chunk, ...] that the root reads.
            rows: int64 [chunk], the root's datum.
        """
        made = self.activations.graph.run(self.outputs, given)
        seen: dict[str, Tensor] = {}
        for name in self.outputs:
            for measure, value in _distances(self.activations.rows(name, rows), made[name]).items():
                seen[measure if len(self.outputs) == 1 else f"{measure} of {name}"] = value.cpu()
        self._seen.append(seen)

    def taken(self) -> dict[str, Tensor]:
        """measure -> float64 [draws] since last taken."""
        seen, self._seen = self._seen, []
        return {name: torch.cat([each[name] for each in seen]) for name in (seen[0] if seen else {})}


def _distances(own: Tensor, other: Tensor) -> dict[str, Tensor]:
    if not own.is_floating_point():
        return {"flipped": (own != other).reshape(len(own), -1).double().mean(1)}
    if own[0].numel() == 1:
        return {"squared error": squared_error(own, other)}
    return {"KL": divergence(own, other), "flipped": flipped(own, other)}


def squared_error(own: Tensor, other: Tensor) -> Tensor:
    """float64 [batch]: the squared difference, averaged over a vector's entries."""
    return (own.double() - other.double()).reshape(len(own), -1).square().mean(1)


def divergence(own: Tensor, other: Tensor) -> Tensor:
    """float64 [batch]: KL of the other's distribution from the own one, in nats, of logits along the last axis."""
    p, q = own.double().log_softmax(-1), other.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).reshape(len(own), -1).mean(1)


def flipped(own: Tensor, other: Tensor) -> Tensor:
    """float64 [batch]: 1 where another entry of the last axis is the largest; over other axes, the share."""
    return (own.argmax(-1) != other.argmax(-1)).double().reshape(len(own), -1).mean(1)


def _labels(graph: Graph, labels: Sequence[str] | None) -> tuple[str, ...]:
    reads = graph.reads(graph.output)
    return tuple(name for name in reads if name in graph.inputs) if labels is None else tuple(labels)


def _over_all_pairs(
    activations: Activations,
    labels: Sequence[str],
    outputs: Sequence[str],
    distinct: list[tuple[int, float]],
    progress: Progress,
) -> Baseline:
    data, total = activations.data, 0.0
    for done, (row, probability) in enumerate(distinct, start=1):
        for rows in (data.weights > 0).nonzero().flatten().split(activations.chunk(outputs)):
            f = _f(activations, outputs, labels, rows, torch.full_like(rows, row))
            total += probability * float((data.weights[rows] * f).sum())
        progress("randomised loss", done, len(distinct))
    return Baseline(total, 0.0, 0, f"exact, all pairs of {data.n:,} outputs and {len(distinct):,} distinct labels")


def _f(activations: Activations, outputs: Sequence[str], labels: Sequence[str], x: Tensor, y: Tensor) -> Tensor:
    given = {name: activations.rows(name, x) for name in outputs} | {n: activations.rows(n, y) for n in labels}
    with torch.no_grad():
        f = activations.graph.run([activations.graph.output], given)[activations.graph.output]
    return f.double().cpu()


def _distinct_rows(columns: Sequence[Tensor], weights: Tensor) -> list[tuple[int, float]]:
    """A row of each distinct value of the columns together, with the value's probability."""
    from pscrub.dataset import Dataset

    data = Dataset({str(i): column for i, column in enumerate(columns)}, weights)
    flat = [column.reshape(len(column), -1) for column in columns]
    partition = Partition.trivial(data).refine(*(Partition.of(column, data, "label") for column in flat))
    first = torch.full((partition.n_blocks,), data.n).scatter_reduce(0, partition.labels, torch.arange(data.n), "amin")
    block = partition.block_weights.tolist()
    return [(row, p) for row, p in zip(first.tolist(), block, strict=True) if p > 0]
