"""Rows of the study and text as tokens: what repeats, what differs, which parts are apart."""

from itertools import pairwise

import pytest
import torch

from pscrub.studies.induction import rows, text
from pscrub.studies.induction.model import VOCABULARY


@pytest.mark.parametrize("make", [rows.random_rows, rows.text_rows])
@pytest.mark.parametrize("half", rows.HALVES)
def test_a_row_is_tokens_and_the_first_of_them_again(make: rows.RowsOf, half: str) -> None:
    found = make(half, 300)
    assert found.shape == (300, rows.LENGTH) and found.min() >= 0 and found.max() < VOCABULARY
    assert torch.equal(found[:, rows.PERIOD :], found[:, : rows.LENGTH - rows.PERIOD])
    data = rows.as_dataset(found)
    assert torch.equal(data["query"], found[:, -1]) and torch.equal(data["query"], found[:, rows.MATCH - 1])
    again = torch.cat([found, found[:, rows.LENGTH - rows.PERIOD :]], 1)[:, rows.LENGTH]
    assert torch.equal(data["target"], again)
    alone = [row[: rows.PERIOD].tolist().count(int(row[-1])) == 1 for row in found]
    assert data["once"].bool().tolist() == alone


def test_random_tokens_of_a_row_differ_and_are_uniform() -> None:
    found = rows.random_rows("scoring", 2_000)
    assert all(len(set(row[: rows.PERIOD].tolist())) == rows.PERIOD for row in found)
    near = [rows.MATCH - 2, rows.MATCH - 1, rows.MATCH]
    assert all(len(found[:, place].unique()) == rows.SPOKEN_OF for place in near)
    others = found[:, [place for place in range(rows.PERIOD) if place not in near]]
    counts = torch.bincount(others.flatten(), minlength=VOCABULARY).double()
    # Beside the match 17 of 253 that are left: a token of the 64 is left out in three of 64 rows.
    few = torch.bincount(found[:, near].flatten(), minlength=VOCABULARY) > 0
    assert counts[few].mean() / counts[~few].mean() == pytest.approx(61 / 64, abs=0.02)
    assert (counts / counts.mean() - 1).abs().max() < 0.4


def test_halves_are_apart() -> None:
    chunks, _ = text.load_text()
    for half, other in ((0, 1), (1, 0)):
        own = "".join(map(chr, chunks[half::2].flatten().tolist()))
        theirs = "".join(map(chr, chunks[other::2].flatten().tolist()))
        found = ["".join(map(chr, row[: rows.PERIOD].tolist())) for row in rows.text_rows(rows.HALVES[half], 200)]
        assert all(each in own for each in found)
        assert sum(each in theirs for each in found) < 5  # phrases of the text that stand in it twice
    random = [set(map(tuple, rows.random_rows(half, 500).tolist())) for half in rows.HALVES]
    assert not random[0] & random[1]


def test_text_of_the_other_half_does_not_foretell_the_target() -> None:
    chunks, _ = text.load_text()
    seen = {tuple(pair) for chunk in chunks[0::2].tolist() for pair in pairwise(chunk)}
    pairs = rows.text_rows("scoring")[:, [rows.MATCH - 1, rows.MATCH]].tolist()
    assert len(seen) > 1_000 and not seen & set(map(tuple, pairs))


def test_queries_of_text_are_common() -> None:
    counts = torch.bincount(rows.text_rows("scoring")[:, -1])
    assert counts[counts > 0].min() == rows.COMMON and (counts > 0).sum() > 60
    assert len(rows.text_rows("scoring", 100)) == 100 and 2_000 < counts.sum() <= rows.ROWS


def test_encoding_loses_nothing() -> None:
    said = "in the beginning was the word, and the word was with the beginning"
    pieces = text.learn_pairs(said, 30)
    tokens = text.encode_text(said, pieces)
    assert "".join(pieces[token] for token in tokens.tolist()) == said and len(tokens) < len(said) - 10
    assert len(pieces) == 30 == len(set(pieces))


def test_the_shipped_vocabulary_encodes_what_is_shipped() -> None:
    chunks, pieces = text.load_text()
    assert len(pieces) == VOCABULARY == len(set(pieces))
    said = "".join(pieces[token] for token in chunks[3].tolist())
    # A chunk begins and ends within words, where its text alone may be cut otherwise.
    start, end = said.index(" "), said.rindex(" ")
    inner = text.encode_text(said[start:end], pieces).tolist()
    assert "".join(map(chr, inner)) in "".join(map(chr, chunks[3].tolist()))


def test_unknown_characters_are_named() -> None:
    with pytest.raises(ValueError, match="characters \\['!', 'z'\\] are not in the vocabulary"):
        text.encode_text("abz!", ["a", "b"])


def test_chunks_are_held_out_whole() -> None:
    tokens = torch.arange(text.CHUNK * 43 + 100)
    trained, held_out = text.split_text(tokens)
    assert held_out.flatten()[0] == text.CHUNK * 19 and len(held_out) == 2 and len(trained) == 41
    assert not set(trained.flatten().tolist()) & set(held_out.flatten().tolist())
