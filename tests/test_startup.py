"""What loading pscrub loads and sets: little, and nothing; and what an interrupt meanwhile leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pscrub
from tests.source import ROOT, faces

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
{then}
"""

STEP = """
before = state()
{then}
after = state()
print()
print(json.dumps([name for name in before if before[name] != after[name]]))
"""

LIBRARIES = "import arviz, matplotlib.pyplot, numpy, pyro.poutine, rich.progress, rich.table, rich.tree, scipy, torch"
"""Loaded first where all of pscrub is: what they set is their own (rich draws random numbers)."""

EVERY_FILE = "import pscrub\nfor each in pkgutil.walk_packages(pscrub.__path__, 'pscrub.'): __import__(each.name)"


PLANTED = "torch.manual_seed(7); torch.set_default_dtype(torch.float64); matplotlib.rcParams['font.size'] = 3"


def list_set(*then: str, first: str = "") -> list[list[str]]:
    """What all code of a process shares, and each of some pieces of code changed, run one after the other."""
    told = run(STATE.format(first=first, then="".join(STEP.format(then=each) for each in then)))
    return [json.loads(line) for line in told.splitlines() if line.startswith("[")]


def test_importing_sets_nothing_and_what_is_set_of_the_libraries_is_found() -> None:
    assert list_set("import pscrub") == [[]]
    assert list_set(EVERY_FILE, PLANTED, first=LIBRARIES) == [[], ["seeds", "torch", "plots"]]


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
    assert list_set(then) == [found]


@pytest.mark.parametrize(
    ("library", "argv"),
    [
        ("torch", ["run", "--help"]),
        *((library, ["run", "ablation_ring"]) for library in ("torch", "pscrub.scrub")),
    ],
)
def test_an_interrupt_while_libraries_load_ends_in_one_line(library: str, argv: list[str]) -> None:
    code = f"""
import sys

class Interrupts:
    def find_spec(self, name, *_):
        if name == {library!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
from pscrub.cli import main
sys.exit(main({argv}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(pscrub.__file__).parents[1]
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "pscrub: interrupted before there was an estimate\n"
