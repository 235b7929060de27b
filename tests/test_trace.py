"""Graphs traced from torch modules: what plain hooks on the module tell must come out, to the bit."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from pscrub.dataset import Dataset
from pscrub.errors import TraceError
from pscrub.graph import Graph, Node
from pscrub.rewrites import split
from pscrub.trace import Cut, input_of, output_of, trace

VOCABULARY, POSITIONS, WIDTH, HEADS = 19, 6, 16, 4


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------------- the three families


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, *, mask: Tensor) -> tuple[Tensor, Tensor]:
        rows, positions, _ = x.shape
        q, k, v = (f(x).view(rows, positions, HEADS, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        pattern = (q @ k.mT / 2).masked_fill(mask, -torch.inf).softmax(-1)
        return self.project((pattern @ v).transpose(1, 2).flatten(2)), pattern


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(inplace=True), nn.Linear(32, WIDTH), nn.Dropout(0.1))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), mask=mask)[0]
        return x + self.mlp(self.norm2(x))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(POSITIONS, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.register_buffer("mask", torch.ones(POSITIONS, POSITIONS, dtype=torch.bool).triu(1), persistent=False)
        self.norm, self.unembed = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.unembed.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x, self.mask)
        return self.unembed(self.norm(x))


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens, use_cache=False).logits


def gpt2(attention: str) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=8, n_embd=WIDTH, n_layer=2, n_head=HEADS, attn_implementation=attention,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return Logits(GPT2LMHeadModel(config))


def llama(attention: str) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=2, attn_implementation=attention, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return Logits(LlamaForCausalLM(config))


PLAIN_CUTS: dict[str, str | Cut] = {"position": "positions"}
GPT2_CUTS: dict[str, str | Cut] = {"position": "model.transformer.wpe"}
LLAMA_CUTS: dict[str, str | Cut] = {"cos": output_of("model.model.rotary_emb", index=0)}
for i in range(2):
    block = f"blocks.{i}"
    PLAIN_CUTS |= {f"x{i}": input_of(block), f"a{i}": f"{block}.attention", f"m{i}": f"{block}.mlp"}
    PLAIN_CUTS |= {f"z{i}": input_of(f"{block}.attention.project"), f"k{i}": f"{block}.attention.key"}
    block = f"model.transformer.h.{i}"
    GPT2_CUTS |= {f"x{i}": input_of(block), f"a{i}": f"{block}.attn", f"m{i}": f"{block}.mlp"}
    GPT2_CUTS |= {f"z{i}": input_of(f"{block}.attn.c_proj"), f"r{i}": output_of(block)}
    block = f"model.model.layers.{i}"
    LLAMA_CUTS |= {f"x{i}": input_of(block), f"a{i}": f"{block}.self_attn", f"m{i}": f"{block}.mlp"}
    LLAMA_CUTS |= {f"z{i}": input_of(f"{block}.self_attn.o_proj"), f"v{i}": f"{block}.self_attn.v_proj"}
    LLAMA_CUTS |= {f"h{i}": input_of(f"{block}.self_attn", index="hidden_states")}


@dataclass(frozen=True)
class Traced:
    module: nn.Module
    cuts: dict[str, str | Cut]
    data: Dataset
    graph: Graph


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    return functional.cross_entropy(logits[:, -1], label, reduction="none")


LOSS = Node("loss", ("logits", "label"), cross_entropy)
FAMILIES: dict[str, tuple[Callable[[], nn.Module], dict[str, str | Cut]]] = {
    "plain": (Plain, PLAIN_CUTS),
    "gpt2-eager": (lambda: gpt2("eager"), GPT2_CUTS),
    "gpt2-sdpa": (lambda: gpt2("sdpa"), GPT2_CUTS),
    "llama-eager": (lambda: llama("eager"), LLAMA_CUTS),
    "llama-sdpa": (lambda: llama("sdpa"), LLAMA_CUTS),
}


@pytest.fixture(scope="module")
def tokens() -> Dataset:
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(VOCABULARY, (20, POSITIONS), generator=generator)
    return Dataset({"tokens": words, "label": torch.randint(VOCABULARY, (20,), generator=generator)})


@pytest.fixture(scope="module", params=FAMILIES)
def traced(request: pytest.FixtureRequest, tokens: Dataset) -> Traced:
    build, cuts = FAMILIES[request.param]
    module = seeded(build)
    return Traced(module, cuts, tokens, trace(module, tokens, cuts=cuts, output="logits", behaviour=LOSS))


def hooked(module: nn.Module, cut: str | Cut, see: Callable[[Tensor], Tensor | None]) -> Any:
    """A hook of our own, written without the package's: `see` gets the tensor and may return another in its place."""
    if isinstance(cut, Cut) and cut.side == "input":

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            new = see(args[0] if args else kwargs["hidden_states"])
            if new is None:
                return None
            return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

        return module.get_submodule(cut.path).register_forward_pre_hook(before, with_kwargs=True)

    def after(_: nn.Module, args: tuple[Any, ...], result: Any) -> Any:
        new = see(result if isinstance(result, Tensor) else result[0])
        return new if new is None or isinstance(result, Tensor) else (new, *result[1:])

    return module.get_submodule(cut if isinstance(cut, str) else cut.path).register_forward_hook(after)


