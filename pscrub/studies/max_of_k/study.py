"""Does one head find the largest of four numbers and copy it? By draws, and by the worst donors that claims permit.

The model is small enough for everything to be counted: all 1,296 sequences are D, and `pscrub pessimal max_of_k` gives,
beside the scrubbed loss, the loss with the most harmful sequence of each block in place of a drawn one.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pscrub.errors import StudyError, close
from pscrub.hypothesis.study import Study
from pscrub.studies.max_of_k.ladder import MaxLadder
from pscrub.studies.max_of_k.model import MaxOfK, load_max_model

SHIPPED = Path(__file__).parent / "weights.safetensors"
MODELS = ("trained", "untrained", "shuffled")


def study(model: str = "trained", weights: Path | None = None, seed: int = 0) -> Study:
    """The study on the shipped model, on a file of the user's, or on a control that has learnt nothing.

    Args:
        model: "trained"; "untrained", weights as they are before training; or "shuffled", the trained weights, the
            entries of each matrix permuted.
        weights: safetensors of another model of this architecture.
        seed: of the controls: shuffled features, permuted weights, weights before training.

    Raises:
        StudyError: an unknown model.
    """
    if model not in MODELS:
        raise StudyError(f"model is '{model}'{close(model, MODELS)}; expected one of {', '.join(MODELS)}")
    ladder = MaxLadder(_take(model, SHIPPED if weights is None else weights, seed), seed)
    notes = ("In 1 what no claim speaks of is exact, in 2 and 3 it is unimportant.",)
    summary = __doc__.split("\n")[0]
    return Study("max_of_k", ladder.hypotheses(), summary, labels=("largest",), notes=notes, by=("largest",))


def _take(which: str, weights: Path, seed: int) -> MaxOfK:
    if which == "untrained":
        return MaxOfK(seed).eval()
    found, generator = load_max_model(weights), torch.Generator().manual_seed(seed)
    if which == "shuffled":
        with torch.no_grad():
            for parameter in found.parameters():
                mixed = parameter.flatten()[torch.randperm(parameter.numel(), generator=generator)]
                parameter.copy_(mixed.view_as(parameter))
    return found
