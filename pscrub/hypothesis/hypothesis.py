"""A hypothesis: an interpretation, its correspondence to a graph, and how unimportant inputs are shared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.data.partition import Partition
from pscrub.errors import DatasetError, GraphError, HypothesisError, close
from pscrub.graph.equal import RewriteCheck, check_rewrites
from pscrub.graph.graph import Graph

Sharing = Literal["reader", "all", "each"] | Mapping[str, Sequence[str]]
EXACT = "exact"


@dataclass(frozen=True, eq=False)
class Claim:
    """A node of the interpretation: where it sits in the graph, what it is claimed to compute, and from what.

    Two inputs that agree on `feature` are claimed to be interchangeable at the node. One object read by two claims is
    one interpretation node, treeified into two; a graph node may carry one claim only.

    Args:
        at: the graph node or dataset column that the claim is about (its correspondence).
        feature: the claimed value on each row: values [N] or [N, k]; a function of the dataset that returns them; the
            name of a column; a Partition; or "exact" (nothing but the row itself agrees). Left out, it is all that the
            claims it reads determine, which only a claim that reads others can leave out.
        reads: the claims at the inputs that matter. Every other input of the node is unimportant. A claim that reads
            none is about the whole node, which is evaluated on one datum.
        name: its name in paths and tables; the graph node's by default.
        words: what to call the feature in tables; its column's or function's name by default.
        paths: "direct" follows an edge of the graph where there is one, and otherwise every path to the claimed input;
            "any" follows every path even then. Nodes on followed paths are recomputed, their other inputs unimportant.
    """

    at: str
    feature: Any = None
    reads: Sequence[Claim] = ()
    name: str = field(default="", kw_only=True)
    words: str = field(default="", kw_only=True)
    paths: Literal["direct", "any"] = field(default="direct", kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", tuple(self.reads))
        object.__setattr__(self, "name", self.name or self.at)

    @property
    def feature_name(self) -> str:
        """A few words for the feature: its own, or its column, its function's name, "exact", or how it was given."""
        if self.words:
            return self.words
        if isinstance(self.feature, str):
            return self.feature
        if self.feature is None:
            return "what its inputs determine"
        return str(getattr(self.feature, "__name__", type(self.feature).__name__.lower() + " of values"))


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
            or groups {name: [graph nodes]}, one draw for a group wherever it is read, the rest per reader.

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
        """Every claim once, readers before what they read."""
        return tuple(reversed(dict.fromkeys(_upwards(self.claim))))

    @cached_property
    def partitions(self) -> Mapping[Claim, Partition]:
        """The partition of D that each claim's feature induces.

        Raises:
            HypothesisError: with every feature that cannot be read.
        """
        partitions, faults = self._partitions()
        if faults:
            raise HypothesisError(faults)
        return partitions

    def check(self, rewrites: bool = True) -> tuple[RewriteCheck, ...]:
        """How far each rewrite of the graph changed f, once the hypothesis is found to be well formed.

        Args:
            rewrites: also run every version of the graph on D to see that rewriting kept f.

        Raises:
            HypothesisError: with every fault found: unknown names, a correspondence that is not injective or not along
                the graph's paths, features that cannot be read, an interpretation node whose value is not a function
                of its inputs' values (with two rows that show it), a graph that is not equal to f on D.
        """
        faults = [*self._naming_faults(), *self._edge_faults(), *self._sharing_faults()]
        partitions, unread = self._partitions()
        faults += [*unread, *self._value_faults(partitions)]
        checks: tuple[RewriteCheck, ...] = ()
        if rewrites and all(isinstance(self.data.columns.get(name), Tensor) for name in self.graph.inputs):
            try:
                checks = check_rewrites(self.graph, self.data)
            except GraphError as error:
                faults += error.faults
        if faults:
            raise HypothesisError(f"hypothesis '{self.name}': {fault}" for fault in faults)
        return checks

    def inlined(self, claim: Claim) -> set[str]:
        """The graph nodes between a claim and what it reads, recomputed on the followed paths."""
        graph, direct = self.graph, self.graph.reads(claim.at)
        claimed = {read.at for read in claim.reads}
        followed = {at for at in claimed if claim.paths == "any" or at not in direct}
        between = graph.ancestors(claim.at, claimed) - claimed
        return {name for name in between if graph.ancestors(name, claimed) & followed}

    def unimportant(self, claim: Claim) -> tuple[str, ...]:
        """The graph nodes that a claim's node reads, itself or through inlined nodes, and that no claim speaks of."""
        if not claim.reads:
            return ()
        inside = {claim.at, *self.inlined(claim)}
        read = {name for node in inside for name in self.graph.reads(node)}
        outside = read - inside - {each.at for each in claim.reads}
        return tuple(name for name in (*self.graph.inputs, *self.graph.nodes) if name in outside)

    def _naming_faults(self) -> Iterator[str]:
        graph, data = self.graph, self.data
        if self.claim.at != graph.output:
            yield f"its root claim is at '{self.claim.at}'; expected the graph's output '{graph.output}'"
        for column in graph.inputs:
            if column not in data.columns:
                yield f"the graph reads column '{column}', which the dataset lacks{close(column, data.columns)}"
            elif not isinstance(data.columns[column], Tensor):
                yield f"the graph reads column '{column}', which holds strings; a graph can only read tensors"
        for claim in self.claims:
            if claim.at not in graph:
                match = close(claim.at, [*graph.nodes, *graph.inputs])
                yield f"claim '{claim.name}' is at unknown node '{claim.at}'{match}"
            if claim.name.startswith("~") or "/" in claim.name:
                yield f"claim name '{claim.name}' must not start with '~' or contain '/': paths are made of names"
            if claim.paths not in ("direct", "any"):
                yield f"claim '{claim.name}' has paths='{claim.paths}'; expected 'direct' or 'any'"
            for what, names in (("name", [r.name for r in claim.reads]), ("node", [r.at for r in claim.reads])):
                for twice in sorted({name for name in names if names.count(name) > 1}):
                    yield f"claim '{claim.name}' reads two claims of the same {what} '{twice}'"
        sits: dict[str, list[str]] = {}
        for claim in self.claims:
            sits.setdefault(claim.at, []).append(f"'{claim.name}' ({claim.feature_name})")
        for at, who in sits.items():
            if len(who) > 1:
                yield (
                    f"the correspondence is not injective: claims {' and '.join(who)} both sit at '{at}'; "
                    "use one Claim object for both, or give their readers copies with own_copy"
                )

    def _edge_faults(self) -> Iterator[str]:
        for claim in self.claims:
            if claim.at not in self.graph:
                continue
            reached = self.graph.ancestors(claim.at, {read.at for read in claim.reads})
            for read in claim.reads:
                if read.at in self.graph and read.at not in reached:
                    inputs = ", ".join(self.graph.reads(claim.at)) or "nothing"
                    yield (
                        f"claim '{claim.name}' reads claim '{read.name}', but in the graph no path leads from "
                        f"'{read.at}' to '{claim.at}' (which reads {inputs}) other than through claims it also reads"
                    )

    def _sharing_faults(self) -> Iterator[str]:
        if not isinstance(self.sharing, Mapping):
            if self.sharing not in ("reader", "all", "each"):
                yield f"sharing is {self.sharing!r}; expected 'reader', 'all', 'each' or groups {{name: [graph nodes]}}"
            return
        for group, members in self.sharing.items():
            if isinstance(members, str):
                yield f"sharing: group '{group}' is '{members}'; expected a list of graph nodes"
                return
        members = [name for group in self.sharing.values() for name in group]
        for name in sorted(set(members)):
            if members.count(name) > 1:
                yield f"sharing: '{name}' is in two groups"
            if name not in self.graph:
                yield f"sharing: unknown node '{name}'{close(name, [*self.graph.nodes, *self.graph.inputs])}"

    def _partitions(self) -> tuple[dict[Claim, Partition], list[str]]:
        partitions: dict[Claim, Partition] = {}
        faults: list[str] = []
        for claim in reversed(self.claims):
            try:
                partitions[claim] = self._partition(claim, partitions)
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
            return Partition.trivial(data).refine(*(known[read] for read in claim.reads if read in known))
        if isinstance(feature, str):
            return (
                Partition.finest(data) if feature == EXACT else Partition.of(data[feature], data, f"column '{feature}'")
            )
        values = feature(data) if callable(feature) else feature
        if isinstance(values, Partition):
            if len(values.labels) != data.n:
                raise DatasetError(f"its partition has {len(values.labels)} rows, the dataset {data.n}")
            return Partition(values.labels, data.weights)
        return Partition.of(values, data, f"feature '{claim.feature_name}'")

    def _value_faults(self, partitions: Mapping[Claim, Partition]) -> Iterator[str]:
        for claim in self.claims:
            if not claim.reads or any(each not in partitions for each in (claim, *claim.reads)):
                continue
            inputs = Partition.trivial(self.data).refine(*(partitions[read] for read in claim.reads))
            pair = inputs.split_pair(partitions[claim])
            if pair is not None:
                read = ", ".join(f"'{each.name}'" for each in claim.reads)
                yield (
                    f"claim '{claim.name}' ({claim.feature_name}) is not a function of what it reads: rows {pair[0]} "
                    f"and {pair[1]} agree on {read} and differ in it; leave its feature out, or coarsen it"
                )


def _upwards(claim: Claim) -> Iterator[Claim]:
    for read in claim.reads:
        yield from _upwards(read)
    yield claim
