"""What a forward leaves behind: buffers and attributes of a module, and the states of generators."""

from __future__ import annotations

import contextlib
import copy
import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_OWN = frozenset(vars(nn.Module()))
"""Attributes that every module has."""


class Kept:
    """What a module keeps besides its parameters, as it is now.

    Args:
        module: with all that is in it.
    """

    def __init__(self, module: nn.Module) -> None:
        self._found: list[tuple[str, dict[str, Any], str, Any, Any]] = []
        for path, each in module.named_modules():
            for held in (each._buffers, vars(each)):
                for name, value in held.items():
                    if (held is each._buffers or name not in _OWN) and not isinstance(value, nn.Module):
                        self._found.append((f"{path}.{name}".lstrip("."), held, name, value, _copy(value)))
        self._names = [(path, vars(each), {*vars(each)}) for path, each in module.named_modules()]

    def changed(self) -> list[str]:
        """Paths of what is not as it was, or was not there."""
        changed = [path for path, held, name, *was in self._found if not _is_same(held.get(name), *was)]
        return changed + [
            f"{path}.{name}".lstrip(".") for path, held, names in self._names for name in held.keys() - names
        ]

    def put_back(self) -> None:
        """Makes all as it was."""
        for _, held, name, value, copied in self._found:
            if not _is_same(value, value, copied):
                if isinstance(value, Tensor):
                    value.copy_(copied)
                else:
                    value.clear()
                    (value.extend if isinstance(value, list | deque) else value.update)(copied)
            held[name] = value
        for _, held, names in self._names:
            for name in held.keys() - names:
                del held[name]


class Generators:
    """The states of torch's, Python's and numpy's generators, as they are now.

    Args:
        device: of the generator that is kept beside the CPU's.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._torch = torch.get_rng_state()
        self._device = torch.cuda.get_rng_state(device) if self._cuda is not None else None
        self._own, self._numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (others' state is kept)

    def put_back(self) -> None:
        """Makes them as they were."""
        torch.set_rng_state(self._torch)
        if self._device is not None:
            torch.cuda.set_rng_state(self._device, self._cuda or "cuda")
        random.setstate(self._own)
        np.random.set_state(self._numpy)  # noqa: NPY002


@contextlib.contextmanager
def left_as_found(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts back what a forward changes: buffers (batch statistics), attributes, and random states (dropout)."""
    kept, generators = Kept(module), Generators(device)
    with torch.no_grad():
        try:
            yield
        finally:
            kept.put_back()
            generators.put_back()


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return copy.copy(value) if type(value) in (list, dict, set, deque) else value


def _is_same(now: Any, value: Any, copied: Any) -> bool:
    """Whether what stands there now is what stood there, with what was in it."""
    if now is not value:
        return False
    if isinstance(value, Tensor):
        return torch.equal(value.nan_to_num(), copied.nan_to_num())
    if type(value) in (list, deque):
        return len(value) == len(copied) and all(a is b for a, b in zip(value, copied, strict=True))
    if type(value) is dict:
        return value.keys() == copied.keys() and all(value[key] is copied[key] for key in copied)
    return type(value) is not set or value == copied
