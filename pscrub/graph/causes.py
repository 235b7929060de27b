"""Why a module cannot be traced, found by running it again: state, random numbers, loops over rows, rows that interact.

What an export or a comparison sees is often a consequence: a cache that was filled for five rows looks like a batch
size that is a constant, and noise like a graph that is wrong. So the module is tried before it is said what to do.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pscrub.errors import TraceError, is_machinery
from pscrub.graph.cuts import hook
from pscrub.graph.equal import find_gap
from pscrub.graph.graph import Graph
from pscrub.graph.nested import tensors_of
from pscrub.graph.state import Generators, Kept
from pscrub.graph.subject import Subject

_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


@contextlib.contextmanager
def causes_told(subject: Subject, columns: Mapping[str, Tensor], tolerance: float, exported: bool) -> Iterator[None]:
    """Within, a refusal says first what in the module it comes from, where that is found.

    Args:
        subject: what is traced.
        columns: three or more rows.
        tolerance: relative difference that is rounding.
        exported: whether there is a graph already, which is compared with the module.
    """
    try:
        yield
    except TraceError as error:
        cause = find_cause(subject, columns, tolerance, exported)
        if cause is None:
            raise
        raise TraceError(f"{cause}. It was seen thus: {'; '.join(error.faults)}") from error.__cause__ or error


def find_cause(subject: Subject, columns: Mapping[str, Tensor], tolerance: float, exported: bool) -> str | None:
    """What is wrong with the module and what to do; None if nothing is found, or it does not run."""
    trial = _Trial(subject, columns, tolerance)
    with contextlib.suppress(Exception):  # what it raises was told, or is the module's own affair
        found = trial.find_state() or trial.find_randomness() or (None if exported else trial.find_quantised())
        if found is None:
            found = (trial.find_mutation() or trial.find_interaction()) if exported else trial.find_loop()
        return found
    return None


def dead_faults(graph: Graph, names: Mapping[str, Any], output: str) -> list[str]:
    """Cuts that neither the module's result nor anything on top depends on: a claim about one would not matter.

    Args:
        graph: traced.
        names: the cuts.
        output: the node of the module's result.
    """
    ends = [name for name in graph.nodes if name not in names or name == output]
    alive = set().union(*(graph.ancestors(name) for name in ends))
    return [
        f"node '{name}': nothing reads the value of {cut}, neither what gives '{output}' nor a behaviour, so that no "
        "claim about it could matter: do not cut there, or give a behaviour that reads it"
        for name, cut in names.items()
        if name not in alive
    ]


class _Trial:
    """A module run on a few rows, again and otherwise."""

    def __init__(self, subject: Subject, columns: Mapping[str, Tensor], tolerance: float) -> None:
        self.subject, self.module, self.tolerance = subject, subject.module, tolerance
        self.columns = {name: column[:2] for name, column in columns.items()}
        self.device = next(iter(columns.values())).device

    def find_state(self) -> str | None:
        """State that is kept from call to call."""
        kept, generators = Kept(self.module), Generators(self.device)
        first = self._run()
        changed = kept.changed()
        generators.put_back()
        if not self._differ(first, self._run()):
            return None
        kept.put_back()
        listed = ", ".join(f"'{name}'" for name in changed) or "in objects of its own"
        return (
            f"forward keeps state from call to call ({listed}), so that its result is no function of its inputs: make "
            f"what is kept within forward, at each call, or turn the cache off{self.subject.advice}"
        )

    def find_randomness(self) -> str | None:
        """Random numbers."""
        first = self._run()
        with _Drawing() as drawing:
            again = self._run()
        if not self._differ(first, again):
            return None
        where = f": {drawing.found}" if drawing.found else ", from Python's or numpy's generators"
        return (
            f"forward draws random numbers{where}: make noise a column that forward takes, or draw it once and keep it "
            f"as a buffer{self.subject.advice}"
        )

    def find_quantised(self) -> str | None:
        """Submodules of torch's quantisation."""
        found = {
            path: f"{'dynamic ' * ('.dynamic.' in type(each).__module__)}{type(each).__name__}"
            for path, each in self.module.named_modules()
            if type(each).__module__.startswith(_QUANTISED) and not path.endswith("._packed_params")
        }
        if not found:
            return None
        listed = ", ".join(f"'{path}' ({kind})" for path, kind in found.items())
        return (
            f"submodules are quantised: {listed}. torch.export cannot read their packed weights, and a dynamic one "
            "takes one scale for all rows of the batch, so that rows interact: put a float module in place of each, "
            "as nn.Linear with the weight each.weight().dequantize() and the bias each.bias()"
        )

    def find_loop(self) -> str | None:
        """A line that runs once for each row."""
        one = {name: column[:1] for name, column in self.columns.items()}
        counts = []
        for size in (2, 3):
            with _Counting() as counting:
                self.subject({name: column.repeat_interleave(size, 0) for name, column in one.items()})
            counts.append(counting.lines)
        longer = [line for line, times in counts[1].items() if times > counts[0][line]]
        if not longer:
            return None
        return (
            f"forward loops over the rows of its batch (at {longer[0]}), so that no one graph tells what it computes "
            "for any number of them: call what is in the loop on all rows at once, f(x) for torch.stack([f(r) for r "
            "in x]), or write torch.vmap(f)(x)"
        )

    def find_mutation(self) -> str | None:
        """Cuts whose values are changed in place after they were seen."""
        seen: dict[str, tuple[Tensor, int]] = {}

        def see(name: str, value: Tensor) -> Tensor:
            seen[name] = value, value._version
            return value

        with hook(self.module, self.subject.cuts, see):
            self._run()
        changed = [f"'{name}'" for name, (value, version) in seen.items() if value._version != version]
        if not changed or self._interacting() is not None:
            return None
        return (
            f"forward changes the value of {', '.join(changed)} in place after it was cut, and what else reads the "
            "tensor sees that: make a new value (x = x * 2, not x *= 2; relu(x), not relu_(x)), or change a clone"
        )

    def find_interaction(self) -> str | None:
        """Rows that interact."""
        gap = self._interacting()
        if gap is None:
            return None
        second = [
            f"'{path}' ({type(each).__name__})"
            for path, each in self.module.named_modules()
            if getattr(each, "batch_first", True) is False
        ]
        advice = (
            f": {', '.join(second[:3])} take the batch as the second axis: try batch_first=True, or give them "
            "x.transpose(0, 1)"
            if second
            else ": take no mean, maximum or other statistic over the batch (axis 0)"
        )
        return (
            f"the module's rows interact, one row's result changing by {gap:.3g} when another stands beside it"
            f"{advice}{self.subject.advice}"
        )

    def _interacting(self) -> float | None:
        bare = replace(self.subject, cuts={})
        both = bare.record(self.columns)[self.subject.output]
        alone = bare.record({name: column[:1] for name, column in self.columns.items()})[self.subject.output]
        gap, scale = find_gap(both[:1], alone)
        return gap if gap > max(self.tolerance, torch.finfo(torch.float32).eps ** 0.5) * scale else None

    def _run(self) -> list[Tensor]:
        result = self.subject({name: column.clone() for name, column in self.columns.items()})
        return [each.detach().clone() for each in tensors_of(result)]

    def _differ(self, first: list[Tensor], second: list[Tensor]) -> bool:
        gaps = [find_gap(*pair) for pair in zip(first, second, strict=False)]
        return len(first) != len(second) or any(gap > self.tolerance * scale for gap, scale in gaps)


def _line_within() -> str | None:
    """The innermost line of a user's code that is running within the module."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not Subject.__call__.__code__:
        file = frame.f_code.co_filename
        if not is_machinery(file):
            return f"{file}:{frame.f_lineno}: {linecache.getline(file, frame.f_lineno).strip()}"
        frame = frame.f_back  # type: ignore[assignment]
    return None


class _Drawing(TorchDispatchMode):
    """Notes the first operation that draws random numbers, and where."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags and not self.found:
            line = _line_within()
            self.found = f"{func}" + (f" (at {line})" if line else "")
        return func(*args, **(kwargs or {}))


class _Counting(TorchFunctionMode):
    """Counts calls of torch's functions by line of the user's code."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        line = _line_within()
        if line is not None:
            self.lines[line] += 1
        return func(*args, **(kwargs or {}))
