"""Fun fact 3: the entropy of the scrubbed inputs is read off D, node by node.

Statement. With all entropies those of values on (x, ..., x), x ~ D,
    H(x_1, ..., x_n) = H(output) + sum over the nodes u of I^T of [H(inputs of u) - H(output of u)].
The same holds at every minimal cut, the sum being over the nodes between the cut and the root.

Argument. In the proof of Theorem 2, moving the cut through u turns H(y, z) into H(x, z) = H(y, z) + H(x) - H(y), for
the mutual information is 0. Start at the output, whose entropy is H(output), and move through every node once. By
Lemma 1 the law of a node's inputs, and so each term, is that under D.

X must be fixed. Here it is the rows of D: two equal rows are two inputs, and H counts which one it was. Were equal rows
one input, the terms of the leaves would be smaller, and so would the entropy.

Routes. Left side: the law of the leaves, or of a cut, in rationals. Right side: counts in rationals; the package's
budget; and the entropy of the law that Newton's method finds, which knows neither side.

Planted faults. Budgets that go wrong at one term, where that term is not what it should be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from pscrub.law import cut_entropy, entropy_budget, list_constraints, solve_newton
from theory import brute
from theory.routes import Tried
from theory.table import Fault, Report, Route, progress

BOUND = 1e-12
NEWTON = 1e-10
MOST_CUTS = 8


def entropy_by_counts(tried: Tried, without: str | None = None) -> float:
    """H(output) and what is lost at each node, in nats; one node can be left out."""
    budget = tried.budget
    return math.fsum(
        [budget[tried.case.root][1], *(h - k for path, (h, k) in budget.items() if path != without)],
    )


def check(tries: Sequence[Tried], least: int = 20) -> Report:
    """What came of checking fun fact 3 on the cases."""
    counts = Route("H(leaves) in rationals, by counts", BOUND)
    package = Route("H(leaves) in rationals, by the package's budget", BOUND)
    newton = Route("the package's budget, by Newton's law", NEWTON)
    at_cuts = Route("H(cut) in rationals, by the package's budget", BOUND, "cuts")
    planted = {
        what: Fault(what, least=least)
        for what in (
            "one node left out of the sum",
            "a node read twice counted once",
            "inputs of a node taken as independent",
            "weights of D ignored",
            "equal rows taken for one input",
        )
    }
    for tried in progress(tries, "fun_fact_3"):
        truth = brute.entropy(tried.leaf_law)
        found = entropy_budget(tried.tree).scrubbed
        counts.see(abs(entropy_by_counts(tried) - truth))
        package.see(abs(found - truth))
        newton.see(abs(solve_newton(list_constraints(tried.hypothesis)).entropy - found))
        for cut in tried.cuts(MOST_CUTS):
            opened = set(list_constraints(tried.hypothesis, cut).nodes)
            table = brute.at_cut(tried.case, tried.leaf_law, [(wire.path, wire.datum) for wire in cut])
            at_cuts.see(abs(cut_entropy(tried.tree, opened) - brute.entropy(table)))
        for what, wrong in _faulty(tried).items():
            planted[what].see(abs(wrong - truth) > BOUND)
    says = "H(scrubbed inputs) = H(output) + sum over u of [H(inputs of u) - H(output of u)]"
    return Report("Fun fact 3", says, len(tries), [counts, package, newton, at_cuts], list(planted.values()))


def _faulty(tried: Tried) -> dict[str, float]:
    """Budgets that are wrong, where it can be told from the counts behind one term that they are."""
    case, right = tried.case, entropy_by_counts(tried)
    plan = {site.path: site for site in brute.sites(case)}
    laws, d = brute.on_consistent_inputs(case), brute.prior(case)
    wrong: dict[str, float] = {}

    def outputs(path: str) -> int:
        return len({brute.values(case, plan[path])[row] for row, p in enumerate(d) if p})

    lossy = [path for path in plan if len(laws[path]) > outputs(path)]
    if lossy:
        wrong["one node left out of the sum"] = entropy_by_counts(tried, tried.rng("left out").choice(lossy))
    seen: set[str] = set()
    for path in lossy:
        if plan[path].claim in seen:
            wrong["a node read twice counted once"] = entropy_by_counts(tried, path)
        seen.add(plan[path].claim or "")
    for path, law in laws.items():
        if not plan[path].is_leaf and law != product(law):
            wrong["inputs of a node taken as independent"] = right + brute.entropy(product(law)) - brute.entropy(law)
            break
    if not case.uniform:
        equal = replace(case, weights=tuple(int(weight > 0) for weight in case.weights))
        wrong["weights of D ignored"] = entropy_by_counts(Tried(equal))
    rows = [row for row, p in enumerate(d) if p]
    if len({case.x[row] for row in rows}) < len(rows):
        merged = brute.tally((case.x[row], d[row]) for row in rows)
        leaves = len(brute.leaves(case))
        wrong["equal rows taken for one input"] = right + leaves * (brute.entropy(merged) - brute.entropy(d))
    return wrong


def product(law: dict[tuple[int, ...], Fraction]) -> dict[tuple[int, ...], Fraction]:
    """The law with the same margins whose coordinates are independent."""
    table: dict[tuple[int, ...], Fraction] = {(): Fraction(1)}
    for i in range(len(next(iter(law)))):
        margin = brute.tally((outcome[i], p) for outcome, p in law.items())
        table = {(*outcome, value): p * q for outcome, p in table.items() for value, q in margin.items()}
    return table
