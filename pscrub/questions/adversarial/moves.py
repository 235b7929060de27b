"""Claims that can be joined to a hypothesis one at a time, and the hypothesis joined with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pscrub.data.partition import Partition
from pscrub.errors import HypothesisError
from pscrub.estimate.estimate import Estimate
from pscrub.hypothesis.claim import Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.isomorphism import make_isomorphic
from pscrub.hypothesis.tree import Tree, draw_together, refine, unroll

EVERYWHERE = "all nodes"
"""Where a claim is that is joined to every node."""
LEAST = 0.05
"""Bits that a claim counts as giving up at least."""


@dataclass(frozen=True, eq=False)
class Move:
    """One claim joined to a hypothesis, and what that did to E_scrubbed.

    Args:
        feature: what the claim adds; "one datum" where it is that unimportant inputs are drawn together.
        where: the nodes it is about.
        partition: of D by the feature; None for inputs drawn together.
        paths: the sites of the treeified hypothesis that it refines.
        difference: of E_scrubbed, joined less not joined, in f's units; intervals of one search hold together.
        points: the same in points of loss recovered; None where that has no meaning.
        bits: of scrubbed entropy that the claim gives up: how much it forbids.
    """

    feature: str
    where: str
    partition: Partition | None
    paths: tuple[str, ...]
    difference: Estimate
    points: Estimate | None = None
    bits: float = 0.0

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return not self.difference.low <= 0 <= self.difference.high


Option = tuple[Move, Tree]


def with_moves(hypothesis: Hypothesis, moves: Sequence[Move]) -> Hypothesis:
    """The hypothesis joined with moves, on its isomorphic graph, where unimportant inputs are nodes with claims.

    Raises:
        HypothesisError: a claim about unimportant inputs whose draw several readers share, which no tree of claims has.
    """
    for move in moves:
        if move.partition is None:
            mode: Literal["reader", "all"] = "all" if move.where == EVERYWHERE else "reader"
            hypothesis = replace(hypothesis, sharing=mode)
    tree, same = unroll(hypothesis), make_isomorphic(hypothesis)
    refined: dict[str, list[Partition]] = {}
    for move in moves:
        for path in move.paths if move.partition is not None else ():
            reader, _, draw = path.rpartition("/")
            at = tree.sites[path].claim.at if path in tree.sites and tree.sites[path].claim else ""  # type: ignore[union-attr]
            if not at and not reader:
                raise HypothesisError(f"no hypothesis has a claim about '{path}', a draw that several readers share")
            if not at:
                of = tree.sites[reader].claim
                assert of is not None
                at = f"unit({of.at}: {draw[1:]})" if draw[1:] else f"unit({of.at})"
            assert move.partition is not None
            refined.setdefault(at, []).append(move.partition)
    made: dict[Claim, Claim] = {}
    for claim in reversed(same.claims):
        more = refined.get(claim.at, [])
        feature = same.partitions[claim].refine(*more) if more else claim.feature
        words = " and ".join(dict.fromkeys((claim.feature_name, *(m.feature for m in moves if m.partition in more))))
        made[claim] = replace(claim, feature=feature, reads=[made[r] for r in claim.reads], words=words)
    name = ", ".join((hypothesis.name, *(f"and {move.feature} at {move.where}" for move in moves)))
    return replace(same, name=name, claim=made[same.claim])


def options(
    tree: Tree,
    at: Mapping[str, tuple[str, ...]],
    given: Mapping[str, Partition],
    local: Mapping[str, Mapping[str, Partition]],
    sharing: bool,
) -> Iterator[Option]:
    """Every move that changes a site's blocks, each change once."""
    nothing = Estimate(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, "")
    seen: set[object] = set()
    for where, paths in at.items():
        paths = tuple(path for path in paths if path in tree.sites)  # draws that were put together are gone
        for name, partition in {**given, **local.get(where, {})}.items():
            finer = refine(tree, paths, partition)
            changed = [(p, finer.sites[p].partition) for p in paths]
            changed = [(p, new) for p, new in changed if new != tree.sites[p].partition]
            mark = frozenset((p, new.labels.numpy().tobytes()) for p, new in changed)
            if changed and mark not in seen:
                seen.add(mark)
                yield Move(name, where, partition, paths, nothing), finer
    free = [path for path, site in tree.sites.items() if site.claim is None and site.parent is None]
    # Claims that were joined to some of the draws would be lost by drawing them as one.
    if sharing and len(free) > 1 and all(tree.sites[path].parent is None for path in tree.sites if "~" in path):
        readers = {path.rsplit("/~", 1)[0] for path in free}
        if len(readers) < len(free):
            yield (
                Move("one datum", "unimportant inputs of each reader", None, tuple(free), nothing),
                draw_together(tree, False),
            )
        if len(readers) > 1:
            yield Move("one datum", EVERYWHERE, None, tuple(free), nothing), draw_together(tree, True)


def places(tree: Tree) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Where claims are tried, in words, and the sites there."""
    groups: dict[tuple[Claim | None, str | None], list[str]] = {}
    for path, site in tree.sites.items():
        if path == tree.root or (site.claim is not None and site.given):
            continue
        reader, _, draw = path.rpartition("/")
        key = (site.claim, None) if site.claim else (tree.sites[reader].claim if reader else None, draw)
        groups.setdefault(key, []).append(path)
    every = [path for path in tree.sites if path != tree.root]
    for (of, of_draw), paths in groups.items():
        if of is not None and of_draw is None:
            words = of.name
        else:
            rest = (of_draw or "")[1:] or "all that is unimportant"
            words = f"{rest}, to {of.name}" if of is not None else f"{rest}, unimportant"
        determined = _find_determined(tree, paths)
        yield words, (*determined, *paths)
        on_the_way = {tree.sites[up].claim for path in paths for up in _above(path) if up != tree.root}
        if on_the_way:
            carried = [p for p in every if tree.sites[p].claim in on_the_way]
            yield f"{words}, carried from the output", (*carried, *paths)
    alike: dict[Partition, list[Claim]] = {}
    for of, of_draw in groups:
        if of is not None and of_draw is None:
            alike.setdefault(tree.hypothesis.partitions[of], []).append(of)
    for partition, claims in alike.items():
        if len(claims) > 1 and int(partition.sizes.max()) > 1:
            words = " and ".join(claim.name for claim in claims[:3]) + (", ..." if len(claims) > 3 else "")
            paths = [path for claim in claims for path in groups[claim, None]]
            yield words, (*_find_determined(tree, paths), *paths)
    if len(groups) > 1:
        yield EVERYWHERE, tuple(every)


def _find_determined(tree: Tree, paths: Sequence[str]) -> tuple[str, ...]:
    """The sites above some whose claims are what their inputs determine, and so become finer with them."""
    claims: set[Claim] = set()
    for path in paths:
        for up in _above(path):
            claim = tree.sites[up].claim
            if up == tree.root or claim is None or claim.feature is not None:
                break
            claims.add(claim)
    return tuple(path for path, site in tree.sites.items() if site.claim in claims)


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rsplit("/", 1)[0]
        if path:
            yield path


def names(tree: Tree, paths: Sequence[str]) -> Iterator[str]:
    """The claims and graph nodes that sites are about."""
    for path in paths:
        site = tree.sites[path]
        of = site.claim or (tree.sites[path.rsplit("/", 1)[0]].claim if "/" in path else None)
        if of is not None:
            yield from (of.name, of.at)
