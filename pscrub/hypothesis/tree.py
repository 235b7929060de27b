"""The treeified hypothesis: a site for each path of the interpretation and for each draw of unimportant inputs.

`unroll` makes it. `refine`, `make_exact` and `draw_together` make other trees of one, among them such as no hypothesis
on the same graph is unrolled into.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from pscrub.data.partition import Partition
from pscrub.graph.graph import Graph
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.reading import Reading, name_apart

SHOWN = 8
"""Sites that a tree's repr lists."""
OWN = "~own"
"""What a site's path ends in that gives a reader what it reads on its own datum: where pieces are, an exact rest."""


@dataclass(frozen=True, eq=False)
class Site:
    """One datum of the scrubbing law: a copy of the input that a tree node, or unimportant inputs, are given.

    Args:
        path: the names of the claims from the root, joined by "/"; unimportant draws end in "~...".
        parent: path of the site whose datum this one agrees with; None if it is drawn from all of D.
        partition: what it agrees on with its parent; for the root, what its feature (its output) distinguishes.
        claim: the claim of a tree node; None for unimportant inputs.
        given: for a tree node that reads others, graph node -> path of the site that gives its value.
        apart: of `given`, other names of claimed inputs, by which nodes on paths that no claim speaks of read them.
        reading: what the claim's edges speak of, if there are any such names.
    """

    path: str
    parent: str | None
    partition: Partition
    claim: Claim | None = None
    given: Mapping[str, str] | None = None
    apart: Mapping[str, str] = field(default_factory=dict)
    reading: Reading | None = None

    def around(self, graph: Graph) -> Graph:
        """The graph by which its value is computed from what it is given: G, or one with the names that stand apart."""
        return graph if self.reading is None else self.reading.around(graph)

    @property
    def is_leaf(self) -> bool:
        """Whether the datum is a copy of the input that the scrubbed graph is run on."""
        return not self.given


@dataclass(frozen=True, eq=False)
class Tree:
    """The sites of a treeified hypothesis, parents before children.

    Args:
        hypothesis: what was unrolled.
        sites: path -> site.
        root: the root's path.
    """

    hypothesis: Hypothesis
    sites: Mapping[str, Site]
    root: str

    @property
    def leaves(self) -> tuple[str, ...]:
        """Paths of the sites whose data are the scrubbed inputs, x_1 to x_n."""
        return tuple(path for path, site in self.sites.items() if site.is_leaf)

    @cached_property
    def whole(self) -> Partition:
        """D as one block, which the root's datum is drawn from."""
        return Partition.trivial(self.hypothesis.data)

    @property
    def is_determined(self) -> bool:
        """Whether the root's datum fixes all others: the blocks of every other site have one row that can be drawn."""
        others = (site.partition.sizes for path, site in self.sites.items() if path != self.root)
        return all(int(sizes.max()) <= 1 for sizes in others)

    @cached_property
    def seen(self) -> Partition:
        """What the root's children agree on with it: given the block, f depends on the root's datum no more."""
        return self.whole.refine(*(site.partition for site in self.children(self.root)))

    def children(self, path: str) -> tuple[Site, ...]:
        """The tree nodes that agree with a site's datum."""
        return self._children.get(path, ())

    def source(self, path: str) -> tuple[str, ...]:
        """The graph nodes whose value is taken whole from a leaf's datum; empty for inner sites."""
        site = self.sites[path]
        if site.claim is not None:
            return () if site.given else (site.claim.at,)
        return self._taken.get(path, ())

    def reader(self, path: str) -> str:
        """Path of the tree node that reads a draw of unimportant inputs; the root's, if a draw is shared.

        A draw that tree nodes share agrees with none of them more than with another. What they all stand below is the
        root.
        """
        return path.rsplit("/~", 1)[0] if "/~" in path else self.root

    @cached_property
    def _children(self) -> Mapping[str, tuple[Site, ...]]:
        """Path -> the sites whose parent it is, in the order of the tree."""
        found: dict[str, list[Site]] = {}
        for site in self.sites.values():
            if site.parent is not None:
                found.setdefault(site.parent, []).append(site)
        return {parent: tuple(sites) for parent, sites in found.items()}

    @cached_property
    def _taken(self) -> Mapping[str, tuple[str, ...]]:
        """Path -> the graph nodes whose values some tree node takes from that site, each once."""
        found: dict[str, dict[str, None]] = {}
        for site in self.sites.values():
            for name, path in (site.given or {}).items():
                found.setdefault(path, {})[site.apart.get(name, name)] = None
        return {path: tuple(names) for path, names in found.items()}

    def __repr__(self) -> str:
        counts = f"{_count(len(self.sites), 'site')}, {_count(len(self.leaves), 'leaf', 'leaves')}"
        lines = [f"Tree of '{self.hypothesis.name}': {counts}"]
        for path, site in list(self.sites.items())[:SHOWN]:
            drawn = "unimportant inputs" if site.parent is None else "its reader's own"
            said = drawn if site.claim is None else site.claim.feature_name
            lines.append(f"  {path}: {said}, {_count(site.partition.n_blocks, 'block')}")
        if len(self.sites) > SHOWN:
            lines.append(f"  and {len(self.sites) - SHOWN:,} more")
        return "\n".join(lines)


