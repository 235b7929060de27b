"""Labels belong to f: however a graph is rewritten, E_model, E_randomised, E_scrubbed and score are as they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, StudyError, unroll
from pscrub.estimate import pairs
from pscrub.estimate.baselines import Baselines
from pscrub.estimate.estimate import exact_estimate
from pscrub.estimate.recovered import loss_recovered
from pscrub.evaluate.on_data import OnData
from pscrub.graph import constant, inline, lookup_table, own_copy, split, with_estimate
from pscrub.graph import replace as compute_otherwise
from pscrub.graph.labels import Labels, compared_outputs, tell_labels
from pscrub.law.of_f import scrubbed_expectation

CASES = 400
PLANTED = 80
"""Cases in which a planted fault is looked for."""
WIDTH = 3
"""Entries of every node's value and column: small whole numbers in float64, so that nothing is rounded."""


@dataclass(frozen=True)
class Case:
    """A graph that is begun with, a hypothesis on it, and what rewriting made of both.

    Args:
        begun: the hypothesis, its graph as it was written.
        graph: the same, rewritten.
        claim: the hypothesis's root claim after the rewriting, None where it did not survive.
        done: what was done.
    """

    begun: Hypothesis
    graph: Graph
    claim: Claim | None
    done: tuple[str, ...]


def polynomial(rng: random.Random, arguments: int) -> Callable[..., Tensor]:
    """A node's function of values [batch, WIDTH]: entries mixed along the axis, in whole numbers."""
    weights = [
        torch.tensor([[rng.randint(-2, 2) for _ in range(WIDTH)] for _ in range(WIDTH)]) for _ in range(arguments)
    ]
    square = rng.random() < 0.5

    def mixed(*values: Tensor) -> Tensor:
        total = sum(value @ weight.double() for value, weight in zip(values, weights, strict=True))
        assert isinstance(total, Tensor)
        return (total.square() if square else total) % 5

    return mixed


def judged(rng: random.Random, arguments: int) -> Callable[..., Tensor]:
    """f of outputs and a label, the last; each pair of them matters."""
    weights = [rng.choice((1, 2, 3)) for _ in range(arguments)]

    def loss(*values: Tensor) -> Tensor:
        *outputs, label = values
        total = sum(weight * value for weight, value in zip(weights, outputs, strict=False))
        return ((total - label) ** 2).sum(1)

    return loss


def random_hypothesis(rng: random.Random) -> Hypothesis:
    """Some outputs claimed, some not, made of columns a and b by hidden nodes of their own; the label a column y."""
    n = rng.choice((3, 4, 5))
    columns = {
        name: torch.tensor([[rng.randint(0, 2) for _ in range(WIDTH)] for _ in range(n)]).double() for name in "aby"
    }
    data = Dataset(
        columns | {"k": torch.tensor([rng.randint(0, 1) for _ in range(n)])}, [rng.randint(1, 3) for _ in range(n)]
    )
    nodes, outputs, reads = list[Node](), list[str](), list[Claim]()
    for i in range(rng.randint(1, 3)):
        known = ["a", "b"]
        for j in range(rng.randint(1, 2)):
            read = rng.sample(known, rng.randint(1, len(known)))
            nodes.append(Node(f"n{i}{j}", tuple(read), polynomial(rng, len(read))))
            known.append(f"n{i}{j}")
        outputs.append(known[-1])
        if rng.random() < 0.6:
            reads.append(Claim(known[-1], "k", name=known[-1]))
    if rng.random() < 0.6:
        reads.append(Claim("y", rng.choice(("k", "exact")), name="y"))
    f = Node("f", (*outputs, "y"), judged(rng, len(outputs) + 1))
    graph = Graph([*nodes, f], ["a", "b", "y"], "f")
    if not reads:
        reads = [Claim("y", "exact", name="y")]
    return Hypothesis("h", graph, data, Claim("f", reads=reads, paths="any"), rng.choice(("reader", "all")))


