"""f of the model's outputs on one row of D and the labels of another, which E_randomised is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from pscrub.data.partition import Partition
from pscrub.estimate.known import Seen
from pscrub.evaluate.code import Instruction
from pscrub.evaluate.compute import Fold
from pscrub.evaluate.on_data import OnData
from pscrub.evaluate.plan import Plan
from pscrub.graph.labels import Labels, tell_labels
from pscrub.progress import Progress, quiet

OUTPUT, LABEL = "output", "label"
"""The two data of a pair."""
GATHERED = 2**16
"""Bytes a row of what f reads of an output up to which it is gathered pair by pair; more is looked at row by row."""

TABLE = 2**20
"""Pairs up to which f of all of them is remembered, for samples to be read from."""
AT_ONCE = 2**22
"""Values of f that are held at once while all pairs pass."""
CALL = 10**5
"""Floating-point operations in the time that it takes to call one, however small."""

Sample = tuple[int, tuple[int, ...]]
"""How many pairs, and the seed that names them."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """f of outputs and labels of two rows of D, by the numbers of plans.

    What f makes of an output alone (log-probabilities over a vocabulary) is made once a row, and for each pair only
    what the label enters. It is made while D passes, and not kept: `folds` says what to look at in a pass that is made
    anyhow; without that a pass is made when something is asked for. What was found is remembered.

    What is paired is what f's node reads in the graph that was begun with (`tell_labels`), whatever the graph that is
    scrubbed was rewritten into.

    Args:
        on_data: values on D of the graph whose output node is the loss, or of a rewrite of it.
        told: labels and outputs.
    """

    on_data: OnData
    told: Labels
    _sums: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _table: list[Tensor] = field(default_factory=list)
    _samples: dict[Sample, Tensor] = field(default_factory=dict)
    _seen: list[Seen] = field(default_factory=list)

    @classmethod
    def of(cls, on_data: OnData, labels: str | Sequence[str] | None = None) -> Pairs:
        """The pairs of a graph, the same ones whenever they are asked for.

        Raises:
            StudyError: the labels cannot be told (`tell_labels`).
        """
        told = tell_labels(on_data.graph, labels)
        key = "pairs", told
        if key not in on_data.found:
            on_data.found[key] = cls(on_data, told)
        pairs: Pairs = on_data.found[key]
        return pairs

    @cached_property
    def partition(self) -> Partition:
        """Of D by the labels together, bit by bit."""
        data = self.on_data.data
        flat = [data[name].reshape(data.n, -1) for name in self.told.columns]
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

    def within(self, pairs: int) -> bool:
        """Whether f of all pairs is to be had: so many evaluations at most, or less work than f on all of D."""
        return self.count <= pairs or self._costs_less

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
            self._samples[sample] = self.at(*self.sample(sample))
        return self._samples[sample]

    def at(self, x: Tensor, y: Tensor) -> Tensor:
        """float64 [pairs]: f of outputs of rows x with labels of rows y, both int64 [pairs]."""
        if self._table:
            return self._table[0][self._place(y), x]
        found: list[Tensor] = []
        self.on_data.kept.keep([], quiet, [self._fold(x, y, found.append)])
        return found[0]

    @property
    def seen(self) -> Seen:
        """Which values f had on the pairs that were evaluated so far; of pairs that cannot be drawn, none."""
        found = Seen()
        for each in (*self._seen, *(Seen.of(f, len(f)) for f in self._samples.values())):
            found = found.join(each)
        return found

    def folds(self, exactly: bool, samples: Sequence[Sample]) -> list[Fold]:
        """What will be asked for, to be made while D passes: all pairs or not, and samples."""
        if exactly and self.count <= TABLE:
            return [self.fold_all()]
        return [*([self.fold_all()] if exactly else []), *map(self.fold_sample, samples)]

    def sample(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Two int64 [n]: rows for outputs and rows for labels, all drawn independently from D."""
        n, seed = sample
        rng, p = np.random.default_rng(np.random.SeedSequence(seed)), self.on_data.data.weights.numpy()
        x, y = (torch.from_numpy(rng.choice(len(p), size=n, p=p)) for _ in range(2))
        return x, y

    def fold_all(self) -> Fold:
        """What `sums` makes of values on D: all outputs of a chunk with one label at a time."""
        weights, (rows, blocks) = self.on_data.data.weights, self.distinct
        of_output, of_label = torch.zeros_like(weights), torch.zeros(self.partition.n_blocks, dtype=torch.float64)
        p = self.partition.block_weights[blocks]
        table = torch.zeros(len(rows), len(weights) if self.count <= TABLE else 0, dtype=torch.float64)
        seen = [Seen()]

        def work(part: slice, known: Mapping[int, Tensor]) -> tuple[slice, Tensor, Tensor, Tensor, Seen]:
            size, possible = part.stop - part.start, weights[part] > 0
            of_outputs, of_labels, tables, own = torch.zeros(size, dtype=torch.float64), [], [], Seen()
            for some in torch.arange(len(rows)).split(max(AT_ONCE // size, 1)):
                each = [self._run(self._whole, known, None, rows[i : i + 1], size) for i in some.tolist()]
                f = torch.stack(each)
                seen_here = f if bool(possible.all()) else f[:, possible]
                own = own.join(Seen.of(seen_here, len(some) * int(possible.sum())))
                f = torch.where(possible, f, 0.0)
                of_outputs += p[some] @ f
                of_labels.append(f @ weights[part])
                tables += [f] * bool(table.numel())
            return part, of_outputs, torch.cat(of_labels), torch.cat(tables) if tables else table, own

        def take(done: tuple[slice, Tensor, Tensor, Tensor, Seen]) -> None:
            part, of_outputs, of_labels, f, own = done
            seen[0] = seen[0].join(own)
            of_output[part] = of_outputs
            of_label.index_add_(0, blocks, of_labels)
            if table.numel():
                table[:, part] = f
            if part.stop == len(weights):
                self._sums.append((of_output, of_label))
                self._seen.append(seen[0])
                self._table.extend([table] * bool(table.numel()))

        return Fold(self._whole.reads, work, take)

    def fold_sample(self, sample: Sample) -> Fold:
        """What `f` makes of values on D."""
        return self._fold(*self.sample(sample), partial(self._samples.__setitem__, sample))

    def _fold(self, x: Tensor, y: Tensor, tell: Callable[[Tensor], None]) -> Fold:
        """What `at` makes of values on D; told when D has passed."""
        order = x.argsort(stable=True)
        ends = torch.searchsorted(x[order], torch.arange(self.on_data.data.n + 1))
        found = torch.empty(len(x), dtype=torch.float64)

        def work(part: slice, known: Mapping[int, Tensor]) -> tuple[slice, Tensor, Tensor]:
            which = order[ends[part.start] : ends[part.stop]]
            f = [torch.empty(0, dtype=torch.float64), *self._sampled(part, known, x[which], y[which])]
            return part, which, torch.cat(f)

        def take(done: tuple[slice, Tensor, Tensor]) -> None:
            part, which, f = done
            found[which] = f
            if part.stop == self.on_data.data.n:
                tell(found)

        return Fold(self._by_row.reads if self._apart else self._whole.reads, work, take)

    def _sampled(self, part: slice, known: Mapping[int, Tensor], x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """f of pairs whose outputs are in the chunk, x in order."""
        size = part.stop - part.start
        if not self._apart:  # all outputs with each label, and of that what was asked for
            place = self._place(y)
            found = torch.empty(len(x), dtype=torch.float64)
            for label in place.unique().tolist():
                row = self.distinct[0][label : label + 1]
                mine = place == label
                found[mine] = self._run(self._whole, known, None, row, size)[x[mine] - part.start]
            yield found
        elif sum(known[n][:1].nbytes for n in self._by_row.reads) <= GATHERED:
            for some, own in zip((x - part.start).split(max(size, 1024)), y.split(max(size, 1024)), strict=True):
                yield self._run(self._by_row, known, some, own, len(some))
        else:
            rows, times = x.unique_consecutive(return_counts=True)
            for place, mine in zip((rows - part.start).tolist(), y.split(times.tolist()), strict=True):
                for some in mine.split(size):
                    yield self._run(self._by_row, known, slice(place, place + 1), some, len(some))

    def _place(self, rows: Tensor) -> Tensor:
        """Where rows' labels stand among those in `distinct`."""
        return torch.searchsorted(self.distinct[1], self.partition.labels[rows])

    def _run(self, way: _Way, known: Mapping[int, Tensor], x: slice | Tensor | None, y: Tensor, pairs: int) -> Tensor:
        """float64 [pairs]: f of a chunk's outputs, all or some, with labels of rows y; one of either is repeated."""
        kept, values = self.on_data.kept, self.on_data.values

        def leaf(number: int) -> Tensor:
            value = values[number]
            if value.of == OUTPUT and x is None:
                return known[value.args[0]]
            if value.of == LABEL:
                found = kept.at(value.args[0], y)
            elif isinstance(x, Tensor):
                found = known[value.args[0]].index_select(0, x.to(kept.device))
            else:
                found = known[value.args[0]][x]
            return found if len(found) == pairs else found.expand(pairs, *found.shape[1:])

        return kept.run(way.code, [self._plan.root], leaf, pairs)[self._plan.root].double().cpu()

    @cached_property
    def _plan(self) -> Plan:
        values, graph = self.on_data.values, self.on_data.graph.original
        on_data = values.run([*self.told.outputs, *self.told.reads], dict(self.on_data.columns), graph)
        made = {name: values.pure(on_data[name], OUTPUT) for name in self.told.outputs}
        made |= {name: values.pure(on_data[name], LABEL) for name in self.told.reads}
        root = values.run([graph.output], dict(made), graph)[graph.output]
        return Plan(values, root, made, {OUTPUT: OUTPUT, LABEL: LABEL}, (graph.output,), OUTPUT)

    @cached_property
    def _whole(self) -> _Way:
        """Of all outputs in a chunk: what f makes of an output alone is taken as it comes."""
        return self._way(self._plan.read_by([self._plan.root], OUTPUT))

    @cached_property
    def _by_row(self) -> _Way:
        """Of some outputs in a chunk: what f makes of an output alone, as far as it has rows that can be told apart."""
        return self._way(self._plan.frontier_of([self._plan.root], OUTPUT))

    @cached_property
    def _costs_less(self) -> bool:
        """Whether f of all pairs costs less than f on D, as where a large model's outputs meet labels one by one."""
        kept, rows = self.on_data.kept, torch.arange(min(2, self.on_data.data.n))
        f = self.on_data.values.on_data(self.on_data.graph.output)
        whole, _ = kept.narrowed([f, *self._whole.reads])
        pairs = kept.costs(self._whole.code, lambda n: kept.at(self.on_data.values[n].args[0], rows))
        calls = CALL * len(pairs) / min(kept.chunk(whole), self.on_data.data.n)
        return len(self.distinct[0]) * (sum(pairs.values()) + calls) <= sum(kept.costs(whole).values())

    @property
    def _apart(self) -> bool:
        return self._whole.reads == self._by_row.reads

    def _way(self, reads: Sequence[int]) -> _Way:
        values = self.on_data.values
        return _Way(reads, self.on_data.kept.code([self._plan.root], {values.pure(n, OUTPUT) for n in reads}))


@dataclass(frozen=True)
class _Way:
    """Numbers on D of what is read of outputs, and what is computed from them and labels."""

    reads: Sequence[int]
    code: Sequence[Instruction]
