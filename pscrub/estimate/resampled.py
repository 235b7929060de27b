"""The slow reference of the uncertainty of the data: D's rows drawn again, and everything scrubbed anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.estimate.baselines import model_loss, randomised_loss
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.on_data import OnData
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.tree import unroll
from pscrub.law.drawing import draw


def bootstrap(
    hypothesis: Hypothesis,
    times: int,
    draws: int,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    memory: int = MEMORY,
) -> Tensor:
    """float64 [times, 3]: E_scrubbed, E_model and E_randomised on resamples of D's rows: the slow reference.

    Each resample weighs the rows by how often they were drawn, and is scrubbed anew; features are read again. Its
    E_scrubbed has the error of its draws on top. All three are plug-in values, in which a row meets itself, and the
    more often in a resample, which repeats rows: where blocks are small they are nearer to E_model than the
    population's, and their spread is another than that of draws apart. A reference for large blocks, and only there.

    Args:
        hypothesis: a well-formed one.
        times: resamples.
        draws: of each.
        seed: of the resamples and the draws.
        labels: as in `randomised_loss`.
        memory: bytes for activations on D.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 2)))
    data, found = hypothesis.data, []
    for time in range(times):
        counts = rng.multinomial(data.n, np.full(data.n, 1 / data.n))
        again = Dataset(data.columns, data.weights * torch.from_numpy(counts))
        tree = unroll(replace(hypothesis, data=again))
        on_data = OnData(hypothesis.graph, again, memory=memory)
        f = run_scrubbed(tree, Activations(hypothesis.graph, again, memory=memory), draw(tree, draws, (seed, 3, time)))
        baselines = (model_loss(on_data).value, randomised_loss(on_data, labels, seed=seed).value)
        found.append([float(f.mean()), *baselines])
    return torch.tensor(found, dtype=torch.float64)
