"""What is shown: figures worked out of a result, tables, trees, pictures, and the files of a run.

`figures` makes plain values that all else takes its numbers from; `table`, `measures`, `below` and `hypothesis_tree`
are for a terminal, `write` for a folder. `plots` and `html` wait until they are touched: matplotlib takes a second.
"""

import importlib
from typing import Any

from pscrub.report.document import write
from pscrub.report.measured import measures
from pscrub.report.tables import below, table
from pscrub.report.trees import hypothesis_tree

__all__ = ["below", "html", "hypothesis_tree", "measures", "plots", "table", "write"]


def __getattr__(name: str) -> Any:
    if name in ("html", "plots"):
        return importlib.import_module(f"pscrub.report.{name}")
    raise AttributeError(f"module 'pscrub.report' has no attribute '{name}'")
