"""Does a transformer that adds modulo 113 do so by a few frequencies? Numbers, attention, neurons, logits, paths.

The claims are those of the published analysis of such a model: numbers become cosines and sines of a few key
frequencies, neurons multiply them, and logits are cosines of (a + b - answer) at the same frequencies. They are made
about a model that ships with pscrub (`train` trained it), on pairs that neither trained it nor told its frequencies.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.hypothesis.study import Study
from pscrub.studies.modular_addition.frequencies import group_neurons, key_frequencies
from pscrub.studies.modular_addition.ladder import Found, Ladder
from pscrub.studies.modular_addition.model import ModularAddition, all_pairs, load_model, sums
from pscrub.studies.modular_addition.train import split_pairs
from pscrub.studies.weights import permute_weights

SHIPPED = Path(__file__).parent / "weights.safetensors"
MODELS = ("trained", "untrained", "shuffled")
KEYS = 3
"""Of the shipped model's logits three frequencies carry 99.6 % of the variance, the next one 0.07 %."""


def study(
    model: str = "trained", weights: Path | None = None, keys: int = KEYS, rows: int | None = None, seed: int = 0
) -> Study:
    """The study on the shipped model, on a file of the user's, or on a control that has learnt nothing.

    Args:
        model: "trained"; "untrained", weights as they are before training; or "shuffled", the trained weights, the
            entries of each matrix permuted.
        weights: safetensors of another model of this architecture and modulus, that held out the same pairs.
        keys: how many frequencies are taken for key ones.
        rows: how many of the 3,970 pairs for scoring to take, the first of them; by default all.
        seed: of the controls: random frequencies, shuffled features, permuted weights.

    Raises:
        StudyError: an unknown model, a number of keys that leaves no others as control, or of rows that are not there.
    """
    faults = [] if model in MODELS else [f"model is '{model}'; expected one of {', '.join(MODELS)}"]
    if not 1 <= keys <= 13:
        faults.append(f"keys is {keys}; expected 1 to 13, so that as many random frequencies are left as control")
    selecting, scoring = halves()
    if rows is not None and not 1 <= rows <= len(scoring):
        faults.append(f"rows is {rows}; expected 1 to {len(scoring)}, the pairs for scoring")
    if faults:
        raise StudyError(faults)
    subject = load_subject(model, SHIPPED if weights is None else weights, seed)
    ladder = Ladder(subject, pairs(scoring[:rows]), find(subject, selecting, keys), seed)
    notes = (
        f"Key frequencies, found on {len(selecting):,} other pairs: {', '.join(map(str, ladder.found.keys))}; "
        f"random ones: {', '.join(map(str, ladder.random_frequencies(2 * keys)))}.",
    )
    summary = __doc__.split("\n")[0]
    return Study("modular_addition", ladder.hypotheses(), summary, labels=("sum",), notes=notes, by=("wraps",))


def halves() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of `all_pairs`, int64 [3969] and [3970]: held-out pairs for selection, and others for scoring."""
    held_out = split_pairs()["held out"]
    return held_out[: len(held_out) // 2], held_out[len(held_out) // 2 :]


def pairs(rows: torch.Tensor) -> Dataset:
    """D: columns tokens int64 [N, 3], a, b, sum (modulo 113) and wraps, 1 where a + b is 113 or more, int64 [N]."""
    tokens = all_pairs()[rows]
    a, b, total = tokens[:, 0], tokens[:, 1], sums(tokens)
    return Dataset({"tokens": tokens, "a": a, "b": b, "sum": total, "wraps": (a + b > total).long()})


def find(subject: ModularAddition, rows: torch.Tensor, keys: int = KEYS) -> Found:
    """The key frequencies, so many, and the clusters of neurons, measured on rows int64 [N] of `all_pairs`."""
    tokens = all_pairs()[rows]
    found = key_frequencies(subject, tokens, keys)
    return Found(found, group_neurons(subject, tokens, found))


def load_subject(which: str = "trained", weights: Path = SHIPPED, seed: int = 0) -> ModularAddition:
    """The model that is asked for: one of MODELS, as `study` says."""
    if which == "untrained":
        return ModularAddition(seed).eval()
    found = load_model(weights)
    if which == "shuffled":
        permute_weights(found, seed)
    return found
