"""Estimates from kept losses and sums of the rest are those of all losses, whatever these are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pscrub.estimate.concerns import find_concerns
from pscrub.estimate.estimate import Estimate, Interval, choose
from pscrub.estimate.intervals import t_of_moments
from pscrub.estimate.known import Known, Seen
from pscrub.estimate.picking import pick_interval
from pscrub.estimate.replicates import estimate_replicates
from pscrub.estimate.sample import Sample
from pscrub.estimate.sums import POINTS, Sums

ROUND, ROUNDS = 500, 12
RNG = np.random.default_rng(0)


def _rare(others: int, value: float = 1.0) -> Tensor:
    f = torch.zeros(ROUND * ROUNDS, dtype=torch.float64)
    f[torch.from_numpy(RNG.permutation(len(f))[:others])] = value
    return f


NORMAL = torch.from_numpy(RNG.normal(2.0, 3.0, ROUND * ROUNDS))
LOSSES: dict[str, tuple[Tensor, Known]] = {
    "normal": (NORMAL, Known()),
    "large mean": (1e6 + NORMAL, Known()),
    "0/1": (_rare(3000), Known()),
    "rare 0/1": (_rare(40), Known()),
    "none of 0/1": (_rare(0), Known(Seen(0.0, 1.0, (0.0, 1.0), 10))),
    "rare two values": (_rare(7, 5.0), Known(Seen(0.0, 5.0, (0.0, 5.0), 10))),
    "rare values": (_rare(30, 0.5), Known(Seen(0.0, 5.0, (0.0, 0.5, 5.0), 10))),
    "flat": (torch.full((ROUND * ROUNDS,), 2.5, dtype=torch.float64), Known()),
    "strata": (torch.arange(ROUND * ROUNDS // 2).double().repeat_interleave(2), Known(Seen(0.0, 9000.0, (), 10))),
    "outliers not drawn": (
        NORMAL,
        Known(Seen(-9.0, 1e6, (), 2), randomised=torch.tensor([0.0, 1e6], dtype=torch.float64)),
    ),
}


def summed(f: Tensor, kept: int) -> Sample:
    """The losses, as many rounds of them kept."""
    rounds = f.split(ROUND)
    return Sample(torch.cat([f[:0], *rounds[:kept]]), Sums.join(map(Sums.of, rounds[kept:])))


def same(one: Estimate, other: Estimate) -> bool:
    """Whether two estimates say the same, to rounding."""
    numbers = [(getattr(one, name), getattr(other, name)) for name in ("value", "low", "high", "se", "df")]
    scale = max(abs(other.value), other.se)
    near = all(a == b or math.isclose(a, b, rel_tol=1e-7, abs_tol=1e-9 * scale) for a, b in numbers)
    return near and (one.method, one.draws) == (other.method, other.draws)


@pytest.mark.parametrize("kept", [0, 1, 7])
@pytest.mark.parametrize("name", LOSSES)
def test_the_interval_that_is_picked_is_that_of_all_losses(name: str, kept: int) -> None:
    f, known = LOSSES[name]
    part, whole = summed(f, kept), Sample(f)
    assert len(part) == len(f) and part.sums is not None
    assert same(choose(part, known=known), choose(f, known=known))
    t = t_of_moments(whole.moments, 0.95)
    assert pick_interval(part, t, 0.95, None, known) == pick_interval(whole, t, 0.95, None, known)
    told = [[said.kind for said in find_concerns(each, choose(f, known=known), known)] for each in (part, whole)]
    assert told[0] == [kind for kind in told[1] if kept or kind != "rare pairs"]
    for figure in ("least", "greatest", "mean", "variance", "apart", "size"):
        assert getattr(part, figure) == pytest.approx(getattr(whole, figure), rel=1e-9, abs=1e-9), figure


@pytest.mark.parametrize("interval", ["t", "bernstein", "sequence"])
def test_intervals_that_are_asked_for(interval: str) -> None:
    for f, bounds in ((NORMAL, (-20.0, 20.0)), (LOSSES["0/1"][0], (0.0, 1.0)), (LOSSES["rare 0/1"][0], (0.0, 1.0))):
        for kept in (0, 3):
            assert same(choose(summed(f, kept), 0.9, interval, bounds), choose(f, 0.9, interval, bounds))


@pytest.mark.parametrize("few", [2, POINTS])
def test_betting_on_few_values_is_exact(few: int) -> None:
    f = torch.from_numpy(RNG.integers(0, few, ROUND * ROUNDS) / (few - 1.0)) ** 6
    for interval in ("betting", "sequence"):
        assert same(choose(summed(f, 2), 0.95, interval, (0, 1)), choose(f, 0.95, interval, (0, 1)))


@pytest.mark.parametrize("kept", [0, 3])
def test_betting_on_many_values_is_no_narrower_and_hardly_wider(kept: int) -> None:
    f = torch.from_numpy(RNG.beta(0.3, 3.0, ROUND * ROUNDS))
    all_of_it, part = (choose(each, 0.95, "betting", (0, 1)) for each in (f, summed(f, kept)))
    assert part.value == pytest.approx(all_of_it.value, rel=1e-12)
    assert part.low <= all_of_it.low + 1e-9 and all_of_it.high - 1e-9 <= part.high
    assert all_of_it.width < part.width < 1.01 * all_of_it.width


def test_losses_that_are_not_finite_are_counted() -> None:
    f = NORMAL.clone()
    f[[3, -1]] = torch.tensor([math.inf, math.nan], dtype=torch.float64)
    part = summed(f, 1)
    assert part.bad == 2 and not part.is_finite and choose(part).method == choose(f).method
    (said,) = find_concerns(part, choose(part))
    assert said.kind == "non-finite loss" and "on 2 of 6,000 draws" in said
    assert part.keeps((-20, 20)) and not part.keeps((0, 20)) and not summed(NORMAL, 12 - 1).keeps((0, 20))


def test_the_mean_of_a_picture_is_that_of_the_losses() -> None:
    values, counts = Sums.of(NORMAL).pictures
    assert len(values) == POINTS and counts.sum() == pytest.approx(len(NORMAL))
    assert values @ counts / counts.sum() == pytest.approx(float(NORMAL.mean()), rel=1e-12)


@pytest.mark.parametrize("kept", [0, 1, 2])
@pytest.mark.parametrize("f", [NORMAL, _rare(20), _rare(6000), NORMAL[:2].repeat(ROUND * ROUNDS // 2)])
def test_permuted_donors(f: Tensor, kept: int) -> None:
    rounds, dealt = f.split([2000, 1000, 3000]), [20, 10, 30]
    sums = Sums.join(Sums.of(each, k) for each, k in zip(rounds[kept:], dealt[kept:], strict=True))
    for interval in (Interval(), Interval(bounds=(-30.0, 30.0)), Interval("bernstein", 0.9, (-30.0, 30.0))):
        part = estimate_replicates(rounds[:kept], dealt, "draws", interval, sums)
        assert same(part, estimate_replicates(rounds, dealt, "draws", interval))
