"""Slices pushed up through operations: the same numbers, from less; and rules that would be wrong, caught."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, Tree, own_copy, split, trace, unroll
from pscrub.errors import NodeError
from pscrub.evaluate import narrow, rules, seams
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.plan import Kind
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.seams import Seam
from pscrub.evaluate.values import Activations
from pscrub.graph import carve
from pscrub.graph.pieces import Piece, Position
from pscrub.law.drawing import draw

POSITIONS, WIDTH, HEADS = 7, 12, 3
ROWS = 60


class Layer(nn.Module):
    """Attention and an MLP, every operation written out, each head's part of the output apart."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.norm, self.again = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.o = nn.Parameter(torch.randn(HEADS, WIDTH // HEADS, WIDTH) / 3)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.heads, self.written, self.read = nn.Identity(), nn.Identity(), nn.Identity()
        self.causal = causal

    def forward(self, stream: Tensor) -> Tensor:
        x = self.norm(self.read(stream))
        q, k, v = (
            each(x).view(x.shape[0], POSITIONS, HEADS, WIDTH // HEADS).transpose(1, 2)
            for each in (self.q, self.k, self.v)
        )
        scores = q @ k.transpose(-1, -2) / 2.0
        if self.causal:
            scores = scores.masked_fill(torch.ones(POSITIONS, POSITIONS).triu(1).bool(), -1e9)
        heads = self.heads(scores.softmax(-1) @ v @ self.o)
        stream = stream + heads.sum(1)
        return stream + self.written(self.down(functional.gelu(self.up(self.again(stream)))))


class Small(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, WIDTH)
        self.layers = nn.ModuleList(Layer(causal) for _ in range(2))
        self.last = nn.Linear(WIDTH, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        stream = self.embed(tokens)
        for layer in self.layers:
            stream = layer(stream)
        found: Tensor = self.last(stream[:, 2])
        return found


DATA = Dataset(
    {
        "tokens": torch.randint(0, 9, (ROWS, POSITIONS), generator=torch.Generator().manual_seed(3)),
        "label": torch.arange(ROWS) % 4,
    }
)


@cache
def graph(causal: bool = False) -> Graph:
    """Heads of both layers, positions of what the second reads, one of them read by a head alone."""
    torch.manual_seed(1)
    loss = Node("loss", ("logits", "label"), lambda z, y: functional.cross_entropy(z, y, reduction="none"))
    cuts: dict[str, Any] = {f"a{i}": f"layers.{i}.heads" for i in range(2)}
    cuts |= {f"m{i}": f"layers.{i}.written" for i in range(2)} | {"r1": "layers.1.read"}
    made = trace(Small(causal).eval(), DATA, cuts=cuts, inputs=["tokens"], output="logits", behaviour=loss)
    for layer in range(2):
        made = split(made, f"a{layer}", 1, {f"a{layer}.h{i}": i for i in range(HEADS)}, HEADS)
    made = own_copy(made, "a1", {"attention": ["a1.h1"]})
    made = own_copy(made, "r1", {"stream": ["attention"]})
    return split(made, "stream", 1, {f"stream.p{i}": i for i in range(POSITIONS)}, POSITIONS)


def trees(made: Graph) -> list[Tree]:
    tokens, y = DATA["tokens"], Claim("label", "label")
    positions = [Claim(f"stream.p{i}", tokens[:, i] % 3) for i in range(POSITIONS)]
    head = Claim("a1.h1", reads=positions)
    below = Claim("a1.h0", reads=[Claim("a0.h2", tokens[:, 0] % 2), Claim("tokens", "exact")], paths="any")
    claims = [[head], [below], [head, below], [Claim("m1", reads=[Claim("a0.h1", tokens[:, 3] % 2)])]]
    return [
        unroll(Hypothesis(f"{n}", made, DATA, Claim("loss", reads=[y, Claim("logits", reads=reads)])))
        for n, reads in enumerate(claims)
    ]


def gap(engine: Engine, tree: Tree) -> float:
    data = draw(tree, 400, (0,))
    slow = run_scrubbed(tree, Activations(tree.hypothesis.graph, DATA), data)
    return float((engine.f(tree, data) - slow).abs().max())


@pytest.mark.parametrize("causal", [False, True])
def test_the_same_numbers_from_less(causal: bool) -> None:
    made, engine = graph(causal), Engine(DATA)
    narrowed = 0
    for tree in trees(made):
        assert gap(engine, tree) < 1e-5
        plan, kept = engine.plan(tree), engine.kept(made)

        def live(roots: Any, plan: Any = plan, kept: Any = kept) -> int:
            code = kept.code_of_draws(plan, roots)
            return sum(kept._row_bytes[each.number] for each in code if plan.values[each.number].kind is Kind.MIXED)

        whole, less = live([plan.root]), live(engine.asked(tree).roots)
        assert less <= whole
        narrowed += less < 0.6 * whole
    assert narrowed >= 2


@pytest.mark.parametrize(("axis", "size"), [(1, POSITIONS), (-2, POSITIONS), (2, WIDTH), (-1, WIDTH)])
def test_splits_along_axes_counted_from_either_end(axis: int, size: int) -> None:
    """What is put together again is read in part, along the axis that was cut and along another."""
    loss = Node("loss", ("logits", "label"), lambda z, y: functional.cross_entropy(z, y, reduction="none"))
    torch.manual_seed(1)
    cuts = {"r1": "layers.1.read", "m1": "layers.1.written"}
    made = trace(Small(False).eval(), DATA, cuts=cuts, inputs=["tokens"], output="logits", behaviour=loss)
    made = split(made, "m1", axis, {"first": [0, 2], "rest": [i for i in range(size) if i not in (0, 2)]}, size)
    part = Claim("first", DATA["tokens"][:, 0] % 3)
    tree = unroll(Hypothesis("h", made, DATA, Claim("loss", reads=[Claim("logits", reads=[part])])))
    assert gap(Engine(DATA), tree) < 1e-5


# Planted faults


@pytest.mark.parametrize(
    "fault", ["a norm over the sliced axis", "softmax over the sliced axis", "another head's factor"]
)
def test_rules_that_would_be_wrong_are_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rules.Rule.step

    def wrong(self: Any, cut: Any) -> Any:
        target, x = self.fn.target, self.args[0]
        if fault.startswith("a norm") and target in rules.NORMS and cut:
            return self.fn, [(x, (*cut, (2, (*range(WIDTH - 1), 0)))), *((arg, ()) for arg in self.args[1:])]
        if fault.startswith("softmax") and target in rules.SOFTMAX and cut:
            return self.fn, [(x, (*cut, (3, (*range(POSITIONS - 1), 0))))]
        if fault.startswith("another") and target in rules.PRODUCTS and 1 in dict(cut) and len(self.out) == 4:
            (first, second) = real(self, cut)[1]
            others = tuple(
                (axis, tuple((i + 1) % HEADS for i in part) if axis == 1 else part) for axis, part in first[1]
            )
            return self.fn, [(first[0], others), second]
        return real(self, cut)

    monkeypatch.setattr(rules.Rule, "step", wrong)
    made, engine = graph(), Engine(DATA)
    assert max(gap(engine, tree) for tree in trees(made)) > 1e-3


# Rules one by one, and attention's


class Rotary(nn.Module):
    """Attention in one operation with what stands around it in language models; the loss reads one position."""

    def __init__(self, causal: bool, grouped: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.q = nn.Embedding(9, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = (nn.Linear(WIDTH, WIDTH // HEADS if grouped else WIDTH) for _ in range(2))
        self.o, self.last, self.read, self.z = (
            nn.Linear(WIDTH, WIDTH),
            nn.Linear(WIDTH, 4),
            nn.Identity(),
            nn.Identity(),
        )
        self.causal, self.grouped = causal, grouped
        self.register_buffer("mask", torch.rand(POSITIONS, POSITIONS) > 0.3 if not causal else None)
        if self.mask is not None:
            self.mask.fill_diagonal_(True)
        self.register_buffer("places", torch.tensor([2, 5]))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.read(self.embed(tokens))
        half = WIDTH // HEADS // 2
        q, k, v = (
            each(x).view(x.shape[0], POSITIONS, -1, WIDTH // HEADS).transpose(1, 2) for each in (self.q, self.k, self.v)
        )
        q, k = (each + torch.cat([-each[..., half:], each[..., :half]], -1) / 3 for each in (q, k))
        if self.grouped:
            k, v = (each.expand(-1, HEADS, -1, -1) for each in (k, v))
        z = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, is_causal=self.causal)
        z = self.z(z.transpose(1, 2).flatten(2))
        x = x + self.o(z)
        return self.last(x.index_select(1, self.places)).sum(1)


def rotary(causal: bool, grouped: bool) -> Tree:
    loss = Node("loss", ("logits", "label"), lambda z, y: functional.cross_entropy(z, y, reduction="none"))
    made = trace(
        Rotary(causal, grouped).eval(), DATA, cuts={"r": "read"}, inputs=["tokens"], output="logits", behaviour=loss
    )
    made = split(made, "r", 1, {"r.first": [0, 2], "r.rest": [1, *range(3, POSITIONS)]}, POSITIONS)
    reads = [Claim("r.first", DATA["tokens"][:, 0] % 3), Claim("r.rest", DATA["tokens"][:, 1] % 2)]
    claim = Claim("loss", reads=[Claim("label", "label"), Claim("logits", reads=reads)])
    return unroll(Hypothesis("h", made, DATA, claim))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_attention_of_the_positions_that_are_read(causal: bool, grouped: bool) -> None:
    tree, engine = rotary(causal, grouped), Engine(DATA)
    assert gap(engine, tree) < 1e-5
    plan, kept = engine.plan(tree), engine.kept(tree.hypothesis.graph)
    code = kept.code_of_draws(plan, engine.asked(tree).roots)
    attention = [each for each in code if "attend" in str(each.fn) or "scaled_dot" in str(each.fn)]
    # Queries at the two positions that are read, not at all.
    assert {kept._row_bytes[each.number] for each in attention} == {2 * WIDTH * 4}


@pytest.mark.parametrize("fault", ["keys for queries", "no rows of the mask", "queries as if they came first"])
def test_attention_wrongly_cut_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, attend = rules.Rule._attention, rules.attend_causally

    def wrong(self: Any, cut: Any) -> Any:
        found = real(self, cut)
        if found is None or not cut:
            return found
        fn, asked = found
        q, k, v, *mask = asked
        if fault.startswith("keys"):
            return (fn, [q, (k[0], q[1]), (v[0], q[1])]) if self.keywords.get("is_causal") or len(asked) == 3 else found
        return (fn, [q, k, v, *((m, tuple((a, p[:1] * len(p)) for a, p in c)) for m, c in mask)])

    def first(q: Tensor, k: Tensor, v: Tensor, queries: Any, scale: Any, grouped: bool) -> Tensor:
        return attend(q, k, v, tuple(range(len(queries))), scale, grouped)

    if fault.startswith("queries"):
        monkeypatch.setattr(rules, "attend_causally", first)
    else:
        monkeypatch.setitem(rules._OF_SEVERAL, torch.ops.aten.scaled_dot_product_attention.default, wrong)
    with contextlib.suppress(NodeError):  # of lengths that do not fit
        assert gap(Engine(DATA), rotary(not fault.startswith("no rows"), False)) > 1e-3


def test_what_is_of_one_datum_beside_a_seam_is_not_made_for_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """One position of the second layer's stream has another datum: norms, keys and values of each are the model's."""
    first = Claim("stream.p0", DATA["tokens"][:, 0] % 3)
    claim = Claim("loss", reads=[Claim("label", "label"), Claim("logits", reads=[Claim("a1.h1", reads=[first])])])
    made = graph()
    tree = unroll(Hypothesis("h", made, DATA, claim))
    norms = []
    for least in (narrow.LEAST, 2.0):  # with seams, and as if there were none
        monkeypatch.setattr(narrow, "LEAST", least)
        engine = Engine(DATA)
        assert gap(engine, tree) < 1e-5
        code = engine.kept(made).code_of_draws(engine.plan(tree), engine.asked(tree).roots)
        norms.append(sum("layer_norm" in str(getattr(each.fn, "target", "")) for each in code))
    assert norms == [0, 1]


def test_a_seam_that_forgets_a_datum_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a mixed value were of the datum that stands beside it."""
    real = narrow.find_seams

    def careless(*args: Any) -> Any:
        found = real(*args)
        for n, seam in found.items():
            known = [datum for datum in seam.data if datum is not None]
            found[n] = Seam(seam.axis, tuple(known[0] for _ in seam.data))
        return found

    monkeypatch.setattr(narrow, "find_seams", careless)
    assert max(gap(Engine(DATA), tree) for tree in trees(graph())) > 1e-3


def test_an_operand_that_gives_nothing_may_be_sliced() -> None:
    """As rotary positions of the whole width leave an empty part that is put beside what was turned."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.read(x)
            turned = torch.cat([x[..., :4] * 2.0, x[..., 4:]], -1)
            return (turned.view(-1, 3, 2, 2)[:, 1] ** 2).sum((1, 2))

    data = Dataset({"x": torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(0))})
    g = trace(Turned(), data, cuts={"read": "read"}, inputs=["x"], output="f")
    g = split(g, "read", 2, {"left": [0, 1], "right": [2, 3]}, 4)
    h = Hypothesis("left matters", g, data, Claim("f", reads=[Claim("left", "exact")]))
    tree = unroll(h)
    drawn = draw(tree, 50, (0,))
    assert torch.equal(Engine(data).f(tree, drawn), run_scrubbed(tree, Activations(g, data), drawn))


class Layered(nn.Module):
    """Two layers of attention, the stream put together of pieces; at the end all positions are read, or one."""

    def __init__(self, causal: bool, at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.at = slice(None) if at is None else slice(at, at + 1)
        self.embed, self.read, self.last = nn.Embedding(9, WIDTH), nn.Identity(), nn.Linear(WIDTH, 4)
        self.layers = nn.ModuleList(nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in "qkv") for _ in range(2))
        self.causal = causal

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.read(self.embed(tokens))
        for layer in self.layers:
            q, k, v = (each(x).view(x.shape[0], POSITIONS, HEADS, -1).transpose(1, 2) for each in layer)
            z = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
            x = x + z.transpose(1, 2).flatten(2)
        found: Tensor = self.last(x[:, self.at]).sin().sum(1)
        return found


class Masked(Layered):
    """The same by a mask, made in forward."""

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(POSITIONS, device=tokens.device)
        mask = places[None, :] <= places[:, None] + (0 if self.causal else 1)
        x = self.read(self.embed(tokens))
        for layer in self.layers:
            q, k, v = (each(x).view(x.shape[0], POSITIONS, HEADS, -1).transpose(1, 2) for each in layer)
            z = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[None, None])
            x = x + z.transpose(1, 2).flatten(2)
        found: Tensor = self.last(x[:, self.at]).sin().sum(1)
        return found


def layered(causal: bool, position: int, kind: type[Layered] = Layered, at: int | None = None) -> Tree:
    loss = Node("loss", ("logits", "label"), lambda z, y: functional.cross_entropy(z, y, reduction="none"))
    made = trace(kind(causal, at).eval(), DATA, cuts={"r": "read"}, inputs=["tokens"], output="logits", behaviour=loss)
    made = carve(made, DATA, [Piece("here", "r", position=Position("", position))])
    here = Claim("here", DATA["tokens"][:, 0] % 3)
    return unroll(
        Hypothesis("h", made, DATA, Claim("loss", reads=[Claim("logits", reads=[here], rest="exact")], rest="exact"))
    )


@pytest.mark.parametrize("position", [0, 4, POSITIONS - 1])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", [Layered, Masked])
def test_causal_attention_is_the_models_before_what_is_of_another_datum(
    kind: type[Layered], causal: bool, position: int
) -> None:
    tree, engine = layered(causal, position, kind), Engine(DATA)
    assert gap(engine, tree) < 1e-5
    code = engine.kept(tree.hypothesis.graph).code_of_draws(engine.plan(tree), engine.asked(tree).roots)
    kept = engine.kept(tree.hypothesis.graph)
    sizes = [kept._row_bytes[each.number] for each in code if "attend" in str(each.fn) or "scaled_dot" in str(each.fn)]
    # Positions from the one on, of the two layers; where attention looks ahead, all of them.
    expected = POSITIONS - position if causal else POSITIONS
    assert sizes == [expected * WIDTH * 4] * 2


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", [Layered, Masked])
def test_of_what_comes_after_the_position_that_is_read_nothing_is_made(kind: type[Layered], causal: bool) -> None:
    tree, engine = layered(causal, 3, kind, at=4), Engine(DATA)
    assert gap(engine, tree) < 1e-5
    kept = engine.kept(tree.hypothesis.graph)
    code = kept.code_of_draws(engine.plan(tree), engine.asked(tree).roots)
    sizes = [kept._row_bytes[each.number] for each in code if "attend" in str(each.fn) or "scaled_dot" in str(each.fn)]
    # Of the first layer what the stream reads, position 4, and what the second's keys do, 3 and 4; of the second 4.
    expected = [1, 2, 1] if causal else [POSITIONS, 1]
    assert sizes == [positions * WIDTH * 4 for positions in expected]


def test_keys_that_end_before_the_query_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = rules.Rule._up_to
    monkeypatch.setattr(rules.Rule, "_up_to", lambda self, seen, *which: real(self, seen[:-1], *which))
    with contextlib.suppress(NodeError):  # of lengths that do not fit
        assert gap(Engine(DATA), layered(True, 2, at=4)) > 1e-3


def test_attention_that_looks_ahead_taken_for_causal_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seams, "is_causal", lambda fn, *given: "scaled_dot" in str(fn))
    assert gap(Engine(DATA), layered(False, POSITIONS - 1)) > 1e-3


def test_pieces_put_together_without_those_of_other_data_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a piece of another datum were of the datum of the rest."""
    real = seams._put_together

    def careless(*args: Any) -> Seam:
        found = real(*args)
        return Seam(found.axis, tuple(next(each for each in found.data if each is not None) for _ in found.data))

    monkeypatch.setattr(seams, "_put_together", careless)
    assert gap(Engine(DATA), layered(True, 4)) > 1e-3
