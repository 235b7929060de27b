"""Estimates from replicates: t between them where it is to be trusted, bounds or the draws' own where it is not."""

import math

import pytest
import torch
from scipy import stats

from pscrub import StudyError
from pscrub.estimate import Interval, mean_of_pairs
from pscrub.estimate.known import Known, Seen
from pscrub.estimate.replicates import REPLICATES, estimate_replicates, round_up, sizes_of_replicates
from pscrub.estimate.stopping import Stop

RNG = torch.Generator().manual_seed(0)
NORMAL = torch.randn(32 * 50, generator=RNG, dtype=torch.float64)
BOTH = Known.of(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]), torch.empty(0))


def pairs_t(v: list[float]) -> tuple[float, float]:
    """Standard error and degrees of freedom, from what each pair adds to the variance."""
    total, squares = sum(v), sum(each**2 for each in v)
    return math.sqrt(total), min(2 * total**2 / (squares - total**2 / len(v)), len(v))


def test_t_is_made_from_pairs_of_replicates() -> None:
    e = estimate_replicates([NORMAL], [32], "draws", Interval(level=0.9))
    means = [float(NORMAL[k::32].mean()) for k in range(32)]
    se, df = pairs_t([((means[2 * i] - means[2 * i + 1]) / 32) ** 2 for i in range(16)])
    half = stats.t.ppf(0.95, df) * se
    assert (e.value, e.low, e.high) == pytest.approx((sum(means) / 32, e.value - half, e.value + half))
    assert (e.df, e.draws, e.level, e.interval) == (pytest.approx(df), 1600, 0.9, "t of replicates")


def test_replicates_of_two_sizes_count_by_their_draws() -> None:
    first, second = NORMAL[:800], NORMAL[800:]
    e = estimate_replicates([first, second], [16, 8], "draws", Interval())
    means = [[float(part[i::k].mean()) for i in range(k)] for part, k in ((first, 16), (second, 8))]
    v = [((a - b) / 32) ** 2 for a, b in zip(means[0][::2], means[0][1::2], strict=True)]
    v += [((a - b) / 16) ** 2 for a, b in zip(means[1][::2], means[1][1::2], strict=True)]
    se, df = pairs_t(v)
    assert (e.value, e.se, e.df) == pytest.approx((float(NORMAL.mean()), se, df))
    assert e.high - e.value == pytest.approx(stats.t.ppf(0.975, df) * se)


def test_replicates_that_vary_less_than_their_draws_have_a_narrower_interval() -> None:
    dealt = (NORMAL.reshape(50, 32) - 0.9 * NORMAL.reshape(50, 32).mean(0)).flatten()
    e, plain = estimate_replicates([dealt], [32], "draws", Interval()), mean_of_pairs(dealt)
    assert e.interval == "t of replicates" and e.width < plain.width / 5


@pytest.mark.parametrize("events", [0, 3, 40])
def test_rare_events_have_bounds_and_the_method_says_that_they_are_wide(events: int) -> None:
    f = torch.zeros(3200, dtype=torch.float64)
    f[: 71 * events : 71] = 1
    e = estimate_replicates([f], [32], "draws", Interval(known=BOTH))
    assert e.interval == "betting" and "few, and so wide" in e.method and "32 replicates" in e.method
    assert 0 <= e.low <= events / 3200 <= e.high and e.high >= 0.1


def test_what_did_not_vary_and_is_not_known_to_has_no_ends() -> None:
    e = estimate_replicates([torch.ones(640)], [32], "draws", Interval())
    assert (e.low, e.high, e.interval) == (-math.inf, math.inf, "no interval")


def test_means_that_are_all_alike_are_given_the_draws_own_interval() -> None:
    """As where f is a sum over sites and each replicate uses each row equally often: no width of zero."""
    f = torch.arange(8, dtype=torch.float64).repeat_interleave(32)
    f = torch.stack([each[torch.randperm(8, generator=RNG)] for each in f.reshape(8, 32).T], 1).flatten()
    e = estimate_replicates([f], [32], "draws", Interval())
    plain = mean_of_pairs(f)
    assert (e.low, e.high) == (plain.low, plain.high) and e.width > 0 and e.interval == "t"
    assert "permuted" in e.method