@pytest.mark.parametrize("size", [1, 2, 7, 20])
def test_cuts_equal_what_hooks_record(traced: Traced, size: int) -> None:
    columns = {name: traced.data[name][:size] for name in traced.data.names}
    recorded: dict[str, Tensor] = {}
    for name, cut in traced.cuts.items():
        handle = hooked(traced.module, cut, lambda value, name=name: recorded.update({name: value.clone()}))
        with torch.no_grad():
            recorded["logits"] = traced.module(columns["tokens"])
        handle.remove()
    recorded["loss"] = cross_entropy(recorded["logits"], columns["label"])
    assert set(recorded) == set(traced.graph.nodes)
    for name, value in traced.graph.run(recorded, columns).items():
        assert len(value) == size
        assert torch.equal(value, recorded[name].expand_as(value)), name


def test_setting_a_node_equals_overwriting_the_submodule(traced: Traced) -> None:
    given = {"tokens": traced.data["tokens"][:7]}
    values = traced.graph.run(traced.cuts, given)
    unchanged = traced.graph.run(["logits"], given)["logits"]
    for name, cut in traced.cuts.items():
        other = draw(*values[name].shape)
        handle = hooked(traced.module, cut, lambda value, other=other: other)
        with torch.no_grad():
            expected = traced.module(given["tokens"])
        handle.remove()
        found = traced.graph.run(["logits"], given | {name: other})["logits"]
        assert torch.equal(found, expected), name
        assert not torch.equal(found, unchanged), name


class Operations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **kwargs or {})


def test_only_what_lies_between_is_run(traced: Traced) -> None:
    tokens = traced.data["tokens"][:7]
    last = {name: value for name, value in traced.graph.run(traced.cuts, {"tokens": tokens}).items() if name != "h1"}
    counts = []
    for given in ({"tokens": tokens}, last | {"tokens": tokens}):
        with Operations() as operations:
            traced.graph.run(["logits"], given)
        counts.append(operations.count)
    assert counts[1] <= 14
    assert counts[1] < counts[0] / 5


def test_a_graph_keeps_no_device_of_its_own(traced: Traced) -> None:
    moved = traced.graph.to("meta")
    given = {name: traced.data[name][:3].to("meta") for name in traced.data.names}
    values = moved.run(moved.nodes, given)
    assert {value.device.type for value in values.values()} == {"meta"}
    assert {value.device.type for value in traced.graph.run(["loss"], dict(traced.data.columns)).values()} == {"cpu"}


def test_nodes_read_the_nearest_names() -> None:
    words = torch.arange(30).view(5, 6) % VOCABULARY
    graph = trace(seeded(Plain), {"tokens": words}, cuts=PLAIN_CUTS)
    assert {name: node.inputs for name, node in graph.nodes.items()} == {
        "position": ("tokens",),
        "x0": ("tokens", "position"),
        "k0": ("x0",),
        "z0": ("x0", "k0"),
        "a0": ("z0",),
        "m0": ("x0", "a0"),
        "x1": ("x0", "a0", "m0"),
        "k1": ("x1",),
        "z1": ("x1", "k1"),
        "a1": ("z1",),
        "m1": ("x1", "a1"),
        "output": ("x1", "a1", "m1"),
    }
    assert graph.inputs == ("tokens",)
    assert graph.output == "output"


