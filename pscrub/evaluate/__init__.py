"""f on scrubbed inputs: the model run on data that a draw has put together.

An `Engine` computes it by a plan: values of one datum once on D, kept within a budget of memory, and for the draws
only what is mixed of several; `OnData` gives values on D by name. `run_scrubbed`, node by node from `Activations`, is
the slow evaluator that it is held against.
"""

from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.on_data import OnData
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations

__all__ = ["MEMORY", "Activations", "Engine", "OnData", "run_scrubbed"]
