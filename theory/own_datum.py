"""A datum may be its parent's own row: leaving that row out is another law.

Statement (not in the paper). Change the algorithm so that datum(u) is drawn from the block of its parent's datum
without that datum, where the block holds anything else.
  (a) If D is not uniform, Lemma 1 fails: at a node u whose parent's datum has law D and which has a block of unequal
      weights, datum(u) does not have law D; if u's inputs tell those rows apart, their law is wrong.
  (b) If D is uniform, Lemma 1 holds, and the scrubbed inputs have less entropy than they should, unless their law is
      the same all the same.

Argument. In a block with weights w_1, ..., w_k summing to 1, the law of the new datum is w_y * sum over x != y of w_x
/ (1 - w_x). For this to be w_y the sum must be 1 for every y, so w_y / (1 - w_y) must not depend on y: equal weights.
With equal weights it is 1; so every datum has law D, and Lemma 1 follows as in lemma_1.py. Then Theorem 2 applies:
any law but D~ that meets Lemma 1 has less entropy.

Routes. All in rationals. (a) wherever one pair of rows shows that inputs of u are wrong, u is among the nodes that
fail. (b) no node fails, and the entropy is lower wherever the laws differ.

Planted faults. The algorithm as it should be, given to the same checks as if it left the row out.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from theory import brute
from theory.brute import Kernel
from theory.routes import Tried, without_own_row
from theory.table import Fault, Report, Route, progress


def check(tries: Sequence[Tried], least: int = 20) -> Report:
    """What came of leaving the parent's own row out of every draw."""
    breaks = Route("D not uniform: Lemma 1 fails where it must", 0)
    keeps = Route("D uniform: Lemma 1 holds all the same", 0)
    lowers = Route("D uniform: H is lower where the law differs", 0)
    as_is = Fault("own row allowed, D not uniform: Lemma 1 does not fail", least=least)
    as_is_uniform = Fault("own row allowed, D uniform: H is not lower", least=least)
    for tried in progress(tries, "own_datum"):
        case = tried.case
        kernels = {site.path: without_own_row(tried, site.path) for site in brute.sites(case) if site.parent}
        table = brute.law(case, kernels)
        if table is None:
            continue
        of_leaves = brute.leaf_law(case, table)
        failing = brute.failing(case, of_leaves)
        if not case.uniform:
            must = _must_fail(tried, kernels)
            if must:
                breaks.see(not must <= set(failing))
                as_is.see(not must <= set(brute.failing(case, tried.leaf_law)))
            continue
        keeps.see(bool(failing))
        if of_leaves != tried.leaf_law:
            truth = brute.entropy(tried.leaf_law)
            lowers.see(not brute.entropy(of_leaves) < truth)
            as_is_uniform.see(not brute.entropy(dict(tried.leaf_law)) < truth)
    says = "leaving the parent's row out breaks Lemma 1 for D not uniform, and lowers the entropy for D uniform"
    return Report("Own datum", says, len(tries), [breaks, keeps, lowers], [as_is, as_is_uniform])


def _must_fail(tried: Tried, kernels: dict[str, Kernel]) -> set[str]:
    """The nodes whose own draw is the first on their path that does not keep D, where their inputs show it."""
    case, d = tried.case, brute.prior(tried.case)
    plan = {site.path: site for site in brute.sites(case)}
    expected = brute.on_consistent_inputs(case)
    of_datum = {path: _after(d, kernel) for path, kernel in kernels.items()}
    found = set()
    for path, law in of_datum.items():
        above = [other for other in kernels if path.startswith(f"{other}/")]
        if any(of_datum[other] != d for other in above):
            continue
        inputs = brute.tally((brute.inputs_on(case, plan, path, row), p) for row, p in enumerate(law) if p)
        if inputs != expected[path]:
            found.add(path)
    return found


def _after(d: tuple[Fraction, ...], kernel: Kernel) -> tuple[Fraction, ...]:
    return tuple(sum((p * kernel[x][y] for x, p in enumerate(d)), Fraction(0)) for y in range(len(d)))
