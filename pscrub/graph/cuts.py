"""Named cut points of a torch module, and the hooks that see them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from pscrub.graph.attention import ProjectionsCalled
from pscrub.graph.nested import Index, map_tensors, paths_of, pick


@dataclass(frozen=True)
class Cut:
    """A tensor to be named: one that a submodule reads or returns. Made by `output_of` and `input_of`."""

    path: str
    side: Literal["output", "input"]
    index: Index | None = None
    call: int | None = None

    def __str__(self) -> str:
        more = "".join(f", {k}={v!r}" for k, v in (("index", self.index), ("call", self.call)) if v is not None)
        return f"{self.side}_of({self.path!r}{more})"


def output_of(path: str, *, index: Index | None = None, call: int | None = None) -> Cut:
    """The cut at what the submodule at `path` returns.

    Args:
        path: as in `module.get_submodule`.
        index: which element of a tuple (key of a mapping, field of a dataclass) it returns, several for one within
            another: `index=(1, 0)` is h_n of an LSTM. By default the first tensor.
        call: which of the submodule's calls in one forward, from 0; needed where there are several.

    >>> print(output_of("model.rotary_emb", index=1))
    output_of('model.rotary_emb', index=1)
    """
    return Cut(path, "output", index, call)


def input_of(path: str, *, index: Index | None = None, call: int | None = None) -> Cut:
    """The cut at what the submodule at `path` is called with.

    Only this submodule sees the named value: others that read the same tensor keep reading what it was made from.

    Args:
        path: as in `module.get_submodule`.
        index: a position, or the name of a keyword it is called with, and what more it takes to be at a tensor; by
            default the first tensor.
        call: which of the submodule's calls in one forward, from 0; needed where there are several.

    >>> print(input_of("transformer.h.0.attn.c_proj"))
    input_of('transformer.h.0.attn.c_proj')
    """
    return Cut(path, "input", index, call)


@contextlib.contextmanager
def hook(module: nn.Module, cuts: Mapping[str, Cut], see: Callable[[str, Any], Any]) -> Iterator[Counter[str]]:
    """Within, a forward passes each cut's value through `see(name, value)`; yields how often each was called."""
    calls: Counter[str] = Counter()

    def passed(name: str, held: Any) -> Any:
        """What a hook returns: None, which leaves all as it is, or what it holds with the cut's value replaced."""
        cut, call = cuts[name], calls[name]
        calls[name] += 1
        if call != (cut.call or 0):
            return None
        first = cut.index[:1] if isinstance(cut.index, tuple) else (cut.index,)
        from_keywords = cut.side == "input" and cut.index is not None
        value = pick(held[isinstance(first[0], str)] if from_keywords else held, cut.index)
        seen = see(name, value)
        return None if seen is value else map_tensors(lambda leaf: seen if leaf is value else leaf, held)

    def on_output(name: str) -> Callable[..., Any]:
        return lambda module, args, result: passed(name, result)

    def on_input(name: str) -> Callable[..., Any]:
        return lambda module, args, kwargs: passed(name, (args, kwargs))

    handles = [module.register_forward_pre_hook(lambda module, args: calls.clear(), prepend=True)]
    try:
        for name, cut in cuts.items():
            submodule = module.get_submodule(cut.path)
            if cut.side == "output":
                handles.append(submodule.register_forward_hook(on_output(name)))
            else:
                handles.append(submodule.register_forward_pre_hook(on_input(name), with_kwargs=True))
        projections = ProjectionsCalled(module.get_submodule(cut.path) for cut in cuts.values())
        with projections if projections.is_needed else contextlib.nullcontext():
            yield calls
    finally:
        for handle in handles:
            handle.remove()


Path = tuple[int | str, ...]
Places = dict[tuple[str, str], list[dict[Path, str]]]
"""(path, side) -> for each call of the submodule: where a tensor is in its result, or in (args, kwargs) -> label."""


@contextlib.contextmanager
def hook_everywhere(module: nn.Module, see: Callable[[str, Any], Any], places: Places) -> Iterator[Places]:
    """Within, a forward passes all that submodules read and return through `see(label, tensor)`, and fills places."""

    def passed(path: str, side: Literal["output", "input"], held: Any) -> Any:
        calls, seen, labels = places.setdefault((path, side), []), dict[int, Any](), dict[int, str]()
        calls.append({})
        for where, leaf in paths_of(held):
            if torch._C._functorch.is_batchedtensor(leaf):  # within vmap, where each value is of one row
                continue
            if id(leaf) not in seen:
                labels[id(leaf)] = f"{side} {len(calls) - 1} of {path or 'the module'}: {' '.join(map(str, where))}"
                seen[id(leaf)] = see(labels[id(leaf)], leaf)
            calls[-1][where] = labels[id(leaf)]
        return map_tensors(lambda leaf: seen.get(id(leaf), leaf), held)

    def on_output(path: str) -> Callable[..., Any]:
        return lambda module, args, result: passed(path, "output", result)

    def on_input(path: str) -> Callable[..., Any]:
        return lambda module, args, kwargs: passed(path, "input", (args, kwargs))

    handles = [module.register_forward_pre_hook(lambda module, args: places.clear(), prepend=True)]
    try:
        for path, submodule in module.named_modules(remove_duplicate=False):
            handles.append(submodule.register_forward_hook(on_output(path)))
            handles.append(submodule.register_forward_pre_hook(on_input(path), with_kwargs=True))
        projections = ProjectionsCalled(module.modules())
        with projections if projections.is_needed else contextlib.nullcontext():
            yield places
    finally:
        for handle in handles:
            handle.remove()


def cuts_of(places: Places) -> Iterator[tuple[Cut, str]]:
    """Every tensor that a cut can name, and its label."""
    for (path, side), calls in places.items():
        for call, labels in enumerate(calls):
            for where, label in labels.items():
                steps = where[side == "input" :]
                index: Index | None = None if not steps else steps[0] if len(steps) == 1 else steps
                yield (
                    Cut(path, "input" if side == "input" else "output", index, call if len(calls) > 1 else None),
                    label,
                )


def find_label(labels: Mapping[Path, str], cut: Cut) -> str | None:
    """The label that a cut names in one call of its submodule; None where there is no tensor."""
    if cut.index is None:
        return next(iter(labels.values()), None)
    steps = cut.index if isinstance(cut.index, tuple) else (cut.index,)
    return labels.get((isinstance(steps[0], str), *steps) if cut.side == "input" else steps)
