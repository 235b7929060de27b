"""Models that people bring are traced, cut wherever they can be, and give what they gave: tried by `make models`."""

from __future__ import annotations

import os
from inspect import signature

import pytest
import torch

from pscrub import Claim, Dataset, Hypothesis, Node, trace, unroll
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.graph import trace_all
from pscrub.graph.equal import find_gap
from pscrub.law.drawing import draw
from tests.graph.zoo import NEEDS, find_cuts, specimens

ALL = specimens()
TRIED = list(ALL) if int(os.environ.get("CASES", "15")) > 15 else ["recurrent", "length first", "odd"]


# Said once a process, of the module as it is called plainly to compare with.
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
# A bridge's norm takes the naming of its parts for an edit, and goes the way that its own hooks go.
@pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale:UserWarning")
@pytest.mark.parametrize("name", TRIED)
def test_a_model_is_traced_and_scrubbed(name: str) -> None:
    """Traced within 1e-5, with its cuts or cut later; the engine within rounding of the slow one, a claim amid."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    specimen = ALL[name]()
    cuts = find_cuts(specimen)
    data = Dataset(specimen.columns)
    loss = Node("loss", ("result",), lambda result: result.float().reshape(len(result), -1).square().mean(1))
    first = next(iter(signature(specimen.module.forward).parameters))
    graph = trace(specimen.module, data, cuts=cuts, inputs={first: "x"}, output="result", behaviour=loss)
    with torch.no_grad():
        expected = specimen.module(*specimen.columns.values())
    gap, scale = find_gap(graph.run(["result"], specimen.columns)["result"], expected)
    assert gap <= 1e-5 * scale
    again = trace_all(specimen.module, data, inputs={first: "x"}).graph(cuts, output="result", behaviour=loss)
    columns = {name: data[name] for name in graph.inputs}
    values = graph.run(graph.nodes, columns)
    for node, value in again.run(again.nodes, columns).items():
        apart, size = find_gap(value, values[node])
        assert apart <= (1e-6 * size if name.startswith("bridge") else 0), node
    middle = [cut for cut in cuts if cut in graph.ancestors("result")]
    assert middle
    at = middle[len(middle) // 2]
    claim = Claim("loss", reads=[Claim("result", reads=[Claim(at, torch.arange(data.n) % 2)], paths="any")])
    tree = unroll(Hypothesis(name, graph, data, claim))
    drawn = draw(tree, 20, (0,))
    slow = run_scrubbed(tree, Activations(graph, data), drawn)
    torch.testing.assert_close(Engine(data).f(tree, drawn), slow, rtol=1e-4, atol=1e-5)
