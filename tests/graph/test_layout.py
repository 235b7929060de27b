"""Values whose rows are not first: named with the rows first, equal to what hooks record, put back where they were."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pscrub.errors import TraceError
from pscrub.graph.cuts import Cut, input_of, output_of
from pscrub.graph.layout import FIRST, Layout, find_layouts
from pscrub.graph.tracing import trace
from tests.graph.traced_modules import Doing, draw, seeded

LENGTH, WIDTH = 3, 8
COLUMN = {"x": draw(11, LENGTH, WIDTH)}
LAYOUTS = [FIRST, Layout(1), Layout(2), Layout(0, after=3), Layout(0, before=3), Layout(1, 2, 3), Layout(2, before=4)]


def in_layout(layout: Layout, value: Tensor) -> Tensor:
    """What has its rows there, by einsum and reshape alone."""
    shared = int(layout.before > 1) + int(layout.after > 1)
    places = [*range(1, 1 + layout.axis + (layout.before > 1)), 0, *range(1 + layout.axis + (layout.before > 1), 5)]
    moved = value.permute(places[:5])
    return moved.reshape(*moved.shape[: layout.axis], -1, *moved.shape[layout.axis + shared + 1 :])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_found_and_put_back(layout: Layout) -> None:
    sizes = [5, 2, 4, 3]
    place = layout.axis
    if layout.before > 1:
        sizes[place], place = layout.before, place + 1
    if layout.after > 1:
        sizes[place] = layout.after
    value = draw(7, *sizes)
    found = in_layout(layout, value)
    assert torch.equal(layout.rows_first(found), value)
    assert torch.equal(layout.as_found(value), found)
    assert find_layouts({"v": found}, {"v": in_layout(layout, value[:2])}, 7, 2) == {"v": layout}


def test_nothing_is_found_where_rows_are_in_no_one_place() -> None:
    value = draw(7, 4)
    for whole, part in (
        (value.sum(0), value[:2].sum(0)),  # no axis grows
        (value @ value.T, value[:2] @ value[:2].T),  # two do
        (value[:3], value[:2]),  # it is no multiple
        (value.repeat(2, 1) + value.mean(0), value[:2].repeat(2, 1) + value[:2].mean(0)),  # no order keeps rows apart
    ):
        assert find_layouts({"v": whole}, {"v": part}, 7, 2) == {}


def attention(batch_first: bool) -> Callable[[Any, Tensor], Tensor]:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = x if batch_first else x.transpose(0, 1)
        y = y + self.a(y, y, y, need_weights=False)[0]
        y = self.mlp(y)
        return y if batch_first else y.transpose(0, 1)

    return forward


def sequence(self: Any, x: Tensor) -> Tensor:
    found, (h, c) = self.a(x.transpose(0, 1))
    return found[-1] + h[-1] + c[0]


def tokens_apart(self: Any, x: Tensor) -> Tensor:
    y = self.a(x.reshape(-1, WIDTH)).relu()  # [batch * length, ...]
    z = self.b(x.transpose(0, 1).reshape(-1, WIDTH)).tanh()  # [length * batch, ...]
    return y.view(-1, LENGTH, WIDTH) + z.view(LENGTH, -1, WIDTH).transpose(0, 1)


Z = {"z": input_of("a.out_proj"), "out": output_of("a.out_proj"), "a": output_of("a"), "mlp": output_of("mlp")}
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Cut], dict[str, Layout]]] = {
    "attention, positions first": (
        lambda: Doing(attention(False), a=nn.MultiheadAttention(WIDTH, 2), mlp=nn.Linear(WIDTH, WIDTH)),
        Z,
        {"z": Layout(0, before=LENGTH), "out": Layout(0, before=LENGTH), "a": Layout(1), "mlp": Layout(1)},
    ),
    "attention, batch first": (
        lambda: Doing(
            attention(True), a=nn.MultiheadAttention(WIDTH, 2, batch_first=True), mlp=nn.Linear(WIDTH, WIDTH)
        ),
        Z,
        {"z": Layout(0, before=LENGTH), "out": Layout(0, before=LENGTH)},  # within, torch has positions first
    ),
    "lstm": (
        lambda: Doing(sequence, a=nn.LSTM(WIDTH, 5, 2)),
        {"found": output_of("a"), "h": output_of("a", index=(1, 0)), "c": output_of("a", index=(1, 1))},
        {"found": Layout(1), "h": Layout(1), "c": Layout(1)},
    ),
    "tokens apart": (
        lambda: Doing(tokens_apart, a=nn.Linear(WIDTH, WIDTH), b=nn.Linear(WIDTH, WIDTH)),
        {"a": output_of("a"), "b": output_of("b"), "given": input_of("a")},
        {"a": Layout(0, after=LENGTH), "given": Layout(0, after=LENGTH), "b": Layout(0, before=LENGTH)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_nodes_have_their_rows_first(name: str) -> None:
    """As hooks record them, rows moved; and another value in a node's place is what a hook would put there."""
    build, cuts, layouts = CASES[name]
    module = seeded(build)
    graph = trace(module, COLUMN, cuts=cuts)
    for size in (1, 2, 11):
        given = {"x": COLUMN["x"][:size]}
        values = graph.run(graph.nodes, given)
        torch.testing.assert_close(values["output"], module(given["x"]).detach(), rtol=1e-5, atol=1e-6)
        for node, cut in cuts.items():
            assert values[node].shape[0] == size
            other = draw(*values[node].shape) + 1
            layout = layouts.get(node, FIRST)
            recorded, expected = overwritten(module, cut, layout.as_found(other), given["x"])
            torch.testing.assert_close(values[node], layout.rows_first(recorded), rtol=1e-5, atol=1e-6)
            found = graph.run(["output"], given | {node: other})["output"]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
            assert size == 1 or not torch.allclose(found, values["output"])


