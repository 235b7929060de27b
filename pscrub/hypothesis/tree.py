"""The treeified hypothesis: a site for each path of the interpretation and for each draw of unimportant inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pscrub.data.partition import Partition
from pscrub.hypothesis.hypothesis import Claim, Hypothesis


@dataclass(frozen=True, eq=False)
class Site:
    """One datum of the scrubbing law: a copy of the input that a tree node, or unimportant inputs, are given.

    Args:
        path: the names of the claims from the root, joined by "/"; unimportant draws end in "~...".
        parent: path of the site whose datum this one agrees with; None if it is drawn from all of D.
        partition: what it agrees on with its parent; for the root, what its feature (its output) distinguishes.
        claim: the claim of a tree node; None for unimportant inputs.
        given: for a tree node that reads others, graph node -> path of the site that gives its value.
    """

    path: str
    parent: str | None
    partition: Partition
    claim: Claim | None = None
    given: Mapping[str, str] | None = None

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

    @cached_property
    def seen(self) -> Partition:
        """What the root's children agree on with it: given the block, f depends on the root's datum no more."""
        return self.whole.refine(*(site.partition for site in self.children(self.root)))

    def children(self, path: str) -> tuple[Site, ...]:
        """The tree nodes that agree with a site's datum."""
        return tuple(site for site in self.sites.values() if site.parent == path)

    def source(self, path: str) -> tuple[str, ...]:
        """The graph nodes whose value is taken whole from a leaf's datum; empty for inner sites."""
        site = self.sites[path]
        if site.claim is not None:
            return () if site.given else (site.claim.at,)
        read = (name for other in self.sites.values() for name, p in (other.given or {}).items() if p == path)
        return tuple(dict.fromkeys(read))


def unroll(hypothesis: Hypothesis) -> Tree:
    """The treeified hypothesis, once it is found well formed.

    Source: the appendix's I^T, and its section 4.1 for the draws of unimportant inputs.

    Raises:
        HypothesisError: with every fault of the hypothesis (that its graph equals f is left to `Hypothesis.check`).

    >>> import torch
    >>> from pscrub.data.dataset import Dataset
    >>> from pscrub.graph.graph import Graph
    >>> data = Dataset({"x": torch.arange(4)})
    >>> graph = Graph.of({"s": lambda x: x % 2, "t": lambda x: x // 2, "f": lambda s, t: s + t}, ["x"], "f")
    >>> list(unroll(Hypothesis("only s", graph, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % 2)]))).sites)
    ['f', 'f/~', 'f/s']
    """
    hypothesis.check(rewrites=False)
    shared: dict[str, Site] = {}
    sites: dict[str, Site] = {}
    trivial = Partition.trivial(hypothesis.data)

    def visit(claim: Claim, path: str, parent: str | None) -> None:
        unimportant = {name: _draw_path(hypothesis, path, name) for name in hypothesis.unimportant(claim)}
        claimed = {read.at: f"{path}/{read.name}" for read in claim.reads}
        sites[path] = Site(path, parent, hypothesis.partitions[claim], claim, unimportant | claimed)
        for draw in unimportant.values():
            (shared if draw.startswith("~") else sites).setdefault(draw, Site(draw, None, trivial))
        for read in claim.reads:
            visit(read, f"{path}/{read.name}", path)

    root = hypothesis.claim.name
    visit(hypothesis.claim, root, None)
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

    A draw that several readers share agrees with the root.
    """

    def finer(site: Site) -> Site:
        if site.claim is not None:
            return replace(site, partition=site.partition.refine(partition))
        reader = site.path.rsplit("/~", 1)[0] if "/~" in site.path else tree.root
        return replace(site, parent=site.parent or reader, partition=site.partition.refine(partition))

    root = tree.sites[tree.root]
    sites = {path: finer(site) if path in paths else site for path, site in tree.sites.items() if path != tree.root}
    return Tree(tree.hypothesis, {tree.root: root} | sites, tree.root)


def draw_together(tree: Tree, everywhere: bool) -> Tree:
    """The tree whose unimportant inputs of one reader, or of all, are drawn as one."""
    free = [path for path, site in tree.sites.items() if site.claim is None]

    def merged(path: str) -> str:
        return "~all" if everywhere else f"{path.rsplit('/~', 1)[0]}/~" if "/~" in path else path

    sites: dict[str, Site] = {}
    for path in free:
        sites.setdefault(merged(path), replace(tree.sites[path], path=merged(path)))
    for path, site in tree.sites.items():
        if site.claim is not None:
            given = {name: merged(p) if p in free else p for name, p in (site.given or {}).items()}
            sites[path] = replace(site, given=given) if site.given is not None else site
    return Tree(tree.hypothesis, {tree.root: sites[tree.root]} | sites, tree.root)


def make_exact(tree: Tree, paths: Sequence[str]) -> Tree:
    """The tree whose named sites are given their parent's own datum; draws of unimportant inputs, their reader's."""
    finest = Partition.finest(tree.hypothesis.data)

    def exact(site: Site) -> Site:
        reader = site.path.rsplit("/~", 1)[0] if "/~" in site.path else tree.root
        return replace(site, parent=reader if site.parent is None else site.parent, partition=finest)

    root = tree.sites[tree.root]
    sites = {path: exact(site) if path in paths else site for path, site in tree.sites.items() if path != tree.root}
    return Tree(tree.hypothesis, {tree.root: root} | sites, tree.root)
