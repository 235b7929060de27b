"""f on scrubbed inputs: the model run on data that a draw has put together.

`Activations` holds the values of a graph's nodes on D, kept or computed again within a budget of memory; `run_scrubbed`
computes f, node by node, for draws of a tree. An `Engine` does both for a study, on one device.
"""

from pscrub.evaluate.engine import Engine
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import MEMORY, Activations

__all__ = ["MEMORY", "Activations", "Engine", "run_scrubbed"]
