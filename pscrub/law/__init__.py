"""The law of scrubbed inputs, by three routes that share no code.

Drawn: `program` is the generative program, and `draw` the place where it is sampled, `draw_permuted` with donors dealt
out. By messages over the tree: probabilities, entropies and the law of f, exactly, without listing X^n. From the
claims' constraints alone: the law of maximum entropy, which Theorem 2 says is the same.
"""

from pscrub.law.constraints import Constraints, Cut, TooManyCells, Wire, leaves_of, list_constraints, minimal_cuts
from pscrub.law.drawing import Datum, draw, draw_alike, program
from pscrub.law.entropy import EntropyBudget, EntropyRow, cut_entropy, entropy_budget
from pscrub.law.exact import (
    Law,
    LemmaRow,
    cut_law,
    cut_log_prob,
    datum_laws,
    inputs_law,
    leaf_law,
    lemma_1,
    log_prob,
    log_prob_by_summation,
    pass_on,
)
from pscrub.law.extremes import Extremes, find_extremes
from pscrub.law.maxent import Certificate, NotSolved, Solution, certificate, certify, perturb, solve_conic, solve_newton
from pscrub.law.of_f import Listed, law_of_f, list_within, scrubbed_expectation
from pscrub.law.permuted import draw_permuted

__all__ = [
    "Certificate",
    "Constraints",
    "Cut",
    "Datum",
    "EntropyBudget",
    "EntropyRow",
    "Extremes",
    "Law",
    "LemmaRow",
    "Listed",
    "NotSolved",
    "Solution",
    "TooManyCells",
    "Wire",
    "certificate",
    "certify",
    "cut_entropy",
    "cut_law",
    "cut_log_prob",
    "datum_laws",
    "draw",
    "draw_alike",
    "draw_permuted",
    "entropy_budget",
    "find_extremes",
    "inputs_law",
    "law_of_f",
    "leaf_law",
    "leaves_of",
    "lemma_1",
    "list_constraints",
    "list_within",
    "log_prob",
    "log_prob_by_summation",
    "minimal_cuts",
    "pass_on",
    "perturb",
    "program",
    "scrubbed_expectation",
    "solve_conic",
    "solve_newton",
]