def move_claim(claim: Claim, old: str, new: str) -> Claim:
    return replace(claim, reads=tuple(replace(read, at=new if read.at == old else read.at) for read in claim.reads))


def rewrite(
    rng: random.Random, graph: Graph, claim: Claim | None, data: Dataset, turn: int
) -> tuple[Graph, Claim | None, str]:
    """One rewrite of the graph, and the claims about what it made."""
    claimed = {read.at for read in claim.reads} if claim else set()
    nodes = [name for name in graph.nodes if name != graph.output]
    read = [name for name in (*graph.inputs, *nodes) if graph.readers(name)]
    kind = rng.choice(("split", "copy", "copy", "estimate", "inline", "inline", "replace", "output", "table"))
    if kind == "split":
        whole = [name for name in read if name not in graph.inputs and not graph.nodes[name].view]
        if whole:
            name = rng.choice(whole)
            with torch.no_grad():
                shape = graph.run([name], {c: data[c][:2] for c in graph.inputs})[name].shape
            if shape[1:] == (WIDTH,):
                order = rng.sample(range(WIDTH), WIDTH)
                parts = {f"{name}.{turn}a": order[:1], f"{name}.{turn}b": order[1:]}
                return split(graph, name, 1, parts, WIDTH), claim, f"split {name}"
    if kind == "copy":
        name = rng.choice([*read, "y"] if graph.readers("y") else read)
        readers = rng.sample(graph.readers(name), rng.randint(1, len(graph.readers(name))))
        new = f"{name}'{turn}"
        if name in claimed and name not in graph.inputs:  # the claim is about what the output reads
            claim = move_claim(claim, name, new) if claim and readers == [*graph.readers(name)] else None
        return own_copy(graph, name, {new: readers}), claim, f"copy {name} for {', '.join(readers)}"
    if kind == "estimate" and nodes:
        name = rng.choice(nodes)
        reads = rng.sample(graph.inputs, rng.randint(1, 3))
        if graph.nodes[name].view or f"{name}.phi" in graph:
            return graph, claim, "nothing"
        with torch.no_grad():
            shape = graph.run([name], {c: data[c][:2] for c in graph.inputs})[name].shape
        if shape[1:] == (WIDTH,):
            return with_estimate(graph, name, polynomial(rng, len(reads)), reads), claim, f"estimate {name} of {reads}"
    if kind == "inline" and nodes:
        name = rng.choice(nodes)
        return inline(graph, name), None if name in claimed else claim, f"inline {name}"
    if kind == "replace" and nodes:
        name = rng.choice(nodes)
        old = graph.nodes[name]
        if not old.view:
            hidden = Node(f"{name}+{turn}", old.inputs, lambda *values: old.fn(*values) + 1)
            return (
                compute_otherwise(graph, name, lambda value: value - 1, [hidden.name], [hidden]),
                claim,
                f"replace {name}",
            )
    if kind == "output":  # f looked at from one node further on; or the whole of it a hidden node's
        old = graph.nodes[graph.output]
        keep = rng.sample(old.inputs, rng.randint(0, len(old.inputs) - 1))
        hidden = Node(f"f-{turn}", old.inputs, lambda *values: old.fn(*values) * 2)
        made = compute_otherwise(graph, graph.output, lambda value, *rest: value / 2, [hidden.name, *keep], [hidden])
        return made, None, f"output of {hidden.name} and {keep}"
    if kind == "table" and rng.random() < 0.3:
        name = rng.choice([*nodes, graph.output])
        return lookup_table(graph, name, data), None, f"table of {name}"
    return graph, claim, "nothing"


@cache
def case(k: int) -> Case:
    rng = random.Random(f"labels {k}")
    begun = random_hypothesis(rng)
    graph, claim, done = begun.graph, begun.claim, list[str]()
    for turn in range(rng.randint(1, 6)):
        graph, claim, what = rewrite(rng, graph, claim, begun.data, turn)
        done.append(what)
    return Case(begun, graph, claim, tuple(done))


