"""Lemma 1: scrubbing keeps the joint law of the inputs of every node.

Statement. Let I^T be a treeified interpretation, D a distribution on a finite X, and D~ the law that causal scrubbing
gives to the leaves' data (x_1, ..., x_n). For every node u of I^T, the inputs of u when I^T is run on D~ have the
same joint law as when I^T is run on (x, ..., x), x ~ D.

Argument. Write datum(u) for the row that the algorithm gives to u.
  1. datum(u) ~ D for every u. It does at the root, and for unimportant inputs, by definition. If datum(v) ~ D and u is
     read by v, then datum(u) is drawn by first taking the block of datum(v), which has D's law on blocks, and then a
     row of that block by D: together, D.
  2. The wire out of u carries u(datum(u)), whatever the leaves below are. At a leaf node that is what the wire is.
     Higher up, the inputs of u are the values of its children at their own data, which agree with datum(u) on exactly
     these values; so u is given its inputs on datum(u), and its output is a function of them.
  3. Hence the inputs of u are those on one row, datum(u), and that row has law D.
The paper's statement says "product distribution"; what step 3 gives, and the paper's proof too, is the joint law. What
becomes of the other reading is in product_reading.py.

Routes. Enumeration of the recursion in rationals, I^T being run on every tuple of leaves, compared with ==; one message
from parent to child (step 1 alone); and Pyro's enumeration of the program that draws, with I^T as further factors.

Planted faults. A wrong law of one node's datum given its parent's, where a calculation with that one pair of rows says
that it must show, and at which of the two nodes. It is caught if that node is named, and no node that it cannot reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from pscrub import Partition
from pscrub.law import lemma_1 as by_messages
from pscrub.law import pass_on
from theory import brute
from theory.brute import Kernel, Site
from theory.routes import Enumerated, Tried, agreeing, expected_inputs, without_own_row
from theory.table import Fault, Report, Route, progress

BOUND = 1e-12
MOST_PLANTED = 60
"""In how many cases each fault is planted, at most: it is the enumeration of faulty laws that takes the time."""
MESSAGES_SEE_DATA = (
    "messages carry the law of each datum, which this fault leaves as it was; that parent and child agree is for the "
    "two enumerations to see"
)


def _uniform(tried: Tried, path: str) -> Kernel:
    return agreeing(tried, path, tuple(Fraction(int(p > 0)) for p in brute.prior(tried.case)))


def _next_row(tried: Tried, path: str) -> Kernel:
    kernel, d = agreeing(tried, path), brute.prior(tried.case)
    possible = [row for row, p in enumerate(d) if p]
    return tuple(kernel[next((r for r in possible if r > row), possible[0])] for row in range(len(d)))


def _free(tried: Tried, path: str) -> Kernel:
    return (brute.prior(tried.case),) * len(tried.case.weights)


def _parents_block(tried: Tried, path: str) -> Kernel:
    return agreeing(tried, path, claim=path.split("/")[-2])


KERNELS: dict[str, Callable[[Tried, str], Kernel]] = {
    "weights of D ignored within a block": _uniform,
    "the parent's own row excluded": without_own_row,
    "agreement with the row after the parent's": _next_row,
    "no agreement with the parent": _free,
    "agreement on the parent's feature instead": _parents_block,
}


@dataclass(frozen=True)
class Plant:
    """A fault at one node, and what it must and may do.

    Args:
        path: the node whose datum is drawn wrongly.
        kernel: how.
        must: nodes whose inputs are wrong, by a calculation with the datum and its parent's alone.
        may: nodes that can be wrong with them.
        moves_datum: whether the law of the datum itself is no longer D.
    """

    path: str
    kernel: Kernel
    must: frozenset[str]
    may: frozenset[str]
    moves_datum: bool

    def named_by(self, named: Sequence[str] | frozenset[str]) -> bool:
        """Whether a check that named these nodes found the fault where it is."""
        return self.must <= set(named) <= self.may


def plant(tried: Tried, what: str) -> Plant | None:
    """The fault at some node of the case where it must show; None if it must nowhere."""
    plan = [site for site in brute.sites(tried.case) if site.parent]
    tried.rng(what).shuffle(plan)
    planted = (_effect(tried, site, KERNELS[what](tried, site.path)) for site in plan)
    return next((each for each in planted if each.must), None)


def _effect(tried: Tried, site: Site, kernel: Kernel) -> Plant:
    case, d = tried.case, brute.prior(tried.case)
    plan = {each.path: each for each in brute.sites(case)}
    pairs = [(x, y, d[x] * q) for x in range(len(d)) if d[x] for y, q in enumerate(kernel[x]) if q]
    of_datum = brute.tally((y, p) for _, y, p in pairs)
    moves_datum = any(of_datum.get(row, 0) != p for row, p in enumerate(d))
    value = brute.values(case, site)
    leaves_block = any(value[x] != value[y] for x, y, _ in pairs)
    expected = brute.on_consistent_inputs(case)
    parent = plan[site.parent or ""]
    place = parent.reads.index(site.path)

    def inputs_of_parent(x: int, y: int) -> tuple[int, ...]:
        read = list(brute.inputs_on(case, plan, parent.path, x))
        read[place] = value[y]
        return tuple(read)

    must = set()
    if brute.tally((brute.inputs_on(case, plan, site.path, y), p) for _, y, p in pairs) != expected[site.path]:
        must.add(site.path)
    if brute.tally((inputs_of_parent(x, y), p) for x, y, p in pairs) != expected[parent.path]:
        must.add(parent.path)
    below = {path for path in plan if path == site.path or path.startswith(f"{site.path}/")}
    above = {path for path in plan if site.path.startswith(f"{path}/")}
    may = (below if moves_datum else set()) | (above if leaves_block else set())
    return Plant(site.path, kernel, frozenset(must), frozenset(may), moves_datum)


def named_by_messages(tried: Tried, planted: Plant) -> frozenset[str]:
    """The nodes whose inputs have the wrong law, by messages of which one is passed on wrongly."""
    sites = dict(tried.tree.sites)
    there = sites[planted.path].partition
    marked = Partition(there.labels.clone(), there.weights)
    sites[planted.path] = replace(sites[planted.path], partition=marked)
    kernel = torch.tensor([[float(p) for p in row] for row in planted.kernel], dtype=torch.float64)

    def step(message: Tensor, partition: Partition) -> Tensor:
        return message @ kernel if partition is marked else pass_on(message, partition)

    rows = by_messages(replace(tried.tree, sites=sites), step)
    return frozenset(row.path for row in rows if row.inputs > BOUND)


def errors_by_pyro(tried: Tried, kernels: dict[str, Kernel] | None = None) -> dict[str, float]:
    """Path -> the worst error in the law of the node's inputs, by Pyro's enumeration of the program."""
    expected, found = expected_inputs(tried), Enumerated(tried, kernels).inputs()
    return {path: float((found[path] - law).abs().max()) for path, law in expected.items()}


def check(tries: Sequence[Tried], least: int = 20) -> Report:
    """What came of checking Lemma 1 on the cases."""
    rational = Route("rational enumeration", 0, "nodes")
    messages = Route("messages", BOUND, "nodes")
    datum = Route("messages, the datum itself", BOUND, "nodes")
    pyro = Route("Pyro's enumeration of the program", BOUND, "nodes")
    faults = {
        (what, route): Fault(f"{what}: {route}", least=least)
        for what in KERNELS
        for route in ("rational", "Pyro", "messages")
    }
    for what in ("no agreement with the parent", "agreement on the parent's feature instead"):
        faults[what, "messages"].expected, faults[what, "messages"].note = False, MESSAGES_SEE_DATA
    for tried in progress(tries, "lemma_1"):
        wrong = brute.failing(tried.case, tried.leaf_law)
        for site in brute.sites(tried.case):
            rational.see(site.path in wrong)
        for row in by_messages(tried.tree):
            messages.see(row.inputs)
            datum.see(row.datum)
        for error in errors_by_pyro(tried).values():
            pyro.see(error)
        for what in KERNELS:
            if faults[what, "rational"].planted < MOST_PLANTED and (planted := plant(tried, what)) is not None:
                _see(tried, planted, {route: faults[what, route] for route in ("rational", "Pyro", "messages")})
    says = "for every node u, its scrubbed inputs have the joint law of its f-consistent inputs"
    return Report("Lemma 1", says, len(tries), [rational, messages, datum, pyro], list(faults.values()))


def _see(tried: Tried, planted: Plant, faults: dict[str, Fault]) -> None:
    table = brute.law(tried.case, {planted.path: planted.kernel})
    if table is None:
        return
    named = brute.failing(tried.case, brute.leaf_law(tried.case, table))
    faults["rational"].see(planted.named_by(named))
    off = errors_by_pyro(tried, {planted.path: planted.kernel})
    faults["Pyro"].see({path for path, error in off.items() if error > BOUND} == set(named))
    by = named_by_messages(tried, planted)
    if faults["messages"].expected:
        # Where parent and child no longer agree, messages name what the datum's own law does, and no more.
        seen = planted.must & {planted.path} <= by and bool(by) if planted.moves_datum else False
        if planted.moves_datum and planted.path in planted.must:
            faults["messages"].see(seen and by <= planted.may)
    else:
        faults["messages"].see(bool(by))
