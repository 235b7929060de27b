"""Heads measured on prompts: where they attend, what they add to the answer, and what it costs to swap them at the end.

All of it on the selection half, in a forward over the prompts and a few over their last token alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pscrub.data.dataset import Dataset

Head = tuple[int, int]
"""Layer and number."""
PLACES = {
    "END to IO": (None, "IO", 0),
    "END to S1": (None, "S1", 0),
    "END to S2": (None, "S2", 0),
    "S2 to S1": ("S2", "S1", 0),
    "S2 to S1+1": ("S2", "S1", 1),
    "S1+1 to S1": ("S1+1", "S1", 0),
}
"""Name -> the column of the position that attends (None for the last one), that of the one attended to, an offset."""
GATES = (0.1, 0.37, 0.63, 0.9)
"""Shares of a head's own output, the rest of another prompt's, at which the loss's slope is taken."""
AT_END, BELOW = 0.25, 0.4
"""From what mean share of its attention on a head is said to attend to a place, at the end and at the names."""
SHARE = 0.05
"""From what share of the logit difference on a head is said to add to it; of the loss's range, to matter."""


@dataclass(frozen=True)
class Measured:
    """What was measured, each float64 [layers, heads].

    Args:
        attention: a name in PLACES -> the mean attention there.
        direct: what a head at the end adds to the logit difference itself, past the last norm as it is.
        matters: how much larger the loss is when the head at the end is another prompt's, in nats: its slope, averaged
            between all heads their own and none. Negative where the head harms.
        matters_to_difference: by how much the logit difference is then smaller.
        loss: the model's.
        guess: the loss with the answers of other prompts.
        difference: the model's mean logit difference.
    """

    attention: dict[str, Tensor]
    direct: Tensor
    matters: Tensor
    matters_to_difference: Tensor
    loss: float
    guess: float
    difference: float


@dataclass(frozen=True)
class Found:
    """Heads by what was measured, those that matter most first.

    Args:
        ranked: all heads, by how much they matter to the loss, either way.
        helpful: all heads, those that lower the loss most first.
        by_difference: all heads, by how much they matter to the logit difference, either way.
        movers: attend from the end to IO and add to the logit difference.
        negative: attend from the end to IO and take from it.
        suppressors: attend from the end to S2 and add to it.
        inhibition: attend from the end to S2, add nothing to it themselves, and matter.
        duplicates: attend from S2 to S1, below an inhibition head.
        induction: attend from S2 to the token after S1, below an inhibition head.
        previous: attend from the token after S1 to S1, below an induction head.
    """

    ranked: tuple[Head, ...]
    helpful: tuple[Head, ...]
    by_difference: tuple[Head, ...]
    movers: tuple[Head, ...]
    negative: tuple[Head, ...]
    suppressors: tuple[Head, ...]
    inhibition: tuple[Head, ...]
    duplicates: tuple[Head, ...]
    induction: tuple[Head, ...]
    previous: tuple[Head, ...]


def measure_heads(model: nn.Module, data: Dataset, seed: int = 0) -> Measured:
    """Heads of a Llama measured on prompts; the model is left as it was.

    Args:
        model: a `LlamaForCausalLM`, whose heads write through `self_attn.o_proj`.
        data: prompts as `make_prompts` makes them.
        seed: of whose output a head is given.
    """
    subject: Any = model
    layers, heads = subject.config.num_hidden_layers, subject.config.num_attention_heads
    attention, kept = _read_prompts(subject, data)
    io, s = data["io"], data["s"]
    own: list[Tensor] = []
    stream: list[Tensor] = []
    handle = subject.model.norm.register_forward_hook(lambda module, given, made: stream.append(given[0][:, -1]))
    try:
        with torch.no_grad():
            logits = _go_on(subject, data, kept, lambda layer, z: own.append(z))
    finally:
        handle.remove()
    direct = _direct(subject, own, stream[0], io, s)
    generator = torch.Generator().manual_seed(seed)
    slopes = torch.zeros(2, layers, heads, dtype=torch.float64)
    for share in GATES:
        donors = torch.stack([torch.randperm(data.n, generator=generator) for _ in range(layers * heads)])
        gates = torch.full((layers, heads), share, requires_grad=True)
        mixed = _go_on(subject, data, kept, _Mix(own, gates, donors.view(layers, heads, -1)))
        for place, of in enumerate((-_losses(mixed, io).mean(), _differences(mixed, io, s).mean())):
            (slope,) = torch.autograd.grad(of, gates, retain_graph=place == 0)
            slopes[place] += slope.double() / len(GATES)
    log_prob = logits.double().log_softmax(-1)
    return Measured(
        attention,
        direct,
        slopes[0],
        slopes[1],
        float(_losses(logits, io).mean()),
        float(-log_prob[:, io].mean()),
        float(_differences(logits, io, s).mean()),
    )


