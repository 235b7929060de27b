"""What names a result: hashes of the data and of the scrubbing law, versions of the libraries."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.hypothesis.tree import Tree


def data_hash(data: Dataset) -> str:
    """Names D: equal for equal columns and weights."""
    hashed = hashlib.sha256()
    for name, column in data.columns.items():
        array = column.cpu().contiguous() if isinstance(column, Tensor) else column
        hashed.update(f"{name} {tuple(array.shape)} {array.dtype}".encode())
        hashed.update(bytes_of(array))
    hashed.update(bytes_of(data.weights))
    return hashed.hexdigest()[:16]


def law_hash(tree: Tree) -> str:
    """Names the scrubbing law: equal for equal graph names, sites, what they read, and partitions."""
    hashed = hashlib.sha256()
    graph = tree.hypothesis.graph
    hashed.update(repr([(node.name, node.inputs) for node in graph.nodes.values()] + [graph.output]).encode())
    partitions: dict[int, bytes] = {}
    for path, site in tree.sites.items():
        at = site.claim.at if site.claim is not None else ""
        hashed.update(repr((path, site.parent, at, sorted((site.given or {}).items()))).encode())
        key = id(site.partition)
        if key not in partitions:
            partitions[key] = hashlib.sha256(bytes_of(site.partition.labels)).digest()
        hashed.update(partitions[key])
    return hashed.hexdigest()[:16]


@cache
def versions() -> Mapping[str, str]:
    """Of pscrub, Python and the libraries that numbers depend on; looked up once, for reading them costs as a scrub."""
    libraries = {name: version(name) for name in ("torch", "pyro-ppl", "numpy", "scipy")}
    return {"pscrub": version("pscrub"), "python": platform.python_version()} | libraries


def name_python() -> str:
    """The Python that runs this, as far as bytecode depends on it."""
    return "{} {}.{}".format(platform.python_implementation(), *platform.python_version_tuple()[:2])


def bytes_of(array: Any) -> bytes:
    """The bytes of a dense tensor on the CPU, or of an array, row by row."""
    if isinstance(array, Tensor):
        return array.reshape(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b""
    return np.ascontiguousarray(array).tobytes()
