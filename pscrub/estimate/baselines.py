"""The baselines that a scrubbed expected loss is measured against: the model's own and the randomised one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pscrub.data.partition import Partition
from pscrub.errors import StudyError, close
from pscrub.evaluate.values import Activations
from pscrub.outcomes import Outcome, Said
from pscrub.progress import Progress, quiet

EXACT_PAIRS = 20_000_000
"""Evaluations of f up to which the randomised loss is computed over all pairs rather than sampled."""
SAMPLED = 20
"""How many times fewer pairs are sampled where all would be more than that."""


class Way(Outcome):
    """How a baseline was come by."""

    ALL_ROWS = "all rows", "exact, all rows"
    ALL_PAIRS = "all pairs", "exact, all pairs of {rows:,} outputs and {labels:,} distinct labels"
    SAMPLED_PAIRS = "sampled pairs", "{pairs:,} sampled pairs"
    GIVEN = "given", "given"


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", Said.of(self.method))

    @classmethod
    def given(cls, value: Baseline | float | None) -> Baseline | None:
        """What a caller gives for a baseline: one, its value, or nothing."""
        return cls(float(value), 0.0, 0, Way.GIVEN.say()) if isinstance(value, float | int) else value

    @property
    def kind(self) -> str:
        """The code of how it was come by (`Way`); "" if a caller made it."""
        return Said.of(self.method).kind

    @property
    def exact(self) -> bool:
        """Whether the value has no sampling error."""
        return self.draws == 0


def model_loss(activations: Activations, progress: Progress = quiet) -> Baseline:
    """E_D[f], exactly: f on every row, weighted, summed in float64."""
    f = activations.on_data(activations.graph.output, progress).double().cpu()
    weights = activations.data.weights
    # A row of weight zero may hold anything, NaN included.
    return Baseline(float(torch.where(weights > 0, weights * f, 0.0).sum()), 0.0, 0, Way.ALL_ROWS.say())


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
    pairs_of, data = Pairs.of(activations, labels), activations.data
    graph, reads = activations.graph, activations.graph.reads(activations.graph.output)
    for name in pairs_of.labels:
        if name not in reads:
            raise StudyError(f"label '{name}' is not read by the output node '{graph.output}'{close(name, reads)}")
    if not pairs_of.labels or not pairs_of.outputs:
        raise StudyError(
            f"the randomised loss needs an output node that reads a label column and a model's output; "
            f"'{graph.output}' reads {', '.join(reads)}. Name the labels, or give the baseline's value"
        )
    activations.keep(pairs_of.outputs, progress)
    if pairs_of.count > pairs:
        f = pairs_of.f(*pairs_of.sample(pairs // SAMPLED, (seed, 1)))
        return Baseline(
            float(f.mean()), float(f.std()) / math.sqrt(len(f)), len(f), Way.SAMPLED_PAIRS.say(pairs=len(f))
        )
    total, distinct = 0.0, pairs_of.distinct
    for done, (row, block) in enumerate(distinct, start=1):
        for part, f in pairs_of.with_label_of(row):
            total += float(pairs_of.partition.block_weights[block]) * float((data.weights[part] * f).sum())
        progress("randomised loss", done, len(distinct))
    return Baseline(total, 0.0, 0, Way.ALL_PAIRS.say(rows=data.n, labels=len(distinct)))


@dataclass(frozen=True)
class Baselines:
    """What an expected loss is held against: the ends of the scale of loss recovered, each under its own name.

    Args:
        model: E_model, 100 per cent.
        randomised: E_randomised, 0 per cent.
    """

    model: Baseline
    randomised: Baseline

    @classmethod
    def of(
        cls,
        activations: Activations,
        labels: Sequence[str] | None = None,
        given: Baseline | float | None = None,
        seed: int = 0,
        progress: Progress = quiet,
    ) -> Baselines:
        """Those of a graph: E_model as `model_loss` computes it, E_randomised given or as `randomised_loss` does."""
        model = model_loss(activations, progress)
        randomised = Baseline.given(given)
        if randomised is None:
            randomised = randomised_loss(activations, labels, seed=seed, progress=progress)
        return cls(model, randomised)


def randomised_sample(activations: Activations, labels: Sequence[str] | None, draws: int, seed: int) -> Tensor:
    """float64 [draws]: f on sampled pairs of an output and an independent label, to see how it is spread.

    Args:
        activations: of the graph whose output node is the loss.
        labels: the columns that are labels, as in `randomised_loss`.
        draws: how many.
        seed: names the pairs.
    """
    pairs = Pairs.of(activations, labels)
    return pairs.f(*pairs.sample(draws, (seed, 2)))


@dataclass(frozen=True, eq=False)
class Pairs:
    """f where the model's outputs are those of one row of D and the labels those of another.

    Args:
        activations: of the graph whose output node is the loss.
        labels: the columns that are labels.
        outputs: what else the output node reads.
    """

    activations: Activations
    labels: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, activations: Activations, labels: Sequence[str] | None = None) -> Pairs:
        """The pairs of a graph; labels as in `Graph.labels`."""
        return cls(activations, activations.graph.labels(labels), activations.graph.outputs(labels))

    @cached_property
    def partition(self) -> Partition:
        """Of D by the labels together, bit by bit."""
        data = self.activations.data
        flat = [data[name].reshape(data.n, -1) for name in self.labels]
        return Partition.trivial(data).refine(*(Partition.of(column, data, "label") for column in flat))

    @cached_property
    def distinct(self) -> list[tuple[int, int]]:
        """A row of each distinct value of the labels that can be drawn, and its block in `partition`."""
        first = self.partition.first_rows.tolist()
        return [(first[block], block) for block in self.partition.sizes.nonzero().flatten().tolist()]

    @property
    def count(self) -> int:
        """Evaluations of f that all pairs take."""
        return len(self.distinct) * self.activations.data.n

    def sample(self, n: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Two int64 [n]: rows for outputs and rows for labels, all drawn independently from D."""
        rng, p = np.random.default_rng(np.random.SeedSequence(seed)), self.activations.data.weights.numpy()
        x, y = (torch.from_numpy(rng.choice(len(p), size=n, p=p)) for _ in range(2))
        return x, y

    def f(self, x: Tensor, y: Tensor) -> Tensor:
        """float64 [pairs]: f of the outputs of rows x and the labels of rows y, both int64 [pairs]."""
        size = self.activations.chunk(self.outputs)
        parts = zip(x.split(size), y.split(size), strict=True)
        return torch.cat([self._f(*part) for part in parts])

    def with_label_of(self, row: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of the rows that can be drawn, int64 [chunk], and f of their outputs with one row's labels."""
        possible = (self.activations.data.weights > 0).nonzero().flatten()
        for part in possible.split(self.activations.chunk(self.outputs)):
            yield part, self._f(part, torch.full_like(part, row))

    def _f(self, x: Tensor, y: Tensor) -> Tensor:
        a, output = self.activations, self.activations.graph.output
        given = {name: a.rows(name, x) for name in self.outputs} | {name: a.rows(name, y) for name in self.labels}
        with torch.no_grad():
            return a.graph.run([output], given)[output].double().cpu()
