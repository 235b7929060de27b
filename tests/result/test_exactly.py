"""Exact answers where they are cheap: right, said to be exact, beside the draws that would have been made."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pscrub import EXACT, Claim, Dataset, Graph, Hypothesis, ScrubResult, Study, StudyResult, merge, scrub, unroll
from pscrub.commands.costs import cost_claims
from pscrub.estimate import choose, stopping
from pscrub.estimate.estimate import Interval, Method
from pscrub.evaluate.engine import Engine
from pscrub.report import html
from pscrub.report.figures import convergence_figures
from pscrub.result.exactly import enumerate_law
from tests.false_alarm import Z
from tests.routes.build_case import build
from tests.routes.random_cases import cases, f_of

X = torch.arange(16)
DATA = Dataset({"x": X.double(), "y": (X % 5).double()}, weights=1 + X % 3)
GRAPH = Graph.of(
    {"low": lambda x: x % 4, "high": lambda x: x // 4, "f": lambda low, high, y: (low + high - y) ** 2}, ["x", "y"], "f"
)
LABEL = Claim("y", EXACT)
STUDY = Study(
    "toys",
    [
        Hypothesis("low", GRAPH, DATA, Claim("f", reads=[LABEL, Claim("low", lambda d: d["x"] % 2, words="parity")])),
        Hypothesis("nothing", GRAPH, DATA, Claim("f", reads=[LABEL])),
        Hypothesis("all", GRAPH, DATA, Claim("f", EXACT)),
    ],
)


def is_listed(result: ScrubResult) -> bool:
    return result.scrubbed.interval == Method.LISTED.value


def test_it_is_what_an_oracle_lists_and_draws_stay_as_they_were() -> None:
    listed = 0
    for mode in ("reader", "groups"):
        for case in cases(mode)[::4]:
            hypothesis = build(case)
            (exact,) = scrub(hypothesis, draws=2000, seed=1, randomised=-1e6).results
            forced = scrub(hypothesis, draws=2000, seed=1, randomised=-1e6, exact=False)
            (drawn,) = forced.results
            assert replace(exact.draws, sites=()) == replace(drawn.draws, sites=())
            if unroll(hypothesis).is_determined or not is_listed(exact):
                continue
            listed += 1
            expected = float(sum(value * p for value, p in f_of(case).items()))
            assert exact.scrubbed.exact and exact.scrubbed.width == 0
            assert exact.scrubbed.value == pytest.approx(expected, rel=1e-12, abs=1e-12)
            assert exact.recovered is not None and exact.recovered.low == exact.recovered.value == exact.recovered.high
            assert (
                drawn.scrubbed == choose(drawn.draws.losses, known=forced.reference.known) and not drawn.scrubbed.exact
            )
            assert abs(drawn.scrubbed.value - expected) <= Z * drawn.scrubbed.se + 1e-9
    assert listed >= 10


def test_the_table_says_exact_and_the_method_what_it_took() -> None:
    found = scrub(STUDY, draws=2000)
    assert [each.cells[-2:] for each in found.results] == [("exact", "exact")] * 3
    assert [is_listed(each) for each in found.results] == [True, True, False]
    assert "exact: the law of f (" in found["low"].scrubbed.method
    assert found["low"].scrubbed.method.endswith(" evaluations")
    assert len(found["low"].draws.losses) == 2000 and found["low"].draws.worst and found["low"].draws.sites[0].draws


def test_it_is_the_cost_that_decides() -> None:
    def listed(draws: int) -> bool:
        return is_listed(scrub(STUDY.hypotheses[0], draws=draws).results[0])

    (found,) = scrub(STUDY.hypotheses[0], draws=5000).results
    took = int(found.scrubbed.method.split(" values) in ")[1].split(" ")[0].replace(",", ""))
    assert 16 < took < 5000 and listed(took) and not listed(took - 1)


def test_without_a_number_of_draws_one_round_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ROUND", 1000)
    found = scrub(STUDY, until_width=0.1)
    assert is_listed(found["nothing"]) and len(found["nothing"].draws.losses) == 1000
    again = scrub(STUDY, until_width=0.1, after=found)
    assert again["nothing"].draws == found["nothing"].draws and again["nothing"].scrubbed == found["nothing"].scrubbed
    drawn = scrub(STUDY, until_width=40, exact=False)
    assert not drawn["nothing"].scrubbed.exact and len(drawn["nothing"].draws.losses) >= 1000
    # From exact to draws, and back.
    more = scrub(STUDY, until_width=40, after=found, exact=False)["nothing"]
    assert more.scrubbed == drawn["nothing"].scrubbed
    assert is_listed(scrub(STUDY, draws=500, seed=1, after=drawn)["nothing"])


def test_an_interval_asked_for_by_name_is_made_from_draws() -> None:
    (found,) = scrub(STUDY.hypotheses[0], draws=2000, interval="t").results
    assert not found.scrubbed.exact and found.scrubbed.draws == 2000


def test_merged_it_stays_exact_and_draws_add_up(tmp_path: Path) -> None:
    one = scrub(STUDY, draws=2000, seed=0)
    one = StudyResult.load(one.save(tmp_path / "r.nc"))
    for exact in (True, False):
        other = scrub(STUDY, draws=1000, seed=1, exact=exact)
        for merged in (merge(one, other), merge(other, one)):
            for name in ("low", "nothing", "all"):
                assert merged[name].scrubbed.value == one[name].scrubbed.value and merged[name].scrubbed.exact
            assert len(merged["low"].draws.losses) == 3000
            assert merged["low"].warnings == one["low"].warnings


def test_in_the_population_it_is_no_more_certain() -> None:
    """The law is D's. What holds in the population is told from draws apart, the same ones, exact on D or not."""
    exact = scrub(STUDY, draws=20_000, data_uncertainty=True)["low"]
    drawn = scrub(STUDY, draws=20_000, data_uncertainty=True, exact=False)["low"]
    assert exact.data is not None and drawn.data is not None and is_listed(exact)
    assert exact.data.population == drawn.data.population and exact.data.data == drawn.data.data
    assert exact.data.both.scrubbed is not None and exact.data.both.scrubbed.width > 0
    halves = [scrub(STUDY, draws=4000, seed=seed, data_uncertainty=True) for seed in (0, 1)]
    merged, again = (
        merge(*halves)["low"],
        scrub(STUDY, draws=4000, seed=1, data_uncertainty=True, after=halves[0])["low"],
    )
    assert merged.data is not None and again.data is not None
    of = [each.data.population.gradients[0][0] for each in (merged, again)]
    assert torch.allclose(*of, rtol=1e-12)


