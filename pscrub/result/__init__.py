"""What a run keeps: draws as records, results with their warnings, tables, and files.

A `ScrubResult` is one hypothesis's, a `StudyResult` a study's. Both are frozen, keep every draw (of very many
sums), are saved whole or not at all, and can be merged, continued, and handed to pandas, xarray and ArviZ.
"""

from pscrub.result.crews import Workers
from pscrub.result.draws import Draws, Round, SiteDraws
from pscrub.result.merging import merge
from pscrub.result.result import ScrubResult, StudyResult
from pscrub.result.table import Table

__all__ = ["Draws", "Round", "ScrubResult", "SiteDraws", "StudyResult", "Table", "Workers", "merge"]
