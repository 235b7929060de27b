"""Graphs by hand as circuits take them, several texts on one graph, features by position, estimates: as by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from pscrub import EXACT, Claim, Dataset, Graph, GraphError, Hypothesis, HypothesisError, circuit, unroll
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.graph import Piece, Position, carve
from pscrub.graph.rewrites import with_estimate
from pscrub.hypothesis import ByPosition, NamedGraph, circuit_ladder, write_circuit
from pscrub.hypothesis.notation import read_ref
from pscrub.law.drawing import draw

N, T = 30, 4
X = torch.randn(N, T, 3, generator=torch.Generator().manual_seed(0))
DATA = Dataset({"x": X, "label": torch.arange(N) % 3, "kind": torch.arange(N) % 5, "at": torch.arange(N) % T})
CODES = ByPosition(torch.randint(0, 3, (N, T), generator=torch.Generator().manual_seed(1)))
GRAPH = Graph.of(
    {
        "m": lambda x: x.sin(),
        "a": lambda m, x: (m + x).cumsum(1),
        "logits": lambda m, a: (m * a)[:, -1],
        "loss": lambda logits, label: logits.gather(1, label[:, None])[:, 0],
    },
    ["x", "label"],
    "loss",
)
NAMED = NamedGraph(GRAPH, DATA, T, mixing=["a"])
LOSS = GRAPH.nodes["loss"]


def read(text: str, **options: Any) -> Hypothesis:
    return circuit_ladder({"said": text}, NAMED, behaviour=LOSS, features={"the code": CODES}, **options)[0]


def same(said: Hypothesis, own: Hypothesis) -> None:
    """The same sites, which agree on the same, and the same f on the same data, by both evaluators."""
    one, other = unroll(said), unroll(own)
    assert [*one.sites] == [*other.sites]
    for path, site in one.sites.items():
        assert site.parent == other.sites[path].parent and site.partition == other.sites[path].partition, path
    data = draw(one, 200, (0,))
    f = run_scrubbed(other, Activations(own.graph, DATA), data)
    assert torch.equal(run_scrubbed(one, Activations(said.graph, DATA), data), f) and f.unique().numel() > 9
    torch.testing.assert_close(Engine(DATA).f(one, data), f, rtol=1e-5, atol=1e-6)


def pieces(*names: str) -> Graph:
    """`m@1` and so on as nodes."""
    cut = [Piece(name, name.split("@")[0], position=Position(offset=int(name.split("@")[1]))) for name in names]
    return carve(GRAPH, DATA, cut)


def test_a_graph_by_hand_is_said_like_a_model() -> None:
    """A mixing node reads other positions; each position agrees on its own code; f says its label by a feature."""
    said = read("loss <- label logits \n label : label \n logits <- a@-1 \n a@-1 <- m@* \n m@* : the code")
    below = [Claim(f"m@{i}", CODES.values[:, i]) for i in range(T)]
    logits = Claim("logits", reads=[Claim("a@3", reads=below, name="a@-1")])
    graph = pieces("a@3", *(f"m@{i}" for i in range(T)))
    same(said, Hypothesis("own", graph, DATA, Claim("loss", reads=[Claim("label", "label"), logits])))


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("loss : exact", Claim("loss", EXACT)),
        ("loss <- label \n label : label", Claim("loss", reads=[Claim("label", "label")])),
        ("loss <- logits \n logits : kind", Claim("loss", reads=[Claim("logits", "kind")])),
        ("logits <- m \n m : kind \n label : label",
         Claim("loss", reads=[Claim("logits", reads=[Claim("m", "kind")]), Claim("label", "label")])),
    ],
)  # fmt: skip
def test_f_is_said_by_its_name(text: str, own: Claim) -> None:
    said = read(text)
    same(said, Hypothesis("own", GRAPH, DATA, own))
    assert write_circuit(read(write_circuit(said))) == write_circuit(said)
    same(read(write_circuit(said)), said)


def test_a_feature_by_position_where_a_column_tells_it() -> None:
    said = read("logits <- a@-1 \n a@-1 <- m@at \n m@at : the code")
    (claim,) = (claim for claim in said.claims if claim.name == "m@at")
    assert torch.equal(claim.feature, CODES.values[torch.arange(N), DATA["at"]])
    assert unroll(said).sites["loss/logits/a@-1/m@at"].partition.n_blocks == 3


def phi(x: Tensor) -> Tensor:
    return x[:, 1:2].clamp(-1, 1)


def test_an_estimate_is_said_as_it_is_made_by_hand() -> None:
    texts = {
        "whole": "logits <- a@-1 \n a@-1 <- m@1 \n m@1 : kind",
        "estimated": "logits <- a@-1 \n a@-1 <- m@1 \n m@1 <- estimate_of(m@1) \n estimate_of(m@1) : kind",
    }
    whole, said = circuit_ladder(texts, NAMED, behaviour=LOSS, estimates={"m@1": (phi, ["x"])})
    assert whole.graph is said.graph  # so that D is passed once
    graph = with_estimate(pieces("a@3", "m@1"), "m@1", phi, ["x"])
    estimate = Claim("m@1.phi", "kind", name="estimate_of(m@1)")
    root = Claim("a@3", reads=[Claim("m@1", reads=[estimate])], name="a@-1")
    label = Claim("label", EXACT)
    same(said, Hypothesis("own", graph, DATA, Claim("loss", reads=[Claim("logits", reads=[root]), label])))
    same(circuit_ladder({"again": write_circuit(said)}, NAMED, behaviour=LOSS, features={"kind": DATA["kind"]},
                  estimates={"m@1": (phi, ["x"])})[0], said)  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "options", "said"),
    [
        ({"one": "logits <- m", "two": "logits <- mm"}, {}, "'two', line 1, 'mm': the graph has no node 'mm'"),
        ({"one": "logits <- m@1 \n m@1 : kind", "two": "logits <- m"}, {}, "'two', line 1, 'm' is all of what 'm@1'"),
        ({"one": "logits <-", "two": "logits"}, {}, "'two', line 1, 'logits': expected"),
        ({"one": "logits <- m@1", "two": "# \n m@1 <- a@1 \n logits <- m@1"}, {}, "'two', line 2, 'm@1' cannot read"),
        ({"one": "logits <- m \n m : the code"}, {}, "'the code' is told for each position, and 'm' stands at none"),
        ({"one": "logits <- m@1 \n m@1 : short"}, {}, "'short' has values [30, 2]; expected [30, 4]"),
        ({"one": "logits <- m@1 \n m@1 <- x@0"}, {}, "the graph has no node 'x'"),
        ({"one": "loss@1 <- logits"}, {}, "f itself, a column that f reads and an estimate have no parts"),
        ({"one": "logits <- m \n label : label \n kind : kind"}, {}, "the graph has no node 'kind'"),
        ({"one": "loss : exact \n logits <- m"}, {}, "line 2, 'logits' is read by no part that leads to 'loss'"),
        ({"one": "logits <- m@1 \n m@1 <- estimate_of(m@2)"}, {}, "no estimate is given of 'm@2'"),
        ({"one": "logits <- m"}, {"estimates": {"b@1": (phi, ["x"])}}, "estimates, 'b@1': the graph has no node 'b'"),
        ({"one": "logits <- m@1"}, {"estimates": {"m@*": (phi, ["x"])}}, "'m@*' is no one part"),
        ({"one": "logits <- m@1 \n m@1 <- a@1 \n a@1 <- m@0"}, {}, "the model computes 'a@1' from it"),
    ],
)
def test_faults_say_in_which_text(texts: Mapping[str, str], options: Any, said: str) -> None:
    features = {"the code": CODES, "short": ByPosition(CODES.values[:, :2])}
    with pytest.raises(HypothesisError) as caught:
        circuit_ladder(texts, NAMED, behaviour=LOSS, features=features, **options)
    assert said in str(caught.value)


def test_nodes_that_do_not_mix_read_no_other_position() -> None:
    with pytest.raises(HypothesisError, match="'a@-1' cannot read 'm@0', which is at another position on rows 0, 1"):
        circuit("still", NamedGraph(GRAPH, DATA, T), "logits <- a@-1 \n a@-1 <- m@0", behaviour=LOSS)


def test_a_behaviour_that_is_not_the_graphs_is_refused() -> None:
    with pytest.raises(GraphError, match="the behaviour is 'logits'; expected the graph's output 'loss'"):
        circuit("other", NAMED, "logits <- m", behaviour=GRAPH.nodes["logits"])


def test_names_with_parentheses_are_read_whole() -> None:
    assert read_ref("input_of('model.layers.0')@1").name == "input_of('model.layers.0')"
    assert read_ref("m@1(kind)").feature == "kind"
