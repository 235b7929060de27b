"""G, a model as named pure functions of named inputs, extensionally equal to the behaviour f.

`trace` makes one of any torch module that `torch.export` takes, `open_decoder` opens language models by the names that
researchers use; rewrites then give it the nodes that a hypothesis
speaks of (heads, positions, an estimate and its residual), and `check_rewrites` sees on all of D that f stayed. Nothing
here knows about partitions.
"""

from pscrub.graph.cuts import Cut, input_of, output_of
from pscrub.graph.decoder import Decoder
from pscrub.graph.equal import Difference, RewriteCheck, check_rewrites, equal_on
from pscrub.graph.families import FAMILIES, Family
from pscrub.graph.graph import Function, Graph, Node, Rewrite
from pscrub.graph.judging import Loss
from pscrub.graph.labels import Labels, tell_labels
from pscrub.graph.losses import accuracy, correlation, divergence, flipped, squared_error
from pscrub.graph.once import Traced, trace_all
from pscrub.graph.opening import open_decoder
from pscrub.graph.pieces import Piece, Position, Subspace, carve
from pscrub.graph.points import Point
from pscrub.graph.rewrites import inline, own_copy, replace, split, with_estimate
from pscrub.graph.tracing import trace
from pscrub.graph.trivial import constant, lookup_table

__all__ = [
    "FAMILIES",
    "Cut",
    "Decoder",
    "Difference",
    "Family",
    "Function",
    "Graph",
    "Labels",
    "Loss",
    "Node",
    "Piece",
    "Point",
    "Position",
    "Rewrite",
    "RewriteCheck",
    "Subspace",
    "Traced",
    "accuracy",
    "carve",
    "check_rewrites",
    "constant",
    "correlation",
    "divergence",
    "equal_on",
    "flipped",
    "inline",
    "input_of",
    "lookup_table",
    "open_decoder",
    "output_of",
    "own_copy",
    "replace",
    "split",
    "squared_error",
    "tell_labels",
    "trace",
    "trace_all",
    "with_estimate",
]
