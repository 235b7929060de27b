"""Measures beside loss recovered: of a study whose figures are known, and of ones that keep no distances."""

from typing import Any

import pytest
import torch

from pscrub import EXACT, Claim, Dataset, Graph, Hypothesis, Study, scrub
from pscrub.cli import main
from pscrub.report import measures


def study(**options: Any) -> Study:
    """Four rows of two bits; logits say the first. "nothing" draws the logits anew, and half of them say another."""
    x = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    data = Dataset({"x": x, "y": x[:, 0], "second": x[:, 1]})
    graph = Graph.of(
        {
            "logits": lambda x: torch.stack([1.0 - x[:, 0], x[:, 0]], 1).double() * 3,
            "f": lambda logits, y: torch.nn.functional.cross_entropy(logits, y, reduction="none"),
        },
        ["x", "y"],
        "f",
    )
    y = Claim("y", "y")
    claims = {
        "exact": Claim("f", EXACT),
        "first bit": Claim("f", reads=[y, Claim("logits", "y")]),
        "nothing": Claim("f", reads=[y]),
    }
    hypotheses = [Hypothesis(name, graph, data, claim) for name, claim in claims.items()]
    return Study("bits", hypotheses, labels=("y",), **options)


def test_figures_are_those_that_are_known() -> None:
    asked = study(by=("second",))
    table = measures(asked, scrub(asked, draws=4000, exact=False))
    assert table.head == (
        *("hypothesis", "recovered %", "95 % interval", "KL, nats", "other answer, %", "bits", "above H(D)", "inputs"),
    )
    exact, first, nothing = table.rows
    assert exact[3:] == ("–", "–", "2.0", "0.0", "1")
    assert first[3] == "0 [-inf, inf]"  # draws that do not vary, of what has no bounds, say nothing of rare ones
    assert first[4].startswith("0 [0, 0.0")
    flipped, divergence = (float(nothing[place].split()[0]) for place in (4, 3))
    assert flipped == pytest.approx(50, abs=3)
    apart = torch.tensor([3.0, 0.0], dtype=torch.float64).log_softmax(0)
    assert divergence == pytest.approx(float((apart.exp() * (apart - apart.flip(0))).sum()) / 2, rel=0.06)
    # A label of one bit and its row's second, then another row: all four for "nothing", two for the first bit.
    assert [row[5] for row in (first, nothing)] != ["2.0", "2.0"]
    assert float(nothing[5]) - float(first[5]) == pytest.approx(1)


def test_without_distances_there_is_still_entropy() -> None:
    table = measures(study(), scrub(study(), draws=200, exact=False))
    assert list(table.head)[3:] == ["bits", "above H(D)", "inputs"] and len(table.rows) == 3


def test_the_command_prints_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "hash_game", "--draws", "64", "--measures"]) == 0
    assert "above H(D)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["run", "hash_game", "--measures", "--json"])
