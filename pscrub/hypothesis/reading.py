"""What a claim's edges speak of: which values a reader is given, and what is computed anew on the way.

"Direct" is the edge alone. The edge from a claimed input to its reader is claimed; where a node that is computed anew
on the way reads that input too, it is another path, of which nothing is said, and is the rest's: an unimportant input.
An input that is no edge away is followed along every path that meets no claimed input. Slices, copies and pieces that
rewrites made are seen through: an edge stays one however the value was cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pscrub.graph.graph import Graph, Node
from pscrub.graph.ops import Opened
from pscrub.graph.places import Told, only_moves
from pscrub.hypothesis.claim import Claim

_CUTS: WeakKeyDictionary[Node, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Reading:
    """How a claim's node is computed from what it reads.

    Args:
        at: the node.
        edge: nodes seen through on claimed edges, and the node itself: what is claimed is read by these.
        inlined: all nodes computed anew on the way.
        unimportant: what these read that no claim speaks of, in the graph's order.
        own: what is read on the reader's own datum: columns that tell where pieces are put, and all that no claim
            speaks of where the rest is exact.
        apart: of the unimportant and the own, claimed inputs (or what was cut of them) as nodes on other paths read
            them.
    """

    at: str
    edge: frozenset[str] = frozenset()
    inlined: frozenset[str] = frozenset()
    unimportant: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    apart: frozenset[str] = frozenset()

    def around(self, graph: Graph) -> Graph:
        """The graph in which nodes on other paths read what is apart by another name; the graph itself if none do."""
        if not self.apart:
            return graph
        nodes = list[Node]()
        for name in (self.at, *sorted(self.inlined)):
            node = graph.nodes[name]
            if name not in self.edge:
                inputs = tuple(name_apart(each) if each in self.apart else each for each in node.inputs)
                node = Node(name, inputs, node.fn, node.view)
            nodes.append(node)
        inside = {node.name for node in nodes}
        return Graph(nodes, [*dict.fromkeys(r for n in nodes for r in n.inputs if r not in inside)], self.at)


def name_apart(name: str) -> str:
    """What a claimed input is called where it is read on a path that no claim speaks of.

    >>> name_apart("a")
    'a, unclaimed'
    """
    return f"{name}, unclaimed"


def read_inputs(graph: Graph, claim: Claim) -> Reading:
    """What a claim's edges speak of.

    Args:
        graph: G.
        claim: about one of its nodes.
    """
    # A claim that reads nothing has no inputs at all in I^T but its datum: its node is taken whole from there.
    if not claim.reads:
        return Reading(claim.at)
    claimed = {read.at for read in claim.reads}
    between = graph.ancestors(claim.at, claimed) - claimed
    edge, near = {claim.at}, set[str]()
    if claim.paths != "any":
        edge, near = _find_edges(graph, claim.at, claimed, _lead_to(graph, between, claimed))
    along = _lead_to(graph, between, claimed - near)
    inside = edge | along
    unimportant, apart = set[str](), set[str]()
    for name in inside:
        for read in graph.reads(name):
            if name in edge:
                if read not in inside and read not in claimed:
                    unimportant.add(read)
            elif read in near or read in edge:
                apart.add(read)
            elif read not in along and read not in claimed:
                unimportant.add(read)
    placing = {name for name in unimportant if name in graph.nodes and isinstance(graph.nodes[name].fn, Told)}
    left = unimportant | apart
    ordered = [name for name in (*graph.inputs, *graph.nodes) if name in left] if left else []
    own = left if claim.keeps_rest else placing
    return Reading(
        claim.at,
        frozenset(edge),
        frozenset(inside - {claim.at}),
        tuple(name for name in ordered if name not in own),
        tuple(name for name in ordered if name in own),
        frozenset(apart),
    )


def find_far(graph: Graph, claim: Claim) -> set[str]:
    """What a claim reads that is no edge away, slices, copies and pieces seen through.

    Args:
        graph: G.
        claim: about one of its nodes, all that it reads on paths to it.
    """
    claimed = {read.at for read in claim.reads}
    between = graph.ancestors(claim.at, claimed) - claimed
    return claimed - _find_edges(graph, claim.at, claimed, _lead_to(graph, between, claimed))[1]


def _find_edges(graph: Graph, at: str, claimed: set[str], leading: set[str]) -> tuple[set[str], set[str]]:
    """What is seen through between a node and the inputs that are an edge away, the node too; and those inputs."""
    body, waiting = {at}, [at] if _is_cut(graph, at) else []
    while waiting:  # a node that is cut out of another computes what that does
        for read in graph.reads(waiting.pop()):
            if read in leading and read not in body:
                body.add(read)
                waiting += [read] if _is_cut(graph, read) else []
    edge, near = set(body), set[str]()
    through: dict[str, set[str]] = {}

    def find(name: str) -> set[str]:
        """The claimed inputs that a node only moves entries of."""
        if name in claimed:
            return {name}
        if name not in through:
            cut = name in leading and _is_cut(graph, name)
            through[name] = set().union(*(find(read) for read in graph.reads(name))) if cut else set()
        return through[name]

    stack = [*body]
    while stack:
        for read in graph.reads(stack.pop()):
            found = find(read)
            near |= found
            if found and read not in claimed and read not in edge:
                edge.add(read)
                stack.append(read)
    return edge, near


def _lead_to(graph: Graph, between: Iterable[str], aims: set[str]) -> set[str]:
    """Which of some nodes depend on what is aimed at, by way of the others."""
    readers: dict[str, list[str]] = {}
    for name in between:
        for read in graph.reads(name):
            readers.setdefault(read, []).append(name)
    found, stack = set[str](), [*aims]
    while stack:
        for reader in readers.get(stack.pop(), ()):
            if reader not in found:
                found.add(reader)
                stack.append(reader)
    return found


def _is_cut(graph: Graph, name: str) -> bool:
    """Whether a node is a slice, a copy or a piece of what it reads."""
    node = graph.nodes.get(name)
    if node is None or isinstance(node.fn, Told) or not isinstance(node.fn, Opened):
        return False
    if node not in _CUTS:
        _CUTS[node] = only_moves(node)
    return _CUTS[node]