def figures(graph: Graph, data: Dataset, labels: str | Sequence[str] | None = None) -> Baselines:
    return Baselines.of(OnData(graph, data), labels)


def differences(cases: Sequence[Case]) -> list[tuple[str, Case]]:
    """What rewriting changed, each with the case in which it did, over all cases."""
    found = []
    for each in cases:
        data = each.begun.data
        try:
            before, after = figures(each.begun.graph, data), figures(each.graph, data)
        except StudyError:
            found.append(("refused", each))
            continue
        if abs(before.model.value - after.model.value) > 1e-9:
            found.append(("E_model", each))
        if abs(before.randomised.value - after.randomised.value) > 1e-9:
            found.append(("E_randomised", each))
        if each.claim is not None:
            rewritten = Hypothesis("rewritten", each.graph, data, each.claim, each.begun.sharing)
            losses = [scrubbed_expectation(unroll(h)) for h in (each.begun, rewritten)]
            if abs(losses[0] - losses[1]) > 1e-9:
                found.append(("E_scrubbed", each))
            scores = [
                loss_recovered(exact_estimate(f, 0.95, ""), b) for f, b in zip(losses, (before, after), strict=True)
            ]
            values = [None if score is None else round(score.value, 6) for score in scores]
            if values[0] != values[1]:
                found.append(("score", each))
    return found


def test_no_rewrite_of_any_graph_changes_a_figure() -> None:
    cases = [case(k) for k in range(CASES)]
    kinds = [what.split()[0] for each in cases for what in each.done]
    for kind in ("split", "copy", "estimate", "inline", "replace", "output", "table"):
        assert kinds.count(kind) >= 40, (kind, kinds.count(kind))
    assert sum(each.claim is not None for each in cases) >= 150
    assert differences(cases) == []


# Planted faults, which these cases have to catch


def test_labels_read_from_the_shape_of_the_rewritten_graph_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Graph, "original", property(lambda self: self))
    found = [what for what, _ in differences([case(k) for k in range(PLANTED)])]
    assert found.count("refused") >= 12, found


def test_every_column_that_the_output_reads_taken_for_a_label_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_columns(graph: Graph, given: object = None) -> Labels:
        reads = graph.reads(graph.output)
        columns = tuple(dict.fromkeys(name for name in reads if name in graph.inputs))
        return Labels(columns, columns, tuple(dict.fromkeys(name for name in reads if name not in columns)))

    monkeypatch.setattr(pairs, "tell_labels", all_columns)
    monkeypatch.setattr(Graph, "original", property(lambda self: self))
    usable = [each for each in map(case, range(PLANTED)) if set(each.graph.reads("f")) & set(each.graph.inputs)]
    found = [what for what, _ in differences([each for each in usable if not {*each.graph.reads("f")} <= {*"aby"}])]
    assert found.count("E_randomised") >= 5, found


# Where they can be told, and where not


def forget(graph: Graph) -> Graph:
    """The graph as if it had been written so."""
    return Graph(graph.nodes.values(), graph.inputs, graph.output)


def test_graphs_written_apart_are_refused_or_agree_once_the_label_is_named() -> None:
    agreed, refused = 0, 0
    for each in map(case, range(PLANTED)):
        reads = each.graph.reads("f")
        behind = [name for name in reads if name != "y" and "y" in each.graph.ancestors(name)]
        if ("y" in reads and behind) or any(what.startswith("table") for what in each.done):
            continue  # written so, the model itself reads the label; and a table knows nothing off D
        begun = figures(each.begun.graph, each.begun.data)
        try:
            found = figures(forget(each.graph), each.begun.data, "y")
        except StudyError:
            refused += 1
        else:
            agreed += 1
            assert found.randomised.value == pytest.approx(begun.randomised.value, abs=1e-9), each.done
    assert agreed >= 20 and refused >= 3, (agreed, refused)


