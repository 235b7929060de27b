"""The curve: exact where it can be known, false claims told from true ones, and every form of question and answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, HypothesisError, Partition, StudyError, unroll
from pscrub.cli import main
from pscrub.data import Clusters, Quantiles, Rounding
from pscrub.hypothesis.cutting import Cutting
from pscrub.law import entropy_budget, scrubbed_expectation
from pscrub.questions import resolution_curve
from pscrub.report import plots

N = 64
X = torch.arange(N).double()
DATA = Dataset({"x": X, "other": X[torch.arange(N) * 37 % N]})
GRAPH = Graph.of({"h": lambda x: x, "f": lambda h, x: (h - x) ** 2}, inputs=["x"], output="f")


def says(feature: Any, name: str = "h") -> Hypothesis:
    return Hypothesis(name, GRAPH, DATA, Claim("f", reads=[Claim("h", feature), Claim("x", "x")]))


def recovered(bins: int) -> float:
    """By hand: two rows of one of k bins of N / k numbers in a row differ by (m^2 - 1) / 6 in square, on average."""
    return 100 * (1 - ((N / bins) ** 2 - 1) / (N**2 - 1))


@pytest.mark.parametrize("by", ["quantiles", "rounding", "clusters"])
def test_the_curve_of_a_true_claim_is_as_by_hand(by: Any) -> None:
    bins = (1, 2, 4, 8) if by == "clusters" else (1, 2, 4, 8, 16, 32)
    found = resolution_curve(says("x"), "h", bins, by=by, draws=2048)
    assert [row.bins for row in found.rows] == [*bins, None]
    for row in found.rows:
        score, k = row.recovered, row.bins or N
        assert score is not None and (row.blocks, row.bits) == (k, pytest.approx(12 - np.log2(k), abs=0.1))
        if by != "clusters" and k < N:
            assert row.own == pytest.approx(k / N)
            assert score.low < recovered(k) < score.high
    assert found.rows[-1].recovered.value == 100 and found.rows[-1].own == 1
    assert (found.by, found.claim, found.offsets) == (by, "h", 0)


def test_it_is_what_hypotheses_of_each_resolution_give() -> None:
    for by, feature in (
        ("quantiles", lambda k: Quantiles("other", k)),
        ("clusters", lambda k: Clusters("other", k, 5)),
    ):
        found = resolution_curve(says("other"), "h", (2, 8), by=by, seed=5, draws=2048)
        again = resolution_curve(lambda k, feature=feature: says(feature(k)), "h", (2, 8), seed=5, draws=2048)
        for row, other in zip(found.rows, again.rows, strict=False):
            h = says(feature(row.bins))
            assert row.bits == other.bits == entropy_budget(unroll(h), bits=True).scrubbed
            assert row.scrubbed.value == other.scrubbed.value and row.own == other.own
            assert abs(row.scrubbed.value - scrubbed_expectation(unroll(h))) < 5 * row.scrubbed.se
        assert (again.by, again.rows[-1].bins) == ("", 8)
    without = resolution_curve(lambda k: says(Quantiles("x", k)), None, (2, 8), draws=64)
    assert {row.blocks for row in without.rows} == {None} and without.warnings == ()


def test_a_false_claim_recovers_only_what_is_not_swapped() -> None:
    found = resolution_curve(says("other"), "h", draws=4096)
    assert [row.bins for row in found.rows] == [1, 2, 4, 8, 16, 32, 64, None]  # as many as there are values
    for row in found.rows:
        assert row.recovered is not None and row.own is not None
        assert row.recovered.low < 100 * row.own + 5
    (warning,) = found.warnings
    assert warning.startswith("at '8', '16', '32', '64', 'every value' at least 12 % of draws at 'h' give back the row")


def test_intervals_hold_together_and_changes_are_paired() -> None:
    alone = resolution_curve(says("x"), "h", (4,), draws=512, family="none")
    among = resolution_curve(says("x"), "h", (2, 4, 8, 16), draws=512)
    assert alone.rows[0].scrubbed.value == among.rows[1].scrubbed.value
    assert alone.rows[0].scrubbed.width < among.rows[1].scrubbed.width
    change = among.rows[1].change
    assert change is not None and change.points is not None and among.rows[0].change is None
    assert change.difference.value == pytest.approx(among.rows[1].scrubbed.value - among.rows[0].scrubbed.value)
    assert change.difference.width < change.unpaired


def test_random_offsets_stand_beside_fixed_edges() -> None:
    found = resolution_curve(says(Quantiles("x", 4)), None, (2, 4), offsets=16, draws=512)
    assert [(row.name, row.random) for row in found.rows] == [
        *(("2", False), ("4", False), ("2, random offset", True), ("4, random offset", True), ("every value", False))
    ]
    assert found.offsets == 16 and found.draws == 512 and {row.scrubbed.draws for row in found.rows} == {512}
    fixed, soft = found.rows[1], found.rows[3]
    assert soft.blocks is not None and 4 < soft.blocks <= 5 and fixed.blocks == 4
    # A triangular kernel of height m: mean square (m^2 - 1) / 6 of rows inside, and less at the ends of the range.
    assert soft.recovered is not None and soft.recovered.high > recovered(4)
    again = resolution_curve(lambda k: says(Quantiles("x", k, "random")), "h", (2, 4), offsets=16, draws=512)
    assert [row.scrubbed.value for row in again.rows] == [row.scrubbed.value for row in found.rows if row.random]
    only = resolution_curve(lambda k: says(Quantiles("x", k, "random")), "h", (2,), draws=64)
    assert only.offsets == 32


def test_values_are_those_of_the_claim_in_every_form() -> None:
    for feature in ("x", X, X.tolist(), lambda d: d["x"], Quantiles("h", 3), Rounding("h", 3.0), Clusters(X, 3)):
        cut = Cutting.of(says(feature), "h")
        assert (cut.values[:, 0] == X.numpy()).all() and cut.distinct == N
        kinds = {Rounding: "rounding", Clusters: "clusters"}
        assert cut.by == kinds.get(type(feature), "quantiles")
    several = Cutting.of(says(torch.stack([X, X // 8], 1)), "h", by="rounding")
    assert several.feature(2)(DATA) == Partition.of(X // 32, DATA)  # the second entry spans less than one width


def test_what_cannot_be_asked_is_refused() -> None:
    h = says("x")
    for bins in ((), (0, 2), (4, 2), (2, 2)):
        with pytest.raises(StudyError, match="expected numbers of 1 or more, each greater"):
            resolution_curve(h, "h", bins)
    with pytest.raises(HypothesisError, match="x has 64 distinct values of positive weight, fewer than 65 bins"):
        resolution_curve(h, "h", (65,))
    with pytest.raises(HypothesisError, match="expected one claim whose feature is bins, found 0 of 'f'"):
        resolution_curve(h)
    with pytest.raises(HypothesisError, match="expected one claim 'g', found 0 of 'f'"):
        resolution_curve(h, "g")
    for feature in ("exact", Partition.trivial(DATA)):
        with pytest.raises(HypothesisError, match="claim 'h': has no values to cut; expected numbers"):
            resolution_curve(says(feature), "h")
    with pytest.raises(StudyError, match="clusters have no edges that an offset could move"):
        resolution_curve(h, "h", (2,), by="clusters", offsets=16)
    with pytest.raises(StudyError, match="unknown way 'rounds'"):
        resolution_curve(h, "h", (2,), by="rounds")  # type: ignore[arg-type]


def test_pictures_have_a_line_for_each_hypothesis() -> None:
    found = [resolution_curve(says(c, c), "h", (2, 4), offsets=n, draws=64) for c, n in (("x", 16), ("other", 0))]
    figure = plots.plot_resolution(found)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["2", "4", "all"]
    assert len(figure.axes[1].get_lines()) == 3 + 5 + 3  # curves and marks
    assert "random offset" in plots.svg(figure, "resolution")


STUDY = """
import torch
from pscrub import Claim, Dataset, Graph, Hypothesis, Study
from pscrub.data import Quantiles