def unroll(hypothesis: Hypothesis) -> Tree:
    """The treeified hypothesis, once it is found well formed.

    Source: the appendix's I^T (section 5), and its section 4.1 for the draws of unimportant inputs.

    Raises:
        HypothesisError: with every fault of the hypothesis (that its graph equals f is left to `Hypothesis.check`).

    >>> import torch
    >>> from pscrub.data.dataset import Dataset
    >>> from pscrub.graph.graph import Graph
    >>> data = Dataset({"x": torch.arange(4)})
    >>> graph = Graph.of({"s": lambda x: x % 2, "t": lambda x: x // 2, "f": lambda s, t: s + t}, ["x"], "f")
    >>> unroll(Hypothesis("only s", graph, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % 2, words="parity")])))
    Tree of 'only s': 3 sites, 2 leaves
      f: what its inputs determine, 2 blocks
      f/~: unimportant inputs, 1 block
      f/s: parity, 2 blocks
    """
    hypothesis.check(rewrites=False)
    trivial, finest = Partition.trivial(hypothesis.data), Partition.finest(hypothesis.data)
    shared: dict[str, Site] = {}
    sites: dict[str, Site] = {}
    root = hypothesis.claim.name
    # I^T has one node for each path from the root of I, so that a claim with two readers becomes two sites, whose data
    # are drawn apart. Depth first, as read: the hash of a law goes over the sites in this order. A stack, as a chain of
    # claims may be longer than Python recurses.
    waiting: list[tuple[Claim, str, str | None]] = [(hypothesis.claim, root, None)]
    while waiting:
        claim, path, parent = waiting.pop()
        reading = hypothesis.reading(claim)
        apart = {name_apart(name): name for name in (*reading.unimportant, *reading.own) if name in reading.apart}
        # In the graph's order; what is apart stands where its node does.
        others = {name: each for each, name in apart.items()}
        unimportant = {others.get(name, name): _draw_path(hypothesis, path, name) for name in reading.unimportant}
        claimed = {read.at: f"{path}/{read.name}" for read in claim.reads}
        # The datum of u is drawn from the block of u's value that its parent's datum is in; the root's from all of D.
        # G^T's node c(u) is given its important inputs by the sites of their claims, the others by draws of their own.
        own = {others.get(name, name): f"{path}/{OWN}" for name in reading.own}
        given = unimportant | own | claimed
        sites[path] = Site(path, parent, hypothesis.partitions[claim], claim, given, apart, reading if apart else None)
        # 4.1: unimportant inputs are resampled from all of D, agreeing with nothing. Which of them one draw is for,
        # (R, S) and (X, Y) or all four, is the hypothesis's to say: inputs of one draw have one path.
        for draw in unimportant.values():
            (shared if draw.startswith("~") else sites).setdefault(draw, Site(draw, None, trivial))
        for draw in own.values():
            sites[draw] = Site(draw, path, finest)
        waiting += [(read, f"{path}/{read.name}", path) for read in reversed(claim.reads)]
    # A draw that is no one reader's own stands before all that read it.
    return Tree(hypothesis, shared | sites, root)


