"""What only shows at size: rounding in blocks of many rows, and work that must not be done again at every round."""

from collections.abc import Callable

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Partition, unroll
from pscrub.data.blocks import BlockTable
from pscrub.law.drawing import draw


@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_uniform_rows_need_no_aliases_however_many(blocks: int) -> None:
    data = Dataset({"x": torch.arange(300_000)})
    table = Partition.of(data["x"] % blocks, data).table
    assert table.keep is None and table.alias is None


@pytest.mark.parametrize("heavier", [1 + 1e-9, 1 + 1e-6, 1.5])
def test_one_row_that_is_heavier_among_many(heavier: float) -> None:
    weights = torch.ones(200_000, dtype=torch.float64)
    weights[3] = heavier
    data = Dataset({"x": torch.arange(200_000)}, weights)
    partition = Partition.of(data["x"] % 2, data)
    table = partition.table
    keep = torch.ones(200_000, dtype=torch.float64) if table.keep is None else table.keep
    alias = torch.arange(200_000) if table.alias is None else table.alias
    got = torch.zeros(200_000, dtype=torch.float64)
    got = got.index_add(0, table.rows, keep).index_add(0, table.rows[alias], 1 - keep)
    wanted = partition.weights / partition.block_weights[partition.labels] * partition.sizes[partition.labels]
    assert (got - wanted).abs().max() < 1e-8


def test_a_second_round_sorts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset({"x": torch.arange(1000)}, torch.arange(1000) + 1)
    graph = Graph.of({"s": lambda x: x % 2, "t": lambda x: x * 1.0, "f": lambda s, t: s + t}, ["x"], "f")
    tree = unroll(Hypothesis("parity", graph, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % 2)])))
    first = draw(tree, 100, (0, 0))

    def refuse(*_: object) -> None:
        raise AssertionError("done again")

    refused: list[tuple[type, str, Callable[..., None]]] = [(BlockTable, "of", refuse), (Partition, "refine", refuse)]
    for owner, name, fn in refused:
        monkeypatch.setattr(owner, name, fn)
    again = draw(tree, 100, (0, 0))
    assert all(torch.equal(first[path], again[path]) for path in first)
