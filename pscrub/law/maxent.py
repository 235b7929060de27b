"""Theorem 2 without the recursion: the law of most entropy among those that meet Lemma 1, and proofs that it is one.

All that is known of a hypothesis here are the linear equations of `constraints`.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from pscrub.errors import PscrubError
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.law.constraints import MOST_CELLS, Constraints, Cut, Floats, Ints, list_constraints

Law = Callable[[Mapping[str, Ints]], Any]


class NotSolved(PscrubError):
    """A solver that stopped before it had a law."""


@dataclass(frozen=True)
class Certificate:
    """Whether a law is the one of maximum entropy, by weak duality: no solver has to be believed.

    If log p = A'y on every cell, then -sum q log p is the same number for all q that meet the constraints A q = b. It
    is H(p) for q = p, and no smaller than H(q), with equality only for q = p.

    Args:
        residual: the worst |log p - A'y| over cells, in nats, for the y that fits best.
        feasibility: the worst |A p - b|, in probability.
        entropy: of p, in nats.
        gap: nats by which a law that meets the constraints could at most exceed `entropy`, from the same y.
        cells: how many cells were looked at.
        total: how many there were before those forced to 0 were left out.
        cut: the wires that p is a law of.
    """

    residual: float
    feasibility: float
    entropy: float
    gap: float
    cells: int
    total: int
    cut: Cut

    def holds(self, tolerance: float = 1e-10) -> bool:
        """Whether the law meets the constraints and no other has more entropy, up to rounding."""
        return self.residual <= tolerance and self.feasibility <= tolerance and abs(self.gap) <= tolerance


@dataclass(frozen=True, eq=False)
class Solution:
    """The law of maximum entropy that a solver found.

    Args:
        p: float64 [cells].
        entropy: in nats.
        feasibility: the worst |A p - b|.
        steps: iterations taken.
    """

    p: Floats
    entropy: float
    feasibility: float
    steps: int


@dataclass(frozen=True)
class Perturbed:
    """What moving a law within the constraints does to its entropy.

    Args:
        freedom: the dimension of the set of laws that meet the constraints.
        moves: how many laws were tried.
        highest: the largest change of entropy, in nats; negative if every move lowers it, 0 if there is none to make.
    """

    freedom: int
    moves: int
    highest: float


def certificate(
    hypothesis: Hypothesis, law: Law | None = None, cut: Cut | None = None, most: int = MOST_CELLS
) -> Certificate:
    """Whether a law of the wires of a cut is the one of maximum entropy under Lemma 1's constraints.

    Args:
        hypothesis: must be well formed.
        law: takes path -> int64 [cells], rows of D at the leaves (blocks at other wires), and returns the natural
            logarithms [cells] of their probabilities. Left out: the law that `solve_newton` finds.
        cut: the leaves' by default.
        most: how many cells to list at most.

    Raises:
        TooManyCells: there are more.
        HypothesisError: with every fault of the hypothesis.
    """
    found = list_constraints(hypothesis, cut, most)
    if law is None:
        return certify(found, np.log(solve_newton(found).p))
    return certify(found, np.asarray(law(found.columns), dtype=np.float64))


def certify(found: Constraints, log_p: Floats) -> Certificate:
    """The certificate of a law, given as logarithms [cells] in the order of the constraints' cells."""
    p = np.exp(log_p)
    feasibility = float(np.abs(found.matrix @ p - found.rhs).max())
    entropy = _entropy(p)
    if not np.isfinite(log_p).all():  # a cell that the constraints leave free is given no probability at all
        return Certificate(math.inf, feasibility, entropy, math.inf, len(p), found.total, found.cut)
    # Weak duality: no law q that meets A q = b has more entropy than log sum exp(A'y) - b'y, whatever y is.
    y = _fit(found.matrix, log_p)
    fitted = found.matrix.T @ y
    top = float(fitted.max())
    bound = top + math.log(math.fsum(np.exp(fitted - top))) - float(found.rhs @ y)
    residual = float(np.abs(log_p - fitted).max())
    return Certificate(residual, feasibility, entropy, bound - entropy, len(p), found.total, found.cut)


def solve_newton(found: Constraints, steps: int = 200, tolerance: float = 1e-15) -> Solution:
    """The law of maximum entropy by Newton's method on the dual, min over y of sum exp(A'y) - b'y.

    Args:
        found: the constraints; redundant equations do no harm.
        steps: how many to take at most.
        tolerance: stop once the worst |A p - b| is below, or improves no more.

    Raises:
        NotSolved: the constraints are not met to 1e-9 after that.
    """
    matrix, rhs = found.matrix, found.rhs
    y = np.zeros(len(rhs))
    p, best, stalled, taken = np.ones(matrix.shape[1]), math.inf, 0, 0
    value = float(p.sum())
    for _ in range(steps):
        slope = matrix @ p - rhs
        worst = float(np.abs(slope).max())
        stalled = stalled + 1 if worst >= best else 0
        best = min(best, worst)
        if worst <= tolerance or (stalled >= 2 and worst < 1e-12):
            break
        curvature = (matrix @ scipy.sparse.diags_array(p) @ matrix.T).toarray()
        # Each node's equations add up to 1, so the curvature is singular, along directions in which nothing changes.
        curvature[np.diag_indices_from(curvature)] += 1e-13 * curvature.trace() / len(rhs)
        move = -scipy.linalg.solve(curvature, slope, assume_a="sym", check_finite=False)
        size, down = 1.0, float(slope @ move)
        for _ in range(60):
            with np.errstate(over="ignore"):
                p_next = np.exp(matrix.T @ (y + size * move))
                value_next = float(p_next.sum() - rhs @ (y + size * move))
            if value_next <= value + 1e-4 * size * down + 1e-14 * abs(value):
                break
            size /= 2
        y, p, value, taken = y + size * move, p_next, value_next, taken + 1
    feasibility = float(np.abs(matrix @ p - rhs).max())
    if not feasibility <= 1e-9:
        raise NotSolved(f"Newton's method left the constraints unmet by {feasibility:.1e} after {taken} steps")
    return Solution(p, _entropy(p), feasibility, taken)


