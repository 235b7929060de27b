"""Theorem 2: the scrubbed inputs have the law of maximum entropy among those that meet Lemma 1.

Statement. Of all laws on X^n under which the inputs of every node u of I^T have the joint law that Lemma 1 says, D~
has the largest entropy, and it is the only one that has it. The same is true at every minimal cut through I^T: of all
laws of the cut's wires under which Lemma 1 holds for the nodes between the cut and the root, the scrubbed one has the
largest entropy.

Argument. By moving the cut from the root's inputs, where Lemma 1 leaves a single law, one node up at a time. Let the
cut pass through the output y of u and let z be its other wires; moved, it passes through the inputs x of u and z.
Since y is a function of x,
    H(x, z) = H(x) + H(y, z) - H(y) - I(x; z | y).
Lemma 1 fixes the law of x, and with it H(x) and H(y). H(y, z) is largest at the scrubbed law by what was shown for
the lower cut. The last term is at least 0, and is 0 at the scrubbed law: given the block of u's value, datum(u) is
drawn without a look at anything else. So both are as good as can be at once. Entropy is strictly concave and the
constraints are linear: there is no second such law.

Another way to see it is the certificate below. The law is a product of one factor for each node, a function of that
node's inputs: log p = A'y, where A p = b are Lemma 1's equations. For any q that meets them, -sum q log p = -y'b is the
same number; it is at least H(q), and equal to it only for q = p.

Routes. The equations are made from the hypothesis alone (`pscrub.law.list_constraints`). Held against the rational
enumeration: that log p lies in their row space; Newton's method on the dual; a conic solver; and small and large moves
along all that the equations leave free. A cell is listed exactly if the enumeration can reach it.

Planted faults. Laws that meet Lemma 1 at every node (checked with ==) and are not D~; and equations made with another
D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec

import numpy as np

from pscrub.law import Constraints, certify, list_constraints, minimal_cuts, perturb, solve_conic, solve_newton
from theory import brute
from theory.brute import Law, Site
from theory.cases import hypothesis
from theory.routes import Tried
from theory.table import Fault, Report, Route, progress

CERTIFICATE, NEWTON, CONIC = 1e-10, 1e-9, 1e-6
MOST_CUTS = 16
"""Cuts of a case that are looked at; trees with many leaves have thousands."""
CONIC_CELLS, CONIC_CUTS = 250, 5
"""Most cells, and most cuts of a case, that the conic solver is given: it takes the longest by far."""
MOST_PLANTED = 100


def _half_consistent(tried: Tried) -> Law | None:
    return brute.mixed(tried.leaf_law, brute.consistent_law(tried.case))


def _followed(tried: Tried, follow: Callable[[Site, Mapping[str, int]], int | None]) -> Law | None:
    table = brute.law(tried.case, follow=follow)
    return None if table is None else brute.leaf_law(tried.case, table)


def _not_resampled(tried: Tried) -> Law | None:
    plan = [site for site in brute.sites(tried.case) if site.parent]
    chosen = tried.rng("same").choice(plan).path if plan else ""
    return _followed(tried, lambda site, data: data[site.parent or ""] if site.path == chosen else None)


def _unimportant_kept(tried: Tried) -> Law | None:
    def follow(site: Site, data: Mapping[str, int]) -> int | None:
        return data[site.path.rpartition("/")[0] or tried.case.root] if site.claim is None else None

    return _followed(tried, follow)


def _copies_shared(tried: Tried) -> Law | None:
    """Copies of a node that is read twice share a datum where both of their parents are in one block of it."""
    first: dict[str, Site] = {}
    for site in brute.sites(tried.case):
        if site.parent:
            first.setdefault(site.claim or "", site)

    def follow(site: Site, data: Mapping[str, int]) -> int | None:
        other = first.get(site.claim or "")
        if not site.parent or other is None or other.path == site.path or other.parent == site.parent:
            return None
        value = brute.values(tried.case, site)
        return data[other.path] if value[data[site.parent]] == value[data[other.parent or ""]] else None

    return _followed(tried, follow)


def _siblings_shared(tried: Tried) -> Law | None:
    """Nodes read by the same node share a datum where the same rows are open to both."""
    plan = {site.path: site for site in brute.sites(tried.case)}
    possible = [row for row, p in enumerate(brute.prior(tried.case)) if p]

    def follow(site: Site, data: Mapping[str, int]) -> int | None:
        if not site.parent:
            return None

        def block(other: Site) -> list[int]:
            value = brute.values(tried.case, other)
            return [row for row in possible if value[row] == value[data[site.parent or ""]]]

        older = (plan[path] for path in plan[site.parent].reads if path in data and plan[path].parent)
        return next((data[other.path] for other in older if block(other) == block(site)), None)

    return _followed(tried, follow)


LAWS: dict[str, Callable[[Tried], Law | None]] = {
    "half scrubbed, half f-consistent": _half_consistent,
    "one node's datum not resampled": _not_resampled,
    "unimportant inputs not resampled": _unimportant_kept,
    "copies of a node share a datum": _copies_shared,
    "siblings share a datum": _siblings_shared,
}


def check(tries: Sequence[Tried], least: int = 20) -> Report:
    """What came of checking Theorem 2 on the cases, at the leaves and at other minimal cuts."""
    conic_there = find_spec("cvxpy") is not None and find_spec("clarabel") is not None
    absent = "the extra 'conic' is not installed"
    cells = Route("cells listed, against those reached", 0, "cuts")
    row_space = Route("certificate: log p in the row space", CERTIFICATE, "cuts")
    feasible = Route("certificate: Lemma 1's equations", CERTIFICATE, "cuts")
    newton = Route("Newton on the dual, largest |p - p*|", NEWTON, "cuts")
    conic = Route("Clarabel, largest |p - p*|", CONIC, "cuts", "" if conic_there else absent, needed=conic_there)
    moves = Route("no move within the constraints raises H", 0, "cuts")
    faults = {what: Fault(what, least=least) for what in LAWS}
    another_d = Fault("equations made with equal weights: Newton", least=least)
    another_conic = Fault("equations made with equal weights: Clarabel", least=least if conic_there else 0)
    of_cuts = 0
    for tried in progress(tries, "theorem_2"):
        for k, (found, p) in enumerate(_at_cuts(tried, cells)):
            of_cuts += 1
            certified = certify(found, np.log(p))
            row_space.see(certified.residual)
            feasible.see(certified.feasibility)
            newton.see(float(np.abs(solve_newton(found).p - p).max()))
            moved = perturb(found, p)
            moves.see(moved.freedom > 0 and not moved.highest < 0)
            if conic_there and len(p) <= CONIC_CELLS and k < CONIC_CUTS:
                conic.see(float(np.abs(solve_conic(found).p - p).max()))
        for what, fault in faults.items():
            if fault.planted < MOST_PLANTED or what == "half scrubbed, half f-consistent":
                _see(tried, LAWS[what](tried), fault)
        if not tried.case.uniform:
            _see_another_d(tried, another_d, another_conic if conic_there and another_conic.planted < 30 else None)
    total = sum(1 for tried in tries for _ in minimal_cuts(tried.hypothesis))
    says = "the scrubbed inputs have the largest entropy that Lemma 1 allows, at every minimal cut; no other law has it"
    cells.note = (
        f"{of_cuts:,} cuts of {total:,}: all of a case that has at most {MOST_CUTS}; else its leaves, its root's "
        "inputs and others at random"
    )
    if conic_there:
        conic.note = (
            f"the leaves and up to {CONIC_CUTS - 1} other cuts of a case, where there are at most {CONIC_CELLS} cells"
        )
    routes = [cells, row_space, feasible, newton, conic, moves]
    return Report("Theorem 2", says, len(tries), routes, [*faults.values(), another_d, another_conic])


def _at_cuts(tried: Tried, cells: Route) -> list[tuple[Constraints, np.ndarray]]:
    """The constraints of each cut that is looked at, the leaves' first, and the scrubbing law [cells] of its wires."""
    run = brute.interpreter(tried.case)
    reached = [(run(data), p) for data, p in tried.leaf_law.items()]
    listed = []
    for cut in reversed(list(tried.cuts(MOST_CUTS))):
        found = list_constraints(tried.hypothesis, cut)
        table = brute.tally(
            (tuple((inputs if wire.datum else output)[wire.path] for wire in cut), p) for (inputs, output), p in reached
        )
        cells.see(set(table) != {tuple(cell) for cell in found.cells.tolist()})
        listed.append((found, tried.probabilities(found, table)))
    return listed


