"""Worked examples: formula, enumeration and draws agree for any parameters, and a wrong figure is found out."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pscrub import StudyError
from pscrub.cli import main
from pscrub.estimate import choose
from pscrub.hypothesis.study import Expected, Study
from pscrub.hypothesis.tree import unroll
from pscrub.law.of_f import law_of_f, scrubbed_expectation
from pscrub.questions.worked import agreements, figures_table, measure
from pscrub.report.document import rows
from pscrub.report.tables import result_as_markdown, table
from pscrub.scrub import scrub
from pscrub.studies import EXTRAS, SHIPPED, load
from tests.false_alarm import mean_radius

DRAWS = 4096


def real(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


PARAMETERS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "ablation_ring": {
        "radius": real(0.1, 3),
        "gate": real(-3, 3),
        "tilt": real(0, 1),
        "noise": real(0, 2),
        "points": st.integers(3, 12),
    },
    "ablation_mean": {"bias": real(-2, 2), "bump": real(-2, 2), "mean": real(-2, 2), "high": real(0.05, 0.95)},
    "ablation_backup": {"quality": real(-1, 2), "size": real(0.1, 3)},
    "superposition": {**dict.fromkeys("abcde", real(-2, 2)), "sparsity": real(0, 0.9)},
    "hash_game": {
        **{f"{game}_{said}": real(-50, 50) for game in ("easy", "hard") for said in ("right", "wrong", "unknown")},
        "skill": real(0.05, 0.95),
    },
    "cancellation": {"largest": st.integers(1, 4), "tilt": real(-1, 1)},
    "sin_cos": {"points": st.integers(3, 20), "periods": st.integers(1, 3), "amplitude": real(0.1, 3)},
    "specificity": {"noise": st.integers(1, 5), "shortcut": real(-2, 2)},
    "real_values": {"n": st.sampled_from([16, 32, 48]), "bins": st.sampled_from([1, 2, 4, 8, 16])},
}
each_example = pytest.mark.parametrize("name", PARAMETERS)


def build(name: str, parameters: dict[str, Any]) -> Study:
    return load(name, {key: str(value) for key, value in parameters.items()})


def test_every_worked_example_is_tried_here() -> None:
    plain = {"brackets", "bracket_heads", "modular_addition", "induction", "compiled", "max_of_k"}
    assert set(SHIPPED) - plain - {*EXTRAS} <= set(PARAMETERS)
    assert all(load(name).expected for name in PARAMETERS)


@each_example
def test_the_formula_is_what_enumeration_gives(name: str) -> None:
    @settings(max_examples=40)
    @given(st.fixed_dictionaries(PARAMETERS[name]))
    def for_any(parameters: dict[str, Any]) -> None:
        for each in build(name, parameters).expected:
            listed = scrubbed_expectation(unroll(each.hypothesis), ablation=each.ablation)
            assert abs(listed - each.value) <= 1e-12 * max(1, abs(each.value)), (each.hypothesis.name, each.figure)

    for_any()


@each_example
def test_draws_are_within_their_error(name: str) -> None:
    @settings(max_examples=4)
    @given(st.fixed_dictionaries(PARAMETERS[name]))
    def for_any(parameters: dict[str, Any]) -> None:
        for each in build(name, parameters).expected:
            law = law_of_f(unroll(each.hypothesis), ablation=each.ablation)
            variance = math.fsum(p * (f - each.value) ** 2 for f, p in law.items())
            span = max(abs(f - each.value) for f in law)
            found = measure(each.hypothesis, each.ablation, DRAWS, seed=5)
            assert abs(found.value - each.value) <= mean_radius(variance, span, DRAWS) + 1e-9

    for_any()


@settings(max_examples=25)
@given(st.fixed_dictionaries(PARAMETERS["superposition"]))
def test_halves_drawn_apart_cost_two_c_squared_d_squared_less(parameters: dict[str, float]) -> None:
    """Two enumerations are compared, so that no formula of E_model comes in."""
    exact, whole, together, apart = (
        scrubbed_expectation(unroll(h)) for h in build("superposition", parameters).hypotheses
    )
    scale = max(1.0, exact)
    assert abs(whole - exact) <= 1e-12 * scale
    assert abs(together - exact) <= 1e-12 * scale
    assert abs(exact - apart - 2 * parameters["c"] ** 2 * parameters["d"] ** 2) <= 1e-12 * scale


@settings(max_examples=25)
@given(st.fixed_dictionaries(PARAMETERS["hash_game"]))
def test_joined_with_the_setting_the_gain_is_gone(parameters: dict[str, float]) -> None:
    model, false, joined, _ = (scrubbed_expectation(unroll(h)) for h in build("hash_game", parameters).hypotheses)
    assert abs(joined - model) <= 1e-11
    p = parameters
    easy = p["skill"] * p["easy_right"] + (1 - p["skill"]) * p["easy_wrong"]
    gain = (p["easy_unknown"] - easy + p["hard_right"] - p["hard_unknown"]) / 4
    assert abs(false - model - gain) <= 1e-11


@settings(max_examples=25)
@given(real(0.2, 2), real(0.1, 1.9), real(-2, 2), real(0.05, 0.95))
def test_mean_ablation_harms_one_side_and_helps_the_other(bias: float, part: float, mean: float, high: float) -> None:
    parameters = {"bias": bias, "bump": part * bias, "mean": mean, "high": high}
    found = {(e.figure, e.ablation.kind): e for e in build("ablation_mean", parameters).expected}

    def loss(side: str, kind: str) -> float:
        each = found[f"E_scrubbed where {side}", kind]
        return scrubbed_expectation(unroll(each.hypothesis), ablation=each.ablation)

    assert loss("too high", "mean") > loss("too high", "resampling") + 1e-9
    assert loss("too low", "mean") < loss("too low", "resampling") - 1e-9
    assert loss("too low", "resampling") == pytest.approx(bias**2)


@each_example
def test_a_wrong_figure_is_found_out(name: str) -> None:
    """By the exact routes if it is off by a millionth of a millionth, by draws alone if by enough."""
    study = load(name)
    slightly = replace(
        study, expected=[replace(e, value=e.value + 4e-12 * max(1, abs(e.value))) for e in study.expected]
    )
    assert not any(each.agrees for each in agreements(slightly, draws=64))
    for each in agreements(
        replace(study, expected=[replace(e, value=e.value + 1e3) for e in study.expected]), draws=512
    ):
        assert not replace(each, enumerated=None).agrees
    assert all(each.agrees for each in agreements(study, draws=512))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("superposition", {"sparsity": "1"}),
        ("hash_game", {"skill": "1"}),
        ("hash_game", {"numbers": "1"}),
        ("cancellation", {"tilt": "2"}),
        ("sin_cos", {"points": "2"}),
        ("ablation_ring", {"points": "2"}),
        ("ablation_mean", {"high": "1"}),
    ],
)
def test_parameters_that_have_no_meaning_are_refused(name: str, parameters: dict[str, str]) -> None:
    with pytest.raises(StudyError, match="expected"):
        load(name, parameters)


def test_what_is_printed_and_written() -> None:
    study = load("cancellation")
    result = scrub(study, draws=512)
    found = agreements(study, result, 512)
    assert [row["exact"] for row in rows(result, found)] == [e.value for e in study.expected[:4]]
    assert all(row["agrees"] for row in rows(result, found))
    assert "exact" not in rows(result)[0]
    assert list(table(result, found).head)[-2:] == ["exact", "agrees"]
    assert len(table(result).head) == 7
    assert len(figures_table(found).rows) == 8
    assert result_as_markdown(result, found).count("\n| ") == 4 + 1 + 2 + 8
    # The study's own draws are what its E_scrubbed is compared with, if that was read off the law too.
    exact = result.results[2]
    assert exact.scrubbed.exact and found[2].measured == choose(exact.draws.losses) and found[2].measured.draws == 512
    drawn = scrub(study, draws=512, exact=False)
    assert agreements(study, drawn, 512)[2].measured == drawn.results[2].scrubbed


def test_run_prints_both_and_a_parameter_changes_both(capsys: pytest.CaptureFixture[str]) -> None:
    def run(*options: str) -> dict[str, Any]:
        assert main(["run", "ablation_backup", "--draws", "2048", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)

    usual, other = run(), run("-P", "size=2")
    for found, exact in ((usual, 2.0), (other, 8.0)):
        assert found["rows"][0]["exact"] == exact
        assert found["rows"][0]["scrubbed"] == pytest.approx(exact, rel=0.2)
        assert all(each["agrees"] for each in (*found["rows"], *found["expected"]))
    assert {each["ablation"] for each in usual["expected"]} == {"resampling", "mean", "zero"}


def test_loss_recovered_without_meaning_is_said_to_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "sin_cos", "--draws", "512"]) == 0
    out = capsys.readouterr().out
    assert out.count("undefined") >= 5
    assert "NO" not in out


def test_a_study_takes_what_it_expects_as_given() -> None:
    study = load("cancellation")
    assert all(isinstance(each, Expected) for each in study.expected)
    assert agreements(replace(study, expected=())) == ()
