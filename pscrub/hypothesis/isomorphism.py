"""Hypotheses whose interpretation and graph match node for node, as the unimportant inputs are nodes of both."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pscrub.data.dataset import Dataset
from pscrub.data.partition import Partition
from pscrub.graph.graph import Graph, Node, Rewrite
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis, Sharing
from pscrub.hypothesis.reading import Reading, name_apart
from pscrub.hypothesis.tree import unroll

T = TypeVar("T", bound=Hashable)
UNIT = "nothing (one value)"
"""What a unit-valued node is said to carry."""


@dataclass(frozen=True, eq=False)
class Unit:
    """Unimportant inputs of one reader that share a datum.

    Args:
        name: of the node that they are combined into.
        members: graph nodes or columns.
        group: the draw that readers share with one another, if they do; such a node is left without a claim.
        apart: of the members, claimed inputs that nodes on other paths read.
        feature: what it agrees on with its reader; None for nothing.
    """

    name: str
    members: tuple[str, ...]
    group: str | None = None
    apart: frozenset[str] = frozenset()
    feature: Any = None


@dataclass(frozen=True, eq=False)
class Part:
    """A node of the interpretation with the graph node that it is to have of its own.

    Args:
        name: of the new graph node.
        at: the node, or column, of the old graph whose value it has.
        claim: name of the claim.
        feature: what is claimed.
        words: what to call it.
        reads: the important inputs.
        units: the unimportant ones; both empty if it is evaluated whole.
        unit: its claim is one that such rewriting made of unimportant inputs before.
        reading: what its claim's edges speak of, where some inputs are read apart.
    """

    name: str
    at: str
    claim: str
    feature: Any
    words: str
    reads: tuple[Part, ...] = ()
    units: tuple[Unit, ...] = ()
    unit: bool = False
    reading: Reading | None = None


def make_isomorphic(hypothesis: Hypothesis) -> Hypothesis:
    """The same hypothesis on a graph with one node for each claim, and one unit-valued node for unimportant inputs.

    The unimportant inputs of a reader that share a datum are combined into one node, with all that they are computed
    from, and the interpretation is given a node there that takes one value only. A claim that reads nothing becomes a
    node computed from the columns. The law of the data and f stay as they were: a site `<path>/~` becomes
    `<path>/unit(<node>)`, whose block is all of D.

    Draws that several readers share cannot be nodes of the treeified interpretation, which would draw each anew: their
    combined nodes stay without a claim, in named groups.

    Source: appendix 4.2.

    Args:
        hypothesis: a well-formed one.

    Raises:
        HypothesisError: with every fault of the hypothesis.

    >>> data = Dataset({"x": torch.arange(4)})
    >>> graph = Graph.of({"s": lambda x: x % 2, "t": lambda x: x // 2, "f": lambda s, t: s + t}, ["x"], "f")
    >>> h = Hypothesis("only s", graph, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % 2)]))
    >>> matched = make_isomorphic(h)
    >>> list(unroll(matched).sites), list(matched.graph.nodes)
    (['f', 'f/s', 'f/unit(f)'], ['s', 'unit(f)', 'f'])
    """
    tree = unroll(hypothesis)
    # A draw with several readers gives them one datum, which no node of a tree can: it has one reader.
    readers: dict[str, int] = {}
    for site in tree.sites.values():
        for draw in set((site.given or {}).values()):
            readers[draw] = readers.get(draw, 0) + 1
    made: dict[Claim, Part] = {}
    for path, site in reversed(list(tree.sites.items())):
        claim = site.claim
        if claim is None or claim in made:
            continue
        # 4.2: unimportant inputs that share a datum become one node, the same at every path that leads to the claim.
        units: dict[str, list[str]] = {}
        for name, source in (site.given or {}).items():
            if tree.sites[source].claim is None:
                units.setdefault(source, []).append(site.apart.get(name, name))
        alone = {source: readers[source] == 1 or source.startswith(path) for source in units}
        made[claim] = Part(
            claim.at,
            claim.at,
            claim.name,
            claim.feature
            if _is_plain(claim.feature) and not (claim.feature is None and hypothesis.reading(claim).own)
            else hypothesis.partitions[claim],
            claim.feature_name,
            tuple(made[read] for read in claim.reads),
            tuple(
                Unit(
                    _name_unit(claim.at, source),
                    tuple(names),
                    None if alone[source] else source[1:],
                    frozenset(names) & frozenset(site.apart.values()),
                    None if tree.sites[source].parent is None else tree.sites[source].partition,
                )
                for source, names in units.items()
            ),
            claim.unit,
            site.reading,
        )
    return realise(hypothesis, made[hypothesis.claim])


def realise(hypothesis: Hypothesis, root: Part) -> Hypothesis:
    """The hypothesis whose graph has just the nodes of an interpretation, each computed from what its node reads.

    Args:
        hypothesis: gives the graph that values are computed with, the data and the name.
        root: the interpretation's root.
    """
    graph, data = hypothesis.graph, hypothesis.data
    layouts = _find_layouts(graph, data)
    nodes: dict[str, Node] = {}
    claims: dict[Part, Claim] = {}
    groups: dict[str, list[str]] = {}
    for part in order_upwards(root, lambda part: part.reads):
        reads = [claims[each] for each in part.reads]
        for unit in part.units:
            nodes[unit.name] = Node(unit.name, graph.inputs, _Packed(graph, unit.members))
            if unit.group is None:
                # "unit type": I's node there takes one value, so that any datum is in its block.
                agreed, words = unit.feature, UNIT if unit.feature is None else EXACT
                agreed = Partition.trivial(data) if agreed is None else agreed
                reads.append(Claim(unit.name, agreed, name=unit.name.replace("/", "|"), words=words, unit=True))
            else:
                groups.setdefault(unit.group, []).append(unit.name)
        claims[part] = Claim(part.name, part.feature, reads, name=part.claim, words=part.words, unit=part.unit)
        if part.name in graph.inputs:
            continue
        if not part.reads and not part.units:
            nodes[part.name] = Node(part.name, graph.inputs, _Packed(graph, (part.at,)))
        else:
            apart = [tuple(name_apart(m) if m in u.apart else m for m in u.members) for u in part.units]
            given = [*((r.at,) for r in part.reads), *apart]
            inputs = (*(r.name for r in part.reads), *(u.name for u in part.units))
            known = {
                n: layouts[m]
                for u, ns in zip(part.units, apart, strict=True)
                for n, m in zip(ns, u.members, strict=True)
            }
            around = graph if part.reading is None else part.reading.around(graph)
            nodes[part.name] = Node(part.name, inputs, _Computed(around, part.at, given, known))
    new = Graph(nodes.values(), graph.inputs, root.name, Rewrite("isomorphic", graph.output, graph))
    sharing: Sharing = groups or "reader"
    return replace(hypothesis, graph=new, claim=claims[root], sharing=sharing)


def order_upwards(root: T, below: Callable[[T], Iterable[T]]) -> list[T]:
    """All that is at and below a root once, each after what is below it; depth first, as `below` lists it.

    >>> order_upwards(5, lambda n: [n - 1, n - 2] if n > 1 else [])
    [1, 0, 2, 3, 4, 5]
    """
    # A stack of its own, as in `Claim.upwards`: what is below may go deeper than Python recurses.
    done: dict[T, None] = {}
    waiting = [(root, iter(below(root)))]
    while waiting:
        each, left = waiting[-1]
        following = next((one for one in left if one not in done), None)
        if following is None:
            done[each] = None
            waiting.pop()
        else:
            waiting.append((following, iter(below(following))))
    return list(done)


def _is_plain(feature: Any) -> bool:
    return feature is None or (isinstance(feature, str) and feature == EXACT)


def _name_unit(at: str, source: str) -> str:
    """`unit(reader)`, and the draw's own name where it has one."""
    own = source.rsplit("~", 1)[-1]
    return f"unit({at}: {own})" if own else f"unit({at})"


