"""What is computed for each draw as one compiled function: `torch.compile` beside the plan's own loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from pscrub import Hypothesis, unroll
from pscrub.evaluate import Engine
from pscrub.evaluate.plan import Kind
from pscrub.hypothesis.tree import Tree
from pscrub.law import draw
from tests.benchmarks.timing import short, table

TURNS = 5
GIVEN = (Kind.PURE, Kind.COLUMN, Kind.ON_D, Kind.MIXED)


def report(
    hypotheses: Sequence[Hypothesis], draws: int, device: str, turns: int = TURNS, backend: str = "inductor"
) -> Iterator[str]:
    """The table: seconds of f on as many draws, by the loop and compiled, and of compiling it.

    Args:
        hypotheses: on one dataset.
        draws: evaluated in one chunk.
        device: where.
        turns: calls of either, made in turn.
        backend: of `torch.compile`; the default needs a C++ compiler on a CPU.
    """
    engine, rows = Engine(hypotheses[0].data, device), []
    for hypothesis in hypotheses:
        tree = unroll(hypothesis)
        leaves, loop = as_function(engine, tree, draw(tree, draws, (0, 0)))
        if not leaves:  # nothing is computed for a draw
            continue
        start = time.perf_counter()
        traced = make_fx(loop, tracing_mode="symbolic", _allow_non_fake_inputs=True)(
            *leaves
        )  # operations of torch alone, of any number of draws
        compiled = torch.compile(traced, dynamic=True, backend=backend)
        found = compiled(*leaves)
        first, apart = time.perf_counter() - start, float((found - loop(*leaves)).detach().abs().max())
        times: dict[str, list[float]] = {"loop": [], "compiled": []}
        for _ in range(turns):
            for name, run in (("loop", loop), ("compiled", compiled)):
                times[name].append(_timed(lambda run=run, given=leaves: run(*given), device)[0])
        plain, faster = (statistics.median(each) for each in times.values())
        rows.append(
            (hypothesis.name, short(plain), short(faster), f"{plain / faster:.2f}", short(first), f"{apart:.1e}")
        )
    yield f"{draws:,} draws in one chunk on {device}; medians of {turns} calls made in turn, gathering apart."
    head = ("hypothesis", "loop, s", "compiled, s", "times faster", "first call, s", "largest difference")
    yield table(head, rows)


def as_function(engine: Engine, tree: Tree, data: dict[str, Tensor]) -> tuple[list[Tensor], Callable[..., Tensor]]:
    """What is gathered from D for draws, and f of these as a function of that."""
    graph = tree.hypothesis.graph
    engine.foresee([tree])
    kept, plan, asked = engine.kept(graph), engine.plan(tree), engine.asked(tree)
    code = kept.code_of_draws(plan, asked.roots)
    data = {path: rows.to(kept.device) for path, rows in data.items()}
    numbers = [each.number for each in code if each.fn is None and plan.values[each.number].kind in GIVEN]
    constants = {n: plan.values[n].of for n in (i.number for i in code) if plan.values[n].kind is Kind.CONSTANT}
    call, device, kinds = kept.values.graph.call, kept.device, {i.number: plan.values[i.number].kind for i in code}

    def f(*given: Tensor) -> Tensor:
        known: dict[int, Any] = dict(zip(numbers, given, strict=True)) | constants
        for each in code:
            if each.fn is not None:
                known[each.number] = call(each.fn, [known[n] for n in each.args])
            elif kinds[each.number] is Kind.BATCH:
                known[each.number] = given[0].shape[0]
            elif kinds[each.number] is Kind.DEVICE:
                known[each.number] = device
        found: Tensor = known[asked.f]
        return found

    mixed = kinds[asked.f] is Kind.MIXED
    with torch.no_grad():
        return [kept.on_draws(n, data) for n in numbers] if mixed else [], torch.no_grad()(f)


def _timed(work: Callable[[], Tensor], device: str) -> tuple[float, Tensor]:
    start = time.perf_counter()
    found = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found
