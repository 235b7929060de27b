"""The closed form: the probability of scrubbed inputs is a product over the nodes.

Statement (not in the paper). With all probabilities those of values on (x, ..., x), x ~ D,
    p(x_1, ..., x_n) = P(inputs of the root) * product over the other nodes u of P(inputs of u) / P(output of u),
inputs and outputs being those that I^T gives when it is run on x_1, ..., x_n; and p = 0 where a node is given inputs
that no row of positive weight gives it.

Argument. Given datum(u), the inputs of u are known, and the data below its different inputs are independent. So the
leaves below u, given only that u has the output y, have probability
    P(inputs of u | output y) * product over what u reads of (the same for it),
and P(inputs of u | output y) = P(inputs of u) / P(y) if the inputs do give y, else 0. At the root nothing is given.

It follows that log p is a sum of functions of single nodes' inputs: the certificate of Theorem 2. And its mean under D~
is, by Lemma 1, the sum in fun fact 3.

Routes. Held against the rational enumeration: the product in rationals, with ==, and that nothing is left over
outside; the package's log-probabilities and its table, and its slow reference; and Pyro's sum over everything but the
leaves.

Planted faults. The product with one factor wrong, where that factor is not 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch

from pscrub.law import leaf_law, log_prob, log_prob_by_summation
from theory import brute
from theory.fun_fact_3 import product
from theory.routes import Enumerated, Tried
from theory.table import Fault, Report, Route, progress

BOUND = 1e-12
LISTED = 1500
"""Most tuples of X^n, possible or not, that are all looked at."""


class Factors:
    """The factors of the closed form: the laws of each node's inputs and output under D.

    Args:
        tried: the case.
    """

    def __init__(self, tried: Tried) -> None:
        case, d = tried.case, brute.prior(tried.case)
        self.run = brute.interpreter(case)
        self.inputs: dict[str, dict[Any, Fraction]] = brute.on_consistent_inputs(case)
        self.output = {
            site.path: brute.tally(zip(brute.values(case, site), d, strict=True)) for site in brute.sites(case)
        }
        self.output[case.root] = dict.fromkeys(self.output[case.root], Fraction(1))

    def __call__(self, data: Sequence[int]) -> Fraction:
        """The probability of leaves' data."""
        inputs, output = self.run(data)
        p = Fraction(1)
        for path, law in self.inputs.items():
            if output[path] is None:
                return Fraction(0)
            p *= law[inputs[path]] / self.output[path][output[path]]
        return p


def check(tries: Sequence[Tried], least: int = 20) -> Report:
    """What came of checking the closed form on the cases."""
    rational = Route("product in rationals", 0, "tuples")
    rest = Route("product in rationals, all of X^n", 0, "tuples")
    package = Route("the package's log_prob", BOUND, "tuples")
    slow = Route("the package's slow reference", BOUND, "tuples")
    table = Route("the package's table of the leaves", BOUND, "tuples")
    pyro = Route("Pyro's enumeration, the leaves jointly", BOUND, "tuples")
    planted = {
        what: Fault(what, least=least)
        for what in (
            "P(output of u) left out at one node",
            "P(output of the root) divided by as well",
            "P(inputs of u) of independent inputs at one node",
            "P of a D with equal weights",
            "P(inputs of u) left out at one node",
        )
    }
    for tried in progress(tries, "closed_form"):
        case, law, form = tried.case, tried.leaf_law, Factors(tried)
        for data, p in law.items():
            rational.see(form(data) != p)
        n, leaves = len(case.weights), brute.leaves(case)
        if n ** len(leaves) <= LISTED:
            for data in itertools.product(range(n), repeat=len(leaves)):
                rest.see(form(data) != law.get(data, 0))
        places = [leaves.index(path) for path in tried.tree.leaves]
        ordered = {tuple(data[i] for i in places): p for data, p in law.items()}
        rows, true = torch.tensor(list(ordered)), [float(p) for p in ordered.values()]
        for found, route in (
            (log_prob(tried.tree, rows), package),
            (log_prob_by_summation(tried.tree, rows), slow),
        ):
            for p, q in zip(found.exp().tolist(), true, strict=True):
                route.see(abs(p - q))
        listed = leaf_law(tried.tree).as_dict()
        for data in {**ordered, **listed}:
            table.see(abs(listed.get(data, 0.0) - float(ordered.get(data, 0))))
        joint = Enumerated(tried).joint()
        if joint is not None:
            expected = torch.zeros_like(joint)
            expected[tuple(rows.T)] = torch.tensor(true, dtype=joint.dtype)
            pyro.see(float((joint - expected).abs().max()))
            pyro.checks += joint.numel() - 1
        for what, faulty in _faulty(tried).items():
            planted[what].see(any(faulty(data) != p for data, p in law.items()))
    says = "p(x_1, ..., x_n) = P(inputs of root) * product over other u of P(inputs of u) / P(output of u)"
    routes = [rational, rest, package, slow, table, pyro]
    return Report("Closed form", says, len(tries), routes, list(planted.values()))


def _faulty(tried: Tried) -> Mapping[str, Factors]:
    """Products that are wrong, each where the factor that it gets wrong is not 1 for everything that can happen."""
    case, right = tried.case, Factors(tried)
    others = [site.path for site in brute.sites(case) if site.path != case.root]
    wrong: dict[str, Factors] = {}

    def ones(law: Mapping[Any, Fraction]) -> dict[Any, Fraction]:
        return dict.fromkeys(law, Fraction(1))

    varied = [path for path in others if 1 not in right.output[path].values()]
    if varied:
        wrong["P(output of u) left out at one node"] = faulty = Factors(tried)
        chosen = tried.rng("output").choice(varied)
        faulty.output[chosen] = ones(faulty.output[chosen])
    root = brute.tally(zip(case.claims[case.root].feature, brute.prior(case), strict=True))
    if 1 not in root.values():
        wrong["P(output of the root) divided by as well"] = faulty = Factors(tried)
        faulty.output[case.root] = root
    inner = [site.path for site in brute.sites(case) if not site.is_leaf]
    dependent = [path for path in inner if product(right.inputs[path]) != right.inputs[path]]
    if dependent:
        wrong["P(inputs of u) of independent inputs at one node"] = faulty = Factors(tried)
        chosen = tried.rng("independent").choice(dependent)
        faulty.inputs[chosen] = product(right.inputs[chosen])
    if not case.uniform:
        equal = replace(case, weights=tuple(int(weight > 0) for weight in case.weights))
        wrong["P of a D with equal weights"] = Factors(Tried(equal))
    unsure = [path for path in right.inputs if 1 not in right.inputs[path].values()]
    if unsure:
        wrong["P(inputs of u) left out at one node"] = faulty = Factors(tried)
        chosen = tried.rng("inputs").choice(unsure)
        faulty.inputs[chosen] = ones(faulty.inputs[chosen])
    return wrong