def model(f: Callable[..., Tensor], **nodes: Callable[..., Tensor]) -> Graph:
    return Graph.of({**nodes, "f": f}, ["x", "y", "z"], "f")


OUT = {"out": lambda x: 2 * x}


def test_the_label_is_what_the_output_node_reads_itself() -> None:
    assert tell_labels(model(lambda out, y: out - y, **OUT)) == Labels(("y",), ("y",), ("out",))
    # Tokens, which the model reads and is judged by: there is nothing else that could be a label.
    assert tell_labels(model(lambda out, x: out - x, **OUT)) == Labels(("x",), ("x",), ("out",))


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (model(lambda out, y, z: out - y - z, **OUT), "reads 'y', 'z' itself, and one may be an input that is written"),
        (model(lambda out, x, y: out - y - x, **OUT), "reads 'x', 'y' itself, and 'x' is an input of the model too"),
        (model(lambda out, x: out - x, out=lambda x, y: x + y), "reads 'x' itself, and 'x' is an input of the model"),
        (model(lambda out: out**2, **OUT), r"'f' reads out\. Name the labels"),
        (model(lambda x, y: x - y), r"'f' reads x, y\. Name the labels"),
    ],
)
def test_where_they_cannot_be_told_they_are_asked_for(graph: Graph, said: str) -> None:
    with pytest.raises(StudyError, match=said) as caught:
        tell_labels(graph)
    assert "labels=" in str(caught.value)


def test_named_they_need_not_be_read_by_the_output_node_itself() -> None:
    one = model(lambda out, hot: out - hot, hot=lambda y: y + 1, **OUT)
    assert tell_labels(one, "y") == Labels(("y",), ("hot",), ("out",))
    assert tell_labels(model(lambda x, y: x - y), "y") == Labels(("y",), ("y",), ("x",))
    both = model(lambda out, y, z: out - y - z, **OUT)
    assert tell_labels(both, ["y", "z"]) == Labels(("y", "z"), ("y", "z"), ("out",))
    assert tell_labels(both, "z") == Labels(("z",), ("z",), ("out", "y"))


@pytest.mark.parametrize(
    ("graph", "labels", "said"),
    [
        (model(lambda out, part: part, part=lambda out, y: out - y, **OUT), "y", "but by 'part', which reads more"),
        (model(lambda out, y: out - y, **OUT), "w", "label 'w' is not read by the output node 'f'"),
        (model(lambda out, y: out - y, **OUT), "z", "label 'z' is not read by the output node 'f'"),
        (model(lambda out, again: out - again, again=lambda x: x + 0, **OUT), "x", "'f' reads out, again"),
        (model(lambda out, y: out - y, **OUT), (), "Name the labels"),
    ],
)
def test_labels_that_no_loss_could_be_randomised_by(graph: Graph, labels: str | Sequence[str], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        tell_labels(graph, labels)


def test_what_is_compared_is_no_copy_or_slice_of_a_label() -> None:
    graph = own_copy(model(lambda out, y: out - y, **OUT), "y", {"y of f": ["f"]})
    assert graph.reads("f") == ("out", "y of f") and compared_outputs(graph) == ("out",)
    both = model(lambda out, y, z: out - y - z, **OUT)
    assert compared_outputs(both) == ("out",) and compared_outputs(both, "y") == ("out", "z")


def test_a_constant_and_a_table_keep_the_randomised_loss_of_what_they_stand_for() -> None:
    data = Dataset({"x": torch.tensor([-1.0, 1.0]), "y": torch.tensor([1.0, -1.0])})
    right = Graph.of({"out": lambda x: -x, "f": lambda out, y: (out - y) ** 2}, ["x", "y"], "f")
    for graph in (constant(right, "f", 0.0), lookup_table(right, "f", data)):
        found = figures(graph, data)
        assert found.model.value == 0 and found.randomised.value == 2
