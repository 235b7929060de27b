"""Named cut points of a torch module, and the hooks that see them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from pscrub.graph.attention import ProjectionsCalled
from pscrub.graph.nested import Index, map_tensors, pick


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
