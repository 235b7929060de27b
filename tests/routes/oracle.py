"""The recursion of causal scrubbing, said literally: plain Python, rational arithmetic, complete enumeration.

It shares no code with the package and imports only the standard library. A `Case` is plain data: rows and weights (D),
a graph of integer functions (G), claims (I and c), and how unimportant inputs share their draws. Rows are told apart by
their number, so two equal rows are two data.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

Sharing = Literal["reader", "all", "each"] | Mapping[str, tuple[str, ...]]
Fault = Literal["parent_block", "root_block", "other_row", "weights", "per_node", "copy"]
FAULTS: tuple[Fault, ...] = ("parent_block", "root_block", "other_row", "weights", "per_node", "copy")


@dataclass(frozen=True)
class Polynomial:
    """An integer polynomial, reduced by `modulus` unless that is 0. Works on ints and elementwise on int64 tensors."""

    terms: tuple[tuple[int, tuple[int, ...]], ...]  # (coefficient, exponent of each input)
    modulus: int = 0

    def __call__(self, *inputs: Any) -> Any:
        total = inputs[0] * 0
        for coefficient, exponents in self.terms:
            product = coefficient
            for value, exponent in zip(inputs, exponents, strict=True):
                for _ in range(exponent):
                    product = product * value
            total = total + product
        return total % self.modulus if self.modulus else total


@dataclass(frozen=True)
class GraphNode:
    inputs: tuple[str, ...]
    fn: Polynomial


@dataclass(frozen=True)
class CaseClaim:
    at: str  # a column or a graph node
    feature: tuple[int, ...]  # the feature's label on each row
    reads: tuple[str, ...] = ()  # claims
    paths: Literal["direct", "any"] = "direct"
    rest: Literal["unimportant", "exact"] = "unimportant"


@dataclass(frozen=True, eq=False)
class Case:
    columns: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    weights: tuple[int, ...]
    nodes: Mapping[str, GraphNode]  # in topological order, the output last
    claims: Mapping[str, CaseClaim]
    root: str  # a claim at the output
    sharing: Sharing = "reader"


@dataclass(frozen=True)
class Site:
    """A datum to be drawn. `origin` is what it is a copy of: only a faulty recursion looks at it."""

    name: str
    claim: str | None  # None: unimportant inputs
    parent: str | None
    origin: tuple[str, ...]


def prior(case: Case) -> list[Fraction]:
    """D: the probability of each row."""
    return [Fraction(weight, sum(case.weights)) for weight in case.weights]


def tally(outcomes: Iterable[tuple[Any, Fraction]]) -> dict[Any, Fraction]:
    """The law that gives each outcome the sum of its probabilities."""
    total: dict[Any, Fraction] = {}
    for outcome, p in outcomes:
        total[outcome] = total.get(outcome, Fraction(0)) + p
    return total


def mean(table: Mapping[int, Fraction]) -> Fraction:
    """The mean of a law of numbers."""
    return sum((value * p for value, p in table.items()), Fraction(0))


def values(case: Case) -> dict[str, list[int]]:
    """The value of every column and node of G on every row."""
    table = {name: [row[i] for row in case.rows] for i, name in enumerate(case.columns)}
    for name, node in case.nodes.items():
        table[name] = [node.fn(*(table[i][row] for i in node.inputs)) for row in range(len(case.rows))]
    return table


def inputs_of(case: Case, name: str) -> tuple[str, ...]:
    return case.nodes[name].inputs if name in case.nodes else ()


def reads_through(case: Case, node: str, target: str, claimed: Collection[str]) -> bool:
    """Whether `node` reads `target`, directly or through nodes that are not claimed."""
    inputs = inputs_of(case, node)
    return target in inputs or any(i not in claimed and reads_through(case, i, target, claimed) for i in inputs)


def inlined(case: Case, claim: CaseClaim) -> frozenset[str]:
    """The graph nodes that `claim` recomputes: those between it and its far claimed nodes (with "any", all of them)."""
    claimed, near = {case.claims[read].at for read in claim.reads}, inputs_of(case, claim.at)
    far = [c for c in claimed if claim.paths == "any" or c not in near]
    between = {n for n in case.nodes if n not in claimed and reads_through(case, claim.at, n, claimed)}
    return frozenset(n for n in between if any(reads_through(case, n, c, claimed) for c in far))


def carries(case: Case, claim: CaseClaim, reader: str, node: str) -> bool:
    """Whether `reader`, computed anew for `claim`, is given the claimed value of the claimed `node` that it reads.

    An edge of I that is an edge of G stands for that edge alone: c maps it there, and to no other. One that G has no
    edge for, or that is said of any path, stands for every path.
    """
    return reader == claim.at or claim.paths == "any" or node not in inputs_of(case, claim.at)


def unimportant(case: Case, claim: CaseClaim) -> tuple[str, ...]:
    """The unimportant inputs of a claim with reads: what it, or a node inlined into it, reads and nothing claims."""
    claimed, between = {case.claims[read].at for read in claim.reads}, inlined(case, claim)
    found: list[str] = []

    def look(node: str) -> None:
        for i in inputs_of(case, node):
            if i in between:
                look(i)
            elif not (i in claimed and carries(case, claim, node, i)) and i not in found:
                found.append(i)

    if claim.reads:
        look(claim.at)
    return tuple(found)


def drawn_at(case: Case, path: str, node: str) -> str:
    """The site whose datum the unclaimed graph input `node` of the tree node `path` is evaluated on."""
    if case.claims[path.rpartition("/")[2]].rest == "exact":
        return path
    if case.sharing == "all":
        return "~all"
    if case.sharing == "each":
        return f"{path}/~{node}"
    if isinstance(case.sharing, Mapping):
        for group, members in case.sharing.items():
            if node in members:
                return f"~{group}"
    return f"{path}/~"


def treeify(case: Case) -> list[Site]:
    """Every datum to be drawn: shared ones in order of first use, then the tree, depth first."""
    shared: dict[str, Site] = {}
    own: dict[str, Site] = {}

    def unroll(name: str, parent: str | None) -> None:
        path = name if parent is None else f"{parent}/{name}"
        own[path] = Site(path, name, parent, (name,))
        for node in unimportant(case, case.claims[name]):
            site = drawn_at(case, path, node)
            if site == path:
                continue
            place = shared if site.startswith("~") else own
            place.setdefault(site, Site(site, None, None, (name, site.rpartition("/")[2])))
        for read in case.claims[name].reads:
            unroll(read, path)

    unroll(case.root, None)
    return [*shared.values(), *own.values()]


def sites(case: Case) -> list[str]:
    """The names of all data, in the order of the laws' tuples."""
    return [site.name for site in treeify(case)]


