"""Graphs traced from torch modules: what plain hooks on the module tell must come out, to the bit."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from pscrub.data.dataset import Dataset
from pscrub.errors import TraceError
from pscrub.graph.cuts import Cut, input_of, output_of
from pscrub.graph.graph import Node
from pscrub.graph.once import trace_all
from pscrub.graph.program import Excerpt
from pscrub.graph.rewrites import split
from pscrub.graph.tracing import trace
from tests.graph.traced_modules import (
    FAMILIES,
    HEADS,
    LOSS,
    PLAIN_CUTS,
    POSITIONS,
    VOCABULARY,
    WIDTH,
    Doing,
    Plain,
    Traced,
    X,
    cross_entropy,
    draw,
    hooked,
    seeded,
)


@pytest.fixture(scope="module")
def tokens() -> Dataset:
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(VOCABULARY, (20, POSITIONS), generator=generator)
    return Dataset({"tokens": words, "label": torch.randint(VOCABULARY, (20,), generator=generator)})


@pytest.fixture(scope="module", params=FAMILIES)
def traced(request: pytest.FixtureRequest, tokens: Dataset) -> Traced:
    build, cuts = FAMILIES[request.param]
    module = seeded(build)
    return Traced(module, cuts, tokens, trace(module, tokens, cuts=cuts, output="logits", behaviour=LOSS))


@pytest.mark.parametrize("size", [1, 2, 7, 20])
def test_cuts_equal_what_hooks_record(traced: Traced, size: int) -> None:
    columns = {name: traced.data[name][:size] for name in traced.data.names}
    recorded: dict[str, Tensor] = {}
    for name, cut in traced.cuts.items():
        handle = hooked(traced.module, cut, lambda value, name=name: recorded.update({name: value.clone()}))
        with torch.no_grad():
            recorded["logits"] = traced.module(columns["tokens"])
        handle.remove()
    recorded["loss"] = cross_entropy(recorded["logits"], columns["label"])
    assert set(recorded) == set(traced.graph.nodes)
    for name, value in traced.graph.run(recorded, columns).items():
        assert len(value) == size
        assert torch.equal(value, recorded[name].expand_as(value)), name


def test_setting_a_node_equals_overwriting_the_submodule(traced: Traced) -> None:
    given = {"tokens": traced.data["tokens"][:7]}
    values = traced.graph.run(traced.cuts, given)
    unchanged = traced.graph.run(["logits"], given)["logits"]
    for name, cut in traced.cuts.items():
        other = draw(*values[name].shape)
        handle = hooked(traced.module, cut, lambda value, other=other: other)
        with torch.no_grad():
            expected = traced.module(given["tokens"])
        handle.remove()
        found = traced.graph.run(["logits"], given | {name: other})["logits"]
        assert torch.equal(found, expected), name
        assert not torch.equal(found, unchanged), name


class Operations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **kwargs or {})


def test_only_what_lies_between_is_run(traced: Traced) -> None:
    tokens = traced.data["tokens"][:7]
    last = {name: value for name, value in traced.graph.run(traced.cuts, {"tokens": tokens}).items() if name != "h1"}
    counts = []
    for given in ({"tokens": tokens}, last | {"tokens": tokens}):
        with Operations() as operations:
            traced.graph.run(["logits"], given)
        counts.append(operations.count)
    assert counts[1] <= 14
    assert counts[1] < counts[0] / 5


def test_a_graph_keeps_no_device_of_its_own(traced: Traced) -> None:
    moved = traced.graph.to("meta")
    given = {name: traced.data[name][:3].to("meta") for name in traced.data.names}
    values = moved.run(moved.nodes, given)
    assert {value.device.type for value in values.values()} == {"meta"}
    assert {value.device.type for value in traced.graph.run(["loss"], dict(traced.data.columns)).values()} == {"cpu"}


def test_nodes_read_the_nearest_names() -> None:
    words = torch.arange(30).view(5, 6) % VOCABULARY
    graph = trace(seeded(Plain), {"tokens": words}, cuts=PLAIN_CUTS)
    assert {name: node.inputs for name, node in graph.nodes.items()} == {
        "position": ("tokens",),
        "x0": ("tokens", "position"),
        "k0": ("x0",),
        "z0": ("x0", "k0"),
        "a0": ("z0",),
        "m0": ("x0", "a0"),
        "x1": ("x0", "a0", "m0"),
        "k1": ("x1",),
        "z1": ("x1", "k1"),
        "a1": ("z1",),
        "m1": ("x1", "a1"),
        "output": ("x1", "a1", "m1"),
    }
    assert graph.inputs == ("tokens",)
    assert graph.output == "output"


def test_heads_are_split_by_the_input_of_the_projection(traced: Traced) -> None:
    tokens = traced.data["tokens"][:7]
    width = WIDTH // HEADS
    heads = {f"z1.{h}": range(h * width, (h + 1) * width) for h in range(HEADS)}
    graph = split(traced.graph, "z1", axis=2, parts=heads, size=WIDTH)
    values = graph.run(["logits", *heads], {"tokens": tokens})
    assert torch.equal(values["logits"], traced.graph.run(["logits"], {"tokens": tokens})["logits"])
    zeroed = graph.run(["logits"], {"tokens": tokens, "z1.2": torch.zeros_like(values["z1.2"])})["logits"]

    def without_head(value: Tensor) -> Tensor:
        return torch.cat([value[..., : 2 * width], torch.zeros(7, POSITIONS, width), value[..., 3 * width :]], -1)

    handle = hooked(traced.module, traced.cuts["z1"], without_head)
    with torch.no_grad():
        expected = traced.module(tokens)
    handle.remove()
    assert torch.equal(zeroed, expected)


# --------------------------------------------------------------------------------------------------- small modules


def in_place(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    y.relu_()
    y.view(-1, 2, 2)[:, 0] = 1
    with torch.autocast("cpu", torch.bfloat16):
        z = self.a(y)
    with torch.no_grad():
        return self.b(z.float()) * 2


def flattened(self: Any, x: Tensor) -> Tensor:
    rows = x.repeat_interleave(3, 0)
    mixed = self.a(rows) + torch.zeros(rows.shape[0], 1)
    return mixed.view(x.shape[0], 3, 4).sum(1)


def transposed(self: Any, x: Tensor) -> Tensor:
    by_head = self.a(x).view(-1, 2, 2).transpose(0, 1).transpose(0, 1).transpose(1, 2)
    return self.b(by_head).transpose(1, 2).reshape(-1, 4)


SMALL: dict[str, tuple[Callable[..., Tensor], dict[str, str | Cut]]] = {
    "mutation and autocast": (in_place, {"a0": output_of("a", call=0), "a1": output_of("a", call=1), "b": "b"}),
    "rows flattened with positions": (flattened, {}),
    "views by stride": (transposed, {"a": "a", "b": "b"}),
}  # fmt: skip


@pytest.mark.parametrize("case", SMALL)
def test_small_modules(case: str) -> None:
    forward, cuts = SMALL[case]
    b = nn.Linear(4, 4) if forward is in_place else nn.Identity()
    module = seeded(lambda: Doing(forward, a=nn.Linear(4, 4), b=b))
    graph = trace(module, X, cuts=cuts)
    for size in (1, 2, 7):
        with torch.no_grad():
            expected = module(X["x"][:size])
        assert torch.equal(graph.run(["output"], {"x": X["x"][:size]})["output"], expected)
    # Gathered rows are contiguous where the module's own values need not be.
    values = {name: value.contiguous() for name, value in graph.run(graph.nodes, X).items()}
    for name in cuts:
        assert torch.equal(graph.run(["output"], X | {name: values[name]})["output"], values["output"])


def test_the_number_of_rows_is_not_an_input() -> None:
    def forward(self: Any, x: Tensor, y: Tensor) -> Tensor:
        return self.b(self.a(x).view(x.shape[0], 2, 2) + torch.ones(y.shape[0], 1, 1)).flatten(1)

    module = Doing(forward, a=nn.Linear(4, 4), b=nn.Identity())
    graph = trace(module, X | {"y": draw(20, 2)}, cuts={"a": "a", "b": "b"})
    assert {node.name: node.inputs for node in graph.nodes.values()} == {"a": ("x",), "b": ("a",), "output": ("b",)}
    assert graph.inputs == ("x", "y")


def test_constants_are_repeated_in_every_row() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return x + self.b(self.a(torch.eye(4)))[0] + self.c(torch.ones(1, 4))

    module = Doing(forward, a=nn.Linear(4, 4), b=nn.ReLU(), c=nn.Identity())
    with pytest.raises(TraceError, match=r"node 'output' .* it reads 'b', one value for all rows"):
        trace(module, X, cuts={"b": "b"})  # its reader takes the first row of [4, 4], not of [batch, 4, 4]
    graph = trace(module, X, cuts={"c": "c"})
    assert graph.nodes["c"].inputs == ("x",)
    assert torch.equal(graph.run(["c"], {"x": torch.full((3, 4), torch.nan)})["c"], torch.ones(3, 4))


def test_what_is_made_for_each_row_of_no_column_is_not_repeated() -> None:
    """As OPT makes its positions: of the number of rows alone."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return x + self.b(self.a(torch.ones(x.shape[0], 3).cumsum(1)))

    module = Doing(forward, a=nn.Linear(3, 4), b=nn.Identity())
    for graph in (trace(module, X, cuts={"b": "b"}), trace_all(module, X).graph({"b": "b"}, output="output")):
        values = graph.run(["b", "output"], {"x": X["x"][:5]})
        assert values["b"].shape == (5, 4) and torch.equal(values["output"], module(X["x"][:5]))
        assert graph.nodes["b"].inputs == ("x",)


