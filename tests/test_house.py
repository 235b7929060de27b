"""The rules of the house, each with a planted fault that it must find: imports, faces, sizes, signatures, names.

CONTRIBUTING.md says why there are such rules; the layers themselves are import-linter's, in pyproject.toml.
"""

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
LINES, FILES, FOLDERS, LAYERS, PARAMETERS = 350, 9, 10, 10, 8
"""Most: lines of a file, files and folders at the root of the package, layers, parameters of a function."""
DRIVER_LINES, DRIVER_FILE = 60, 200
"""Most lines of `scrub` below its docstring, and of the file that it stands in."""
SHARED_NAMES = {"main", "study"}
"""Functions that more than one file may define: where a program begins, and what a study's file is asked for."""

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


# b. From outside, faces alone are seen


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


# c. Faces are what they say


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


# h. What loads what, and that nothing global is set

WATCHED = ("torch", "numpy", "scipy", "pyro", "rich", "matplotlib", "arviz", "pandas")


def run(code: str) -> str:
    """Standard output of that code in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def list_loaded(code: str) -> set[str]:
    """Which of the libraries that are slow to load a process has after running that code."""
    told = run(f"import json, sys\n{code}\nprint(); print(json.dumps(sorted(sys.modules)))")
    return set(WATCHED) & set(json.loads(told.splitlines()[-1]))


ASK = "import pscrub.cli\ntry:\n    pscrub.cli.main({!r})\nexcept SystemExit:\n    pass"


@pytest.mark.parametrize("code", ["import pscrub", *(ASK.format([word]) for word in ("list", "--help", "walk"))])
def test_what_needs_no_model_loads_no_library(code: str) -> None:
    assert list_loaded(code) == set()


def test_commands_and_faces_load_neither_plots_nor_arviz() -> None:
    every = "".join(f"import {face}\n" for face in faces())
    found = list_loaded(every + ASK.format(["run", "--help"]))
    assert "torch" in found and not found & {"matplotlib", "arviz", "pandas"}  # so what is loaded is seen


STATE = """
import decimal, gc, json, locale, logging, os, pkgutil, random, signal, socket, sys, threading, warnings
{first}
def state():
    found = dict(
        environ=dict(os.environ), cwd=os.getcwd(), path=list(sys.path), filters=list(map(str, warnings.filters)),
        hooks=[str(each) for each in (sys.excepthook, sys.displayhook, threading.excepthook, sys.gettrace())],
        signals=[str(signal.getsignal(each)) for each in sorted(signal.valid_signals())],
        logging=[logging.root.level, str(logging.root.handlers)], recursion=sys.getrecursionlimit(),
        random=str(random.getstate()), decimal=str(decimal.getcontext()), locale=locale.setlocale(locale.LC_ALL),
        collecting=[gc.isenabled(), gc.get_threshold()], timeout=socket.getdefaulttimeout(),
    )
    if "torch" in sys.modules:
        import matplotlib, numpy, pyro, torch
        found |= dict(
            seeds=[torch.get_rng_state().tolist(), str(numpy.random.get_state())], errors=str(numpy.geterr()),
            torch=[str(torch.get_default_dtype()), torch.get_num_threads(), torch.is_grad_enabled()],
            pyro=[list(pyro.get_param_store()), str(pyro.settings.get())], plots=str(dict(matplotlib.rcParams)),
        )
    return found
before = state()
{then}
after = state()
print(json.dumps([name for name in before if before[name] != after[name]]))
"""
LIBRARIES = "import arviz, matplotlib.pyplot, numpy, pyro.poutine, rich.progress, rich.table, rich.tree, scipy, torch"
"""Loaded first where all of pscrub is: what they set is their own (rich draws random numbers)."""
EVERY_FILE = "import pscrub\nfor each in pkgutil.walk_packages(pscrub.__path__, 'pscrub.'): __import__(each.name)"


def list_set(then: str, first: str = "") -> list[str]:
    """What all code of a process shares, and that code changed."""
    return list(json.loads(run(STATE.format(first=first, then=then)).splitlines()[-1]))


def test_importing_sets_nothing() -> None:
    assert list_set("import pscrub") == []
    assert list_set(EVERY_FILE, LIBRARIES) == []


@pytest.mark.parametrize(
    ("then", "found"),
    [
        ("os.environ['PLANTED'] = '1'", ["environ"]),
        ("warnings.simplefilter('ignore')", ["filters"]),
        ("random.seed(0); sys.setrecursionlimit(5000)", ["recursion", "random"]),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", ["signals"]),
    ],
)
def test_what_is_set_is_found(then: str, found: list[str]) -> None:
    assert list_set(then) == found


def test_what_is_set_of_the_libraries_is_found() -> None:
    then = "torch.manual_seed(7); torch.set_default_dtype(torch.float64); matplotlib.rcParams['font.size'] = 3"
    assert list_set(then, LIBRARIES) == ["seeds", "torch", "plots"]
