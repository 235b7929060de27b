"""Equivalence is read off limits to one side, and keeps its level at the mark where the ends of t do not."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pscrub import Baseline, Estimate
from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baselines
from pscrub.estimate.estimate import mean_of_pairs
from pscrub.estimate.recovered import loss_recovered
from pscrub.questions.marks import equivalence
from tests.false_alarm import PER_CHECK

TIMES = 2000


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(95.4, 97.0, "not rejected"), (95.01, 96.99, "undecided"), (93.01, 94.99, "undecided"), (92.0, 94.5, "rejected")],
)
def test_equivalence_is_read_off_limits(low: float, high: float, answer: str) -> None:
    # 100 degrees of freedom move an end by a sixth of its distance.
    score = Estimate((low + high) / 2, low, high, 0.95, 0.5, 100.0, 1000, "t")
    found = equivalence(score, 95.0)
    assert found.answer == answer
    assert found.limits == (score.limit("lower"), score.limit("upper"))


def test_no_interval_decides_nothing() -> None:
    assert equivalence(None).answer == "undecided"
    assert equivalence(Estimate(95.5, -math.inf, 96.0, 0.95, 1.0, 100, 1000, "t")).answer == "undecided"
    with pytest.raises(StudyError, match="level"):
        equivalence(Estimate(97.0, 96.0, 98.0, 0.95, 0.5, 100, 1000, "t"), level=1.5)


def test_a_lower_level_decides_sooner() -> None:
    score = Estimate(96.0, 94.95, 97.05, 0.95, 0.53, 1e4, 20_000, "t")
    assert equivalence(score).answer == "undecided"
    assert equivalence(score, level=0.9).answer == "not rejected"


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_level_is_kept_at_the_mark_and_not_by_the_ends_of_t(mirrored: bool) -> None:
    f = (np.random.default_rng(0).lognormal(0, 1, (TIMES, 100)) - math.exp(0.5)) * (-1 if mirrored else 1)
    against = Baselines(Baseline(-1.0, 0.0, 0, "exact"), Baseline(9.0, 0.0, 0, "exact"))  # of which 0 is 90 %
    wrong = {"not rejected": 0, "rejected": 0, "t low": 0, "t high": 0}
    for each in torch.from_numpy(f):
        score = loss_recovered(mean_of_pairs(each), against)
        assert score is not None
        answer = equivalence(score, 90.0).answer
        if answer != "undecided":
            wrong[answer] += 1
        wrong["t low"] += score.low > 90
        wrong["t high"] += score.high < 90
    alarms = {name: stats.binom.sf(count - 1, TIMES, 0.025) < PER_CHECK for name, count in wrong.items()}
    assert not alarms["not rejected"] and not alarms["rejected"]
    assert alarms["t high" if mirrored else "t low"] and not alarms["t low" if mirrored else "t high"]
