"""How what makes rounds reaches workers: once each, however many rounds they make.

In threads it is what it is. Where it is pickled to be sent, what is pickled is the way to it: a worker that does not
have it yet fetches it, and keeps it for the rounds that follow. What is large (D, values on D, parameters) is put up
once for all hypotheses, and fetched once.

Tensors keep their strides, and so every sum its order; functions go by value where a worker could not import them.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import tempfile
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MappingProxyType, ModuleType
from typing import Any, Protocol
from weakref import WeakValueDictionary

import cloudpickle
import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload

from pscrub.errors import StudyError, tell
from pscrub.progress import Progress, quiet
from pscrub.result.making import Maker

LARGE = 2**16
"""Bytes from which on an array is put up by itself."""
KEPT = 64
"""What makes rounds, of so many hypotheses, a worker keeps."""


class Way(Protocol):
    """The way to bytes that were put up."""

    def read(self) -> bytes:
        """The bytes."""

    def drop(self) -> None:
        """Have them no more."""


@dataclass(frozen=True)
class File:
    """Bytes in a file.

    Args:
        path: of it.
    """

    path: str

    def read(self) -> bytes:
        """The bytes.

        Raises:
            StudyError: the file is not there.
        """
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise StudyError(
                f"a worker cannot read '{self.path}', where the model and the data were put for it: "
                f"{error.strerror or error}; on several machines, give `out` a folder that all of them see"
            ) from error

    def drop(self) -> None:
        """Remove it."""
        with suppress(OSError):
            os.unlink(self.path)


def put_in(folder: Path) -> Callable[[bytes], File]:
    """What puts bytes into files of a folder."""

    def put(content: bytes) -> File:
        handle, path = tempfile.mkstemp(dir=folder, prefix="sent-")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        return File(path)

    return put


@dataclass(frozen=True)
class Sent:
    """A maker, for a worker in another process.

    Args:
        key: names it.
        way: to what it is made of.
        large: name of, and way to, each array that was put up by itself.
    """

    key: str
    way: Way
    large: Sequence[tuple[str, Way]]

    @property
    def maker(self) -> Maker:
        """The maker, fetched if it is not at hand."""
        return _shelf().find(self)

    @property
    def progress(self) -> Progress:
        """Nobody is told."""
        return quiet

    @property
    def alone(self) -> AbstractContextManager[Any]:
        """Nothing: a worker in a process makes one round at a time."""
        return nullcontext()


class Post:
    """Where makers are put up for workers, each when it is first sent.

    Args:
        put: puts up bytes, and gives the way to them.
    """

    def __init__(self, put: Callable[[bytes], Way]) -> None:
        self.put, self.name = put, uuid.uuid4().hex
        self._large: dict[int, tuple[Any, str, Way]] = {}
        self._sent: dict[int, tuple[Maker, Sent]] = {}
        self._count, self._alone = 0, threading.Lock()  # executors pickle in threads of their own

    def send(self, maker: Maker) -> Sent:
        """The way to a maker.

        Raises:
            StudyError: it cannot be sent.
        """
        with self._alone:
            if id(maker) not in self._sent:
                packer = _Packer(self._put_up)
                try:
                    content = packer.pack(maker)
                except Exception as error:  # whatever a user's objects raise
                    raise StudyError(
                        f"hypothesis '{maker.tree.hypothesis.name}' cannot be sent to another process: {tell(error)}; "
                        "functions, and what they hold, have to be such as can be pickled (cloudpickle), or try threads"
                    ) from error
                self._count += 1
                sent = Sent(f"{self.name}-{self._count}", self.put(content), tuple(packer.large))
                self._sent[id(maker)] = maker, sent
            return self._sent[id(maker)][1]

    def forget(self, maker: Maker) -> None:
        """Take down a maker that is done with."""
        with self._alone:
            if (found := self._sent.pop(id(maker), None)) is not None:
                found[1].way.drop()

    def close(self) -> None:
        """Take all down."""
        with self._alone:
            for way in (*(sent.way for _, sent in self._sent.values()), *(way for _, _, way in self._large.values())):
                way.drop()
            self._sent.clear()
            self._large.clear()

    def _put_up(self, array: Any) -> tuple[str, Way]:
        if id(array) not in self._large:
            way = self.put(_Packer().pack(array))
            self._large[id(array)] = array, f"{self.name}-large-{len(self._large)}", way
        return self._large[id(array)][1:]


class Ticket:
    """A maker as executors are given it: itself, or where it is pickled the way to it.

    Args:
        maker: the maker.
        post: where it is put up.
        alone: held by threads while they draw.
        progress: told by threads of what is done.
    """

    def __init__(self, maker: Maker, post: Post, alone: Any, progress: Progress) -> None:
        self.maker, self.post, self.alone, self.progress = maker, post, alone, progress

    def __reduce__(self) -> tuple[Any, ...]:
        sent = self.post.send(self.maker)
        return Sent, (sent.key, sent.way, sent.large)


class _Packer(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles what makes rounds.

    Args:
        put_up: puts up a large array by itself.
    """

    def __init__(self, put_up: Callable[[Any], tuple[str, Way]] | None = None) -> None:
        self.file = io.BytesIO()
        super().__init__(self.file, protocol=pickle.HIGHEST_PROTOCOL)
        self.put_up = put_up
        self.large: dict[tuple[str, Way], None] = {}

    def pack(self, value: Any) -> bytes:
        """The bytes."""
        before = cloudpickle.list_registry_pickle_by_value()
        try:
            self.dump(value)
        finally:
            for name in cloudpickle.list_registry_pickle_by_value() - before:
                cloudpickle.unregister_pickle_by_value(sys.modules[name])
        return self.file.getvalue()

    def persistent_id(self, value: Any) -> str | None:
        if self.put_up is None or not isinstance(value, Tensor | np.ndarray) or value.nbytes < LARGE:
            return None
        found = self.put_up(value)
        self.large[found] = None
        return found[0]

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, FunctionType | type) and not _is_importable(value.__module__):
            cloudpickle.register_pickle_by_value(sys.modules[value.__module__])
        if type(value) is Tensor and value.layout is torch.strided:
            return _tensor_of, _parts_of(value)
        if type(value) is torch.nn.Parameter:
            return _parameter_of, (value.detach(), value.requires_grad)
        if isinstance(value, OpOverload):  # of a traced program
            return _operator_of, (*value._schema.name.split("::"), value._overloadname)
        if isinstance(value, MappingProxyType):
            return MappingProxyType, (dict(value),)
        if isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | None):
            module = getattr(value, "__module__", None)
            if module is not None:  # of a C++ extension, as torch._C._nn's are
                return _attribute_of, (module, value.__name__)
        return super().reducer_override(value)


