"""Pieces of many data in one gather: the same numbers from fewer operations, along any axis and in any order."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, Tree, split, unroll
from pscrub.evaluate import joined
from pscrub.evaluate.compute import Kept
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.joined import Joined
from pscrub.evaluate.plan import Kind
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.graph.ops import Whole
from pscrub.law.drawing import draw

ROWS = 80
X = torch.randn(ROWS, 6, 5, generator=torch.Generator().manual_seed(0))
DATA = Dataset({"x": X, "k": torch.arange(ROWS) % 4})
PARTS: dict[str, object] = {"p0": 3, "p1": [0, 4], "p2": 1, "p3": 2, "p4": 5}


def tree(axis: int, claimed: int = 5) -> Tree:
    """Positions (or channels) of one value, each of data that agree on something else."""
    size, parts = (6, PARTS) if axis in (1, -2) else (5, {f"p{i}": 4 - i for i in range(5)})
    nodes = [Node("h", ("x",), torch.exp), Node("f", ("h",), lambda h: (h.cumsum(1) * h.flip(2)).sin().sum((1, 2)))]
    graph = split(Graph(nodes, ["x", "k"], "f"), "h", axis, parts, size)
    reads = [Claim(f"p{i}", DATA["k"] % (i + 1) if i < 4 else "k") for i in range(claimed)]
    return unroll(Hypothesis("h", graph, DATA, Claim("f", reads=reads)))


def values_of(made: Tree) -> tuple[torch.Tensor, torch.Tensor, Kept]:
    engine, data = Engine(DATA), draw(made, 300, (1,))
    found = engine.f(made, data)
    return found, run_scrubbed(made, Activations(made.hypothesis.graph, DATA), data), engine.kept(made.hypothesis.graph)


@pytest.mark.parametrize("axis", [1, -2, 2, -1])
@pytest.mark.parametrize("claimed", [5, 4])
def test_pieces_of_many_data_are_one_gather(axis: int, claimed: int) -> None:
    made = tree(axis, claimed)
    fast, slow, kept = values_of(made)
    assert torch.equal(fast, slow)
    engine = Engine(DATA)
    engine.f(made, draw(made, 2, (0,)))
    kept = engine.kept(made.hypothesis.graph)
    code = kept.code_of_draws(engine.plan(made), engine.asked(made).roots)
    (whole,) = [each.number for each in code if each.fn is None]  # no piece is gathered apart
    assert kept.values[whole].kind is Kind.MIXED and isinstance(kept.values[whole].of, Whole)
    storages = {value.untyped_storage().data_ptr() for n, value in kept.held.items() if n in kept.joined.places}
    assert len(storages) == 1


def test_few_pieces_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "MANY", 6)
    fast, slow, kept = values_of(tree(1))
    assert torch.equal(fast, slow) and not kept.joined.places


def test_pieces_of_the_wrong_place_or_datum_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Joined.gather
    for wrong in (
        lambda g: replace(g, piece=g.piece.flip(0)),
        lambda g: replace(g, entry=g.entry.roll(1)),
        lambda g: replace(g, data=g.data[::-1]),
    ):
        monkeypatch.setattr(Joined, "gather", lambda self, n, wrong=wrong: wrong(real(self, n)))
        fast, slow, _ = values_of(tree(1))
        assert not torch.allclose(fast, slow)