def _see(tried: Tried, law: Law | None, fault: Fault) -> None:
    if law is None or law == tried.leaf_law or brute.failing(tried.case, law):
        return  # too large to list; the same law; or not one that meets Lemma 1
    found = list_constraints(tried.hypothesis)
    p = tried.probabilities(found, _in_order(tried, law, found))
    with np.errstate(divide="ignore"):
        certified = certify(found, np.log(p))
    true = tried.probabilities(found, _in_order(tried, tried.leaf_law, found))
    lower = certified.entropy < -math.fsum(true * np.log(true))
    fault.see(certified.feasibility <= CERTIFICATE and certified.residual > CERTIFICATE and lower)


def _in_order(tried: Tried, law: Law, found: Constraints) -> Law:
    """A law of the leaves, its tuples in the order of the cut's wires."""
    leaves = brute.leaves(tried.case)
    places = [leaves.index(wire.path) for wire in found.cut]
    return {tuple(data[i] for i in places): p for data, p in law.items()}


def _see_another_d(tried: Tried, by_newton: Fault, by_conic: Fault | None) -> None:
    equal = replace(tried.case, weights=tuple(int(weight > 0) for weight in tried.case.weights))
    found = list_constraints(hypothesis(equal))
    p = tried.probabilities(found, _in_order(tried, tried.leaf_law, found))
    by_newton.see(bool(np.abs(solve_newton(found).p - p).max() > NEWTON))
    if by_conic is not None and len(p) <= CONIC_CELLS:
        by_conic.see(bool(np.abs(solve_conic(found).p - p).max() > CONIC))
