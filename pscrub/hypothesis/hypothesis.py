"""A hypothesis: an interpretation, its correspondence to a graph, and how unimportant inputs are shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from pscrub.data.bins import Bins
from pscrub.data.dataset import Dataset
from pscrub.data.features import read_feature
from pscrub.data.partition import Partition
from pscrub.errors import DatasetError, GraphError, HypothesisError, close
from pscrub.graph.equal import RewriteCheck, check_rewrites
from pscrub.graph.graph import Graph
from pscrub.graph.running import run_on_data
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.faults import find_edge_faults, find_naming_faults, find_sharing_faults, find_value_faults
from pscrub.hypothesis.reading import Reading, read_inputs
from pscrub.workers import give_back

Sharing = Literal["reader", "all", "each"] | Mapping[str, Sequence[str]]
"""Which unimportant inputs share a draw, as `Hypothesis` explains."""
READ = 256
"""Features that are read before the memory that they took is given back."""


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A claim about a graph on a dataset, ready to be checked, shown and scrubbed.

    Args:
        name: what to call it in tables.
        graph: G, extensionally equal to the behaviour f.
        data: D.
        claim: the root of the interpretation, at the graph's output.
        sharing: which unimportant inputs share a draw of their datum: "reader", one draw for all unimportant inputs of
            one tree node (the default); "all", one for the whole model; "each", one for each input of each tree node;
            or groups {name: [graph nodes]}, one draw for a group wherever it is read, the rest per reader. Members are
            nodes that are unimportant to some reader (`drop_members` leaves others out).

    >>> import torch
    >>> data = Dataset({"x": torch.tensor([1.0, 2.0, 1.0]), "y": torch.tensor([0.0, 5.0, 7.0])})
    >>> graph = Graph.of({"s": lambda x: 2 * x, "f": lambda s, y: s + y}, inputs=["x", "y"], output="f")
    >>> h = Hypothesis("s is the sign", graph, data, Claim("f", reads=[Claim("s", feature="x")]))
    >>> h.check()
    ()
    >>> h.partitions[h.claim].n_blocks
    2
    """

    name: str
    graph: Graph
    data: Dataset
    claim: Claim
    sharing: Sharing = "reader"

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """Every claim once, readers before what they read; the root is the first."""
        return tuple(reversed(self.claim.upwards()))

    @cached_property
    def partitions(self) -> Mapping[Claim, Partition]:
        """The partition of D that each claim's feature induces.

        Raises:
            HypothesisError: with every feature that cannot be read.
        """
        partitions, faults = self._partitions
        if faults:
            raise HypothesisError(faults)
        return partitions

    @cached_property
    def faults(self) -> tuple[str, ...]:
        """What makes it ill formed, in full; none if it is well formed. That its graph equals f is for `check` to say.

        Looked for once: neither a hypothesis nor what it is made of changes, and to read features may take long.
        """
        partitions, unread = self._partitions
        return (
            *find_naming_faults(self.claims, self.graph, self.data),
            *find_edge_faults(self.claims, self.graph),
            *find_sharing_faults(self.sharing, self.graph, self.claims, self.unimportant),
            *unread,
            *find_value_faults(self.claims, partitions, self.data),
        )

    def check(self, rewrites: bool = True) -> tuple[RewriteCheck, ...]:
        """How far each rewrite of the graph changed f, once the hypothesis is found to be well formed.

        Args:
            rewrites: also run every version of the graph on D to see that rewriting kept f.

        Raises:
            HypothesisError: with every fault found: unknown names, a correspondence that is not injective or not along
                the graph's paths, features that cannot be read, an interpretation node whose value is not a function
                of its inputs' values (with two rows that show it), a graph that is not equal to f on D.
        """
        faults = [*self.faults]
        checks: tuple[RewriteCheck, ...] = ()
        cause: BaseException | None = None
        if rewrites and all(isinstance(self.data.columns.get(name), Tensor) for name in self.graph.inputs):
            try:
                checks = check_rewrites(self.graph, self.data)
            except GraphError as error:
                faults, cause = [*faults, *error.faults], error.__cause__
        if faults:
            raise HypothesisError(f"hypothesis '{self.name}': {fault}" for fault in faults) from cause
        return checks

    def reading(self, claim: Claim) -> Reading:
        """What a claim's edges speak of: what its node is given, and what is computed anew on the way."""
        if claim not in self._readings:
            self._readings[claim] = read_inputs(self.graph, claim)
        return self._readings[claim]

    def inlined(self, claim: Claim) -> set[str]:
        """The graph nodes between a claim and what it reads, recomputed on the followed paths."""
        return set(self.reading(claim).inlined)

    def unimportant(self, claim: Claim) -> tuple[str, ...]:
        """The graph nodes that a claim's node reads, itself or through inlined nodes, and that no claim speaks of.

        Among them is a claimed input, if a node on another path than the claimed edge reads it too.
        """
        return self.reading(claim).unimportant

    @cached_property
    def _readings(self) -> dict[Claim, Reading]:
        return {}

    def given(self, feature: Any) -> Any:
        """A feature as the dataset alone can tell it: bins of a node's activations are given those on D.

        Raises:
            DatasetError: bins of what is neither a column nor a node.
        """
        if not isinstance(feature, Bins) or not isinstance(feature.of, str) or feature.of in self.data.columns:
            return feature
        if feature.of not in self.graph.nodes:
            known = [*self.data.columns, *self.graph.nodes]
            raise DatasetError(f"'{feature.of}' is neither a column nor a node of the graph{close(feature.of, known)}")
        return feature.on(run_on_data(self.graph, self.data, feature.of))

    @cached_property
    def _partitions(self) -> tuple[dict[Claim, Partition], list[str]]:
        """The partitions of the claims whose features can be read, and the faults of the others."""
        partitions: dict[Claim, Partition] = {}
        known: dict[Partition, Partition] = {}  # equal features share one: of thousands of claims few differ
        faults: list[str] = []
        # What is read comes first: a feature left out is made of the features below it.
        for count, claim in enumerate(reversed(self.claims), 1):
            if count % READ == 0:  # see `law.drawing.program`: else several times as much is held
                give_back()
            try:
                partition = self._partition(claim, partitions)
                partitions[claim] = known.setdefault(partition, partition)
            except DatasetError as error:
                faults += [f"claim '{claim.name}': {fault}" for fault in error.faults]
            except Exception as error:  # the user's own function: any exception is a fault of that feature
                faults.append(f"claim '{claim.name}': its feature raised {type(error).__name__}: {error}")
        return partitions, faults

    def _partition(self, claim: Claim, known: Mapping[Claim, Partition]) -> Partition:
        feature, data = claim.feature, self.data
        if feature is None:
            if not claim.reads:
                raise DatasetError("has no feature; expected one (or 'exact'), as it reads no other claim")
            if claim.keeps_rest:  # it may tell of all that its own datum has
                return Partition.finest(data)
            return Partition.trivial(data).refine(*(known[read] for read in claim.reads if read in known))
        if isinstance(feature, str):
            return Partition.finest(data) if feature == EXACT else read_feature(data, feature, f"column '{feature}'")
        return read_feature(data, self.given(feature), f"feature '{claim.feature_name}'")


def drop_members(hypothesis: Hypothesis) -> Hypothesis:
    """The hypothesis without those members of its sharing groups that are unimportant to no reader, and share nothing.

    For groups that were written for several hypotheses, or before a claim was added.

    >>> import torch
    >>> data = Dataset({"x": torch.arange(4)})
    >>> graph = Graph.of({"s": lambda x: x % 2, "t": lambda x: x // 2, "f": lambda s, t: s + t}, ["x"], "f")
    >>> claim = Claim("f", reads=[Claim("s", lambda d: d["x"] % 2)])
    >>> drop_members(Hypothesis("only s", graph, data, claim, {"terms": ["s", "t"]})).sharing
    {'terms': ['t']}
    """
    if not isinstance(hypothesis.sharing, Mapping):
        return hypothesis
    free = {name for claim in hypothesis.claims for name in hypothesis.unimportant(claim)}
    kept = {group: [name for name in names if name in free] for group, names in hypothesis.sharing.items()}
    return replace(hypothesis, sharing={group: names for group, names in kept.items() if names})
