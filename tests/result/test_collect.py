"""What is kept of a round of draws: how often rows came, on few rows of D and on many; the worst, as texts."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, scrub, unroll
from pscrub.law.drawing import draw
from pscrub.result.collect import LONGEST, _texts, collect_round, sites_of
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


def whole(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(whole, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def nested(depth: int, rng: random.Random) -> Any:
    if depth == 0:
        return rng.choice([rng.random() * 10 ** rng.randint(-6, 6), rng.randint(-9, 9), "word", ""])
    return [nested(depth - 1, rng) for _ in range(rng.randint(0, 12))]


def test_texts_are_those_of_whole_values_cut_off() -> None:
    rng, long = random.Random(0), 0
    for _ in range(400):
        value = nested(rng.randint(0, 4), rng)
        text = whole(value)
        long += len(text) > LONGEST
        assert _texts({"x": value})["x"] == (text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")
    assert 50 < long < 350


def test_worst_draws_tell_their_rows() -> None:
    data = Dataset({"x": torch.arange(8.0)[:, None].expand(-1, 300), "y": torch.arange(8)})
    graph = Graph.of({"h": lambda x: x[:, 0], "f": lambda h, y: (h - y).abs()}, ["x", "y"], "f")
    (found,) = scrub(Hypothesis("h", graph, data, Claim("f", reads=[Claim("y", "y")])), draws=64).results
    assert len(found.draws.worst) == 10
    for worst in found.draws.worst:
        values = {float(re.match(r"\[([\d.]+)", texts["x"])[1]) for row, texts in worst.data.values()}
        assert values == {float(row) for row, _ in worst.data.values()}
