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
from pscrub.studies.compiled.model import PROGRAMS, Component, Program, load_program

MODELS = ("compiled", "turned")


def study(program: str = "sort_unique", model: str = "compiled", seed: int = 0) -> Study:
    """The study of one program, on all sequences of its tokens.

    Args:
        program: "frac_prevs", "hist", "reverse", "sort_unique" or "pair_balance".
        model: "compiled", or "turned", what each matrix reads or writes turned by a random rotation.
        seed: of the controls: random edges, shuffled values, rotations.

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
    ladder = Ladder(load_compiled(program, model, seed), seed)
    notes = (
        ladder.program.text,
        f"{len(ladder.true)} true edges, {len(ladder.others)} others, {ladder.data.n} sequences.",
        "In 3 what no claim speaks of is exact, elsewhere it is unimportant.",
    )
    summary = __doc__.split("\n")[0]
    return Study("compiled", ladder.hypotheses(), summary, labels=("right",), notes=notes, by=("length",))


def load_compiled(program: str, model: str = "compiled", seed: int = 0) -> Program:
    """Returns the model that is asked for, as `study` says."""
    found = load_program(program)
    return turn_weights(found, seed) if model == "turned" else found


def turn_weights(program: Program, seed: int) -> Program:
    """Returns the program with each matrix that reads or writes turned by a rotation of its own; the embedding stays.

    Permuted entries, or directions, would leave nearly all of these sparse models dead, their answer a constant.
    """
    generator, size = torch.Generator().manual_seed(seed), len(program.directions)

    def turn(component: Component) -> Component:
        weights = {}
        for key, value in component.weights.items():
            rotation, _ = torch.linalg.qr(torch.randn(size, size, generator=generator))
            weights[key] = value @ rotation if key == "out" else rotation @ value
        return replace(component, weights=weights)

    return replace(program, components=tuple(turn(each) for each in program.components))
