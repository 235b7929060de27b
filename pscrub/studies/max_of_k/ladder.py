"""The graph of the model of the largest of four, and the hypotheses: pieces, whole explanations, false ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pscrub.data.dataset import Dataset
from pscrub.graph.graph import Graph, Node
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.studies.max_of_k.model import NUMBERS, K, MaxOfK, all_sequences, attend

NONE = -1
"""In features: what a number that is not spoken of is."""


def number_data() -> Dataset:
    """D, each of the 1,296 sequences as likely: columns numbers int64 [N, 4] and largest int64 [N]."""
    numbers = all_sequences()
    return Dataset({"numbers": numbers, "largest": numbers.amax(1)})


def max_graph(model: MaxOfK) -> Graph:
    """The graph: query, key 0 to 3, value 0 to 3 and direct, of the numbers; pattern, head, logits, loss.

    direct is what the last place embeds, as the logits read it.
    """
    nodes = [Node("query", ("numbers",), _Embedded(model, K - 1, model.W_Q))]
    for place in range(K):
        nodes.append(Node(f"key {place}", ("numbers",), _Embedded(model, place, model.W_K)))
        nodes.append(Node(f"value {place}", ("numbers",), _Embedded(model, place, model.W_V)))
    nodes += [
        Node("direct", ("numbers",), _Embedded(model, K - 1, torch.eye(len(model.W_Q)))),
        Node("pattern", ("query", *_at("key")), lambda query, *keys: attend(query, torch.stack(keys, 1))),
        Node("head", ("pattern", *_at("value")), _Times(model.W_O)),
        Node("logits", ("head", "direct"), _Logits(model.W_U)),
        Node("loss", ("logits", "largest"), _loss),
    ]
    return Graph(nodes, inputs=["numbers", "largest"], output="loss")


@dataclass(frozen=True)
class MaxLadder:
    """What all hypotheses are about.

    Args:
        model: the model.
        seed: of what is random in controls.
    """

    model: MaxOfK
    seed: int = 0

    @cached_property
    def graph(self) -> Graph:
        """The model."""
        return max_graph(self.model)

    @cached_property
    def data(self) -> Dataset:
        """D."""
        return number_data()

    def hypotheses(self) -> list[Hypothesis]:
        """The ladder, in the order of the table."""
        return [Hypothesis(name, self.graph, self.data, claim) for name, claim in self._claims()]

    def _claims(self) -> Iterator[tuple[str, Claim]]:
        numbers, largest = self.data["numbers"], self.data["largest"]
        nothing, smallest = torch.zeros_like(largest), numbers.amin(1)
        yield "0a everything exact", Claim("loss", EXACT)
        yield "0b logits unimportant", _whole()
        yield "1a direct path of any sequence", _piece(Claim("direct", nothing, words="nothing"))
        yield "1b query of any sequence", _piece(Claim("query", nothing, words="nothing"))
        for name, size in (("1c keys tell pairs of numbers", 2), ("1d keys tell low from high", 3)):
            yield name, _piece(*_each("key", numbers // size, "number in bins"))
        yield "1e pattern: where the largest is", _piece(Claim("pattern", _places(numbers, largest), words="where"))
        where_and_which = torch.cat([_places(numbers, largest), largest[:, None]], 1)
        yield "1f pattern: where it is, and which", _piece(Claim("pattern", where_and_which, words="where, largest"))
        yield "1g pattern: where the smallest is", _piece(Claim("pattern", _places(numbers, smallest), words="where"))
        yield "1h values: the largest, others any", _piece(*_each("value", _only(numbers, largest), "if largest"))
        yield "1i values: whether it is the largest", _piece(*_each("value", _places(numbers, largest), "whether"))
        yield "1j head: the largest", _piece(Claim("head", largest, words="largest"))
        yield "2a the head tells the largest", _whole(Claim("head", largest, words="largest"))
        yield "2b by where it is, from the values there", _whole(self._copies(largest))
        keys = _each("key", numbers, "number")
        yield "2c and where it is, from keys alone", _whole(self._copies(largest, *keys))
        order = torch.randperm(self.data.n, generator=torch.Generator().manual_seed(self.seed))
        yield "3a as 2a, the largest shuffled", _whole(Claim("head", largest[order], words="shuffled"))
        yield "3b as 2a, the smallest", _whole(Claim("head", smallest, words="smallest"))
        yield "3c as 2b, of the smallest", _whole(self._copies(smallest))

    def _copies(self, of: Tensor, *keys: Claim) -> Claim:
        """The head attends where a number [N] is and copies it: from whichever sequences it is there in."""
        numbers = self.data["numbers"]
        pattern = Claim("pattern", _places(numbers, of), keys, words="where")
        return Claim("head", of, [pattern, *_each("value", _only(numbers, of), "if it is")], words="number")


def _whole(*head: Claim) -> Claim:
    """All that is not claimed is another sequence's."""
    logits = [Claim("logits", reads=head)] if head else []
    return Claim("loss", reads=[Claim("largest", "largest"), *logits])


def _piece(*claims: Claim) -> Claim:
    """All that is not claimed is the sequence's own."""
    return Claim("loss", reads=claims, paths="any", rest=EXACT)


def _at(name: str) -> tuple[str, ...]:
    return tuple(f"{name} {place}" for place in range(K))


def _each(name: str, features: Tensor, words: str) -> list[Claim]:
    return [Claim(node, features[:, place], words=words) for place, node in enumerate(_at(name))]


def _places(numbers: Tensor, of: Tensor) -> Tensor:
    """int64 [N, 4]: 1 where a sequence has a number [N]."""
    return (numbers == of[:, None]).long()


def _only(numbers: Tensor, of: Tensor) -> Tensor:
    """int64 [N, 4]: the number where it is one [N], else NONE."""
    return torch.where(numbers == of[:, None], numbers, NONE)


def _loss(logits: Tensor, largest: Tensor) -> Tensor:
    return cross_entropy(logits.double(), largest, reduction="none")


class _Embedded(nn.Module):
    """What a place embeds, read by a matrix, [batch, 32], of numbers [batch, 4]: a row of a table."""

    def __init__(self, model: MaxOfK, place: int, weights: Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            table = model.embed(torch.arange(NUMBERS)[:, None].expand(-1, K), place) @ weights
        self.table, self.place = nn.Parameter(table, requires_grad=False), place

    def forward(self, numbers: Tensor) -> Tensor:
        return nn.functional.embedding(numbers[:, self.place], self.table)


class _Times(nn.Module):
    """What the head writes, [batch, 32], from its pattern [batch, 4] and its values, each [batch, 32]."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights.detach(), requires_grad=False)

    def forward(self, pattern: Tensor, *values: Tensor) -> Tensor:
        return (pattern[:, :, None] * torch.stack(values, 1)).sum(1) @ self.weights


class _Logits(nn.Module):
    """The logits [batch, 6] from what the head wrote and what the last place embeds."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights.detach(), requires_grad=False)

    def forward(self, head: Tensor, direct: Tensor) -> Tensor:
        return (head + direct) @ self.weights
