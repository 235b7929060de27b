"""A language model opened: exported once, compared with its own logits, its residual stream read where it is cut."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pscrub.data.dataset import Dataset
from pscrub.errors import TraceError, close
from pscrub.graph.cuts import Cut
from pscrub.graph.decoder import Decoder, within_wrapper
from pscrub.graph.equal import find_gap
from pscrub.graph.families import FAMILIES, NAMES, STREAM, Family, tell_family
from pscrub.graph.judging import LOGITS, label_next_tokens
from pscrub.graph.names import Names
from pscrub.graph.nested import pick
from pscrub.graph.once import Traced, trace_all
from pscrub.graph.points import Point, Sizes, name_points

TAKEN = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""Columns that go to forward of themselves where it has a parameter of that name; labels do not."""


def open_decoder(
    model: nn.Module,
    data: Dataset | Mapping[str, Any],
    *,
    family: str | Family | None = None,
    inputs: Sequence[str] | Mapping[str, str] | None = None,
    check_rows: int = 3,
    tolerance: float = 1e-5,
    tell: Callable[[str], None] | None = print,
) -> Decoder:
    """A language model exported once, its values named as TransformerLens, papers and its own module paths name them.

    The names and the tensor of each, all [batch, positions, width], before any rotation of positions:

    - `hook_embed`, `hook_pos_embed`: of tokens, of positions. Gemma's is scaled already.
    - `blocks.i.hook_resid_pre`, `hook_resid_mid`, `hook_resid_post`: the residual stream before the block, between
      attention and MLP, after the block. What is added later reads them too. A parallel block has no `hook_resid_mid`.
      A block that normalises the sum itself (BERT) gives the stream after its norm.
    - `blocks.i.attn.hook_q`, `hook_k`, `hook_v`: what the projections give, bias included: before rotary positions
      and before any norm of q and k (Qwen 3, Gemma 3, OLMo 2). Where one projection gives all three (GPT-2, NeoX,
      Phi 3), the node is `hook_qkv`, and these are parts of it. Heads follow one another in the last axis.
    - `blocks.i.attn.hook_z`: what the output projection reads, heads one after another.
    - `blocks.i.hook_attn_out`, `hook_mlp_out`: what is added to the stream. Where a norm comes in between (Gemma 2 and
      3, OLMo 2), they are after it, and `attn.hook_out`, `mlp.hook_out` before it.
    - `blocks.i.mlp.hook_pre`, `hook_pre_linear`, `hook_post`: neurons before the activation (of the gate where there is
      one), the other factor, what the MLP's last projection reads.

    Args:
        model: a causal or masked language model of Hugging Face in evaluation mode, a bridge of TransformerLens 4, or
            any module that gives logits [batch, positions, vocabulary], for the table of which see `Family`.
        data: D: token ids [N, positions] and whatever losses and features read.
        family: a name in `FAMILIES` or a table; by default as the model's configuration says.
        inputs: the columns that forward takes, or its parameters -> columns. By default `input_ids` (or `tokens`, or
            the only column) and masks.
        check_rows: as for `trace_all`, which compares every value with the module's; fewer than there, as a row of
            many positions is much to compute.
        tolerance: the same.
        tell: is told in a line how equal the graph's logits are to the model's own, as measured; None: nobody is.

    Raises:
        TraceError: a family that is not known, a table that does not fit the model, a module that cannot be traced.

    >>> decoder = open_decoder(model, data)  # doctest: +SKIP
    >>> decoder.piece("9.9.q").node  # doctest: +SKIP
    'blocks.9.attn.hook_qkv'
    """
    data = data if isinstance(data, Dataset) else Dataset(data)
    title, table = _choose(model, family)
    taken = _inputs(model, data, inputs)
    tokens = next(iter(taken.values()))
    layers = _count(model, table)
    sizes = Sizes(layers, *_heads(model, table))
    data = label_next_tokens(data, tokens)
    with warnings.catch_warnings():
        # Of a bridge of TransformerLens: that values at hooks are read may change rounding. How much is measured here.
        warnings.filterwarnings("ignore", message="A forward hook edited hook_scale/hook_normalized")
        traced = trace_all(Logits(model), data, inputs=taken, check_rows=check_rows, tolerance=tolerance)
    cuts = {replace(cut, path=cut.path.removeprefix("model").lstrip(".")): s for cut, s in traced.points.items()}
    cuts = {cut: shape for cut, shape in cuts.items() if cut.path}
    points = name_points(table, sizes, cuts)
    read_streams(traced, [within_wrapper(each.cut) for each in points.values() if each.kind in STREAM])
    gap, shape = _compare(traced)
    points[LOGITS] = Point(LOGITS, LOGITS, None, LOGITS, Cut("", "output"), shape)
    known = MappingProxyType(points)
    decoder = Decoder(model, data, table, sizes, known, gap, tokens, title, traced, Names(known, sizes, cuts))
    if tell is not None:
        same = f"logits equal the model's to {gap:.1e} of the largest"
        tell(f"{decoder.heading}: {same}, measured on {traced.check_rows} rows")
    return decoder