def test_heads_are_split_by_the_input_of_the_projection(traced: Traced) -> None:
    tokens = traced.data["tokens"][:7]
    width = WIDTH // HEADS
    heads = {f"z1.{h}": range(h * width, (h + 1) * width) for h in range(HEADS)}
    graph = split(traced.graph, "z1", axis=2, parts=heads, size=WIDTH)
    values = graph.run(["logits", *heads], {"tokens": tokens})
    assert torch.equal(values["logits"], traced.graph.run(["logits"], {"tokens": tokens})["logits"])
    zeroed = graph.run(["logits"], {"tokens": tokens, "z1.2": torch.zeros_like(values["z1.2"])})["logits"]

    def without_head(value: Tensor) -> Tensor:
        return torch.cat([value[..., : 2 * width], torch.zeros(7, POSITIONS, width), value[..., 3 * width :]], -1)

    handle = hooked(traced.module, traced.cuts["z1"], without_head)
    with torch.no_grad():
        expected = traced.module(tokens)
    handle.remove()
    assert torch.equal(zeroed, expected)


# --------------------------------------------------------------------------------------------------- small modules


class Doing(nn.Module):
    """A module whose forward is a function of the module and the columns."""

    def __init__(self, forward: Callable[..., Any], **submodules: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, submodule in submodules.items():
            self.add_module(name, submodule)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        return self.function(self, x) if y is None else self.function(self, x, y)


X = {"x": draw(20, 4)}


def in_place(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    y.relu_()
    y.view(-1, 2, 2)[:, 0] = 1
    with torch.autocast("cpu", torch.bfloat16):
        z = self.a(y)
    with torch.no_grad():
        return self.b(z.float()) * 2


def flattened(self: Any, x: Tensor) -> Tensor:
    rows = x.repeat_interleave(3, 0)
    mixed = self.a(rows) + torch.zeros(rows.shape[0], 1)
    return mixed.view(x.shape[0], 3, 4).sum(1)


def transposed(self: Any, x: Tensor) -> Tensor:
    by_head = self.a(x).view(-1, 2, 2).transpose(0, 1).transpose(0, 1).transpose(1, 2)
    return self.b(by_head).transpose(1, 2).reshape(-1, 4)


SMALL: dict[str, tuple[Callable[..., Tensor], dict[str, str | Cut]]] = {
    "mutation and autocast": (in_place, {"a0": output_of("a", call=0), "a1": output_of("a", call=1), "b": "b"}),
    "rows flattened with positions": (flattened, {}),
    "views by stride": (transposed, {"a": "a", "b": "b"}),
}  # fmt: skip


@pytest.mark.parametrize("case", SMALL)
def test_small_modules(case: str) -> None:
    forward, cuts = SMALL[case]
    b = nn.Linear(4, 4) if forward is in_place else nn.Identity()
    module = seeded(lambda: Doing(forward, a=nn.Linear(4, 4), b=b))
    graph = trace(module, X, cuts=cuts)
    for size in (1, 2, 7):
        with torch.no_grad():
            expected = module(X["x"][:size])
        assert torch.equal(graph.run(["output"], {"x": X["x"][:size]})["output"], expected)
    # Gathered rows are contiguous where the module's own values need not be.
    values = {name: value.contiguous() for name, value in graph.run(graph.nodes, X).items()}
    for name in cuts:
        assert torch.equal(graph.run(["output"], X | {name: values[name]})["output"], values["output"])


def test_the_number_of_rows_is_not_an_input() -> None:
    def forward(self: Any, x: Tensor, y: Tensor) -> Tensor:
        return self.b(self.a(x).view(x.shape[0], 2, 2) + torch.ones(y.shape[0], 1, 1)).flatten(1)

    module = Doing(forward, a=nn.Linear(4, 4), b=nn.Identity())
    graph = trace(module, X | {"y": draw(20, 2)}, cuts={"a": "a", "b": "b"})
    assert {node.name: node.inputs for node in graph.nodes.values()} == {"a": ("x",), "b": ("a",), "output": ("b",)}
    assert graph.inputs == ("x", "y")


def test_constants_are_repeated_in_every_row() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return x + self.b(self.a(torch.eye(4)))[0] + self.c(torch.ones(1, 4))

    module = Doing(forward, a=nn.Linear(4, 4), b=nn.ReLU(), c=nn.Identity())
    with pytest.raises(TraceError, match=r"node 'output' .* it reads 'b', one value for all rows"):
        trace(module, X, cuts={"b": "b"})  # its reader takes the first row of [4, 4], not of [batch, 4, 4]
    graph = trace(module, X, cuts={"c": "c"})
    assert graph.nodes["c"].inputs == ("x",)
    assert torch.equal(graph.run(["c"], {"x": torch.full((3, 4), torch.nan)})["c"], torch.ones(3, 4))


def test_one_tensor_under_two_names_costs_nothing() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU()).eval()
    graph = trace(module, X, cuts={"a": "0", "b": input_of("1"), "c": "1"})
    assert [node.view for node in graph.nodes.values()] == [False, True, True, False]
    values = graph.run(graph.nodes, X)
    assert values["a"] is values["b"] is values["c"]


def test_elements_and_calls_are_chosen() -> None:
    def forward(self: Any, x: Tensor) -> dict[str, Any]:
        low, high = self.halves(x)
        return {"note": "text", "sum": self.a(low) + self.a(high), "unread": high}

    halves = Doing(lambda self, x: (x[:, :2], x[:, 2:]))
    module = Doing(forward, halves=halves, a=nn.Linear(2, 3)).eval()
    graph = trace(
        module,
        X,
        cuts={
            "low": "halves",
            "high": output_of("halves", index=1),
            "first": output_of("a", call=0),
            "second": input_of("a", call=1),
            "unread": output_of("", index="unread"),
        },
    )
    values = graph.run(graph.nodes, X)
    assert torch.equal(values["low"], X["x"][:, :2])
    assert torch.equal(values["high"], X["x"][:, 2:])
    assert torch.equal(values["second"], X["x"][:, 2:])
    assert torch.equal(values["first"], module.get_submodule("a")(X["x"][:, :2]))
    assert graph.nodes["unread"].inputs == graph.nodes["second"].inputs == ("high",)
    assert graph.nodes["output"].inputs == ("first", "second")


def test_columns_go_where_they_are_said_to(tokens: Dataset) -> None:
    module = Doing(lambda self, x, y: x - 2 * y)
    data = {"y": draw(9, 3), "x": draw(9, 3) + 1, "other": torch.zeros(9), "text": ["a"] * 9}
    plain = data["x"] - 2 * data["y"]
    swapped = data["y"] - 2 * data["x"]
    for inputs, expected in ((None, plain), (["y", "x"], plain), ({"x": "y", "y": "x"}, swapped)):
        graph = trace(module, data, cuts={}, inputs=inputs)
        given = {name: data[name] for name in graph.inputs}
        assert torch.equal(graph.run(["output"], given)["output"], expected)
    columns = {"left": data["y"], "right": data["x"]}
    graph = trace(module, columns, cuts={}, inputs=["left", "right"])
    assert torch.equal(graph.run(["output"], columns)["output"], swapped)


def test_behaviours_stand_on_top() -> None:
    data = Dataset(X | {"label": torch.arange(20) % 2})
    margin = Node("margin", ("output",), lambda output: output[:, 1] - output[:, 0])
    loss = Node("loss", ("margin", "label"), lambda margin, label: functional.softplus(margin * (1 - 2.0 * label)))
    graph = trace(seeded(lambda: nn.Linear(4, 2)), data, cuts={}, inputs=["x"], behaviour=[margin, loss])
    assert graph.output == "loss"
    assert graph.inputs == ("x", "label")
    assert list(graph.nodes) == ["output", "margin", "loss"]


def test_one_row_and_halves_of_precision_do() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        module = seeded(lambda dtype=dtype: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).to(dtype))
        trace(module, {"x": X["x"][:1].to(dtype)}, cuts={"a": "0"})


