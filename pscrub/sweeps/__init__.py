"""Sweeps: a study at many parameters, its hypotheses and seeds, each point a run folder in the folder of the sweep.

`sweep` works on one until all is there; `read_sweep` reads what one has come to, `find_sweep_status` tells how far it
is, and `join_sweeps` makes one of several.
"""

from pscrub.sweeps.folder import SweepFiles
from pscrub.sweeps.joining import join_sweeps
from pscrub.sweeps.results import Row, SweepResult, read_sweep
from pscrub.sweeps.status import SweepStatus, find_sweep_status
from pscrub.sweeps.sweeping import sweep

__all__ = ["Row", "SweepFiles", "SweepResult", "SweepStatus", "find_sweep_status", "join_sweeps", "read_sweep", "sweep"]