def test_claims_are_costed_and_the_report_is_made() -> None:
    found = cost_claims(scrub(STUDY, draws=2000), STUDY, 200, lambda line: None)
    assert [len(each.claims) for each in found.results] == [2, 1, 0]
    points = convergence_figures(found["low"], 0.95)
    assert points[-1]["draws"] == 2000 and points[-1]["low"] < points[-1]["recovered"] < points[-1]["high"]
    text = html.page(found)
    assert "exact: the law of f" in text and "How f is spread" in text


def test_losses_that_are_not_finite_are_said_to_be() -> None:
    data = Dataset({"x": torch.tensor([0.0, math.inf]), "y": torch.zeros(2)})
    graph = Graph.of({"out": lambda x: x, "f": lambda out, y: out - y}, ["x", "y"], "f")
    (found,) = scrub(Hypothesis("h", graph, data, Claim("f", reads=[Claim("y", "y")])), draws=1000).results
    assert is_listed(found) and found.scrubbed.value == math.inf and found.recovered is None
    assert any(warning.startswith("non-finite loss: the scrubbed expected loss is inf") for warning in found.warnings)


def test_the_law_is_listed_after_one_pass_over_the_data() -> None:
    """What lies below several leaves is run once, whatever the number of leaves."""
    seen, leaves = 0, 3

    def below(x: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += len(x)
        return x.square()

    functions: dict[str, Any] = {"below": below}
    for place in range(leaves):
        functions[f"leaf{place}"] = eval(f"lambda below: below % {place + 2}")
    names = ", ".join(f"leaf{place}" for place in range(leaves))
    functions["f"] = eval(f"lambda {names}: {' + '.join(names.split(', '))}")
    data = Dataset({"x": torch.arange(40.0)})
    graph = Graph.of(functions, ["x"], "f")
    reads = [Claim(f"leaf{place}", lambda d: d["x"] % 2, words="parity") for place in range(leaves)]
    engine = Engine(data)
    tree = unroll(Hypothesis("leaves", graph, data, Claim("f", reads=reads)))
    engine.on_data(graph)
    before = seen
    found = enumerate_law(tree, engine, stopping.Stop(), Interval())
    assert found is not None and found.exact and seen - before <= data.n + 4
