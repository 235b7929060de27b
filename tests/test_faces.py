"""The faces of the folders: outside only they are seen, they export what is there, and none hides a file."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

import pytest

from tests.source import ROOT, exported, faces, imports, read


def is_open(dotted: str) -> bool:
    """Whether a dotted name is there, and a face, exported by one, an attribute of that, or a shipped study's."""
    try:
        pkgutil.resolve_name(dotted)
    except (AttributeError, ImportError):
        return False
    face = next(each for each in (".".join(dotted.split(".")[:2]), "pscrub") if each in faces())
    below = dotted.removeprefix(face).split(".")[1:]
    return face == "pscrub.studies" or not below or below[0] in faces()[face]


def find_closed(text: str, file: str) -> list[str]:
    """Names within pscrub that a document or source imports or mentions, and that no face exports."""
    blocks = [text] if file.endswith(".py") else re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"\bpscrub(?:\.[A-Za-z_]\w*)+", text))
    for source in map(ast.parse, blocks):
        found = {(module, name) for module, name in imports(source) if module.split(".")[0] == "pscrub"}
        named |= {module if name is None else f"{module}.{name}" for module, name in found}
        # A face may be imported, and what is taken from it is then to be one of its names too.
        bound = {name: f"{module}.{name}" for module, name in found if f"{module}.{name}" in faces()}
        for node in ast.walk(source):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound:
                named.add(f"{bound[node.value.id]}.{node.attr}")
    return sorted(name for name in named if not is_open(name))


def outsiders() -> list[Path]:
    patterns = ("README.md", "docs/*.md", "notebooks/*.py", "theory/*.py")
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


@pytest.mark.parametrize("path", outsiders(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_outside_only_faces_are_seen(path: Path) -> None:
    assert find_closed(path.read_text(encoding="utf-8"), path.name) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pscrub.law.exact", ["pscrub.law.exact"]),
        ("from pscrub.law.exact import log_prob", ["pscrub.law.exact", "pscrub.law.exact.log_prob"]),
        ("from pscrub.law import exact", ["pscrub.law.exact"]),
        ("from pscrub import law\nlaw.exact", ["pscrub.law.exact"]),
        ("import pscrub\npscrub.law.exact.log_prob", ["pscrub.law.exact.log_prob"]),
        ("from pscrub import records", ["pscrub.records"]),
        ("from pscrub.studies.worked import nothing", ["pscrub.studies.worked.nothing"]),
        ("from pscrub.studies.nothing import study", ["pscrub.studies.nothing", "pscrub.studies.nothing.study"]),
        ("import pscrub\nfrom pscrub import law\nfrom pscrub.law import draw\nlaw.draw, pscrub.law.draw", []),
        ("from pscrub.studies.brackets.study import study\nfrom pscrub.studies import load, worked", []),
        ("from pscrub.report import html\nhtml.write", []),
    ],
)
def test_a_look_behind_a_face_is_found(text: str, found: list[str]) -> None:
    assert find_closed(text, "some.py") == found
    assert find_closed(f"Words.\n\n```python\n{text}\n```\n", "some.md") == found


def test_a_mention_of_what_is_not_there_is_found() -> None:
    assert find_closed("`pscrub.rewrites` and `pscrub.law.drew(t)`", "a.md") == ["pscrub.law.drew", "pscrub.rewrites"]
    kept = "`pscrub.law.draw(tree)`, `pscrub.StudyResult.load`, `python -m pscrub.studies.brackets.train`: of pscrub."
    assert find_closed(kept, "a.md") == []
    assert find_closed("`pscrub.StudyResult.lode`", "a.md") == ["pscrub.StudyResult.lode"]


def find_hiding(face: str, names: Collection[str], files: Collection[str]) -> list[str]:
    """Names that a face exports and one of its own files or folders bears, which is then hidden, or hides the name."""
    inside = {Path(file).relative_to(face.replace(".", "/")).parts[0].removesuffix(".py") for file in files}
    return sorted(inside & set(names))


@pytest.mark.parametrize("face", faces())
def test_a_face_exports_what_is_there_and_hides_no_file(face: str) -> None:
    module, names = importlib.import_module(face), faces()[face]
    assert names and len(names) == len(set(names))
    assert [name for name in names if not hasattr(module, name)] == []
    files = [file for file in read("pscrub") if file.startswith(face.replace(".", "/") + "/")]
    for name in find_hiding(face, names, files):
        found = getattr(module, name)
        itself = isinstance(found, ModuleType) and found.__name__ == f"{face}.{name}"
        assert itself or (face, name) == ("pscrub", "scrub"), f"{face} exports {name}, and has a file of that name"


def test_a_hidden_file_is_found() -> None:
    files = ["pscrub/law/__init__.py", "pscrub/law/draw.py", "pscrub/law/exact/sums.py"]
    assert find_hiding("pscrub.law", ["draw", "exact", "program"], files) == ["draw", "exact"]


def list_front(text: str) -> tuple[dict[str, set[str]], dict[str, set[str]], set[str]]:
    """The three lists of the front door: stage -> names for the type checker and when running; and `__all__`."""
    typed: dict[str, set[str]] = defaultdict(set)
    for node in ast.parse(text).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for module, name in imports(node):
                typed[module.removeprefix("pscrub.")].add(str(name))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            homes = eval(compile(ast.Expression(node.value), "_HOMES", "eval"))  # literals and stars
    return dict(typed), {stage: set(names) for stage, names in homes.items()}, set(exported(text))


def test_the_lists_of_the_front_door_agree() -> None:
    typed, homes, every = list_front(read("pscrub")["pscrub/__init__.py"])
    assert typed == {stage: names for stage, names in homes.items() if names}
    assert every == set().union(*homes.values())
    assert {f"pscrub.{stage}" for stage in homes} >= {face for face in faces() if face != "pscrub"}
    for stage, names in homes.items():
        assert names <= set(faces().get(f"pscrub.{stage}", names)), f"pscrub.{stage} exports less than pscrub of it"


def test_lists_that_disagree_are_told_apart() -> None:
    text = "if TYPE_CHECKING:\n    from pscrub.law import draw\n_HOMES = {'law': ('drew',)}\n__all__ = ['drawn']"
    assert list_front(text) == ({"law": {"draw"}}, {"law": {"drew"}}, {"drawn"})
