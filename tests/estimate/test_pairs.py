"""f of outputs and labels of two rows: every way that it is computed, beside one pair after another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pscrub import Dataset, Graph, Node
from pscrub.estimate import pairs as module
from pscrub.estimate.baselines import randomised_loss
from pscrub.estimate.pairs import Pairs
from pscrub.evaluate.on_data import OnData
from pscrub.graph.behaviours import open_function

ROWS, POSITIONS, WORDS = 23, 5, 7
X = torch.randn(ROWS, POSITIONS, WORDS, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, WORDS, (ROWS, POSITIONS), generator=torch.Generator().manual_seed(1))


def apart(z: Tensor, t: Tensor) -> Tensor:
    return functional.cross_entropy(z.transpose(1, 2), t, reduction="none").mean(1)


def flattened(z: Tensor, t: Tensor) -> Tensor:
    return functional.cross_entropy(z.flatten(0, 1), t.flatten(), reduction="none").reshape(len(z), -1).mean(1)


def on_data(loss: Any, opened: bool, few: bool = False, weights: Any = None, **options: Any) -> OnData:
    labels = LABELS % 2 * (torch.arange(POSITIONS) == 0) if few else LABELS
    fn = open_function(loss, [X[:11], labels[:11]]) if opened else loss
    assert fn is not None
    nodes = [Node("z", ("x",), lambda x: 2 * x), Node("f", ("z", "t"), fn)]
    return OnData(Graph(nodes, ["x", "t"], "f"), Dataset({"x": X, "t": labels}, weights), **options)


WAYS = [(apart, True), (flattened, True), (apart, False)]


@pytest.mark.parametrize(("loss", "opened"), WAYS)
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("weights", [None, torch.arange(ROWS) % 3])
def test_sums_over_all_pairs(loss: Any, opened: bool, few: bool, weights: Any) -> None:
    pairs = Pairs.of(on_data(loss, opened, few, weights))
    data = pairs.on_data.data
    table = torch.stack(
        [loss(2 * X, data["t"][[row]].expand(ROWS, -1)) for row in range(ROWS)]
    ).double()  # [label, output]
    of_output, of_label = pairs.sums()
    p = data.weights
    torch.testing.assert_close(of_output, torch.where(p > 0, p @ table, 0.0), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(of_label[pairs.partition.labels][p > 0], (table @ p)[p > 0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("loss", "opened"), WAYS)
@pytest.mark.parametrize("gathered", [0, 2**16])
@pytest.mark.parametrize("table", [False, True])
def test_samples(loss: Any, opened: bool, gathered: int, table: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gathered pair by pair, row by row, label by label, or read from the table of all pairs."""
    monkeypatch.setattr(module, "GATHERED", gathered)
    pairs = Pairs.of(on_data(loss, opened))
    if table:
        pairs.sums()
    sample = (300, (5,))
    x, y = pairs.sample(sample)
    torch.testing.assert_close(pairs.f(sample), loss(2 * X[x], LABELS[y]).double(), rtol=1e-6, atol=1e-7)


def test_folds_answer_in_a_pass_that_is_made_anyhow() -> None:
    known = on_data(apart, True, memory=2**20)
    pairs, calls = Pairs.of(known), 0
    real = known.kept.keep

    def keep(*args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        real(*args, **kwargs)

    known.kept.keep = keep  # type: ignore[method-assign]
    sample = (50, (1,))
    known.kept.keep([known.values.on_data("f")], folds=pairs.folds(True, [sample]))
    pairs.sums(), pairs.f(sample)
    assert calls == 1
    assert Pairs.of(known) is pairs


def test_the_log_softmax_is_made_once_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """What f makes of an output alone is no part of what is run for each label."""
    pairs = Pairs.of(on_data(flattened, True))
    per_label = [str(getattr(each.fn, "target", each.fn)) for each in pairs._whole.code if each.fn is not None]
    assert any("nll_loss" in name for name in per_label) and not any("softmax" in name for name in per_label)


def test_all_pairs_where_they_cost_less_than_f_on_data() -> None:
    """A model of many products, whose outputs meet labels for next to nothing; and one whose pairs are all the work."""
    wide, x = torch.randn(35, 3000, generator=torch.Generator().manual_seed(2)), X.flatten(1)
    back = torch.randn(3000, 35, generator=torch.Generator().manual_seed(3)) / 50

    def costly(x: Tensor) -> Tensor:
        return (x @ wide @ back).view(-1, POSITIONS, WORDS)

    for make, exact in ((costly, True), (lambda x: 2 * x.view(-1, POSITIONS, WORDS), False)):
        graph = Graph([Node("z", ("x",), make), Node("f", ("z", "t"), apart)], ["x", "t"], "f")
        found = randomised_loss(OnData(graph, Dataset({"x": x, "t": LABELS})), pairs=40)
        assert found.exact is exact
        table = torch.stack([apart(make(x), LABELS[[row]].expand(ROWS, -1)) for row in range(ROWS)]).double()
        assert abs(found.value - float(table.mean())) < (1e-6 if exact else 3.0)


def test_all_pairs_a_few_labels_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    once = Pairs.of(on_data(apart, True))
    whole, table = once.sums(), once._table[0]
    monkeypatch.setattr(module, "AT_ONCE", 2 * ROWS)
    again = Pairs.of(on_data(apart, True))
    torch.testing.assert_close(again.sums(), whole, rtol=1e-12, atol=1e-12)
    assert torch.equal(again._table[0], table) and again.seen == once.seen