def test_one_replicate_that_makes_up_the_variance_narrows_nothing() -> None:
    f = torch.arange(8, dtype=torch.float64).repeat_interleave(128)
    f = torch.stack([each[torch.randperm(8, generator=RNG)] for each in f.reshape(8, 128).T], 1).flatten()
    f[5] = 300.0
    e, plain = estimate_replicates([f], [32], "draws", Interval()), mean_of_pairs(f)
    assert e.low <= plain.low and e.high >= plain.high
    with_two = estimate_replicates([f[:512], f[512:]], [16, 16], "width", Interval())
    assert with_two.low <= e.low and with_two.high >= e.high


def test_losses_that_are_not_finite_have_no_finite_ends() -> None:
    f = NORMAL.clone()
    f[7] = math.inf
    e = estimate_replicates([f], [32], "draws", Interval())
    assert e.value == math.inf and not math.isfinite(e.width)


def test_heavy_tails_are_seen_in_the_draws() -> None:
    """Few large losses, each in a replicate of its own: the pairs of draws have fewer degrees of freedom."""
    many = NORMAL.repeat(8)
    many[::701] = 60.0
    e, plain = estimate_replicates([many], [256], "draws", Interval()), mean_of_pairs(many)
    assert e.interval == "t of replicates" and e.df == pytest.approx(plain.df) and e.df < 64


def test_kinds_that_are_asked_for() -> None:
    bounds = (-6.0, 6.0)
    t = estimate_replicates([NORMAL], [32], "draws", Interval("t", bounds=bounds))
    assert t.interval == "t of replicates" and "asked for" in t.method
    for kind in ("betting", "bernstein"):
        e = estimate_replicates([NORMAL], [32], "draws", Interval(kind, bounds=bounds))
        assert e.interval == kind and e.low < t.low and e.high > t.high and e.low >= -6 and e.high <= 6
        with pytest.raises(StudyError, match="needs the loss's bounds"):
            estimate_replicates([NORMAL], [32], "draws", Interval(kind))


def test_two_stages_are_no_narrower_than_the_first_allows() -> None:
    wild = 10 * (NORMAL - NORMAL.mean())
    calm = 0.01 * torch.randn(3 * len(wild), generator=RNG, dtype=torch.float64)
    e = estimate_replicates([wild, calm], [32, 96], "width", Interval())
    alone = estimate_replicates([wild], [32], "draws", Interval())
    assert e.high - e.value >= alone.width / 2 / 2 - 1e-12 and "two-stage" in e.method
    assert estimate_replicates([wild, calm], [32, 96], "draws", Interval()).width < e.width


def test_outliers_known_and_not_drawn_have_bounds() -> None:
    known = Known.of(
        torch.full((100,), 0.01, dtype=torch.float64),
        torch.cat([NORMAL[:99], torch.tensor([500.0], dtype=torch.float64)]),
        NORMAL[:50],
        Seen.of(torch.tensor([-5.0, 500.0]), 50),
    )
    e = estimate_replicates([NORMAL], [32], "draws", Interval(known=known))
    assert e.interval in ("betting", "bernstein") and e.high > 1


@pytest.mark.parametrize("draws", [1, 2, 63, 64, 65, 4096, 131_072, 131_073, 1_000_000])
def test_rounds_share_out_draws(draws: int) -> None:
    rounds = list(sizes_of_replicates(draws))
    assert draws <= sum(size for size, _ in rounds) == round_up(draws) < draws + 64
    assert all(k == REPLICATES and size % k == 0 and size <= 131_072 for size, k in rounds)
    for alike in (2, 512, 4096, 40_000):
        more = list(sizes_of_replicates(draws, alike))
        assert all(size == k * alike and k % 2 == 0 for size, k in more)
        assert draws <= sum(size for size, _ in more) < draws + 2 * alike


def test_unknown_donors_and_sequences_are_refused() -> None:
    Stop(donors="permuted").check(Interval())
    Stop(donors="independent").check(Interval("sequence"))
    with pytest.raises(StudyError, match=r"unknown donors 'permutd'.*permuted"):
        Stop(donors="permutd")
    with pytest.raises(StudyError, match=r"confidence sequence.*use independent donors"):
        Stop(donors="permuted").check(Interval("sequence"))
