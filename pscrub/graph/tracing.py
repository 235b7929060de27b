"""Any torch module -> Graph: torch.export, with cut points named by the user."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pscrub.data.dataset import Dataset
from pscrub.errors import TraceError, close
from pscrub.graph.behaviours import open_function
from pscrub.graph.causes import causes_told, dead_faults
from pscrub.graph.checking import Trial
from pscrub.graph.cuts import Cut, output_of
from pscrub.graph.export import Parts, nodes_between_marks, read_program
from pscrub.graph.graph import Function, Graph, Node
from pscrub.graph.ops import Listed
from pscrub.graph.program import Excerpt
from pscrub.graph.state import left_as_found
from pscrub.graph.subject import Argument, Subject, path_faults

Inputs = Sequence[str] | Mapping[str, str]


def trace(
    module: nn.Module,
    example: Dataset | Mapping[str, Any],
    *,
    cuts: Mapping[str, str | Cut | nn.Module],
    inputs: Inputs | None = None,
    output: str = "output",
    behaviour: Node | Sequence[Node] = (),
    check_rows: int = 7,
    tolerance: float = 1e-5,
) -> Graph:
    """The graph of a torch module, with the named cuts, the module's result and the behaviour as its nodes.

    A node reads the nearest named values that its computation reaches walking back, and runs only what lies between;
    what is not named is computed by every reader. Every `fn` of a traced node is an excerpt of one program, kept whole,
    in which named values are marks; its parameters are copied once from the module (which may change afterwards,
    unnoticed) and shared by the graph's nodes. A behaviour is a program of its own, if torch can trace it; else it is
    called as it is.
    All dimensions but the batch are those of the example. A value that depends on no column (position embeddings)
    is repeated in every row, and its node reads the first column for the number of rows alone. A node's value has its
    rows first, wherever they are in the module's: [positions, batch, ...] is [batch, positions, ...] of the node, and
    so is [positions * batch, ...]. What gives the order of rows and positions is that rows do not interact.

    The module runs as it stands, in training mode or not; it is left as it was found: hooks, buffers, attributes.

    Args:
        module: any module that `torch.export` takes and that treats the rows of a batch alike and independently.
        example: columns [N, ...], from which a few rows are taken; all other columns a behaviour may read.
        cuts: node name -> a submodule or its path, for its output, or `output_of(...)`, `input_of(...)`. To choose
            cuts again and again without another export, `trace_all`.
        inputs: the columns that forward takes: by name where forward has a parameter of that name, in order
            otherwise; or forward's parameter -> column. By default every column named like a parameter of forward, or
            the only column.
        output: the name of the node for the first tensor in the module's result.
        behaviour: nodes on top, which read columns and any node; the last one is the graph's output. Without any
            it is the module's result.
        check_rows: the graph is compared with the module on 1, 2 and this many rows of the example.
        tolerance: the largest difference allowed, relative to a value's largest magnitude. Differences are 0 as a rule.

    Raises:
        TraceError: unknown paths or names, a submodule called never or several times, a value that is no tensor, has no
            row for each of the batch or that nothing reads, a module that does not export, that is random, keeps state,
            loops over rows or mixes them, a graph that differs from it. What is wrong in the module is said first.

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
    arguments = arguments_of(module, data, inputs, faults)
    subject = Subject(module, as_cuts(module, cuts), output, arguments)
    columns = columns_of(subject, data, on_top)
    faults += name_faults(subject, columns, data, on_top) + path_faults(subject)
    if faults:
        raise TraceError(faults)
    rows = Rows(data, columns, next(t.device for t in (*module.parameters(), *module.buffers(), data[columns[0]])))
    some = rows.of(rows.for_export(check_rows))
    with left_as_found(module, rows.device):
        with causes_told(subject, some, tolerance, exported=False):
            subject, recorded = subject.surveyed(some)
            program = read_program(Parts(subject.export(some), subject.columns))
            nodes, constant = nodes_between_marks(program, layouts=subject.layouts)
        assert {node.name for node in nodes} == {*subject.cuts, output}
        on_top = tuple(open_behaviours(on_top, recorded | some))
        graph = Graph([*nodes, *on_top], columns, on_top[-1].name if on_top else output)
        with causes_told(subject, some, tolerance, exported=True):
            Trial(rows.of(max(2, check_rows)), tolerance, subject.advice).check(graph, subject.watch, constant)
    if faults := dead_faults(graph, subject.cuts, output):
        raise TraceError(faults)
    set_checked(graph)
    return graph


