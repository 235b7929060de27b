"""The entropy of the trace is another number than that of the scrubbed inputs, and never smaller.

Statement (not in the paper). Let the program draw K data in all: one for each node of I^T, and one for each draw of
unimportant inputs. Then
    H(all data) = K H(D) - sum over u of H(output of u),
the sum being over all nodes but the root, draws of unimportant inputs having output entropy 0; and
    H(all data) >= H(x_1, ..., x_n).

Argument. By the chain rule along the tree: the root's datum adds H(D); datum(u), given its parent's, is a row given
its block under D, and adds H(D) - H(output of u); an unimportant draw depends on nothing and adds H(D). The leaves'
data are some of all data, so their entropy is no larger. It is smaller as soon as the leaves do not tell some inner
datum: fun fact 3 must not be read as a statement about the trace.

Routes. The law of all data in rationals; the sum by counts, and the package's.

Planted faults. The entropy of the scrubbed inputs taken for that of the trace, and sums with a wrong term.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pscrub.law import entropy_budget
from theory import brute
from theory.routes import Tried
from theory.table import Fault, Report, Route, progress

BOUND = 1e-12


def check(tries: Sequence[Tried], least: int = 20) -> Report:
    """What came of checking the entropy of the trace on the cases."""
    counts = Route("H(all data) in rationals, by counts", BOUND)
    package = Route("H(all data) in rationals, by the package", BOUND)
    order = Route("H(scrubbed inputs) - H(all data), above 0", BOUND)
    taken = Fault("H(scrubbed inputs) taken for H(all data)", least=least)
    root = Fault("H(output of the root) subtracted as well", least=least)
    unimportant = Fault("unimportant draws left out of K", least=least)
    for tried in progress(tries, "trace_entropy"):
        case, plan = tried.case, brute.sites(tried.case)
        whole = brute.entropy(brute.prior(case))
        lost = {path: output for path, (_, output) in tried.budget.items() if path != case.root}
        formula = len(plan) * whole - math.fsum(lost.values())
        truth, of_leaves = brute.entropy(tried.law), brute.entropy(tried.leaf_law)
        counts.see(abs(formula - truth))
        package.see(abs(entropy_budget(tried.tree).trace - truth))
        order.see(max(0.0, of_leaves - truth))
        if len(tried.law) > len(tried.leaf_law):  # some leaves' data go with several data of inner nodes
            taken.see(truth - of_leaves > BOUND)
        if tried.budget[case.root][1] > 0:
            root.see(abs(formula - tried.budget[case.root][1] - truth) > BOUND)
        free = sum(site.claim is None for site in plan)
        if free:
            unimportant.see(abs(formula - free * whole - truth) > BOUND)
    says = "H(all data of the trace) = K H(D) - sum over u of H(output of u) >= H(scrubbed inputs)"
    return Report("Entropy of the trace", says, len(tries), [counts, package, order], [taken, root, unimportant])
