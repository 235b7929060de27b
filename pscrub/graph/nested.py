"""Tensors in what modules take and return: tuples, mappings and dataclasses, within one another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

Index = int | str | tuple[int | str, ...]
"""An element of a tuple, a key of a mapping or a field of a dataclass; several, from the outermost to the innermost."""


def pick(held: Any, index: Index | None) -> Any:
    """The element at the index, or the first tensor; None where there is none."""
    if index is None:
        return next(tensors_of(held), None)
    for step in index if isinstance(index, tuple) else (index,):
        if held is None or isinstance(held, Tensor):  # what is indexed in a tensor would be another tensor
            return None
        try:
            held = held[step]
        except (LookupError, TypeError):
            held = getattr(held, step, None) if isinstance(step, str) else None
    return held


def tensors_of(held: Any) -> Iterator[Tensor]:
    """Every tensor within, in order."""
    for leaf in tree_leaves(held):
        if isinstance(leaf, Tensor):
            yield leaf
        elif _is_record(leaf):
            for each in fields(leaf):
                yield from tensors_of(getattr(leaf, each.name, None))


def map_tensors(fn: Callable[[Tensor], Tensor], held: Any) -> Any:
    """The same with fn of each tensor in its place; dataclasses in which nothing changes are the same objects."""

    def mapped(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return fn(leaf)
        if not _is_record(leaf):
            return leaf
        before = {each.name: getattr(leaf, each.name) for each in fields(leaf) if hasattr(leaf, each.name)}
        after = {name: map_tensors(fn, value) for name, value in before.items()}
        kept = {id(each) for value in before.values() for each in tensors_of(value)}
        if all(id(each) in kept for value in after.values() for each in tensors_of(value)):
            return leaf
        made = copy.copy(leaf)
        for name, value in after.items():
            try:
                setattr(made, name, value)
            except FrozenInstanceError:
                object.__setattr__(made, name, value)
        return made

    return tree_map(mapped, held)


def first_path(held: Any) -> tuple[int | str, ...] | None:
    """The index of the first tensor within: () for a tensor; None where there is none."""
    return next((path for path, _ in paths_of(held)), None)


def paths_of(held: Any) -> Iterator[tuple[tuple[int | str, ...], Tensor]]:
    """The index of each tensor within, () for a tensor itself, and the tensor."""
    if isinstance(held, Tensor):
        yield (), held
        return
    inside: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(held, Mapping):
        inside = iter(held.items())
    elif isinstance(held, list | tuple):
        inside = iter(enumerate(held))
    elif _is_record(held):
        inside = ((each.name, getattr(held, each.name, None)) for each in fields(held))
    for key, value in inside:
        for path, tensor in paths_of(value):
            yield (key, *path), tensor


def _is_record(held: Any) -> bool:
    return is_dataclass(held) and not isinstance(held, type)
