"""What is kept of the worst draws: the text of a row is what all of it would give, cut off."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, scrub, unroll
from pscrub.estimate.estimate import Interval
from pscrub.estimate.stopping import Stop
from pscrub.evaluate.engine import Engine
from pscrub.result.collect import LONGEST, _texts
from pscrub.result.exactly import enumerate_law


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


@pytest.mark.parametrize("leaves", [3])
def test_the_law_is_listed_after_one_pass_over_the_data(leaves: int) -> None:
    """What lies below several leaves is run once, whatever the number of leaves."""
    seen = 0

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
    found = enumerate_law(tree, engine, Stop(), Interval())
    assert found is not None and found.exact and seen - before <= data.n + 4
