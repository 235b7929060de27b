"""Mixtures of hypotheses: claims whose bins have a random offset, of which each is an interpretation of its own.

Where the edges of bins stand is not what a claim about a real value is about. A random offset, uniform on [0, 1) of a
bin, leaves it open: the offset is drawn first, and then the data, by the program of the hypothesis that it makes. Two
rows whose values are d bins apart share a bin with probability max(0, 1 - d), so near rows are swapped more often than
far ones. Given the offset the law is an ordinary scrubbing law: Lemma 1 holds for its interpretation, each datum has
the law D, and so it has in the mixture. A kernel that swaps near rows without such bins keeps neither
(`theory/soft_agreement.py`).

One offset serves all sites of a claim, and all claims that were given the same object as their feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pscrub.data.bins import Array, Edged
from pscrub.errors import DatasetError, HypothesisError, StudyError
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis


def random_features(hypothesis: Hypothesis) -> tuple[Edged, ...]:
    """The features with a random offset, each once however many claims it is given to: readers' before what they read.

    >>> import torch
    >>> from pscrub import Dataset, Graph
    >>> from pscrub.data import Rounding
    >>> data = Dataset({"x": torch.arange(4.0)})
    >>> graph = Graph.of({"s": lambda x: x, "f": lambda s: s}, inputs=["x"], output="f")
    >>> soft = Hypothesis("soft", graph, data, Claim("f", reads=[Claim("s", Rounding("x", 2.0, "random"))]))
    >>> [feature.name for feature in random_features(soft)]
    ['x rounded to 2']
    >>> fixed = fix_offsets(soft, [0.5])
    >>> fixed.name, fixed.partitions[fixed.claim].labels.tolist()
    ('soft', [0, 1, 1, 2])
    """
    found = (claim.feature for claim in hypothesis.claims if isinstance(claim.feature, Edged))
    return tuple({id(feature): feature for feature in found if feature.is_random}.values())


def give_features(hypothesis: Hypothesis, features: Mapping[Claim, Any]) -> Hypothesis:
    """The hypothesis with other features for some of its claims; what several claims read, several read still."""
    made: dict[Claim, Claim] = {}
    for claim in hypothesis.claim.upwards():
        feature = features.get(claim, claim.feature)
        made[claim] = replace(claim, feature=feature, reads=[made[read] for read in claim.reads])
    return replace(hypothesis, claim=made[hypothesis.claim])


def place_bins(hypothesis: Hypothesis) -> Hypothesis:
    """The hypothesis whose bins with random offsets have their values at hand, so that many offsets are soon tried.

    Raises:
        HypothesisError: with every feature whose values cannot be read, or have no random offset.
    """
    placed, faults = dict[int, Edged](), list[str]()
    for claim in hypothesis.claims:
        feature = claim.feature
        if isinstance(feature, Edged) and feature.is_random and id(feature) not in placed:
            try:
                placed[id(feature)] = hypothesis.given(feature).placed(hypothesis.data)
            except DatasetError as error:
                faults += [f"claim '{claim.name}': {fault}" for fault in error.faults]
    if faults:
        raise HypothesisError(f"hypothesis '{hypothesis.name}': {fault}" for fault in faults)
    given = {claim: placed[id(claim.feature)] for claim in hypothesis.claims if id(claim.feature) in placed}
    return give_features(hypothesis, given) if given else hypothesis


def fix_offsets(hypothesis: Hypothesis, offsets: Sequence[float]) -> Hypothesis:
    """The ordinary hypothesis that given offsets make of a mixture.

    Args:
        hypothesis: a mixture, or a hypothesis that has no random offsets.
        offsets: one for each of its `random_features`, in [0, 1) of a bin.

    Raises:
        StudyError: another number of them.
    """
    features = random_features(hypothesis)
    if len(offsets) != len(features):
        raise StudyError(f"'{hypothesis.name}' has {len(features)} random offsets; {len(offsets)} were given")
    fixed = {id(feature): feature.at(float(u)) for feature, u in zip(features, offsets, strict=True)}
    given = {claim: fixed[id(claim.feature)] for claim in hypothesis.claims if id(claim.feature) in fixed}
    return give_features(hypothesis, given) if given else hypothesis


def draw_offsets(count: int, features: int, seed: int) -> Array:
    """float64 [count, features]: offsets of so many features, pair by pair.

    Uniform on [0, 1), each feature's independent of the others'. Those of the first come from count / 2 equally long
    strata, two in each, one after the other: so the two of a pair are independent and alike, and what differs between
    strata adds nothing to the error. The others' are not stratified: strata of several at once would be so many.

    Args:
        count: how many; even.
        features: how many have an offset each.
        seed: names them.
    """
    u = np.random.default_rng((seed, count)).random((count, features))
    if features:
        u[:, 0] = (np.arange(count) // 2 + u[:, 0]) / (count // 2)
    found: Array = np.minimum(u, np.nextafter(1.0, 0.0))  # the sum may round up to the next stratum
    return found
