"""Pieces of nodes: put together again bit for bit, whatever they are; bad ones, each named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, Tree, check_rewrites, split, trace, unroll
from pscrub.errors import GraphError
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.plan import Kind, Values, make_plan
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.graph import Piece, Position, Subspace, carve, equal_on
from pscrub.graph.places import Place, Put, narrow_put
from pscrub.hypothesis.isomorphism import make_isomorphic
from pscrub.law.drawing import draw
from pscrub.law.of_f import law_of_f
from tests.evaluate.test_narrow import DATA as TOKENS
from tests.evaluate.test_narrow import Small

N, POSITIONS, WIDTH = 30, 5, 8
_made = torch.Generator().manual_seed(0)
MATRIX = torch.randn(WIDTH, WIDTH, generator=_made)
DATA = Dataset(
    {
        "x": torch.randn(N, POSITIONS, WIDTH, generator=_made),
        "at": torch.randint(1, POSITIONS, (N,), generator=_made),
        "y": torch.arange(N) % 3,
    }
)
HEAD, OTHER = (0, 1, 2), (5, 6, 7)


def hidden(x: Tensor) -> Tensor:
    return (x @ MATRIX).tanh()


def after(h: Tensor) -> Tensor:
    return (h @ MATRIX).cumsum(1).tanh()


def loss(k: Tensor, h: Tensor) -> Tensor:
    return (k * h).sum((1, 2))


GRAPH = Graph.of({"h": hidden, "k": after, "f": loss}, ["x"], "f")
AT = Position("at")
PIECES = [
    Piece("h.a@0", "h", HEAD, Position(offset=0)),
    Piece("h.a@-1", "h", (0, 2, 4), Position(offset=-1)),
    Piece("h.b@at", "h", OTHER, AT),
    Piece("k.0", "k", (0, 1)),
    Piece("k.1", "k", (4, 2, 3)),
    Piece("k.2", "k", (5, 6, 7)),
]


def test_pieces_are_put_together_bit_for_bit() -> None:
    made = carve(GRAPH, DATA, PIECES)
    assert "k.rest" not in made and made.nodes["k.0"].inputs == ("k",)
    assert not equal_on(GRAPH, made, DATA)
    assert [each.difference for each in check_rewrites(made, DATA)] == [0.0]
    h = hidden(DATA["x"])
    found = made.run([each.name for each in PIECES[:3]], {"x": DATA["x"], "at": DATA["at"]})
    assert torch.equal(found["h.a@0"], h[:, :1, :3]) and torch.equal(found["h.a@-1"], h[:, -1:, [0, 2, 4]])
    assert torch.equal(found["h.b@at"][:, 0], h[torch.arange(N), DATA["at"]][:, 5:])


def test_directions_are_put_together_to_rounding() -> None:
    read = torch.randn(WIDTH, 2, generator=_made)
    pieces = [
        Piece("k.d", "k", None, Position(offset=2), Subspace(read, torch.linalg.pinv(read))),
        Piece("k.latent", "k", None, Position(offset=2), Subspace(torch.eye(WIDTH)[:, :1], torch.ones(1, WIDTH))),
        Piece("k.e", "k", HEAD, AT, Subspace(torch.eye(3)[:, :1], torch.eye(3)[:1])),
    ]
    with pytest.raises(GraphError, match=r"'k.d' of 'k' and 'k.e' overlap on rows"):
        carve(GRAPH, DATA, pieces)
    made = carve(GRAPH, DATA, [*pieces[:2], Piece("k.e", "k", HEAD, Position(offset=0), pieces[2].within)])
    assert equal_on(GRAPH, made, DATA).value < 1e-5
    k = after(hidden(DATA["x"]))
    assert torch.allclose(made.run(["k.d"], {"x": DATA["x"]})["k.d"], k[:, 2:3] @ read)


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([Piece("a", "h", (0, 1)), Piece("b", "h", (1,), Position(offset=2))], "pieces 'a' of 'h' and 'b' overlap"),
        ([Piece("a", "h", (0,), AT), Piece("b", "h", (0,), Position(offset=2))], "overlap on rows "),
        ([Piece("a", "h", (0,), AT), Piece("b", "h", (0,), AT)], "pieces 'a' of 'h' and 'b' overlap"),
        ([Piece("a", "h", (7, 8))], r"entries \[8\] outside"),
        ([Piece("a", "h", (1, 1))], r"entries \[1\] twice"),
        ([Piece("a", "h", None, Position("at", 1))], r"position at\+1 is 5 on row \d+"),
        ([Piece("a", "h", None, Position(offset=5))], "position 5; expected -5 to 4"),
        ([Piece("a", "h", None, Position("att"))], "no column 'att'.*\"at\""),
        ([Piece("a", "h", None, Position("x"))], "column 'x' cannot tell positions"),
        ([Piece("a", "hh")], "no such node"),
        ([Piece("a", "f")], "does not depend on 'f'"),
        ([Piece("k", "h", (1,))], "'k' is to be a piece"),
        ([Piece("a", "h", (1,)), Piece("a", "h", (2,))], "two pieces are named 'a'"),
        ([Piece("a", "h", (1,), None, Subspace(torch.ones(2, 1), torch.ones(1, 2)))], r"expected \[1, k\]"),
    ],
)
def test_bad_pieces_are_named(pieces: list[Piece], said: str) -> None:
    with pytest.raises(GraphError, match=said):
        carve(GRAPH, DATA, pieces)


def both_f(tree: Tree, draws: int = 64) -> tuple[Tensor, dict[str, Tensor]]:
    """f by the slow evaluator, which the engine gives too; and the data drawn."""
    data = draw(tree, draws, (1,))
    graph = tree.hypothesis.graph
    f = run_scrubbed(tree, Activations(graph, DATA), data)
    assert torch.allclose(f, Engine(DATA).f(tree, data), atol=1e-5)
    return f, data


def test_the_same_as_with_split() -> None:
    """A head at a position, by hand with split and by carve: the same numbers on the same draws."""
    left = [i for i in range(WIDTH) if i not in HEAD]
    by_split = split(GRAPH, "h", 2, {"head": HEAD, "others": left}, WIDTH)
    by_split = split(by_split, "head", 1, {"piece": 3, "elsewhere": [0, 1, 2, 4]}, POSITIONS)
    carved = carve(GRAPH, DATA, [Piece("piece", "h", HEAD, Position(offset=3))])
    for claims in (
        [Claim("piece", "y")],
        [Claim("k", reads=[Claim("piece", "y")])],
        [Claim("piece", reads=[Claim("x", "y")])],
    ):
        made = [Hypothesis("h", graph, DATA, Claim("f", DATA["y"] * 0, reads=claims)) for graph in (by_split, carved)]
        (f, data), (other, same) = (both_f(unroll(each)) for each in made)
        assert data.keys() == same.keys() and torch.equal(f, other)


def test_a_told_piece_is_put_where_its_reader_says() -> None:
    """By hand: what the head has at the donor's own place, at the receiving row's place, on the rest's donor."""
    graph = carve(GRAPH, DATA, [Piece("h.b@at", "h", OTHER, AT)])
    h = Hypothesis("h", graph, DATA, Claim("f", reads=[Claim("k", reads=[Claim("h.b@at", "y")])]))
    assert "at (place)" not in h.unimportant(h.claim) and h.check()[0].difference == 0.0
    tree = unroll(h)
    f, data = both_f(tree)
    assert torch.equal(data["f/k/~own"], data["f/k"]) and torch.equal(data["f/~own"], data["f"])
    hid, at = hidden(DATA["x"]), DATA["at"]
    receiver, donor, rest, root = data["f/k"], data["f/k/h.b@at"], data["f/k/~"], data["f/~"]
    into, every = hid[rest].clone(), torch.arange(len(f))
    into[every, at[receiver], 5:] = hid[donor, at[donor], 5:]
    # f reads h itself too, whole on one unimportant datum: its piece is put at the root's own place.
    own = hid[root].clone()
    own[every, at[data["f"]], 5:] = hid[root, at[root], 5:]
    assert torch.allclose(f, loss(after(into), own).double(), atol=1e-5)
    # the rest's own place would be another number
    into = hid[rest].clone()
    into[every, at[rest], 5:] = hid[donor, at[donor], 5:]
    assert not torch.allclose(f, loss(after(into), own).double(), atol=1e-5)