def study():
    x = torch.arange(32.0)
    data = Dataset({"x": x, "y": x.flip(0) % 7})
    graph = Graph.of({"h": lambda x: x, "f": lambda h, x: (h - x) ** 2}, inputs=["x"], output="f")

    def says(name, feature):
        return Hypothesis(name, graph, data, Claim("f", reads=[Claim("h", feature), Claim("x", "x")]))

    every = says("in bins", Quantiles("x", 4)), says("values", "y"), says("exact", "exact")
    return Study("cut", every, labels=["x"])
"""


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, picture = tmp_path / "cut.py", tmp_path / "made" / "curve.svg"
    file.write_text(STUDY)
    few = ["--draws", "64", "--bins", "2,4"]
    assert main(["resolution", str(file), *few, "--out", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "in bins, 'h' by quantiles" in shown and "values" not in shown.split("every value")[0]
    assert picture.read_text().startswith("<svg")
    assert (
        main(["resolution", str(file), *few, "--claim", "h", "--hypothesis", "values", "--json", "--offsets", "16"])
        == 0
    )
    (curve,) = json.loads(capsys.readouterr().out)["curves"]
    assert (curve["hypothesis"], curve["claim"], curve["by"], curve["offsets"]) == ("values", "h", "quantiles", 16)
    assert [row["bins"] for row in curve["rows"]] == [2, 4, 2, 4, None]
    assert all(row["recovered_low"] <= row["recovered"] <= row["recovered_high"] for row in curve["rows"])
    assert main(["resolution", str(file), *few, "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("| bins | blocks |")
    for argv, fault in (
        (["--claim", "g"], "no hypothesis of study 'cut' has one claim 'g'"),
        (["--bins", "2,x"], "--bins 2,x: expected whole numbers with commas"),
        (["--claim", "h", "--hypothesis", "exact"], "has no values to cut"),
    ):
        assert main(["resolution", str(file), "--draws", "64", *argv]) == 2
        assert fault in capsys.readouterr().err
