"""Tensors are found, and others put in their place, in tuples, mappings, dataclasses and what models return."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from pscrub.errors import TraceError
from pscrub.graph.cuts import input_of, output_of
from pscrub.graph.nested import first_path, map_tensors, pick, tensors_of
from pscrub.graph.tracing import trace
from tests.graph.traced_modules import Doing, X


@dataclass
class Found:
    text: str
    states: dict[str, Any] = field(default_factory=dict)
    last: Tensor | None = None


@dataclass(frozen=True)
class Frozen:
    pair: tuple[Tensor, Tensor]


class Named(NamedTuple):
    h: Tensor
    c: Tensor


A, B, C = (torch.tensor([float(i)]) for i in range(3))
HELD: dict[str, tuple[Any, Any, Any]] = {
    "tuple": ((A, "text", B), 2, [A, B]),
    "tuple of dicts": (({"a": A}, {"b": (B, C)}), (1, "b", 0), [A, B, C]),
    "named tuple": (Named(A, B), "c", [A, B]),
    "dataclass": (Found("text", {"k": (A, B)}, C), ("states", "k", 1), [A, B, C]),
    "frozen in a list": ([Frozen((A, B))], (0, "pair", 1), [A, B]),
    "in a dict": ({"x": [Found("text", last=B)]}, ("x", 0, "last"), [B]),
}


@pytest.mark.parametrize("name", HELD)
def test_tensors_are_found_and_replaced(name: str) -> None:
    held, index, expected = HELD[name]
    assert [id(each) for each in tensors_of(held)] == [id(each) for each in expected]
    assert pick(held, None) is expected[0]
    assert pick(held, first_path(held)) is expected[0]
    value, other = pick(held, index), torch.ones(3)
    changed = map_tensors(lambda leaf: other if leaf is value else leaf, held)
    assert type(changed) is type(held)
    assert pick(changed, index) is other
    assert pick(held, index) is value
    assert [other if each is value else each for each in tensors_of(held)] == list(tensors_of(changed))
    same = map_tensors(lambda leaf: leaf, held)
    assert list(map(id, tensors_of(same))) == list(map(id, tensors_of(held)))


def test_nothing_is_found_where_there_is_nothing() -> None:
    for index in (2, "k", (0, 0), (1, "a"), ("last", 0)):
        assert pick((A, "text"), index) is None or index == (1, "a")
    assert pick("text", None) is None
    assert first_path({"a": "text"}) is None


def test_a_model_output_keeps_its_kind() -> None:
    modeling = pytest.importorskip("transformers.modeling_outputs")
    held = modeling.BaseModelOutput(last_hidden_state=A, hidden_states=(A, B))
    changed = map_tensors(lambda leaf: C if leaf is A else leaf, held)
    assert type(changed) is type(held)
    assert changed.last_hidden_state is changed["last_hidden_state"] is changed[0] is changed.hidden_states[0] is C
    assert pick(held, ("hidden_states", 1)) is B


def test_cuts_reach_into_what_modules_return() -> None:
    """Recorded and overwritten, in what a submodule returns and is called with; the result may be a dataclass too."""
    inner = Doing(lambda self, x: Found("text", {"k": (x + 1, x * 2)}, x * 3))

    class Outer(nn.Module):
        def forward(self, found: Found, more: dict[str, list[Tensor]]) -> Tensor:
            return found.states["k"][0] * found.last + more["m"][0]

    def forward(self: Any, x: Tensor) -> Frozen:
        found = self.inner(x)
        return Frozen((self.outer(found, more={"m": [found.states["k"][1]]}), x))

    module = Doing(forward, inner=inner, outer=Outer())
    cuts = {
        "k0": output_of("inner", index=("states", "k", 0)),
        "last": output_of("inner", index="last"),
        "given": input_of("outer", index=(0, "last")),
        "more": input_of("outer", index=("more", "m", 0)),
    }
    graph = trace(module, X, cuts=cuts)
    x = X["x"]
    values = graph.run(graph.nodes, X)
    expected = {"k0": x + 1, "last": x * 3, "given": x * 3, "more": x * 2, "output": (x + 1) * (x * 3) + x * 2}
    assert values.keys() == expected.keys()
    assert all(torch.equal(values[name], expected[name]) for name in expected)
    nothing = torch.zeros_like(x)
    assert torch.equal(graph.run(["output"], X | {"given": nothing})["output"], x * 2)
    assert torch.equal(graph.run(["output"], X | {"more": nothing})["output"], (x + 1) * (x * 3))


def test_the_advice_for_what_holds_tensors_works() -> None:
    module = Doing(lambda self, x: self.a(x[:, None])[1][0][0], a=nn.LSTM(4, 3, batch_first=True))
    with pytest.raises(
        TraceError, match=r"is a tuple; expected a tensor; its first is output_of\('a', index=\(1, 0\)\)"
    ):
        trace(module, X, cuts={"h": output_of("a", index=1)})
    trace(module, X, cuts={"h": output_of("a", index=(1, 0))})
