"""f of the model's outputs on one row of D and the labels of another, which E_randomised is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pscrub.data.partition import Partition
from pscrub.evaluate.compute import Fold, Instruction
from pscrub.evaluate.on_data import OnData
from pscrub.evaluate.plan import Plan
from pscrub.progress import Progress, quiet

OUTPUT, LABEL = "output", "label"
"""The two data of a pair."""
GATHERED = 2**16
"""Bytes a row of what f reads of an output up to which it is gathered pair by pair; more is looked at row by row."""

Sample = tuple[int, tuple[int, ...]]
"""How many pairs, and the seed that names them."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """f of outputs and labels of two rows of D, by the numbers of plans.

    What f makes of an output alone (log-probabilities over a vocabulary) is made once a row, and for each pair only
    what the label enters. It is made while D passes, and not kept: `folds` says what to look at in a pass that is made
    anyhow; without that a pass is made when something is asked for. What was found is remembered.

    Args:
        on_data: values on D of the graph whose output node is the loss.
        labels: the columns that are labels.
        outputs: what else the output node reads.
    """

    on_data: OnData
    labels: tuple[str, ...]
    outputs: tuple[str, ...]
    _sums: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _samples: dict[Sample, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, on_data: OnData, labels: Sequence[str] | None = None) -> Pairs:
        """The pairs of a graph, the same ones whenever they are asked for; labels as in `Graph.labels`."""
        key = "pairs", on_data.graph.labels(labels)
        if key not in on_data.found:
            on_data.found[key] = cls(on_data, key[1], on_data.graph.outputs(labels))
        pairs: Pairs = on_data.found[key]
        return pairs

    @cached_property
    def partition(self) -> Partition:
        """Of D by the labels together, bit by bit."""
        data = self.on_data.data
        flat = [data[name].reshape(data.n, -1) for name in self.labels]
        return Partition.trivial(data).refine(*(Partition.of(column, data, "label") for column in flat))

    @cached_property
    def distinct(self) -> tuple[Tensor, Tensor]:
        """A row of each distinct value of the labels that can be drawn, and its block in `partition`, both int64."""
        blocks = self.partition.sizes.nonzero().flatten()
        return self.partition.first_rows[blocks], blocks

    @property
    def count(self) -> int:
        """Evaluations of f that all pairs take."""
        return len(self.distinct[0]) * self.on_data.data.n

    def sums(self, progress: Progress = quiet) -> tuple[Tensor, Tensor]:
        """E[f] over labels for each output's row [N], and over outputs for each block of labels [blocks], float64.

        Rows of weight zero are 0.
        """
        if not self._sums:
            self.on_data.kept.keep([], progress, [self.fold_all()])
        return self._sums[0]

    def f(self, sample: Sample) -> Tensor:
        """float64 [pairs]: f of a sample of pairs."""
        if sample not in self._samples:
            self.on_data.kept.keep([], quiet, [self.fold_sample(sample)])
        return self._samples[sample]

    def sample(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Two int64 [n]: rows for outputs and rows for labels, all drawn independently from D."""
        n, seed = sample
        rng, p = np.random.default_rng(np.random.SeedSequence(seed)), self.on_data.data.weights.numpy()
        x, y = (torch.from_numpy(rng.choice(len(p), size=n, p=p)) for _ in range(2))
        return x, y

    def fold_all(self) -> Fold:
        """What `sums` makes of values on D."""
        weights, (rows, blocks) = self.on_data.data.weights, self.distinct
        of_output = torch.zeros_like(weights)
        of_label = torch.zeros(self.partition.n_blocks, dtype=torch.float64)
        p = self.partition.block_weights[blocks]

        def work(part: slice, known: Mapping[int, Tensor]) -> tuple[slice, Tensor, Tensor]:
            own, size = torch.zeros(part.stop - part.start, dtype=torch.float64), part.stop - part.start
            seen, w = torch.zeros(len(rows), dtype=torch.float64), weights[part]
            if len(rows) <= size:  # all outputs of the chunk with one label at a time
                for i in range(len(rows)):
                    f = torch.where(w > 0, self._run(known, slice(0, size), rows[i : i + 1], size), 0.0)
                    own += p[i] * f
                    seen[i] = (w * f).sum()
            else:  # or one output at a time with all labels
                for i in w.nonzero().flatten().tolist():
                    f = torch.cat([self._run(known, slice(i, i + 1), y, len(y)) for y in rows.split(size)])
                    own[i] = (p * f).sum()
                    seen += w[i] * f
            return part, own, seen

        def take(done: tuple[slice, Tensor, Tensor]) -> None:
            part, own, seen = done
            of_output[part] = own
            of_label.index_add_(0, blocks, seen)
            if part.stop == len(weights):
                self._sums.append((of_output, of_label))

        return Fold(self._reads, work, take)

    def fold_sample(self, sample: Sample) -> Fold:
        """What `f` makes of values on D."""
        x, y = self.sample(sample)
        order = x.argsort(stable=True)
        ends = torch.searchsorted(x[order], torch.arange(self.on_data.data.n + 1))
        found = torch.empty(len(x), dtype=torch.float64)

        def work(part: slice, known: Mapping[int, Tensor]) -> tuple[slice, Tensor, Tensor]:
            which = order[ends[part.start] : ends[part.stop]]
            none = torch.empty(0, dtype=torch.float64)
            return part, which, torch.cat([none, *self._sampled(part, known, x, y, which)])

        def take(done: tuple[slice, Tensor, Tensor]) -> None:
            part, which, f = done
            found[which] = f
            if part.stop == self.on_data.data.n:
                self._samples[sample] = found

        return Fold(self._reads, work, take)

    def _sampled(
        self, part: slice, known: Mapping[int, Tensor], x: Tensor, y: Tensor, which: Tensor
    ) -> Iterator[Tensor]:
        """f of pairs whose outputs are in the chunk, in the order of outputs' rows."""
        size = part.stop - part.start
        if sum(value[:1].nbytes for value in known.values()) <= GATHERED:
            for some in which.split(max(size, 1024)):
                yield self._run(known, x[some] - part.start, y[some], len(some))
        else:
            rows, times = x[which].unique_consecutive(return_counts=True)
            for place, mine in zip((rows - part.start).tolist(), y[which].split(times.tolist()), strict=True):
                for some in mine.split(size):
                    yield self._run(known, slice(place, place + 1), some, len(some))

    def _run(self, known: Mapping[int, Tensor], x: slice | Tensor, y: Tensor, pairs: int) -> Tensor:
        """float64 [pairs]: f of some outputs of a chunk with the labels of rows y; one of either is repeated."""
        kept, values = self.on_data.kept, self.on_data.values

        def leaf(number: int) -> Tensor:
            value = values[number]
            if value.of == LABEL:
                found = kept.at(value.args[0], y)
            elif isinstance(x, slice):
                found = known[value.args[0]][x]
            else:
                found = known[value.args[0]].index_select(0, x.to(kept.device))
            return found if len(found) == pairs else found.expand(pairs, *found.shape[1:])

        return kept.run(self._code, [self._plan.root], leaf, pairs)[self._plan.root].double().cpu()

    @cached_property
    def _plan(self) -> Plan:
        values, output = self.on_data.values, self.on_data.graph.output
        made = {name: values.pure(values.on_data(name), OUTPUT) for name in self.outputs}
        made |= {name: values.pure(values.on_data(name), LABEL) for name in self.labels}
        root = values.run([output], made)[output]
        return Plan(values, root, made, {OUTPUT: OUTPUT, LABEL: LABEL}, OUTPUT)

    @cached_property
    def _reads(self) -> tuple[int, ...]:
        """Numbers on D of what is read of outputs: what f makes of an output alone."""
        return self._plan.frontier_of([self._plan.root], OUTPUT)

    @cached_property
    def _code(self) -> list[Instruction]:
        values = self.on_data.values
        return self.on_data.kept.code([self._plan.root], {values.pure(n, OUTPUT) for n in self._reads})
