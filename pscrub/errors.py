"""Exceptions that carry every fault found, each naming its culprit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


class DatasetError(PscrubError):
    """A dataset, feature or partition that is not well formed."""


class GraphError(PscrubError):
    """A graph that is not well formed, or a rewrite that changed it."""


class TraceError(PscrubError):
    """A torch module that could not be turned into a graph."""


class HypothesisError(PscrubError):
    """A hypothesis that causal scrubbing's definitions do not cover."""


class StudyError(PscrubError):
    """A study that cannot be found, built or run."""


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
