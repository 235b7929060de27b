"""Text as tokens: a byte-pair vocabulary of 256 made from a text, and the parts of it that train and that are held out.

The shipped model read the King James Bible as Debian's package `bible-kjv` prints it:

    bible -l99999 gen1:1-rev22:21 > kjv.txt

`tokens.safetensors` holds the part that is held out, and the vocabulary.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from pscrub.studies.induction.model import VOCABULARY

SHIPPED_TEXT = Path(__file__).parent / "tokens.safetensors"
CHUNK, EVERY = 2_048, 20
"""Tokens lie in chunks of so many, and every so-manieth is held out."""


def clean_text(raw: str) -> str:
    """Returns the text without headings of chapters and numbers of verses, words one space apart.

    >>> clean_text("\\nGenesis 1\\n\\n  1 In the beginning God\\n  2 And the earth")
    'In the beginning God And the earth'
    """
    lines = re.findall(r"(?m)^ +\d+ (.*)$", raw)
    return " ".join(" ".join(lines).split())


def learn_pairs(text: str, size: int = VOCABULARY) -> list[str]:
    """Returns a byte-pair vocabulary: the text's characters, then the commonest pair of pieces joined, again and again.

    A word is what begins at a space; pieces never cross words.

    >>> learn_pairs("ab ab ab", 5)
    [' ', 'a', 'b', 'ab', ' ab']
    """
    words = {word: list(word) for word in _words(text)}
    counts = Counter(_words(text))
    pieces = sorted(set(text))
    while len(pieces) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in words.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        pieces.append("".join(best))
        words = {word: _joined(parts, best) for word, parts in words.items()}
    return pieces


def encode_text(text: str, pieces: Sequence[str]) -> Tensor:
    """Returns uint8[tokens]: the text in pieces of a vocabulary, the earlier joined first.

    Raises:
        ValueError: a character that the vocabulary does not have.
    """
    ids = {piece: place for place, piece in enumerate(pieces)}
    unknown = sorted(set(text) - set(pieces))
    if unknown:
        raise ValueError(f"characters {unknown} are not in the vocabulary; expected those of the text it was made from")
    known: dict[str, list[int]] = {}
    found: list[int] = []
    for word in _words(text):
        if word not in known:
            known[word] = [ids[part] for part in _split(word, ids)]
        found += known[word]
    return torch.tensor(found, dtype=torch.uint8)


def split_text(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Returns tokens [chunk, 2048] that train, and those held out, every twentieth chunk; what is left over is neither.

    >>> [len(part) for part in split_text(torch.zeros(40 * 2048 + 5))]
    [38, 2]
    """
    chunks = tokens[: len(tokens) // CHUNK * CHUNK].view(-1, CHUNK)
    held_out = torch.arange(len(chunks)) % EVERY == EVERY - 1
    return chunks[~held_out], chunks[held_out]


def pack_text(held_out: Tensor, pieces: Sequence[str]) -> bytes:
    """Returns the bytes of a file of held-out chunks uint8[chunk, 2048] and the vocabulary."""
    return serialise({"held_out": held_out.contiguous()}, metadata={"pieces": json.dumps(list(pieces))})


def load_text(path: Path = SHIPPED_TEXT) -> tuple[Tensor, list[str]]:
    """Returns held-out chunks int64[chunk, 2048], and the vocabulary by token."""
    with safe_open(path, "pt") as file:
        return file.get_tensor("held_out").long(), json.loads(file.metadata()["pieces"])


def _words(text: str) -> list[str]:
    return re.findall(r" ?[^ ]+| ", text)


def _joined(parts: Sequence[str], pair: tuple[str, str]) -> list[str]:
    done: list[str] = []
    for part in parts:
        if done and (done[-1], part) == pair:
            done[-1] += part
        else:
            done.append(part)
    return done


def _split(word: str, ids: dict[str, int]) -> list[str]:
    parts = list(word)
    while True:
        pairs = [pair for pair in pairwise(parts) if "".join(pair) in ids]
        if not pairs:
            return parts
        parts = _joined(parts, min(pairs, key=lambda pair: ids["".join(pair)]))
