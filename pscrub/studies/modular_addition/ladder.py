"""The hypotheses about modular addition: numbers, attention, neurons, logits, paths, each with false ones beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.graph.graph import Graph
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.studies.modular_addition import graphs
from pscrub.studies.modular_addition.frequencies import FREQUENCIES, fold
from pscrub.studies.modular_addition.model import D_MLP, ModularAddition

SCORES, VALUES = "", "value of "


@dataclass(frozen=True)
class Found:
    """What was measured on the pairs for selection.

    Args:
        keys: the key frequencies, the largest share of the logits first.
        clusters: key frequency -> its neurons.
    """

    keys: tuple[int, ...]
    clusters: Mapping[int, Sequence[int]]

    @property
    def doubles(self) -> tuple[int, ...]:
        """Twice each key frequency, as the frequency of 1 to 56 that it is, where that is no key itself."""
        return tuple(fold(2 * k) for k in self.keys if fold(2 * k) not in self.keys)

    @property
    def computed(self) -> tuple[int, ...]:
        """The keys that some neurons are for."""
        return tuple(k for k in self.keys if self.clusters[k])


@dataclass(frozen=True)
class Ladder:
    """What all hypotheses are about.

    Args:
        model: the model.
        data: D, with columns tokens, a, b and sum.
        found: what was measured on other pairs.
        seed: of what is random in controls.
    """

    model: ModularAddition
    data: Dataset
    found: Found
    seed: int

    def hypotheses(self) -> list[Hypothesis]:
        """The ladder, in the order of the table."""
        base = graphs.whole(self.model, self.data)
        ends = [("0a everything exact", Claim("loss", EXACT)), ("0b logits unimportant", _loss())]
        rows = [Hypothesis(name, base, self.data, claim) for name, claim in ends]
        for family in (self._numbers, self._attention, self._neurons, self._logits, self._paths):
            rows += family(base)
        return rows

    def random_frequencies(self, count: int) -> tuple[int, ...]:
        """So many frequencies that are neither keys nor twice a key."""
        others = [k for k in FREQUENCIES if k not in (*self.found.keys, *self.found.doubles)]
        order = torch.randperm(len(others), generator=self._generator())
        return tuple(others[place] for place in order[:count].tolist())

    def _numbers(self, base: Graph) -> Iterator[Hypothesis]:
        keys, both = self.found.keys, (*self.found.keys, *self.found.doubles)
        yield self._kept(base, f"1a numbers: keys {_listed(keys)} only", keys)
        yield self._kept(base, "1b numbers: keys and their doubles", both)
        yield self._kept(base, f"1c numbers: doubles {_listed(self.found.doubles)} only", self.found.doubles)
        for k in keys:
            yield self._kept(base, f"1d numbers: as 1b without {k}", [each for each in both if each != k])
        yield self._kept(base, f"1e numbers: {len(both)} random frequencies", self.random_frequencies(len(both)))
        yield self._kept(base, "1f as 1b, a and b shuffled", both, shuffled=True)

    def _kept(self, base: Graph, name: str, frequencies: Sequence[int], shuffled: bool = False) -> Hypothesis:
        graph = graphs.with_number_parts(base, self.model, {"kept": frequencies})
        return Hypothesis(name, graph, self.data, _loss(*self._read(SCORES, ".kept", shuffled)))

    def _attention(self, base: Graph) -> Iterator[Hypothesis]:
        keys, doubles = self.found.keys, self.found.doubles
        graph = graphs.with_own_values(base)
        for of in (SCORES, VALUES):
            graph = graphs.with_number_parts(graph, self.model, {"keys": keys, "doubles": doubles}, of)

        def row(name: str, scores: Sequence[str], values: Sequence[str]) -> Hypothesis:
            reads = [claim for part in scores for claim in self._read(SCORES, part)]
            reads += [claim for part in values for claim in self._read(VALUES, part)]
            return Hypothesis(name, graph, self.data, _loss(*reads))

        yield row("2a scores unimportant", [], [""])
        yield row("2b scores read keys", [".keys"], [""])
        yield row("2c scores read doubles", [".doubles"], [""])
        yield row("2d values read keys", [""], [".keys"])
        yield row("2e values read keys and doubles", [""], [".keys", ".doubles"])
        yield row("2f values read doubles", [""], [".doubles"])

    def _neurons(self, base: Graph) -> Iterator[Hypothesis]:
        keys = self.found.computed
        names = {k: f"neurons {k}" for k in keys}
        groups = {f"{k}": [k] for k in keys}
        groups |= {f"2*{k}": [fold(2 * k)] for k in keys if fold(2 * k) in self.found.doubles}
        graph = graphs.with_own_values(base)
        for of in (SCORES, VALUES):
            graph = graphs.with_number_parts(graph, self.model, groups, of)
        own = graphs.with_clusters(graph, {names[k]: self.found.clusters[k] for k in keys})
        mixed = torch.randperm(D_MLP, generator=self._generator()).split([len(self.found.clusters[k]) for k in keys])
        random = graphs.with_clusters(graph, dict(zip(names.values(), (each.tolist() for each in mixed), strict=True)))

        def row(name: str, on: Graph, shift: int, scores: bool = False, doubles: bool = True) -> Hypothesis:
            reading = {k: keys[(place + shift) % len(keys)] for place, k in enumerate(keys)}
            return self._clustered(name, on, reading, scores, doubles)

        yield row("3a clusters read their key, by true scores", own, 0, doubles=False)
        yield row("3b clusters read their key and its double", own, 0)
        yield row("3c as 3b, and scores of these alone", own, 0, scores=True)
        if len(keys) > 1:
            yield row("3d clusters read the next one's", own, 1)
            for k, other in zip(keys, (*keys[1:], keys[0]), strict=True):
                yield self._clustered(f"3e cluster {k} alone reads {other}", own, {k: other}, False, True)
            yield row("3f as 3b, neurons at random", random, 0)

    def _clustered(
        self, name: str, graph: Graph, reading: Mapping[int, int], scores: bool, doubles: bool
    ) -> Hypothesis:
        """Clusters compute from values of the frequency that each is said to read; others, and the skip path, exact."""
        # A node has one claim, whoever reads it; each reader's datum for it is drawn apart.
        groups = [f".{read}" for k in self.found.computed for read in (k, f"2*{k}")]
        scored = {part: self._read(SCORES, part) for part in ("", *groups)}
        valued = {part: self._read(VALUES, part) for part in groups}
        reads = [Claim("mid", EXACT)]
        for k in self.found.computed:
            if k not in reading:
                reads.append(Claim(f"neurons {k}", EXACT))
                continue
            own = reading[k]
            parts = [f".{own}", *([f".2*{own}"] if doubles and fold(2 * own) in self.found.doubles else [])]
            inputs = [claim for part in parts for claim in valued[part]]
            inputs += [claim for part in (parts if scores else [""]) for claim in scored[part]]
            reads.append(Claim(f"neurons {k}", reads=inputs))
        return Hypothesis(name, graph, self.data, _loss(Claim("logits", reads=reads)))

    def _logits(self, base: Graph) -> Iterator[Hypothesis]:
        keys, total = self.found.keys, self.data["sum"]
        apart = graphs.with_logit_parts(base, {f"{k}": [k] for k in keys})
        random = self.random_frequencies(len(keys))
        others = graphs.with_logit_parts(base, {f"{k}": [k] for k in random})

        def row(name: str, graph: Graph, parts: Sequence[int | str], feature: Tensor | str, words: str) -> Hypothesis:
            return Hypothesis(
                name, graph, self.data, _loss(*(Claim(f"logits.{part}", feature, words=words) for part in parts))
            )

        yield row("4a logits: each key of its own sum", apart, keys, total, "sum")
        for k in keys:
            yield row(f"4b logits: as 4a without {k}", apart, [each for each in keys if each != k], total, "sum")
        yield row("4c logits: all but the keys, exact", apart, ["rest"], EXACT, "")
        yield row("4d logits: random frequencies' sums", others, random, total, "sum")
        yield row("4e as 4a, sums shuffled", apart, keys, self._shuffle(total), "shuffled sum")
        difference = self.data["a"] - self.data["b"]
        yield row("4f as 4a, of the same difference", apart, keys, difference % len(total), "a - b")

    def _paths(self, base: Graph) -> Iterator[Hypothesis]:
        def row(name: str, *reads: Claim) -> Hypothesis:
            return Hypothesis(name, base, self.data, _loss(*reads))

        yield row("5a MLP unimportant", Claim("logits", reads=[Claim("mid", EXACT)]))
        yield row("5b skip path unimportant", Claim("logits", reads=[Claim("neurons", EXACT)]))
        for name in graphs.HEAD_NAMES:
            kept = [other for other in graphs.HEAD_NAMES if other != name]
            yield row(f"5c {name} unimportant", *(Claim(other, EXACT) for other in kept))

    def _read(self, of: str, part: str, shuffled: bool = False) -> list[Claim]:
        claims = []
        for number in graphs.NUMBERS:
            feature = self._shuffle(self.data[number]) if shuffled else self.data[number]
            claims.append(Claim(f"{of}{number}{part}", feature, words=f"shuffled {number}" if shuffled else number))
        return claims

    def _shuffle(self, feature: Tensor) -> Tensor:
        return feature[torch.randperm(len(feature), generator=self._generator())]

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def _loss(*reads: Claim) -> Claim:
    return Claim("loss", reads=[Claim("sum", "sum"), *reads])


def _listed(frequencies: Sequence[int]) -> str:
    return ", ".join(map(str, frequencies))
