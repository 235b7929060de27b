"""Mixtures scrubbed: bins with a random offset, some offsets drawn, an ordinary hypothesis scrubbed at each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.estimate import Estimate, mean_of_pairs
from pscrub.estimate.recovered import loss_recovered
from pscrub.estimate.stopping import ROUND
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.mixtures import draw_offsets, fix_offsets, place_bins, random_features
from pscrub.hypothesis.tree import Tree, unroll
from pscrub.law.entropy import entropy_budget
from pscrub.outcomes import Outcome
from pscrub.progress import Progress, quiet
from pscrub.questions.comparison import Losses, Sample, draw_losses_of
from pscrub.result.table import Table

OFFSETS = 32
"""Offsets drawn, if nothing else is said."""
FEWEST = 16
"""Offsets from which on the interval is to be trusted: of fewer, two of a stratum too often make the same partition."""
T = TypeVar("T")


class Mixed(Outcome):
    """How the expectation of f under a mixture was estimated."""

    OFFSETS = "random offsets", "means of {draws:,} draws at each of {offsets:,} random offsets; {method}"


@dataclass(frozen=True, eq=False)
class OffsetLosses(Generic[T]):
    """f of several hypotheses at the same offsets, on common random numbers.

    Args:
        losses: the mean of f at each offset, [names, offsets], pair by pair: the two of a pair are independent and
            alike, so all that is made of draws in pairs is made of them. Its error holds that of offsets and of draws.
        draws: at each offset.
        alone: float64 [names], the standard error that draws alone would leave at these very offsets.
        seen: name -> what was looked up of its tree at each offset.
    """

    losses: Losses
    draws: int
    alone: Tensor
    seen: Mapping[str, Sequence[T]]

    def say(self, estimate: Estimate) -> Estimate:
        """An estimate made of the means, with the number of draws and how they were made."""
        offsets = self.losses.f.shape[1]
        method = Mixed.OFFSETS.wrap(estimate.method, draws=self.draws, offsets=offsets)
        return replace(estimate, draws=offsets * self.draws, method=method)


def draw_at_offsets(
    hypotheses: Mapping[str, Hypothesis], sample: Sample, engine: Engine, offsets: int, look: Callable[[Tree], T]
) -> OffsetLosses[T]:
    """f of hypotheses, mixtures or not, at offsets drawn from the seed, and draws shared equally among them.

    Every mixture's first feature has the same offsets, its second the same, and so on; all draws at one offset share
    random numbers as those of `draw_losses` do. Each offset's hypothesis is checked by itself.

    Args:
        hypotheses: by name, on one dataset and behaviour.
        sample: what is drawn; its draws are those of one hypothesis in all, rounded up to pairs at each offset.
        engine: computes f.
        offsets: how many; even, and at least FEWEST.
        look: told of the tree of each hypothesis at each offset.

    Raises:
        HypothesisError: a hypothesis that is not well formed at one of the offsets.
        StudyError: an odd number of offsets, or fewer than FEWEST.
    """
    if offsets < FEWEST or offsets % 2:
        raise StudyError(f"offsets is {offsets}; expected an even number of at least {FEWEST}, two in each stratum")
    placed = {name: place_bins(h) for name, h in hypotheses.items()}
    features = {name: len(random_features(h)) for name, h in placed.items()}
    drawn = draw_offsets(offsets, max(features.values()), sample.seed)
    each = 2 * max(1, -(-sample.draws // (2 * offsets)))
    means, variance = list[Tensor](), torch.zeros(len(hypotheses), dtype=torch.float64)
    seen: dict[str, list[T]] = {name: [] for name in hypotheses}
    at, found, trees = replace(sample, draws=each), None, dict[str, Tree]()
    for j, u in enumerate(drawn):
        for name, h in placed.items():
            if features[name] or not j:  # else it is the same at every offset
                trees[name] = unroll(fix_offsets(h, u[: features[name]].tolist()))
            seen[name].append(look(trees[name]) if features[name] or not j else seen[name][0])
        found = draw_losses_of(trees, replace(at, seed=_seed_of(sample.seed, j)), engine)
        at = replace(at, randomised=found.randomised)
        means.append(found.f.mean(1))
        variance += torch.tensor([mean_of_pairs(f).se for f in found.f], dtype=torch.float64) ** 2
    assert found is not None
    losses = Losses(tuple(hypotheses), torch.stack(means, 1), found.model, found.randomised)
    return OffsetLosses(losses, each, variance.sqrt() / offsets, seen)


@dataclass(frozen=True)
class Mixture:
    """What scrubbing found of a mixture: the expectation of f over offsets and data.

    Args:
        hypothesis: its name.
        offsets: how many were drawn.
        scrubbed: E_scrubbed of the mixture; its interval holds the error of the offsets drawn and that of the draws.
        recovered: per cent; None where undefined.
        draws_se: the standard error of `scrubbed` if these offsets were all there are: what more draws could take away.
        bits: entropy of the scrubbed inputs given the offset, on average over the offsets; the mixture has no less.
        model: E_model.
        randomised: E_randomised.
    """

    hypothesis: str
    offsets: int
    scrubbed: Estimate
    recovered: Estimate | None
    draws_se: float
    bits: float
    model: Baseline
    randomised: Baseline

    def table(self) -> Table:
        """One line."""
        head = (
            "hypothesis",
            "offsets",
            "draws",
            "bits",
            "E_scrubbed",
            "interval",
            "se",
            "of the draws",
            "recovered, %",
        )
        e, score = self.scrubbed, self.recovered
        cells = [self.hypothesis, str(self.offsets), f"{e.draws:,}", f"{self.bits:.2f}", f"{e.value:.4g}", e.ends()]
        cells += [f"{e.se:.2g}", f"{self.draws_se:.2g}"]
        cells += ["undefined", ""] if score is None else [f"{score.value:.2f}", score.ends()]
        return Table((*head, "interval"), (tuple(cells),))


def scrub_mixture(
    hypothesis: Hypothesis,
    *,
    draws: int = ROUND,
    offsets: int = OFFSETS,
    seed: int = 0,
    level: float = 0.95,
    labels: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    memory: int = MEMORY,
    randomised: Baseline | float | None = None,
    progress: Progress = quiet,
) -> Mixture:
    """E_scrubbed and loss recovered of a hypothesis with random offsets, with an interval over offsets and draws.

    Offsets are drawn from the seed, two in each of offsets / 2 strata of [0, 1); the draws are shared equally among
    them, and at each offset are those of an ordinary hypothesis. The interval is t, from the differences of the two
    offsets' means in each stratum, on as many degrees of freedom as these bear (`estimate.mean_of_pairs`).

    Args:
        hypothesis: one with a random offset (`data.Quantiles` or `data.Rounding` with offset="random").
        draws: in all (rounded up to pairs at each offset).
        offsets: how many; even, and at least FEWEST.
        seed: names the offsets and the draws.
        level: of the interval.
        labels: as in `measures.randomised_loss`.
        device: where the model runs.
        memory: bytes for activations on D.
        randomised: the baseline, if not E_randomised.
        progress: told of draws done.

    Raises:
        HypothesisError: it is not well formed at one of the offsets.
        StudyError: it has no random offset, too few draws or offsets.

    >>> from pscrub import Claim, Dataset, Graph
    >>> from pscrub.data import Rounding
    >>> data = Dataset({"x": torch.arange(100.0)})
    >>> graph = Graph.of({"h": lambda x: x, "f": lambda h, x: (h - x) ** 2}, inputs=["x"], output="f")
    >>> claim = Claim("f", reads=[Claim("h", Rounding("x", 10.0, "random")), Claim("x", "x")])
    >>> found = scrub_mixture(Hypothesis("tens", graph, data, claim), draws=2048)
    >>> found.offsets, found.scrubbed.draws, 98 < found.recovered.value < 100
    (32, 2048, True)
    """
    if not random_features(hypothesis):
        raise StudyError(f"'{hypothesis.name}' has no feature with a random offset; scrub it as any other")
    name, sample = hypothesis.name, Sample(draws, seed, labels, Baseline.given(randomised))
    engine = Engine(hypothesis.data, device, memory, progress=progress)
    found = draw_at_offsets({name: hypothesis}, sample, engine, offsets, scrubbed_bits)
    scrubbed = found.say(mean_of_pairs(found.losses.f[0], level))
    score, bits = loss_recovered(scrubbed, found.losses.against), float(np.mean(found.seen[name]))
    baselines = found.losses.model, found.losses.randomised
    return Mixture(name, offsets, scrubbed, score, float(found.alone[0]), bits, *baselines)


def scrubbed_bits(tree: Tree) -> float:
    """The entropy of the scrubbed inputs, in bits."""
    return entropy_budget(tree, bits=True).scrubbed


def _seed_of(*names: int) -> int:
    state: Any = np.random.SeedSequence(names).generate_state(1, np.uint64)[0]
    return int(state >> 1)
