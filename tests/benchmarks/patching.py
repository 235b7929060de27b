"""Direct path patching of head-to-head pairs: TransformerLens's, one forward a pair, and the same edges scrubbed."""

from __future__ import annotations

import copy
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pscrub import EXACT, Claim, Dataset, Graph, Hypothesis, open_decoder
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.plan import Kind
from pscrub.graph import carve
from pscrub.hypothesis.tree import Tree, unroll
from tests.benchmarks.timing import short, table

LAYERS = HEADS = 12
ROWS, POSITIONS = 8, 20
PAIRS, FEW = 60, 6
Head = tuple[int, int]


def report(quick: bool) -> Iterator[str]:
    """Values, flops and seconds of both on the same pairs; a word where TransformerLens is not installed."""
    width, vocabulary = (96, 500) if quick else (768, 50_257)
    pairs = [
        ((i, a), (j, b)) for j in range(LAYERS) for i in range(j) for a in range(HEADS) for b in range(HEADS)
    ]  # fmt: skip
    chosen = random.Random(0).sample(pairs, FEW if quick else PAIRS)
    model = gpt2(width, vocabulary)
    ids = torch.randint(0, vocabulary, (2 * ROWS, POSITIONS), generator=torch.Generator().manual_seed(0))
    ours = Ours(model, ids)
    theirs = Theirs.of(model, ids)
    if theirs is None:
        yield "TransformerLens is not installed here (`make bridges` installs it): direct path patching not compared."
        return
    times = {"TransformerLens": list[float](), "pscrub": list[float]()}
    gap = 0.0
    for source, reader in chosen:  # in turn, so that a busy spell of the machine hits both alike
        began = time.perf_counter()
        expected = theirs.patch(source, reader)
        between = time.perf_counter()
        found = ours.patch(source, reader)
        times["TransformerLens"].append(between - began)
        times["pscrub"].append(time.perf_counter() - between)
        gap = max(gap, float((expected - found).abs().max() / expected.abs().max()))
    flops = {"TransformerLens": theirs.flops(), "pscrub": statistics.mean(ours.flops(*pair) for pair in chosen)}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    forward = counter.get_total_flops() / len(ids)
    rows = [
        (name, short(flops[name] / 1e6), short(flops[name] / forward), short(1e3 * statistics.median(times[name])))
        for name in times
    ]
    yield (
        f"Direct path patching into queries, GPT-2 of {LAYERS} layers of {HEADS} heads, width {width}, random weights, "
        f"{ROWS} rows of {POSITIONS} tokens, logit difference at the end: {len(chosen)} of {len(pairs):,} pairs; "
        f"medians; the largest difference of values is {gap:.1e} of the largest.\n\n"
        + table(("", "Mflop a row and pair", "forwards", "ms a pair"), rows)
    )


def gpt2(width: int, vocabulary: int) -> Any:
    import transformers

    torch.manual_seed(0)
    sizes = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": width, "vocab_size": vocabulary, "n_positions": 64}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, initializer_range=0.1)
    return transformers.GPT2LMHeadModel(config).eval()


class Ours:
    """All heads' z and queries as nodes of one graph; a hypothesis for each pair, its data given."""

    def __init__(self, model: Any, ids: Tensor) -> None:
        rows = torch.arange(2 * ROWS)
        self.data = Dataset({"input_ids": ids, "good": rows, "bad": rows + 100})
        decoder = open_decoder(model, self.data)
        names = [f"{i}.{a}" for i in range(LAYERS) for a in range(HEADS)]
        names += [f"{name}.q" for name in names]
        loss = decoder.logit_difference("good", "bad")
        graph = decoder.graph([*decoder.components, *names], loss)
        self.graph: Graph = carve(graph, self.data, [replace(decoder.piece(name), name=name) for name in names])
        self.engine = Engine(self.data)

    def tree(self, source: Head, reader: Head) -> Tree:
        z = Claim(f"{source[0]}.{source[1]}", torch.zeros(2 * ROWS, dtype=torch.int64))
        query = Claim(f"{reader[0]}.{reader[1]}.q", reads=[z], rest=EXACT)
        root = Claim(self.graph.output, reads=[query], paths="any", rest=EXACT)
        return unroll(Hypothesis("pair", self.graph, self.data, root))

    def patch(self, source: Head, reader: Head) -> Tensor:
        """[rows]: f where the reader's query reads what the source writes on the other rows."""
        tree = self.tree(source, reader)
        own, other = torch.arange(ROWS), torch.arange(ROWS, 2 * ROWS)
        z = f"/{source[0]}.{source[1]}"
        return self.engine.f(tree, {path: other if path.endswith(z) else own for path in tree.sites})

    def flops(self, source: Head, reader: Head) -> float:
        """A row, of what is computed for a draw."""
        tree = self.tree(source, reader)
        plan, kept, roots = self.engine.plan(tree), self.engine.kept(self.graph), self.engine.asked(tree).roots
        kept.code_of_draws(plan, roots)
        read = {*roots, *(n for each in plan.mixed_of(roots) for n in plan.values[each].args)}
        gathered = {
            n for n in read if plan.values[n].kind is Kind.PURE and plan.values.has_rows(plan.values[n].args[0])
        }
        return sum(kept.flops(kept.code(roots, gathered)).values())


class Theirs:
    """TransformerLens's bridge over the same model."""

    def __init__(self, bridge: Any, patching: Any, ids: Tensor) -> None:
        self.bridge, self.patching, self.ids = bridge, patching, ids[:ROWS]
        self.caches = [bridge.run_with_cache(each)[1] for each in (ids[ROWS:], ids[:ROWS])]

    @classmethod
    def of(cls, model: Any, ids: Tensor) -> Theirs | None:
        try:
            from transformer_lens import patching
            from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
        except ImportError:
            return None
        own = copy.deepcopy(model)
        with torch.no_grad():
            bridge = build_bridge_from_module(own, "GPT2LMHeadModel", hf_config=own.config).eval()
            return cls(bridge, patching, ids)

    def patch(self, source: Head, reader: Head) -> Tensor:
        """[rows]: by its own hook on the reader's copy of the stream, one forward."""
        bridge, (clean, own) = self.bridge, self.caches
        z, (layer, head) = f"blocks.{source[0]}.attn.hook_z", source
        weight = bridge.blocks[layer].attn.W_O[head]
        delta = (clean[z][:, :, head] - own[z][:, :, head]) @ weight
        hook = self.patching._make_direct_path_hook(delta, reader[1], [])
        with torch.no_grad(), self.patching._split_qkv_input(bridge):
            logits = bridge.run_with_hooks(self.ids, fwd_hooks=[(f"blocks.{reader[0]}.attn.hook_q_input", hook)])
        rows = torch.arange(ROWS)
        return (logits[rows, -1, rows] - logits[rows, -1, rows + 100]).double()

    def flops(self) -> float:
        """A row, of one pair."""
        with FlopCounterMode(display=False) as counter:
            self.patch((0, 0), (1, 0))
        return counter.get_total_flops() / ROWS