def test_a_told_piece_keeps_its_law_made_isomorphic() -> None:
    rows = slice(0, 4)
    small = Dataset({"x": DATA["x"][rows].double(), "at": torch.tensor([1, 2, 2, 4]), "y": DATA["y"][rows]})
    graph = Graph.of({"h": lambda x: x.sin(), "f": lambda h: (h.cumsum(1) ** 2).sum((1, 2))}, ["x"], "f")
    made = carve(graph, small, [Piece("p", "h", OTHER, AT)])
    h = Hypothesis("h", made, small, Claim("f", reads=[Claim("p", "y")]))
    law, other = law_of_f(unroll(h)), law_of_f(unroll(make_isomorphic(h)))
    assert law.keys() == other.keys() and all(abs(law[f] - other[f]) < 1e-12 for f in law)


def test_pieces_of_one_datum_cost_nothing() -> None:
    pieces = [
        Piece(f"{node}.{i}@{p}", node, (2 * i, 2 * i + 1), Position(offset=p))
        for node in "hk"
        for i in range(4)
        for p in range(POSITIONS)
    ]
    made = carve(GRAPH, DATA, pieces)
    tree = unroll(Hypothesis("h", made, DATA, Claim("f", reads=[Claim("k.1@2", "y")])))
    values = Values(made)
    plan = make_plan(values, tree)
    puts = [values[n].of for n in plan.mixed if isinstance(values[n].of, Put)]
    assert [(len(put.places), put.onto) for put in puts] == [(1, True)]
    assert sum(each.kind is Kind.ON_D and isinstance(each.of, Put) for each in values.known) == 0
    both_f(tree)


