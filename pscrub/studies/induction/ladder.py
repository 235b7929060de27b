"""The hypotheses about induction: heads, what their queries, keys and values come from and know, beside false ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pscrub.data.dataset import Dataset
from pscrub.graph.graph import Graph
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.studies.induction import graphs
from pscrub.studies.induction.heads import Heads
from pscrub.studies.induction.model import HEADS, Induction


@dataclass(frozen=True)
class Ladder:
    """What all hypotheses are about.

    Args:
        model: the model.
        data: D, as `rows.as_dataset` makes it.
        found: heads that were measured on other rows.
        seed: of what is random in controls.
    """

    model: Induction
    data: Dataset
    found: Heads
    seed: int

    def hypotheses(self) -> list[Hypothesis]:
        """The ladder, in the order of the table."""
        base = graphs.trace_induction(self.model, self.data)
        heads = graphs.with_first_heads(base)
        rows = [self._row("0a everything exact", heads, Claim("loss", EXACT))]
        rows.append(self._row("0b logits unimportant", heads, _loss()))
        rows += [*self._heads(heads), *self._sources(heads), *self._refined(base), *self._known(heads)]
        return sorted(rows, key=lambda row: row.name)

    def random_heads(self, of: str) -> tuple[int, ...]:
        """As many heads of a layer as were found there ("previous" or "induction"), and others; all, if too few."""
        found = getattr(self.found, of)
        others = [head for head in range(HEADS) if head not in found]
        order = torch.randperm(len(others), generator=self._generator()).tolist()
        return tuple(others[place] for place in order[: len(found)])

    def _heads(self, base: Graph) -> Iterator[Hypothesis]:
        own = graphs.with_heads(base, self.found.induction)
        random = graphs.with_heads(base, self.random_heads("induction"))
        yield self._row("0c induction heads unimportant", own, self._without("induction"))
        yield self._row("0d as 0c, random heads", random, self._without("induction"))
        yield self._row("0e induction heads only", own, _loss(Claim("induction", EXACT)))
        yield self._row("0f as 0e, random heads", random, _loss(Claim("induction", EXACT)))

    def _without(self, node: str) -> Claim:
        return _loss(*(Claim(each, EXACT) for each in ("embed", *graphs.FIRST, "induction", "others") if each != node))

    def _sources(self, base: Graph) -> Iterator[Hypothesis]:
        """Claims of where the induction heads' queries, keys and values come from; all else is exact."""
        graph = graphs.with_heads(base, self.found.induction)
        previous = [graphs.FIRST[head] for head in self.found.previous]
        random = [graphs.FIRST[head] for head in self.random_heads("previous")]
        rest = [name for name in graphs.FIRST if name not in previous]
        sources: dict[str, dict[str, Sequence[str]]] = {
            "1a V from the embedding": {"v": ["embed"]},
            "1b V from the first layer's heads": {"v": graphs.FIRST},
            "2a Q from the embedding": {"q": ["embed"]},
            "2b Q from the first layer's heads": {"q": graphs.FIRST},
            "2c Q from the embedding and other heads": {"q": ["embed", *rest]},
            "3a K from previous-token heads": {"k": previous},
            "3b K from the embedding": {"k": ["embed"]},
            "3c K from random heads": {"k": random},
            "3d K from all but previous-token heads": {"k": ["embed", *rest]},
            "4a V, Q, K from their sources": {"v": ["embed"], "q": ["embed"], "k": previous},
            "4b as 4a, K from random heads": {"v": ["embed"], "q": ["embed"], "k": random},
            "4c as 4a, Q and V with other heads": {"v": ["embed", *rest], "q": ["embed", *rest], "k": previous},
        }
        for part, name in (("v", "1d V unimportant"), ("q", "2d Q unimportant"), ("k", "3e K unimportant")):
            others = [Claim(f"{each} induction", EXACT) for each in graphs.READ if each != part]
            yield self._row(name, graph, _beside(Claim("induction", reads=others)))
        for name, each in sources.items():
            exact = {source: Claim(source, EXACT) for source in ("embed", *graphs.FIRST)}
            reads = (_from(f"{part} induction", [exact[source] for source in at]) for part, at in each.items())
            yield self._row(name, graph, _through(*reads))

    def _refined(self, base: Graph) -> Iterator[Hypothesis]:
        """Claims of what the first layer's heads read where: at their own token, the one before, farther back."""
        cut = graphs.with_heads(base, self.found.induction)
        graph = graphs.with_reaches(cut, self.model, self.found.previous)
        random = graphs.with_reaches(cut, self.model, self.random_heads("previous"))
        exact = {name: Claim(name, EXACT) for name in ("embed", "own token", "before", "others before", "farther")}

        def row(name: str, on: Graph, **sources: Sequence[str]) -> Hypothesis:
            reads = (_from(f"{part} induction", [exact[source] for source in at]) for part, at in sources.items())
            return self._row(name, on, _through(*reads))

        own = ("embed", "own token")
        yield row("3f K from previous-token heads at the token before", graph, k=["before"])
        yield row("3g K from all heads at all other places", graph, k=["own token", "others before", "farther"])
        yield row("4d as 4a, refined by reach", graph, v=own, q=own, k=["before"])
        yield row("4e as 4d, K knows its own token too", graph, v=own, q=own, k=["before", *own])
        yield row("4f as 4d, K from random heads", random, v=own, q=own, k=["before"])

    def _known(self, base: Graph) -> Iterator[Hypothesis]:
        """Claims of what the induction heads' queries, keys and values know; the other parts are exact."""
        graph = graphs.with_places(graphs.with_heads(base, self.found.induction))
        query, target, earlier = (self.data[name] for name in ("query", "target", "earlier"))
        shuffled = query[torch.randperm(len(query), generator=self._generator())]

        def row(name: str, *known: tuple[str, Any, str]) -> Hypothesis:
            return self._row(name, graph, _through(*(Claim(at, feature, words=words) for at, feature, words in known)))

        key, value, asked = ("k match", "v match", "q induction")
        before, own = "token before", "own token"
        yield row("5a the match's key knows the token before", (key, query, before))
        yield row("5b the match's key knows its own token", (key, target, own))
        yield row("5c the match's key knows two before", (key, earlier, "token two before"))
        yield row("5d as 5a, shuffled", (key, shuffled, "shuffled"))
        yield row("5e the match's value knows its own token", (value, target, own))
        yield row("5f the match's value knows the token before", (value, query, before))
        yield row("5g the query knows its own token", (asked, query, own))
        yield row("5h the query knows the token before", (asked, earlier, before))
        together = ((key, query, before), (value, target, own), (asked, query, own))
        yield row("6a all three know their token", *together)
        elsewhere = (("k elsewhere", query, "query"), ("v elsewhere", query, "query"))
        yield row("6b as 6a, keys and values elsewhere too", *together, *elsewhere)
        yield row("6c as 6b, shuffled", *((at, shuffled, "shuffled") for at, _, _ in (*together, *elsewhere)))

    def _row(self, name: str, graph: Graph, claim: Claim) -> Hypothesis:
        return Hypothesis(name, graph, self.data, claim)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def _loss(*reads: Claim) -> Claim:
    inner = [Claim("logits", reads=reads)] if reads else []
    return Claim("loss", reads=[Claim("target", "target"), *inner])


def _through(*reads: Claim) -> Claim:
    """The induction heads read what is claimed; all else, of them and beside them, is the row's own."""
    return _beside(Claim("induction", reads=reads, rest=EXACT))


def _beside(heads: Claim) -> Claim:
    return Claim("loss", reads=[Claim("logits", reads=[heads], rest=EXACT)], rest=EXACT)


def _from(at: str, sources: Sequence[Claim]) -> Claim:
    return Claim(at, reads=sources)
