"""Does a two-layer transformer repeat what it saw by induction heads? Where their queries, keys and values come from.

The claims are those of the published study of induction heads by causal scrubbing: values and queries come from the
token embedding, keys from a head of the first layer that attends to the token before. They are made about a model that
ships with pscrub (`train` trained it), on rows that told nothing of its heads.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pscrub.errors import StudyError
from pscrub.hypothesis.study import Study
from pscrub.studies.induction.heads import find_heads
from pscrub.studies.induction.ladder import Ladder
from pscrub.studies.induction.model import Induction, load_model
from pscrub.studies.induction.rows import HALVES, ROWS, as_dataset, random_rows, text_rows

SHIPPED = Path(__file__).parent / "weights.safetensors"
MODELS = ("trained", "untrained", "shuffled")
REPEATED = {"random": random_rows, "text": text_rows}
"""What is repeated -> the rows of a half."""
SELECTED = 1_024
"""Rows that tell the heads."""


def study(
    repeated: str = "random", model: str = "trained", weights: Path | None = None, rows: int = ROWS, seed: int = 0
) -> Study:
    """The study on the shipped model, on a file of the user's, or on a control that has learnt nothing.

    Args:
        repeated: "random", random tokens that repeat; or "text", stretches of held-out text that repeat.
        model: "trained"; "untrained", weights as they are before training; or "shuffled", the trained weights, the
            entries of each matrix permuted.
        weights: safetensors of another model of this architecture.
        rows: how many rows to score on, at most.
        seed: of the controls: random heads, shuffled features, permuted weights.

    Raises:
        StudyError: what is repeated or the model is unknown, or a number of rows that are not there.
    """
    faults = [] if model in MODELS else [f"model is '{model}'; expected one of {', '.join(MODELS)}"]
    if repeated not in REPEATED:
        faults.append(f"repeated is '{repeated}'; expected one of {', '.join(REPEATED)}")
    if not 1 <= rows <= ROWS:
        faults.append(f"rows is {rows}; expected 1 to {ROWS}")
    if faults:
        raise StudyError(faults)
    subject = load_subject(model, SHIPPED if weights is None else weights, seed)
    selecting, scoring = (REPEATED[repeated](half) for half in HALVES)
    ladder = Ladder(subject, as_dataset(scoring[:rows]), find_heads(subject, selecting[:SELECTED]), seed)
    found, others = ladder.found, {of: ladder.random_heads(of) for of in ("previous", "induction")}
    notes = (
        f"Found on {SELECTED:,} other rows: previous-token heads {_listed(0, found.previous)}, induction heads "
        f"{_listed(1, found.induction)}; random ones {_listed(0, others['previous'])}, {_listed(1, others['induction'])}.",
    )
    summary = __doc__.split("\n")[0]
    by = ("once",) if repeated == "text" else ()
    return Study("induction", ladder.hypotheses(), summary, labels=("target",), notes=notes, by=by)


def load_subject(which: str = "trained", weights: Path = SHIPPED, seed: int = 0) -> Induction:
    """The model that is asked for: one of MODELS, as `study` says."""
    if which == "untrained":
        return Induction(seed).eval()
    found = load_model(weights)
    if which == "shuffled":
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in found.parameters():
                mixed = parameter.flatten()[torch.randperm(parameter.numel(), generator=generator)]
                parameter.copy_(mixed.view_as(parameter))
    return found


def _listed(layer: int, heads: tuple[int, ...]) -> str:
    return ", ".join(f"{layer}.{head}" for head in heads)
