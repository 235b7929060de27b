"""Isomorphic hypotheses: the same law and the same f, exactly; a graph that matches node for node."""

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
from pscrub.hypothesis.isomorphism import make_isomorphic, order_upwards
from pscrub.hypothesis.joins import join, join_graphs
from pscrub.law.exact import leaf_law
from pscrub.law.of_f import law_of_f
from tests.law.long_chain import DRAWS, LENGTH, chain_tree
from tests.routes.build_case import build
from tests.routes.random_cases import MODES, cases


def matched(path: str, h: Hypothesis) -> str:
    """The path, in the isomorphic hypothesis, of a draw of unimportant inputs."""
    reader, _, draw = path.rpartition("/")
    if not draw.startswith("~"):
        return path
    claim, names = h.claim, reader.split("/")[1:]
    for name in names:
        claim = next(read for read in claim.reads if read.name == name)
    return f"{reader}/unit({claim.at})" if draw == "~" else f"{reader}/unit({claim.at}: {draw[1:]})"


@pytest.mark.parametrize("mode", MODES)
def test_the_law_and_f_stay_as_they_were(mode):
    units = 0
    for case in cases(mode):
        h = build(case)
        new = make_isomorphic(h)
        new.check()  # G' equals f on D
        before, after = unroll(h), unroll(new)
        law_f, new_f = law_of_f(before), law_of_f(after)
        assert law_f.keys() == new_f.keys() and all(abs(law_f[v] - new_f[v]) < 1e-12 for v in law_f)
        names = [path if path in after.sites else matched(path, h) for path in before.leaves]
        for path in after.leaves:
            if path not in names:  # a draw that one site alone reads, under a group's name
                names[next(i for i, n in enumerate(names) if n not in after.sites)] = path
        order = [after.leaves.index(name) for name in names]
        one, other = leaf_law(before).as_dict(), leaf_law(after)
        found = {tuple(cell): p for cell, p in zip(other.cells[:, order].tolist(), other.p.tolist(), strict=True)}
        assert one.keys() == found.keys() and all(abs(one[cell] - found[cell]) < 1e-12 for cell in one)
        units += sum("unit(" in path for path in after.sites)
        if mode in ("reader", "each"):
            assert {c.at for c in new.claims} == {*new.graph.nodes} | {c.at for c in new.claims if c.at in case.columns}
            assert not any(new.unimportant(claim) for claim in new.claims)
    assert mode == "all" or units >= 5


def test_values_of_any_kind_are_combined_exactly():
    functions = {
        "h": lambda x: torch.stack([x, x / 3], 1),
        "k": lambda x: (x > 1)[:, None, None].expand(-1, 2, 3),
        "m": lambda x: (x * 7).long(),
        "f": lambda h, k, m, x: h.sum(1) + k.float().mean((1, 2)) / 3 + m * x,
    }
    data = Dataset({"x": torch.tensor([0.1, 0.2, 1.7, 3.3])})
    graph = Graph.of(functions, ["x"], "f")
    h = Hypothesis("m", graph, data, Claim("f", reads=[Claim("m", lambda d: d["x"])]))
    new = make_isomorphic(h)
    assert new.check()[0].difference == 0
    assert new.graph.nodes["f"].inputs == ("m", "unit(f)")
    assert law_of_f(unroll(h)) == pytest.approx(law_of_f(unroll(new)))


def test_units_are_marked_and_stay_so_when_rewritten_and_joined_again():
    data = Dataset({"x": torch.arange(8)})
    graph = Graph.of({"s": lambda x: x % 2, "t": lambda x: x // 2, "f": lambda s, t: (s + t) * 1.0}, ["x"], "f")
    h = Hypothesis("only s", graph, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % 2)]))
    assert not any(claim.unit for claim in h.claims)
    once = make_isomorphic(h)
    for new in (once, make_isomorphic(once), join(once, once), join_graphs(once, once)):
        assert {claim.name for claim in new.claims if claim.unit} == {"unit(f)"}
        assert [claim.unit for claim in new.claims] == [claim.name.startswith("unit(") for claim in new.claims]


def test_a_chain_longer_than_python_recurses_is_rewritten():
    h = chain_tree().hypothesis
    new = make_isomorphic(h)
    assert list(new.graph.nodes)[-1] == h.graph.output and len(new.graph.nodes) == len(new.claims) == LENGTH + DRAWS
    f, new_f = (each.graph.run([h.graph.output], dict(h.data.columns))[h.graph.output] for each in (h, new))
    assert torch.equal(f, new_f)
    claimed = [path for path, site in chain_tree().sites.items() if site.claim is not None]
    assert [path for path in unroll(new).sites if "unit(" not in path] == claimed


def test_what_is_below_comes_first_and_once():
    below = {"a": "bc", "b": "cd", "c": "d", "d": ""}
    assert order_upwards("a", below.__getitem__) == ["d", "c", "b", "a"]
