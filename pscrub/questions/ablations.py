"""Resampling, mean and zero ablation of one hypothesis, and a partner for each row, side by side on the same draws."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from pscrub.errors import HypothesisError
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.stopping import ROUND, sizes_of_rounds
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.ablation import KINDS, Ablation, Kind, give_partners, read_partners
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.tree import unroll
from pscrub.law.drawing import draw
from pscrub.progress import Progress, quiet
from pscrub.questions.comparison import Losses, Sample

PARTNER = "partner"


def compare_ablations(
    hypothesis: Hypothesis,
    draws: int = 2 * ROUND,
    seed: int = 0,
    *,
    kinds: Sequence[Kind] = KINDS,
    claimed: Collection[str] | Literal["all"] = (),
    partner: str | None = None,
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
        partner: a column of rows of D: a further kind, "partner", gives unimportant inputs the value that they have on
            the partner of their reader's datum, as counterfactual pairs do.
        labels: the columns that are labels, for the randomised loss.
        device: where activations live and the model runs.
        memory: bytes for activations on D.
        randomised: the baseline, if not E_randomised as `measures.randomised_loss` computes it.
        progress: told of work as it is done.

    Raises:
        HypothesisError: the hypothesis is not well formed, an activation has no mean, or the column names no rows.
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
    partners = None if partner is None else read_partners(hypothesis.data, partner)
    tree, engine = unroll(hypothesis), Engine(hypothesis.data, device, memory, progress=progress)
    against = sample.baselines(engine, tree)
    known, pieces = sample.known(engine, tree), []
    for index, size in enumerate(sizes_of_rounds(draws)):
        data = draw(tree, size, (seed, index))
        f = [engine.f(tree, data, ablation=law) for law in laws]
        f += [] if partners is None else [engine.f(tree, give_partners(tree, data, partners))]
        pieces.append(torch.stack(f))
    names = (*kinds, *(() if partners is None else (PARTNER,)))
    return Losses(names, torch.cat(pieces, 1), against.model, against.randomised, known)


def run_on_partners(
    hypothesis: Hypothesis, partner: str, *, device: torch.device | str = "cpu", memory: int = MEMORY
) -> Tensor:
    """f of each row where unimportant inputs have the value of the row's partner, float64 [N]: nothing is drawn.

    What EAP-IG and MIB run of a circuit: edges in the graph on the prompt, all others on its counterfactual.

    Args:
        hypothesis: one whose claims are exact, so that every datum but those of unimportant inputs is the root's.
        partner: a column of rows of D.
        device: where activations live and the model runs.
        memory: bytes for activations on D.

    Raises:
        HypothesisError: the hypothesis is not well formed, claims that are not exact, a column that names no rows.

    >>> from pscrub import Claim, Dataset, Graph
    >>> data = Dataset({"s": torch.tensor([1.0, 2.0]), "t": torch.tensor([10.0, 20.0]), "other": torch.tensor([1, 0])})
    >>> graph = Graph.of({"f": lambda s, t: s + t}, inputs=["s", "t"], output="f")
    >>> run_on_partners(Hypothesis("s", graph, data, Claim("f", reads=[Claim("s", "exact")])), "other").tolist()
    [21.0, 12.0]
    """
    partners, tree = read_partners(hypothesis.data, partner), unroll(hypothesis)
    drawn = [
        path
        for path, site in tree.sites.items()
        if site.parent is not None and path != tree.root and int(site.partition.sizes.max()) > 1
    ]
    if drawn:
        raise HypothesisError(
            f"'{path}' is drawn, as its claim is not exact; expected exact claims, or `compare_ablations`, which draws"
            for path in drawn
        )
    rows = torch.arange(hypothesis.data.n)
    data = give_partners(tree, dict.fromkeys(tree.sites, rows), partners)
    return Engine(hypothesis.data, device, memory).f(tree, data)
