"""The treeified hypothesis: copies, paths, who shares a draw, and which sites are leaves."""

from typing import Any

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, HypothesisError, Node, Partition, Tree, unroll
from pscrub.hypothesis import draw_together, make_exact, refine

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


def test_children_and_sources_are_those_of_the_sites() -> None:
    for sharing in ("reader", "all", "each", {"g": ["y"]}):
        found = tree(diamond(), sharing)
        for path, site in found.sites.items():
            assert found.children(path) == tuple(each for each in found.sites.values() if each.parent == path)
            given = [(name, p) for each in found.sites.values() for name, p in (each.given or {}).items()]
            read = dict.fromkeys(name for name, p in given if p == path)
            assert found.source(path) == (tuple(read) if site.claim is None else () if site.given else (site.claim.at,))
    assert found.children("no such path") == ()


def test_a_chain_of_claims_longer_than_python_recurses() -> None:
    length = 1500
    nodes = [Node("n0", ("x", "y"), lambda x, y: x + y)]
    nodes += [Node(f"n{k}", (f"n{k - 1}", "y"), lambda n, y: n + y) for k in range(1, length)]
    claim = Claim("n0", "x")
    for k in range(1, length):
        claim = Claim(f"n{k}", reads=[claim])
    h = Hypothesis("chain", Graph(nodes, ["x", "y"], nodes[-1].name), DATA, claim)
    assert [each.at for each in h.claims] == [f"n{k}" for k in reversed(range(length))]
    found = unroll(h)
    assert len(found.sites) == 2 * length - 1
    claimed = [site.claim.at for site in found.sites.values() if site.claim is not None]
    assert claimed == [f"n{k}" for k in reversed(range(length))]


def test_claims_that_many_paths_lead_to_are_listed_in_no_time() -> None:
    claim = Claim("n0", "x")  # 2^40 paths lead to it
    for k in range(1, 41):
        claim = Claim(f"n{k}", reads=[Claim(f"l{k}", reads=[claim]), Claim(f"r{k}", reads=[claim])])
    order = [each.at for each in claim.upwards()]
    assert order == ["n0", *(name for k in range(1, 41) for name in (f"l{k}", f"r{k}", f"n{k}"))]


def test_unrolling_what_was_checked_reads_no_feature_again() -> None:
    read = []

    def feature(data: Dataset) -> Any:
        read.append(1)
        return data["x"]

    h = Hypothesis("h", Graph.of({"f": lambda x: x * 1.0}, ["x"], "f"), DATA, Claim("f", feature))
    h.check()
    unroll(h)
    assert h.check() == () and len(read) == 1 and unroll(h).sites["f"].partition is h.partitions[h.claim]


# Surgery

Y = Partition.of(DATA["y"], DATA)


def test_the_reader_of_a_draw() -> None:
    found = tree(diamond(), "each")
    assert [found.reader(path) for path in ("f/~x", "f/bee/~y")] == ["f", "f/bee"]
    assert tree(diamond(), "all").reader("~all") == "f"


def test_sites_are_refined_against_their_parents_and_draws_against_their_readers() -> None:
    found = tree(diamond(), {"g": ["y"]})
    assert list(found.sites) == ["~g", "f", "f/~", "f/a", "f/a/~", "f/a/base", "f/bee", "f/bee/base"]
    finer = refine(found, ["f", "~g", "f/a/~", "f/bee"], Y)
    assert list(finer.sites) == ["f", "~g", *list(found.sites)[2:]]  # parents before children
    x = found.sites["f"].partition
    changed = {p: (s.parent, s.partition) for p, s in finer.sites.items() if s is not found.sites[p]}
    assert changed == {"~g": ("f", Y), "f/a/~": ("f/a", Y), "f/bee": ("f", x.refine(Y))}
    assert [site.path for site in finer.children("f")] == ["~g", "f/a", "f/bee"]
    assert finer.hypothesis is found.hypothesis and finer.root == found.root


def test_exact_sites_have_the_datum_of_their_parents_or_readers() -> None:
    found = tree(diamond(), "all")
    exact = make_exact(found, ["~all", "f", "f/bee"])
    finest = Partition.finest(DATA)
    changed = {p: (s.parent, s.partition) for p, s in exact.sites.items() if s is not found.sites[p]}
    assert changed == {"~all": ("f", finest), "f/bee": ("f", finest)}
    assert list(exact.sites)[:2] == ["f", "~all"]


@pytest.mark.parametrize(
    ("sharing", "everywhere", "draws"),
    [
        ("each", False, ["f/~", "f/a/~", "f/bee/~"]),
        ("each", True, ["~all"]),
        ({"g": ["y"]}, False, ["~g", "f/~", "f/a/~"]),
        ({"g": ["y"]}, True, ["~all"]),
    ],
)
def test_draws_put_together(sharing: Any, everywhere: bool, draws: list[str]) -> None:
    found = tree(diamond(), sharing)
    merged = draw_together(found, everywhere)
    claimed = [path for path, site in found.sites.items() if site.claim is not None]
    assert list(merged.sites) == ["f", *draws, *claimed[1:]]
    for path, site in merged.sites.items():
        assert site.path == path and set((site.given or {}).values()) <= set(merged.sites)
        assert (site.given or {}).keys() == ((found.sites[path].given or {}).keys() if path in claimed else set())
    if everywhere:  # what one draw for the whole model is unrolled into, but for the order
        same = tree(diamond(), "all")
        assert {p: s.given for p, s in merged.sites.items()} == {p: s.given for p, s in same.sites.items()}


# Shown


def test_a_tree_is_shown_in_a_few_lines() -> None:
    assert repr(tree(diamond(), {"g": ["y"]})) == "\n".join(
        [
            "Tree of 'h': 8 sites, 5 leaves",
            "  ~g: unimportant inputs, 1 block",
            "  f: what its inputs determine, 4 blocks",
            "  f/~: unimportant inputs, 1 block",
            "  f/a: what its inputs determine, 4 blocks",
            "  f/a/~: unimportant inputs, 1 block",
            "  f/a/base: x, 4 blocks",
            "  f/bee: what its inputs determine, 4 blocks",
            "  f/bee/base: x, 4 blocks",
        ]
    )
    assert repr(tree(Claim("f", "exact"))) == "Tree of 'h': 1 site, 1 leaf\n  f: exact, 8 blocks"
    shown = repr(tree(diamond(), "each")).splitlines()
    assert len(shown) == 10 and shown[-1] == "  and 1 more"