def overwritten(module: nn.Module, cut: Cut, other: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """What stood at the cut, and the module's result with another value there, written without the package's hooks."""
    recorded: list[Tensor] = []
    if cut.path == "a.out_proj":  # torch uses the weights alone: a function of ours in the place of torch's `linear`
        weight, own = module.a.out_proj.weight, nn.functional.linear

        def linear(y: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
            if w is not weight:
                return own(y, w, b)
            recorded.append(y if cut.side == "input" else own(y, w, b))
            return own(other, w, b) if cut.side == "input" else other

        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr("torch.nn.functional.linear", linear)
            patch.setattr("torch.backends.mha.get_fastpath_enabled", lambda: False)
            return (lambda result: (recorded[0], result))(module(x))

    def put(held: Any) -> Any:
        if isinstance(held, Tensor):
            recorded.append(held)
            return other
        first, *rest = held
        match cut.index:
            case (1, int(place)):
                recorded.append(held[1][place])
                return first, tuple(other if i == place else each for i, each in enumerate(held[1]))
            case _:
                recorded.append(first)
                return (other, *rest)

    submodule = module.get_submodule(cut.path)
    if cut.side == "input":
        handle = submodule.register_forward_pre_hook(lambda _, args: put(args))
    else:
        handle = submodule.register_forward_hook(lambda _, args, result: put(result))
    with torch.no_grad():
        expected = module(x)
    handle.remove()
    return recorded[0], expected


def test_a_value_in_the_wrong_order_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    build, cuts, _ = CASES["tokens apart"]
    for wrong in (Layout(0, before=LENGTH), Layout(0)):
        monkeypatch.setattr("pscrub.graph.subject.find_layouts", lambda *_, wrong=wrong: {"a": wrong})
        with pytest.raises(TraceError):
            trace(seeded(build), COLUMN, cuts={"a": cuts["a"]})


def test_a_result_has_its_rows_first_too() -> None:
    module = seeded(lambda: Doing(lambda self, x: self.a(x.transpose(0, 1)), a=nn.Linear(WIDTH, 2)))
    graph = trace(module, COLUMN, cuts={})
    expected = module(COLUMN["x"]).detach().transpose(0, 1)
    torch.testing.assert_close(graph.run(["output"], COLUMN)["output"], expected, rtol=1e-5, atol=1e-6)
