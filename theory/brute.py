"""The recursion of causal scrubbing, run through completely in rational numbers. It shares no code with the package.

A law is a dictionary: tuple of rows, one for each site in the order of `sites` -> probability. Laws of some sites or of
wire values are dictionaries as well, and all of them are compared with ==.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from theory.case import Case

Law = dict[tuple[Any, ...], Fraction]
Rows = tuple[int, ...]
Kernel = tuple[tuple[Fraction, ...], ...]
"""The law of a datum, given each row as the parent's."""


@dataclass(frozen=True)
class Site:
    """A datum to be drawn.

    Args:
        path: names of claims from the root; ends in "~..." for unimportant inputs.
        claim: the claim, None for unimportant inputs.
        parent: the path of the site it agrees with; None for the root and for unimportant inputs.
        reads: paths of what the node reads in I^T: unimportant draws are nodes there, with a value that says nothing.
            A draw that many share is listed under the root.
        is_leaf: whether it reads a datum and nothing else.
    """

    path: str
    claim: str | None
    parent: str | None
    reads: tuple[str, ...]
    is_leaf: bool


@cache
def sites(case: Case) -> tuple[Site, ...]:
    """Every datum to be drawn, parents first, draws that are shared last."""
    return unrolled(case)


def unrolled(case: Case) -> tuple[Site, ...]:
    """What `sites` returns, and keeps."""
    shared: dict[str, Site] = {}
    found: dict[str, Site] = {}

    def unroll(name: str, path: str, parent: str | None) -> None:
        said = case.claims[name]
        own: dict[str, Site] = {}
        for node in said.unimportant:
            group = None
            if isinstance(case.sharing, Mapping):
                group = next((key for key, members in case.sharing.items() if node in members), None)
            if case.sharing == "all" or group is not None:
                draw = f"~{group or 'all'}"
                shared[draw] = Site(draw, None, None, (), True)
            else:
                draw = f"{path}/~{node}" if case.sharing == "each" else f"{path}/~"
                own[draw] = Site(draw, None, None, (), True)
        reads = (*own, *(f"{path}/{read}" for read in said.reads))
        found[path] = Site(path, name, parent, reads, not said.reads)
        found.update(own)
        for read in said.reads:
            unroll(read, f"{path}/{read}", path)

    unroll(case.root, case.root, None)
    root = found[case.root]
    found[case.root] = Site(root.path, root.claim, None, (*root.reads, *shared), root.is_leaf)
    return (*found.values(), *shared.values())


def leaves(case: Case) -> tuple[str, ...]:
    """Paths of the sites whose data are the scrubbed inputs."""
    return tuple(site.path for site in sites(case) if site.is_leaf)


def prior(case: Case) -> tuple[Fraction, ...]:
    """D: the probability of each row."""
    return tuple(Fraction(weight, sum(case.weights)) for weight in case.weights)


def values(case: Case, site: Site) -> tuple[int, ...]:
    """The value on each row of the wire out of a site's node."""
    return case.claims[site.claim].feature if site.claim else (0,) * len(case.weights)


def agreeing(weights: Sequence[Fraction], feature: Sequence[int]) -> Kernel:
    """D restricted to the rows that agree with the parent's row in a feature. Nothing follows a row of weight zero."""
    kernel = []
    for row in range(len(weights)):
        block = [w if feature[other] == feature[row] else Fraction(0) for other, w in enumerate(weights)]
        total = sum(block, Fraction(0))
        kernel.append(tuple(w / total if total else Fraction(0) for w in block))
    return tuple(kernel)


def law(
    case: Case,
    kernels: Mapping[str, Kernel] | None = None,
    follow: Callable[[Site, Mapping[str, int]], int | None] | None = None,
    most: int = 20_000,
) -> Law | None:
    """The law of all data, as the algorithm says; None where more than `most` tuples are possible.

    Args:
        case: the hypothesis.
        kernels: path -> another law of that datum given its parent's: a planted fault.
        follow: the row that a site must copy, given the data drawn before; None where it is drawn as it should be.
            Another way to plant a fault.
        most: tuples to list at most.
    """
    d, plan, given = prior(case), sites(case), kernels or {}
    paths = [site.path for site in plan]
    drawn: Law = {(): Fraction(1)}
    for site in plan:
        kernel = given.get(site.path) or (agreeing(d, values(case, site)) if site.parent else None)
        at = paths.index(site.parent) if site.parent else 0
        longer: Law = {}
        for data, p in drawn.items():
            copied = follow(site, dict(zip(paths, data, strict=False))) if follow else None
            if copied is not None:
                longer[(*data, copied)] = p
                continue
            for row, q in enumerate(kernel[data[at]] if kernel else d):
                if q:
                    longer[(*data, row)] = p * q
        drawn = longer
        if len(drawn) > most:
            return None
    return drawn


