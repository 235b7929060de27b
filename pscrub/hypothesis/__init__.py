"""A hypothesis (G, I, c): claims about nodes of a graph, checked as a whole and unrolled into a tree.

A `Claim` sits at a node of the graph: two inputs that agree on its feature are said to be interchangeable there. A
`Hypothesis` is a root claim on a graph and a dataset; `unroll` treeifies it into sites, one for each datum that
scrubbing draws. A `Study` is a ladder of hypotheses. Joins, isomorphic hypotheses, other behaviours and other ablations
of the same claims are made here too, and what bins with random offsets stand for.
"""

from pscrub.hypothesis.ablation import KINDS, RESAMPLING, Ablation
from pscrub.hypothesis.behaviours import DISTANCES, output_distance, restrict
from pscrub.hypothesis.circuits import ByPosition, circuit, circuit_ladder
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.exchange import read_auto_circuit, read_eap, write_eap
from pscrub.hypothesis.hypothesis import Hypothesis, Sharing, drop_members
from pscrub.hypothesis.isomorphism import make_isomorphic
from pscrub.hypothesis.joins import join, join_graphs, permits, same_claims, signature
from pscrub.hypothesis.mixtures import draw_offsets, fix_offsets, give_features, random_features
from pscrub.hypothesis.named import NamedGraph
from pscrub.hypothesis.study import Expected, Study
from pscrub.hypothesis.tree import Site, Tree, draw_together, make_exact, refine, unroll
from pscrub.hypothesis.writing import write_circuit

__all__ = [
    "DISTANCES",
    "EXACT",
    "KINDS",
    "RESAMPLING",
    "Ablation",
    "ByPosition",
    "Claim",
    "Expected",
    "Hypothesis",
    "NamedGraph",
    "Sharing",
    "Site",
    "Study",
    "Tree",
    "circuit",
    "circuit_ladder",
    "draw_offsets",
    "draw_together",
    "drop_members",
    "fix_offsets",
    "give_features",
    "join",
    "join_graphs",
    "make_exact",
    "make_isomorphic",
    "output_distance",
    "permits",
    "random_features",
    "read_auto_circuit",
    "read_eap",
    "refine",
    "restrict",
    "same_claims",
    "signature",
    "unroll",
    "write_circuit",
    "write_eap",
]
