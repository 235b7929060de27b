"""The rules of the house, each with a planted fault that it must find: imports, faces, sizes, signatures, names.

CONTRIBUTING.md says why there are such rules; the layers themselves are import-linter's, in pyproject.toml.
"""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from collections.abc import Collection
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.source import ROOT, Files, faces, imports, name_module, read

LINES, FILES, FOLDERS, LAYERS, PARAMETERS = 350, 8, 12, 10, 8
"""Most: lines of a file, files and folders at the root of the package, layers, parameters of a function."""
DRIVER_LINES, DRIVER_FILE = 60, 200
"""Most lines of `scrub` below its docstring, and of the file that it stands in."""
SHARED_NAMES = {"main", "study"}
"""Functions that more than one file may define: where a program begins, and what a study's file is asked for."""


# a. Nothing imports in a circle


def find_circle(files: Files) -> list[str]:
    """Modules of which each imports the next and the last is the first again; none if there is no circle."""
    modules = {name_module(file): ast.parse(text) for file, text in files.items()}
    arrows: dict[str, set[str]] = {}
    for module, source in modules.items():
        aims = ((f"{aim}.{name}", aim) for aim, name in imports(source))
        arrows[module] = {next((aim for aim in pair if aim in modules), "") for pair in aims} - {""}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_there_is_no_circle() -> None:
    assert find_circle(read("pscrub", "theory")) == []


@pytest.mark.parametrize(
    "back",
    [
        "import pscrub.a",
        "from pscrub import a",
        "from pscrub.a import f",
        "def g():\n    from pscrub.a import f",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pscrub.a import f",
    ],
)
def test_a_circle_is_found(back: str) -> None:
    files = {"pscrub/__init__.py": "", "pscrub/a.py": "from pscrub.b import c", "pscrub/b/__init__.py": ""}
    assert find_circle(files | {"pscrub/b/c.py": ""}) == []
    circle = find_circle(files | {"pscrub/b/c.py": back})
    assert circle[0] == circle[-1] and set(circle) == {"pscrub.a", "pscrub.b.c"}
    assert find_circle({"pscrub/__init__.py": "from pscrub.a import f", "pscrub/a.py": "from pscrub import g"})


# d. Sizes


def find_long(files: Files, most: int = LINES) -> list[str]:
    lengths = {file: len(text.splitlines()) for file, text in files.items()}
    return [f"{file}: {length} lines" for file, length in lengths.items() if length > most]


def test_no_file_is_long() -> None:
    assert find_long(read("pscrub", "theory")) == []
    assert find_long({"a.py": "x\n" * LINES, "b.py": "x\n" * (LINES + 1)}) == [f"b.py: {LINES + 1} lines"]


def count_root(files: Collection[str]) -> tuple[int, int]:
    """Files and folders directly below the package."""
    below = [Path(file).parts[1:] for file in files]
    return sum(len(parts) == 1 for parts in below), len({parts[0] for parts in below if len(parts) > 1})


def test_the_root_stays_small() -> None:
    files, folders = count_root(read("pscrub"))
    assert files <= FILES and folders <= FOLDERS
    assert count_root(["pscrub/__init__.py", "pscrub/a.py", "pscrub/b/c.py", "pscrub/b/d/e.py"]) == (2, 1)


def count_layers(toml: str) -> int:
    contracts = tomllib.loads(toml)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return len(layers)


def test_layers_are_few() -> None:
    assert 1 < count_layers((ROOT / "pyproject.toml").read_text(encoding="utf-8")) <= LAYERS
    assert count_layers("[[tool.importlinter.contracts]]\ntype = 'layers'\nlayers = ['a', 'b : c', 'd']") == 3


# e. Signatures, and what is private


def find_wide(files: Files, public: Collection[str] = ()) -> list[str]:
    """Functions of too many parameters; a public one may have more that are given by keyword."""
    found = []
    for file, text in files.items():
        source = ast.parse(text)
        for node in ast.walk(source):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                placed = [each.arg for each in (*given.posonlyargs, *given.args) if each.arg not in ("self", "cls")]
                named = [] if node in source.body and node.name in public else [each.arg for each in given.kwonlyargs]
                count = len(placed) + len(named) + (given.vararg is not None) + (given.kwarg is not None)
                if count > PARAMETERS:
                    found.append(f"{file}: {node.name} has {count} parameters")
    return found


