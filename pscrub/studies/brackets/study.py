"""Does a transformer that judges bracket strings count brackets and look at the horizon? Nine hypotheses.

The claims are those of the causal scrubbing post on balanced brackets. By default they are made, in the form that fits,
about a classifier of the same architecture that ships with pscrub (`train` trained it); with
`-P weights=FILE -P data=FILE` the published form is made about other weights, such as the published ones.
"""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path

import torch

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.hypothesis.study import Study
from pscrub.studies.brackets import features
from pscrub.studies.brackets.ladders import published_ladder, shipped_ladder
from pscrub.studies.brackets.model import CLOSE, encode, load_classifier
from pscrub.studies.brackets.train import generate

SHIPPED = Path(__file__).parent / "weights.safetensors"


def study(
    weights: Path | None = None,
    data: Path | None = None,
    balanced: float | None = None,
    rows: int = 30_000,
    strings_seed: int = 0,
    exact_ties: bool = False,
) -> Study:
    """The study on the shipped classifier and fresh strings, or on files of the user's.

    Args:
        weights: safetensors of another classifier of this architecture, parameters named as TransformerLens 1.x does.
        data: lines of JSON [string, is it balanced], gzipped or not.
        balanced: share of balanced strings; surplus ones (the last) are dropped.
        rows: lines read, or strings generated.
        strings_seed: of the strings generated.
        exact_ties: in the published 3b and 4, let shares that are 1/2 by mathematics be 1/2; else rounding decides,
            which fits the published figures.
    """
    model = load_classifier(SHIPPED if weights is None else weights)
    dataset = strings(data, rows, balanced, strings_seed)
    ladder = shipped_ladder(model, dataset) if weights is None else published_ladder(model, dataset, exact_ties)
    summary = __doc__.split("\n")[0]
    return Study("brackets", ladder, summary, labels=("balanced",), by=("balanced",), features=offers(dataset))


def offers(data: Dataset) -> dict[str, torch.Tensor]:
    """Name -> what a string may be told by [N], for an adversary to claim."""
    tokens = data["tokens"]
    return {
        "count": features.count(tokens),
        "starts open": features.starts_open(tokens),
        "ends closed": tokens.gather(1, features.lengths(tokens)[:, None]).squeeze(1) == CLOSE,
        "horizon": features.horizon(tokens),
        "p_1 above 1/2": features.open_shares(tokens)[:, 1] > 0.5,
        "length": features.lengths(tokens),
    }


def strings(path: Path | None, rows: int, balanced: float | None, seed: int) -> Dataset:
    """D: columns tokens int64 [N, 42], balanced int64 [N] and text, from a file or generated.

    Raises:
        StudyError: no such file, lines of another form, a share of balanced strings that cannot be had.
    """
    if rows < 1:
        raise StudyError(f"rows is {rows}; expected at least 1")
    if path is None:
        texts = generate(rows, seed)
    else:
        texts = _read(path, rows)
    tokens = encode(texts)
    label = features.count(tokens) & features.horizon(tokens)
    keep = torch.ones(len(texts), dtype=torch.bool)
    if balanced is not None:
        if not 0 < balanced < 1:
            raise StudyError(f"balanced is {balanced}; expected a share between 0 and 1")
        most = round(int((~label).sum()) * balanced / (1 - balanced))
        if most > int(label.sum()):
            raise StudyError(
                f"balanced={balanced}: only {float(label.double().mean()):.3f} of the strings are balanced"
            )
        keep = ~label | (label.cumsum(0) <= most)
    kept = [text for text, wanted in zip(texts, keep.tolist(), strict=True) if wanted]
    return Dataset({"text": kept, "tokens": tokens[keep], "balanced": label[keep].long()})


def _read(path: Path, rows: int) -> list[str]:
    if not path.is_file():
        raise StudyError(f"data file '{path}' does not exist")
    texts: list[str] = []
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(islice(file, rows), start=1):
                texts.append(_string(line, f"{path}, line {number}"))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise StudyError(f"data file '{path}' cannot be read: {error}") from error
    return texts


def _string(line: str, where: str) -> str:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise StudyError(f"{where}: expected [string, true or false]; {error}") from error
    match found:
        case [str(text), bool()]:
            return text
    raise StudyError(f"{where}: expected [string, true or false]; found {line.strip()[:60]}")
