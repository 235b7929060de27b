"""Every fault of a hypothesis, found together; which nodes are recomputed, and which are unimportant."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from pscrub import EXACT, Claim, Dataset, Graph, Hypothesis, HypothesisError, Partition, with_estimate
from pscrub.graph.rewrites import replace

DATA = Dataset(
    {"x": torch.arange(8) % 4, "y": torch.arange(8) // 4, "word": [f"w{i}" for i in range(8)]},
    weights=[1, 1, 1, 1, 1, 1, 1, 0],
)


def graph() -> Graph:
    """x, y -> embed -> (early -> late) -> out -> f: late reads embed too, out reads both."""
    return Graph.of(
        {
            "embed": lambda x, y: x + 4.0 * y,
            "early": lambda embed: embed % 2,
            "late": lambda early, embed: 2 * early + embed,
            "out": lambda early, late, embed: early - late + embed,
            "f": lambda out, y: out * y,
        },
        inputs=["x", "y"],
        output="f",
    )


def hypothesis(claim: Claim, **kwargs: Any) -> Hypothesis:
    return Hypothesis("h", kwargs.pop("graph", None) or graph(), kwargs.pop("data", DATA), claim, **kwargs)


def faults_of(claim: Claim, **kwargs: Any) -> list[str]:
    with pytest.raises(HypothesisError) as caught:
        hypothesis(claim, **kwargs).check()
    assert all(fault.startswith("hypothesis 'h': ") for fault in caught.value.faults)
    return [fault.removeprefix("hypothesis 'h': ") for fault in caught.value.faults]


def fault_of(claim: Claim, **kwargs: Any) -> str:
    (fault,) = faults_of(claim, **kwargs)
    return fault


def test_a_well_formed_hypothesis_reports_its_rewrites() -> None:
    rewritten = with_estimate(graph(), "early", lambda embed: embed * 0.0, ["embed"])
    checks = hypothesis(Claim("f", reads=[Claim("out", "x")]), graph=rewritten).check()
    assert [(check.kind, check.node, check.difference) for check in checks] == [("estimate", "early", 0.0)]


# Names


def test_unknown_nodes_come_with_close_matches() -> None:
    fault = fault_of(Claim("f", reads=[Claim("erly", EXACT)]))
    assert fault == "claim 'erly' is at unknown node 'erly'; did you mean \"early\"?"


def test_a_root_that_is_not_the_output() -> None:
    assert fault_of(Claim("out", EXACT)) == "its root claim is at 'out'; expected the graph's output 'f'"


def test_columns_that_the_dataset_lacks_or_that_hold_words() -> None:
    lacking = Dataset({"x": torch.arange(3), "yy": torch.arange(3)})
    assert fault_of(Claim("f", EXACT), data=lacking).startswith("the graph reads column 'y', which the dataset lacks")
    words = Dataset({"x": torch.arange(3), "y": ["a", "b", "c"]})
    assert "column 'y', which holds strings" in fault_of(Claim("f", EXACT), data=words)
    # The rewrites cannot be run on words; that is no second fault.
    rewritten = with_estimate(graph(), "early", lambda embed: embed, ["embed"])
    assert "column 'y', which holds strings" in fault_of(Claim("f", EXACT), data=words, graph=rewritten)


def test_names_that_paths_cannot_be_made_of() -> None:
    for name in ("~x", "a/b"):
        assert f"claim name '{name}' must not" in fault_of(Claim("f", reads=[Claim("out", "x", name=name)]))


def test_two_claims_of_one_name_or_node_read_by_one() -> None:
    twins = [Claim("early", "x", name="same"), Claim("late", "x", name="same")]
    assert (
        fault_of(Claim("f", reads=[Claim("out", reads=twins)]))
        == "claim 'out' reads two claims of the same name 'same'"
    )
    one = Claim("out", "x")
    found = "\n".join(faults_of(Claim("f", reads=[one, one])))
    assert "claim 'f' reads two claims of the same node 'out'" in found


def test_a_way_of_following_paths_that_there_is_not() -> None:
    claim = Claim("f", reads=[Claim("out", "x")], paths="some")  # type: ignore[arg-type]
    assert "paths='some'; expected 'direct' or 'any'" in "\n".join(faults_of(claim))


# The correspondence


def test_a_correspondence_that_is_not_injective() -> None:
    parity, level = Claim("embed", "x", name="parity"), Claim("embed", "y", name="level")
    claim = Claim("f", reads=[Claim("out", reads=[Claim("late", reads=[parity]), Claim("early", reads=[level])])])
    fault = fault_of(claim)
    assert "not injective" in fault
    for words in ("'parity' (x)", "'level' (y)", "both sit at 'embed'", "own_copy"):
        assert words in fault


def test_one_claim_read_twice_is_injective() -> None:
    shared = Claim("embed", "x")
    hypothesis(
        Claim("f", reads=[Claim("out", reads=[Claim("late", reads=[shared]), Claim("early", reads=[shared])])])
    ).check()


def test_a_claim_whose_node_its_parent_does_not_read() -> None:
    parted = Graph.of(
        {"a": lambda x: x * 1.0, "b": lambda y: y * 1.0, "f": lambda a, b: a + b}, inputs=["x", "y"], output="f"
    )
    fault = fault_of(Claim("f", reads=[Claim("a", reads=[Claim("b", "y")])]), graph=parted)
    assert "claim 'a' reads claim 'b', but in the graph no path leads from 'b' to 'a' (which reads x)" in fault
    # Nor upwards.
    upwards = Claim("f", reads=[Claim("a", reads=[Claim("f", EXACT, name="again")])])
    assert "no path leads from 'f' to 'a'" in "\n".join(faults_of(upwards, graph=parted))


def test_a_path_that_leads_through_nodes_without_claims() -> None:
    hypothesis(Claim("f", reads=[Claim("embed", "x")])).check()
    hypothesis(Claim("f", reads=[Claim("x", "x")])).check()


def test_a_node_reached_only_through_another_claim_that_is_read() -> None:
    chain = Graph.of({"a": lambda x: x, "b": lambda a: a, "f": lambda b: b * 1.0}, inputs=["x"], output="f")
    claim = Claim("f", reads=[Claim("b", "x"), Claim("a", "x")])
    fault = fault_of(claim, graph=chain)
    assert "claim 'f' reads claim 'a'" in fault and "other than through claims it also reads" in fault
    hypothesis(Claim("f", reads=[Claim("b", reads=[Claim("a", "x")])]), graph=chain).check()


# Features


def no(_: Dataset) -> Any:
    raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (None, "has no feature; expected one (or 'exact')"),
        ("colour", "no column 'colour'"),
        (torch.zeros(7), "has shape (7,); expected (8,)"),
        (np.array([math.nan, *range(7)]), "is NaN at 1 of 8 rows, e.g. row 0"),
        (lambda data: data["x"] / data["y"], "is NaN at 1 of 8 rows, e.g. row 0"),
        (no, "its feature raised KeyError: 'no such thing'"),
        (Partition(torch.zeros(3, dtype=torch.int64), torch.ones(3)), "its partition has 3 rows, the dataset 8"),
        (object(), "object"),
    ],
)
def test_features_that_cannot_be_read(feature: object, message: str) -> None:
    fault = fault_of(Claim("f", reads=[Claim("out", feature)]))
    assert fault.startswith("claim 'out': ") and message in fault


@pytest.mark.parametrize(
    "feature",
    [
        "x",
        torch.arange(8) % 4,
        np.arange(8) % 4,
        [0, 1, 2, 3] * 2,
        ["a", "b", "c", "d"] * 2,
        lambda data: data["x"],
        lambda data: Partition.of(data["x"], data),
        Partition.of(DATA["x"], DATA),
    ],
)
def test_a_feature_in_every_form(feature: object) -> None:
    h = hypothesis(Claim("f", reads=[Claim("out", feature)]))
    h.check()
    assert h.partitions[h.claim.reads[0]] == Partition.of(DATA["x"], DATA)
    assert h.partitions[h.claim] == Partition.of(DATA["x"], DATA)  # left out: what it reads determines


def test_exact_is_the_row_itself_and_left_out_is_all_that_is_read() -> None:
    both = Claim("out", reads=[Claim("late", "x"), Claim("embed", "y")])
    h = hypothesis(Claim("f", EXACT, reads=[both]))
    assert h.partitions[h.claim] == Partition.finest(DATA) == h.partitions[both]
    assert h.partitions[both].n_blocks == 8


def test_partitions_alone_raise_every_unread_feature() -> None:
    claim = Claim("f", reads=[Claim("out", reads=[Claim("late", torch.zeros(2)), Claim("early", "colour")])])
    with pytest.raises(HypothesisError) as caught:
        _ = hypothesis(claim).partitions
    assert len(caught.value.faults) == 2


# The interpretation


def test_an_ill_formed_interpretation_shows_two_rows() -> None:
    fault = fault_of(Claim("f", reads=[Claim("out", "y", reads=[Claim("late", "x")])]))
    assert "claim 'out' (y) is not a function of what it reads: rows 0 and 4 agree on 'late' and differ in it" in fault


def test_rows_of_weight_zero_make_nothing_ill_formed() -> None:
    feature = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1])
    hypothesis(Claim("f", reads=[Claim("out", feature, reads=[Claim("late", "x")])])).check()
    heavier = Dataset(DATA.columns)
    fault = fault_of(Claim("f", reads=[Claim("out", feature, reads=[Claim("late", "x")])]), data=heavier)
    assert "rows 3 and 7 agree on 'late' and differ" in fault


def test_a_graph_that_a_rewrite_has_changed() -> None:
    wrong = replace(graph(), "early", lambda embed: embed % 3, ["embed"])
    fault = fault_of(Claim("f", EXACT), graph=wrong)
    assert fault.startswith("rewrite 'replace' of node 'early' changes f by")
    hypothesis(Claim("f", EXACT), graph=wrong).check(rewrites=False)


# Sharing


@pytest.mark.parametrize(
    ("sharing", "message"),
    [
        ("readers", "sharing is 'readers'; expected 'reader', 'all', 'each' or groups"),
        ({"a": ["early", "y"], "b": ["y"]}, "sharing: 'y' is in two groups"),
        ({"a": ["early", "early"]}, "sharing: 'early' is in two groups"),
        ({"a": ["erly"]}, "sharing: unknown node 'erly'; did you mean \"early\"?"),
        (None, "sharing is None; expected"),
        ({"a": "early"}, "sharing: group 'a' is 'early'; expected a list of graph nodes"),
    ],
)
def test_sharing_that_there_is_not(sharing: Any, message: str) -> None:
    claim = Claim("f", reads=[Claim("out", "x", reads=[Claim("embed", "x")])])
    assert message in fault_of(claim, sharing=sharing)


def test_members_of_groups_that_share_nothing() -> None:
    def faults(member: str, claim: Claim) -> str:
        return fault_of(Claim("f", reads=[claim]), sharing={"g": [member, "y"]})

    late = Claim("late", "x", paths="any")
    assert faults("late", Claim("out", "x", reads=[late])).startswith(
        "sharing: 'late' shares no draw, as it is claimed ('late')"
    )
    assert faults("x", Claim("out", "x", reads=[late])).startswith(
        "sharing: 'x' shares no draw, as no claim's node reads it unclaimed; leave it out"
    )
    # Unknown nodes are said alone; what is unimportant to one reader may be claimed for another.
    assert "unknown node" in fault_of(Claim("f", reads=[Claim("late2", "x")]), sharing={"g": ["early"]})
    both = Claim("late", "x", reads=[Claim("early", "x")])
    free = hypothesis(Claim("f", reads=[Claim("out", "x", reads=[both])]), sharing={"g": ["early", "y"]})
    assert free.check() == ()


def test_all_faults_are_raised_together() -> None:
    found = "\n".join(
        faults_of(
            Claim(
                "f",
                reads=[
                    Claim("out", "y", reads=[Claim("late", "x"), Claim("embd", "x"), Claim("early", no)]),
                    Claim("nowhere", torch.zeros(3)),
                    Claim("late", "y", name="b/c"),
                ],
            ),
            sharing={"g": ["embe"]},
            graph=replace(graph(), "early", lambda embed: embed % 3, ["embed"]),
        )
    )
    for words in (
        "unknown node 'embd'; did you mean \"embed\"",
        "unknown node 'nowhere'",
        "not injective",
        "its feature raised KeyError",
        "(3,); expected (8,)",
        "claim name 'b/c'",
        "unknown node 'embe'",
        "rewrite 'replace' of node 'early' changes f",
    ):
        assert words in found


# What is recomputed, and what is unimportant


def inlined_and_unimportant(claim: Claim) -> tuple[set[str], set[str]]:
    h = hypothesis(Claim("f", reads=[claim]) if claim.at != "f" else claim)
    h.check()
    return h.inlined(claim), set(h.unimportant(claim))


@pytest.mark.parametrize(
    ("claim", "inlined", "unimportant"),
    [
        # embed is read by out itself: early and late lie on other paths.
        (Claim("out", reads=[Claim("embed", "x")]), set(), {"early", "late"}),
        (Claim("out", reads=[Claim("embed", "x")], paths="any"), {"early", "late"}, set()),
        (Claim("out", reads=[Claim("early", "x")]), set(), {"late", "embed"}),
        (Claim("out", reads=[Claim("early", "x")], paths="any"), {"late"}, {"embed"}),
        (Claim("out", reads=[Claim("early", "x"), Claim("embed", "y")], paths="any"), {"late"}, set()),
        (Claim("out", reads=[Claim("late", "x")], paths="any"), set(), {"early", "embed"}),
        # x is read by embed alone: every path is followed, y is read on the way.
        (Claim("out", reads=[Claim("x", "x")]), {"early", "late", "embed"}, {"y"}),
        # A claim stops the paths below it: late is given, so nothing goes through it.
        (Claim("out", reads=[Claim("late", "x"), Claim("x", "x")]), {"early", "embed"}, {"y"}),
        # One claimed input is an edge, another is not: only the paths of the second are followed.
        (Claim("f", reads=[Claim("out", "x"), Claim("y", "y")]), set(), set()),
        (Claim("f", reads=[Claim("late", "x")]), {"out"}, {"early", "embed", "y"}),
        (Claim("f", reads=[Claim("late", "x"), Claim("y", "y")]), {"out"}, {"early", "embed"}),
        (Claim("f", reads=[Claim("late", "x"), Claim("y", "y")], paths="any"), {"out", "early", "embed"}, {"x"}),
        (Claim("out", "x"), set(), set()),
    ],
)
def test_inlined_and_unimportant(claim: Claim, inlined: set[str], unimportant: set[str]) -> None:
    assert inlined_and_unimportant(claim) == (inlined, unimportant)


def test_claims_are_listed_once_readers_first() -> None:
    shared = Claim("embed", "x")
    early, late = Claim("early", reads=[shared]), Claim("late", reads=[shared])
    h = hypothesis(Claim("f", reads=[Claim("out", reads=[early, late])]))
    order = [claim.at for claim in h.claims]
    assert sorted(order) == ["early", "embed", "f", "late", "out"]
    assert order.index("f") < order.index("out") < min(order.index("early"), order.index("late")) < order.index("embed")


def test_words_for_features() -> None:
    def parity(data: Dataset) -> Mapping[str, Any]:
        return data["x"] % 2

    assert [Claim("f", feature).feature_name for feature in ("x", EXACT, parity, torch.zeros(2), None)] + [
        Claim("f", parity, words="even or odd").feature_name
    ] == [
        "x",
        "exact",
        "parity",
        "tensor of values",
        "what its inputs determine",
        "even or odd",
    ]


def test_faults_are_found_once_and_do_not_ask_whether_the_graph_is_f() -> None:
    read = []

    def feature(_: Dataset) -> Any:
        read.append(1)
        return torch.zeros(3)

    wrong = replace(graph(), "early", lambda embed: embed % 3, ["embed"])
    h = hypothesis(Claim("f", reads=[Claim("out", feature)]), graph=wrong)
    assert [fault.split(" has ")[0] for fault in h.faults] == ["claim 'out': feature 'feature'"]
    for rewrites, n in ((False, 1), (True, 2)):
        with pytest.raises(HypothesisError) as caught:
            h.check(rewrites)
        assert len(caught.value.faults) == n
    with pytest.raises(HypothesisError, match="claim 'out'"):
        _ = h.partitions
    assert len(read) == 1


def test_equal_features_share_one_partition() -> None:
    """However they are written, so that thousands of claims of few features take the memory of these few."""
    data = Dataset({"x": torch.arange(12)})
    graph = Graph.of({"a": lambda x: x, "b": lambda x: x, "f": lambda a, b: a + b}, ["x"], "f")
    claims = [Claim("a", data["x"] % 2), Claim("b", lambda d: ["even", "odd"] * 6)]
    found = Hypothesis("h", graph, data, Claim("f", reads=claims)).partitions
    assert found[claims[0]] is found[claims[1]]
