"""Functions on top of a module, opened where torch can trace them, and left as they are where it cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pscrub import Dataset, Node, TraceError, trace
from pscrub.graph.behaviours import open_function
from pscrub.graph.program import Excerpt

Loss = Callable[[Tensor, Tensor], Tensor]
ROWS, POSITIONS, WORDS = 11, 6, 9
Z = torch.randn(ROWS, POSITIONS, WORDS, generator=torch.Generator().manual_seed(0))
T = torch.randint(0, WORDS, (ROWS, POSITIONS), generator=torch.Generator().manual_seed(1))
WEIGHT = torch.linspace(0.5, 2, WORDS)


def by_position(z: Tensor, t: Tensor) -> Tensor:
    return functional.cross_entropy(z[:, :-1].transpose(1, 2), t[:, 1:], reduction="none").mean(1)


def flattened(z: Tensor, t: Tensor) -> Tensor:
    found = functional.cross_entropy(z[:, :-1].flatten(0, 1), t[:, 1:].flatten(), reduction="none")
    return found.reshape(len(z), -1).mean(1)


def by_size(z: Tensor, t: Tensor) -> Tensor:
    return z.reshape(int(z.shape[0]), -1).sum(1) + torch.zeros(len(t)) + t[:, 0]


def weighted(z: Tensor, t: Tensor) -> Tensor:
    return functional.cross_entropy(z[:, 0], t[:, 0], weight=WEIGHT, reduction="none")


def smoothed(z: Tensor, t: Tensor) -> Tensor:
    return functional.cross_entropy(z[:, 0], t[:, 0], reduction="none", label_smoothing=0.1)


def correct(z: Tensor, t: Tensor) -> Tensor:
    return (z[:, -1].argmax(1) == t[:, 0]).float()


@pytest.mark.parametrize("fn", [by_position, flattened, by_size, weighted, smoothed, correct])
def test_what_can_be_traced_gives_the_same_on_any_number_of_rows(fn: Loss) -> None:
    opened = open_function(fn, [Z, T])
    assert isinstance(opened, Excerpt)
    for rows in (1, 2, 5, ROWS):
        assert torch.equal(opened(Z[:rows], T[:rows]), fn(Z[:rows], T[:rows]))


def operations(opened: Excerpt | None) -> list[str]:
    assert opened is not None
    return [str(getattr(step.of, "target", "")) for step in opened.marked.steps]


def test_the_first_half_of_cross_entropy_is_of_the_logits_alone() -> None:
    for fn in (by_position, flattened, weighted):
        names = operations(open_function(fn, [Z, T]))
        assert any("log_softmax" in name for name in names) and not any("cross_entropy" in name for name in names)
    assert "cross_entropy" in str(operations(open_function(smoothed, [Z, T])))


@pytest.mark.parametrize(
    "fn",
    [
        lambda z, t: torch.from_numpy(z.numpy().sum((1, 2))),
        lambda z, t: z.sum((1, 2)) if float(z.sum()) > 0 else -z.sum((1, 2)),
        lambda z, t: torch.stack([row.sum() for row in z]),  # another program for each number of rows
    ],
)
def test_what_cannot_be_traced_is_left(fn: Loss) -> None:
    assert open_function(fn, [Z, T]) is None


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(POSITIONS, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x)
        return found


def traced(fn: Loss) -> Node:
    x = torch.randn(40, POSITIONS, generator=torch.Generator().manual_seed(2))
    data = Dataset({"x": x, "t": torch.arange(40) % WORDS})
    graph = trace(Model().eval(), data, cuts={}, inputs=["x"], output="z", behaviour=Node("loss", ("z", "t"), fn))
    return graph.nodes["loss"]


def test_a_behaviour_is_opened_when_it_is_traced_and_reads_what_it_read() -> None:
    node = traced(lambda z, t: functional.cross_entropy(z, t, reduction="none"))
    assert isinstance(node.fn, Excerpt) and node.inputs == ("z", "t")
    kept = traced(lambda z, t: torch.from_numpy(z.numpy()[:, 0]) + t)
    assert not isinstance(kept.fn, Excerpt)


def test_an_opened_behaviour_whose_rows_interact_is_refused() -> None:
    with pytest.raises(TraceError, match="rows must not interact"):
        traced(lambda z, t: (z - z.mean(0)).sum(1) + t)
