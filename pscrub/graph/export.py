"""An exported program taken apart at its marks: what lies between named values, as small modules of their own."""

from __future__ import annotations

import contextlib
import io
import keyword
import operator
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import Dim, ExportedProgram

from pscrub.errors import TraceError
from pscrub.graph.graph import Node
from pscrub.graph.layout import Layout
from pscrub.graph.ops import Operation
from pscrub.graph.program import Excerpt, Marked, Program, Step, StepKind

_aten = torch.ops.aten
Constants = dict[str, nn.Parameter]


def mark_op() -> Any:
    """The operator `pscrub::mark(x, name)`: a copy of x that torch.export can neither see through nor remove.

    It is registered when first asked for, not on import.
    """
    if not hasattr(torch.ops.pscrub, "mark"):
        op = torch.library.custom_op(
            "pscrub::mark", lambda x, name: x.clone(), mutates_args=(), schema="(Tensor x, str name) -> Tensor"
        )
        op.register_fake(lambda x, name: torch.empty_like(x))
    return torch.ops.pscrub.mark.default


def export_functional(module: nn.Module, values: Sequence[Tensor], any_rows: bool = True) -> ExportedProgram:
    """The program of a module that is called on a tuple of values, for any number of rows or this, free of mutation.

    Raises:
        Exception: whatever torch.export raises. It prints its partial graph then, which is not passed on.
    """
    printed = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*treespec, LeafSpec", FutureWarning)
        # State that forward keeps on the module (an LSTM's list of weights, harmlessly): the check will tell.
        warnings.filterwarnings("ignore", r"The tensor attributes? .* assigned during export", UserWarning)
        with contextlib.redirect_stderr(printed):
            dynamic = (tuple({0: Dim("batch")} for _ in values),) if any_rows else None
            exported = torch.export.export(module, (tuple(values),), dynamic_shapes=dynamic, strict=False)
            # With no decompositions asked for, this removes mutation and inlines regions of autocast and grad mode
            # (where marks would be out of sight), and keeps `linear` and attention whole. It traces the model again,
            # at more than the price of the first time: only where there is something to do.
            _rename_keywords(exported)
            program: ExportedProgram = exported if _is_functional(exported) else exported.run_decompositions({})
    sys.stderr.write(printed.getvalue())
    return program


def _rename_keywords(program: ExportedProgram) -> None:
    """Gives what is in submodules with names like `in` other names: no code can be written with these."""
    held = {**program.state_dict, **program.constants}
    for spec in program.graph_signature.input_specs:
        target = spec.target
        if target is None or not any(map(keyword.iskeyword, target.split("."))):
            continue
        renamed = ".".join(part + "_" * keyword.iskeyword(part) for part in target.split("."))
        while renamed in held:
            renamed += "_"
        for tensors in (program.state_dict, program.constants):
            if target in tensors:
                held[renamed] = tensors[renamed] = tensors.pop(target)
        for each in (*program.graph_signature.input_specs, *program.graph_signature.output_specs):
            each.target = renamed if each.target == target else each.target


