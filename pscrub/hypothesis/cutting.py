"""A claim's real values cut into bins: one hypothesis for each number of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch

from pscrub.data.bins import RANDOM, Array, Bins, Clusters, Quantiles, Rounding
from pscrub.data.numbers import name_values, read_numbers
from pscrub.data.partition import Partition
from pscrub.errors import DatasetError, HypothesisError, StudyError, close
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.mixtures import give_features

By = Literal["quantiles", "rounding", "clusters"]
WAYS: tuple[str, ...] = get_args(By)
KINDS: dict[type[Any], str] = {Quantiles: "quantiles", Rounding: "rounding", Clusters: "clusters"}


@dataclass(frozen=True, eq=False)
class Cutting:
    """A claim of a hypothesis whose real values are to be cut.

    Args:
        hypothesis: the hypothesis.
        claim: one of its claims.
        values: float64 [N, entries], the claim's.
        by: how: "quantiles", "rounding" or "clusters".
        seed: of clusters.
    """

    hypothesis: Hypothesis
    claim: Claim
    values: Array
    by: str
    seed: int = 0

    @classmethod
    def of(cls, hypothesis: Hypothesis, name: str | None = None, by: str | None = None, seed: int = 0) -> Cutting:
        """The claim that is meant, and its values.

        Args:
            hypothesis: the hypothesis.
            name: the claim's, or its node's; left out, the one claim whose feature is bins.
            by: how to cut; left out, as the claim's bins are, else by quantiles.
            seed: of clusters.

        Raises:
            HypothesisError: none is meant, or one without real values.
            StudyError: an unknown way.
        """
        claim = find_claim(hypothesis, name)
        feature, data = claim.feature, hypothesis.data
        way = by or KINDS.get(type(feature), WAYS[0])
        if way not in WAYS:
            raise StudyError(f"unknown way '{way}'{close(way, WAYS)}; one of {', '.join(WAYS)}")
        try:
            if feature is None or isinstance(feature, Partition) or (isinstance(feature, str) and feature == EXACT):
                raise DatasetError("has no values to cut; expected numbers as its feature, or bins of them")
            given = hypothesis.given(feature)
            values = given.values(data) if isinstance(given, Bins) else read_numbers(given, data, claim.feature_name)
        except DatasetError as error:
            faults = [f"hypothesis '{hypothesis.name}': claim '{claim.name}': {fault}" for fault in error.faults]
            raise HypothesisError(faults) from error
        return cls(hypothesis, claim, values, way, seed)

    @property
    def distinct(self) -> int:
        """Distinct values of positive weight: of the entry that has most, or for clusters of all together."""
        possible = self.values[self.hypothesis.data.weights.numpy() > 0]
        if self.by == "clusters":
            return len(np.unique(possible, axis=0))
        return max(len(np.unique(column)) for column in possible.T)

    def into(self, bins: Sequence[int], soft: bool = False) -> dict[str, tuple[int | None, bool, Hypothesis]]:
        """Name -> bins, whether their offset is random, and the hypothesis; last of all each value by itself.

        Args:
            bins: numbers of them.
            soft: also with a random offset each.

        Raises:
            StudyError: clusters with a random offset.
        """
        if soft and self.by == "clusters":
            raise StudyError("clusters have no edges that an offset could move; take quantiles or rounding")
        found: dict[str, tuple[int | None, bool, Hypothesis]] = {}
        for random in (False, True) if soft else (False,):
            for k in bins:
                name = f"{k}, random offset" if random else str(k)
                found[name] = k, random, self._given(name, self.feature(k, random))
        found["every value"] = None, False, self._given("every value", torch.from_numpy(self.values))
        return found

    def feature(self, bins: int, random: bool = False) -> Bins:
        """The claim's values in so many bins.

        Rounding is to the range of the values (of the entry that has the largest) over the number of bins, from each
        entry's least value on.
        """
        values = name_values(self.values, self.claim.feature_name)
        if self.by == "clusters":
            return Clusters(values, bins, self.seed)
        if self.by == "quantiles":
            return Quantiles(values, bins, RANDOM if random else 0.0)
        possible = self.values[self.hypothesis.data.weights.numpy() > 0]
        low, span = possible.min(0), float(np.ptp(possible, axis=0).max())
        width = (span or 1.0) / bins * (1 + 1e-6)  # the greatest value is in the last bin, and not on its upper edge
        return Rounding(values, width, RANDOM if random else tuple(np.mod(low / width, 1.0).tolist()))

    def _given(self, name: str, feature: Any) -> Hypothesis:
        return replace(give_features(self.hypothesis, {self.claim: feature}), name=name)


def find_claim(hypothesis: Hypothesis, name: str | None = None) -> Claim:
    """The claim of that name, or at that node; without one, the one whose feature is bins.

    Raises:
        HypothesisError: there is none, or there are several.
    """
    claims = hypothesis.claims
    if name is None:
        found = [c for c in claims if isinstance(c.feature, Bins)]
    else:
        found = [c for c in claims if c.name == name] or [c for c in claims if c.at == name]
    if len(found) != 1:
        known = ", ".join(f"'{c.name}'" for c in claims)
        wanted = "one claim whose feature is bins" if name is None else f"one claim '{name}'"
        raise HypothesisError(f"hypothesis '{hypothesis.name}': expected {wanted}, found {len(found)} of {known}")
    return found[0]