def test_signatures_are_narrow() -> None:
    assert find_wide(read("pscrub"), {name for names in faces().values() for name in names}) == []


def test_a_wide_signature_is_found() -> None:
    eight, nine = (", ".join("abcdefghi"[:n]) for n in (8, 9))
    text = f"def f({nine}): pass\ndef g(x, *, {eight}): pass\nclass C:\n    def h(self, {eight}): pass\n"
    text += f"    def i(cls, {nine}): pass\ndef j(*args, {eight}): pass\ndef k(x, y, *, {eight}): pass\n"
    found = [line.split()[1] for line in find_wide({"a.py": text}, {"f", "k", "i"})]
    assert found == ["f", "g", "j", "i"]


def find_borrowed(files: Files) -> list[str]:
    """Private names that one file takes from another."""
    found = []
    for file, text in files.items():
        source, modules = ast.parse(text), {name_module(each) for each in files}
        bound = {(name or module).rpartition(".")[2]: module for module, name in imports(source)}
        for module, name in imports(source):
            if module.split(".")[0] in ("pscrub", "theory") and any(
                part.startswith("_") and not part.endswith("__") for part in (*module.split("."), name or "")
            ):
                found.append(f"{file}: {module}.{name}")
        for node in ast.walk(source):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound:
                module = f"{bound[node.value.id]}.{node.value.id}"
                if node.attr.startswith("_") and not node.attr.endswith("__") and module in modules:
                    found.append(f"{file}: {module}.{node.attr}")
    return found


def test_nothing_private_is_borrowed() -> None:
    assert find_borrowed(read("pscrub", "theory")) == []


@pytest.mark.parametrize(
    "text",
    ["from pscrub.a import _f", "from pscrub import _a", "import pscrub._a", "from pscrub import a\nx = a._f()"],
)
def test_a_borrowed_private_name_is_found(text: str) -> None:
    assert len(find_borrowed({"pscrub/a.py": "", "pscrub/b.py": text})) == 1
    assert find_borrowed({"pscrub/a.py": "", "pscrub/b.py": "from pscrub import a\na.__doc__, a.f, self._f"}) == []


# f. One name, one function


def find_namesakes(files: Files) -> list[str]:
    """Public functions of one name that stand in several files."""
    where: dict[str, list[str]] = defaultdict(list)
    for file, text in files.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name not in SHARED_NAMES:
                where[node.name].append(file)
    return [f"{name}: {', '.join(found)}" for name, found in where.items() if len(found) > 1]


def test_no_two_functions_bear_one_name() -> None:
    assert find_namesakes(read("pscrub")) == []


def test_namesakes_are_found() -> None:
    text = "def table(): pass\ndef _short(): pass\nclass C:\n    def show(self): pass\ndef study(): pass"
    assert find_namesakes({"a.py": text, "b.py": text + "\ndef show(): pass"}) == ["table: a.py, b.py"]


# g. The driver reads as the paper


def count_body(text: str, name: str) -> int:
    """Lines of a function below its docstring."""
    (function,) = (each for each in ast.parse(text).body if isinstance(each, ast.FunctionDef) and each.name == name)
    described = ast.get_docstring(function) is not None
    start = function.body[0].end_lineno if described else function.body[0].lineno - 1
    return (function.end_lineno or 0) - (start or 0)


def test_the_driver_is_short() -> None:
    text = read("pscrub")["pscrub/scrub.py"]
    assert count_body(text, "scrub") <= DRIVER_LINES
    assert find_long({"pscrub/scrub.py": text}, DRIVER_FILE) == []


def test_lines_below_a_docstring_are_counted() -> None:
    assert count_body('def f():\n    """What.\n\n    More.\n    """\n    a = 1\n\n    return a\n', "f") == 3
    assert count_body("def f():\n    a = 1\n    return a\n", "f") == 2