def test_a_part_of_what_is_put_together() -> None:
    """Every cut of a value that pieces were put on, against the cut of the whole."""
    places = (Place((1,), (0, 1)), Place((3, 2), (4, 6)), Place(None, (7,)))
    shape = (POSITIONS, WIDTH)
    base = torch.randn(2, *shape, generator=_made)
    pieces = [torch.randn(2, *s, generator=_made) for s in ((1, 2), (2, 2), (POSITIONS, 1))]
    known = dict(enumerate([base, *pieces]))
    put = Put(shape, places, True)
    whole = put(*known.values())

    def taken(value: Tensor, cut: Any) -> Tensor:
        for axis, part in cut:
            value = value.index_select(axis, torch.tensor(part))
        return value

    for cut in (((1, (1,)), (2, (0, 1))), ((1, (2, 3)),), ((2, (6, 7, 0)),), ((1, (0,)), (2, (3,))), ((2, (7,)),)):
        found = narrow_put(put, [*known], cut)
        assert found is not None
        fn, asked = found
        values = [taken(known[n], part) for n, part in asked]
        assert torch.equal(values[0] if fn is None else fn(*values), taken(whole, cut))


def test_an_edge_is_a_hook() -> None:
    """A position's neurons of one MLP from a donor, all else the row's own: the module with a hook, difference 0."""
    torch.manual_seed(0)
    model = Small(causal=True).eval()
    loss = Node("loss", ("logits", "label"), lambda z, y: z[:, 0] - z[:, 1] + 0 * y)
    graph = trace(model, TOKENS, cuts={"m0": "layers.0.written"}, inputs=["tokens"], output="logits", behaviour=loss)
    graph = carve(graph, TOKENS, [Piece("m0@1", "m0", (2, 3, 9), Position(offset=1))])
    rest = [Claim(name, "exact") for name in ("m0.rest", "tokens")]
    logits = Claim("logits", TOKENS["label"] * 0, reads=[Claim("m0@1", "label"), *rest])
    tree = unroll(Hypothesis("h", graph, TOKENS, Claim("loss", reads=[Claim("label", "exact"), logits])))
    data = draw(tree, 32, (2,))
    f = run_scrubbed(tree, Activations(graph, TOKENS), data)
    into, donor = (TOKENS["tokens"][data[path]] for path in ("loss/logits", "loss/logits/m0@1"))
    seen: list[Tensor] = []
    with torch.no_grad():
        handle = model.layers[0].written.register_forward_hook(lambda _, __, out: seen.append(out.clone()))  # type: ignore[union-attr]
        model(donor)
        handle.remove()

        def patch(_: Any, __: Any, out: Tensor) -> Tensor:
            out = out.clone()
            out[:, 1, [2, 3, 9]] = seen[0][:, 1, [2, 3, 9]]
            return out

        handle = model.layers[0].written.register_forward_hook(patch)  # type: ignore[union-attr]
        z = model(into)
        handle.remove()
    assert torch.equal(f, (z[:, 0] - z[:, 1]).double())
    assert torch.allclose(Engine(TOKENS).f(tree, data), f, atol=1e-5)
