"""Frozen dataclasses with tensors in one sealed file, written whole or not at all: netCDF, JSON for all but arrays.

netCDF 3 by scipy, which pscrub needs anyhow, so that a result can be read wherever pscrub runs, and by any netCDF
reader. It has no 64-bit integers: row numbers are kept as int32 and given back as int64.

The seal is an attribute of the file: the SHA-256 of all its bytes, the seal's own digits taken for zeros. A file of
which one bit is not as it was written is refused, whatever the bit means.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from scipy.io import netcdf_file
from torch import Tensor

from pscrub.errors import DamagedError, StudyError
from pscrub.outcomes import Said

VERSION = 2
"""Of the form of the file. One of a later version is refused."""
UNSEALED = 1
"""The version of files that had no seal; they are still read."""
FORMAT = "pscrub result"
TEXT = "json"
"""The variable that holds the JSON, a byte an entry."""
MARK = b"sha256:"
"""What the seal begins with. Nothing before it in a file has a colon: only names of dimensions stand there."""
DIGITS = 64
TEMPORARY = ".tmp"
"""What names of files end in that are being written."""
OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Errors that tell of a disk by themselves: full, by a quota too, not to be written, or broken."""


def write_record(value: Any, path: Path, through: Path | None = None) -> None:
    """Write a dataclass under a temporary name and move it into place.

    Args:
        value: a dataclass of numbers, texts, None, tuples, dictionaries by text, tensors and dataclasses.
        path: of the file.
        through: the folder in which it is written, as `write_whole` takes it.

    Raises:
        StudyError: it cannot be written.
    """
    arrays: dict[str, Tensor] = {}
    document = {"format": FORMAT, "version": VERSION, "content": _plain(value, arrays, "")}
    text = json.dumps(document, allow_nan=False).encode()

    def write(file: IO[bytes]) -> None:
        # A file of scipy's closes what it is given; the copy of the handle is for it.
        with netcdf_file(os.fdopen(os.dup(file.fileno()), "wb"), "w", version=2) as out:
            out.title = FORMAT
            out.seal = MARK + b"0" * DIGITS
            for name, array in ({TEXT: torch.frombuffer(bytearray(text), dtype=torch.int8)} | arrays).items():
                kind = {torch.int64: "i4", torch.int8: "i1"}.get(array.dtype, "f8")
                if kind == "i4" and array.numel() and int(array.max()) >= 2**31:
                    raise StudyError(f"cannot save '{name}': row numbers of 2^31 and more do not fit the file's form")
                out.createDimension(f"n_{name}", array.numel())
                out.createVariable(name, kind, (f"n_{name}",))[:] = array.reshape(-1).numpy()
        _seal(file)

    try:
        write_whole(path, write, through)
    except OSError as error:
        raise StudyError(f"cannot write to '{path.parent}', for {path.name}: {error.strerror or error}") from error


def read_record(path: Path, classes: Mapping[str, Callable[..., Any]]) -> Any:
    """What was saved there.

    Args:
        path: of the file.
        classes: the dataclasses that may stand in it, by name; or what makes them, of older files too.

    Raises:
        DamagedError: no record, or one that is not as it was written: cut off, changed by a bit, or of another program.
        StudyError: no such file, or of a version that this pscrub does not read.
    """
    if not path.is_file():
        raise StudyError(f"no saved result at '{path}'")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StudyError(f"cannot read '{path}': {error.strerror or error}") from error
    sealed = _check_seal(path, content)
    try:
        with netcdf_file(io.BytesIO(content), "r", mmap=False) as file:
            arrays = {name: np.asarray(variable[:]).copy() for name, variable in file.variables.items()}
        document = json.loads(arrays.pop(TEXT).tobytes())
        form, version = document.get("format"), document.get("version")
    except Exception as error:  # whatever a reader of binary files meets in one of another kind
        raise DamagedError(f"'{path}' is no saved result: {type(error).__name__}: {error}") from error
    if not sealed and version == VERSION:
        raise DamagedError(f"'{path}' is damaged: its seal is gone; put back a copy of it, or make it again")
    if form != FORMAT or version not in (VERSION, UNSEALED):
        raise StudyError(
            f"'{path}' is of version {version!r} of '{form}'; this pscrub reads versions {UNSEALED} and {VERSION} of "
            f"'{FORMAT}'"
        )
    try:
        return _made(document["content"], arrays, classes)
    except (KeyError, TypeError) as error:
        raise StudyError(f"'{path}' is not of the form that version {version} has: {error}") from error


def write_sealed(content: Any, path: Path, form: tuple[str, int], through: Path) -> None:
    """Write plain values as JSON that bears a seal, the SHA-256 of what it holds: whole or not at all.

    Args:
        content: of numbers, texts, None, lists and dictionaries by text.
        path: of the file.
        form: its name and version.
        through: the folder in which it is written, as `write_whole` takes it.

    Raises:
        StudyError: it cannot be written.
    """
    sealed = {"format": form[0], "version": form[1], "seal": _seal_of(content), form[0].split()[-1]: content}
    try:
        write_whole(path, lambda file: file.write(json.dumps(sealed, indent=1).encode()), through)
    except OSError as error:
        raise StudyError(f"cannot write to '{path.parent}', for {path.name}: {error.strerror or error}") from error