def _is_functional(program: ExportedProgram) -> bool:
    """Whether a program as exported changes no tensor in place, nor has a region of its own (autocast, vmap)."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            if isinstance(node.target, HigherOrderOperator):
                return False
            if str(getattr(node.target, "__module__", "")).startswith("torch._functorch"):  # vmap, seen from inside
                return False
            if not isinstance(node.target, OpOverload):
                continue
            # Literals are detached in place when they are made, which changes no number. Batch statistics are changed
            # in training mode, though the operation's schema does not say so.
            if node.target._schema.is_mutable and node.target != _aten.detach_.default:
                return False
            if node.target in (_aten.batch_norm.default, _aten.instance_norm.default) and node.args[5]:
                return False
    return True


def nodes_between_marks(
    program: Program, names: Mapping[str, str] | None = None, layouts: Mapping[str, Layout] | None = None
) -> tuple[list[Node], set[str]]:
    """The graph nodes of a program, one a mark, and the names of those that depend on no column.

    A node's inputs are the nearest marks and columns that its computation reaches walking back; its `fn` is an
    `Excerpt` of the program, the operations in between. Reading a column's number of rows is not reading the column:
    the batch size is taken from whatever the node reads first. A node that reads nothing is given the first column, of
    which it uses the number of rows (and the device) alone, to repeat its value [...] or [1, ...] in every row; what
    the module makes for so many rows itself is not repeated.

    Args:
        program: `read_program`.
        names: mark -> node; marks without one are passed over. By default every mark is a node of its name.
        layouts: mark -> where the rows are in values that do not have them first; nodes' values do.

    Raises:
        TraceError: values that are not batch first.
    """
    named = {program.marks[mark]: name for mark, name in (names or {mark: mark for mark in program.marks}).items()}
    moved = {program.marks[mark]: layout for mark, layout in (layouts or {}).items() if program.marks[mark] in named}
    named = {place: program.steps[place].of for place in program.columns} | dict(sorted(named.items()))
    marked, called = Marked(program, list(named), moved), list(named.values())
    nodes: list[Node] = []
    constant: set[str] = set()
    faults = []
    for place, name in named.items():
        step = program.steps[place]
        if step.kind is not StepKind.MARK:
            continue
        (value,) = step.reads
        reads = tuple(called[bit] for bit in marked.reads(value))
        if all(read in constant for read in reads):
            constant.add(name)
        elif place not in moved and not step.batch_first:
            faults.append(f"the value of '{name}' has shape {step.told}; expected one a row, [batch, ...]")
            continue
        fn = Excerpt(marked, place, program.constants)
        nodes.append(Node(name, reads or (called[0],), fn, view=fn.is_input))
    if faults:
        raise TraceError(faults)
    return nodes, constant


@dataclass(frozen=True)
class Rows:
    """A number of rows that stands among the arguments of an operation.

    Args:
        times: so many times that of the batch.
    """

    times: int


class Parts:
    """What is where in a program's graph.

    Args:
        program: functional (`export_functional`), dynamic in its inputs' first dimension alone.
        columns: the names of its inputs.
    """

    def __init__(self, program: ExportedProgram, columns: Sequence[str]) -> None:
        self.root, self.nodes = program.graph_module, list(program.graph.nodes)
        placeholders = {node.name: node for node in self.nodes if node.op == "placeholder"}
        arguments = [placeholders[str(name)] for name in program.graph_signature.user_inputs]
        self.columns = dict(zip(arguments, columns, strict=True))
        sizes = [node.meta["val"].shape[0] for node in arguments]
        self.batch = {size.node.expr for size in sizes if isinstance(size, torch.SymInt)}
        self.constants = {placeholders[name]: tensor for name, tensor in constants_of(program).items()}

    def rows(self, node: fx.Node) -> int:
        """k where the node's value is the integer k * batch size, 0 for any other."""
        size = node.meta.get("val")
        if isinstance(size, torch.SymInt):
            for symbol in self.batch:
                multiple = size.node.expr / symbol
                if multiple.is_Integer:
                    return int(multiple)
        return 0

    def is_batch_first(self, node: fx.Node) -> bool:
        value = node.meta.get("val")
        shape = value.shape if isinstance(value, Tensor) else ()
        return len(shape) > 0 and isinstance(shape[0], torch.SymInt) and shape[0].node.expr in self.batch

    def shape(self, node: fx.Node) -> str:
        sizes = ", ".join(str(size) for size in node.meta["val"].shape)
        for symbol in self.batch:
            sizes = sizes.replace(str(symbol), "batch")
        return "[" + re.sub(r"\bu\d+\b", "(number that depends on the data)", sizes) + "]"

    def arguments(self, node: fx.Node) -> Any:
        """Positional arguments and keywords of an operation, numbers of rows told as such."""
        return tuple(node.args), dict(node.kwargs)


def read_program(parts: Parts) -> Program:
    """The steps of an exported program, copies passed over, columns first."""
    reading = _Reading(parts)
    for node in (*parts.columns, *(node for node in parts.nodes if node not in parts.columns)):
        reading.take(node)
    return Program(reading.steps, reading.constants)


