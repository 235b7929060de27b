"""Lemma 1 with "product distribution" taken at its word is false.

Statement (not in the paper). The inputs of a node have, when scrubbed, their joint law under D; not the product of
the laws of the single inputs, unless these are independent under D.

Argument. lemma_1.py, step 3. The counterexample: a root that reads x twice, each input claimed exactly, x uniform on
{0, 1}. Both inputs agree with the root's datum, so the scrubbed inputs are (0, 0) or (1, 1), each half of the time.
The product law would give (0, 1) a quarter.

Routes. The counterexample in rationals, and the package's law for it; then, at every node of the random cases that
reads two inputs or more, whether the scrubbed law is the product law exactly where D's joint law is.

Planted faults. An algorithm for which the product reading is true at one node, because each of the node's inputs is
drawn without looking at the node's datum: Lemma 1 as it stands must fail at that node.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from pscrub.law import leaf_law
from theory import brute
from theory.case import Case, Claimed
from theory.fun_fact_3 import product
from theory.routes import Tried
from theory.table import Fault, Report, Route, progress

HALF = Fraction(1, 2)
TWICE = Case(
    "a root that reads x twice",
    (0, 1),
    (1, 1),
    {"root": Claimed((0, 1), ("first", "second")), "first": Claimed((0, 1)), "second": Claimed((0, 1))},
)
MOST_PLANTED = 100


def check(tries: Sequence[Tried], least: int = 20) -> Report:
    """What came of reading "product" literally."""
    example = Route("a root that reads x twice: (0,0) or (1,1), never (0,1)", 0)
    package = Route("the same, by the package's table", 1e-12)
    iff = Route("scrubbed law is the product law iff D's is", 0, "nodes")
    fails = Route("of these, product reading false: Lemma 1 still holds", 0, "nodes")
    drawn_so = Fault("inputs of one node drawn apart from its datum", least=least)
    twice = Tried(TWICE)
    example.see(twice.leaf_law != {(0, 0): HALF, (1, 1): HALF})
    example.see((0, 1) not in product(twice.leaf_law))
    found = leaf_law(twice.tree).as_dict()
    for data in ((0, 0), (0, 1), (1, 0), (1, 1)):
        package.see(abs(found.get(data, 0.0) - (0.5 if data[0] == data[1] else 0.0)))
    for tried in progress(tries, "product_reading"):
        case = tried.case
        expected = brute.on_consistent_inputs(case)
        scrubbed = brute.on_scrubbed_inputs(case, tried.leaf_law)
        several = [site for site in brute.sites(case) if len(site.reads) > 1]
        dependent = [site for site in several if product(expected[site.path]) != expected[site.path]]
        for site in several:
            iff.see((scrubbed[site.path] != product(scrubbed[site.path])) != (site in dependent))
        for site in dependent:
            fails.see(scrubbed[site.path] != expected[site.path])
        if dependent and drawn_so.planted < MOST_PLANTED:
            chosen = tried.rng("product").choice(dependent)
            below = {site.path for site in brute.sites(case) if site.parent == chosen.path}
            table = brute.law(case, dict.fromkeys(below, (brute.prior(case),) * len(case.weights)))
            if table is not None:
                drawn_so.see(chosen.path in brute.failing(case, brute.leaf_law(case, table)))
    says = "the joint law, not the product of the single inputs' laws: \"product\" in the paper's statement is false"
    return Report("Product reading", says, len(tries), [example, package, iff, fails], [drawn_so])
