"""The torch module that is traced: called on columns, seen at its cuts, exported, and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from pscrub.errors import TraceError, close, tell
from pscrub.graph.cuts import Cut, hook
from pscrub.graph.export import export_functional, mark_op
from pscrub.graph.layout import FIRST, Layout, find_layouts
from pscrub.graph.nested import first_path, pick

Argument = tuple[str | None, str]  # forward's parameter, None for the next positional one, and the column it takes

_TRY_EVAL = "; the module is in training mode, where dropout draws and batch statistics mix rows: try module.eval()"


@dataclass(frozen=True)
class Subject:
    """The module with its cuts, called on columns.

    Args:
        module: as it was given.
        cuts: node name -> cut.
        output: the node of its result.
        arguments: what forward takes.
        layouts: where the rows are in values that do not have them first; the others do.
    """

    module: nn.Module
    cuts: Mapping[str, Cut]
    output: str
    arguments: tuple[Argument, ...]
    layouts: Mapping[str, Layout] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for _, column in self.arguments))

    def __call__(self, columns: Mapping[str, Tensor]) -> Any:
        positional = [columns[column] for parameter, column in self.arguments if parameter is None]
        return self.module(*positional, **{p: columns[column] for p, column in self.arguments if p is not None})

    def surveyed(self, columns: Mapping[str, Tensor], few: int = 2) -> tuple[Subject, dict[str, Tensor]]:
        """The subject that knows where rows are in each value, and what it records: seen on all rows and on a few."""
        plain, rows = replace(self, layouts={}), len(next(iter(columns.values())))
        whole = plain.record(columns)
        part = plain.record({name: column[:few] for name, column in columns.items()})
        layouts = find_layouts(whole, part, rows, few)
        moved = {name: layout for name, layout in layouts.items() if layout != FIRST}
        return replace(self, layouts=moved), whole | {name: at.rows_first(whole[name]) for name, at in moved.items()}

    def record(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values of the cuts and of the result, as plain hooks on the module see them, rows first."""
        found: dict[str, Tensor] = {}
        self.watch(columns, lambda name, value: found.update({name: value.clone()}))
        return found

    def hooked(self, see: Callable[[str, Any], Any]) -> AbstractContextManager[Any]:
        """Within, a call passes the value of each cut through `see(name, value)`; yields how often each was called."""
        return hook(self.module, self.cuts, see)

    def watch(self, columns: Mapping[str, Tensor], see: Callable[[str, Tensor], object]) -> None:
        """Calls `see` with each cut's name and value, rows first, and the result's, in the order in which they come."""
        faults: list[str] = []

        def rows_first(name: str, value: Tensor) -> Tensor:
            return self.layouts.get(name, FIRST).rows_first(value.detach())

        def pass_on(name: str, value: Any) -> Any:
            if isinstance(value, Tensor) and torch._C._functorch.is_batchedtensor(value):
                faults.append(
                    f"node '{name}': {self.cuts[name]} is within torch.vmap, where each value is of one row: cut at "
                    "what goes in or comes out of it, or call the submodule on all rows at once, without vmap"
                )
            elif isinstance(value, Tensor):
                see(name, rows_first(name, value))
            else:
                faults.append(f"node '{name}': {_say_no_tensor(self.cuts[name], value)}")
            return value

        with self.hooked(pass_on) as calls:
            try:
                result = self({name: column.clone() for name, column in columns.items()})
            except TraceError:  # of what looks on
                raise
            except Exception as error:
                size = len(next(iter(columns.values())))
                message = f"the module does not run on {size} rows of the example: {tell(error)}{self.advice}"
                raise TraceError(message) from error
        for name, cut in self.cuts.items():
            faults += call_faults(name, cut, calls[name])
        value = pick(result, None)
        if not isinstance(value, Tensor):
            faults.append(f"the module returns {describe(result)}, in which no tensor was found for '{self.output}'")
        if faults:
            raise TraceError(faults)
        assert isinstance(value, Tensor)
        see(self.output, rows_first(self.output, value))

    def export(self, columns: Mapping[str, Tensor]) -> ExportedProgram:
        """The program, free of mutation, with a mark at each cut and at the result."""
        values = tuple(columns[name] for name in self.columns)
        marked = _Marked(self)
        try:
            with self.hooked(marked.mark):
                program = export_functional(marked, values)
        except Exception as error:
            raise TraceError(_refusal(error)) from error
        changed = program.graph_signature.buffers_to_mutate.values()
        if changed:
            listed = ", ".join(f"'{name.removeprefix('module.')}'" for name in changed)
            raise TraceError(f"forward changes its buffers {listed}: values would depend on earlier calls{self.advice}")
        return program

    @property
    def advice(self) -> str:
        return _TRY_EVAL if any(each.training for each in self.module.modules()) else ""


class _Marked(nn.Module):
    """The subject as the module that is exported: marks its result, and returns all marks so that none is dropped."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.module = subject.module
        self.subject = subject
        self.marks: list[Tensor] = []

    def mark(self, name: str, value: Tensor) -> Tensor:
        marked: Tensor = mark_op()(value, name)
        self.marks.append(marked)
        return marked

    def forward(self, columns: tuple[Tensor, ...]) -> list[Tensor]:
        self.marks.clear()
        result = self.subject(dict(zip(self.subject.columns, columns, strict=True)))
        self.mark(self.subject.output, pick(result, None))
        marks = list(self.marks)
        self.marks.clear()
        return marks


def path_faults(subject: Subject) -> list[str]:
    paths = [path for path, _ in subject.module.named_modules(remove_duplicate=False)]
    return [
        f"node '{name}': the module has no submodule '{cut.path}'{close(cut.path, [p for p in paths if p])}"
        for name, cut in subject.cuts.items()
        if cut.path not in paths
    ]


def _say_no_tensor(cut: Cut, value: object) -> str:
    inside = first_path(value)
    steps = cut.index if isinstance(cut.index, tuple) else () if cut.index is None else (cut.index,)
    advice = f"; its first is {Cut(cut.path, cut.side, (*steps, *inside), cut.call)}" if inside else ""
    return f"{cut} is {describe(value)}; expected a tensor{advice}"


def call_faults(name: str, cut: Cut, calls: int) -> list[str]:
    if calls == 0:
        return [
            f"node '{name}': submodule '{cut.path}' is never called in forward (its parent may use its weights "
            "directly): cut at its parent, or have it called there"
        ]
    if cut.call is None and calls > 1:
        which = Cut(cut.path, cut.side, cut.index, 0)
        return [f"node '{name}': submodule '{cut.path}' is called {calls} times; say which, as in {which}"]
    if cut.call is not None and not 0 <= cut.call < calls:
        return [f"node '{name}': {cut}, but the submodule is called {calls} times: 0 to {calls - 1}"]
    return []


def _refusal(error: Exception) -> str:
    """Why torch.export refuses the module, in words of the module."""
    if "Constraints violated (batch)" in str(error):
        lines = [line.strip(" -").partition(" If you're")[0] for line in str(error).splitlines() if line[:4] == "  - "]
        return (
            "forward does not work for every number of rows: it makes the batch size a constant (`int(x.shape[0])`, "
            "`range(len(x))`, a tensor of so many rows) or branches on it. torch.export: "
            + " ".join(dict.fromkeys(lines))
        )
    if type(error).__name__ == "GuardOnDataDependentSymNode":
        return (
            "forward branches on, or makes Python numbers of, the values of its tensors, so that no one graph tells "
            f"what it computes; torch.where or a mask may do. torch.export: {tell(error)}"
        )
    return f"torch.export refuses the module: {tell(error)}"


def describe(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
