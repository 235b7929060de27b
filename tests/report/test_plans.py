"""Plans shown: counts that can be told by hand, and the command that prints them."""

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Study
from pscrub.cli import main
from pscrub.report.plans import plan_table


def study() -> Study:
    data = Dataset({"x": torch.arange(64), "y": torch.arange(64) % 2})
    functions = {"s": lambda x: x * 1.0, "t": lambda s: s + 1, "u": lambda s: s - 1}
    graph = Graph.of({**functions, "f": lambda t, u, y: t * u + y}, ["x", "y"], "f")
    exact = Claim("f", reads=[Claim(name, "exact") for name in ("t", "u", "y")])
    parts = Claim("f", reads=[Claim("t", reads=[Claim("s", "y")]), Claim("y", "exact")])
    return Study("hand", [Hypothesis("exact", graph, data, exact), Hypothesis("through s", graph, data, parts)])


def test_what_each_hypothesis_takes() -> None:
    """Exact: f at the root's row. Else f is mixed of t (of the datum of s, where s is f(x) on one datum), u and y."""
    exact, parts = (
        dict(zip(table.head, row, strict=True)) for table in [plan_table(study(), 2**20)] for row in table.rows
    )
    assert (exact["data"], exact["operations of f"], exact["for each draw"], exact["values on D"]) == (
        "1",
        "4",
        "0",
        "1",
    )
    assert (parts["sites"], parts["data"], parts["for each draw"]) == ("5", "4", "1")
    assert parts["values on D"] == "2" and parts["kept"] == "all"  # t and u; y is a column
    poor = plan_table(study(), 1)
    assert poor.rows[0][poor.head.index("kept")] == "a part"
    assert parts["computed for each draw"] == "f" and exact["computed for each draw"] == ""


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "specificity", "--plan"]) == 0
    out = capsys.readouterr().out
    assert "for each draw" in out and "sum does not matter" in out