# ------------------------------------------------------------------------------------------------------ what is left


def test_parameters_are_copied_once_and_shared() -> None:
    module = seeded(Plain)
    graph = trace(module, {"tokens": torch.arange(30).view(5, 6) % VOCABULARY}, cuts=PLAIN_CUTS)
    functions = [node.fn for node in graph.nodes.values()]
    assert all(isinstance(fn, torch.fx.GraphModule) for fn in functions)
    copies = {id(p): p for fn in functions for p in fn.parameters()}
    # The mask is copied too; embedding and unembedding are tied, and stay so.
    assert len(copies) == len(list(module.parameters())) + 1
    assert sum(p.numel() for p in copies.values()) == sum(p.numel() for p in module.parameters()) + POSITIONS**2
    assert not any(p.requires_grad for p in copies.values())
    moved = copy.deepcopy(nn.ModuleList(functions)).double()
    assert len(list(moved.parameters())) == len(copies)

    given = {"tokens": torch.zeros(2, POSITIONS, dtype=torch.int64)}
    before = graph.run(["output"], given)["output"]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert torch.equal(graph.run(["output"], given)["output"], before)


def state(module: nn.Module) -> tuple[Any, ...]:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in module.modules()]
    return hooks, [p.requires_grad for p in module.parameters()], [b.tolist() for b in module.buffers()]


