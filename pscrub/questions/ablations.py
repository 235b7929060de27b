"""Resampling, mean and zero ablation of one hypothesis, side by side on the same draws."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch

from pscrub.estimate.baselines import Baseline
from pscrub.estimate.stopping import ROUND, sizes_of_rounds
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.ablation import KINDS, Ablation, Kind
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.tree import unroll
from pscrub.law.drawing import draw
from pscrub.progress import Progress, quiet
from pscrub.questions.comparison import Losses, Sample


def compare_ablations(
    hypothesis: Hypothesis,
    draws: int = 2 * ROUND,
    seed: int = 0,
    *,
    kinds: Sequence[Kind] = KINDS,
    claimed: Collection[str] | Literal["all"] = (),
    labels: str | Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    memory: int = MEMORY,
    randomised: Baseline | float | None = None,
    progress: Progress = quiet,
) -> Losses:
    """f of one hypothesis under each ablation, on the same draws: by kind, [kinds, draws], in f's units.

    Of what comes back `scores()` gives each kind's loss recovered, with intervals that hold together, and
    `compare.compare(losses, "resampling", "mean")` the paired difference of two kinds.

    All sites are drawn alike for all kinds; what is replaced by a mean or by zeros leaves its draw unused.

    Source: appendix, section 3.

    Args:
        hypothesis: a well-formed one.
        draws: how many (rounded up to pairs).
        seed: names the draws.
        kinds: which, in their order.
        claimed: tree nodes that are replaced besides unimportant inputs, as in `Ablation`.
        labels: the columns that are labels, for the randomised loss.
        device: where activations live and the model runs.
        memory: bytes for activations on D.
        randomised: the baseline, if not E_randomised as `measures.randomised_loss` computes it.
        progress: told of work as it is done.

    Raises:
        HypothesisError: the hypothesis is not well formed, or an activation has no mean.
        StudyError: fewer than one draw, or a negative seed.

    >>> from pscrub import Claim, Dataset, Graph
    >>> data = Dataset({"s": torch.tensor([-1.0, 1.0]), "y": torch.zeros(2)})
    >>> graph = Graph.of({"h": lambda s: s, "f": lambda h, y: (h - y) ** 2}, inputs=["s", "y"], output="f")
    >>> found = compare_ablations(Hypothesis("nothing matters", graph, data, Claim("f", reads=[Claim("y", "y")])), 100)
    >>> dict(zip(found.names, found.f.mean(1).tolist()))
    {'resampling': 1.0, 'mean': 0.0, 'zero': 0.0}
    """
    sample = Sample(draws, seed, labels, Baseline.given(randomised))
    laws = [Ablation(kind, claimed) for kind in kinds]
    tree, engine = unroll(hypothesis), Engine(hypothesis.data, device, memory, progress=progress)
    against = sample.baselines(engine, tree)
    known, pieces = sample.known(engine, tree), []
    for index, size in enumerate(sizes_of_rounds(draws)):
        data = draw(tree, size, (seed, index))
        pieces.append(torch.stack([engine.f(tree, data, ablation=law) for law in laws]))
    return Losses(tuple(kinds), torch.cat(pieces, 1), against.model, against.randomised, known)
