"""Which heads of the bracket classifier tell the count, and which the horizon? Each head scrubbed alone.

Each head's output at the start token is claimed to agree on one feature only (or is unimportant) while every other
head's is exact. The logits are computed from the heads through the MLPs at the start token, so a head speaks by every
path from its output there. What a head needs to agree on for the loss to be recovered is what it tells.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Study
from pscrub.studies.brackets import features, graphs
from pscrub.studies.brackets.model import load_classifier
from pscrub.studies.brackets.study import SHIPPED, strings


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
    graph = graphs.with_heads_alone(graphs.by_head(model, dataset), model)
    tokens = dataset["tokens"]
    count, horizon = features.count(tokens), features.horizon(tokens)
    share = features.open_shares(tokens)[:, 1]
    tried = {
        "unimportant": None,
        "count": count,
        "count and starts open": count & features.starts_open(tokens),
        "horizon": horizon,
        "horizon and p_1": torch.stack([horizon.double(), share], 1),
    }
    label = Claim("balanced", "balanced")
    hypotheses = []
    for head in graphs.HEAD_NAMES:
        others = [Claim(f"{other}@0", EXACT) for other in graphs.HEAD_NAMES if other != head]
        for words, feature in tried.items():
            own = [] if feature is None else [Claim(f"{head}@0", feature, words=words)]
            root = Claim("loss", reads=[label, Claim("logits", reads=[*others, *own])])
            hypotheses.append(Hypothesis(f"{head} {words}", graph, dataset, root))
    return Study("bracket_heads", hypotheses, __doc__.split("\n")[0], labels=("balanced",))