def test_one_tensor_under_two_names_costs_nothing() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU()).eval()
    graph = trace(module, X, cuts={"a": "0", "b": input_of("1"), "c": "1"})
    assert [node.view for node in graph.nodes.values()] == [False, True, True, False]
    values = graph.run(graph.nodes, X)
    assert values["a"] is values["b"] is values["c"]


def test_elements_and_calls_are_chosen() -> None:
    def forward(self: Any, x: Tensor) -> dict[str, Any]:
        low, high = self.halves(x)
        return {"note": "text", "sum": self.a(low) + self.a(high), "unread": high}

    halves = Doing(lambda self, x: (x[:, :2], x[:, 2:]))
    module = Doing(forward, halves=halves, a=nn.Linear(2, 3)).eval()
    graph = trace(
        module,
        X,
        cuts={
            "low": "halves",
            "high": output_of("halves", index=1),
            "first": output_of("a", call=0),
            "second": input_of("a", call=1),
            "unread": output_of("", index="unread"),
        },
        behaviour=Node("f", ("output", "unread"), lambda output, unread: output.sum(1) + unread.sum(1)),
    )
    values = graph.run(graph.nodes, X)
    assert torch.equal(values["low"], X["x"][:, :2])
    assert torch.equal(values["high"], X["x"][:, 2:])
    assert torch.equal(values["second"], X["x"][:, 2:])
    assert torch.equal(values["first"], module.get_submodule("a")(X["x"][:, :2]))
    assert graph.nodes["unread"].inputs == graph.nodes["second"].inputs == ("high",)
    assert graph.nodes["output"].inputs == ("first", "second")


