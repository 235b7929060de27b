"""Named cut points of a torch module, and the hooks that see them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import MappingKey, SequenceKey, tree_leaves, tree_map, tree_map_with_path


@dataclass(frozen=True)
class Cut:
    """A tensor to be named: one that a submodule reads or returns. Made by `output_of` and `input_of`."""

    path: str
    side: Literal["output", "input"]
    index: int | str | None = None
    call: int | None = None

    def __str__(self) -> str:
        more = "".join(f", {k}={v!r}" for k, v in (("index", self.index), ("call", self.call)) if v is not None)
        return f"{self.side}_of({self.path!r}{more})"


def output_of(path: str, *, index: int | str | None = None, call: int | None = None) -> Cut:
    """The cut at what the submodule at `path` returns.

    Args:
        path: as in `module.get_submodule`.
        index: which element of a tuple (or key of a mapping) it returns; by default the first tensor.
        call: which of the submodule's calls in one forward, from 0; needed where there are several.

    >>> print(output_of("model.rotary_emb", index=1))
    output_of('model.rotary_emb', index=1)
    """
    return Cut(path, "output", index, call)


def input_of(path: str, *, index: int | str | None = None, call: int | None = None) -> Cut:
    """The cut at what the submodule at `path` is called with.

    Only this submodule sees the named value: others that read the same tensor keep reading what it was made from.

    Args:
        path: as in `module.get_submodule`.
        index: a position, or the name of a keyword it is called with; by default the first tensor.
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
        value = find_cut(held, cut)
        seen = see(name, value)
        return None if seen is value else tree_map(lambda leaf: seen if leaf is value else leaf, held)

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
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Label:
    """Stands for a tensor among what a submodule reads or returns: the name under which it was seen."""

    name: str


Places = dict[tuple[str, str], list[Any]]
"""(path, side) -> what the submodule reads or returns in each of its calls, a `Label` in place of each tensor."""


@contextlib.contextmanager
def hook_everywhere(module: nn.Module, see: Callable[[str, Any], Any], places: Places) -> Iterator[Places]:
    """Within, a forward passes all that submodules read and return through `see(label, tensor)`, and fills places."""

    def passed(path: str, side: Literal["output", "input"], held: Any) -> Any:
        calls = places.setdefault((path, side), [])
        call, seen, labels = len(calls), {}, {}

        def label(keys: Any, leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return None
            if id(leaf) not in seen:
                labels[id(leaf)] = Label(f"{side} {call} of {path}: {' '.join(map(str, keys))}")
                seen[id(leaf)] = see(labels[id(leaf)].name, leaf)
            return labels[id(leaf)]

        calls.append(tree_map_with_path(label, held))
        return tree_map(lambda leaf: seen.get(id(leaf), leaf), held)

    def on_output(path: str) -> Callable[..., Any]:
        return lambda module, args, result: passed(path, "output", result)

    def on_input(path: str) -> Callable[..., Any]:
        return lambda module, args, kwargs: passed(path, "input", (args, kwargs))

    handles = [module.register_forward_pre_hook(lambda module, args: places.clear(), prepend=True)]
    try:
        for path, submodule in module.named_modules(remove_duplicate=False):
            if path:
                handles.append(submodule.register_forward_hook(on_output(path)))
                handles.append(submodule.register_forward_pre_hook(on_input(path), with_kwargs=True))
        yield places
    finally:
        for handle in handles:
            handle.remove()


def cuts_of(places: Places) -> Iterator[tuple[Cut, str]]:
    """Every tensor that a cut can name, and its label's name."""
    for (path, side), calls in places.items():
        for call, held in enumerate(calls):
            found: list[tuple[Any, Label]] = []
            tree_map_with_path(
                lambda keys, leaf, found=found: found.append((keys, leaf)) if isinstance(leaf, Label) else None, held
            )
            for keys, label in found:
                key = keys[-1] if keys else None
                index = key.idx if isinstance(key, SequenceKey) else key.key if isinstance(key, MappingKey) else None
                cut = Cut(path, side, index, call if len(calls) > 1 else None)  # type: ignore[arg-type]
                if find_cut(held, cut) == label:
                    yield cut, label.name


def find_cut(held: Any, cut: Cut) -> Any:
    """The cut's value among what its submodule reads, (args, kwargs), or returns."""
    from_keywords = cut.side == "input" and cut.index is not None
    return pick(held[isinstance(cut.index, str)] if from_keywords else held, cut.index)


@contextlib.contextmanager
def left_as_found(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts back what a forward changes: buffers (batch statistics) and torch's random state (dropout)."""
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        try:
            yield
        finally:
            for name, buffer in module.named_buffers():
                buffer.copy_(before[name])


def pick(held: Any, index: int | str | None) -> Any:
    """The element at the index, or the first tensor; None where there is none."""
    if index is None:
        return next((leaf for leaf in tree_leaves(held) if isinstance(leaf, Tensor | Label)), None)
    try:
        return held[index]
    except (LookupError, TypeError):
        return None
