"""What all tests share: one thread, no screen, no network, the same examples at every run, and the shared folder."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Small batches on two contended threads were measured up to 40 times slower than on one.
torch.set_num_threads(1)
# The same for the processes that tests start; and plots are drawn without a screen, models built without a hub.
os.environ.update(
    OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MPLBACKEND="Agg", HF_HUB_OFFLINE="1"
)

# A test that passes passes again: no search from a new seed, no database of earlier failures, no clock.
settings.register_profile("suite", derandomize=True, database=None, deadline=None)
settings.load_profile("suite")

# The benchmarks are run by `make bench`, in another environment: looking for doctests would import them here.
collect_ignore_glob = ["benchmark*"]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with the published classifier and its data; the test is skipped without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}, which holds the published classifier and its data")
    return folder
