"""Code for draws made quicker: the same bits, or sums in another order; what no draw changes is computed once."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor, nn

from pscrub import Claim, Dataset, Hypothesis, Node, trace, unroll
from pscrub.evaluate import quicker
from pscrub.evaluate.code import Instruction
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.quicker import fill, multiply, settle
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.graph.ops import Operation, Slice, Whole
from pscrub.law.drawing import draw

aten = torch.ops.aten
GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


@pytest.mark.parametrize(
    ("a", "b"),
    [((7, 1, 5, 4), (3, 4, 6)), ((7, 1, 1, 4), (2, 4, 1)), ((1, 1, 5, 4), (3, 4, 6)), ((0, 1, 5, 4), (3, 4, 6))],
)
def test_weights_of_several_heads_are_one_matrix(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    one, other = normal(*a), normal(*b)
    made, plain = multiply(one, other), one @ other
    assert made.shape == plain.shape and torch.allclose(made, plain, atol=1e-5)
    strided = multiply(one.expand(a).transpose(2, 3).contiguous().transpose(2, 3), other)
    assert torch.allclose(strided, plain, atol=1e-5)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((7, 3, 5, 4), (3, 4, 6)),
        ((7, 1, 5, 4), (1, 4, 6)),
        ((7, 5, 4), (4, 6)),
        ((7, 1, 5, 4), (7, 3, 4, 2)),
        ((4,), (4,)),
    ],
)
def test_other_products_are_torch_s_own(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    one, other = normal(*a), normal(*b)
    assert torch.equal(multiply(one, other), one @ other)


@pytest.mark.parametrize("value", [-1e9, float("-inf"), float("nan"), 0.0, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_filling_gives_the_same_bits(value: float, dtype: torch.dtype) -> None:
    x = torch.stack([normal(4, 2, 3, 3), torch.full((4, 2, 3, 3), float("inf"))]).nan_to_num(0.0, 9.0).to(dtype)
    for mask in (torch.rand(2, 4, 1, 1, 3, generator=GENERATOR) < 0.4, torch.tensor(True), torch.zeros(3, dtype=bool)):
        try:
            plain = x.masked_fill(mask, value)
        except RuntimeError:  # does not fit
            with pytest.raises(RuntimeError):
                fill(x, mask, value)
            continue
        made = fill(x, mask, value)
        assert made.dtype == plain.dtype and torch.equal(made.nan_to_num(7.0), plain.nan_to_num(7.0))


def test_what_no_draw_changes_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, draws = normal(3, 4), normal(5, 4)
    code = [
        Instruction(0, None, ()),
        Instruction(1, Operation.call(aten.t.default), (0,), (0,)),
        Instruction(2, None, ()),
        Instruction(3, Operation.call(aten.matmul.default, values=2), (2, 1), (1, 2)),
        Instruction(4, Operation.call(aten.arange.default, 3, values=0), ()),
        Instruction(5, Operation.call(aten.add.Tensor, values=2), (3, 4), (3, 4)),
    ]
    settled, fixed = settle(code, {0: weight}, (5,))
    assert [each.number for each in settled] == [1, 2, 3, 4, 5]
    assert [each.number for each in settled if each.fn is not None] == [3, 5]
    assert fixed.keys() == {1, 4} and torch.equal(fixed[1], weight.t()) and fixed[1].data_ptr() != weight.data_ptr()
    known = {**fixed, 2: draws}
    for each in settled:
        if each.fn is not None:
            known[each.number] = each.fn(*(known[arg] for arg in each.args))
        for dead in each.dead:
            del known[dead]
    assert [*known] == [5] and torch.allclose(known[5], draws @ weight.t() + torch.arange(3))
    kept, fixed = settle(code, {0: weight}, (5, 0))  # what is asked for stays
    assert fixed.keys() == {0, 1, 4} and not any(0 in each.dead for each in kept)
    assert not any(3 in each.dead for each in settle(code, {0: weight}, (5, 3))[0])
    monkeypatch.setattr(quicker, "LITTLE", 40)
    large, fixed = settle(code, {0: weight}, (5,))
    assert fixed.keys() == {0, 4} and [each.number for each in large if each.fn is not None] == [1, 3, 5]


class Heads(nn.Module):
    """Two heads whose weights are [heads, in, out], with a mask, and a table of which few rows are read."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Parameter(normal(2, 6, 3)), nn.Parameter(normal(2, 6, 3))
        self.table = nn.Parameter(normal(50_000, 6))

    def forward(self, x: Tensor, at: Tensor) -> Tensor:
        x = x + self.table[:5] + self.table[at][:, None]
        keys, values = (x[:, None] @ w.unsqueeze(0).squeeze(0) for w in (self.key, self.value))
        scores = (keys @ keys.transpose(-1, -2)).masked_fill(at[:, None, None, None] > 1, -2.0)
        return (scores.softmax(-1) @ values).sum((1, 2, 3))


