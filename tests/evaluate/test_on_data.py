"""One run of a traced graph costs what the module costs, whatever is cut: operations and multiplications counted."""

import copy
import os
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pscrub.data.dataset import Dataset
from pscrub.evaluate.on_data import OnData
from pscrub.graph.cuts import Cut, input_of, output_of
from pscrub.graph.graph import Graph, Node
from pscrub.graph.tracing import trace
from tests.graph.plain_modules import PLAIN
from tests.graph.traced_modules import FAMILIES, POSITIONS, VOCABULARY, draw, seeded

ROWS = 4
WORDS = {"tokens": torch.arange(ROWS * POSITIONS).view(ROWS, POSITIONS) % VOCABULARY}
MOST = 1.05

pytestmark = [  # torch's own, when it exports
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning"),
]


class Operations(TorchDispatchMode):
    """Counts operations of torch that compute something: a view of a tensor costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **kwargs or {})


def cost_of(run: Callable[[], object]) -> tuple[int, int]:
    """Operations of torch, and floating-point operations of its products."""
    with torch.no_grad():
        with Operations() as operations:
            run()
        with FlopCounterMode(display=False) as flops:
            run()
    return operations.count, flops.get_total_flops()


def cost_of_graph(graph: Graph, columns: Mapping[str, Tensor]) -> tuple[int, int]:
    """Of every named value on all rows, as a plan computes them."""
    flat = Node("f", (graph.output,), lambda value: value.float().flatten(1).sum(1))
    on_top = Graph([*graph.nodes.values(), flat], graph.inputs, "f")
    values = OnData(on_top, Dataset(dict(columns)))
    roots = [values.values.on_data(name) for name in graph.nodes]
    code = values.kept.code(roots)
    return cost_of(lambda: values.kept.run(code, roots, lambda n: values.kept._leaf(n, slice(None)), ROWS))


def cost_of_module(module: nn.Module, columns: Mapping[str, Tensor]) -> tuple[int, int]:
    """Of the module as torch exports it: called, it may look at values and leave out a mask that hides nothing."""
    program = torch.export.export(module, tuple(columns.values()), strict=False).run_decompositions({}).module()
    return cost_of(lambda: program(*columns.values()))


def costs_more(graph: Graph, columns: Mapping[str, Tensor], most: tuple[int, int]) -> bool:
    return any(cost > MOST * own for cost, own in zip(cost_of_graph(graph, columns), most, strict=True))


def blocks(kind: str) -> tuple[nn.Module, dict[str, str | Cut], dict[str, Tensor]]:
    if kind in FAMILIES:
        build, cuts = FAMILIES[kind]
        return seeded(build), cuts, WORDS
    cuts = {
        "length first": {"z": input_of("attention.out_proj"), "a": "attention", "mlp": "mlp"},
        "recurrent": {"h": output_of("lstm", index=(1, 0)), "found": "lstm", "last": output_of("gru", index=1)},
        "nanoGPT": {"c0": "blocks.0.c_attn", "m0": "blocks.0.mlp", "r0": "blocks.0", "z1": input_of("blocks.1.c_proj")},
    }[kind]
    return seeded(PLAIN[kind]), cuts, {"x": draw(ROWS, 6, 16)}


ALL = [*FAMILIES, "length first", "recurrent", "nanoGPT"]
TRIED = ALL if int(os.environ.get("CASES", "15")) > 15 else ["gpt2-sdpa", "length first", "recurrent"]


@pytest.mark.parametrize("kind", TRIED)
def test_a_run_costs_what_the_module_costs(kind: str) -> None:
    module, cuts, columns = blocks(kind)
    most = cost_of_module(module, columns)
    some = random.Random(0).sample(sorted(cuts), len(cuts) // 2)
    for chosen in [cuts, {name: cuts[name] for name in some}][: 2 - ("gpt2" in kind)]:
        graph = trace(module, columns, cuts=chosen, check_rows=3)
        cost = cost_of_graph(graph, columns)
        assert not costs_more(graph, columns, most), (chosen, cost, most)


def test_what_is_done_twice_is_seen() -> None:
    """A reader that holds parameters of its own, so that what it computes is not seen to be the same; node by node."""
    module, _, columns = blocks("nanoGPT")
    most = cost_of_module(module, columns)
    graph = trace(module, columns, cuts={"qkv": "blocks.1.c_attn", "m1": "blocks.1.mlp"}, check_rows=3)
    assert not costs_more(graph, columns, most)
    for name, node in graph.nodes.items():
        again = Node("again", node.inputs, copy.deepcopy(node.fn))
        assert costs_more(Graph([*graph.nodes.values(), again], graph.inputs, graph.output), columns, most), name
    assert cost_of(lambda: graph.run(graph.nodes, columns))[1] > MOST * most[1]


class OneRead(nn.Module):
    """Two linear layers at every position, of which the loss reads the last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        read: Tensor = self.second(self.first(x).relu())[:, -1]
        return read.sum(1)


def test_of_values_on_data_only_what_is_read_is_computed() -> None:
    """f at the last of six positions takes a sixth; the same numbers; kept whole where something reads the whole."""
    columns = {"x": draw(64, 6, 8)}
    graph = trace(seeded(OneRead), columns, cuts={"second": "second"}, output="f")
    values = OnData(graph, Dataset(columns))
    kept, f = values.kept, values.values.on_data("f")
    whole, (code, narrow) = kept.code([f]), kept.narrowed([f])
    assert 6 * sum(kept.flops(code).values()) == sum(kept.flops(whole).values())
    everywhere = kept.run(whole, [f], lambda n: kept._leaf(n, slice(None)), 64)[f]
    torch.testing.assert_close(values.on_data("f"), everywhere, rtol=1e-5, atol=1e-6)
    assert narrow[f] != f
    second = values.values.on_data("second")
    values.keep(["second"])
    assert torch.equal(kept.held[second], graph.run(["second"], columns)["second"])
    assert kept.narrowed([f])[1] == {f: f}  # a part of what is there is taken from it
