"""Plans on a GPU without one: fake CUDA tensors, which have a device and a shape and no numbers.

Operations on tensors of different devices raise; so does whatever would wait for the device to read a number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from pscrub import Dataset, Graph, Tree, unroll
from pscrub.evaluate.compute import Instruction, Kept
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.on_data import OnData
from pscrub.evaluate.plan import Kind
from pscrub.studies import EXTRAS, SHIPPED, load

ROWS = 6
EVERY = int(os.environ.get("CASES", "15")) > 15
"""Whether every hypothesis of every study is tried, as `make models` does."""


class Indexing(TorchFunctionMode):
    """Square brackets by operations: Python's own way into them asks a CPU build for a device that it lacks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__setitem__:
            value, index, new = args
            return torch.ops.aten.copy_(self._part(value, index), new)
        if func is not Tensor.__getitem__:
            return func(*args, **(kwargs or {}))
        return self._part(*args)

    def _part(self, value: Any, index: Any) -> Any:
        index = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis in [each for each in index if not isinstance(each, Tensor)]:
            place = next(i for i, each in enumerate(index) if each is Ellipsis)
            missing = value.ndim - sum(each is not None for each in index) + 1
            index[place : place + 1] = [slice(None)] * missing
        axis, tensors = 0, list[Any]()
        for each in index:
            if each is None:
                value = torch.ops.aten.unsqueeze(value, axis)
            elif isinstance(each, slice):
                end = 2**63 - 1 if each.stop is None else each.stop
                value = torch.ops.aten.slice(value, axis, each.start or 0, end, each.step or 1)
            elif isinstance(each, int):
                value, axis = torch.ops.aten.select(value, axis, each), axis - 1
            else:
                tensors += [None] * (axis - len(tensors)) + [torch.as_tensor(each)]
            axis += 1
        return torch.ops.aten.index(value, tensors) if tensors else value


class OnFakeCuda:
    """Runs a plan's instructions as `Kept` does, constants and columns being fake tensors on a GPU."""

    def __init__(self, kept: Kept, mode: FakeTensorMode) -> None:
        self.kept, self.mode, self.device = kept, mode, torch.device("cuda", 0)
        self._constants: dict[int, Any] = {}

    def put(self, tensor: Tensor) -> Tensor:
        """The fake of a real tensor, there."""
        return self.mode.from_tensor(tensor).to(self.device)

    def _moved(self, fn: Any) -> Any:
        """A module's parameters and buffers go to the device, as `Graph.to` takes them there."""
        if not isinstance(fn, nn.Module):
            return fn
        held = {name: self.put(each) for name, each in (*fn.named_parameters(), *fn.named_buffers())}
        return lambda *values: torch.func.functional_call(fn, held, values)

    def run(self, code: list[Instruction], leaf: Mapping[int, Tensor]) -> dict[int, Any]:
        values, known = self.kept.values, dict[int, Any]()
        for each in code:
            value = values[each.number]
            if each.fn is not None:
                known[each.number] = self._moved(each.fn)(*(known[n] for n in each.args))
            elif value.kind is Kind.CONSTANT:
                known[each.number] = self.put(value.of) if isinstance(value.of, Tensor) else value.of
            elif value.kind is Kind.BATCH:
                known[each.number] = ROWS
            elif value.kind is Kind.DEVICE:
                known[each.number] = self.device
            else:
                known[each.number] = leaf[each.number]
        return known


def leaves(kept: Kept, code: list[Instruction]) -> dict[int, Tensor]:
    """Fake values of what is not computed, as many rows as are worked on."""
    rows = torch.arange(ROWS) % kept.data.n
    found = {}
    for each in code:
        value = kept.values[each.number]
        if each.fn is None and value.kind in (Kind.PURE, Kind.COLUMN, Kind.ON_D):
            on_data = value.args[0] if value.kind is Kind.PURE else each.number
            found[each.number] = kept.at(on_data, rows)
        elif each.fn is None and value.kind is Kind.MIXED:  # gathered from many data
            found[each.number] = kept.on_draws(each.number, {kept.values[n].of: rows for n in value.args})
    return found


def check(engine: Engine, tree: Tree, mode: FakeTensorMode) -> None:
    graph = tree.hypothesis.graph
    kept, plan, asked = engine.kept(graph), engine.plan(tree), engine.asked(tree)
    for roots in ([kept.values.on_data(graph.output)], [*plan.frontier_of(asked.roots)]):
        on_cuda(kept, kept.code(roots), roots, mode)
        code, narrow = kept.narrowed(roots)  # of each only what is read, as a pass over D computes it
        on_cuda(kept, code, [*narrow.values()], mode)
    kept.keep(plan.frontier_of(asked.roots))
    on_cuda(kept, kept.code_of_draws(plan, asked.roots), list(asked.roots), mode)


def on_cuda(kept: Kept, code: list[Instruction], roots: list[int], mode: FakeTensorMode) -> None:
    cuda = OnFakeCuda(kept, mode)
    real = leaves(kept, code)
    with mode, Indexing(), torch.no_grad():
        found = cuda.run(code, {n: cuda.put(value) for n, value in real.items()})
    for n in roots:
        assert found[n].device.type == "cuda" and len(found[n]) == ROWS


def fake_mode() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


@pytest.mark.parametrize(
    "name", [name for name in SHIPPED if name not in EXTRAS and (EVERY or name != "bracket_heads")]
)
def test_shipped_studies_run_without_a_mismatch_of_devices_and_without_waiting(name: str) -> None:
    study = load(name, {"rows": "60"} if name.startswith(("bracket", "modular", "induction")) else {})
    engine = Engine(study.hypotheses[0].data)
    for hypothesis in study.hypotheses if EVERY or len(study.hypotheses) < 5 else study.hypotheses[-1:]:
        check(engine, unroll(hypothesis), fake_mode())


@pytest.mark.parametrize(
    ("fn", "error"),
    [
        (lambda x: x + torch.ones(1), "same device"),  # made on the CPU
        (lambda x: x * x.abs().max().clamp(min=0).bool().item(), r"item|_local_scalar_dense"),  # waits for the device
    ],
)
def test_planted_faults_are_caught(fn: Any, error: str) -> None:
    data = Dataset({"x": torch.arange(20.0)})
    graph = Graph.of({"f": fn}, ["x"], "f")
    kept = OnData(graph, data).kept
    with pytest.raises(Exception, match=error):
        on_cuda(kept, kept.code([kept.values.on_data("f")]), [kept.values.on_data("f")], fake_mode())
