"""Exceptions that carry every fault found, each naming its culprit."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
import traceback
from collections.abc import Iterable
from typing import Any

_OWN = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STUDIES = os.path.join(_OWN, "studies") + os.sep


class PscrubError(ValueError):
    """An input that cannot be used, with all its faults.

    Args:
        faults: one message, or several that were found together.

    >>> print(PscrubError(["weights are negative at row 3", "column 'label' has 9 rows, 'tokens' has 10"]))
    2 faults:
      - weights are negative at row 3
      - column 'label' has 9 rows, 'tokens' has 10
    """

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        many = f"{len(self.faults)} faults:\n" + "\n".join(f"  - {fault}" for fault in self.faults)
        super().__init__(self.faults[0] if len(self.faults) == 1 else many)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.faults,)  # from one process to another, as faults and not as the text that shows them


class DatasetError(PscrubError):
    """A dataset, feature or partition that is not well formed."""


class GraphError(PscrubError):
    """A graph that is not well formed, or a rewrite that changed it."""


class NodeError(GraphError):
    """A node's function that raised: what it raised is the cause."""


class RoundError(GraphError):
    """Rounds of draws that failed, as often as they were tried, each with its cause; the rest was drawn.

    Args:
        faults: what failed.
        result: the study's result without these rounds.
    """

    def __init__(self, faults: str | Iterable[str], result: Any = None) -> None:
        super().__init__(faults)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.faults, self.result)


class TraceError(PscrubError):
    """A torch module that could not be turned into a graph."""


class HypothesisError(PscrubError):
    """A hypothesis that causal scrubbing's definitions do not cover."""


class StudyError(PscrubError):
    """A study that cannot be found, built or run."""


class DamagedError(StudyError):
    """A file that is not as it was written, or that nothing of pscrub's wrote."""


class NothingToTryError(StudyError):
    """A hypothesis at which an adversary has nothing to try: no fault where several are asked about."""


def close(name: str, known: Iterable[str]) -> str:
    """The end of an "unknown name" message: close matches if there are any, else the known names.

    >>> close("a1.h00", ["a1.h0", "a1.h1", "m0"])
    '; did you mean "a1.h0" or "a1.h1"?'
    """
    known = list(known)
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if matches:
        return "; did you mean " + " or ".join(f'"{match}"' for match in matches) + "?"
    shown = ", ".join(f'"{each}"' for each in known[:12]) + (", ..." if len(known) > 12 else "")
    return f"; known: {shown}" if known else ""


def tell(error: BaseException) -> str:
    """An exception's kind, its first line and the innermost line of the user's code that it came from."""
    first = str(error).strip().partition("\n")[0]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not is_machinery(frame.filename):
            return f"{type(error).__name__}: {first} (at {frame.filename}:{frame.lineno}: {frame.line})"
    return f"{type(error).__name__}: {first}"


def reword(error: PscrubError, start: str = "", end: str = "") -> PscrubError:
    """An error of the same class and cause whose faults all begin so, and whose last fault ends so.

    >>> reword(GraphError(["a", "b"]), "hypothesis 'h': ", "; c").faults
    ("hypothesis 'h': a", "hypothesis 'h': b; c")
    """
    *others, last = [start + fault for fault in error.faults]
    made = type(error)([*others, last + end])
    made.__cause__ = error.__cause__
    return made


def is_machinery(file: str) -> bool:
    """Whether a line of this file is torch's, or pscrub's and of no study: one that a user did not write."""
    torch = os.path.dirname(os.path.abspath(getattr(sys.modules.get("torch"), "__file__", None) or "torch")) + os.sep
    if file == contextlib.__file__ or file.startswith((torch, "<eval_with_key")):
        return True
    return file.startswith(_OWN) and not file.startswith(_STUDIES)