def solve_conic(found: Constraints) -> Solution:
    """The law of maximum entropy by a conic solver, Clarabel, that is told no more than the constraints.

    Raises:
        ModuleNotFoundError: cvxpy or Clarabel is not installed; the extra "conic" has both.
        NotSolved: the solver gave up.
    """
    try:
        cvxpy, _ = importlib.import_module("cvxpy"), importlib.import_module("clarabel")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"solve_conic needs cvxpy with Clarabel ({error.name} is missing): pip install 'pscrub[conic]'",
            name=error.name,
        ) from error
    dense, cells = found.matrix.toarray(), found.matrix.shape[1]
    _, triangle, order = scipy.linalg.qr(dense.T, mode="economic", pivoting=True)
    kept = order[: int((np.abs(np.diag(triangle)) > 1e-9).sum())]  # redundant equations cost the solver digits
    p = cvxpy.Variable(cells)
    refine = {f"iterative_refinement_{k}": v for k, v in (("max_iter", 50), ("reltol", 1e-15), ("abstol", 1e-15))}
    # The law may be off by the root of the tolerance: it is set low, and where the solver then stops for lack of
    # progress, the same problem in other units of probability mostly does not.
    units = (math.sqrt(cells), float(cells), 1.0)
    for tolerance, unit in itertools.product((1e-12, 1e-11, 1e-10, 1e-9), units):
        problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.sum(cvxpy.entr(p))), [dense[kept] @ p == unit * found.rhs[kept]])
        tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tolerance)
        with contextlib.suppress(cvxpy.SolverError), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Solution may be inaccurate", UserWarning)
            problem.solve(solver=cvxpy.CLARABEL, max_threads=1, **tolerances, **refine)
        if problem.status == "optimal":
            law = np.asarray(p.value, dtype=np.float64) / unit
            feasibility = float(np.abs(found.matrix @ law - found.rhs).max())
            return Solution(law, _entropy(law), feasibility, int(problem.solver_stats.num_iters))
    raise NotSolved(f"Clarabel: {problem.status}, for {cells:,} cells")


def perturb(found: Constraints, p: Floats, moves: int = 16, seed: int = 0) -> Perturbed:
    """How the entropy of a law changes when it is moved along random directions that keep the constraints.

    Half of the moves are as long as probabilities allow, half a hundredth of that. At the law of maximum entropy all of
    them lower the entropy, since it is strictly concave: it is unique.

    Args:
        found: the constraints.
        p: float64 [cells], a law that meets them, positive on every cell.
        moves: how many to try; each direction is tried both ways.
        seed: of the directions.
    """
    rows = scipy.linalg.svd(found.matrix.toarray(), full_matrices=False)[1:]
    basis = rows[1][rows[0] > 1e-10 * rows[0].max()]
    freedom = len(p) - len(basis)
    if freedom == 0:
        return Perturbed(0, 0, 0.0)
    rng, before, changes = np.random.default_rng(seed), _entropy(p), []
    for k in range(math.ceil(moves / 2)):
        # Scaled by p, so that a small cell does not keep the others from moving; projected again against rounding.
        direction = _project(basis, rng.standard_normal(len(p)) * p)
        down, up = direction < 0, direction > 0
        reach = min(float((p[down] / -direction[down]).min()), float((p[up] / direction[up]).min()))
        for sign in (1, -1):
            moved = p + sign * reach * (1.0 if k % 2 == 0 else 0.01) * direction
            changes.append(_entropy(moved) - before)
    return Perturbed(freedom, len(changes), max(changes))


def _fit(matrix: scipy.sparse.csr_array, target: Floats) -> Floats:
    """The y for which A'y is nearest to the target, refined once on what the first answer leaves."""
    y = np.zeros(matrix.shape[0])
    for _ in range(2):
        rest = target - matrix.T @ y
        if float(np.abs(rest).max()) < 1e-14:
            break
        y = y + scipy.sparse.linalg.lsqr(matrix.T, rest, atol=1e-15, btol=1e-15, conlim=0, iter_lim=4 * len(y) + 50)[0]
    return y


def _project(basis: Floats, direction: Floats) -> Floats:
    """The part of a direction that changes nothing in the constraints, whose rows the basis spans."""
    for _ in range(2):
        direction = direction - basis.T @ (basis @ direction)
    return direction


def _entropy(p: Floats) -> float:
    kept = p[p > 0]
    return -math.fsum(kept * np.log(kept)) + 0.0
