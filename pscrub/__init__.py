"""Causal scrubbing as a probabilistic program.

The folders are the method's steps, in this order: `data`, `graph`, `hypothesis`, `law`, `evaluate`, `estimate` and
`result`; `scrub` is the algorithm, `questions` what more can be asked, `report` what is shown, `studies` the worked
examples, `sweeps` runs of many points. Each is loaded when it is first touched, so that a command which needs no model
does not wait for torch.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pscrub.data import Dataset, Partition
    from pscrub.errors import (
        DamagedError,
        DatasetError,
        GraphError,
        HypothesisError,
        PscrubError,
        RoundError,
        StudyError,
        TraceError,
    )
    from pscrub.estimate import Baseline, Estimate
    from pscrub.graph import (
        Graph,
        Node,
        check_rewrites,
        inline,
        input_of,
        open_decoder,
        output_of,
        own_copy,
        replace,
        split,
        trace,
        with_estimate,
    )
    from pscrub.hypothesis import EXACT, Claim, Hypothesis, Study, Tree, circuit, unroll
    from pscrub.law import Datum, program
    from pscrub.progress import shown
    from pscrub.result import ScrubResult, StudyResult, Workers, merge
    from pscrub.scrub import scrub
    from pscrub.sweeps import SweepResult, sweep

_HOMES = {
    "commands": (),
    "data": ("Dataset", "Partition"),
    "errors": (
        "DamagedError",
        "DatasetError",
        "GraphError",
        "HypothesisError",
        "PscrubError",
        "RoundError",
        "StudyError",
        "TraceError",
    ),
    "estimate": ("Baseline", "Estimate"),
    "evaluate": (),
    "graph": (
        *(
            "Graph",
            "Node",
            "check_rewrites",
            "inline",
            "input_of",
            "open_decoder",
            "output_of",
            "own_copy",
            "replace",
            "split",
            "trace",
        ),
        "with_estimate",
    ),
    "hypothesis": ("EXACT", "Claim", "Hypothesis", "Study", "Tree", "circuit", "unroll"),
    "law": ("Datum", "program"),
    "progress": ("shown",),
    "questions": (),
    "report": (),
    "result": ("ScrubResult", "StudyResult", "Workers", "merge"),
    "scrub": ("scrub",),
    "studies": (),
    "sweeps": ("SweepResult", "sweep"),
}
"""Each stage, and its names that stand here too."""

__all__ = [
    "EXACT",
    "Baseline",
    "Claim",
    "DamagedError",
    "Dataset",
    "DatasetError",
    "Datum",
    "Estimate",
    "Graph",
    "GraphError",
    "Hypothesis",
    "HypothesisError",
    "Node",
    "Partition",
    "PscrubError",
    "RoundError",
    "ScrubResult",
    "Study",
    "StudyError",
    "StudyResult",
    "SweepResult",
    "TraceError",
    "Tree",
    "Workers",
    "check_rewrites",
    "circuit",
    "inline",
    "input_of",
    "merge",
    "open_decoder",
    "output_of",
    "own_copy",
    "program",
    "replace",
    "scrub",
    "shown",
    "split",
    "sweep",
    "trace",
    "unroll",
    "with_estimate",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pscrub")
    for stage, names in _HOMES.items():
        if name in names:
            globals()[name] = getattr(importlib.import_module(f"pscrub.{stage}"), name)
            return globals()[name]
    if name in _HOMES:
        return importlib.import_module(f"pscrub.{name}")
    raise AttributeError(f"module 'pscrub' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *__all__})


class _Face(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the file pscrub.scrub, which Python then binds here, must not hide the function of that name.
        if not (name == "scrub" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
