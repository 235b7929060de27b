"""Which heads of the bracket classifier tell the count, and which the horizon? Each head scrubbed alone.

Each head's output at the start token is claimed to agree on one feature only (or is unimportant) while every other
head's is exact. The logits are computed from the heads through the MLPs at the start token, so a head speaks by every
path from its output there. What a head needs to agree on for the loss to be recovered is what it tells.
"""

from __future__ import annotations

from pathlib import Path

from pscrub.hypothesis.circuits import circuit_ladder
from pscrub.hypothesis.study import Study
from pscrub.studies.brackets import graphs, ladders
from pscrub.studies.brackets.model import load_classifier
from pscrub.studies.brackets.study import SHIPPED, strings

TRIED = ("unimportant", "count", "count and starts open", "horizon", "horizon and p_1")
"""What each head is claimed to tell; unimportant is claimed of nothing."""


def study(
    weights: Path | None = None,
    data: Path | None = None,
    balanced: float | None = None,
    rows: int = 6_000,
    strings_seed: int = 0,
) -> Study:
    """The study on the shipped classifier, or on files of the user's, as in `brackets`."""
    model = load_classifier(SHIPPED if weights is None else weights)
    dataset = strings(data, rows, balanced, strings_seed)
    texts = dict[str, str]()
    for head in graphs.HEAD_NAMES:
        others = " ".join(f"{other}.out@0" for other in graphs.HEAD_NAMES if other != head)
        for words in TRIED:
            own, says = (f"{head}.out@0", f"{head}.out@0 : {words}") if words != "unimportant" else ("", "")
            texts[f"{head} {words}"] = f"{ladders.LOGITS} \n logits <- {others} {own} \n {says}"
    told = ladders.told(model, dataset, exact_ties=True)
    hypotheses = circuit_ladder(texts, graphs.by_head(model, dataset), behaviour=graphs.LOSS, features=told)
    return Study("bracket_heads", hypotheses, __doc__.split("\n")[0], labels=("balanced",))
