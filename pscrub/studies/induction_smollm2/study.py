"""Does SmolLM2-135M repeat what it saw by induction heads? What their keys, queries and values need, place by place.

The model is a real one, of 30 layers, trained by others. Which heads attend to the token before, and which to what
came after the query's first time, is measured on rows that are not scored.
"""

from __future__ import annotations

from torch import Tensor

from pscrub.errors import StudyError
from pscrub.graph.graph import Node
from pscrub.graph.opening import open_decoder
from pscrub.hypothesis.study import Study
from pscrub.studies.induction_smollm2.heads import Head, choose_heads, measure_attention, repeated_rows
from pscrub.studies.induction_smollm2.ladder import Ladder
from pscrub.studies.smollm2 import load_smollm2

ROWS, SELECTED, MOST_ROWS = 256, 64, 4_096


def study(rows: int = ROWS, seed: int = 0) -> Study:
    """The study on SmolLM2-135M.

    Args:
        rows: how many rows to score on.
        seed: of the controls: random heads, shuffled features.

    Raises:
        StudyError: the model is not installed (says how to install it), or a number of rows that is out of range.
    """
    if not 16 <= rows <= MOST_ROWS:
        raise StudyError(f"rows is {rows}; expected 16 to {MOST_ROWS}")
    model = load_smollm2()
    found = choose_heads(measure_attention(model, repeated_rows(SELECTED, seed=1)["input_ids"]))
    decoder = open_decoder(model, repeated_rows(rows, seed=2))
    ladder = Ladder(decoder, found, Node("loss", ("logits", "target"), _loss), seed)
    notes = (
        f"Found on {SELECTED} other rows: previous-token heads {_listed(found.previous)}; induction heads "
        f"{_listed(found.induction)}.",
        f"Random heads: {_listed(ladder.random_sources)}; {_listed(ladder.random_readers)}.",
    )
    summary = __doc__.split("\n")[0]
    return Study("induction_smollm2", ladder.hypotheses(), summary, labels=("target",), notes=notes)


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    return -logits[:, -1].log_softmax(-1).gather(1, target[:, None])[:, 0]


def _listed(heads: tuple[Head, ...]) -> str:
    return ", ".join(f"{layer}.{number}" for layer, number in heads)