def test_of_a_module_f_is_the_slow_evaluator_s_and_little_is_sent() -> None:
    rows = 60
    data = Dataset({"x": normal(rows, 5, 6), "at": torch.arange(rows) % 3})
    last = Node("f", ("out",), lambda out: out)
    graph = trace(Heads().eval(), data, cuts={}, inputs=["x", "at"], output="out", behaviour=last)
    tree = unroll(Hypothesis("h", graph, data, Claim("f", reads=[Claim("out", reads=[Claim("x", "at")])])))
    engine, drawn = Engine(data), draw(tree, 200, (0,))
    compiled = engine.compile(tree)
    slow = run_scrubbed(tree, Activations(graph, data), drawn)
    assert torch.allclose(compiled.evaluate(drawn), slow, rtol=1e-5, atol=1e-5)
    again = pickle.loads(pickle.dumps(compiled.fixed))
    assert again.keys() == compiled.fixed.keys()


def test_slices_are_put_together_from_runs_or_one_by_one() -> None:
    """Torch's own way to do it is the check: all indices gathered in their order."""
    value = normal(3, 12, 4)
    few: list[tuple[tuple[int, ...], ...]] = [
        ((0, 1, 2), (3, 4, 5, 6, 7, 8, 9, 10, 11)),
        ((0, *range(2, 12)), (1,)),
        ((5,), tuple(range(6, 12)), tuple(range(5))),
    ]
    many = [(tuple(range(0, 12, 2)), tuple(range(1, 12, 2))), ((11, 3, 7, 0, 1, 2), (10, 9, 8, 4, 5, 6))]
    for parts in (*few, *many):
        whole = Whole(1, parts)
        assert (whole._order[0] is not None) == (parts in few)
        assert torch.equal(whole(*(Slice(1, part)(value) for part in parts)), value)
        assert torch.equal(Whole(-2, parts)(*(Slice(-2, part)(value) for part in parts)), value)
        some = Whole(1, (parts[0], (12, 15)))  # a part of a value: indices in their order
        held = {i: value[:, i % 12] for i in (*parts[0], 12, 15)}
        made = some(*(torch.stack([held[i] for i in part], 1) for part in some.parts))
        assert torch.equal(made, torch.stack([held[i] for i in sorted(held)], 1))


def test_values_go_to_their_places_wherever_these_are() -> None:
    a, b = normal(2, 3), normal(2, 3)
    plain = Operation.call(aten.sub.Tensor, values=2)
    assert torch.equal(plain(a, b), a - b) and torch.equal(plain(b, a), b - a)  # nothing of the last call is left
    place = {"a": 0, "b": 1}.get
    for target, arguments, wanted in (
        (aten.cat.default, ((["a", "b"], 1), {}), torch.cat([a, b], 1)),
        (aten.sub.Tensor, (("b", "a"), {"alpha": 2}), b - 2 * a),
        (aten.add.Tensor, (("a", 1.5), {}), a + 1.5),
        (aten.where.ScalarOther, ((torch.ones(2, 3, dtype=torch.bool), "a", 0.0), {}), a),
    ):
        made = Operation.placed(target, arguments, lambda x: place(x) if isinstance(x, str) else None, True)
        assert torch.equal(made(a, b), wanted)