class _Reading:
    """An exported program, read node by node."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.steps, self.constants = parts, list[Step](), dict[str, Any]()
        self.place: dict[Any, int] = {}

    def take(self, node: fx.Node) -> None:
        """Adds the steps of a node."""
        parts = self.parts
        if node in parts.columns:
            self._add(node, Step(StepKind.COLUMN, parts.columns[node], batch_first=True))
        elif node in parts.constants or node.op == "get_attr":
            name = node.name if node in parts.constants else str(node.target)
            self.constants[name] = parts.constants[node] if node in parts.constants else getattr(parts.root, name)
            self._add(node, Step(StepKind.CONSTANT, name))
        elif node.op != "call_function":
            return
        elif node.target == mark_op():
            (source,), value = node.all_input_nodes, node.meta["val"]
            first = parts.is_batch_first(source)
            one = isinstance(value.shape[0], int) and value.shape[0] == 1 if value.ndim else False  # else not known yet
            told = "" if first else parts.shape(source)
            mark = Step(StepKind.MARK, str(node.args[1]), (self.place[source],), first, told, value.ndim, one)
            self._add(node, mark)
        elif times := parts.rows(node):
            self.place[node] = self._rows(times)
        elif _is_copy(node):
            self.place[node] = self.place[node.all_input_nodes[0]]
        elif _is_cross_entropy(node):
            # As torch does it: the first half is of the logits alone, and so is not made again for every label.
            taken: list[Any] = [*node.args, *(None, 1, -100)[len(node.args) - 2 :]]
            logits, target, weight, reduction, ignored = taken[:5]
            axis = int(logits.meta["val"].ndim > 1)
            logs = self._operation(_aten.log_softmax.int, ((logits, axis), {}), parts.is_batch_first(logits))
            half = _Place(self._add((node, "first half"), logs))
            arguments: Any = ((half, target, weight, reduction, ignored), {})
            self._add(node, self._operation(_aten.nll_loss_nd.default, arguments, parts.is_batch_first(node)))
        else:
            # Export bakes in by its strides `view` for `reshape`: values gathered row by row have others.
            called = _aten.reshape.default if node.target == _aten.view.default else node.target
            self._add(node, self._operation(called, parts.arguments(node), parts.is_batch_first(node)))

    def _operation(self, target: Any, arguments: Any, has_rows: bool) -> Step:
        reads: dict[int, int] = {}

        def place(each: Any) -> int | None:
            if isinstance(each, fx.Node | _Place):
                at = each.at if isinstance(each, _Place) else self.place[each]
            elif isinstance(each, torch.device):  # the one that export ran on
                at = self._once(StepKind.DEVICE)
            elif isinstance(each, Rows):
                at = self._rows(each.times)
            else:
                return None
            return reads.setdefault(at, len(reads))

        operation = Operation.placed(target, arguments, place, has_rows)
        return Step(StepKind.OPERATION, operation, tuple(reads), has_rows)

    def _rows(self, times: int) -> int:
        if ("rows", times) not in self.place:
            batch = self._once(StepKind.BATCH)
            arguments: Any = ((_BATCH, times), {})
            of = Operation.placed(operator.mul, arguments, lambda each: 0 if each is _BATCH else None, False)
            self._add(("rows", times), Step(StepKind.OPERATION, of, (batch,)))
        return self.place["rows", times]

    def _once(self, kind: StepKind) -> int:
        return self.place[kind] if kind in self.place else self._add(kind, Step(kind))

    def _add(self, key: Any, step: Step) -> int:
        self.place[key] = len(self.steps)
        self.steps.append(step)
        return self.place[key]


@dataclass(frozen=True)
class _Place:
    at: int


_BATCH = object()


def _is_cross_entropy(node: fx.Node) -> bool:
    """Whether an operation is the cross entropy of logits and labels, nothing smoothed."""
    if node.target != _aten.cross_entropy_loss.default or node.kwargs:
        return False
    target: Any = node.args[1]
    smoothing: Any = node.args[5] if len(node.args) > 5 else 0.0
    return bool(smoothing == 0.0 and not target.meta["val"].is_floating_point())


def _is_copy(node: fx.Node) -> bool:
    """Whether an operation gives what it takes: dropout in eval mode, grad mode, a cast to the type that it has.

    Nothing in a functional program changes a tensor in place: the copy would cost memory and protect from nothing.
    """
    match node.target:
        case _aten.clone.default | _aten.detach.default | _aten.detach_.default | _aten.lift_fresh_copy.default:
            return not node.kwargs
        case _aten.dropout.default:
            return not node.args[2]
        case _aten.to.dtype | _aten.to.dtype_layout | _aten.to.device:
            # A device that the export ran on is not told apart from another: all is on one.
            source: Any = node.args[0]
            return bool(source.meta["val"].dtype == node.meta["val"].dtype)
    return bool(node.target == mark_op())


def constants_of(program: ExportedProgram) -> Constants:
    """Parameters, buffers and literals by their placeholders, copied once each however many nodes use them.

    Buffers too become parameters: moving modules to a device keeps a parameter that they share one and the same.
    """
    signature = program.graph_signature
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    copies: dict[Any, nn.Parameter] = {}
    found = {}
    for name, target in targets.items():
        tensor: Tensor = program.state_dict.get(target, program.constants.get(target))
        same = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if same not in copies:
            copies[same] = nn.Parameter(tensor.detach().clone(), requires_grad=False)
        found[name] = copies[same]
    return found
