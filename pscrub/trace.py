"""Any torch module -> Graph: torch.export, with cut points named by the user."""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import os
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pscrub._fx import mark_op, nodes_between_marks
from pscrub._hooks import Cut, hooked, input_of, left_as_found, output_of, picked
from pscrub.dataset import Dataset
from pscrub.errors import TraceError, close
from pscrub.graph import Graph, Node

Inputs = Sequence[str] | Mapping[str, str]
Argument = tuple[str | None, str]  # forward's parameter, None for the next positional one, and the column it takes
_TRY_EVAL = "; the module is in training mode, where dropout draws and batch statistics mix rows: try module.eval()"
_NOT_USERS = {os.path.dirname(os.path.abspath(file)) for file in (__file__, contextlib.__file__)}
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep


def trace(
    module: nn.Module,
    example: Dataset | Mapping[str, Any],
    *,
    cuts: Mapping[str, str | Cut],
    inputs: Inputs | None = None,
    output: str = "output",
    behaviour: Node | Sequence[Node] = (),
    check_rows: int = 7,
    tolerance: float = 1e-5,
) -> Graph:
    """The graph of a torch module, with the named cuts, the module's result and the behaviour as its nodes.

    A node reads the nearest named values that its computation reaches walking back, and runs only what lies between;
    what is not named is inlined into every reader. Every `fn` of a traced node is a `torch.fx.GraphModule`, its
    parameters copied once from the module (which may change afterwards, unnoticed) and shared by the graph's nodes.
    All dimensions but the batch are those of the example. A value that depends on no column (position embeddings)
    is repeated in every row, and its node reads the first column for the number of rows alone.

    The module runs as it stands, in training mode or not; it is left as it was found, hooks and buffers included.

    Args:
        module: any module that `torch.export` takes and that treats the rows of a batch alike and independently.
        example: columns [N, ...], from which a few rows are taken; all other columns a behaviour may read.
        cuts: node name -> a submodule's path, for its output, or `output_of(...)`, `input_of(...)`.
        inputs: the columns that forward takes: by name where forward has a parameter of that name, in order
            otherwise; or forward's parameter -> column. By default every column named like a parameter of forward, or
            the only column.
        output: the name of the node for the first tensor in the module's result.
        behaviour: nodes on top, which read columns and any node; the last one is the graph's output. Without any
            it is the module's result.
        check_rows: the graph is compared with the module on 1, 2 and this many rows of the example.
        tolerance: the largest difference allowed, relative to a value's largest magnitude. Differences are 0 as a rule.

    Raises:
        TraceError: unknown paths or names, a submodule called never or several times, a value that is no tensor or
            not batch first, a module that does not export, that is random or mixes rows, a graph that differs from it.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    >>> data = Dataset({"x": torch.randn(9, 3), "label": torch.arange(9) % 2})
    >>> right = Node("right", ("logits", "label"), lambda logits, label: (logits.argmax(1) == label).float())
    >>> graph = trace(model, data, cuts={"hidden": "1"}, inputs=["x"], output="logits", behaviour=right)
    >>> {node.name: node.inputs for node in graph.nodes.values()}
    {'hidden': ('x',), 'logits': ('hidden',), 'right': ('logits', 'label')}
    >>> torch.equal(graph.run(["logits"], {"x": data["x"]})["logits"], model(data["x"]))
    True
    """
    data = example if isinstance(example, Dataset) else Dataset(example)
    on_top = (behaviour,) if isinstance(behaviour, Node) else tuple(behaviour)
    faults: list[str] = []
    arguments = _arguments(module, data, inputs, faults)
    named_cuts = {name: cut if isinstance(cut, Cut) else output_of(cut) for name, cut in cuts.items()}
    subject = _Subject(module, named_cuts, output, arguments)
    on_top_reads = [read for node in on_top for read in node.inputs if read in data.names]
    columns = list(dict.fromkeys([*subject.columns, *on_top_reads]))
    faults += _name_faults(subject, columns, data, on_top) + _path_faults(subject)
    if faults:
        raise TraceError(faults)
    device = next(t.device for t in (*module.parameters(), *module.buffers(), data[columns[0]]))

    def rows(count: int) -> dict[str, Tensor]:
        spread = torch.arange(count) * max(1, data.n // count) % data.n
        return {name: data[name][spread.to(data[name].device)].to(device) for name in columns}

    # Odd, and no other size of the inputs nor of the check: no coincidence of sizes then passes for a rule.
    taken = {check_rows, *(size for column in rows(1).values() for size in column.shape[1:])}
    batch = next(size for size in itertools.count(5, 2) if size not in taken)
    with left_as_found(module, device):
        subject.record(rows(batch))
        nodes, constant = nodes_between_marks(subject.export(rows(batch)), subject.columns)
        assert {node.name for node in nodes} == {*named_cuts, output}
        graph = Graph([*nodes, *on_top], columns, on_top[-1].name if on_top else output)
        _check(graph, subject, rows(max(2, check_rows)), constant, tolerance)
    return graph


@dataclass(frozen=True)
class _Subject:
    """The module with its cuts, called on columns."""

    module: nn.Module
    cuts: Mapping[str, Cut]
    output: str
    arguments: tuple[Argument, ...]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for _, column in self.arguments))

    def __call__(self, columns: Mapping[str, Tensor]) -> Any:
        positional = [columns[column] for parameter, column in self.arguments if parameter is None]
        return self.module(*positional, **{p: columns[column] for p, column in self.arguments if p is not None})

    def record(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values of the cuts and of the result, as plain hooks on the module see them."""
        found: dict[str, Tensor] = {}
        faults: list[str] = []

        def see(name: str, value: Any) -> Any:
            if isinstance(value, Tensor):
                found[name] = value.detach().clone()
            else:
                faults.append(f"node '{name}': {self.cuts[name]} is {_described(value)}; expected a tensor")
            return value

        with hooked(self.module, self.cuts, see) as calls:
            try:
                result = self({name: column.clone() for name, column in columns.items()})
            except Exception as error:
                size = len(next(iter(columns.values())))
                message = f"the module does not run on {size} rows of the example: {_told(error)}{self.advice}"
                raise TraceError(message) from error
        for name, cut in self.cuts.items():
            faults += _call_faults(name, cut, calls[name])
        value = picked(result, None)
        if not isinstance(value, Tensor):
            faults.append(f"the module returns {_described(result)}, in which no tensor was found for '{self.output}'")
        if faults:
            raise TraceError(faults)
        return found | {self.output: value.detach().clone()}

    def export(self, columns: Mapping[str, Tensor]) -> ExportedProgram:
        """The program, free of mutation, with a mark at each cut and at the result."""
        values = tuple(columns[name] for name in self.columns)
        marked = _Marked(self)
        printed = io.StringIO()
        with warnings.catch_warnings(), hooked(self.module, self.cuts, marked.mark):
            warnings.filterwarnings("ignore", r".*treespec, LeafSpec", FutureWarning)
            # State that forward keeps on the module (an LSTM's list of weights, harmlessly): the check will tell.
            warnings.filterwarnings("ignore", r"The tensor attributes? .* assigned during export", UserWarning)
            try:
                # A refused export prints its partial graph there, which no exception handler can undo.
                with contextlib.redirect_stderr(printed):
                    exported = torch.export.export(
                        marked,
                        (values,),
                        dynamic_shapes=(tuple({0: Dim("batch")} for _ in values),),
                        strict=False,
                    )
                    # With no decompositions asked for, this removes mutation and inlines regions of autocast and
                    # grad mode (where marks would be out of sight), and keeps `linear` and attention whole.
                    program: ExportedProgram = exported.run_decompositions({})
            except Exception as error:
                raise TraceError(_refusal(error)) from error
        sys.stderr.write(printed.getvalue())
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

    def __init__(self, subject: _Subject) -> None:
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
        self.mark(self.subject.output, picked(result, None))
        marks = list(self.marks)
        self.marks.clear()
        return marks


def _check(
    graph: Graph, subject: _Subject, columns: Mapping[str, Tensor], constant: set[str], tolerance: float
) -> None:
    """Compares the graph with the module, node by node, on 1, 2 and all of some rows."""
    alone: dict[str, Tensor] = {}
    for size in sorted({1, 2, *(len(column) for column in columns.values())}):
        values = {name: column[:size] for name, column in columns.items()}
        expected = subject.record(values)
        for name, node in graph.nodes.items():
            repeated = [f"'{read}'" for read in node.inputs if read in constant]
            advice = subject.advice
            if repeated:
                advice += (
                    f"; it reads {', '.join(repeated)}, one value for all rows, here repeated in each: try not to cut"
                )
            value = values[name] = _value(node, values, size, advice)
            if name in expected:
                wanted = expected[name].broadcast_to(value.shape) if name in constant else expected[name]
                if value.shape != wanted.shape or value.dtype != wanted.dtype:
                    is_, was = (f"{str(each.dtype)[6:]}{[*each.shape]}" for each in (value, wanted))
                    raise TraceError(f"node '{name}' is {is_} on {size} rows; the module's is {was}{advice}")
                gap, scale = _gap(value, wanted)
                if gap > tolerance * scale:
                    raise TraceError(
                        f"node '{name}' differs from the module by {gap:.3g} on {size} rows (largest magnitude "
                        f"{scale:.3g}): the module is random, keeps state from call to call, or changes in place a "
                        f"tensor that is also used elsewhere{advice}"
                    )
            gap, scale = _gap(alone.setdefault(name, value), value[:1])
            # Kernels for other batch sizes add up in another order.
            if value.is_floating_point() and gap > max(tolerance, torch.finfo(value.dtype).eps ** 0.5) * scale:
                raise TraceError(
                    f"node '{name}' of one row changes by {gap:.3g} (largest magnitude {scale:.3g}) when {size - 1} "
                    f"more stand in its batch: rows must not interact{advice}"
                )


def _value(node: Node, values: Mapping[str, Tensor], size: int, advice: str) -> Tensor:
    try:
        value = node.fn(*(values[read] for read in node.inputs))
    except Exception as error:
        raise TraceError(f"node '{node.name}' fails on {size} rows of the example: {_told(error)}{advice}") from error
    if isinstance(value, Tensor) and value.shape[:1] == (size,):
        return value
    found = f"{_described(value)} of shape {[*value.shape]}" if isinstance(value, Tensor) else _described(value)
    raise TraceError(f"node '{node.name}' gives {found} for {size} rows; expected a tensor, [{size}, ...]{advice}")


def _gap(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """The largest difference and the largest magnitude; infinities and NaN differ from all but their like."""
    if found.shape != expected.shape or not expected.numel():
        return (0.0 if found.shape == expected.shape else float("inf")), 0.0
    a, b = (each.to(torch.promote_types(each.dtype, torch.float64)) for each in (found, expected))
    gap = (a - b).abs().nan_to_num(nan=float("inf")).masked_fill((a == b) | (a.isnan() & b.isnan()), 0.0)
    return gap.max().item(), b.abs().nan_to_num(nan=0.0, posinf=0.0).max().item()


def _arguments(module: nn.Module, data: Dataset, inputs: Inputs | None, faults: list[str]) -> tuple[Argument, ...]:
    signature = inspect.signature(module.forward).parameters.values()
    named = [p.name for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if inputs is None:
        inputs = [name for name in data.names if name in named] or (data.names if len(data.names) == 1 else [])
    if isinstance(inputs, Mapping):
        arguments: list[Argument] = list(inputs.items())
        if not any(p.kind is p.VAR_KEYWORD for p in signature):
            unknown = [parameter for parameter in inputs if parameter not in named]
            faults += [f"forward has no parameter '{each}'{close(each, named)}" for each in unknown]
    else:
        arguments = [(column if column in named else None, column) for column in inputs]
    if not arguments:
        faults.append(
            f"no column ({', '.join(data.names)}) is named like a parameter of forward ({', '.join(named)}): say which "
            "it takes with inputs"
        )
    return tuple(arguments)


def _name_faults(subject: _Subject, columns: Iterable[str], data: Dataset, on_top: Sequence[Node]) -> list[str]:
    faults = []
    for column in columns:
        if column not in data.names:
            faults.append(f"inputs name '{column}', which is no column{close(column, data.names)}")
        elif not isinstance(data[column], Tensor):
            faults.append(f"column '{column}' holds strings, which no node can read")
    names = [*subject.cuts, subject.output, *(node.name for node in on_top)]
    faults += [f"two nodes are named '{name}'" for name, times in Counter(names).items() if times > 1]
    faults += [f"node '{name}' has the name of a column of the example" for name in names if name in data.names]
    known = list(dict.fromkeys([*names, *data.names]))
    for node in on_top:
        unknown = [read for read in node.inputs if read not in known]
        faults += [f"behaviour '{node.name}' reads unknown '{read}'{close(read, known)}" for read in unknown]
    return faults


def _path_faults(subject: _Subject) -> list[str]:
    paths = [path for path, _ in subject.module.named_modules(remove_duplicate=False)]
    return [
        f"node '{name}': the module has no submodule '{cut.path}'{close(cut.path, [p for p in paths if p])}"
        for name, cut in subject.cuts.items()
        if cut.path not in paths
    ]


def _call_faults(name: str, cut: Cut, calls: int) -> list[str]:
    if calls == 0:
        return [
            f"node '{name}': submodule '{cut.path}' is never called in forward (its parent may use its weights "
            "directly); cut at its parent instead"
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
            f"what it computes; torch.where or a mask may do. torch.export: {_told(error)}"
        )
    return f"torch.export refuses the module: {_told(error)}"


def _told(error: BaseException) -> str:
    """An exception's kind, its first line and the innermost line of the user's code that it came from."""
    first = str(error).strip().partition("\n")[0]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if os.path.dirname(frame.filename) not in _NOT_USERS and not frame.filename.startswith(
            (_TORCH, "<eval_with_key")
        ):
            return f"{type(error).__name__}: {first} (at {frame.filename}:{frame.lineno}: {frame.line})"
    return f"{type(error).__name__}: {first}"


def _described(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


__all__ = ["Cut", "input_of", "output_of", "trace"]
