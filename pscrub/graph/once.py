"""A torch module exported once, every value of its submodules marked: graphs with any cuts are taken from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from pscrub.data.dataset import Dataset
from pscrub.errors import TraceError
from pscrub.graph.causes import causes_told, dead_faults
from pscrub.graph.checking import Trial
from pscrub.graph.cuts import Cut, Places, cuts_of, find_label, hook_everywhere
from pscrub.graph.export import Parts, nodes_between_marks, read_program
from pscrub.graph.graph import Graph, Node
from pscrub.graph.layout import Layout
from pscrub.graph.program import Program, StepKind
from pscrub.graph.state import left_as_found
from pscrub.graph.subject import Subject, call_faults, path_faults
from pscrub.graph.tracing import (
    Inputs,
    Known,
    Rows,
    arguments_of,
    as_cuts,
    columns_of,
    name_faults,
    open_behaviours,
    set_checked,
)

RESULT = "the module's result"


def trace_all(
    module: nn.Module,
    example: Dataset | Mapping[str, Any],
    *,
    inputs: Inputs | None = None,
    check_rows: int = 7,
    tolerance: float = 1e-5,
) -> Traced:
    """A module exported once, so that graphs with these cuts or those cost no other export and share its weights.

    It takes about half as long again as one `trace`, which marks nothing but its own cuts. Whatever submodules read
    and return is compared with the module, as `trace` compares cuts.

    Args:
        module: as for `trace`.
        example: columns [N, ...], from which a few rows are taken; all other columns a behaviour may read.
        inputs: the columns that forward takes, as for `trace`.
        check_rows: the program is compared with the module on 1, 2 and this many rows of the example.
        tolerance: the largest difference allowed, relative to a value's largest magnitude.

    Raises:
        TraceError: what `trace` refuses. A module that changes in place a tensor which a submodule reads or returns can
            differ here and not under `trace` with cuts elsewhere.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    >>> traced = trace_all(model, {"x": torch.randn(9, 3)}, inputs=["x"])
    >>> for cut, shape in traced.points.items():
    ...     print(cut, shape)
    input_of('', index=0) (3,)
    input_of('0', index=0) (3,)
    output_of('0') (4,)
    input_of('1', index=0) (4,)
    output_of('1') (4,)
    input_of('2', index=0) (4,)
    output_of('2') (2,)
    output_of('') (2,)
    >>> traced.graph({"hidden": "1"}, output="logits")
    Graph(2 nodes, inputs x, output logits)
    >>> traced.graph({"before": model[0], "hidden": model[1]}, output="logits")
    Graph(3 nodes, inputs x, output logits)
    """
    data = example if isinstance(example, Dataset) else Dataset(example)
    faults: list[str] = []
    subject = _Everywhere(module, {}, RESULT, arguments_of(module, data, inputs, faults))
    faults += name_faults(subject, subject.columns, data, ())
    if faults:
        raise TraceError(faults)
    columns = subject.columns
    rows = Rows(data, columns, next(t.device for t in (*module.parameters(), *module.buffers(), data[columns[0]])))
    some = rows.of(rows.for_export(check_rows))
    with left_as_found(module, rows.device):
        with causes_told(subject, some, tolerance, exported=False):
            surveyed, recorded = subject.surveyed(some)
            shapes = {name: tuple(value.shape[1:]) for name, value in recorded.items()}
            result = recorded.pop(RESULT)
            del recorded
            assert isinstance(surveyed, _Everywhere)
            program = read_program(Parts(surveyed.export(some), columns))
            traced = Traced(surveyed, rows, program, max(2, check_rows), tolerance)
            traced.results[traced.exported] = result
        names = traced.keep_marks(shapes)
        nodes, constant = traced.nodes(names, surveyed.layouts)
        graph = Graph(nodes, columns, RESULT)
        traced.alive |= graph.ancestors(RESULT)

        def watch(some: Mapping[str, Tensor], see: Callable[[str, Tensor], object]) -> None:
            surveyed.watch(some, lambda name, value: see(name, value) if name in names else None)

        def keep(name: str, value: Tensor) -> None:
            if name == RESULT and len(value) in (1, traced.check_rows):
                traced.results[len(value)] = value

        with causes_told(surveyed, some, tolerance, exported=True):
            trial = Trial(rows.of(traced.check_rows), tolerance, subject.advice, holds=False)
            trial.check(graph, watch, constant, keep=keep)
    return traced


@dataclass(frozen=True)
class _Everywhere(Subject):
    """The module with all that its submodules read and return for cuts."""

    places: Places = field(default_factory=dict)

    def hooked(self, see: Callable[[str, Any], Any]) -> AbstractContextManager[Any]:
        return hook_everywhere(self.module, see, self.places)


class Traced:
    """A module's program with all its marks, from which graphs are taken. Made by `trace_all`."""

    def __init__(self, subject: _Everywhere, rows: Rows, program: Program, check_rows: int, tolerance: float) -> None:
        self.subject, self.rows, self.program = subject, rows, program
        self.check_rows, self.tolerance = check_rows, tolerance
        self.places = {key: list(calls) for key, calls in subject.places.items()}
        self.exported = rows.for_export(check_rows)
        self.results: dict[int, Tensor] = {}
        """By number of rows: on those of the export the module's, on one and on those of the check the graph's."""
        self.alive: set[str] = set()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._opened: Known = []

    def keep_marks(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
        """The marks that depend on columns and have one value a row, under their own names."""
        layouts = self.subject.layouts
        found = _of_columns(self.program)
        for name, place in self.program.marks.items():
            if place in found and (name in layouts or self.program.steps[place].batch_first):
                self._shapes[name] = shapes[name]
        return {name: name for name in self._shapes}

    def nodes(self, names: Mapping[str, str], layouts: Mapping[str, Layout]) -> tuple[list[Node], set[str]]:
        """The nodes of some marks, by mark -> name, and which of them have one value for all rows."""
        return nodes_between_marks(self.program, names, layouts)

    @property
    def points(self) -> dict[Cut, tuple[int, ...]]:
        """Every cut that can be made, and its shape without the batch; without what the result does not read."""
        known = {label: shape for label, shape in self._shapes.items() if label in self.alive}
        return {cut: known[label] for cut, label in cuts_of(self.places) if label in known}

    def graph(
        self,
        cuts: Mapping[str, str | Cut | nn.Module],
        *,
        output: str = "output",
        behaviour: Node | Sequence[Node] = (),
    ) -> Graph:
        """The graph with these cuts; arguments as for `trace`. All graphs share the module's parameters.

        Raises:
            TraceError: unknown paths or names, a submodule called never or several times, a value that is no tensor or
                not batch first, two names for one value, a behaviour that fails or mixes rows.
        """
        on_top = (behaviour,) if isinstance(behaviour, Node) else tuple(behaviour)
        subject = Subject(self.subject.module, as_cuts(self.subject.module, cuts), output, self.subject.arguments)
        columns = columns_of(subject, self.rows.data, on_top)
        faults = name_faults(subject, columns, self.rows.data, on_top) + path_faults(subject)
        faults = faults or self._call_faults(subject)
        if faults:
            raise TraceError(faults)
        names = self._names(subject) | {RESULT: output}
        nodes, constant = self.nodes(names, self.subject.layouts)
        rows = Rows(self.rows.data, columns, self.rows.device)
        below = Graph(nodes, subject.columns, output)
        more = {read for node in on_top for read in node.inputs if read in below.nodes and read != output}

        def known(size: int) -> dict[str, Tensor]:
            found = rows.of(size) | {output: self.results[size]}
            return found | below.run(more, {name: found[name] for name in subject.columns})

        on_top = tuple(open_behaviours(on_top, known(self.exported), self._opened)) if on_top else ()
        graph = Graph([*nodes, *on_top], columns, on_top[-1].name if on_top else output)
        given = known(self.check_rows)
        one = {name: column[:1] for name, column in given.items() if name in subject.columns}
        # The module was compared mark by mark: this is that the marks between were passed over rightly.
        Trial(one, self.tolerance, subject.advice).check(
            below, lambda some, see: see(output, self.results[1]), constant, [output]
        )
        if on_top:
            above = Graph(on_top, list(given), on_top[-1].name)
            Trial(given, self.tolerance, subject.advice).check(above)
        if faults := dead_faults(graph, subject.cuts, output):
            raise TraceError(faults)
        set_checked(graph)
        return graph

    def _call_faults(self, subject: Subject) -> list[str]:
        return [
            fault
            for name, cut in subject.cuts.items()
            for fault in call_faults(name, cut, len(self.places.get((cut.path, cut.side), ())))
        ]

    def _names(self, subject: Subject) -> dict[str, str]:
        """Mark -> the name that a cut gives it."""
        names: dict[str, str] = {}
        faults = []
        for name, cut in subject.cuts.items():
            label = find_label(self.places[cut.path, cut.side][cut.call or 0], cut)
            if label is None:
                faults.append(f"node '{name}': {cut} is no tensor; expected one of `points`")
            elif label in names:
                faults.append(f"'{names[label]}' and '{name}' name one value, {cut}: keep one of them")
            else:
                names[label] = name
        if faults:
            raise TraceError(faults)
        return names


def _of_columns(program: Program) -> set[int]:
    """The steps of a program that depend on its inputs, other than by their number of rows."""
    found = set(program.columns)
    for place, step in enumerate(program.steps):
        if step.kind is not StepKind.BATCH and any(read in found for read in step.reads):
            found.add(place)
    return found