@dataclass(frozen=True)
class Rows:
    """A few rows of a data set, spread over it."""

    data: Dataset
    columns: Sequence[str]
    device: torch.device

    def of(self, count: int) -> dict[str, Tensor]:
        """Columns of so many rows."""
        spread = torch.arange(count) * max(1, self.data.n // count) % self.data.n
        taken = {name: self.data[name] for name in self.columns}
        return {name: column[spread.to(column.device)].to(self.device) for name, column in taken.items()}

    def for_export(self, check_rows: int) -> int:
        """Odd, and no other size of the inputs nor of the check: no coincidence of sizes then passes for a rule."""
        taken = {check_rows, *(size for column in self.of(1).values() for size in column.shape[1:])}
        return next(size for size in itertools.count(5, 2) if size not in taken)


def set_checked(graph: Graph) -> None:
    """Marks what was traced as tried: it is not tried again before a run."""
    for node in graph.nodes.values():
        if isinstance(node.fn, Listed):
            node.fn.checked = True


def as_cuts(module: nn.Module, cuts: Mapping[str, str | Cut | nn.Module]) -> dict[str, Cut]:
    """Cuts by name, from paths, cuts or the submodules themselves.

    Raises:
        TraceError: a submodule that is not in the module.
    """
    paths = {id(each): path for path, each in module.named_modules()}
    found, faults = {}, []
    for name, cut in cuts.items():
        if isinstance(cut, nn.Module):
            if id(cut) not in paths:
                kind = type(cut).__name__
                faults.append(f"node '{name}': this {kind} is no submodule of the module: give one, or its path")
                continue
            cut = paths[id(cut)]
        found[name] = cut if isinstance(cut, Cut) else output_of(cut)
    if faults:
        raise TraceError(faults)
    return found


def columns_of(subject: Subject, data: Dataset, on_top: Sequence[Node]) -> list[str]:
    """The columns that forward takes, then those that nodes on top read beside."""
    more = [read for node in on_top for read in node.inputs if read in data.names]
    return list(dict.fromkeys([*subject.columns, *more]))


Known = list[tuple[Function, list[tuple[Any, ...]], Excerpt | None]]
"""Functions that were opened, the dtypes and shapes of what they read, and what was found."""


def open_behaviours(on_top: Iterable[Node], values: dict[str, Tensor], known: Known | None = None) -> Iterator[Node]:
    """The nodes on top, traced too where that gives the same bit for bit: then what labels do not enter is seen.

    Args:
        on_top: each after what it reads.
        values: of what they read; their own are added.
        known: what was opened before on as many rows, to be added to. It is seen again to give the same.
    """
    known = [] if known is None else known
    for node in on_top:
        opened, reads = None, [values[read] for read in node.inputs if read in values]
        if len(reads) == len(node.inputs):
            shapes = [(value.dtype, *value.shape) for value in reads]
            found = [each for fn, of, each in known if fn is node.fn and of == shapes]
            opened = found[0] if found else open_function(node.fn, reads)
            if not found:
                known.append((node.fn, shapes, opened))
            with contextlib.suppress(Exception):  # of the function: the check that follows names it
                values[node.name] = node.fn(*reads)
        if opened is not None and node.name in values and _are_same(opened, node.fn, reads):
            node = replace(node, fn=opened)
        yield node


def _are_same(opened: Excerpt, fn: Function, reads: Sequence[Tensor]) -> bool:
    for size in (1, 2, len(reads[0])):
        some = [value[:size] for value in reads]
        if not torch.equal(opened(*some), fn(*some)):
            return False
    return True


def arguments_of(module: nn.Module, data: Dataset, inputs: Inputs | None, faults: list[str]) -> tuple[Argument, ...]:
    """Which column each argument of forward takes; what is wrong is added to the faults."""
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


def name_faults(subject: Subject, columns: Iterable[str], data: Dataset, on_top: Sequence[Node]) -> list[str]:
    """What is wrong with the names of columns and nodes."""
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
