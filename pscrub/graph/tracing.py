"""Any torch module -> Graph: torch.export, with cut points named by the user."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from pscrub.data.dataset import Dataset
from pscrub.errors import TraceError, close, tell
from pscrub.graph.behaviours import open_function
from pscrub.graph.causes import causes_told, dead_faults
from pscrub.graph.cuts import Cut, output_of
from pscrub.graph.equal import find_gap
from pscrub.graph.export import nodes_between_marks
from pscrub.graph.graph import Function, Graph, Node
from pscrub.graph.running import CHECKED, Running
from pscrub.graph.state import left_as_found
from pscrub.graph.subject import Argument, Subject, describe, path_faults

Inputs = Sequence[str] | Mapping[str, str]


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
    parameters copied once from the module (which may change afterwards, unnoticed) and shared by the graph's nodes. So
    is a behaviour's, if torch can trace it; else it is called as it is.
    All dimensions but the batch are those of the example. A value that depends on no column (position embeddings)
    is repeated in every row, and its node reads the first column for the number of rows alone. A node's value has its
    rows first, wherever they are in the module's: [positions, batch, ...] is [batch, positions, ...] of the node, and
    so is [positions * batch, ...]. What gives the order of rows and positions is that rows do not interact.

    The module runs as it stands, in training mode or not; it is left as it was found: hooks, buffers, attributes.

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
    arguments = _arguments(module, data, inputs, faults)
    named_cuts = {name: cut if isinstance(cut, Cut) else output_of(cut) for name, cut in cuts.items()}
    subject = Subject(module, named_cuts, output, arguments)
    on_top_reads = [read for node in on_top for read in node.inputs if read in data.names]
    columns = list(dict.fromkeys([*subject.columns, *on_top_reads]))
    faults += _name_faults(subject, columns, data, on_top) + path_faults(subject)
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
        with causes_told(subject, rows(batch), tolerance, exported=False):
            subject, recorded = subject.surveyed(rows(batch))
            nodes, constant = nodes_between_marks(subject.export(rows(batch)), subject.columns, subject.layouts)
        assert {node.name for node in nodes} == {*named_cuts, output}
        on_top = tuple(_open_behaviours(on_top, recorded | rows(batch)))
        graph = Graph([*nodes, *on_top], columns, on_top[-1].name if on_top else output)
        with causes_told(subject, rows(batch), tolerance, exported=True):
            _check(graph, subject, rows(max(2, check_rows)), constant, tolerance)
        if faults := dead_faults(graph, named_cuts, output):
            raise TraceError(faults)
    for node in graph.nodes.values():
        if isinstance(node.fn, fx.GraphModule):
            node.fn.meta[CHECKED] = True
    return graph


def _open_behaviours(on_top: Iterable[Node], values: dict[str, Tensor]) -> Iterator[Node]:
    """The nodes on top, traced too where that gives the same bit for bit: then what labels do not enter is seen."""
    for node in on_top:
        opened, reads = None, [values[read] for read in node.inputs if read in values]
        if len(reads) == len(node.inputs):
            opened = open_function(node.fn, reads)
            with contextlib.suppress(Exception):  # of the function: the check that follows names it
                values[node.name] = node.fn(*reads)
        if opened is not None and node.name in values and _are_same(opened, node.fn, reads):
            node = replace(node, fn=opened)
        yield node


def _are_same(opened: fx.GraphModule, fn: Function, reads: Sequence[Tensor]) -> bool:
    for size in (1, 2, len(reads[0])):
        some = [value[:size] for value in reads]
        if not torch.equal(opened(*some), fn(*some)):
            return False
    return True


def _check(graph: Graph, subject: Subject, columns: Mapping[str, Tensor], constant: set[str], tolerance: float) -> None:
    """Compares the graph with the module, node by node, on 1, 2 and all of some rows."""
    alone: dict[str, Tensor] = {}
    for size in sorted({1, 2, *(len(column) for column in columns.values())}):
        values = {name: column[:size] for name, column in columns.items()}
        expected, running = subject.record(values), Running(size, next(iter(columns.values())).device)
        for name, node in graph.nodes.items():
            repeated = [f"'{read}'" for read in node.inputs if read in constant]
            advice = subject.advice
            if repeated:
                advice += (
                    f"; it reads {', '.join(repeated)}, one value for all rows, here repeated in each: try not to cut"
                )
            value = values[name] = _value(running, node, values, size, advice)
            if name in expected:
                wanted = expected[name].broadcast_to(value.shape) if name in constant else expected[name]
                if value.shape != wanted.shape or value.dtype != wanted.dtype:
                    is_, was = (f"{str(each.dtype)[6:]}{[*each.shape]}" for each in (value, wanted))
                    raise TraceError(f"node '{name}' is {is_} on {size} rows; the module's is {was}{advice}")
                gap, scale = find_gap(value, wanted)
                if gap > tolerance * scale:
                    raise TraceError(
                        f"node '{name}' differs from the module by {gap:.3g} on {size} rows (largest magnitude "
                        f"{scale:.3g}): the module is random, keeps state from call to call, or changes in place a "
                        f"tensor that is also used elsewhere{advice}"
                    )
            gap, scale = find_gap(alone.setdefault(name, value), value[:1])
            # Kernels for other batch sizes add up in another order.
            if value.is_floating_point() and gap > max(tolerance, torch.finfo(value.dtype).eps ** 0.5) * scale:
                raise TraceError(
                    f"node '{name}' of one row changes by {gap:.3g} (largest magnitude {scale:.3g}) when {size - 1} "
                    f"more stand in its batch: rows must not interact{advice}"
                )


def _value(running: Running, node: Node, values: Mapping[str, Tensor], size: int, advice: str) -> Tensor:
    try:
        value = running.through(node.fn, [values[read] for read in node.inputs])
    except Exception as error:
        raise TraceError(f"node '{node.name}' fails on {size} rows of the example: {tell(error)}{advice}") from error
    if isinstance(value, Tensor) and value.shape[:1] == (size,):
        return value
    found = f"{describe(value)} of shape {[*value.shape]}" if isinstance(value, Tensor) else describe(value)
    raise TraceError(f"node '{node.name}' gives {found} for {size} rows; expected a tensor, [{size}, ...]{advice}")


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


def _name_faults(subject: Subject, columns: Iterable[str], data: Dataset, on_top: Sequence[Node]) -> list[str]:
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