def tally(outcomes: Iterable[tuple[Any, Fraction]]) -> dict[Any, Fraction]:
    """The law that gives each outcome the sum of its probabilities."""
    total: dict[Any, Fraction] = {}
    for outcome, p in outcomes:
        total[outcome] = total.get(outcome, Fraction(0)) + p
    return total


def leaf_law(case: Case, table: Law) -> Law:
    """The law of the scrubbed inputs, in the order of `leaves`."""
    places = [i for i, site in enumerate(sites(case)) if site.is_leaf]
    return tally((tuple(data[i] for i in places), p) for data, p in table.items())


def consistent_law(case: Case) -> Law:
    """The law of (x, ..., x), x drawn from D."""
    n = len(leaves(case))
    return {(row,) * n: p for row, p in enumerate(prior(case)) if p}


def mixed(a: Law, b: Law) -> Law:
    """Half the one law and half the other."""
    return tally((outcome, p / 2) for table in (a, b) for outcome, p in table.items())


def on_consistent_inputs(case: Case) -> dict[str, dict[Any, Fraction]]:
    """Path -> law of the inputs of each node of I^T on (x, ..., x): tuples of wire values, or rows at a leaf."""
    plan = {site.path: site for site in sites(case)}
    d = prior(case)
    return {path: tally((inputs_on(case, plan, path, row), p) for row, p in enumerate(d) if p) for path in plan}


def inputs_on(case: Case, plan: Mapping[str, Site], path: str, row: int) -> Any:
    """The inputs of a node when all leaves are the same row."""
    site = plan[path]
    return row if site.is_leaf else tuple(values(case, plan[read])[row] for read in site.reads)


def interpreter(case: Case) -> Callable[[Sequence[int]], tuple[dict[str, Any], dict[str, Any]]]:
    """A function of the leaves' data that runs I^T on them: the inputs of every node, and its output, by path.

    A node's function is what D shows of it: the output that goes with a tuple of inputs. A tuple that no row of
    positive weight shows gives None, and so does everything above it.
    """
    plan = {site.path: site for site in sites(case)}
    possible = [row for row, weight in enumerate(case.weights) if weight]
    shown = {
        path: {inputs_on(case, plan, path, row): values(case, site)[row] for row in possible}
        for path, site in plan.items()
    }
    # What a site reads comes after it in the plan, but for shared draws, which read nothing but their datum.
    order = [path for path in reversed(plan)]

    def run(data: Sequence[int]) -> tuple[dict[str, Any], dict[str, Any]]:
        given = dict(zip(leaves(case), data, strict=True))
        inputs: dict[str, Any] = {}
        output: dict[str, Any] = {}
        for path in order:
            site = plan[path]
            inputs[path] = given[path] if site.is_leaf else tuple(output[read] for read in site.reads)
            output[path] = shown[path].get(inputs[path])
        return inputs, output

    return run


def on_scrubbed_inputs(case: Case, of_leaves: Law) -> dict[str, dict[Any, Fraction]]:
    """Path -> law of the inputs of each node of I^T, run on leaves' data of some law."""
    run = interpreter(case)
    laws: dict[str, dict[Any, Fraction]] = {site.path: {} for site in sites(case)}
    for data, p in of_leaves.items():
        for path, inputs in run(data)[0].items():
            laws[path][inputs] = laws[path].get(inputs, Fraction(0)) + p
    return laws


def at_cut(case: Case, of_leaves: Law, wires: Sequence[tuple[str, bool]]) -> Law:
    """The law of wires, each (path, whether it is the datum into that node rather than the value out of it)."""
    run = interpreter(case)

    def seen(data: Rows) -> tuple[Any, ...]:
        inputs, output = run(data)
        return tuple(inputs[path] if datum else output[path] for path, datum in wires)

    return tally((seen(data), p) for data, p in of_leaves.items())


def failing(case: Case, of_leaves: Law) -> tuple[str, ...]:
    """Paths of the nodes whose inputs do not have the law that they have on consistent inputs: Lemma 1, with ==."""
    expected = on_consistent_inputs(case)
    return tuple(path for path, found in on_scrubbed_inputs(case, of_leaves).items() if found != expected[path])


def entropy(probabilities: Mapping[Any, Fraction] | Collection[Fraction]) -> float:
    """The entropy of a law, in nats."""
    listed = probabilities.values() if isinstance(probabilities, Mapping) else probabilities
    return -math.fsum(float(p) * math.log(p) for p in listed if p) + 0.0