def leaves(case: Case) -> list[str]:
    """The names of the leaves, whose data are the scrubbed input: claims without reads, and unimportant inputs."""
    return [site.name for site in treeify(case) if site.claim is None or not case.claims[site.claim].reads]


def law(case: Case, fault: Fault | None = None) -> dict[tuple[int, ...], Fraction]:
    """The probability of each tuple of data (row numbers, in the order of `sites`), wrong on purpose with a `fault`."""
    plan = treeify(case)
    position = {site.name: i for i, site in enumerate(plan)}
    weights = [Fraction(1)] * len(case.rows) if fault == "weights" else prior(case)
    possible = [row for row, p in enumerate(prior(case)) if p]
    first = {site.origin: i for i, site in reversed(list(enumerate(plan)))}

    def alike(feature: tuple[int, ...], row: int) -> dict[int, Fraction]:
        """D, restricted to the rows with the feature of `row`."""
        block = [other for other in range(len(case.rows)) if feature[other] == feature[row] and weights[other]]
        total = sum((weights[other] for other in block), Fraction(0))
        return {other: weights[other] / total for other in block}

    anything = alike((0,) * len(case.rows), 0)
    within = {name: [alike(claim.feature, row) for row in range(len(case.rows))] for name, claim in case.claims.items()}

    def draw(site: Site, data: tuple[int, ...]) -> dict[int, Fraction]:
        if first[site.origin] < len(data) and fault == ("per_node" if site.claim is None else "copy"):
            return {data[first[site.origin]]: Fraction(1)}
        if site.claim is None or site.parent is None:
            return anything
        datum = data[position[site.parent]]
        if fault == "parent_block":
            return within[site.parent.rpartition("/")[2]][datum]
        if fault == "root_block":
            datum = data[position[case.root]]
        if fault == "other_row":
            datum = next((row for row in possible if row > datum), possible[0])
        return within[site.claim][datum]

    drawn = {(): Fraction(1)}
    for site in plan:
        drawn = {(*data, row): p * q for data, p in drawn.items() for row, q in draw(site, data).items()}
    return drawn


