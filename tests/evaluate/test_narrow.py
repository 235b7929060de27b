"""Slices pushed up through operations: the same numbers, from less; and rules that would be wrong, caught."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, Tree, own_copy, split, trace, unroll
from pscrub.evaluate import rules
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.plan import Kind
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
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