Layout = tuple[torch.dtype, torch.Size]


def _find_layouts(graph: Graph, data: Dataset) -> Mapping[str, Layout]:
    """The dtype of every node's and column's value, and its shape but for the batch."""
    given = {name: data[name][:2] for name in graph.inputs}
    with torch.no_grad():
        values = given | graph.to("cpu").run(list(graph.nodes), given)
    return {name: (value.dtype, value.shape[1:]) for name, value in values.items()}


class _Steps(nn.Module):
    """Part of a graph as one function. A module, so that the parameters of the functions inside are moved with it."""

    def __init__(self, graph: Graph, names: Sequence[str], given: Sequence[str]) -> None:
        super().__init__()
        self.steps = [graph.nodes[name] for name in graph.order(names, given) if name in graph.nodes]
        self.inside = nn.ModuleList(node.fn for node in self.steps if isinstance(node.fn, nn.Module))

    def run(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        for node in self.steps:
            values[node.name] = node.fn(*(values[name] for name in node.inputs))
        return values


class _Packed(_Steps):
    """Named values of a graph from its columns: as it is if there is one, else byte by byte side by side."""

    def __init__(self, graph: Graph, members: Sequence[str]) -> None:
        super().__init__(graph, members, graph.inputs)
        self.columns, self.members = graph.inputs, tuple(members)

    def forward(self, *columns: Tensor) -> Tensor:
        values = self.run(dict(zip(self.columns, columns, strict=True)))
        if len(self.members) == 1:
            return values[self.members[0]]
        rows = len(columns[0])
        # Bytes, so that values of any dtypes are put back exactly as they were.
        flat = [values[name].reshape(rows, -1).contiguous().view(torch.uint8) for name in self.members]
        return torch.cat(flat, 1)


class _Computed(_Steps):
    """A node's value from its important inputs and from packs of unimportant ones."""

    def __init__(self, graph: Graph, at: str, given: Sequence[tuple[str, ...]], layouts: Mapping[str, Layout]) -> None:
        super().__init__(graph, [at], [name for members in given for name in members])
        self.at, self.given = at, tuple(given)
        self.layouts = layouts

    def forward(self, *packs: Tensor) -> Tensor:
        values: dict[str, Tensor] = {}
        for members, pack in zip(self.given, packs, strict=True):
            if len(members) == 1:
                values[members[0]] = pack
                continue
            start = 0
            for name in members:
                dtype, shape = self.layouts[name]
                size = shape.numel() * dtype.itemsize
                values[name] = pack[:, start : start + size].clone().view(dtype).reshape(len(pack), *shape)
                start += size
        return self.run(values)[self.at]