def test_the_module_is_left_as_it_was_found() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 4))
    module[0].requires_grad_(False)
    module[3].eval()
    before, random, grad = state(module), torch.get_rng_state(), torch.is_grad_enabled()
    with pytest.raises(TraceError):
        trace(module, X, cuts={"a": "0", "b": input_of("3")})
    with pytest.raises(TraceError):
        trace(module, {"x": draw(5, 3)}, cuts={"a": "0"})
    with pytest.raises(TraceError):
        trace(module, X, cuts={"a": "0", "b": output_of("1", call=2)})
    assert state(module) == before
    module.eval()
    before = state(module)
    trace(module, X, cuts={"a": "0", "b": input_of("3")})
    assert state(module) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled() == grad


def test_an_interrupted_forward_leaves_no_hooks() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            raise KeyboardInterrupt
        return self.a(x)

    module = Doing(forward, a=nn.Linear(4, 4))
    with pytest.raises(KeyboardInterrupt):
        trace(module, X, cuts={"a": "a"})
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


# ------------------------------------------------------------------------------------------------------ what is refused


def refused(module: nn.Module, *messages: str, **arguments: Any) -> TraceError:
    with pytest.raises(TraceError) as caught:
        trace(module, arguments.pop("example", X), **({"cuts": {}} | arguments))
    for message in messages:
        assert message in str(caught.value)
    return caught.value


def test_all_unknown_names_are_told_together() -> None:
    module = nn.ModuleDict({"block_one": nn.Linear(4, 4)})
    error = refused(
        module,
        "node 'a': the module has no submodule 'block_on'; did you mean \"block_one\"?",
        "node 'x' has the name of a column of the example",
        "two nodes are named 'result'",
        "behaviour 'loss' reads unknown 'labels'; did you mean \"label\"?",
        "inputs name 'tokens', which is no column",
        "column 'text' holds strings, which no node can read",
        example=X | {"label": torch.zeros(20), "text": ["a"] * 20},
        cuts={"a": "block_on", "x": "block_one", "result": "block_one"},
        inputs=["tokens", "text"],
        output="result",
        behaviour=Node("loss", ("result", "labels"), lambda result, labels: result),
    )
    assert len(error.faults) == 6


def test_unknown_parameters_of_forward() -> None:
    refused(nn.Linear(4, 4), "forward has no parameter 'imput'; did you mean \"input\"?", inputs={"imput": "x"})
    example = X | {"z": torch.zeros(20)}
    refused(nn.Linear(4, 4), "no column (x, z) is named like a parameter of forward (input)", example=example)
    refused(nn.Linear(4, 4), "say which it takes", inputs=[])


def test_submodules_called_never_or_often() -> None:
    attention = seeded(lambda: nn.MultiheadAttention(4, 2, batch_first=True))
    module = Doing(lambda self, x: self.a(x[:, None], x[:, None], x[:, None])[0] + self.b(self.b(x)), a=attention)
    module.b = nn.Linear(4, 4)
    refused(
        module,
        "node 'out': submodule 'a.out_proj' is never called in forward",
        "node 'twice': submodule 'b' is called 2 times; say which, as in output_of('b', call=0)",
        "node 'third': input_of('b', call=2), but the submodule is called 2 times: 0 to 1",
        cuts={"out": "a.out_proj", "twice": "b", "third": input_of("b", call=2)},
    )


