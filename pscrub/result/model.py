"""What names a model: hashes of the tensors and of the code behind a graph's functions."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from pscrub.graph.graph import Graph
from pscrub.result.provenance import bytes_of


@dataclass(frozen=True)
class ModelHash:
    """Names a model: equal for equal tensors and code behind a graph's functions.

    Args:
        weights: of parameters, buffers and other tensors and arrays.
        code: of Python functions, and the plain values beside them; "" where it was made by another Python, whose
            bytecode differs.
    """

    weights: str
    code: str

    @classmethod
    def of(cls, graph: Graph) -> ModelHash:
        """That of a graph: of all that its nodes' functions hold, close over or name.

        Libraries' code is not looked into: `versions` names them. Values in lists, dictionaries and objects are hashed
        if they are tensors, arrays, modules or functions; numbers there may be counters.
        """
        kept = _KEPT.get()
        if kept is not None and graph in kept:
            return kept[graph]
        found = _Found()
        for node in graph.nodes.values():
            found.code.update(f"{node.name}:".encode())
            found.see(node.fn)
        made = cls(found.weights.hexdigest()[:16], found.code.hexdigest()[:16])
        if kept is not None:
            kept[graph] = made
        return made


_KEPT: ContextVar[WeakKeyDictionary[Graph, ModelHash] | None] = ContextVar("pscrub hashes of models", default=None)


@contextmanager
def hashes_kept() -> Iterator[None]:
    """Within it each graph is hashed once: for many runs of one model, whose weights nobody changes meanwhile."""
    before = _KEPT.set(WeakKeyDictionary())
    try:
        yield
    finally:
        _KEPT.reset(before)


@dataclass(eq=False)
class _Found:
    """What was seen behind functions so far."""

    weights: Any = field(default_factory=hashlib.sha256)
    code: Any = field(default_factory=hashlib.sha256)
    seen: dict[int, tuple[int, Any]] = field(default_factory=dict)
    counted: int = 0

    def see(self, function: Any) -> None:
        """Hash a function, with all that hangs on it, once."""
        stack: list[tuple[Any, bool]] = [(function, True)]
        while stack:
            value, plain = stack.pop()
            stack.extend(reversed(self._see(value, plain)))

    def _see(self, value: Any, plain: bool) -> list[tuple[Any, bool]]:
        """What hangs on a value, which is hashed itself; numbers and texts only if plain values count here."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            if plain:
                self.code.update(f"{value!r},".encode())
            return []
        counted = plain or isinstance(value, _COUNTED)
        if isinstance(value, tuple | frozenset | types.CodeType):  # equal constants may be one object, or two
            return list(_parts(value, plain))
        if id(value) in self.seen:
            if counted:
                self.code.update(f"again {self.seen[id(value)][0]},".encode())
            return []
        self.counted += counted
        self.seen[id(value)] = self.counted, value  # held, so that its number is not given to another
        if isinstance(value, Tensor | np.ndarray):
            self._see_array(value)
            return []
        if counted:
            self.code.update(f"{type(value).__qualname__},".encode())
        return list(_parts(value, plain))

    def _see_array(self, value: Any) -> None:
        if isinstance(value, Tensor):
            value = value.detach()
            value = (value if value.layout is torch.strided else value.to_dense()).cpu().contiguous()
            value = value.dequantize() if value.is_quantized else value.resolve_conj().resolve_neg()
        self.weights.update(f"{tuple(value.shape)} {value.dtype}".encode())
        self.weights.update(bytes_of(value))


_COUNTED = (Tensor, np.ndarray, nn.Module, types.FunctionType, types.MethodType, partial)
"""What is seen wherever it hangs. Of lists, dictionaries and objects that change as functions run only these count."""


def _parts(value: Any, plain: bool) -> Iterator[tuple[Any, bool]]:
    """What hangs on a value, each with whether numbers count there."""
    if isinstance(value, types.CodeType):
        yield value.co_code, True
        yield value.co_names, True
        yield value.co_consts, True
    elif isinstance(value, types.FunctionType):
        if _is_of_a_library(value.__module__):
            yield f"{value.__module__}.{value.__qualname__}", True
            return
        yield value.__code__, True
        yield value.__defaults__, True
        yield tuple((value.__kwdefaults__ or {}).values()), True
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents, True
            except ValueError:  # not filled yet
                continue
        for name in _names(value.__code__):
            found = value.__globals__.get(name)
            if not isinstance(found, types.ModuleType | type):
                yield found, True
    elif isinstance(value, types.MethodType):
        yield value.__self__, False
        yield value.__func__, True
    elif isinstance(value, partial):
        yield value.func, True
        yield value.args, True
        yield tuple(value.keywords.items()), True
    elif isinstance(value, tuple):
        yield from ((each, plain) for each in value)
    elif isinstance(value, frozenset):
        yield tuple(sorted(map(repr, value))), True
    elif isinstance(value, list | Mapping):
        yield from ((each, False) for each in (value.values() if isinstance(value, Mapping) else value))
    elif isinstance(value, nn.Module):
        yield from ((each, True) for name, each in sorted(vars(value).items()) if not name.startswith("_"))
        for held in (value._parameters, value._buffers, value._modules):
            yield from ((each, True) for each in held.values())
        yield from ((each, False) for each in _attributes(value) if isinstance(each, Tensor | nn.Module))
    elif not isinstance(value, types.ModuleType | type | types.BuiltinFunctionType):
        yield next((vars(kind)["__call__"] for kind in type(value).__mro__ if "__call__" in vars(kind)), None), True
        yield from ((each, False) for each in _attributes(value))


def _attributes(value: Any) -> list[Any]:
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(value, name)]
    own = vars(value) if hasattr(value, "__dict__") else {}
    return [*own.values(), *(getattr(value, name) for name in slots)]


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _names(each)


def _is_of_a_library(module: str | None) -> bool:
    first, _, rest = (module or "").partition(".")
    return first in ("torch", "numpy", "scipy", "pyro", "transformers") or (
        first == "pscrub" and not rest.startswith("studies")
    )
