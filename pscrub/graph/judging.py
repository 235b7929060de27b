"""Behaviours on the logits of a language model, one number a row, with their labels told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError, close
from pscrub.graph.graph import Node
from pscrub.graph.pieces import Position

LOGITS = "logits"
"""The node of a language model's logits."""
Where = int | str | Position | Sequence[int] | None
"""Positions: one, several, those of a column, all."""


@dataclass(frozen=True, eq=False)
class Loss(Node):
    """A behaviour that knows which of what it reads are labels: `Study(..., labels=loss.labels)`.

    Args:
        labels: columns that the randomised loss breaks from the outputs; a column of positions is none.
    """

    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judge:
    """Makes losses that read columns of D, each checked to be there and to fit.

    Args:
        data: D.
        positions: how many the logits have.
    """

    data: Dataset
    positions: int

    def next_token_loss(self, at: Where, labels: str) -> Loss:
        """[batch]: see `Decoder.next_token_loss`."""
        self._column(labels, (2,))
        last = self.data[labels].shape[1]
        if at is None:
            at = range(last)

        def read(chosen: Tensor, every: Tensor, where: Tensor | None) -> Tensor:
            wanted = every[:, places] if where is None else every.gather(1, where[:, None])
            return -chosen.log_softmax(-1).gather(-1, wanted[..., None]).squeeze(-1).mean(1)

        places = self._places(at, last)
        return self._loss("next_token_loss", (labels,), at, read, last)

    def logit_difference(self, answers: str, distractors: str, at: Where) -> Loss:
        """[batch]: see `Decoder.logit_difference`."""

        def read(chosen: Tensor, right: Tensor, wrong: Tensor, where: Tensor | None) -> Tensor:
            return _logits_of(chosen, right).mean((1, 2)) - _logits_of(chosen, wrong).mean((1, 2))

        return self._loss("logit_difference", (answers, distractors), at, read)

    def answer_log_prob(self, answers: str, at: Where) -> Loss:
        """[batch]: see `Decoder.answer_log_prob`."""

        def read(chosen: Tensor, right: Tensor, where: Tensor | None) -> Tensor:
            return _logits_of(chosen.log_softmax(-1), right).logsumexp(2).mean(1)

        return self._loss("answer_log_prob", (answers,), at, read)

    def answer_accuracy(self, answers: str, at: Where) -> Loss:
        """[batch]: see `Decoder.answer_accuracy`."""

        def read(chosen: Tensor, right: Tensor, where: Tensor | None) -> Tensor:
            right = right.reshape(len(right), 1, -1)
            return (chosen.argmax(-1)[..., None] == right).any(2).to(chosen.dtype).mean(1)

        return self._loss("answer_accuracy", (answers,), at, read)

    def own_divergence(self, own: str, at: Where) -> Loss:
        """[batch]: see `Decoder.own_divergence`."""
        self._column(own, (2, 3))
        everywhere = self.data[own].ndim == 3
        places = self._places(at, self.positions)
        if not everywhere and places is not None and len(places) > 1:
            raise GraphError(f"column '{own}' has logits of one position; for several give [N, positions, vocabulary]")

        def read(chosen: Tensor, column: Tensor, where: Tensor | None) -> Tensor:
            theirs = _choose_positions(column, places, where) if everywhere else column[:, None]
            p = theirs.log_softmax(-1)
            return (p.exp() * (p - chosen.log_softmax(-1))).sum(-1).mean(1)

        return self._loss("own_divergence", (own,), at, read)

    def _loss(
        self, name: str, labels: tuple[str, ...], at: Where, read: Callable[..., Tensor], last: int | None = None
    ) -> Loss:
        for label in labels:
            self._column(label, (1, 2, 3))
            if label in ("input_ids", "tokens"):
                raise GraphError(f"'{label}' is the model's input: labels need a column of their own ('next_tokens')")
        places = self._places(at, self.positions if last is None else last)
        column, offset = _column_of(at)

        def loss(logits: Tensor, *columns: Tensor) -> Tensor:
            where = columns[-1] + offset if column else None
            return read(_choose_positions(logits, places, where), *columns[: len(labels)], where)

        reads = (LOGITS, *labels, column) if column else (LOGITS, *labels)
        return Loss(name, reads, loss, labels=labels)

    def _column(self, name: str, dims: Sequence[int]) -> None:
        if name not in self.data.names:
            raise GraphError(f"the data have no column '{name}'{close(name, self.data.names)}")
        held = self.data[name]
        if not isinstance(held, Tensor) or held.ndim not in dims:
            shape = f"{held.ndim} axes" if isinstance(held, Tensor) else "strings"
            raise GraphError(f"column '{name}' has {shape}; expected {' or '.join(map(str, dims))}, rows among them")

    def _places(self, at: Where, last: int) -> list[int] | None:
        """Positions that are the same on every row, from the start; None where a column tells them.

        Raises:
            GraphError: positions that are not there, with the rows where a column tells them.
        """
        column, offset = _column_of(at)
        allowed = f"0 to {last - 1}, those that have {'a next token' if last < self.positions else 'logits'}"
        if column:
            self._column(column, (1,))
            told = self.data[column] + offset
            wrong = ((told < 0) | (told >= last)).nonzero().flatten().tolist()
            if wrong:
                rows = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
                said = Position(column, offset)
                raise GraphError(f"position '{said}' is none on rows {rows}: expected {allowed}")
            return None
        if at is None:
            return list(range(last))
        assert not isinstance(at, str)
        given = [at.offset] if isinstance(at, Position) else [at] if isinstance(at, int) else list(at)
        found = [int(each) + self.positions * (int(each) < 0) for each in given]
        wrong = [each for each, place in zip(given, found, strict=True) if not 0 <= place < last]
        if wrong or not found:
            raise GraphError(f"no position {', '.join(map(str, wrong)) or 'at all'}: expected {allowed}")
        return found


def label_next_tokens(data: Dataset, tokens: str, column: str = "next_tokens") -> Dataset:
    """D with each position's next token, int64 [N, positions - 1], as a column of its own: labels that are no inputs.

    A next-token loss that read the ids themselves could not be randomised: breaking labels would break inputs.
    """
    if column in data.names or not isinstance(data[tokens], Tensor) or data[tokens].ndim != 2:
        return data
    return Dataset({**data.columns, column: data[tokens][:, 1:].clone()}, data.weights)


def _column_of(at: Where) -> tuple[str, int]:
    if isinstance(at, str):
        return at, 0
    return (at.column, at.offset) if isinstance(at, Position) and at.column else ("", 0)


def _choose_positions(logits: Tensor, places: list[int] | None, where: Tensor | None) -> Tensor:
    """[batch, chosen, vocabulary]."""
    if where is not None:
        return logits.gather(1, where[:, None, None].expand(-1, 1, logits.shape[2]))
    assert places is not None
    if places == list(range(places[0], places[-1] + 1)):  # a slice, of which the engine needs no more than there is
        return logits[:, places[0] : places[-1] + 1]
    return logits.index_select(1, torch.tensor(places, device=logits.device))


def _logits_of(chosen: Tensor, ids: Tensor) -> Tensor:
    """[batch, chosen, k]: those of token ids [batch] or [batch, k]."""
    ids = ids.reshape(len(ids), 1, -1)
    return chosen.gather(2, ids.expand(-1, chosen.shape[1], -1))
