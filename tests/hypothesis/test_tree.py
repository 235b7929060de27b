"""The treeified hypothesis: copies, paths, who shares a draw, and which sites are leaves."""

from typing import Any

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, HypothesisError, Partition, Tree, unroll

DATA = Dataset({"x": torch.arange(8) % 4, "y": torch.arange(8) // 4})


def tree(claim: Claim, sharing: Any = "reader") -> Tree:
    graph = Graph.of(
        {
            "base": lambda x, y: x + y,
            "a": lambda base, x: base * x,
            "b": lambda base, y: base - y,
            "f": lambda a, b, x, y: a + b + x * y,
        },
        inputs=["x", "y"],
        output="f",
    )
    return unroll(Hypothesis("h", graph, DATA, claim, sharing))


def diamond() -> Claim:
    base = Claim("base", "x")
    return Claim("f", reads=[Claim("a", reads=[base]), Claim("b", reads=[base], name="bee")])


def test_a_node_used_twice_is_two_sites() -> None:
    found = tree(diamond())
    assert list(found.sites) == ["f", "f/~", "f/a", "f/a/~", "f/a/base", "f/bee", "f/bee/~", "f/bee/base"]
    one, two = found.sites["f/a/base"], found.sites["f/bee/base"]
    assert one.claim is two.claim and one.partition is two.partition
    assert (one.parent, two.parent) == ("f/a", "f/bee")


def test_parents_come_before_children() -> None:
    for sharing in ("reader", "all", "each", {"g": ["y"]}):
        found = tree(diamond(), sharing)
        order = list(found.sites)
        for path, site in found.sites.items():
            assert site.path == path
            for earlier in (site.parent, *(site.given or {}).values()):
                assert earlier is None or earlier in order
            if site.parent is not None:
                assert order.index(site.parent) < order.index(path)
                assert site in found.children(site.parent)
        assert found.root == "f" and found.sites["f"].parent is None


def test_leaves_are_the_copies_of_the_input() -> None:
    found = tree(diamond())
    assert found.leaves == ("f/~", "f/a/~", "f/a/base", "f/bee/~", "f/bee/base")
    assert {path: found.source(path) for path in found.sites} == {
        "f": (),
        "f/~": ("x", "y"),
        "f/a": (),
        "f/a/~": ("x",),
        "f/a/base": ("base",),
        "f/bee": (),
        "f/bee/~": ("y",),
        "f/bee/base": ("base",),
    }


def test_a_root_that_reads_nothing_is_the_only_leaf() -> None:
    found = tree(Claim("f", "exact"))
    assert list(found.sites) == ["f"] == list(found.leaves)
    assert found.source("f") == ("f",)


@pytest.mark.parametrize(
    ("sharing", "draws"),
    [
        ("reader", {"f/~": ("x", "y"), "f/a/~": ("x",), "f/bee/~": ("y",)}),
        ("all", {"~all": ("x", "y")}),
        ("each", {"f/~x": ("x",), "f/~y": ("y",), "f/a/~x": ("x",), "f/bee/~y": ("y",)}),
        ({"g": ["y"]}, {"~g": ("y",), "f/~": ("x",), "f/a/~": ("x",)}),
        ({"g": ["x"], "h": ["y"]}, {"~g": ("x",), "~h": ("y",)}),
        ({"g": ["x", "y"]}, {"~g": ("x", "y")}),
        ({}, {"f/~": ("x", "y"), "f/a/~": ("x",), "f/bee/~": ("y",)}),
    ],
)
def test_who_shares_a_draw(sharing: Any, draws: dict[str, tuple[str, ...]]) -> None:
    found = tree(diamond(), sharing)
    unimportant = {path: set(found.source(path)) for path, site in found.sites.items() if site.claim is None}
    assert unimportant == {path: set(read) for path, read in draws.items()}
    for path in draws:
        site = found.sites[path]
        assert site.parent is None and site.is_leaf and site.partition == Partition.trivial(DATA)
    # The claimed sites do not depend on how the others share.
    assert [path for path in found.sites if "~" not in path] == ["f", "f/a", "f/a/base", "f/bee", "f/bee/base"]


@pytest.mark.parametrize("sharing", ["reader", "all", "each", {"g": ["y"]}])
def test_every_input_that_is_read_is_given_by_one_site(sharing: Any) -> None:
    found = tree(diamond(), sharing)
    given = {path: dict(site.given or {}) for path, site in found.sites.items() if site.claim is not None}
    assert {path: set(names) for path, names in given.items()} == {
        "f": {"a", "b", "x", "y"},
        "f/a": {"base", "x"},
        "f/a/base": set(),
        "f/bee": {"base", "y"},
        "f/bee/base": set(),
    }
    assert given["f"]["a"] == "f/a" and given["f"]["b"] == "f/bee" and given["f/bee"]["base"] == "f/bee/base"


def test_partitions_are_those_of_the_features() -> None:
    found = tree(diamond())
    x = Partition.of(DATA["x"], DATA)
    assert all(found.sites[path].partition == x for path in ("f", "f/a", "f/bee", "f/a/base"))


def test_a_hypothesis_with_faults_is_not_unrolled() -> None:
    with pytest.raises(HypothesisError, match="unknown node 'c'"):
        tree(Claim("f", reads=[Claim("c", "x")]))
