"""What is kept of a round of draws: how often rows came, on few rows of D and on many."""

from __future__ import annotations

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, unroll
from pscrub.law.drawing import draw
from pscrub.result.collect import collect_round, sites_of
from pscrub.result.draws import Round


@pytest.mark.parametrize("rows", [50, 400_000])
def test_rows_that_came_again_are_counted(rows: int) -> None:
    """Forty donors stand in for any number of rows, so that some come twice in a round of any D."""
    x = torch.arange(rows)
    weights = torch.zeros(rows, dtype=torch.float64)
    weights[torch.linspace(0, rows - 1, 40).long()] = 1.0
    graph = Graph([Node("h", ("x",), lambda x: x % 2), Node("f", ("h", "x"), lambda h, x: h * 1.0)], ["x"], "f")
    tree = unroll(
        Hypothesis("h", graph, Dataset({"x": x}, weights), Claim("f", reads=[Claim("h", lambda d: d["x"] % 2)]))
    )
    made = Round(0, 0, 300)
    data = draw(tree, made.size, (0, 0))
    found = collect_round(tree, sites_of(tree), made, data, torch.zeros(made.size, dtype=torch.float64), {})
    for site in found.sites:
        drawn = data[site.path]
        pairs = (drawn[:, None] == drawn[None]).sum() - made.size
        assert site.collisions == int(pairs) > 0
