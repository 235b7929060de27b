"""Does a two-layer transformer repeat what it saw by induction heads? Where their queries, keys and values come from.

The claims are those of the published study of induction heads by causal scrubbing: values and queries come from the
token embedding, keys from a head of the first layer that attends to the token before. They are made about a model that
ships with pscrub (`train` trained it), on rows that told nothing of its heads.
"""

from __future__ import annotations

from pathlib import Path

from pscrub.errors import StudyError
from pscrub.hypothesis.study import Study
from pscrub.studies.induction.heads import find_heads
from pscrub.studies.induction.ladder import Ladder
from pscrub.studies.induction.model import HEADS, Induction, load_induction
from pscrub.studies.induction.rows import ROWS, as_dataset, random_rows, text_rows
from pscrub.studies.weights import permute_weights

SHIPPED = Path(__file__).parent / "weights.safetensors"
MODELS = ("trained", "untrained", "shuffled")
REPEATED = {"random": random_rows, "text": text_rows}
"""What is repeated -> the rows of a half."""
SELECTED = 1_024
"""Rows that tell the heads."""
DRAWS = 2_048
"""Of each of 37 hypotheses: intervals two points wide at most, within two minutes on two cores."""


def study(
    repeated: str = "random", model: str = "trained", weights: Path | None = None, rows: int = ROWS, seed: int = 0
) -> Study:
    """The study on the shipped model, on a file of the user's, or on a control that has learnt nothing.

    Args:
        repeated: what is scored: "random", random tokens that repeat; or "text", stretches of held-out text that
            repeat, where the text alone does not foretell what comes next.
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
    subject = choose_model(model, SHIPPED if weights is None else weights, seed)
    scoring = REPEATED[repeated]("scoring")
    # Heads are those of random repeats, whatever is scored: there nothing but induction tells what comes next.
    found = find_heads(subject, random_rows("selection", SELECTED))
    if HEADS in (len(found.previous), len(found.induction)):
        raise StudyError(
            "all heads of a layer attend alike; expected some that do not, for controls. Take other weights"
        )
    ladder = Ladder(subject, as_dataset(scoring[:rows]), found, seed)
    others = {of: ladder.random_heads(of) for of in ("previous", "induction")}
    notes = (
        f"Found on {SELECTED:,} other rows of random tokens: previous-token heads {_listed(0, found.previous)}, "
        f"induction heads {_listed(1, found.induction)}; random ones {_listed(0, others['previous'])}, "
        f"{_listed(1, others['induction'])}.",
    )
    summary = __doc__.split("\n")[0]
    return Study("induction", ladder.hypotheses(), summary, ("target",), notes, by=("once",), draws=DRAWS)


def choose_model(which: str = "trained", weights: Path = SHIPPED, seed: int = 0) -> Induction:
    """The model that is asked for: one of MODELS, as `study` says."""
    if which == "untrained":
        return Induction(seed).eval()
    found = load_induction(weights)
    if which == "shuffled":
        permute_weights(found, seed)
    return found


def _listed(layer: int, heads: tuple[int, ...]) -> str:
    return ", ".join(f"{layer}.{head}" for head in heads)