def _draw_path(hypothesis: Hypothesis, path: str, name: str) -> str:
    """The path of the site that draws the datum of an unimportant input."""
    sharing = hypothesis.sharing
    if isinstance(sharing, Mapping):
        group = next((group for group, members in sharing.items() if name in members), None)
        return f"{path}/~" if group is None else f"~{group}"
    return {"reader": f"{path}/~", "each": f"{path}/~{name}", "all": "~all"}[sharing]


def refine(tree: Tree, paths: Sequence[str], partition: Partition) -> Tree:
    """The tree whose named sites also agree with their parents on a feature; draws of unimportant inputs, their reader.

    A draw that several readers share agrees with the root. The root's own datum stays drawn from all of D.

    Source: appendix 8, where a claim is joined to a hypothesis; for unimportant inputs after the rewriting of 4.2.
    """
    return _change(tree, paths, lambda site: site.partition.refine(partition))


def make_exact(tree: Tree, paths: Sequence[str]) -> Tree:
    """The tree whose named sites are given their parent's own datum; draws of unimportant inputs, their reader's."""
    finest = Partition.finest(tree.hypothesis.data)
    return _change(tree, paths, lambda site: finest)


def draw_together(tree: Tree, everywhere: bool) -> Tree:
    """The tree whose unimportant inputs of one reader, or of all, are drawn as one.

    Source: appendix 4.1; fewer draws permit fewer swaps, and so claim less.
    """

    def merged(path: str) -> str:
        # A draw that readers share already is no one reader's to merge.
        return "~all" if everywhere else f"{tree.reader(path)}/~" if "/~" in path else path

    free = {p: merged(p) for p, site in tree.sites.items() if site.claim is None and site.parent is None}
    sites: dict[str, Site] = {}
    # The first of the draws that become one stands for them: as unrolled, all are alike, drawn from all of D.
    for path, new in free.items():
        sites.setdefault(new, replace(tree.sites[path], path=new))
    for path, site in tree.sites.items():
        if site.claim is not None:
            # Of a leaf `given` is empty, and stays so.
            given = {name: free.get(source, source) for name, source in (site.given or {}).items()}
            sites[path] = replace(site, given=given) if site.given is not None else site
        elif path not in free:
            sites[path] = site
    return _put_together(tree, sites)


def _change(tree: Tree, paths: Collection[str], agreed: Callable[[Site], Partition]) -> Tree:
    """The tree whose named sites, but for the root, agree on other blocks with their parents or readers."""

    def changed(site: Site) -> Site:
        # 4.2: what a reader's unimportant inputs are combined into is a node of I that the reader reads. So once such a
        # draw agrees with a datum at all, it is its reader's, as if a claim stood there.
        return replace(site, parent=site.parent or tree.reader(site.path), partition=agreed(site))

    chosen = set(paths) - {tree.root}
    return _put_together(tree, {path: changed(site) if path in chosen else site for path, site in tree.sites.items()})


def _put_together(tree: Tree, sites: Mapping[str, Site]) -> Tree:
    """A tree of these sites, the root first.

    Shared draws, which stand before the root when a hypothesis is unrolled, may now agree with it: parents come before
    children.
    """
    return replace(tree, sites={tree.root: sites[tree.root], **sites})


def _count(n: int, what: str, several: str = "") -> str:
    return f"{n:,} {what if n == 1 else several or what + 's'}"
