"""Hashes of models: the same for the same, others for whatever changes a number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pscrub import Graph, Node, scrub
from pscrub.result.model import ModelHash, hashes_kept
from pscrub.studies import load
from tests.source import ROOT

GLOBAL = 1.0
TENSOR = torch.ones(3)


def closing_over(value: Any) -> Callable[..., Any]:
    return lambda x: value * x


def reads_globals(x: Any) -> Any:
    return helps(x) * TENSOR


def helps(x: Any) -> Any:
    return GLOBAL * x


class Called:
    def __init__(self, scale: Any) -> None:
        self.held = {"scale": [scale]}

    def __call__(self, x: Any) -> Any:
        return self.held["scale"][0] * x


def linear(seed: int) -> nn.Module:
    layer = nn.Linear(3, 3)
    with torch.no_grad():
        for i, each in enumerate(layer.parameters()):
            each.copy_(torch.arange(each.numel()).reshape(each.shape) + i + seed)
    return layer


def hash_of(fn: Any) -> ModelHash:
    return ModelHash.of(Graph([Node("f", ("x",), fn)], ["x"], "f"))


MADE: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "a parameter": (lambda: linear(0), lambda: linear(1), "weights"),
    "a module closed over": (lambda: closing_over(linear(0)), lambda: closing_over(linear(1)), "weights"),
    "a tensor closed over": (lambda: closing_over(torch.ones(2)), lambda: closing_over(torch.zeros(2)), "weights"),
    "another type": (lambda: closing_over(torch.ones(2)), lambda: closing_over(torch.ones(2).double()), "weights"),
    "an array": (lambda: closing_over(np.ones(2)), lambda: closing_over(np.zeros(2)), "weights"),
    "a number closed over": (lambda: closing_over(1.0), lambda: closing_over(2.0), "code"),
    "an argument given": (lambda: partial(torch.add, other=1), lambda: partial(torch.add, other=2), "code"),
    "a method's object": (lambda: Called(torch.ones(1)).__call__, lambda: Called(torch.zeros(1)).__call__, "weights"),
    "an object": (lambda: Called(torch.ones(1)), lambda: Called(torch.zeros(1)), "weights"),
    "code": (lambda: lambda x: x + 1, lambda: lambda x: x - 1, "code"),
    "a constant": (lambda: lambda x: x + 1, lambda: lambda x: x + 2, "code"),
    "a default": (lambda: lambda x, a=1: x + a, lambda: lambda x, a=2: x + a, "code"),
}


@pytest.mark.parametrize("what", MADE)
def test_what_changes_is_seen_and_what_does_not_is_the_same(what: str) -> None:
    make, other, where = MADE[what]
    first, again, changed = hash_of(make()), hash_of(make()), hash_of(other())
    assert first == again != changed
    assert (first.weights != changed.weights, first.code != changed.code) == (where == "weights", where == "code")


def test_globals_are_seen_through_the_functions_that_name_them(monkeypatch: pytest.MonkeyPatch) -> None:
    before = hash_of(reads_globals)
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "GLOBAL", 2.0)
        assert hash_of(reads_globals).code != before.code
        patch.setitem(globals(), "TENSOR", torch.zeros(3))
        assert hash_of(reads_globals).weights != before.weights
    assert hash_of(reads_globals) == before


def test_what_running_leaves_behind_changes_nothing() -> None:
    study = load("ablation_ring", {})
    graph = study.hypotheses[0].graph
    before = ModelHash.of(graph)
    scrub(study, draws=64)
    assert ModelHash.of(graph) == before


def test_cycles_end() -> None:
    held: list[Any] = [torch.ones(1)]
    held.append(held)
    assert hash_of(closing_over(held)) == hash_of(closing_over(held))


def test_processes_agree() -> None:
    code = "from pscrub.studies import load; from pscrub.result.model import ModelHash; "
    code += "print([ModelHash.of(h.graph) for n in ('specificity', 'max_of_k') for h in load(n, {}).hypotheses[:2]])"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_a_graph_is_hashed_once_where_that_is_said() -> None:
    layer = linear(0)
    graph = Graph([Node("f", ("x",), layer)], ["x"], "f")
    with hashes_kept():
        first = ModelHash.of(graph)
        with torch.no_grad():
            layer.weight.add_(1.0)
        assert ModelHash.of(graph) == first
        with hashes_kept():
            assert ModelHash.of(graph) != first
    assert ModelHash.of(graph) != first
