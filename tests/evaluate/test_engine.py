"""The engine against the slow evaluator: the same f, whatever is kept; and faults that must not pass unseen."""

import contextlib
import os
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pscrub import (
    Claim,
    Dataset,
    Graph,
    GraphError,
    Hypothesis,
    Node,
    Partition,
    Tree,
    own_copy,
    split,
    trace,
    unroll,
    with_estimate,
)
from pscrub.evaluate import engine
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.plan import Kind, Plan, Values, make_plan
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.graph.ops import Whole
from pscrub.hypothesis.ablation import Replaced
from pscrub.law.drawing import draw
from pscrub.studies import EXTRAS, SHIPPED, load
from tests.graph.traced_modules import GPT2_CUTS, LLAMA_CUTS, VOCABULARY, Logits, gpt2, llama
from tests.routes.build_case import build
from tests.routes.random_cases import MODES, PER_MODE, cases

CASES = int(os.environ.get("CASES", "15"))
"""Random hypotheses in each of the four ways of sharing; `make models` sets 250 of them, and tries every model."""


def both(tree: Tree, draws: int = 200, **options: Any) -> tuple[Tensor, Tensor]:
    """f of the same draws, by the engine and by the slow evaluator."""
    h, data = tree.hypothesis, draw(tree, draws, (0,))
    return Engine(h.data, **options).f(tree, data), run_scrubbed(tree, Activations(h.graph, h.data), data)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in EXTRAS])