def read_sealed(path: Path, form: tuple[str, int]) -> Any:
    """What `write_sealed` wrote; tuples were made lists.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is not as it was written.
        StudyError: it is of another version.
    """
    try:
        found = json.loads(path.read_bytes())
        version, content, seal = found["version"], found[form[0].split()[-1]], found["seal"]
        right = found["format"] == form[0] and (version != form[1] or seal == _seal_of(content))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedError(f"'{path}' is damaged: {type(error).__name__}: {error}") from error
    if not right:
        raise DamagedError(f"'{path}' is damaged: it does not say what its seal is of")
    if version != form[1]:
        raise StudyError(f"'{path}' is of version {version}; this pscrub reads version {form[1]}")
    return content


def _seal_of(content: Any) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def as_tuples(value: Any) -> Any:
    """The value, its lists made tuples, as JSON knows none."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def _seal(file: IO[bytes]) -> None:
    """Put the digits where zeros stand for them."""
    file.seek(0)
    hashed = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    file.seek(0)
    start = b""
    while MARK not in start:
        start += file.read(4096)
    file.seek(start.index(MARK) + len(MARK))
    file.write(hashed.hexdigest().encode())


def _check_seal(path: Path, content: bytes) -> bool:
    """Whether there is a seal, which then is right.

    Raises:
        DamagedError: it is not.
    """
    at = content.find(MARK) + len(MARK)
    if at < len(MARK):
        return False
    view = memoryview(content)
    hashed = hashlib.sha256(view[:at])
    hashed.update(b"0" * DIGITS)
    hashed.update(view[at + DIGITS :])
    if hashed.hexdigest().encode() != view[at : at + DIGITS]:
        raise DamagedError(
            f"'{path}' is damaged: its {len(content):,} bytes are not those that its seal is of; put back a copy of "
            "it, or make it again"
        )
    return True


def write_whole(path: Path, write: Callable[[IO[bytes]], Any], through: Path | None = None) -> None:
    """Write a file under a temporary name and move it into place; on a fault or an interrupt nothing is left.

    What was written is on the disk before it has its name, and the name before this returns: a machine that loses its
    power keeps the file as it was, or as it is now.

    Args:
        path: of the file.
        write: given the open temporary file, which can also be read.
        through: the folder, of the same file system, in which it is written; by default that of the file.
    """
    handle, temporary = tempfile.mkstemp(dir=through or path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):  # an interrupt after the move
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def refuse_disk(error: BaseException | None, folder: Path) -> None:
    """Nothing, unless an error is of the disk that a folder is on: then it is said so in a line.

    Args:
        error: whatever work in the folder ended with, if with one.
        folder: where files are written.

    Raises:
        StudyError: the disk is full, or cannot be read or written.
    """
    if not isinstance(error, OSError):
        return
    name = str(error.filename or folder)
    if error.errno in OF_DISK or name.startswith(f"{folder}{os.sep}"):
        raise StudyError(f"cannot read or write '{name}': {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """See that the names in a folder are on the disk, where folders can be opened for that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # not a system that can
        return
    try:
        os.fsync(handle)
    except OSError:  # nor this file system
        pass
    finally:
        os.close(handle)


def _plain(value: Any, arrays: dict[str, Tensor], name: str) -> Any:
    """The value as JSON can hold it. Tensors go into `arrays`; what JSON has no word for is tagged with "$"."""
    if isinstance(value, Tensor):
        if not value.numel():
            return {"$empty": str(value.dtype).removeprefix("torch.")}
        arrays[f"a{len(arrays)}{name}"] = value.detach().cpu()
        return {"$array": f"a{len(arrays) - 1}{name}", "shape": list(value.shape)}
    if dataclasses.is_dataclass(value):
        fields = {f.name: _plain(getattr(value, f.name), arrays, f"_{f.name}") for f in dataclasses.fields(value)}
        return {"$class": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {"$mapping": [[key, _plain(each, arrays, name)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        return [_plain(each, arrays, name) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, Said) and value.kind:
        return {"$said": str(value), "kind": value.kind} | ({} if value.brief == value else {"brief": value.brief})
    return value


def _made(value: Any, arrays: Mapping[str, np.ndarray[Any, Any]], classes: Mapping[str, Callable[..., Any]]) -> Any:
    if isinstance(value, list):
        return tuple(_made(each, arrays, classes) for each in value)
    if not isinstance(value, dict):
        return value
    match value:
        case {"$empty": kind}:
            return torch.empty(0, dtype={"float64": torch.float64, "int64": torch.int64}[kind])
        case {"$array": name, "shape": shape}:
            array = arrays[name].reshape(shape)
            return torch.from_numpy(array.astype(np.int64 if array.dtype.kind == "i" else np.float64))
        case {"$mapping": pairs}:
            return {key: _made(each, arrays, classes) for key, each in pairs}
        case {"$float": text}:
            return float(text)
        case {"$said": text, "kind": kind, **brief}:
            return Said(text, kind, **brief)
        case {"$class": name, **fields}:
            return classes[name](**{key: _made(each, arrays, classes) for key, each in fields.items()})
    raise TypeError(f"an entry with {', '.join(map(str, value))}")


class Equal:
    """Equality of dataclasses field by field, tensors entry by entry (NaN equals NaN)."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(nan=0.5), b.nan_to_num(nan=0.5))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if is_dataclass(a) and type(a) is type(b):
        return all(_same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_same(*pair) for pair in zip(a, b, strict=True))
    return bool(a == b) or (isinstance(a, float) and isinstance(b, float) and a != a and b != b)
