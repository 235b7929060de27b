"""Files of before 0.1.0's release, in which sentences carried no kind: it is read off their beginnings, once, here.

The beginnings are those that were written then. They belong to the files, not to what pscrub says today.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pscrub.estimate.baselines import Baseline
from pscrub.estimate.estimate import Estimate
from pscrub.estimate.population import DataUncertainty
from pscrub.outcomes import Said

METHODS = {
    "t, within root strata": "t",
    "betting": "betting",
    "empirical Bernstein": "bernstein",
    "confidence sequence by betting": "betting sequence",
    "confidence sequence": "sequence",
    "infinitesimal jackknife": "jackknife",
    "exact: nothing can be swapped": "nothing swapped",
}
WAYS = {"given": "given", "exact, all rows": "all rows", "exact, all pairs": "all pairs"}
WARNINGS = {
    "vacuous claim: so it is": "vacuous claims, more",
    "vacuous claim": "vacuous claim",
    "few donors": "few donors",
    "empty claim": "empty claim",
    "singleton blocks": "singleton blocks",
    "same partition": "same partition",
    "non-finite loss: E_model": "non-finite model loss",
    "non-finite loss": "non-finite loss",
    "baselines coincide": "baselines coincide",
    "no variation": "no variation",
    "too few draws": "too few draws",
    "rare events: f is": "rare values",
    "rare events": "rare pairs",
    "data uncertainty not resolved": "data uncertainty not resolved",
    "data uncertainty blurred": "data uncertainty blurred",
    "loss recovered is undefined": "no width",
    "stopped at": "too wide",
}


def read_kind(text: str, beginnings: Mapping[str, str]) -> Said:
    """The sentence with its kind: its own, or that of the first beginning which it has.

    >>> read_kind("empty claim: all rows are in one block", WARNINGS).kind
    'empty claim'
    """
    if isinstance(text, Said) and text.kind:
        return text
    plain = text.removeprefix("Fieller; ")
    kind = next((kind for beginning, kind in beginnings.items() if plain.startswith(beginning)), "")
    if beginnings is WAYS and plain.endswith(" sampled pairs"):
        kind = "sampled pairs"
    return Said(text, kind)


def make_estimate(method: str, **others: Any) -> Estimate:
    """An estimate as it was written."""
    return Estimate(method=read_kind(method, METHODS), **others)


def make_baseline(method: str, **others: Any) -> Baseline:
    """A baseline as it was written."""
    return Baseline(method=read_kind(method, WAYS), **others)


def make_data_uncertainty(warnings: Sequence[str], gradients: Any = None, **others: Any) -> DataUncertainty:
    """The data's uncertainty as it was written; gradients of their own are of D's plug-in values, and left out."""
    return DataUncertainty(warnings=read_warnings(warnings), **others)


def read_warnings(warnings: Sequence[str]) -> tuple[str, ...]:
    """Warnings with their kinds."""
    return tuple(read_kind(each, WARNINGS) for each in warnings)
