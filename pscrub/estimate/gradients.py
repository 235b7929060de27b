"""What E_model and E_randomised are in the population that D is a sample of, and what they owe to each unit of D.

E_model is D's own. In E_randomised the output of a row and the label of another are brought together: of a row's own
label the population knows nothing that it does not know of any other's, so that a pair of one row (of one cluster) is
left out. A gradient is d E / d log w of each unit, the infinitesimal jackknife's influence; `jackknife` has that of
E_scrubbed.

Source: Jaeckel, The infinitesimal jackknife (1972).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.data.partition import number_units
from pscrub.estimate.baselines import EXACT_PAIRS, Baseline, sample_of
from pscrub.estimate.estimate import Estimate
from pscrub.estimate.jackknife import Excess, Population
from pscrub.estimate.pairs import Pairs, Sample
from pscrub.evaluate.on_data import OnData
from pscrub.outcomes import Outcome


class OfPairs(Outcome):
    """How E_randomised was come by in the population that D is a sample of."""

    ALL_OTHERS = "all pairs of others", "exact, all pairs of different {units}"
    SAMPLED_OTHERS = "sampled pairs of others", "{pairs:,} sampled pairs of different {units}"


@dataclass(frozen=True, eq=False)
class Gradients:
    """What is known of the population before anything is scrubbed: E_model and E_randomised.

    Args:
        randomised: E_randomised over pairs of different units; as it was given, where it was.
        of_model: float64 [2, units], E_model's gradient.
        of_randomised: float64 [2, units], E_randomised's; zeros where it is given, and so held fixed.
        units: int64 [N], the unit of each row.
        weights: float64 [units], D's.
        clusters: the column whose values are the units; "" where each row is one.
    """

    randomised: Baseline
    of_model: Tensor
    of_randomised: Tensor
    units: Tensor
    weights: Tensor
    clusters: str

    @classmethod
    def of(
        cls,
        on_data: OnData,
        labels: str | Sequence[str] | None,
        seed: int,
        given: Baseline | None,
        clusters: str | None,
    ) -> Gradients:
        """Those of a graph's baselines; labels and seed as in `randomised_loss`."""
        data = on_data.data
        units = number_units(data, clusters)
        weights = torch.bincount(units, weights=data.weights)
        model = add_by_unit(exact_gradient(on_data.on_data(on_data.graph.output), data.weights), units)
        randomised, own = given, torch.zeros_like(model)
        if randomised is None:
            randomised, own = randomised_apart(on_data, units, labels, seed=seed)
        return cls(randomised, model, own, units, weights, clusters or "")

    def beside(
        self,
        scrubbed: Tensor,
        drawn: Estimate | None,
        unknown: float = 0.0,
        excess: Excess | None = None,
        bends: Tensor | None = None,
    ) -> Population:
        """All three, with E_scrubbed and what `Influence` found of it: gradient [2, units], unknown, excess, bends."""
        kept = _apart(self.all(scrubbed))
        bent = None if bends is None else _apart(bends)
        more = Excess() if excess is None else excess
        told = self.weights, more.value, unknown, self.clusters
        pairs = more.noise, more.blocks, more.overcount
        return Population(drawn, self.randomised, kept, *told, bent, *pairs)

    def all(self, scrubbed: Tensor) -> Tensor:
        """float64 [3, 2, units]: E_scrubbed's gradient, [2, units], and those of the baselines."""
        return torch.stack((scrubbed, self.of_model, self.of_randomised))


