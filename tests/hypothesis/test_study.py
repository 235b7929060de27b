"""A study: made of whatever is scrubbed, checked as a whole and once in a run, shown in a few lines."""

from collections import Counter
from typing import Any

import pytest
import torch

from pscrub import (
    EXACT,
    Claim,
    Dataset,
    Graph,
    GraphError,
    Hypothesis,
    HypothesisError,
    Study,
    StudyError,
    inline,
    scrub,
    with_estimate,
)
from pscrub.graph.rewrites import replace
from pscrub.hypothesis import hypothesis as home

DATA = Dataset({"x": torch.arange(8) % 4, "y": torch.arange(8) // 4})
GRAPH = Graph.of(
    {"s": lambda x: x % 2, "t": lambda x: x // 2, "f": lambda s, t, y: (s + t - y) ** 2.0},
    inputs=["x", "y"],
    output="f",
)


def hypothesis(name: str, feature: Any = EXACT, graph: Graph = GRAPH) -> Hypothesis:
    return Hypothesis(name, graph, DATA, Claim("f", reads=[Claim("s", feature), Claim("y", EXACT)]))


# Made of


def test_a_study_of_one_hypothesis_of_several_and_of_itself() -> None:
    one, other = hypothesis("one"), hypothesis("other")
    assert Study.of(one).hypotheses == (one,) and Study.of(one).name == "study"
    assert Study.of([one, other], "family").hypotheses == (one, other)
    assert Study.of([one, other], "family").name == "family"
    study = Study("s", [one])
    assert Study.of(study, "another name") is study


# Checked


def test_the_rewrites_of_each_graph_are_reported_once() -> None:
    early = with_estimate(GRAPH, "s", lambda x: x * 0.0, ["x"])
    late = with_estimate(early, "t", lambda x: x * 0.0, ["x"])
    graphs = {"a": GRAPH, "b": early, "c": early, "d": late}
    checks = Study("s", [hypothesis(name, graph=graph) for name, graph in graphs.items()]).check()
    assert [(check.kind, check.node) for check in checks] == [
        ("estimate", "s"),
        ("estimate", "s"),
        ("estimate", "t"),
    ]
    assert all(check.difference == 0 for check in checks)


def test_every_ill_formed_hypothesis_is_told_before_any_graph_is_run() -> None:
    ran = []

    def spying(x: torch.Tensor) -> torch.Tensor:
        ran.append(len(x))
        return x % 2

    wrong = replace(GRAPH, "s", spying, ["x"])
    with pytest.raises(HypothesisError) as caught:
        Study("s", [hypothesis("a", torch.zeros(3)), hypothesis("b", graph=wrong), hypothesis("c", "colour")]).check()
    assert [fault.split(": ")[:2] for fault in caught.value.faults] == [
        ["hypothesis 'a'", "claim 's'"],
        ["hypothesis 'c'", "claim 's'"],
    ]
    assert not ran


def test_a_graph_that_is_not_f() -> None:
    wrong = replace(GRAPH, "s", lambda x: x % 3, ["x"])
    with pytest.raises(GraphError, match="rewrite 'replace' of node 's' changes f by"):
        Study("s", [hypothesis("a"), hypothesis("b", graph=wrong)]).check()


def test_one_scrub_checks_each_hypothesis_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, read = Counter[tuple[str, int]](), Counter[str]()
    finders = [name for name in vars(home) if name.startswith("find_") and name.endswith("_faults")]

    def counted(name: str) -> Any:
        find = getattr(home, name)

        def finding(first: Any, *rest: Any) -> Any:
            looked[name, id(first)] += 1
            return find(first, *rest)

        return finding

    assert len(finders) == 4
    for name in finders:
        monkeypatch.setattr(home, name, counted(name))

    def feature(name: str) -> Any:
        def parity(data: Dataset) -> Any:
            read[name] += 1
            return data["x"] % 2

        return parity

    # Each sharing an object of its own, so that its finder's calls are told apart too.
    sharings: dict[str, Any] = {name: {name: ["t"]} for name in "abc"}
    hypotheses = [
        Hypothesis(name, GRAPH, DATA, Claim("f", reads=[Claim("s", feature(name)), Claim("y", EXACT)]), sharings[name])
        for name in "abc"
    ]
    scrub(Study("s", hypotheses), draws=64)
    assert read == dict.fromkeys("abc", 1)
    assert len(looked) == 4 * 3 and set(looked.values()) == {1}


# Shown


def test_a_study_is_shown_in_a_few_lines() -> None:
    study = Study("two", [hypothesis("parity", "x"), Hypothesis("all of f", GRAPH, DATA, Claim("f", EXACT))])
    assert repr(study) == "\n".join(
        [
            "Study 'two': 2 hypotheses",
            "  parity: 3 claims",
            "  all of f: 1 claim",
            "  on Dataset(8 rows: x (8,), y (8,))",
            "  labels: y",
        ]
    )
    assert repr(Study("none", [hypothesis("parity")], labels=())).endswith("labels: none")


def test_a_long_study_is_cut_and_one_with_faults_is_shown_all_the_same() -> None:
    shown = repr(Study("long", [hypothesis(f"h{k}", torch.zeros(3)) for k in range(1002)])).splitlines()
    assert len(shown) == 12 and shown[8] == "  h7: 3 claims" and shown[9] == "  and 994 more"


# Labels


def test_a_label_is_named_or_told_by_the_graphs() -> None:
    assert Study("s", [hypothesis("a")]).label_columns == ("y",)
    assert Study("s", [hypothesis("a")], labels="y").labels == ("y",)
    assert Study("s", [hypothesis("a")], labels="y").label_columns == ("y",)
    inlined = inline(inline(GRAPH, "s"), "t")
    whole = Hypothesis("whole", inlined, DATA, Claim("f", EXACT))
    assert inlined.reads("f") == ("x", "y") and Study("s", [whole]).label_columns == ("y",)
    # Written so, it does not say; beside a graph that does, it need not.
    mute = Hypothesis("mute", Graph(inlined.nodes.values(), ["x", "y"], "f"), DATA, Claim("f", EXACT))
    with pytest.raises(StudyError, match=r"'f' reads x, y\. Name the labels"):
        _ = Study("s", [mute]).label_columns
    assert repr(Study("s", [mute])).endswith("labels: cannot be told")
    assert Study("s", [mute, hypothesis("a")]).label_columns == ("y",)


def test_graphs_that_tell_different_labels() -> None:
    graph = Graph.of({"g": lambda y: y // 1, "f": lambda g, x: (x % 2 + x // 2 - g) ** 2.0}, ["x", "y"], "f")
    other = Hypothesis("other", graph, DATA, Claim("f", EXACT))
    study = Study("s", [hypothesis("a"), other])
    with pytest.raises(StudyError, match="tell different labels, by that of 'other' x; by that of 'a' y"):
        scrub(study, draws=10)
    assert scrub(study, draws=10, labels="y").labels == ("y",)
