"""The worst scrub of a study: beside the drawn one, on shipped studies, and where it cannot be listed."""

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Study, unroll
from pscrub.cli import main
from pscrub.law import find_extremes, scrubbed_expectation
from pscrub.questions import scrub_pessimally
from pscrub.studies import load


def squares() -> Study:
    """(h - y)^2 where h is x: 0 if x matters; any x at all if nothing does; any of the same sign if its sign does."""
    x = torch.tensor([-2.0, -1.0, 1.0, 2.0])
    data = Dataset({"x": x, "y": x})
    graph = Graph.of({"h": lambda x: x, "f": lambda h, y: (h - y) ** 2}, inputs=["x", "y"], output="f")

    def claim(name: str, feature: object) -> Hypothesis:
        return Hypothesis(name, graph, data, Claim("f", reads=[Claim("y", "y"), Claim("h", feature, words=name)]))

    rows = [claim("x", "x"), claim("sign", x > 0), claim("nothing", torch.zeros(4))]
    return Study("squares", rows, labels=("y",))


def test_the_worst_is_beside_the_drawn_and_the_best() -> None:
    found = scrub_pessimally(squares())
    ends = {row.name: row.ends for row in found.rows}
    assert [(e.least, e.scrubbed, e.greatest) for e in ends.values() if e] == [(0, 0, 0), (0, 0.5, 1), (0, 5, 12.5)]
    assert found.model.value == 0 and found.randomised.value == 5
    table = found.table()
    assert [row[-2:] for row in table.rows] == [("100.00", "100.00"), ("90.00", "80.00"), ("0.00", "-150.00")]
    assert [row[1] for row in table.rows] == ["0.00", "1.00", "2.00"]


def test_where_baselines_coincide_there_is_nothing_to_recover() -> None:
    found = scrub_pessimally(load("sin_cos"))
    assert all(row[-2:] == ("–", "–") for row in found.table().rows)


@pytest.mark.parametrize("name", ["hash_game", "cancellation", "specificity"])
def test_shipped_studies_lie_between_the_ends(name: str) -> None:
    study = load(name)
    for row, hypothesis in zip(scrub_pessimally(study).rows, study.hypotheses, strict=True):
        assert row.ends == find_extremes(unroll(hypothesis))
        assert row.ends.scrubbed == pytest.approx(scrubbed_expectation(unroll(hypothesis)))
        assert row.ends.least <= row.ends.scrubbed + 1e-12 and row.ends.scrubbed <= row.ends.greatest + 1e-12


def test_what_cannot_be_listed_is_said_and_the_others_are_answered() -> None:
    found = scrub_pessimally(squares(), limit=10)
    assert [row.ends is None for row in found.rows] == [False, False, True]
    assert found.table().rows[2] == ("nothing", "2.00", "–", "–", "–", "–", "–")
    assert len(found.below) == 2 and found.below[1].startswith("nothing: no exact law of f")


def test_the_command_prints_one_hypothesis_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pessimal", "specificity", "--markdown"]) == 0
    every = capsys.readouterr().out
    assert main(["pessimal", "specificity", "--markdown", "--hypothesis", "one node: their sum"]) == 0
    one = capsys.readouterr().out
    assert every.count("\n|") > one.count("\n|") and "pessimal, %" in one and "no law of donors" in one


def test_bad_input_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pessimal", "specificity", "--seed", "-1"]) != 0
    assert "seed is -1; expected 0 or more" in capsys.readouterr().err
    assert main(["pessimal", "specificity", "--limit", "0"]) != 0
    assert "limit is 0; expected 1 or more combinations" in capsys.readouterr().err
    assert main(["pessimal", "specificity", "--hypothesis", "none such"]) != 0
    assert "has no hypothesis 'none such'" in capsys.readouterr().err