def _apart(figures: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    return tuple((first.clone(), second.clone()) for first, second in figures)


def add_by_unit(gradient: Tensor, units: Tensor) -> Tensor:
    """float64 [2, units]: a gradient by rows [2, N], added up within units."""
    return torch.stack([torch.bincount(units, weights=half) for half in gradient])


def exact_gradient(f: Tensor, weights: Tensor) -> Tensor:
    """float64 [2, N]: d E_D[f] / d log w of each row, w_k (f_k - E_D[f]), twice (there is no noise).

    Args:
        f: float64 [N], on D.
        weights: float64 [N].

    >>> gradient = exact_gradient(torch.tensor([1.0, 2.0, 3.0]), torch.full((3,), 1 / 3, dtype=torch.float64))
    >>> round(float((gradient[0] * gradient[1]).sum()), 4)  # variance / N
    0.2222
    """
    f = torch.where(weights > 0, f.double().cpu(), 0.0)
    return (weights * (f - (weights * f).sum())).expand(2, -1)


def randomised_apart(
    on_data: OnData, units: Tensor, labels: str | Sequence[str] | None = None, pairs: int = EXACT_PAIRS, seed: int = 0
) -> tuple[Baseline, Tensor]:
    """E_randomised over pairs of different units, and its gradient, float64 [2, units].

    The output of one row and the label of another: the U-statistic that D's plug-in value, in which a row meets itself
    in one pair of N, is off from by that. Exact where `randomised_loss` is and units are no larger than that all pairs
    within them are as few; else from sampled pairs, less those of one unit.

    Args:
        on_data: of the graph whose output node is the loss.
        units: int64 [N], the unit of each row.
        labels: the columns that are labels.
        pairs: largest number of evaluations of f that is always made.
        seed: for sampled pairs.
    """
    pairs_of, weights = Pairs.of(on_data, labels), on_data.data.weights
    totals = torch.bincount(units, weights=weights)
    apart = 1 - float(totals.square().sum())
    sizes = torch.bincount(units)
    if not pairs_of.within(pairs) or int(sizes.square().sum()) > max(pairs, on_data.data.n):
        return _sampled_apart(pairs_of, sample_of(pairs, seed), units, totals)
    of_output, of_label = pairs_of.sums()
    x, y = _pairs_within(units, sizes)
    alone = len(x) == on_data.data.n
    own = on_data.on_data(on_data.graph.output).double().cpu()[x] if alone else pairs_of.at(x, y)
    both = weights[x] * weights[y]
    own = torch.bincount(units[x], weights=torch.where(both > 0, both * own, 0.0), minlength=len(totals))
    if apart <= 0:
        return _none(totals)
    value = float((weights * of_output).sum() - own.sum()) / apart
    both = torch.bincount(units, weights=weights * (of_output + of_label[pairs_of.partition.labels])) - 2 * own
    gradient = (both - 2 * value * totals * (1 - totals)) / apart
    said = OfPairs.ALL_OTHERS.say(units=_name(units, totals))
    return Baseline(value, 0.0, 0, said), gradient.expand(2, -1)


def _pairs_within(units: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Two int64 [pairs]: all pairs of rows of one unit, each row with itself among them; row by row if each is one."""
    order = units.argsort(stable=True)
    times = sizes[units[order]]
    ends = times.cumsum(0)
    place = torch.arange(int(ends[-1])) - (ends - times).repeat_interleave(times)
    x = order.repeat_interleave(times)
    return x, order[(sizes.cumsum(0) - sizes)[units[x]] + place]


def _name(units: Tensor, totals: Tensor) -> str:
    return "rows" if len(totals) == len(units) else "clusters"


def _sampled_apart(pairs: Pairs, sample: Sample, units: Tensor, totals: Tensor) -> tuple[Baseline, Tensor]:
    """E_randomised and its gradient from sampled pairs of different units."""
    x, y = (units[drawn] for drawn in pairs.sample(sample))
    kept = x != y
    f, x, y = pairs.f(sample)[kept], x[kept], y[kept]
    if len(f) < 2:
        return _none(totals)
    halves = torch.zeros(2, len(totals), dtype=torch.float64)
    expected = 2 * totals * (1 - totals) / (1 - totals.square().sum())  # how often a unit is in a pair
    for half in (0, 1):
        g = (f - f.mean())[half::2]
        for drawn in (x, y):
            halves[half].index_add_(0, drawn[half::2], g)
        halves[half] = halves[half] / len(g) - expected * g.mean()
    said = OfPairs.SAMPLED_OTHERS.say(pairs=len(f), units=_name(units, totals))
    return Baseline(float(f.mean()), float(f.std()) / math.sqrt(len(f)), len(f), said), halves


def _none(totals: Tensor) -> tuple[Baseline, Tensor]:
    """Of one unit there are no pairs."""
    return Baseline(math.nan, 0.0, 0, OfPairs.ALL_OTHERS.say(units="units")), torch.zeros(
        2, len(totals), dtype=torch.float64
    )
