"""D, the distribution of the inputs, and what it means for two of its rows to be alike.

A `Dataset` is N weighted rows of named columns. A feature, however a user says it, is read into a `Partition`: rows of
one block are claimed to be interchangeable. `Quantiles`, `Rounding` and `Clusters` are features too: real values in
bins. A `BlockTable` draws a row from a block with one uniform number.
"""

from pscrub.data.bins import RANDOM, Bins, Clusters, Quantiles, Rounding
from pscrub.data.blocks import BlockTable
from pscrub.data.dataset import Dataset
from pscrub.data.features import features_of_columns, read_feature, read_features
from pscrub.data.partition import Partition

__all__ = [
    "RANDOM",
    "Bins",
    "BlockTable",
    "Clusters",
    "Dataset",
    "Partition",
    "Quantiles",
    "Rounding",
    "features_of_columns",
    "read_feature",
    "read_features",
]
