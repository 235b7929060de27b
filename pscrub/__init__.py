"""Causal scrubbing as a probabilistic program."""

from pscrub._version import VERSION
from pscrub.conclude import merge
from pscrub.dataset import Dataset
from pscrub.errors import (
    DatasetError,
    GraphError,
    HypothesisError,
    PscrubError,
    StudyError,
    TraceError,
)
from pscrub.estimate import Estimate
from pscrub.graph import Graph, Node
from pscrub.hypothesis import EXACT, Claim, Hypothesis
from pscrub.measures import Baseline
from pscrub.partition import Partition
from pscrub.program import Datum, program
from pscrub.result import ScrubResult, StudyResult
from pscrub.rewrites import check_rewrites, estimate, inline, own_copy, split
from pscrub.scrub import scrub
from pscrub.study import Study
from pscrub.tree import Tree, unroll

__version__ = VERSION

__all__ = [
    "EXACT",
    "Baseline",
    "Claim",
    "Dataset",
    "DatasetError",
    "Datum",
    "Estimate",
    "Graph",
    "GraphError",
    "Hypothesis",
    "HypothesisError",
    "Node",
    "Partition",
    "PscrubError",
    "ScrubResult",
    "Study",
    "StudyError",
    "StudyResult",
    "TraceError",
    "Tree",
    "check_rewrites",
    "estimate",
    "inline",
    "merge",
    "own_copy",
    "program",
    "scrub",
    "split",
    "unroll",
]