def find_ioi_heads(measured: Measured) -> Found:
    """The heads of each kind, by the marks AT_END, BELOW and SHARE."""
    matters, direct = measured.matters, measured.direct / abs(measured.difference)
    order = _sort(matters.abs())
    at = {name: shares > (AT_END if name.startswith("END") else BELOW) for name, shares in measured.attention.items()}
    counts = matters > SHARE / 10 * (measured.guess - measured.loss)

    def of(*conditions: Tensor, below: Sequence[Head] | None = None) -> tuple[Head, ...]:
        holds = torch.stack(conditions).all(0)
        top = max((layer for layer, _ in below), default=0) if below is not None else len(matters)
        return tuple(head for head in order if holds[head] and head[0] < top)

    inhibition = of(at["END to S2"], direct.abs() < SHARE, counts)
    induction = of(at["S2 to S1+1"], below=inhibition)
    return Found(
        ranked=order,
        helpful=_sort(matters),
        by_difference=_sort(measured.matters_to_difference.abs()),
        movers=of(at["END to IO"], direct > SHARE),
        negative=of(at["END to IO"], direct < -SHARE),
        suppressors=of(at["END to S2"], direct > SHARE),
        inhibition=inhibition,
        duplicates=of(at["S2 to S1"], below=inhibition),
        induction=induction,
        previous=of(at["S1+1 to S1"], below=induction),
    )


def name_heads(heads: Sequence[Head]) -> str:
    """Heads as text.

    >>> name_heads([(23, 0), (9, 6)])
    '23.0, 9.6'
    """
    return ", ".join(f"{layer}.{number}" for layer, number in heads) or "none"


@torch.no_grad()
def _read_prompts(subject: Any, data: Dataset) -> tuple[dict[str, Tensor], Any]:
    """Mean attention at the places, and keys and values of all tokens but the last."""
    kind = subject.config._attn_implementation
    subject.set_attn_implementation("eager")  # which alone gives patterns
    try:
        read = subject.model(input_ids=data["input_ids"], use_cache=True, output_attentions=True)
    finally:
        subject.set_attn_implementation(kind)
    rows = torch.arange(data.n)
    last = torch.full((data.n,), data["input_ids"].shape[1] - 1)
    columns = {None: last, "S2": data["S2"], "S1+1": data["S1"] + 1}
    found = {}
    for name, (source, to, offset) in PLACES.items():
        reads, read_from = columns[source], data[to] + offset
        found[name] = torch.stack([layer[rows, :, reads, read_from].double().mean(0) for layer in read.attentions])
    read.past_key_values.crop(-1)
    return found, read.past_key_values


def _go_on(subject: Any, data: Dataset, kept: Any, see: Callable[[int, Tensor], Tensor | None]) -> Tensor:
    """Logits [N, vocabulary] of the last token, where `see` is given each layer's z, and may return another."""
    handles = []
    for layer, block in enumerate(subject.model.layers):

        def look(module: nn.Module, given: tuple[Tensor, ...], layer: int = layer) -> tuple[Tensor, ...] | None:
            other = see(layer, given[0])
            return None if other is None else (other, *given[1:])

        handles.append(block.self_attn.o_proj.register_forward_pre_hook(look))
    try:
        read = subject(input_ids=data["input_ids"][:, -1:], past_key_values=copy.deepcopy(kept), use_cache=True)
    finally:
        for handle in handles:
            handle.remove()
    logits: Tensor = read.logits[:, -1]
    return logits


class _Mix:
    """Heads' outputs, a share their own and the rest other prompts'.

    Args:
        own: by layer, [N, 1, heads * width].
        gates: the shares, [layers, heads].
        donors: the other prompts, int64 [layers, heads, N].
    """

    def __init__(self, own: Sequence[Tensor], gates: Tensor, donors: Tensor) -> None:
        self.own, self.gates, self.donors = own, gates, donors

    def __call__(self, layer: int, z: Tensor) -> Tensor:
        apart = z.view(len(z), self.gates.shape[1], -1)
        theirs = self.own[layer].view_as(apart)
        theirs = torch.stack([theirs[rows, head] for head, rows in enumerate(self.donors[layer])], 1)
        gate = self.gates[layer][None, :, None]
        return (gate * apart + (1 - gate) * theirs).view_as(z)


@torch.no_grad()
def _direct(subject: Any, own: Sequence[Tensor], stream: Tensor, io: Tensor, s: Tensor) -> Tensor:
    norm = subject.model.norm
    unembed = subject.lm_head.weight * norm.weight
    scale = torch.rsqrt(stream.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    direction = (unembed[io] - unembed[s]) * scale
    found = []
    for z, block in zip(own, subject.model.layers, strict=True):
        back = direction @ block.self_attn.o_proj.weight  # what an entry of z adds
        each = (z[:, 0] * back).view(len(z), subject.config.num_attention_heads, -1)
        found.append(each.sum(-1).double().mean(0))
    return torch.stack(found)


def _losses(logits: Tensor, io: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(1, io[:, None])[:, 0]


def _differences(logits: Tensor, io: Tensor, s: Tensor) -> Tensor:
    return (logits.gather(1, io[:, None]) - logits.gather(1, s[:, None]))[:, 0]


def _sort(values: Tensor) -> tuple[Head, ...]:
    width = values.shape[1]
    return tuple(divmod(each, width) for each in values.flatten().argsort(descending=True, stable=True).tolist())
