"""Rounds: drawing until an interval is narrow enough, by Stein's two stages."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from pscrub import Claim, Graph, Hypothesis, scrub
from pscrub.estimate import stopping
from pscrub.estimate.stopping import ROUND
from tests.false_alarm import PER_CHECK
from tests.test_scrub import BASELINE, LABEL, UNIFORM, WEIGHTED, hypotheses


def test_drawing_goes_on_until_the_width() -> None:
    hypothesis = hypotheses("real", WEIGHTED)[1]
    draws = []
    for width in (1.9, 1.0, 0.7):
        (result,) = scrub(hypothesis, until_width=width).results
        assert result.recovered is not None and result.recovered.width <= width * (1 + 1e-9)
        assert not result.warnings and "two-stage" in result.recovered.method
        draws.append(result.scrubbed.draws)
    assert draws[0] < draws[1] < draws[2]
    assert scrub(hypothesis).results[0].scrubbed.draws == draws[1]  # the default width


def test_a_width_that_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "MOST", 3 * ROUND)
    (result,) = scrub(hypotheses("real", WEIGHTED)[1], until_width=1e-3).results
    assert result.scrubbed.draws == 3 * ROUND
    assert any("stopped at 49,152 draws, before the interval was 0.001 points wide" in w for w in result.warnings)


def additive() -> Hypothesis:
    """Each term is distributed as on D, so that their sum's expectation is E_model however they are drawn."""
    terms = {"a": lambda x: x[:, 0], "b": lambda x: x[:, 1], "c": lambda x: x[:, 2], "f": lambda a, b, c: a + b + c}
    graph = Graph.of(terms, ["x"], "f")
    return Hypothesis("additive", graph, UNIFORM, Claim("f", reads=[Claim("a", LABEL)]), "each")


def test_the_stopping_rule_keeps_its_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small first rounds, which say little of how many draws are needed: for nearly normal f the intervals cover."""
    monkeypatch.setattr(stopping, "ROUND", 32)
    times, covered, draws = 200, 0, set()
    for seed in range(times):
        (result,) = scrub(additive(), until_width=40.0, seed=seed, randomised=BASELINE).results
        covered += result.scrubbed.low <= result.model.value <= result.scrubbed.high
        draws.add(result.scrubbed.draws)
    assert len(draws) > 50 and max(draws) > 2 * min(draws)  # the rule is at work
    assert stats.binom.cdf(covered, times, 0.95) > PER_CHECK
    assert stats.binom.sf(covered - 1, times, 0.95) > PER_CHECK


def test_the_interval_is_never_narrower_than_the_first_round_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stein's rule: what decided when to stop also says how wide the interval is."""
    monkeypatch.setattr(stopping, "ROUND", 32)
    for seed in range(20):
        first, last = (
            scrub(additive(), seed=seed, randomised=BASELINE, **how).results[0].scrubbed
            for how in ({"draws": 32}, {"until_width": 40.0})
        )
        assert last.draws > first.draws
        assert last.width >= first.width * math.sqrt(first.draws / last.draws) * (1 - 1e-9)
