"""The nine hypotheses about the bracket classifier: for the published weights, and for those that ship with pscrub."""

from __future__ import annotations

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.hypothesis.circuits import ByPosition, circuit_ladder
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.studies.brackets import features, graphs
from pscrub.studies.brackets.model import BracketClassifier

EXACT, LABEL = "loss : exact", "loss <- balanced \n balanced : balanced"
LOGITS = "loss <- balanced logits \n balanced : balanced"

# Heads a1.h0 and a2.h0 tell the count, a2.h1 the horizon, directly to the logits. 2: both counters read position 1,
# where a0.h0 looked from the first bracket over the string. 3: the judge reads a verdict at every position, which
# a0.h0's view of the share of open brackets gives.
TELL = f"{LOGITS} \n logits <- a1.h0@0 a2.h0@0 a2.h1@0 \n name counters = a1.h0@0 a2.h0@0"
OPENS, HORIZON = "counters : count and starts open", "a2.h1@0 : horizon"
FIRST = """
a1.h0@0   <- r1@1
a2.h0@0   <- r2@1
r1@1 r2@1 <= a0.h0@1 embed
r1@1 r2@1 : count and starts open
a0.h0@1   : p_1 if it starts open
embed     : starts open"""
ESTIMATED = f"{FIRST} \n a0.h0@1 <- estimate_of(a0.h0@1) \n estimate_of(a0.h0@1) : p_1 if it starts open"
VERDICTS = """
a2.h1@0    <- a2.h1.in@* mask
a2.h1@0    : no bad verdict
a2.h1.in@* : verdict
mask       : length"""
SEEN = VERDICTS.replace("verdict", "verdict seen")
PUBLISHED = {
    "0a everything exact": EXACT,
    "0b logits unimportant": LABEL,
    "1a count and horizon": f"{TELL} \n counters : count \n {HORIZON}",
    "1b also starts open": f"{TELL} \n {OPENS} \n {HORIZON}",
    "2a count from the first bracket": f"{TELL} \n {OPENS} \n {HORIZON} \n {FIRST}",
    "2b with its share estimated": f"{TELL} \n {OPENS} \n {HORIZON} \n {ESTIMATED}",
    "3a horizon from verdicts": f"{TELL} \n {OPENS} \n {VERDICTS}",
    "3b with the shares seen": f"{TELL} \n {OPENS} \n {SEEN}",
    "4 both 2b and 3b": f"{TELL} \n {OPENS} \n {ESTIMATED} \n {SEEN}",
}

# The same nine in the form that fits the shipped weights, whose heads speak to the logits through the MLPs. `pscrub run
# bracket_heads` shows the measurements behind it: a1.h0 tells the count and starts open; a1.h1 and a2.h1 tell the
# horizon together with p_1; a1.h0 reads every position, not the first alone; verdicts have to carry the token, p_1 and
# starts open beside p_i.
SPEAK = f"{LOGITS} \n logits <- a1.h0.out@0 a1.h1.out@0 a2.h1.out@0"
COUNTS, TELLING = "a1.h0.out@0 : count and starts open", "a1.h1.out@0 a2.h1.out@0 : horizon and p_1"
EVERYWHERE = "a1.h0.out@0 <= a1.h0.in@* mask \n a1.h0.in@* : p_1 if it starts open \n mask : length"
FITTED = "a1.h0.out@0 <- estimate_of(a1.h0.out@0) \n estimate_of(a1.h0.out@0) : p_1 if it starts open"
JUDGED = """
a1.h1.out@0 <- a1.h1.in@* mask
a2.h1.out@0 <- a2.h1.in@* mask
a1.h1.out@0 a2.h1.out@0       : no bad verdict, p_1, starts open
a1.h1.in@* a2.h1.in@* : verdict, token, p_1, starts open
mask                  : length"""
JUDGED_SEEN = JUDGED.replace("verdict", "verdict seen")
SHIPPED = {
    "0a everything exact": EXACT,
    "0b logits unimportant": LABEL,
    "1a count, and horizon with p_1": f"{SPEAK} \n a1.h0.out@0 : count \n {TELLING}",
    "1b also starts open": f"{SPEAK} \n {COUNTS} \n {TELLING}",
    "2a count from every position": f"{SPEAK} \n {COUNTS} \n {TELLING} \n {EVERYWHERE}",
    "2b with its output estimated": f"{SPEAK} \n {COUNTS} \n {TELLING} \n {FITTED}",
    "3a horizon from verdicts": f"{SPEAK} \n {COUNTS} \n {JUDGED}",
    "3b with the shares seen": f"{SPEAK} \n {COUNTS} \n {JUDGED_SEEN}",
    "4 both 2b and 3b": f"{SPEAK} \n {COUNTS} \n {FITTED} \n {JUDGED_SEEN}",
}


def published_ladder(model: BracketClassifier, data: Dataset, exact_ties: bool = False) -> list[Hypothesis]:
    """The published claims."""
    return circuit_ladder(
        PUBLISHED,
        graphs.by_term(model, data),
        behaviour=graphs.LOSS,
        features=told(model, data, exact_ties),
        estimates={"a0.h0@1": (graphs.share_estimate(model, 0), ["tokens"])},
    )


def shipped_ladder(model: BracketClassifier, data: Dataset) -> list[Hypothesis]:
    """The claims about the shipped weights."""
    named = graphs.by_head(model, data)
    return circuit_ladder(
        SHIPPED,
        named,
        behaviour=graphs.LOSS,
        features=told(model, data, exact_ties=True),
        estimates={"a1.h0.out@0": (graphs.fitted_estimate(named, "a1.h0"), ["tokens"])},
    )


def told(model: BracketClassifier, data: Dataset, exact_ties: bool) -> dict[str, Tensor | ByPosition]:
    """What the ladders claim of strings, by the words that they have for it."""
    tokens = data["tokens"]
    shares, opens = features.open_shares(tokens), features.starts_open(tokens)
    count, horizon = features.count(tokens), features.horizon(tokens)
    same = torch.stack([shares[:, 1], opens.double()], 1)
    found: dict[str, Tensor | ByPosition] = {
        "length": features.lengths(tokens),
        "count": count,
        "starts open": opens,
        "count and starts open": count & opens,
        "horizon": horizon,
        "horizon and p_1": torch.stack([horizon.double(), shares[:, 1]], 1),
        "p_1 if it starts open": features.share_if_open(tokens),
    }
    for verdict, seen in (("verdict", shares), ("verdict seen", features.seen_shares(tokens, model, 0, exact_ties))):
        codes = features.verdicts(tokens, seen)
        good = features.no_bad_verdict(codes)
        whole = torch.stack([tokens.double(), codes.double()], 2)
        found |= {
            verdict: ByPosition(codes),
            f"no bad {verdict}": good,
            f"no bad {verdict}, p_1, starts open": torch.cat([good[:, None].double(), same], 1),
            f"{verdict}, token, p_1, starts open": ByPosition(
                torch.cat([whole, same[:, None].expand(-1, whole.shape[1], -1)], 2)
            ),
        }
    return found