def test_shipped_studies(name: str) -> None:
    """One engine for a study, its trees foreseen together, as a run has them."""
    study = load(name, {"rows": "400"} if name.startswith(("bracket", "modular", "induction")) else {})
    made = Engine(study.hypotheses[0].data)
    for h in study.hypotheses if CASES > 15 else study.hypotheses[:: 1 if len(study.hypotheses) < 8 else 4]:
        tree = unroll(h)
        made.foresee([tree])
        data = draw(tree, 100, (1,))
        slow = run_scrubbed(tree, Activations(h.graph, h.data), data)
        torch.testing.assert_close(made.f(tree, data), slow, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sharing", MODES)
def test_random_hypotheses_bit_for_bit(sharing: str) -> None:
    """Graphs with diamonds, nodes read twice, columns as labels; some with nodes copied."""
    for number, case in enumerate(cases(sharing) if CASES <= PER_MODE else cases(sharing, CASES)):
        fast, slow = both(unroll(build(case)), 50)
        assert torch.equal(fast, slow), (sharing, number)


def model(estimated: bool = True) -> Graph:
    """Heads that are split and put together again, a stream that all read, and an estimate."""
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(3, 6, 6, generator=generator, dtype=torch.float64)
    graph = Graph.of(
        {
            "a": lambda x: torch.einsum("bpi,ij->bpj", x, w[0]).tanh(),
            "b": lambda x, a: torch.einsum("bpi,ij->bpj", x + a, w[1]).tanh(),
            "r": lambda x, a, b: x + a + b,
            "logit": lambda r: torch.einsum("bpi,ij->bj", r, w[2]),
            "f": lambda logit, y: (logit.sum(1) - y).square(),
        },
        ["x", "y"],
        "f",
    )
    graph = split(graph, "a", 2, {f"a.h{i}": [2 * i, 2 * i + 1] for i in range(3)}, 6)
    graph = split(graph, "b", 1, {"b.even": [0, 2], "b.odd": [1, 3]}, 4)
    graph = own_copy(graph, "a.h0", {"a.h0 for r": ["r"]})
    return with_estimate(graph, "r", lambda x: 0.9 * x, ["x"]) if estimated else graph


ROWS = 120
DATA = Dataset(
    {
        "x": torch.randn(ROWS, 4, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64),
        "y": (torch.arange(ROWS) % 5).double(),
    },
    weights=torch.arange(ROWS) % 7 + 1.0,
)


def claims() -> list[Claim]:
    y, third = Claim("y", "y"), torch.arange(ROWS) % 3
    heads = [Claim(f"a.h{i}", torch.arange(ROWS) // (20 + i)) for i in range(2)]
    b = Claim("b", reads=heads, paths="any")
    return [
        Claim("f", reads=[y, Claim("logit", reads=[Claim("r", reads=[b])])]),
        Claim("f", reads=[y, Claim("logit", reads=[Claim("r", reads=[Claim("r.phi", third)])])]),
        Claim("f", reads=[y, Claim("logit", reads=[Claim("a.h0", "y"), Claim("b.odd", reads=[heads[1]])])]),
        Claim("f", reads=[Claim("y", "exact"), Claim("a.h1", "exact"), Claim("b.even", third)]),
    ]


@pytest.mark.parametrize("sharing", ["reader", "all", "each"])
@pytest.mark.parametrize("number", range(4))
def test_splits_estimates_and_paths(number: int, sharing: Any) -> None:
    tree = unroll(Hypothesis("h", model(), DATA, claims()[number], sharing))
    fast, slow = both(tree)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    for options in ({"memory": 1}, {"memory": 40_000}, {"chunk": 7}):
        torch.testing.assert_close(both(tree, **options)[0], slow, rtol=1e-12, atol=1e-12)


def test_what_is_not_kept_is_computed_for_the_draws() -> None:
    tree = unroll(Hypothesis("h", model(), DATA, claims()[0]))
    poor, rich = (Engine(DATA, memory=memory) for memory in (1, 2**30))
    for made in (poor, rich):
        made.foresee([tree])
    assert not poor.kept(tree.hypothesis.graph).held and rich.kept(tree.hypothesis.graph).held


def test_slices_that_are_put_together_again_are_the_whole() -> None:
    """Nothing of a value that is taken whole from one datum is cut up and joined."""
    values = Values(model())
    assert values[values.on_data("f")].kind is Kind.ON_D
    assert [value for value in values.known if isinstance(value.of, Whole)] == []


def test_a_split_graph_and_what_it_was_split_from_are_the_same_values() -> None:
    """E_randomised is that of the graph that was begun with: nothing is computed twice for it."""
    graph = model(estimated=False)
    values, first = Values(graph), graph.original
    assert first is not graph and len(first.nodes) < len(graph.nodes)
    made = values.run([first.output], {name: values.on_data(name) for name in graph.inputs}, first)
    assert made[first.output] == values.on_data(graph.output)


def test_a_shared_value_is_computed_once() -> None:
    calls: Counter[str] = Counter()

    def counted(name: str, fn: Any) -> Any:
        def run(*values: Tensor) -> Tensor:
            calls[name] += len(values[0])
            return fn(*values)

        return run

    nodes = {
        "s": counted("s", lambda x: x * 2),
        "t": counted("t", lambda s: s + 1),
        "u": counted("u", lambda s: s - 1),
        "f": counted("f", lambda t, u, x: t * u + x),
    }
    reads = {"s": ("x",), "t": ("s",), "u": ("s",), "f": ("t", "u", "x")}
    graph = Graph([Node(name, reads[name], fn) for name, fn in nodes.items()], ["x"], "f")
    data = Dataset({"x": torch.arange(60.0)})
    s = Claim("s", lambda d: d["x"] % 3)
    tree = unroll(Hypothesis("h", graph, data, Claim("f", reads=[Claim("t", reads=[s]), Claim("u", reads=[s])])))
    made = Engine(data)
    made.foresee([tree])
    before, drawn = Counter(calls), draw(tree, 1000, (0,))
    made.f(tree, drawn)
    assert before["s"] < 120  # each row once, and a few to find sizes
    assert calls["s"] == before["s"]  # of one datum in each path: gathered, never run again
    assert calls["f"] - before["f"] in range(1000, 1010)


def test_data_that_cannot_differ_are_one() -> None:
    """A site whose blocks have one row has its parent's datum: what is exact is not mixed."""
    claim = Claim("f", reads=[Claim("y", "exact"), Claim("logit", reads=[Claim("r", "exact")])])
    plan = make_plan(Values(model()), unroll(Hypothesis("h", model(), DATA, claim, "each")))
    assert plan.mixed == () and plan.datum["f/y"] == "f"


# Traced transformers


def mixture() -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2, bos_token_id=None, eos_token_id=None,
        attn_implementation="eager", experts_implementation="batched_mm",
    )  # fmt: skip
    return Logits(MixtralForCausalLM(config))


MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2": (lambda: gpt2("sdpa"), GPT2_CUTS),
    "llama": (lambda: llama("sdpa"), LLAMA_CUTS),
    "mixtral": (mixture, {name: cut for name, cut in LLAMA_CUTS.items() if name[0] in "zv"}),
}


@pytest.mark.parametrize("kind", MODELS if CASES > 15 else ["gpt2"])
def test_transformers_with_random_weights(kind: str) -> None:
    """A path from an early head's output into a late one, all else drawn anew or taken whole."""
    torch.manual_seed(0)
    build_module, cuts = MODELS[kind]
    tokens = torch.randint(0, VOCABULARY, (40, 8), generator=torch.Generator().manual_seed(1))
    loss = Node("loss", ("logits", "tokens"), lambda z, t: z.logsumexp(-1).sum(1) - z[:, -1, 0] + 0 * t[:, 0])
    data = Dataset({"tokens": tokens})
    graph = trace(build_module().eval(), data, cuts=cuts, inputs=["tokens"], output="logits", behaviour=loss)
    late = Claim("z1", reads=[Claim("z0", tokens[:, 0] % 3)])
    claim = Claim("loss", reads=[Claim("tokens", "exact"), Claim("logits", reads=[late])])
    for sharing in ("reader", "each"):
        tree = unroll(Hypothesis(kind, graph, data, claim, sharing))
        fast, slow = both(tree, 60)
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
        assert float(slow.std()) > 0


# Planted faults


def test_sites_merged_whose_data_differ_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = unroll(Hypothesis("h", model(), DATA, claims()[0]))

    def merged(values: Values, tree: Tree, replaced: Replaced) -> Plan:
        """As if nothing could be swapped at one leaf."""
        leaf = tree.leaves[-1]
        sites = {p: replace(s, partition=Partition.finest(DATA)) if p == leaf else s for p, s in tree.sites.items()}
        return make_plan(values, replace(tree, sites=sites), replaced)

    monkeypatch.setattr(engine, "make_plan", merged)
    fast, slow = both(tree)
    assert not torch.allclose(fast, slow)


def test_a_stale_value_is_caught() -> None:
    """Without an estimate, whose error and residual would cancel."""
    tree = unroll(Hypothesis("h", model(estimated=False), DATA, claims()[0]))
    data, made = draw(tree, 200, (0,)), Engine(DATA)
    made.foresee([tree])
    slow, kept = made.f(tree, data), made.kept(tree.hypothesis.graph)
    for number, value in list(kept.held.items()):
        kept.held[number] = value.roll(1, 0)
        changed = not torch.allclose(made.f(tree, data), slow)
        kept.held[number] = value
        assert changed == (number in made.plan(tree).frontier_of(made.asked(tree).roots)), number


def test_slices_taken_for_the_whole_that_are_not_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """One datum's slice beside another's is no whole of either."""

    def careless(self: Values, whole: Whole, args: tuple[int, ...]) -> int | None:
        return source(self, whole, (args[0], *args[:1] * (len(args) - 1))) or self[args[0]].args[0]

    source = Values._source
    tree = unroll(Hypothesis("h", model(), DATA, claims()[0]))
    monkeypatch.setattr(Values, "_source", careless)
    with contextlib.suppress(GraphError):  # of sizes: what reads the whole was given a slice
        fast, slow = both(tree)
        assert not torch.allclose(fast, slow)