def test_values_that_are_no_tensors_or_not_batch_first() -> None:
    pair = Doing(lambda self, x: ("text", x))
    module = Doing(lambda self, x: self.b(self.a(x)[1].flatten()).view(-1, 4).sum(0), a=pair, b=nn.Identity())
    refused(
        module,
        "node 'text': output_of('a', index=0) is a str; expected a tensor",
        "node 'none': output_of('a', index=2) is nothing; expected a tensor",
        "node 'word': input_of('a', index='word') is nothing; expected a tensor",
        cuts={"text": output_of("a", index=0), "none": output_of("a", index=2), "word": input_of("a", index="word")},
    )
    error = refused(
        module, "the value of 'b' has shape [4*batch]", "the value of 'output' has shape [4]", cuts={"b": "b"}
    )
    assert len(error.faults) == 2
    refused(Doing(lambda self, x: x[x[:, 0] > 0]), "shape [(number that depends on the data), 4]")
    refused(Doing(lambda self, x: "text"), "the module returns a str, in which no tensor was found for 'output'")


def branching(self: Any, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x  # the line that is told


def looping(self: Any, x: Tensor) -> Tensor:
    return torch.stack([x[row] for row in range(x.shape[0])])


def through_numpy(self: Any, x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy() * 2)


def failing(self: Any, x: Tensor) -> Tensor:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    ("forward", "messages"),
    [
        (branching, ["forward branches on", "test_trace.py:", "the line that is told"]),
        (looping, ["does not work for every number of rows", "range(len(x))", "constant (5)."]),
        (lambda self, x: x if x.shape[0] % 2 else 2 * x, ["does not work for every number of rows", "% 2"]),
        (through_numpy, ["torch.export refuses the module: RuntimeError", ".numpy()", "return torch.from_numpy"]),
        (failing, ["the module does not run on 5 rows of the example: RuntimeError: on purpose", "test_trace.py:"]),
    ],
)
def test_modules_that_do_not_export(
    forward: Callable[..., Any], messages: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    error = refused(Doing(forward), *messages)
    assert isinstance(error.__cause__, Exception)
    assert "def forward" not in "".join(capfd.readouterr())


def counting(self: Any, x: Tensor) -> Tensor:
    self.calls = getattr(self, "calls", 0) + 1
    return x * self.calls


def adding_behind(self: Any, x: Tensor) -> Tensor:
    y = x + 1
    self.a(y)  # changes what it is given, of which a cut gives it a copy
    return y


def centred(self: Any, x: Tensor) -> Tensor:
    return x - x.mean(0)


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


def test_graphs_that_would_differ_from_their_module() -> None:
    advice = "try module.eval()"
    dropout = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4))
    error = refused(dropout, "node 'b' differs from the module by ", advice, cuts={"a": "0", "b": "1"})
    assert "'a'" not in str(error)
    refused(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "changes its buffers '1.running_mean'", advice)
    unbuffered = nn.BatchNorm1d(4, track_running_stats=False)
    refused(unbuffered, "does not run on 1 rows of the example: ValueError: Expected more than 1 value", advice)
    message = "node 'output' of one row changes by"
    refused(unbuffered, message, "rows must not interact", advice, example={"input": draw(20, 4, 3)})
    cut = {"y": input_of("a")}
    for forward, message, cuts in (
        (counting, "keeps state", {}),
        (adding_behind, "changes in place", cut),
        (centred, "interact", {}),
    ):
        module = Doing(forward, a=Doubling()).eval()
        assert advice not in str(refused(module, "node 'output'", message, cuts=cuts))


def test_behaviours_that_fail_or_lose_the_rows() -> None:
    module = seeded(lambda: nn.Linear(4, 4))
    for fn, message in (
        (lambda output: output.mean(), "node 'f' gives a Tensor of shape [] for 1 rows; expected a tensor, [1, ...]"),
        (lambda output: 1.0, "node 'f' gives a float for 1 rows"),
        (lambda output: output @ output, "node 'f' fails on 1 rows of the example: RuntimeError"),
        (lambda output: output / len(output), "node 'f' of one row changes by"),
    ):
        refused(module, message, behaviour=Node("f", ("output",), fn))


def test_cuts_inside_control_flow_are_refused() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.ops.higher_order.map_impl(lambda row: (self.a(row),), (x,), ())[0]

    cut = output_of("a", call=0)
    refused(Doing(forward, a=nn.Identity()).eval(), "torch.export refuses the module", cuts={"a": cut})
