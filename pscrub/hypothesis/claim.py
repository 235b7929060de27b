"""A claim: a node of the interpretation, where it sits in the graph, and what it is said to compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

EXACT: Literal["exact"] = "exact"
"""The feature that nothing but the row itself agrees with; said of a claim's rest, nothing of it is swapped."""


@dataclass(frozen=True, eq=False)
class Claim:
    """A node of the interpretation: where it sits in the graph, what it is claimed to compute, and from what.

    Two inputs that agree on `feature` are claimed to be interchangeable at the node. One object read by two claims is
    one interpretation node, treeified into two; a graph node may carry one claim only.

    Args:
        at: the graph node or dataset column that the claim is about (its correspondence).
        feature: the claimed value on each row: values [N] or [N, k]; a function of the dataset that returns them; the
            name of a column; a Partition; bins of real values (`data.bins`); or "exact" (nothing but the row itself
            agrees). Left out, it is all that the claims it reads determine, which only a claim that reads others can
            leave out. Of real values hardly any two rows agree: a claim that is to swap them says bins.
        reads: the claims at the inputs that matter. Every other input of the node is unimportant. A claim that reads
            none is about the whole node, which is evaluated on one datum.
        name: its name in paths and tables; the graph node's by default.
        words: what to call the feature in tables; its column's or function's name by default.
        paths: "direct" claims the edge alone where the graph has one: where a node that is recomputed on the way reads
            that input too, it reads it as any other unimportant input. To an input that is no edge away every path is
            followed that meets no claimed input. "any" follows every path to all of them. Nodes on followed paths are
            recomputed, their other inputs unimportant. Slices, copies and pieces that rewrites made are seen through.
        rest: what becomes of the inputs that the claim does not speak of: "unimportant", they are resampled; "exact",
            they are those of the node's own datum, as if each were claimed exact. A feature may then tell of all that
            the datum has, and one left out is the datum itself. A claim that reads none has no rest.
        unit: the claim is a node that isomorphic rewriting made of unimportant inputs (see `make_isomorphic`).
    """

    at: str
    feature: Any = None
    reads: Sequence[Claim] = ()
    name: str = field(default="", kw_only=True)
    words: str = field(default="", kw_only=True)
    paths: Literal["direct", "any"] = field(default="direct", kw_only=True)
    rest: Literal["unimportant", "exact"] = field(default="unimportant", kw_only=True)
    unit: bool = field(default=False, kw_only=True)

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
            return EXACT if self.keeps_rest else "what its inputs determine"
        return str(getattr(self.feature, "__name__", type(self.feature).__name__.lower() + " of values"))

    @property
    def keeps_rest(self) -> bool:
        """Whether nothing of what the claim does not speak of may be swapped."""
        return self.rest == EXACT and bool(self.reads)

    def upwards(self) -> tuple[Claim, ...]:
        """The claim and every claim below it once, each after what it reads.

        >>> below = Claim("x")
        >>> [each.at for each in Claim("f", reads=[Claim("s", reads=[below]), Claim("t", reads=[below])]).upwards()]
        ['x', 's', 't', 'f']
        """
        # A stack of its own: a chain of claims may be longer than Python recurses. A claim with several readers is
        # gone through once, as the paths to it may be exponentially many.
        done: dict[Claim, None] = {}
        stack: list[tuple[Claim, Iterator[Claim]]] = [(self, iter(self.reads))]
        while stack:
            claim, left = stack[-1]
            read = next((each for each in left if each not in done), None)
            if read is None:
                done[claim] = None
                stack.pop()
            else:
                stack.append((read, iter(read.reads)))
        return tuple(done)


def is_exact(claim: Claim) -> bool:
    """Whether a claim says itself that nothing may be swapped, or says what claims that do so determine."""
    if claim.feature is None:
        return claim.keeps_rest or any(is_exact(read) for read in claim.reads)
    return isinstance(claim.feature, str) and claim.feature == EXACT