def _is_importable(module: str) -> bool:
    """Whether a worker can be told to import what is defined there; not so of a study's file, which is run by path."""
    root = module.partition(".")[0]
    if module == "__main__" or module not in sys.modules or root in sys.builtin_module_names:
        return True  # which pickling sees to itself
    return PathFinder.find_spec(root) is not None


def _parts_of(tensor: Tensor) -> tuple[Any, ...]:
    """A tensor's bytes as they lie, with what makes it of them."""
    tensor, device = tensor.detach(), str(tensor.device)
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    content = None
    if tensor.numel():
        content = tensor.as_strided((span,), (1,)).cpu().contiguous().view(torch.uint8).numpy()
    return content, tensor.dtype, tuple(tensor.shape), tensor.stride(), device


def _tensor_of(content: Any, dtype: torch.dtype, shape: Sequence[int], stride: Sequence[int], device: str) -> Tensor:
    if content is None:
        return torch.empty_strided(tuple(shape), tuple(stride), dtype=dtype, device=device)
    # Copied into memory of torch's own, which begins where that of whoever sent it does: some sums go by that.
    flat = torch.empty(content.size, dtype=torch.uint8).copy_(torch.from_numpy(content)).view(dtype).to(device)
    return flat.as_strided(tuple(shape), tuple(stride))


def _parameter_of(tensor: Tensor, requires_grad: bool) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor, requires_grad)


def _attribute_of(module: str, name: str) -> Any:
    import importlib

    return getattr(importlib.import_module(module), name)


def _operator_of(space: str, name: str, overload: str) -> Any:
    return getattr(getattr(getattr(torch.ops, space), name), overload)


class _Shelf:
    """What a worker has at hand."""

    def __init__(self) -> None:
        self.makers: OrderedDict[str, Maker] = OrderedDict()
        self.large: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self.alone = threading.Lock()

    def find(self, sent: Sent) -> Maker:
        with self.alone:
            if sent.key not in self.makers:
                ways = dict(sent.large)

                def fetch(name: str) -> Any:
                    if (found := self.large.get(name)) is None:
                        found = self.large[name] = pickle.loads(ways[name].read())
                    return found

                unpacker = pickle.Unpickler(io.BytesIO(sent.way.read()))
                unpacker.persistent_load = fetch  # type: ignore[method-assign]
                self.makers[sent.key] = unpacker.load()
                while len(self.makers) > KEPT:
                    self.makers.popitem(last=False)
            self.makers.move_to_end(sent.key)
            return self.makers[sent.key]


@cache
def _shelf() -> _Shelf:
    return _Shelf()


def pack(value: Any) -> bytes:
    """What a worker gives back, as bytes: tensors in them, not in memory that the worker shares."""
    return _Packer().pack(value)


def unpack(content: bytes) -> Any:
    """What `pack` was given."""
    return pickle.loads(content)
