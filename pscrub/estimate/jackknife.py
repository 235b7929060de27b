"""E_scrubbed in the population that D is a sample of, from draws apart, and what it owes to each unit of D.

Delete-one jackknife: how the mean moves when a unit is left out of D. Draws that hold the unit go; the others stand in
for them, as each would then have been drawn from what is left of its block, so that no evaluation of f is needed:

    E[f] - E[f without q] = E[f s_q],   s_q = [q drawn] - [q not drawn] (product over places of L / (L - w_q) - 1),

with L the weight that a place's row was drawn from and w_q that of q in its block. The variance is the sum of squares
over units, each the product of two independent estimates, from the first and from the second draws of pairs, so that
the draws' noise is not in it. Where blocks have few rows, squares count the joint effect of two rows once for each of
them, and too much; a second sum, over pairs of draws, has no such bias:

    Var = mean over pairs of draws (s, t) of f_s f_t (1 - r),   r = [no unit in both] P(s, t drawn apart) / P(s) P(t),

E[f]^2 being the mean over pairs that are apart. It is noisier, and so only the difference of the two is taken, from the
same draws, and added.

Where a block's means rest on few rows the squares of all its rows are large or small together, and tell less of the
variance than as many rows would. What the sum of squares owes to each unit says how much less (`bends`): leaving q out
changes it by g_q^2 + 2 sum over r of g_r E[f s_q s_r], to first order.

Source: Efron and Stein, The jackknife estimate of variance (1981); Hoeffding (1948), for the second; Satterthwaite
(1946), for the degrees of freedom that the third is for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pscrub.estimate.baselines import Baseline
from pscrub.estimate.estimate import Estimate, Interval, choose, mean_of_pairs
from pscrub.law.apart import Apart, Places
from pscrub.records import Equal

MOST = 1024
"""Draws of each half, all pairs of which are looked at."""
WORK = 1e8
"""Comparisons that this may take; with more places fewer draws are looked at."""
LEAST = 256
"""Draws of each half below which their pairs are too noisy to say anything."""
BENT = 4096
"""Draws of each half that say what the sum of squares owes to each unit."""


@dataclass(frozen=True, eq=False)
class Population(Equal):
    """What draws apart say of the population.

    Args:
        drawn: E_scrubbed, with the draws' uncertainty; None if no draw has a row for every place.
        randomised: E_randomised over pairs of different units.
        gradients: of E_scrubbed, E_model and E_randomised, two float64 [units] each, the change with each unit of D.
        weights: float64 [units], D's.
        excess: what pairs of draws add to the sum of squares of E_scrubbed's gradient.
        noise: its standard error, of draws alone.
        blocks: as many blocks as the joint effects of rows are spread over, were they spread evenly.
        overcount: how often the sum of squares has joint effects of two rows too much, on average over blocks: once in
            large ones, (n + 2) / (n - 2) times in blocks of n > 2.
        unknown: the share of draws in which some place has no row left.
        clusters: the column whose values tell units apart; "" where each row is one.
        bends: as gradients, of each the sum over units r of its gradient times E_scrubbed's second difference with q
            and r; None where that is not known, as in older results.
    """

    drawn: Estimate | None
    randomised: Baseline
    gradients: tuple[tuple[Tensor, Tensor], ...]
    weights: Tensor
    excess: float = 0.0
    unknown: float = 0.0
    clusters: str = ""
    bends: tuple[tuple[Tensor, Tensor], ...] | None = None
    noise: float = 0.0
    blocks: float = math.inf
    overcount: float = 1.0

    @property
    def joint(self) -> float:
        """What rows do together, of E_scrubbed's variance: no more than all of it, but for the draws' noise."""
        return -self.excess / self.overcount

    @property
    def effective(self) -> float:
        """As many units of equal weight would weigh as these do."""
        return 1 / float(self.weights.square().sum())


@dataclass(frozen=True)
class Excess:
    """What pairs of draws add to the sum of squares, and what goes with it: see `Population`."""

    value: float = 0.0
    noise: float = 0.0
    blocks: float = math.inf
    overcount: float = 1.0


class Influence:
    """Running sums over rounds of draws apart.

    Costs O(draws) for each pair of places and O(N) for each place a round; pairs of draws, once, WORK at most.

    Args:
        places: what is drawn.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.weights = torch.bincount(places.units, weights=places.tree.hypothesis.data.weights)
        self.sums = torch.zeros(2, 2, len(self.weights), dtype=torch.float64)
        self.f: list[Tensor] = []
        self.known: list[Tensor] = []
        self.some: list[tuple[_Drawn, _Drawn]] = []

    @property
    def draws(self) -> int:
        """Draws so far, those that are not known included."""
        return sum(map(len, self.f))

    def add(self, drawn: Apart, f: Tensor) -> None:
        """Take in a round.

        Args:
            drawn: of `draw_apart`.
            f: float64 [known draws], in their order.
        """
        whole = torch.zeros(len(drawn.known), dtype=torch.float64).masked_scatter(drawn.known, f.double())
        every = _Drawn(whole, drawn.known, drawn.rows, drawn.blocks, drawn.left)
        for half in (0, 1):
            part = every.part(slice(half, None, 2))
            self.sums[half] += self._scores(part, part.factors)
        self.f.append(whole)
        self.known.append(drawn.known)
        wanted = min(BENT, max(int(WORK / len(drawn.rows) ** 2), 1)) - sum(len(one.f) for one, _ in self.some)
        if (count := min(wanted, len(whole) // 2)) > 0:
            # Random parts, as draws come sorted by the row of their root; chosen apart, as the two of a pair are of one
            # stratum, which must be met no more often than among all draws.
            rng = np.random.default_rng((count, len(self.some)))
            first, second = (torch.from_numpy(rng.permutation(len(whole) // 2)[:count]) for _ in range(2))
            self.some.append((every.part(2 * first), every.part(2 * second + 1)))

    def found(self, interval: Interval) -> tuple[Estimate | None, float, Tensor, Excess]:
        """E_scrubbed for draws, the share of draws unknown, its gradient [2, units], the excess."""
        f, known = torch.cat(self.f), torch.cat(self.known)
        count = int(known.sum())
        if not count:
            return None, 1.0, torch.zeros_like(self.sums[0]), Excess()
        mean = float(f[known].sum()) / count
        if count == len(f):
            estimate = choose(f, interval.level, interval.kind, interval.bounds, known=interval.known)
        else:
            # A ratio: of pairs with one draw unknown the other still counts.
            moved = mean_of_pairs(torch.where(known, f - mean, 0.0) * len(f) / count, interval.level)
            ends = mean - moved.value + moved.low, mean - moved.value + moved.high
            estimate = replace(moved, value=mean, low=ends[0], high=ends[1], draws=count)
        gradient = self._gradient(self.sums, mean)
        return estimate, 1 - count / len(f), gradient, self._excess(mean)

    def _gradient(self, sums: Tensor, mean: float) -> Tensor:
        """float64 [2, units]; the last row of `sums` counts the draws that are known."""
        counts = torch.stack([torch.cat(self.known)[half::2].sum() for half in (0, 1)]).clamp(min=1)
        return self._scaled(sums, mean, counts)

    def _scaled(self, sums: Tensor, mean: float, counts: Tensor) -> Tensor:
        smaller = 1 - float(self.weights.square().sum())
        return smaller * (sums[:, 1] - mean * sums[:, 0]) / counts[:, None]

    def bends(self, gradients: Tensor, mean: float) -> Tensor:
        """float64 [figures, 2, units]: the sum over r of each gradient times the second difference with q and r.

        One half's draws with the gradient of the other, so that no draw's noise is in both.

        Args:
            gradients: float64 [figures, 2, units].
            mean: E_scrubbed.
        """
        units, out = self.places.units, torch.zeros_like(gradients)
        for half in (0, 1):
            drawn = _Drawn.together([both[half] for both in self.some])
            f = torch.where(drawn.known, drawn.f - mean, 0.0)
            others = gradients[:, 1 - half]
            out[:, half] = self._scores(drawn, f * self._sum_scores(drawn, others))
            for rows in drawn.rows:  # a unit with itself is no pair
                out[:, half] -= others * torch.bincount(units[rows], weights=f, minlength=others.shape[1])
            out[:, half] /= drawn.known.sum().clamp(min=1)
        return (1 - float(self.weights.square().sum())) * out

    def _scores(self, drawn: _Drawn, factors: Tensor) -> Tensor:
        """float64 [factors, units]: sums over draws of the scores times each factor, [factors, draws]."""
        units, out = self.places.units, torch.zeros(len(factors), len(self.weights), dtype=torch.float64)
        for u, (stand_in, owns) in enumerate(self._stand_ins(drawn)):
            spans = self.places.spans[u]
            for factor, into in zip(factors, out, strict=True):
                into += torch.bincount(units[drawn.rows[u]], weights=factor, minlength=len(into))
                each = factor * stand_in
                blocks = torch.bincount(drawn.blocks[u], weights=each, minlength=spans.partition.n_blocks)
                rows = blocks[spans.partition.labels] * spans.weights
                into -= torch.bincount(units, weights=rows, minlength=len(into))
                for mine, own in zip(drawn.rows, owns, strict=True):  # what is drawn has no stand-in
                    into += torch.bincount(units[mine], weights=each * own, minlength=len(into))
        return out

    def _sum_scores(self, drawn: _Drawn, figures: Tensor) -> Tensor:
        """float64 [figures, draws]: of each draw the sum of its scores times a number of each unit's."""
        units = self.places.units
        total = figures[:, units[drawn.rows]].sum(1)
        for u, (stand_in, owns) in enumerate(self._stand_ins(drawn)):
            spans = self.places.spans[u]
            block = torch.zeros(len(figures), spans.partition.n_blocks, dtype=torch.float64)
            block.index_add_(1, spans.partition.labels, spans.weights * figures[:, units])
            rest = block[:, drawn.blocks[u]]
            for mine, own in zip(drawn.rows, owns, strict=True):
                rest -= own * figures[:, units[mine]]
            total -= stand_in * rest
        return total

    def _stand_ins(self, drawn: _Drawn) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """For each place float64 [draws]: by how much more a draw counts for each weight of its block that is left out.

        Of the product over places the terms in the order of places, each with those before whose block holds it. And
        what the unit that each place drew weighs in this place's block, float64 [draws] each.
        """
        before: list[Tensor] = []
        for u, spans in enumerate(self.places.spans):
            owns = [spans.find(drawn.blocks[u], self.places.units[rows])[1] for rows in drawn.rows]
            rest = drawn.left[u] - owns[u]
            share = torch.where(rest > 1e-12 * drawn.left[u], 1 / rest.clamp(min=1e-300), 0.0)
            product = torch.ones_like(share)
            for v, more in enumerate(before):
                inside = self.places.spans[v].partition.labels_of(drawn.rows[u]) == drawn.blocks[v]
                product = product * torch.where(inside, 1 + more, 1.0)
            before.append(share * owns[u])
            yield share * product, owns

    def _excess(self, mean: float) -> Excess:
        """What pairs of draws add to the sum of squares, and its standard error, of a mean over pairs of two sets."""
        most = min(MOST, int(math.sqrt(WORK / len(self.places.places) ** 2)))
        some = [half.part(slice(0, most)) for half in self.some[0]]
        counts = torch.stack([half.known.sum() for half in some])
        if len(some[0].f) < LEAST or not bool((counts > 0).all()):
            return Excess()
        sums = torch.stack([self._scores(half, half.factors) for half in some])
        first, second = self._scaled(sums, mean, counts)
        squares = float((first * second).sum()) / (1 - float(self.weights.square().sum()))
        a, b = ((half.f - mean) * half.known for half in some)
        apart = self._overlap(*some).double()
        value = float(a @ (apart @ b)) / float(counts.prod()) - squares
        # Either's draws one by one: what each adds, squares taken off, whose noise is in both and cancels.
        of_one = a * ((apart @ b) / counts[1] - self._sum_scores(some[0], second[None])[0]) - value * some[0].known
        of_other = b * ((a @ apart) / counts[0] - self._sum_scores(some[1], first[None])[0]) - value * some[1].known
        # The larger of the two, as each has all of what a pair adds and its two draws alone do not.
        sides = [float(each.square().sum()) / int(n) ** 2 for each, n in zip((of_one, of_other), counts, strict=True)]
        return Excess(value, math.sqrt(max(sides)), *self._spread())

    def _spread(self) -> tuple[float, float]:
        """Blocks that joint effects are spread over, and how often the sum of squares has them too much.

        Two rows of a block do together what falls with its rows. A mean over pairs of n has 2 / n (n - 1) of the
        variance of one; with a row left out 2 / (n - 1) (n - 2), and n squares of what that changes are 2 n / (n - 2)
        times the variance. Of two rows neither can be left out, and each square is all that there is.
        """
        # Of all of D two rows do nothing to speak of.
        some = [spans for spans in self.places.spans if spans.partition.n_blocks > 1]
        if not some:
            return math.inf, 1.0
        weights = torch.cat([spans.partition.block_weights for spans in some]).square()
        n = torch.cat([spans.block_units for spans in some]).double()
        each = weights / n.clamp(min=1)
        pairs = each / (n - 1).clamp(min=1) * (n > 1)
        more = torch.where(n > 2, (n + 2) / (n - 2).clamp(min=1), 1.0)
        overcount = float((pairs * more).sum() / pairs.sum()) if bool(pairs.any()) else 1.0
        return float(each.sum() ** 2 / each.square().sum()) if bool(each.any()) else math.inf, overcount

    def _overlap(self, one: _Drawn, other: _Drawn) -> Tensor:
        """float32 [draws, draws]: 1 - r of every pair of draws."""
        units = self.places.units
        shared = torch.zeros(len(one.f), len(other.f), dtype=torch.bool)
        for mine in one.rows:
            for theirs in other.rows:
                shared |= units[mine].int()[:, None] == units[theirs].int()
        ratio = torch.ones(shared.shape)
        for u, spans in enumerate(self.places.spans):
            if spans.partition.n_blocks > 1:  # of all of D a few units are nothing
                ratio *= self._without(u, one, other.rows[:u])
                ratio *= self._without(u, other, one.rows[: u + 1]).T
        return (1 - ratio).masked_fill_(shared, 1.0)

    def _without(self, u: int, drawn: _Drawn, others: Tensor) -> Tensor:
        """float32 [draws, other draws]: by how much likelier a place's row is with others' units left out."""
        spans, units = self.places.spans[u], self.places.units
        blocks, left = drawn.blocks[u][:, None], drawn.left[u][:, None].float()
        rest = left.clamp(min=1e-30).repeat(1, others.shape[1])  # nothing is left to what is not known
        least = 1e-6 * rest[:, :1]
        for rows in others:
            if spans.count == len(units):  # a unit is a row
                inside = spans.partition.labels_of(rows).int() == blocks.int()
                rest -= inside * spans.weights[rows].float()
            else:
                rest -= spans.find(blocks, units[rows])[1].float()
        return left / rest.clamp_(min=least)


@dataclass(frozen=True)
class _Drawn:
    """Draws apart, with f: rows, blocks and what was left, [places, draws]."""

    f: Tensor
    known: Tensor
    rows: Tensor
    blocks: Tensor
    left: Tensor

    @property
    def factors(self) -> Tensor:
        """float64 [2, draws]: whether they are known, and f."""
        return torch.stack([self.known.double(), torch.where(self.known, self.f, 0.0)])

    @classmethod
    def together(cls, parts: Sequence[_Drawn]) -> _Drawn:
        flat = (torch.cat([getattr(part, name) for part in parts]) for name in ("f", "known"))
        return cls(
            *flat, *(torch.cat([getattr(part, name) for part in parts], 1) for name in ("rows", "blocks", "left"))
        )

    def part(self, some: slice | Tensor) -> _Drawn:
        return _Drawn(self.f[some], self.known[some], *(t[:, some] for t in (self.rows, self.blocks, self.left)))