class Logits(nn.Module):
    """A language model as a module that gives its logits alone, and keeps no cache of keys."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.more = {"use_cache": False} if "use_cache" in _parameters(model) else {}

    def forward(self, **columns: Tensor) -> Tensor:
        result = self.model(**columns, **self.more)
        logits = getattr(result, LOGITS, None)
        value: Tensor = pick(result, None) if logits is None else logits
        return value


def read_streams(traced: Traced, cuts: Iterable[Cut]) -> None:
    """Has all that comes later read the residual stream where it is cut, not only the submodule that it is cut at.

    A submodule's input is seen by that submodule; what is added to the stream afterwards reads the tensor that the
    caller kept. In the program both are there: marks are copies, so later readers may as well read the mark.
    """
    labels = {traced.places[cut.path, cut.side][0][_where(traced, cut)] for cut in cuts}
    traced.program = traced.program.through(labels)


def _where(traced: Traced, cut: Cut) -> tuple[int | str, ...]:
    steps = cut.index if isinstance(cut.index, tuple) else () if cut.index is None else (cut.index,)
    return (isinstance(steps[0], str), *steps) if cut.side == "input" else steps


def _choose(model: nn.Module, family: str | Family | None) -> tuple[str, Family]:
    if isinstance(family, Family):
        return "a table by hand", family
    if family is None and hasattr(model, "hook_dict"):
        return "a bridge", _of_bridge(model)
    name = tell_family(model) if family is None else family
    if name not in FAMILIES:
        raise TraceError(f"no family is named '{name}'{close(name, FAMILIES)}")
    return name, FAMILIES[name]


def _of_bridge(bridge: Any) -> Family:
    """TransformerLens's own table: the path of the hook point that each name is an alias of."""
    paths = {id(each): path for path, each in bridge.named_modules()}
    points = {}
    for kind, pattern in NAMES.items():
        hook = bridge.hook_dict.get(pattern.format(i=0))
        if hook is not None and kind not in ("resid_pre", "resid_post") and id(hook) in paths:
            points[kind] = paths[id(hook)].replace("blocks.0.", "blocks.{i}.")
    for raw, added in (("attn_raw", "attn_out"), ("mlp_raw", "mlp_out")):
        if points.get(raw) == points.get(added):  # no norm between
            points.pop(raw, None)
    if points.get("pos_embed", "").startswith("rotary"):  # which is no term of the stream
        del points["pos_embed"]
    return Family("blocks.{i}", points)


def _parameters(model: nn.Module) -> list[str]:
    return list(inspect.signature(model.forward).parameters)


def _inputs(model: nn.Module, data: Dataset, inputs: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    parameters = _parameters(model)
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if inputs is not None:
        free = iter(each for each in parameters if each not in inputs)
        return {column if column in parameters else next(free): column for column in inputs}
    first = "input_ids" if "input_ids" in parameters else parameters[0]
    taken = {name: name for name in TAKEN if name in data.names and name in parameters}
    if first not in taken:
        column: str | None = next((each for each in ("input_ids", "tokens") if each in data.names), None)
        if column is None and len(data.names) == 1:
            column = data.names[0]
        if column is None:
            raise TraceError(
                f"no column 'input_ids' or 'tokens' among {', '.join(data.names)}: say inputs={{'{first}': ...}}"
            )
        taken = {first: column} | taken
    return taken


def _count(model: nn.Module, table: Family) -> int:
    paths = {path for path, _ in model.named_modules()}
    layers = 0
    while table.block.format(i=layers) in paths:
        layers += 1
    if not layers:
        raise TraceError(f"the model has no '{table.block.format(i=0)}'{close(table.block.format(i=0), paths - {''})}")
    return layers


def _heads(model: nn.Module, table: Family) -> tuple[int, int]:
    config: Any = getattr(model, "config", None) or getattr(model, "cfg", None)
    names = ("num_attention_heads", "n_heads")
    heads = table.heads or next((getattr(config, name) for name in names if getattr(config, name, None)), 0)
    shared = ("num_key_value_heads", "n_key_value_heads")
    of_config = next((getattr(config, name) for name in shared if getattr(config, name, None)), heads)
    return heads, table.key_heads or (of_config if table.heads is None else heads)


def _compare(traced: Traced) -> tuple[float, tuple[int, ...]]:
    """How far the graph's logits are from the module's, relative to the largest, on a few rows; and their shape."""
    with torch.no_grad():
        own = traced.subject(traced.rows.of(traced.check_rows))  # without hooks, which change some models' rounding
    gap, scale = find_gap(traced.results[traced.check_rows], own)
    return float(gap / scale) if scale else float(gap), tuple(own.shape[1:])
