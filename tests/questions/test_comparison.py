"""Comparisons: common random numbers, ladders, simultaneous intervals, and what each claim costs."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from pscrub import EXACT, Baseline, Claim, Dataset, Estimate, Graph, Hypothesis, StudyError, unroll
from pscrub.estimate.baselines import Baselines
from pscrub.estimate.estimate import mean_of_pairs
from pscrub.estimate.known import Known
from pscrub.estimate.recovered import points_recovered
from pscrub.estimate.simultaneous import simultaneous_level
from pscrub.hypothesis.tree import make_exact
from pscrub.law.drawing import draw_alike
from pscrub.law.of_f import scrubbed_expectation
from pscrub.questions.claims import claim_costs
from pscrub.questions.comparison import Losses, compare, draw_losses, is_coarser, ladder
from tests.false_alarm import PER_CHECK, Z

N = 64
X = torch.arange(N)
GRAPH = Graph.of(
    {
        "a": lambda x: (x % 4) + (x // 8) % 2,
        "b": lambda x: (x // 4) % 4,
        "out": lambda a, b: a + b,
        "f": lambda out, y: ((out - y) ** 2).double(),
    },
    inputs=["x", "y"],
    output="f",
)
Y = (X % 4) + (X // 4) % 4
DATA = Dataset({"x": X, "y": Y}, weights=1 + X % 3)
LABEL = Claim("y", EXACT)


def claimed(a: Any, b: Any, name: str) -> Hypothesis:
    out = Claim("out", reads=[Claim("a", a), Claim("b", b)])
    return Hypothesis(name, GRAPH, DATA, Claim("f", reads=[out, LABEL]))


FINE, MIDDLE, COARSE = claimed(X % 8, Y, "fine"), claimed(X % 4, Y, "middle"), claimed(X % 2, Y, "coarse")
RUNGS = [FINE, MIDDLE, COARSE]


def within(estimate: Estimate, expected: float) -> bool:
    return abs(estimate.value - expected) <= Z * max(estimate.se, 1e-12)


def test_common_random_numbers_change_no_law() -> None:
    losses = draw_losses(RUNGS, draws=40_000)
    assert losses.names == ("fine", "middle", "coarse") and losses.f.shape == (3, 40_000)
    for hypothesis, f in zip(RUNGS, losses.f, strict=True):
        assert within(mean_of_pairs(f), scrubbed_expectation(unroll(hypothesis)))


def test_sites_of_one_path_and_block_share_their_data() -> None:
    trees = [unroll(h) for h in RUNGS]
    strata = trees[0].seen.refine(*(tree.seen for tree in trees))
    one, other = (draw_alike(tree, strata, 200, (5, 1)) for tree in trees[:2])
    for path in ("f", "f/y", "f/out", "f/out/b"):
        same = torch.equal(one[path], other[path])
        assert same == (path != "f/out/b" or torch.equal(one["f/out"], other["f/out"]))
    assert not torch.equal(one["f/out/a"], one["f/out/b"])
    again = draw_alike(trees[0], strata, 200, (5, 1))
    assert all(torch.equal(one[path], again[path]) for path in one)
    assert not torch.equal(one["f"], draw_alike(trees[0], strata, 200, (5, 2))["f"])


def test_a_paired_difference_is_narrower_and_right() -> None:
    losses = draw_losses(RUNGS, draws=20_000)
    for a, b in itertools.combinations(range(3), 2):
        found = compare(losses, losses.names[a], losses.names[b])
        exact = [scrubbed_expectation(unroll(RUNGS[i])) for i in (a, b)]
        assert within(found.difference, exact[1] - exact[0])
        assert found.difference.width < found.unpaired and found.correlation > 0
        bottom = losses.model.value - losses.randomised.value
        assert found.points is not None
        assert found.points.value == pytest.approx(100 * found.difference.value / bottom)
        back = compare(losses, losses.names[b], losses.names[a])
        assert back.difference.value == -found.difference.value and back.difference.width == found.difference.width
    assert compare(losses, "fine", "coarse").answer == "'fine' recovers more"
    same = compare(losses, "fine", "fine")
    assert same.difference.width == 0 and same.answer == "undecided" and same.correlation == pytest.approx(1)
    with pytest.raises(StudyError, match="no losses of 'other'"):
        compare(losses, "fine", "other")


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_which_recovers_more_is_no_oftener_wrong_for_skewed_differences(side: float) -> None:
    """Two that recover as much, their difference skewed: either answer is wrong 2.5 % of the time at most.

    The ends of t, read as if they were limits, name the one on the heavy side more often than that.
    """
    rng, times, draws = np.random.default_rng(7), 600, 60
    base = Baseline(0.0, 0, 0, "exact"), Baseline(10.0, 0, 0, "exact")
    wrong = {"first": 0, "second": 0}
    by_ends = {"first": 0, "second": 0}
    for _ in range(times):
        f = torch.from_numpy(rng.lognormal(0, 1, draws) - np.exp(0.5)) * side
        found = compare(Losses(("first", "second"), torch.stack([0 * f, f]), *base), "first", "second")
        assert found.points is not None
        for name in wrong:
            wrong[name] += found.answer == f"'{name}' recovers more"
        by_ends["second"] += found.points.low > 0
        by_ends["first"] += found.points.high < 0
    most = float(stats.binom.isf(PER_CHECK, times, 0.025))
    assert max(wrong.values()) <= most < max(by_ends.values())
    assert all(wrong[name] <= by_ends[name] for name in wrong)


def test_points_of_sampled_baselines_carry_their_error() -> None:
    e = Estimate(0.5, 0.4, 0.6, 0.95, 0.05, 1e6, 1000, "t")
    exact = points_recovered(e, Baselines(Baseline(1.0, 0.0, 0, "exact"), Baseline(3.0, 0.0, 0, "exact")))
    unsure = points_recovered(e, Baselines(Baseline(1.0, 0.0, 0, "exact"), Baseline(3.0, 0.1, 100, "sampled")))
    assert exact is not None and unsure is not None
    assert (exact.value, exact.low, exact.high) == pytest.approx((-25, -30, -20))
    assert unsure.value == pytest.approx(-25) and unsure.width > exact.width
    assert points_recovered(e, Baselines(Baseline(1.0, 0.0, 0, "exact"), Baseline(1.0, 0.0, 0, "exact"))) is None


def test_a_ladder_is_compared_step_by_step() -> None:
    losses = draw_losses(RUNGS, draws=4000)
    steps = ladder(losses)
    assert [(s.first, s.second) for s in steps] == [("fine", "middle"), ("middle", "coarse")]
    assert all(0.95 < s.difference.level <= 0.95**0.5 for s in steps)
    assert [s.difference.level for s in ladder(losses, family="none")] == [0.95, 0.95]
    assert is_coarser(FINE, MIDDLE) and is_coarser(MIDDLE, COARSE) and not is_coarser(COARSE, MIDDLE)
    with pytest.raises(StudyError, match="two hypotheses"):
        ladder(draw_losses([FINE], draws=10))


def test_families_of_intervals() -> None:
    k = 8
    alone, alike = torch.eye(k, dtype=torch.float64), torch.ones(k, k, dtype=torch.float64)
    assert simultaneous_level(alone, 0.95, "none") == 0.95 == simultaneous_level(alone[:1, :1], 0.95)
    sidak, bonferroni = (simultaneous_level(alone, 0.95, family) for family in ("sidak", "bonferroni"))
    assert sidak == 0.95 ** (1 / k) and bonferroni == 1 - 0.05 / k and bonferroni > sidak
    assert simultaneous_level(alone, 0.95, "max-t") == pytest.approx(sidak, abs=1e-3)
    assert simultaneous_level(alike, 0.95, "max-t") == pytest.approx(0.95, abs=2e-3)  # one error eight times
    half = 0.7 * alike + 0.3 * alone
    assert 0.95 < simultaneous_level(half, 0.95, "max-t") < sidak
    with pytest.raises(StudyError, match="unknown family"):
        simultaneous_level(alone, 0.95, "holm")  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["max-t", "sidak", "bonferroni"])
def test_simultaneous_intervals_hold_all_together(family: Any) -> None:
    k, pairs, times = 6, 150, 150
    rng = np.random.default_rng(3)
    shared = rng.standard_normal((times, 1, 2 * pairs))
    f = torch.from_numpy(0.8 * shared + 0.6 * rng.standard_normal((times, k, 2 * pairs)))
    base = Baseline(1.0, 0.0, 0, "exact"), Baseline(0.0, 0.0, 0, "exact")
    held = 0
    for each in f:
        scores = Losses(tuple("abcdef"), each, *base).scores(0.95, family)
        held += all(s is not None and s.low <= 0 <= s.high for s in scores)
    assert stats.binom(times, 0.95).cdf(held) > PER_CHECK
    if family == "max-t":
        assert stats.binom(times, 0.95).sf(held - 1) > PER_CHECK


# What claims cost


def test_each_claims_cost_against_the_exact_value() -> None:
    hypothesis = claimed(X % 2, X % 8 // 4, "both cost")
    costs = claim_costs(hypothesis, draws=20_000)
    tree = unroll(hypothesis)
    scrub = {"a": ["f/out/a"], "b": ["f/out/b"]}
    everything = [path for path, site in tree.sites.items() if path != tree.root and site.partition.sizes.max() > 1]
    assert {cost.claim for cost in costs} == {"a", "b", "out"}
    base = draw_losses([hypothesis], draws=2)
    model, chance = base.model.value, base.randomised.value

    def score(value: float) -> float:
        return 100 * (value - chance) / (model - chance)

    full = scrubbed_expectation(tree)
    for cost in costs:
        if cost.claim not in scrub:
            continue
        others = [path for path in everything if path not in cost.paths]
        alone, without = (scrubbed_expectation(make_exact(tree, paths)) for paths in (others, cost.paths))
        assert cost.alone is not None and cost.without is not None and cost.gain is not None
        assert within(cost.alone, score(alone)) and within(cost.without, score(without))
        assert within(cost.gain, score(without) - score(full))
    gains = [cost.gain.value for cost in costs if cost.gain is not None]
    assert gains == sorted(gains, reverse=True)


def test_a_harmless_claim_costs_nothing_and_the_weak_one_comes_first() -> None:
    harmless = X % 4 + 4 * ((X // 8) % 2)  # all that a depends on
    hypothesis = claimed(harmless, X % 3, "b is wrong")
    costs = {cost.claim: cost for cost in claim_costs(hypothesis, claims=["a", "b"], draws=4000)}
    assert next(iter(costs)) == "b"
    a, b = costs["a"], costs["b"]
    assert a.alone is not None and within(a.alone, 100)
    assert b.alone is not None and b.alone.high < 90 and b.gain is not None and b.gain.low > 0
    assert b.without is not None and b.without.value > b.alone.value
    with pytest.raises(StudyError, match="no claim 'y' that scrubs anything"):
        claim_costs(hypothesis, claims=["y"])


@pytest.mark.parametrize("sharing", ["reader", "all", "each"])
def test_unimportant_inputs_are_claims_too(sharing: Any) -> None:
    root = Claim("f", reads=[Claim("out", reads=[Claim("a", EXACT)]), LABEL])
    hypothesis = Hypothesis("b does not matter", GRAPH, DATA, root, sharing)
    (cost,) = claim_costs(hypothesis, draws=2000)
    assert cost.claim in ("f/out/~", "~all", "f/out/~b")
    whole = draw_losses([hypothesis], draws=2)
    assert cost.without is not None and cost.without.value == pytest.approx(100)  # then all is exact
    expected = scrubbed_expectation(unroll(hypothesis))
    bottom = whole.model.value - whole.randomised.value
    assert cost.alone is not None and within(cost.alone, 100 * (expected - whole.randomised.value) / bottom)


def hardly_differ(draws: int, seed: int, known: Known) -> Losses:
    """0/1 losses of two hypotheses, the second worse on 2 rows of 120."""
    rows = np.random.default_rng(seed).integers(0, 120, draws)
    first, second = (torch.from_numpy(f[rows]) for f in (np.arange(120) % 7 == 0, np.arange(120) % 7 < 1))
    worse = torch.from_numpy(np.isin(rows, (1, 2)))
    f = torch.stack([first.double(), (second | worse).double()])
    return Losses(("a", "b"), f, Baseline(0.0, 0.0, 0, "exact"), Baseline(0.5, 0.0, 0, "exact"), known)


def test_differences_that_are_rare_have_bounds_and_are_warned_of() -> None:
    zero_one = Known.of(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]), torch.empty(0))
    held = plain = 0
    for seed in range(200):
        found = compare(hardly_differ(120, seed, zero_one), "a", "b").difference
        t = compare(hardly_differ(120, seed, Known()), "a", "b").difference
        assert found.width > 0 and found.interval == "betting"
        held += found.low <= 2 / 120 <= found.high
        plain += t.interval == "t" and t.low <= 2 / 120 <= t.high
    law = stats.binom(200, 0.95)
    assert law.cdf(held) > PER_CHECK and law.cdf(plain) < PER_CHECK
    few = compare(hardly_differ(240, 0, zero_one), "a", "b")
    assert {said.kind for said in few.warnings} & {"rare values", "too few draws"} and few.points is not None
    step = ladder(hardly_differ(240, 0, zero_one), 0.95)
    assert [each.warnings for each in step] == [few.warnings]
    same = replace(hardly_differ(240, 0, zero_one), f=torch.zeros(2, 240, dtype=torch.float64))
    found = compare(same, "a", "b")
    assert {said.kind for said in found.warnings} == {"no variation"} and 0 < found.difference.width < 0.2
    assert compare(replace(same, known=Known()), "a", "b").difference.interval == "no interval"


def test_losses_that_are_drawn_know_what_f_can_be() -> None:
    losses = draw_losses(RUNGS, draws=64)
    assert losses.known.seen.pairs > 0 and losses.known.bounds is not None
    assert losses.known.bounds[0] <= float(losses.f.min()) and losses.known.bounds[1] >= float(losses.f.max())
