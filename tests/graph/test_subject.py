"""What `trace` refuses, with the words it uses, and that it leaves the module as it found it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pscrub.errors import TraceError
from pscrub.graph.cuts import input_of, output_of
from pscrub.graph.graph import Node
from pscrub.graph.tracing import trace
from tests.graph.traced_modules import Doing, X, draw, seeded


def state(module: nn.Module) -> tuple[Any, ...]:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in module.modules()]
    return hooks, [p.requires_grad for p in module.parameters()], [b.tolist() for b in module.buffers()]


def test_the_module_is_left_as_it_was_found() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 4))
    module[0].requires_grad_(False)
    module[3].eval()
    before, random, grad = state(module), torch.get_rng_state(), torch.is_grad_enabled()
    with pytest.raises(TraceError):
        trace(module, X, cuts={"a": "0", "b": input_of("3")})
    with pytest.raises(TraceError):
        trace(module, {"x": draw(5, 3)}, cuts={"a": "0"})
    with pytest.raises(TraceError):
        trace(module, X, cuts={"a": "0", "b": output_of("1", call=2)})
    assert state(module) == before
    module.eval()
    before = state(module)
    trace(module, X, cuts={"a": "0", "b": input_of("3")})
    assert state(module) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled() == grad


def test_an_interrupted_forward_leaves_no_hooks() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            raise KeyboardInterrupt
        return self.a(x)

    module = Doing(forward, a=nn.Linear(4, 4))
    with pytest.raises(KeyboardInterrupt):
        trace(module, X, cuts={"a": "a"})
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def refused(module: nn.Module, *messages: str, **arguments: Any) -> TraceError:
    with pytest.raises(TraceError) as caught:
        trace(module, arguments.pop("example", X), **({"cuts": {}} | arguments))
    for message in messages:
        assert message in str(caught.value)
    return caught.value


def test_all_unknown_names_are_told_together() -> None:
    module = nn.ModuleDict({"block_one": nn.Linear(4, 4)})
    error = refused(
        module,
        "node 'a': the module has no submodule 'block_on'; did you mean \"block_one\"?",
        "node 'x' has the name of a column of the example",
        "two nodes are named 'result'",
        "behaviour 'loss' reads unknown 'labels'; did you mean \"label\"?",
        "inputs name 'tokens', which is no column",
        "column 'text' holds strings, which no node can read",
        example=X | {"label": torch.zeros(20), "text": ["a"] * 20},
        cuts={"a": "block_on", "x": "block_one", "result": "block_one"},
        inputs=["tokens", "text"],
        output="result",
        behaviour=Node("loss", ("result", "labels"), lambda result, labels: result),
    )
    assert len(error.faults) == 6


def test_unknown_parameters_of_forward() -> None:
    refused(nn.Linear(4, 4), "forward has no parameter 'imput'; did you mean \"input\"?", inputs={"imput": "x"})
    example = X | {"z": torch.zeros(20)}
    refused(nn.Linear(4, 4), "no column (x, z) is named like a parameter of forward (input)", example=example)
    refused(nn.Linear(4, 4), "say which it takes", inputs=[])


def test_submodules_called_never_or_often() -> None:
    def direct(self: Any, x: Tensor) -> Tensor:
        return functional.linear(x, self.out.weight)

    parent = seeded(lambda: Doing(direct, out=nn.Linear(4, 4, bias=False)))
    module = Doing(lambda self, x: self.a(x) + self.b(self.b(x)), a=parent, b=nn.Linear(4, 4))
    refused(
        module,
        "node 'out': submodule 'a.out' is never called in forward",
        "cut at its parent, or have it called there",
        "node 'twice': submodule 'b' is called 2 times; say which, as in output_of('b', call=0)",
        "node 'third': input_of('b', call=2), but the submodule is called 2 times: 0 to 1",
        cuts={"out": "a.out", "twice": "b", "third": input_of("b", call=2)},
    )
    trace(module, X, cuts={"out": "a"})
    parent.function = lambda self, x: self.out(x)
    trace(module, X, cuts={"out": "a.out", "b": output_of("b", call=0)})


def test_values_that_are_no_tensors_or_not_batch_first() -> None:
    pair = Doing(lambda self, x: ("text", x))
    module = Doing(lambda self, x: self.b(self.a(x)[1].mT).mT.sum(0), a=pair, b=nn.Identity())
    refused(
        module,
        "node 'text': output_of('a', index=0) is a str; expected a tensor",
        "node 'none': output_of('a', index=2) is nothing; expected a tensor",
        "node 'word': input_of('a', index='word') is nothing; expected a tensor",
        cuts={"text": output_of("a", index=0), "none": output_of("a", index=2), "word": input_of("a", index="word")},
    )
    mean = Doing(lambda self, x: self.b(x.mean(0)).sum(0, keepdim=True), b=nn.Identity())
    error = refused(mean, "the value of 'b' has shape [4]", "the value of 'output' has shape [1]", cuts={"b": "b"})
    assert len(error.faults) == 2
    refused(module, "the value of 'output' has shape [4]; expected one a row, [batch, ...]", cuts={"b": "b"})
    refused(Doing(lambda self, x: x[x[:, 0] > 0]), "shape [(number that depends on the data), 4]")
    refused(Doing(lambda self, x: "text"), "the module returns a str, in which no tensor was found for 'output'")


def branching(self: Any, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x  # the line that is told


def looping(self: Any, x: Tensor) -> Tensor:
    return torch.stack([x[row] for row in range(x.shape[0])])


def through_numpy(self: Any, x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy() * 2)


def failing(self: Any, x: Tensor) -> Tensor:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    ("forward", "messages"),
    [
        (branching, ["forward branches on", "test_subject.py:", "the line that is told"]),
        (looping, ["does not work for every number of rows", "range(len(x))", "constant (5)."]),
        (lambda self, x: x if x.shape[0] % 2 else 2 * x, ["does not work for every number of rows", "% 2"]),
        (through_numpy, ["torch.export refuses the module: RuntimeError", ".numpy()", "return torch.from_numpy"]),
        (
            failing,
            ["the module does not run on 5 rows of the example: RuntimeError: on purpose", "subject.py:"],
        ),
    ],
)
def test_modules_that_do_not_export(
    forward: Callable[..., Any], messages: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    error = refused(Doing(forward), *messages)
    assert isinstance(error.__cause__, Exception)
    assert "def forward" not in "".join(capfd.readouterr())


def counting(self: Any, x: Tensor) -> Tensor:
    self.calls = getattr(self, "calls", 0) + 1
    return x * self.calls


def adding_behind(self: Any, x: Tensor) -> Tensor:
    y = x + 1
    self.a(y)  # changes what it is given, of which a cut gives it a copy
    return y


def centred(self: Any, x: Tensor) -> Tensor:
    return x - x.mean(0)


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


def test_graphs_that_would_differ_from_their_module() -> None:
    advice = "try module.eval()"
    dropout = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4))
    error = refused(dropout, "node 'b' differs from the module by ", advice, cuts={"a": "0", "b": "1"})
    assert "'a'" not in str(error)
    refused(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "changes its buffers '1.running_mean'", advice)
    unbuffered = nn.BatchNorm1d(4, track_running_stats=False)
    refused(unbuffered, "does not run on 1 rows of the example: ValueError: Expected more than 1 value", advice)
    message = "node 'output' of one row changes by"
    refused(unbuffered, message, "rows must not interact", advice, example={"input": draw(20, 4, 3)})
    cut = {"y": input_of("a")}
    for forward, message, cuts in (
        (counting, "keeps state", {}),
        (adding_behind, "changes in place", cut),
        (centred, "interact", {}),
    ):
        module = Doing(forward, a=Doubling()).eval()
        assert advice not in str(refused(module, "node 'output'", message, cuts=cuts))


def test_behaviours_that_fail_or_lose_the_rows() -> None:
    module = seeded(lambda: nn.Linear(4, 4))
    for fn, message in (
        (lambda output: output.mean(), "node 'f' gives a Tensor of shape [] for 1 rows; expected a tensor, [1, ...]"),
        (lambda output: 1.0, "node 'f' gives a float for 1 rows"),
        (lambda output: output @ output, "node 'f' fails on 1 rows of the example: RuntimeError"),
        (lambda output: output / len(output), "node 'f' of one row changes by"),
    ):
        refused(module, message, behaviour=Node("f", ("output",), fn))


def test_cuts_inside_control_flow_are_refused() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.ops.higher_order.map_impl(lambda row: (self.a(row),), (x,), ())[0]

    cut = output_of("a", call=0)
    refused(Doing(forward, a=nn.Identity()).eval(), "torch.export refuses the module", cuts={"a": cut})
