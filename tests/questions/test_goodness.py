"""The checks from draws: their rates under the true law and under wrong ones, and what they say at their limits."""

import math
from functools import cache

import pytest
import torch
from scipy import stats

from pscrub import unroll
from pscrub.law.drawing import draw
from pscrub.law.entropy import entropy_budget
from pscrub.law.exact import leaf_law
from pscrub.questions.goodness import entropy_from_draws, goodness_of_fit, holm, independence_given_output
from tests.false_alarm import PER_CHECK
from tests.routes.build_case import build
from tests.routes.random_cases import MODES, cases
from theory.calibration import (
    LEVEL,
    WRONG,
    Rates,
    half_consistent,
    ladder,
    never_the_own,
    parents_block,
    rates,
    settings,
    tenth_consistent,
    unweighted,
)

SETS = 60
few, dense, sparse, _ = settings()


@cache
def under_the_truth() -> tuple[Rates, ...]:
    return tuple(rates(setting, repetitions=SETS) for setting in (few, dense, sparse))


def too_many(share: float, n: int, level: float) -> bool:
    """Whether so large a share of n repetitions has a chance below that of one check, each being of at most `level`."""
    return bool(stats.binom.sf(round(share * n) - 1, n, level) < PER_CHECK)


def test_rejections_of_the_true_law_are_as_rare_as_promised() -> None:
    """A smaller version of `python -m theory.calibration`."""
    for found in under_the_truth():
        print(found)
        assert not too_many(found.fit, SETS, LEVEL)
        # Holm's adjustment keeps the rate; the permutations' gamma tail is an approximation, allowed twice the level.
        assert not too_many(found.independence, SETS, 2 * LEVEL)
        assert not too_many(found.entropy, SETS, 2 * LEVEL)


def test_single_tests_reject_at_their_level() -> None:
    """Nor too seldom: the tests are not idle. Within three standard errors, were the tests of a set all alike."""
    fit = sum(found.fit_alone for found in under_the_truth()) / 3
    independence = sum(found.independence_alone for found in under_the_truth()) / 3
    assert 0.02 < fit < 0.10
    assert 0.02 < independence < 0.10


@pytest.mark.parametrize("law", WRONG)
def test_wrong_laws_are_rejected(law) -> None:
    """By the check that can see them, in every one of six sets of draws where any can."""
    found = rates(dense, law, repetitions=6, seed=1)
    print(found)
    if law in (half_consistent, tenth_consistent):  # they meet Lemma 1, which must not reject them
        assert found.independence == 1 and found.fit < 1
    elif law is never_the_own:
        assert found.fit == 1 and found.independence == 1
    elif law in (unweighted, parents_block):
        assert found.fit == 1
    else:
        assert max(found.fit, found.independence) == 1


def test_faults_are_named() -> None:
    """The node with a wrong law is among those rejected, and nodes untouched by the fault are not."""
    data = dict(draw(dense.tree, 4000, (5,), stratified=False))
    wrong = next(path for path in dense.tree.leaves if path.endswith("side1"))
    data[wrong] = torch.zeros_like(data[wrong])
    rejected = {test.path for test in goodness_of_fit(dense.tree, data) if test.adjusted < 1e-6}
    assert wrong in rejected
    assert all(wrong.startswith(path) for path in rejected)


def test_inputs_that_no_row_has_reject_at_once() -> None:
    """Ancestors of a pair of leaves whose claimed values never meet in D are rejected with probability 0."""
    tree = unroll(ladder(40, 2, 4))
    leaves = {
        path: torch.arange(40)[torch.randperm(40, generator=torch.Generator().manual_seed(k))]
        for k, path in enumerate(tree.leaves)
    }
    tests = {test.path: test for test in goodness_of_fit(tree, leaves)}
    assert tests[tree.root].p == 0 and tests[tree.root].statistic == math.inf
    entropy = entropy_from_draws(tree, leaves)
    assert entropy.estimate.value == math.inf and "impossible" in entropy.warnings[0]


def test_both_entropies_where_both_can_be_had() -> None:
    shown = 0
    for case in (case for mode in MODES for case in cases(mode)[:12]):
        tree = unroll(build(case))
        support = len(leaf_law(tree).p)
        data = draw(tree, 4000, (1,), stratified=False)
        found, exact = entropy_from_draws(tree, data), entropy_budget(tree).scrubbed
        assert abs(found.estimate.value - exact) <= 7 * found.estimate.se + 1e-9
        assert found.seen <= support
        if support < 200:
            shown += 1
            assert not found.warnings
            assert abs(found.miller_madow - exact) <= 7 * max(found.estimate.se, support / 4000)
    assert shown >= 20


def test_limits_are_said() -> None:
    data = draw(sparse.tree, 500, (2,), stratified=False)
    found = entropy_from_draws(sparse.tree, data)
    assert "500 draws gave" in found.warnings[0]
    assert found.miller_madow < found.estimate.low


def test_the_g_test_agrees_in_large_cells() -> None:
    data = draw(few.tree, 20_000, (3,), stratified=False)
    for chi, g in zip(goodness_of_fit(few.tree, data), goodness_of_fit(few.tree, data, g_test=True), strict=True):
        assert g.statistic == pytest.approx(chi.statistic, rel=0.1, abs=0.1)


def test_same_seed_same_answer() -> None:
    data = draw(few.tree, 500, (4,), stratified=False)
    assert independence_given_output(few.tree, data, seed=1) == independence_given_output(few.tree, data, seed=1)


def test_holm() -> None:
    assert holm([]) == []
    assert holm([0.5, 0.01, 0.04]) == [0.5, 0.03, 0.08]
    assert holm([0.9, 0.9]) == [1.0, 1.0]
