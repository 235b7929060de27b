"""What a scrub of a real language model costs beside plain forwards over the same rows: SmolLM2-135M, 30 layers."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pscrub import EXACT, Claim, Dataset, Graph, Hypothesis, Node, input_of, scrub, split, trace
from pscrub.evaluate.engine import Engine
from pscrub.graph import trace_all
from pscrub.hypothesis.tree import unroll
from pscrub.studies.smollm2 import HEADS, WIDTH, is_smollm2_there, load_smollm2
from tests.benchmarks.timing import short, table

HALF = 24
THREE, ALL = (16, 17, 18), tuple(range(30))
CASES = (
    ("three layers", THREE, 1),
    ("all layers, every head", ALL, 1),
    ("three layers, nine hypotheses", THREE, HEADS),
)


class Logits(nn.Module):
    """The model, of tokens alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return logits


def load() -> Logits | None:
    """The model; None where what brings it is not installed."""
    return Logits(load_smollm2()) if is_smollm2_there() else None


def repeated_tokens(rows: int) -> Dataset:
    """Random tokens, and the same again: int64 [rows, 49]."""
    half = torch.randint(100, 40_000, (rows, HALF), generator=torch.Generator().manual_seed(0))
    return Dataset({"tokens": torch.cat([torch.ones(rows, 1, dtype=torch.int64), half, half], 1)})


def loss_on_repeat(logits: Tensor, tokens: Tensor) -> Tensor:
    """[rows]: the mean loss of next tokens in the second half."""
    flat = nn.functional.cross_entropy(
        logits[:, HALF + 1 : -1].flatten(0, 1), tokens[:, HALF + 2 :].flatten(), reduction="none"
    )
    return flat.reshape(len(logits), -1).mean(1)


LOSS = Node("loss", ("logits", "tokens"), loss_on_repeat)


def cuts_of(layers: Sequence[int]) -> dict[str, Any]:
    """q, k, v and z of some layers."""
    cuts: dict[str, Any] = {}
    for layer in layers:
        at = f"model.model.layers.{layer}.self_attn"
        cuts |= {f"{name}{layer}": f"{at}.{name}_proj" for name in "qkv"}
        cuts[f"z{layer}"] = input_of(f"{at}.o_proj")
    return cuts


def trace_model(model: Logits, data: Dataset, layers: Sequence[int]) -> Graph:
    """q, k, v and z of some layers, each z cut into heads."""
    graph = trace(model, data, cuts=cuts_of(layers), inputs=["tokens"], output="logits", behaviour=LOSS, check_rows=3)
    size = WIDTH // HEADS
    for layer in layers:
        parts = {f"z{layer}.h{i}": slice(size * i, size * (i + 1)) for i in range(HEADS)}
        graph = split(graph, f"z{layer}", 2, parts, WIDTH)
    return graph


def into_keys(graph: Graph, data: Dataset, head: str, layers: Sequence[int]) -> Hypothesis:
    """A head does nothing by the keys of a head in each later layer, nor directly: all else is exact."""
    shown = Hypothesis("all", graph, data, Claim("loss", EXACT))
    known = {head: Claim(head, torch.zeros(data.n), words="nothing")}

    def claim(at: str, reads: Sequence[Claim]) -> Claim:
        rest = shown.unimportant(Claim(at, reads=reads))
        known[at] = Claim(at, reads=[*reads, *(known.setdefault(name, Claim(name, EXACT)) for name in rest)])
        return known[at]

    readers = []
    for layer in layers:
        key = claim(f"k{layer}", [known[head]])
        readers.append(claim(f"z{layer}.h{layer % HEADS}", [key]))
    label = known.setdefault("tokens", Claim("tokens", EXACT))
    return Hypothesis(f"{head} into keys", graph, data, Claim("loss", reads=[label, claim("logits", readers)]))


def report(quick: bool, device: str = "cpu") -> Iterator[str]:
    """A table: seconds of tracing (on the CPU), of forwards, and of a scrub with all that it takes."""
    yield "### A language model beside its own forwards"
    model = load()
    if model is None:
        yield "SmolLM2-135M is not installed (the extra `smollm2`): nothing was measured."
        return
    rows = 16 if quick else 64
    data = repeated_tokens(rows)
    yield (
        f"SmolLM2-135M, {rows} rows of {2 * HALF + 1} tokens, {rows} draws of each hypothesis, on {device}. *Scrub*: "
        "everything after tracing, from checks to the interval. *Forwards*: the model on as many rows as D and the "
        "draws have, mean of before and after. Of a ladder D is passed once."
    )
    yield from _cut_later(model, data)
    found, graphs, there = [], {}, copy.deepcopy(model).to(device)
    for case, layers, heads in CASES:
        if layers not in graphs:
            start = time.perf_counter()
            graphs[layers] = trace_model(model, data, layers), time.perf_counter() - start
        graph, traced = graphs[layers]
        ladder = [into_keys(graph, data, f"z16.h{head}", (17, 18)) for head in range(heads)]
        before = _seconds(partial(_forwards, there, data, 1 + heads))
        spent = _seconds(partial(scrub, ladder, draws=rows, device=device))
        after = _seconds(partial(_forwards, there, data, 1 + heads))
        plain, engine, tree = (before + after) / 2, Engine(data, device), unroll(ladder[0])
        mixed = len(engine.plan(tree).mixed_of(engine.asked(tree).roots))
        found.append((case, short(traced), short(plain), short(spent), f"{spent / plain:.2f}", f"{mixed:,}"))
    yield table(("cuts", "trace, s", "forwards, s", "scrub, s", "scrub / forwards", "operations for each draw"), found)


def _cut_later(model: Logits, data: Dataset) -> Iterator[str]:
    """Seconds of one export for all cuts, beside one for each set of cuts."""
    start = time.perf_counter()
    traced = trace_all(model, data, inputs=["tokens"], check_rows=3)
    rows = [(f"`trace_all`, {len(traced.points)} points", short(time.perf_counter() - start))]
    for case, layers, _ in CASES[:2]:
        cuts = cuts_of(layers)
        later = partial(traced.graph, cuts, output="logits", behaviour=LOSS)
        own = partial(trace, model, data, cuts=cuts, inputs=["tokens"], output="logits", behaviour=LOSS, check_rows=3)
        rows.append((f"{case}, from it", short(_seconds(later))))
        rows.append((f"{case}, `trace` alone", short(_seconds(own))))
    yield table(("tracing", "s"), rows)


def _forwards(model: Logits, data: Dataset, times: int) -> None:
    device = next(model.parameters()).device
    with torch.no_grad():
        for _ in range(times):
            for some in data["tokens"].split(16):
                model(some.to(device))
    if device.type != "cpu":
        torch.cuda.synchronize(device)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