def test_columns_go_where_they_are_said_to(tokens: Dataset) -> None:
    module = Doing(lambda self, x, y: x - 2 * y)
    data = {"y": draw(9, 3), "x": draw(9, 3) + 1, "other": torch.zeros(9), "text": ["a"] * 9}
    plain = data["x"] - 2 * data["y"]
    swapped = data["y"] - 2 * data["x"]
    for inputs, expected in ((None, plain), (["y", "x"], plain), ({"x": "y", "y": "x"}, swapped)):
        graph = trace(module, data, cuts={}, inputs=inputs)
        given = {name: data[name] for name in graph.inputs}
        assert torch.equal(graph.run(["output"], given)["output"], expected)
    columns = {"left": data["y"], "right": data["x"]}
    graph = trace(module, columns, cuts={}, inputs=["left", "right"])
    assert torch.equal(graph.run(["output"], columns)["output"], swapped)


def test_behaviours_stand_on_top() -> None:
    data = Dataset(X | {"label": torch.arange(20) % 2})
    margin = Node("margin", ("output",), lambda output: output[:, 1] - output[:, 0])
    loss = Node("loss", ("margin", "label"), lambda margin, label: functional.softplus(margin * (1 - 2.0 * label)))
    graph = trace(seeded(lambda: nn.Linear(4, 2)), data, cuts={}, inputs=["x"], behaviour=[margin, loss])
    assert graph.output == "loss"
    assert graph.inputs == ("x", "label")
    assert list(graph.nodes) == ["output", "margin", "loss"]


def test_one_row_and_halves_of_precision_do() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        module = seeded(lambda dtype=dtype: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).to(dtype))
        trace(module, {"x": X["x"][:1].to(dtype)}, cuts={"a": "0"})


# ------------------------------------------------------------------------------------------------------ what is left


def test_parameters_are_copied_once_and_shared() -> None:
    module = seeded(Plain)
    graph = trace(module, {"tokens": torch.arange(30).view(5, 6) % VOCABULARY}, cuts=PLAIN_CUTS)
    functions = [node.fn for node in graph.nodes.values()]
    assert all(isinstance(fn, Excerpt) for fn in functions)
    copies = {id(p): p for fn in functions for p in fn.parameters()}
    # The mask is copied too; embedding and unembedding are tied, and stay so.
    assert len(copies) == len(list(module.parameters())) + 1
    assert sum(p.numel() for p in copies.values()) == sum(p.numel() for p in module.parameters()) + POSITIONS**2
    assert not any(p.requires_grad for p in copies.values())
    moved = copy.deepcopy(nn.ModuleList(functions)).double()
    assert len(list(moved.parameters())) == len(copies)

    given = {"tokens": torch.zeros(2, POSITIONS, dtype=torch.int64)}
    before = graph.run(["output"], given)["output"]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert torch.equal(graph.run(["output"], given)["output"], before)
