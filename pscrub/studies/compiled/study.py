"""Is a compiled program's known circuit recovered, each true edge missed and each other one forgiven? Five programs.

The models are compiled from programs by Tracr (`make`), so that it is known which variable reads which. A claim that
keeps the program's edges has to recover everything, one that lacks an edge has to lose, and of the edges that the model
has besides, each has to be replaceable without any change.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pscrub.errors import StudyError, close
from pscrub.hypothesis.study import Study
from pscrub.studies.compiled.ladder import Ladder
from pscrub.studies.compiled.model import PROGRAMS, Program, load_program

MODELS = ("compiled", "shuffled")


def study(program: str = "sort_unique", model: str = "compiled", seed: int = 0) -> Study:
    """The study of one program, on all sequences of its tokens.

    Args:
        program: "frac_prevs", "hist", "reverse", "sort_unique" or "pair_balance".
        model: "compiled", or "shuffled", the entries of each of its components' matrices permuted.
        seed: of the controls: random edges, shuffled values, permuted weights.

    Raises:
        StudyError: an unknown program or model.
    """
    faults = []
    if program not in PROGRAMS:
        faults.append(f"program is '{program}'{close(program, PROGRAMS)}; expected one of {', '.join(PROGRAMS)}")
    if model not in MODELS:
        faults.append(f"model is '{model}'{close(model, MODELS)}; expected one of {', '.join(MODELS)}")
    if faults:
        raise StudyError(faults)
    subject = load_program(program)
    ladder = Ladder(shuffle_weights(subject, seed) if model == "shuffled" else subject, seed)
    notes = (
        f"{subject.text}",
        f"{len(ladder.true)} true edges, {len(ladder.others)} others, {ladder.data.n} sequences. In 3 the rest is exact, "
        f"elsewhere it is unimportant.",
    )
    summary = __doc__.split("\n")[0]
    return Study("compiled", ladder.hypotheses(), summary, labels=("right",), notes=notes, by=("length",))


def shuffle_weights(program: Program, seed: int) -> Program:
    """Returns the program with the entries of each matrix of its components permuted; what is embedded stays."""
    generator = torch.Generator().manual_seed(seed)

    def mix(weights: torch.Tensor) -> torch.Tensor:
        return weights.flatten()[torch.randperm(weights.numel(), generator=generator)].view_as(weights)

    components = [
        replace(each, weights={key: mix(value) for key, value in each.weights.items()}) for each in program.components
    ]
    return replace(program, components=tuple(components))
