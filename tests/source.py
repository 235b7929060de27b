"""The package's own source, read: files, imports, and what the faces export."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

Files = Mapping[str, str]
"""Path from the root, as pscrub/law/exact.py -> source."""


def read(*folders: str) -> dict[str, str]:
    paths = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def name_module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(source: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Module and name (None: the module itself) of each import, of those inside functions and conditions too."""
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "an import that is relative"
            yield from ((node.module, alias.name) for alias in node.names)


def exported(face: str) -> list[str]:
    """What stands in `__all__` of a source; nothing if there is none."""
    for node in ast.parse(face).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


@cache
def faces() -> dict[str, list[str]]:
    """Each face, `pscrub` and the folders directly below it -> what it exports."""
    found = {name_module(file): text for file, text in read("pscrub").items() if file.endswith("/__init__.py")}
    return {module: exported(text) for module, text in found.items() if module.count(".") <= 1}
