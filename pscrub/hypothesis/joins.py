"""The join of two hypotheses: what both permit to be swapped, found by blocks and by interpretation graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from pscrub.data.partition import Partition
from pscrub.errors import HypothesisError
from pscrub.graph.graph import Graph
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis, Sharing, drop_members
from pscrub.hypothesis.isomorphism import Part, Unit, order_upwards, realise

Pair = tuple[Claim | None, Claim | None]
"""What each of two hypotheses claims about one node, at least one of them something."""
_OWN = Claim("its reader's datum", EXACT)
"""What a claim whose rest is exact says of an input that it does not speak of."""
ORDER = ("each", "reader", "all")
"""Sharing modes, those that keep more together later."""


def join(a: Hypothesis, b: Hypothesis) -> Hypothesis:
    """The hypothesis that permits a swap where both do: at each node, the common refinement of the two partitions.

    Along each path from the output: where both claim a node, rows are alike if they are alike for both. Where only one
    claims it, being unimportant to the other, which permits any swap, the claim is that one's. Where one evaluates a
    node whole, on one datum, nothing inside it may be swapped, and so the join evaluates it whole. Of two ways of
    sharing unimportant inputs, the one that keeps more together. A claimed input no longer shares the datum of the
    rest of its reader's unimportant inputs; join what `make_isomorphic` gives to refine what they share instead.

    Commutative, associative and idempotent, as laws and partitions; names are the first's, where they differ.

    Source: appendix 8, "swap-centric".

    Args:
        a: a well-formed hypothesis.
        b: another, on the same data and the same graph, or a rewrite of it.

    Raises:
        HypothesisError: the two cannot be joined: other data, rewrites that neither graph has both of, a node that one
            recomputes from its inputs and the other claims, claims that would differ between two readers of one node.

    >>> from pscrub.data.dataset import Dataset
    >>> data = Dataset({"x": torch.arange(6)})
    >>> graph = Graph.of({"s": lambda x: x * 2, "f": lambda s: s * 1.0}, inputs=["x"], output="f")
    >>> def mod(k):
    ...     return Hypothesis(f"mod {k}", graph, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % k)]))
    >>> both = join(mod(2), mod(3))
    >>> both.name, both.partitions[both.claim.reads[0]].n_blocks
    ('mod 2 and mod 3', 6)
    """
    a, b = _put_on_one_graph(a, b)
    made: dict[Any, Claim] = {}
    joined: dict[Pair, Claim] = {}
    top: Pair = (a.claim, b.claim)
    for pair in order_upwards(top, _pair_reads):
        joined[pair] = _join_claims(a, b, pair, [joined[read] for read in _pair_reads(pair)], made)
    # Where one of them claims what the other shares, it is shared no longer.
    found = drop_members(replace(a, name=_join_names(a.name, b.name), claim=joined[top], sharing=_join_sharing(a, b)))
    differing: dict[str, int] = {}
    for claim in made.values():
        differing[claim.at] = differing.get(claim.at, 0) + 1
    faults = [
        f"'{a.name}' and '{b.name}' cannot be joined on one graph: the claims about '{at}' would differ between its "
        "readers; give them copies of their own with own_copy, or use join_graphs, which makes them"
        for at, n in differing.items()
        if n > 1
    ]
    if faults:
        raise HypothesisError(faults)
    try:
        found.check(rewrites=False)
    except HypothesisError as error:
        raise HypothesisError(
            f"'{a.name}' and '{b.name}' cannot be joined: {fault}" for fault in error.faults
        ) from error
    return found


def join_graphs(a: Hypothesis, b: Hypothesis) -> Hypothesis:
    """The join by interpretation graphs: both are made alike, and each node carries the pair of their two values.

    The slow reference for `join`; it recurses as deep as claims go. A node that one of them has no claim about is added
    to it: with one value where it is unimportant to it, as the datum itself where it is inside a node that is evaluated
    whole. The graph is treeified and made isomorphic with the interpretation, so readers may differ in what they claim
    of one node.

    Source: appendix 8, "computation graph centric".

    Args:
        a: a well-formed hypothesis.
        b: another, on the same data and the same graph, or a rewrite of it.

    Raises:
        HypothesisError: as for `join`, but for readers that differ.
    """
    a, b = _put_on_one_graph(a, b)
    for each in (a, b):
        each.check(rewrites=False)
    sharing = _join_sharing(a, b)
    root = _pair_claims(a, sharing, a.graph.output, a.graph.output, _Side(a, a.claim), _Side(b, b.claim))
    return realise(replace(a, name=_join_names(a.name, b.name)), root)


def permits(hypothesis: Hypothesis, node: str, x: int, y: int) -> bool:
    """Whether a node's value on row x may be replaced by its value on row y: they are in one block of its claim.

    Args:
        hypothesis: a well-formed one.
        node: a claim's name, or the graph node that it is at; one without a claim permits every swap.
        x: a row of D.
        y: another.

    Raises:
        GraphError: neither a claim nor a node of that name.
    """
    if node not in {claim.name for claim in hypothesis.claims}:
        hypothesis.graph.known(node)
    for claim in hypothesis.claims:
        if node in (claim.name, claim.at):
            labels = hypothesis.partitions[claim].labels
            return bool(labels[x] == labels[y])
    return True


def same_claims(a: Hypothesis, b: Hypothesis) -> bool:
    """Whether two hypotheses permit the same swaps: equal partitions at the same nodes, along the same paths."""
    return signature(a) == signature(b)


def signature(hypothesis: Hypothesis) -> object:
    """What a hypothesis claims, without names: nodes, blocks and what is read, along every path; to be compared."""
    # A digest of what a claim says and of the digests of what it reads: marks nested as deep as claims go could not be
    # compared without recursing.
    marks: dict[Claim, bytes] = {}
    for claim in hypothesis.claim.upwards():
        read = sorted((each.at, marks[each]) for each in claim.reads)
        mark = hashlib.sha256(repr((claim.at, *((claim.paths, claim.rest) if read else ()), read)).encode())
        mark.update(hypothesis.partitions[claim].labels.numpy().tobytes())
        marks[claim] = mark.digest()
    return marks[hypothesis.claim], str(hypothesis.sharing)


def _pair_reads(pair: Pair) -> list[Pair]:
    """What two claims about one node read, by the node read; nothing if one of them evaluates it whole."""
    if not all(claim.reads for claim in pair if claim is not None):
        return []
    left, right = ({read.at: read for read in claim.reads} if claim else {} for claim in pair)
    rests = [_OWN if claim is not None and claim.keeps_rest else None for claim in pair]
    return [(left.get(at, rests[0]), right.get(at, rests[1])) for at in left | right]


def _join_claims(a: Hypothesis, b: Hypothesis, pair: Pair, reads: Sequence[Claim], made: dict[Any, Claim]) -> Claim:
    """The claim that two claims about one node are joined to, reading what theirs are joined to."""
    claims = [(h, c) for h, c in zip((a, b), pair, strict=True) if c is not None]
    first = next(c for _, c in claims if c is not _OWN)
    # A swap that both permit is within a block of either: within one of the common refinement. No claim permits any.
    said = (Partition.finest(a.data) if c is _OWN else h.partitions[c] for h, c in claims)
    partition = Partition.trivial(a.data).refine(*said)
    rest: Literal["unimportant", "exact"] = EXACT if any(c.keeps_rest for _, c in claims) else "unimportant"
    paths: Literal["direct", "any"] = "any" if any(c.paths == "any" and c.reads for _, c in claims) else "direct"
    # One claim object for what is claimed alike at a node, wherever it is read.
    key = (first.at, partition.labels.numpy().tobytes(), paths, rest, tuple(sorted(id(read) for read in reads)))
    if key not in made:
        plain = any(isinstance(c.feature, str) and c.feature == EXACT for _, c in claims)
        words = " and ".join(dict.fromkeys(c.feature_name for _, c in claims))
        feature = EXACT if plain else partition
        unit = any(claim.unit for _, claim in claims)  # of one node both are units, but where the user claims one anew
        name = _choose_name(a, b, first)
        made[key] = Claim(first.at, feature, reads, name=name, words=words, paths=paths, rest=rest, unit=unit)
    return made[key]


def _choose_name(a: Hypothesis, b: Hypothesis, like: Claim) -> str:
    """What a claim is called, if only claims about its node are called so; else its node."""
    unique = all(claim.at == like.at for claim in (*a.claims, *b.claims) if claim.name == like.name)
    return like.name if unique else like.at.replace("/", "|")


def _join_sharing(a: Hypothesis, b: Hypothesis) -> Sharing:
    modes = [a.sharing, b.sharing]
    maps = [{group: tuple(names) for group, names in m.items()} for m in modes if isinstance(m, Mapping)]
    if "all" in modes:
        return "all"
    if len(maps) == 2:
        groups = [{name: group for group, names in each.items() for name in names} for each in maps]
        free = [{name for claim in h.claims for name in h.unimportant(claim)} for h in (a, b)]
        # What is unimportant to both is to be shared alike; what is so to one alone is its own to share.
        if any(groups[0].get(name) != groups[1].get(name) for name in free[0] & free[1]):
            raise HypothesisError(
                f"'{a.name}' and '{b.name}' share unimportant inputs in different groups, {maps[0]} and {maps[1]}; "
                "give both the same groups"
            )
        both = groups[0] | groups[1]
        return {group: tuple(name for name in both if both[name] == group) for group in maps[0] | maps[1]}
    if maps:
        return maps[0]
    return max((m for m in modes if isinstance(m, str)), key=ORDER.index)


def _put_on_one_graph(a: Hypothesis, b: Hypothesis) -> tuple[Hypothesis, Hypothesis]:
    """The two on the later of their graphs, if one is a rewrite of the other."""
    if a.data is not b.data:
        raise HypothesisError(f"'{a.name}' and '{b.name}' are on different datasets and cannot be joined")
    if a.graph is b.graph:
        return a, b
    if a.graph in _list_earlier(b.graph):
        return _move(a, b), b
    if b.graph in _list_earlier(a.graph):
        return a, _move(b, a)
    said = [", ".join(_list_rewrites(h.graph)) or "none" for h in (a, b)]
    raise HypothesisError(
        f"'{a.name}' and '{b.name}' cannot be joined: their graphs were rewritten in ways that no graph has both of "
        f"({said[0]}; {said[1]}); make both hypotheses on one graph, rewritten for each of them"
    )


def _move(h: Hypothesis, to: Hypothesis) -> Hypothesis:
    moved = replace(h, graph=to.graph)
    try:
        moved.check(rewrites=False)
    except HypothesisError as error:
        raise HypothesisError(
            f"'{h.name}' cannot be joined with '{to.name}', whose graph was rewritten: {fault}"
            for fault in error.faults
        ) from error
    return moved


def _list_earlier(graph: Graph) -> Iterator[Graph]:
    while graph.rewrite is not None:
        graph = graph.rewrite.before
        yield graph


def _list_rewrites(graph: Graph) -> Iterator[str]:
    while graph.rewrite is not None:
        yield f"{graph.rewrite.kind} of '{graph.rewrite.node}'"
        graph = graph.rewrite.before


def _join_names(a: str, b: str) -> str:
    return a if a == b else f"{a} and {b}"


@dataclass(frozen=True)
class _Side:
    """What one of the two says of a node: a claim, or nothing, the node being inside what is drawn as one.

    Args:
        of: the hypothesis.
        claim: its claim about the node.
        inside: without a claim: of a node that is evaluated "whole", or "unimportant".
    """

    of: Hypothesis
    claim: Claim | None = None
    inside: Literal["whole", "unimportant"] = "unimportant"

    @property
    def opened(self) -> bool:
        return self.claim is not None and bool(self.claim.reads)

    @property
    def values(self) -> Tensor:
        """int64 [N]: the node's value on each row, in this one's interpretation."""
        n = self.of.data.n
        if self.claim is not None:
            return self.of.partitions[self.claim].labels
        return torch.arange(n) if self.inside == "whole" else torch.zeros(n, dtype=torch.int64)

    @property
    def keeps_rest(self) -> bool:
        """Whether what it does not speak of is the node's own datum's."""
        return self.inside == "whole" if self.claim is None else not self.claim.reads or self.claim.keeps_rest

    def below(self, at: str) -> _Side:
        """What it says of an input."""
        if self.claim is None:
            return self
        read = next((read for read in self.claim.reads if read.at == at), None)
        return _Side(self.of, read, "whole" if self.keeps_rest else "unimportant")


def _pair_claims(h: Hypothesis, sharing: Sharing, at: str, path: str, one: _Side, other: _Side) -> Part:
    """The node of the joined interpretation at a path, its value the pair of both values."""
    sides = (one, other)
    claims = [side.claim for side in sides if side.claim is not None]
    name = _choose_name(one.of, other.of, claims[0]) if claims else at.replace("/", "|")
    feature = torch.stack([side.values for side in sides], 1)
    words = " and ".join(dict.fromkeys(c.feature_name for c in claims)) or "the datum"
    opened = [side.claim for side in sides if side.opened and side.claim is not None]
    unit = any(claim.unit for claim in claims)
    if not opened:
        return Part(path, at, name, feature, words, unit=unit)
    read = dict.fromkeys(each.at for claim in opened for each in claim.reads)
    paths: Literal["direct", "any"] = "any" if any(c.paths == "any" for c in opened) else "direct"
    like = Claim(at, reads=[Claim(each) for each in read], paths=paths)
    reading = h.reading(like)
    rest, exact = reading.unimportant, [*reading.own]
    if any(side.keeps_rest for side in sides):  # every input is a node that carries the datum itself
        read |= dict.fromkeys(name for name in rest if name not in reading.apart)
        exact += [name for name in rest if name in reading.apart]
        rest = ()
    parts = tuple(_pair_claims(h, sharing, each, f"{path}/{each}", *(s.below(each) for s in sides)) for each in read)
    units = [*_list_units(path, rest, sharing)]
    if exact:
        units.append(Unit(f"unit({path}: own)", tuple(exact), feature=Partition.finest(h.data)))
    units = [replace(each, apart=reading.apart & {*each.members}) for each in units]
    return Part(path, at, name, feature, words, parts, tuple(units), unit, reading if reading.apart else None)


def _list_units(path: str, names: tuple[str, ...], sharing: Sharing) -> Iterator[Unit]:
    if sharing == "all" and names:
        yield Unit(f"unit({path}: all)", names, "all")
    elif sharing == "each":
        yield from (Unit(f"unit({path}: {name})", (name,)) for name in names)
    elif isinstance(sharing, Mapping):
        for group, members in sharing.items():
            if mine := tuple(name for name in names if name in members):
                yield Unit(f"unit({path}: {group})", mine, group)
        names = tuple(name for name in names if all(name not in members for members in sharing.values()))
    if names and (sharing == "reader" or isinstance(sharing, Mapping)):
        yield Unit(f"unit({path})", names)
