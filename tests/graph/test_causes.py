"""What cannot be traced is refused for what is wrong with it, and what is advised works."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pscrub.errors import TraceError
from pscrub.graph.cuts import Cut, input_of, output_of
from pscrub.graph.graph import Node
from pscrub.graph.tracing import trace
from tests.graph.traced_modules import Doing, X, draw, seeded

ROW_BY_ROW = {"x": draw(20, 3, 4)}


def refused(module: nn.Module, *messages: str, example: Any = X, **more: Any) -> str:
    with pytest.raises(TraceError) as caught:
        trace(module, example, **({"cuts": {}} | more))
    for message in messages:
        assert message in str(caught.value)
    return str(caught.value)


def doing(forward: Callable[..., Any], **submodules: nn.Module) -> nn.Module:
    return seeded(lambda: Doing(forward, a=nn.Linear(4, 4), **submodules))


# ------------------------------------------------------------------------------------------------------------ loops


def loop(self: Any, x: Tensor) -> Tensor:
    return torch.stack([self.a(row) for row in x])  # over rows


def loop_by_number(self: Any, x: Tensor) -> Tensor:
    found = []
    for i in range(x.shape[0]):
        found.append(self.a(x[i]))  # over numbers of rows
    return torch.stack(found)


def at_once(self: Any, x: Tensor) -> Tensor:
    return self.a(x)


def mapped(self: Any, x: Tensor) -> Tensor:
    return torch.vmap(self.a)(x)


def over_positions(self: Any, x: Tensor) -> Tensor:
    return torch.stack([self.a(each) for each in x.unbind(1)], 1)


@pytest.mark.parametrize(("forward", "line"), [(loop, "for row in x]"), (loop_by_number, "# over numbers of rows")])
def test_a_loop_over_rows(forward: Callable[..., Any], line: str) -> None:
    for cuts in ({}, {"a": "a"}):
        refused(doing(forward), "forward loops over the rows of its batch", line, "torch.vmap(f)(x)", cuts=cuts)


def test_a_loop_over_rows_as_advised() -> None:
    expected = doing(loop)(X["x"]).detach()
    for forward in (at_once, mapped):
        graph = trace(doing(forward), X, cuts={"a": "a"} if forward is at_once else {})
        torch.testing.assert_close(graph.run(["output"], X)["output"], expected)
    refused(doing(mapped), "output_of('a') is within torch.vmap", cuts={"a": "a"})
    trace(doing(over_positions), ROW_BY_ROW, cuts={"a1": output_of("a", call=1)})


# ------------------------------------------------------------------------------------------------ state and randomness


def counting(self: Any, x: Tensor) -> Tensor:
    self.calls = getattr(self, "calls", 0) + 1
    return x * self.calls


def caching(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    self.cache = y if getattr(self, "cache", None) is None or len(self.cache) != len(y) else self.cache + y
    return self.cache * 2


def appending(self: Any, x: Tensor) -> Tensor:
    self.history = getattr(self, "history", [])
    self.history.append(self.a(x).mean(1, keepdim=True)[:1].detach())
    return x + sum(self.history)


def buffering(self: Any, x: Tensor) -> Tensor:
    self.step += 1
    return self.a(x) + self.step


def within(self: Any, x: Tensor) -> Tensor:
    cache = [self.a(x)]
    cache.append(cache[0] * 2)
    return sum(cache)


def of_constants(self: Any, x: Tensor) -> Tensor:
    if getattr(self, "positions", None) is None:
        self.positions = torch.arange(4.0)
    return self.a(x) + self.positions


@pytest.mark.parametrize(
    ("forward", "kept"), [(counting, "calls"), (caching, "cache"), (appending, "history"), (buffering, "step")]
)
def test_state_is_named(forward: Callable[..., Any], kept: str) -> None:
    module = doing(forward)
    module.register_buffer("step", torch.zeros(4))
    before = {name for name in vars(module) if name != "_buffers"}
    message = refused(
        module, "forward keeps state from call to call", f"('{kept}')", "make what is kept within forward"
    )
    assert "random" not in message.partition("It was seen thus")[0]
    assert {name for name in vars(module) if name != "_buffers"} == before
    assert torch.equal(module.get_buffer("step"), torch.zeros(4))


def test_state_as_advised() -> None:
    for forward in (within, of_constants):
        trace(doing(forward), X, cuts={"a": "a"})


def noisy(self: Any, x: Tensor) -> Tensor:
    return self.a(x) + torch.randn_like(x)  # noise


def noisy_elsewhere(self: Any, x: Tensor) -> Tensor:
    return self.a(x) + random.random() + np.random.rand()  # noqa: NPY002


def test_random_numbers() -> None:
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    refused(
        doing(noisy), "forward draws random numbers: aten.randn_like", "# noise", "make noise a column", cuts={"a": "a"}
    )
    refused(doing(noisy_elsewhere), "forward draws random numbers, from Python's or numpy's generators")
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert np.random.get_state()[1].tolist() == state[2]  # noqa: NPY002


def test_random_numbers_as_advised() -> None:
    trace(doing(lambda self, x, y: self.a(x) + y), X | {"y": draw(20, 4)}, cuts={"a": "a"})
    module = doing(lambda self, x: self.a(x) + self.noise)
    module.register_buffer("noise", torch.randn(4))
    trace(module, X, cuts={"a": "a"})


def test_training_mode() -> None:
    advice = "the module is in training mode"
    for kind, cause in (
        (nn.Dropout(0.5), "forward draws random numbers: aten.bernoulli_"),
        (nn.BatchNorm1d(4), "changes its buffers '1.running_mean'"),
        (nn.BatchNorm1d(4, track_running_stats=False), "does not run on 1 rows"),
    ):
        module = nn.Sequential(nn.Linear(4, 4), kind)
        refused(module, cause, advice, "try module.eval()", cuts={"a": "0"})
        if getattr(kind, "track_running_stats", True):
            trace(module.eval(), X, cuts={"a": "0"})


# --------------------------------------------------------------------------------------------------------- the rest


def test_rows_that_interact() -> None:
    refused(doing(lambda self, x: x - x.mean(0)), "the module's rows interact", "take no mean, maximum or other")
    trace(doing(lambda self, x: x - x.mean(1, keepdim=True)), X, cuts={})
    layer = seeded(lambda: nn.TransformerEncoderLayer(4, 2, 8))
    refused(layer, "'self_attn' (MultiheadAttention) take the batch as the second axis", example={"src": draw(9, 3, 4)})
    first = seeded(lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
    trace(first, {"src": draw(9, 3, 4)}, cuts={"z": input_of("self_attn.out_proj")})
    turned = Doing(lambda self, x: self.layer(x.transpose(0, 1)).transpose(0, 1), layer=layer)
    trace(turned, ROW_BY_ROW, cuts={"z": input_of("layer.self_attn.out_proj"), "a": "layer.self_attn"})


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def adding_behind(self: Any, x: Tensor) -> Tensor:
    y = x + 1
    return y + self.b(y)  # which changes what it is given


def test_changes_in_place() -> None:
    cuts = {"y": input_of("b")}
    refused(
        doing(adding_behind, b=Doubling()), "forward changes the value of 'y' in place", "make a new value", cuts=cuts
    )
    trace(doing(adding_behind, b=Doubled()), X, cuts=cuts)
    trace(doing(lambda self, x: self.b((x + 1).clone()), b=Doubling()), X, cuts=cuts)


def test_branches_on_values() -> None:
    refused(doing(lambda self, x: x if x.sum() > 0 else -x), "forward branches on", "torch.where or a mask may do")
    trace(doing(lambda self, x: torch.where(x.sum(1, keepdim=True) > 0, x, -x)), X, cuts={})
    refused(doing(lambda self, x: x * float(x[0, 0])), "makes Python numbers of, the values")
    trace(doing(lambda self, x: x * x[:, :1]), X, cuts={})


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning", "ignore:.*deprecated:UserWarning")
def test_quantised_modules() -> None:
    quantization = pytest.importorskip("torch.ao.quantization")
    module = seeded(lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))
    low = quantization.quantize_dynamic(copy.deepcopy(module), {nn.Linear}, dtype=torch.qint8)
    refused(
        low, "submodules are quantised: '0' (dynamic Linear), '2' (dynamic Linear)", "dequantize()", cuts={"a": "0"}
    )
    floats = copy.deepcopy(module)
    for path in ("0", "2"):
        weight, bias = low.get_submodule(path).weight(), low.get_submodule(path).bias()
        floats.get_submodule(path).weight = nn.Parameter(weight.dequantize())
        floats.get_submodule(path).bias = nn.Parameter(bias)
    graph = trace(floats, X, cuts={"a": "0"}, inputs=["x"])
    assert (graph.run(["output"], X)["output"] - low(X["x"])).abs().max() < 0.05


def test_integers_for_weights_work() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.a(functional.linear(x, self.low.float() * self.scale))

    module = doing(forward)
    weight = draw(4, 4)
    module.register_buffer("scale", weight.abs().amax(1, keepdim=True) / 127)
    module.register_buffer("low", (weight / module.get_buffer("scale")).round().to(torch.int8))
    trace(module, X, cuts={"a": "a"})


def test_dead_cuts() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        found, _ = self.b(x[:, None], x[:, None], x[:, None])
        return self.a(found[:, 0])

    module = doing(forward, b=nn.MultiheadAttention(4, 2, batch_first=True))
    cuts: dict[str, str | Cut] = {"a": "a", "pattern": output_of("b", index=1)}
    refused(module, "node 'pattern': nothing reads the value of output_of('b', index=1)", "do not cut there", cuts=cuts)
    trace(module, X, cuts={"a": "a"})
    on_top = Node("f", ("output", "pattern"), lambda output, pattern: output.sum(1) + pattern.sum((1, 2)))
    graph = trace(module, X, cuts=cuts, behaviour=on_top)
    assert graph.nodes["f"].inputs == ("output", "pattern")


@pytest.mark.parametrize("name", ["in", "a-b c"])
def test_any_name_of_a_submodule_does(name: str) -> None:
    """In place, so that the program is traced again, with what would be written `self.in.weight`."""
    inner = nn.Sequential()
    inner.add_module(name, nn.BatchNorm1d(4))
    inner.add_module(f"{name}_", nn.Linear(4, 4))
    module = Doing(lambda self, x: self.inner(x.relu_()).relu_(), inner=inner).eval()
    graph = trace(module, X, cuts={"cut": f"inner.{name}", "next": f"inner.{name}_"})
    expected = module(X["x"].clone()).detach()
    assert torch.equal(graph.run(["output"], X)["output"], expected)
    module.train()
    refused(module, "changes its buffers", "running_mean'", "try module.eval()", cuts={"next": f"inner.{name}_"})
