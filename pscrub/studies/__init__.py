"""Studies that ship with pscrub, and loading of a user's own."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pscrub.errors import PscrubError, StudyError, close

if TYPE_CHECKING:
    from pscrub.hypothesis.study import Study

__all__ = ["EXTRAS", "SHIPPED", "load", "read_arguments", "shipped"]

SHIPPED = {
    "brackets": "brackets.study",
    "bracket_heads": "brackets.heads",
    "modular_addition": "modular_addition.study",
    "induction": "induction.study",
    "induction_smollm2": "induction.composed",
    "ioi": "ioi.study",
    "compiled": "compiled.study",
    "max_of_k": "max_of_k.study",
    "curves": "curves.study",
    "ablation_ring": "worked.ablation_ring",
    "ablation_mean": "worked.ablation_mean",
    "ablation_backup": "worked.ablation_backup",
    "superposition": "worked.superposition",
    "hash_game": "worked.hash_game",
    "cancellation": "worked.cancellation",
    "sin_cos": "worked.sin_cos",
    "specificity": "worked.specificity",
    "real_values": "worked.real_values",
}
"""Name of each shipped study -> its module below this one."""
EXTRAS = {"ioi": "smollm2", "induction_smollm2": "smollm2", "curves": "curves"}
"""Name of each study that does not run without more -> the extra that brings its model."""


def shipped() -> dict[str, str]:
    """Name -> one line about each shipped study: its file's first, which is read without loading what it imports."""
    return {name: _first_line(Path(__file__).parent / f"{SHIPPED[name].replace('.', '/')}.py") for name in SHIPPED}


def _first_line(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_bytes())) or "").split("\n")[0]


def load(name: str, parameters: Mapping[str, str] | None = None) -> Study:
    """The study of that name, or the one that a Python file's function `study` returns.

    It is built with one thread of torch: what is multiplied on the way comes to the same on every machine, weights and
    their hash too.

    Args:
        name: a shipped study, or a path that ends in .py.
        parameters: texts for the parameters of `study`, made into the type of the parameter's annotation
            (int, float, bool, str or Path; a default of None stays None if nothing is given); without one, into that of
            its default (any number where that is an int); without that too, into the number, truth value or None that
            they read as, else text.

    Raises:
        StudyError: no such study or file, a file that raises or returns something else, an unknown parameter, a value
            that its parameter cannot hold.
    """
    from pscrub.hypothesis.study import Study
    from pscrub.workers import threads_set

    with threads_set(1):
        build = _find(name)
    arguments = _arguments(name, build, parameters or {})
    try:
        with threads_set(1):
            study = build(**arguments)
    except PscrubError as error:
        raise StudyError(f"study '{name}'{_line(error, name)}: {fault}" for fault in error.faults) from error
    except FileNotFoundError as error:
        raise StudyError(f"study '{name}': {error}") from error
    except (Exception, SystemExit) as error:
        raise StudyError(f"study '{name}' raised {type(error).__name__}{_line(error, name)}: {error}") from error
    if not isinstance(study, Study):
        raise StudyError(f"study() of '{name}' returned {type(study).__name__}; expected a pscrub.Study")
    return study


def read_arguments(name: str, every: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """What `load` would call the study's function with, for each of several choices of parameters.

    Args:
        name: a shipped study, or a path that ends in .py.
        every: texts by name, for each choice.

    Raises:
        StudyError: as `load`, but for what the function itself does.
    """
    build = _find(name)
    return [_arguments(name, build, parameters) for parameters in every]


def _find(name: str) -> Callable[..., Any]:
    if name in SHIPPED:
        module = importlib.import_module(f"pscrub.studies.{SHIPPED[name]}")
    else:
        module = _from_file(name)
    build: Callable[..., Any] | None = getattr(module, "study", None)
    if not callable(build):
        raise StudyError(f"'{name}' defines no function study(); expected one that returns a pscrub.Study")
    return build


def _from_file(name: str) -> types.ModuleType:
    path = Path(name)
    if path.suffix != ".py":
        raise StudyError(f"no study '{name}'{close(name, SHIPPED)}; or name a Python file, ending in .py")
    if not path.is_file():
        raise StudyError(f"study file '{name}' does not exist")
    spec = importlib.util.spec_from_file_location(f"pscrub_study_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up here
    try:
        spec.loader.exec_module(module)
    except PscrubError as error:
        raise StudyError(f"study file '{name}'{_line(error, name)}: {fault}" for fault in error.faults) from error
    except (Exception, SystemExit) as error:
        raise StudyError(f"study file '{name}' raised {type(error).__name__}{_line(error, name)}: {error}") from error
    return module


def _arguments(name: str, build: Callable[..., Any], given: Mapping[str, str]) -> dict[str, Any]:
    try:
        known = inspect.signature(build, eval_str=True).parameters
    except Exception as error:  # an annotation in quotes may hold any expression
        raise StudyError(f"parameters of study() of '{name}': {type(error).__name__}: {error}") from error
    faults = [f"study '{name}' has no parameter '{key}'{close(key, known)}" for key in given if key not in known]
    arguments: dict[str, Any] = {}
    for key, text in given.items():
        if key in known:
            try:
                arguments[key] = _convert(text, known[key])
            except ValueError:
                kind = _kind(known[key])
                faults.append(f"parameter {key}={text!r} of study '{name}': expected {getattr(kind, '__name__', kind)}")
    if faults:
        raise StudyError(faults)
    return arguments


def _kind(parameter: inspect.Parameter) -> Any:
    """What a parameter holds: its annotation, else the type of its default; `empty` if it says neither."""
    if parameter.annotation is not inspect.Parameter.empty:
        return parameter.annotation
    default = parameter.default
    return inspect.Parameter.empty if default is None or default is inspect.Parameter.empty else type(default)


def _convert(text: str, parameter: inspect.Parameter) -> Any:
    kind = _kind(parameter)
    kinds = getattr(kind, "__args__", (kind,))
    if kind is int and parameter.annotation is inspect.Parameter.empty:  # scale=1 does not say that 0.5 is none
        kinds = (int,) if text.lstrip("+-").isdigit() else (float,)
    if inspect.Parameter.empty in kinds or Any in kinds:
        return _read(text)
    if bool in kinds:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError(text)
        return text.lower() in ("true", "1", "yes")
    for made in (int, float, Path):
        if made in kinds:
            return made(text)
    return text


def _read(text: str) -> Any:
    """What a text reads as where nothing says what it should be: a number, a truth value, None, else the text."""
    if text in ("True", "False", "true", "false", "None"):
        return {"t": True, "f": False, "n": None}[text[0].lower()]
    for made in (int, float) if any(letter.isdigit() for letter in text) else ():
        with contextlib.suppress(ValueError):
            return made(text)
    return text


def _line(error: BaseException, name: str) -> str:
    traceback, where = error.__traceback__, ""
    while traceback is not None:
        if Path(traceback.tb_frame.f_code.co_filename).name == Path(name).name:
            where = f" at line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return where
