"""One export, many sets of cuts: the same graphs as an export for each."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pscrub.data.dataset import Dataset
from pscrub.errors import TraceError
from pscrub.graph.cuts import Cut, input_of, output_of
from pscrub.graph.graph import Node
from pscrub.graph.once import Traced, trace_all
from pscrub.graph.program import Excerpt, Program
from pscrub.graph.tracing import trace
from tests.graph.traced_modules import FAMILIES, LOSS, POSITIONS, VOCABULARY, Doing, X, draw, seeded


@pytest.fixture(scope="module", params=["plain", "llama-eager"])
def family(request: pytest.FixtureRequest) -> tuple[nn.Module, dict[str, str | Cut], Dataset, Traced]:
    build, cuts = FAMILIES[request.param]
    module = seeded(build)
    words = torch.randint(VOCABULARY, (20, POSITIONS), generator=torch.Generator().manual_seed(1))
    data = Dataset({"tokens": words, "label": words[:, 0]})
    return module, cuts, data, trace_all(module, data, inputs=["tokens"])


def test_graphs_are_those_of_an_export_of_their_own(family: Any) -> None:
    module, cuts, data, traced = family
    for some in (cuts, {name: cuts[name] for name in list(cuts)[::3]}):
        own = trace(module, data, cuts=some, inputs=["tokens"], output="logits", behaviour=LOSS)
        graph = traced.graph(some, output="logits", behaviour=LOSS)
        assert {n: node.inputs for n, node in graph.nodes.items()} == {n: node.inputs for n, node in own.nodes.items()}
        columns = dict(data.columns)
        expected = own.run(own.nodes, columns)
        assert all(torch.equal(value, expected[name]) for name, value in graph.run(graph.nodes, columns).items())


def test_every_point_can_be_cut_and_is_what_hooks_see(family: Any) -> None:
    _, _, data, traced = family
    points = list(traced.points)
    graph = traced.graph({str(cut): cut for cut in points}, output="logits")
    values = graph.run([*map(str, points)], {"tokens": data["tokens"][:3]})
    assert {str(cut): shape for cut, shape in traced.points.items()} == {
        name: tuple(value.shape[1:]) for name, value in values.items()
    }


def test_another_set_of_cuts_exports_nothing_and_shares_the_weights(
    family: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cuts, _, traced = family
    loss = traced.graph(cuts, output="logits", behaviour=LOSS).nodes["loss"].fn
    assert isinstance(loss, Excerpt)
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: pytest.fail("exported again"))
    first, second = traced.graph(cuts, output="logits"), traced.graph({}, output="logits")
    assert traced.graph({}, output="logits", behaviour=LOSS).nodes["loss"].fn is loss

    def weights(graph: Any) -> set[int]:
        return {id(tensor) for node in graph.nodes.values() for tensor in node.fn.parameters()}

    assert weights(second) <= weights(first) | {id(tensor) for tensor in traced.program.constants.values()}
    assert weights(second) & weights(first)


def test_a_cut_is_a_path_a_cut_or_the_submodule_itself() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    named = trace(model, X, cuts={"a": "0", "b": output_of("1")}, inputs=["x"])
    given = trace(model, X, cuts={"a": model[0], "b": model[1]}, inputs=["x"])
    assert given.run(["b"], X)["b"].equal(named.run(["b"], X)["b"])
    with pytest.raises(TraceError, match="'a': this Linear is no submodule of the module: give one, or its path"):
        trace(model, X, cuts={"a": nn.Linear(4, 4)}, inputs=["x"])
    with pytest.raises(TraceError, match="this Linear is no submodule"):
        trace_all(model, X, inputs=["x"]).graph({"a": nn.Linear(4, 4)})


@pytest.mark.parametrize("rows", [3, 5, 7])
def test_the_whole_module_is_a_point_and_sizes_may_be_the_number_of_rows(rows: int) -> None:
    """As wide as there are rows in the check, or in the export."""
    model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5)).eval()
    data = {"x": draw(9, 5), "label": torch.arange(9) % 5}
    loss = Node(
        "loss", ("output", "label"), lambda out, label: nn.functional.cross_entropy(out, label, reduction="none")
    )
    cuts = {"in": input_of(""), "all": output_of("")}
    graph = trace_all(model, data, inputs=["x"], check_rows=rows).graph(cuts, behaviour=loss)
    own = trace(model, data, cuts=cuts, inputs=["x"], behaviour=loss, check_rows=rows)
    assert [node.inputs for node in graph.nodes.values()] == [node.inputs for node in own.nodes.values()]
    assert all(isinstance(each.nodes["loss"].fn, Excerpt) for each in (graph, own))
    assert graph.run(["loss"], data)["loss"].equal(own.run(["loss"], data)["loss"])


def test_refusals_name_the_cut() -> None:
    linear = nn.Linear(4, 4)
    model = Doing(lambda self, x: self.twice(self.twice(x)).tanh(), twice=linear, never=nn.ReLU()).eval()
    traced = trace_all(model, X, inputs=["x"])
    assert {str(cut) for cut in traced.points if cut.path} == {
        f"{side}_of('twice'{index}, call={call})"
        for call in (0, 1)
        for side, index in (("input", ", index=0"), ("output", ""))
    }
    for cuts, message in (
        ({"a": "never"}, "submodule 'never' is never called in forward"),
        ({"a": "twice"}, "is called 2 times; say which"),
        ({"a": output_of("twice", call=2)}, "0 to 1"),
        ({"a": "twcie"}, "no submodule 'twcie'"),
        ({"a": output_of("twice", index=3, call=0)}, "is no tensor"),
        ({"a": output_of("twice", call=0), "b": output_of("twice", index=None, call=0)}, "'a' and 'b' name one value"),
        ({"x": output_of("twice", call=0)}, "has the name of a column"),
    ):
        with pytest.raises(TraceError, match=message):
            traced.graph(cuts)
    graph = traced.graph({"once": output_of("twice", call=0), "again": input_of("twice", call=1)})
    assert graph.nodes["again"].inputs == ("once",)
    with pytest.raises(TraceError, match="node 'bad' of one row changes by"):
        traced.graph({}, behaviour=Node("bad", ("output",), lambda x: x.sum(1) + len(x)))


def test_rows_that_mix_are_found_where_they_mix() -> None:
    model = Doing(lambda self, x: self.mixes(x) * 0.0 + x, mixes=Doing(lambda self, x: x - x.mean(0))).eval()
    with pytest.raises(TraceError, match=r"'output 0 of mixes: .*of one row changes by .*rows must not interact"):
        trace_all(model, X, inputs=["x"])


def test_a_mark_passed_over_wrongly_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    traced = trace_all(model, X, inputs=["x"])
    mark, other = (
        place
        for of, n in (("1", 0), ("0", 0))
        for at, place in traced.program.marks.items()
        if f"output {n} of {of}" in at
    )
    steps = list(traced.program.steps)
    steps[mark] = replace(steps[mark], reads=(other,))
    traced.program = Program(steps, traced.program.constants)
    with pytest.raises(TraceError, match="node 'output' differs from the module"):
        traced.graph({"a": "0"})


def test_what_is_changed_in_place_is_right_or_refused() -> None:
    right = Doing(lambda self, x: self.relu(self.linear(x)) + x, linear=nn.Linear(4, 4), relu=nn.ReLU(inplace=True))
    traced = trace_all(right.eval(), X, inputs=["x"])
    expected: Tensor = right(X["x"])
    assert traced.graph({"a": "relu"}).run(["output"], X)["output"].equal(expected)

    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.linear(x)
        self.relu(h)  # in place, and its result is not what is used
        return h

    wrong = Doing(forward, linear=nn.Linear(4, 4), relu=nn.ReLU(inplace=True)).eval()
    with pytest.raises(TraceError, match="in place"):
        trace_all(wrong, {"x": draw(20, 4)}, inputs=["x"])
    assert trace(wrong, X, cuts={}, inputs=["x"]).run(["output"], X)["output"].equal(wrong(X["x"]))