def marginal(table: Mapping[tuple[int, ...], Fraction], positions: Sequence[int]) -> dict[tuple[int, ...], Fraction]:
    """The law of some of the data."""
    return tally((tuple(data[i] for i in positions), p) for data, p in table.items())


def leaf_law(case: Case, fault: Fault | None = None) -> dict[tuple[int, ...], Fraction]:
    """The law of the scrubbed input: the data of `leaves`, in that order."""
    names = sites(case)
    return marginal(law(case, fault), [names.index(leaf) for leaf in leaves(case)])


def scrubbed(case: Case) -> Callable[[tuple[int, ...]], int]:
    """f as a function of the data, by the recursion of the main post."""
    table, position = values(case), {name: i for i, name in enumerate(sites(case))}
    between = {name: inlined(case, claim) for name, claim in case.claims.items()}

    def f(data: tuple[int, ...]) -> int:
        def tree_value(name: str, path: str) -> int:
            claim = case.claims[name]
            if not claim.reads:
                return table[claim.at][data[position[path]]]
            children = {case.claims[read].at: read for read in claim.reads}

            def read_value(reader: str, node: str) -> int:
                if node in children and carries(case, claim, reader, node):
                    return tree_value(children[node], f"{path}/{children[node]}")
                if node in between[name]:
                    return apply(node)
                return table[node][data[position[drawn_at(case, path, node)]]]

            def apply(node: str) -> int:
                return case.nodes[node].fn(*(read_value(node, i) for i in case.nodes[node].inputs))

            return apply(claim.at)

        return tree_value(case.root, case.root)

    return f


def distribution_of_f(case: Case, fault: Fault | None = None) -> dict[int, Fraction]:
    """The distribution of f under the scrubbing law."""
    f = scrubbed(case)
    return tally((f(data), p) for data, p in law(case, fault).items())


def expectation(case: Case, fault: Fault | None = None) -> Fraction:
    """E_scrubbed: the mean of f under the scrubbing law."""
    return mean(distribution_of_f(case, fault))


def e_model(case: Case) -> Fraction:
    """E_model: the mean of f under D."""
    return mean(tally(zip(values(case)[case.claims[case.root].at], prior(case), strict=True)))


def e_randomised(case: Case) -> Fraction:
    """The mean of f where its node inputs are of one row and its column inputs of another, independent one."""
    table, f = values(case), case.nodes[case.claims[case.root].at]
    pairs = itertools.product(enumerate(prior(case)), repeat=2)
    return sum(
        (p * q * f.fn(*(table[i][y if i in case.columns else x] for i in f.inputs)) for (x, p), (y, q) in pairs),
        Fraction(0),
    )


def wire_laws(case: Case) -> dict[str, tuple[dict[Any, Fraction], dict[Any, Fraction]]]:
    """Each site's law of its inputs (of the datum itself at a leaf) and of its output, when I runs on one row of D."""
    laws, rows = {}, range(len(case.rows))
    for site in treeify(case):
        claim = case.claims[site.claim] if site.claim else CaseClaim("", (0,) * len(rows))
        read = [case.claims[child].feature for child in claim.reads] or [tuple(rows)]
        laws[site.name] = (
            tally(zip(zip(*read, strict=True), prior(case), strict=True)),
            tally(zip(claim.feature, prior(case), strict=True)),
        )
    return laws


def entropy(table: Mapping[Any, Fraction]) -> float:
    """The entropy of a law, in nats."""
    return -math.fsum(float(p) * math.log(p) for p in table.values() if p)


def wire_entropies(case: Case) -> dict[str, tuple[float, float]]:
    """Each site's entropy of its inputs and of its output, in nats."""
    return {name: (entropy(inputs), entropy(output)) for name, (inputs, output) in wire_laws(case).items()}
