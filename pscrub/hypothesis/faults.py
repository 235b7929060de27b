"""What makes a hypothesis ill formed: names, the correspondence, how draws are shared, the interpretation's values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.data.partition import Partition
from pscrub.errors import close
from pscrub.graph.graph import Graph
from pscrub.hypothesis.claim import EXACT, Claim


def find_naming_faults(claims: Sequence[Claim], graph: Graph, data: Dataset) -> Iterator[str]:
    """Faults of names: a root that is not f, unknown nodes and columns, a correspondence that is not injective.

    Args:
        claims: every claim of a hypothesis once, the root first.
        graph: G.
        data: D.
    """
    if claims[0].at != graph.output:
        yield f"its root claim is at '{claims[0].at}'; expected the graph's output '{graph.output}'"
    for column in graph.inputs:
        if column not in data.columns:
            yield f"the graph reads column '{column}', which the dataset lacks{close(column, data.columns)}"
        elif not isinstance(data.columns[column], Tensor):
            yield f"the graph reads column '{column}', which holds strings; a graph can only read tensors"
    for claim in claims:
        if claim.at not in graph:
            match = close(claim.at, [*graph.nodes, *graph.inputs])
            yield f"claim '{claim.name}' is at unknown node '{claim.at}'{match}"
        if claim.name.startswith("~") or "/" in claim.name:
            yield f"claim name '{claim.name}' must not start with '~' or contain '/': paths are made of names"
        if claim.paths not in ("direct", "any"):
            yield f"claim '{claim.name}' has paths='{claim.paths}'; expected 'direct' or 'any'"
        if claim.rest not in ("unimportant", EXACT):
            yield f"claim '{claim.name}' has rest='{claim.rest}'; expected 'unimportant' or 'exact'"
        for what, names in (("name", [r.name for r in claim.reads]), ("node", [r.at for r in claim.reads])):
            for twice in sorted(name for name, times in Counter(names).items() if times > 1):
                yield f"claim '{claim.name}' reads two claims of the same {what} '{twice}'"
    # c is injective: a node of G that two claims sit at would have to carry two values on one path.
    sits: dict[str, list[str]] = {}
    for claim in claims:
        sits.setdefault(claim.at, []).append(f"'{claim.name}' ({claim.feature_name})")
    for at, who in sits.items():
        if len(who) > 1:
            yield (
                f"the correspondence is not injective: claims {' and '.join(who)} both sit at '{at}'; "
                "use one Claim object for both, or give their readers copies with own_copy"
            )


def find_edge_faults(claims: Sequence[Claim], graph: Graph) -> Iterator[str]:
    """Faults of the correspondence's edges: a claim that reads another, where no path of the graph leads so.

    Args:
        claims: of a hypothesis.
        graph: G.
    """
    for claim in claims:
        if claim.at not in graph or not claim.reads:
            continue
        # An edge of I stands for the paths of G that meet no other claim that is read: those carry that claim's value.
        reached = graph.ancestors(claim.at, {read.at for read in claim.reads})
        for read in claim.reads:
            if read.at in graph and read.at not in reached:
                inputs = ", ".join(graph.reads(claim.at)) or "nothing"
                yield (
                    f"claim '{claim.name}' reads claim '{read.name}', but in the graph no path leads from "
                    f"'{read.at}' to '{claim.at}' (which reads {inputs}) other than through claims it also reads"
                )


def find_sharing_faults(
    sharing: object, graph: Graph, claims: Sequence[Claim], unimportant: Callable[[Claim], Sequence[str]]
) -> Iterator[str]:
    """Faults of how unimportant inputs are said to share their draws: an unknown mode, groups that are none.

    A member that no claim's node reads as an unimportant input would share nothing, and look as if it did.

    Args:
        sharing: as it was given.
        graph: G.
        claims: of a hypothesis.
        unimportant: a claim's unimportant inputs; asked only of claims about nodes that the graph has.
    """
    if not isinstance(sharing, Mapping):
        if sharing not in ("reader", "all", "each"):
            yield f"sharing is {sharing!r}; expected 'reader', 'all', 'each' or groups {{name: [graph nodes]}}"
        return
    for group, members in sharing.items():
        if isinstance(members, str):
            yield f"sharing: group '{group}' is '{members}'; expected a list of graph nodes"
            return
    members = [name for group in sharing.values() for name in group]
    for name in sorted(set(members)):
        if members.count(name) > 1:
            yield f"sharing: '{name}' is in two groups"
        if name not in graph:
            yield f"sharing: unknown node '{name}'{close(name, [*graph.nodes, *graph.inputs])}"
    if any(claim.at not in graph for claim in claims):
        return
    free = {name for claim in claims for name in unimportant(claim)}
    for name in sorted(set(members) - free):
        claimed = [f"'{claim.name}'" for claim in claims if claim.at == name]
        if name in graph:
            what = f"it is claimed ({' and '.join(claimed)})" if claimed else "no claim's node reads it unclaimed"
            yield f"sharing: '{name}' shares no draw, as {what}; leave it out{close(name, sorted(free))}"


def find_value_faults(claims: Sequence[Claim], partitions: Mapping[Claim, Partition], data: Dataset) -> Iterator[str]:
    """Faults of the interpretation: a node whose value is not a function of its inputs' values, with two rows to show.

    Args:
        claims: of a hypothesis.
        partitions: of D by each claim's feature; claims whose feature could not be read are passed over.
        data: D.
    """
    for claim in claims:
        if not claim.reads or any(each not in partitions for each in (claim, *claim.reads)):
            continue
        if claim.keeps_rest:  # of the datum itself everything is a function
            continue
        # u is a function of its inputs iff rows that agree on all of them agree on u: iff their blocks refine u's.
        inputs = Partition.trivial(data).refine(*(partitions[read] for read in claim.reads))
        pair = inputs.split_pair(partitions[claim])
        if pair is not None:
            read = ", ".join(f"'{each.name}'" for each in claim.reads)
            yield (
                f"claim '{claim.name}' ({claim.feature_name}) is not a function of what it reads: rows {pair[0]} "
                f"and {pair[1]} agree on {read} and differ in it; leave its feature out, or coarsen it"
            )
