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
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import Dim, ExportedProgram
from torch.fx.node import map_aggregate

from pscrub.errors import TraceError
from pscrub.graph.graph import Node
from pscrub.graph.layout import FIRST, Layout
from pscrub.graph.ops import HAS_ROWS, OPERATION, Operation, operation_of

_aten = torch.ops.aten
Copies = dict[fx.Node, fx.Node]
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
    program: ExportedProgram,
    columns: Sequence[str],
    layouts: Mapping[str, Layout] | None = None,
    constants: Constants | None = None,
    names: Mapping[str, str] | None = None,
) -> tuple[list[Node], set[str]]:
    """The graph nodes of a program, one a mark, and the names of those that depend on no column.

    A node's inputs are the nearest marks and columns that its computation reaches walking back; its `fn` is a
    `torch.fx.GraphModule` of the operations in between. Reading a column's number of rows is not reading the column:
    the batch size is taken from whatever the node reads first. A node that reads nothing is given the first column, of
    which it uses the number of rows (and the device) alone, to repeat its value [...] or [1, ...] in every row.

    Args:
        program: functional (`export_functional`), dynamic in its inputs' first dimension alone.
        columns: the names of its inputs.
        layouts: where the rows are in values that do not have them first; nodes' values do.
        constants: `constants_of` the program, made here where they are not given.
        names: mark -> node; marks without one are passed over. By default every mark is a node of its name.

    Raises:
        TraceError: values that are not batch first.
    """
    parts = Parts(program, columns, layouts, constants, names)
    nodes: list[Node] = []
    constant: set[str] = set()
    faults = []
    for mark, name in parts.marks.items():
        value = mark.all_input_nodes[0]
        needed = parts.behind(value)
        reads = [each for each in parts.named if each in needed]
        if all(parts.named[each] in constant for each in reads):
            constant.add(name)
        elif name not in parts.layouts and not parts.is_batch_first(value):
            faults.append(f"the value of '{name}' has shape {parts.shape(value)}; expected one a row, [batch, ...]")
            continue
        fn = parts.module(value, needed, reads, parts.layout(mark))
        inputs = tuple(parts.named[each] for each in reads) or (columns[0],)
        nodes.append(Node(name, inputs, fn, view=len(reads) == 1 and len(fn.graph.nodes) == 2))
    if faults:
        raise TraceError(faults)
    return nodes, constant


class Parts:
    """What is where in a program's graph."""

    def __init__(
        self,
        program: ExportedProgram,
        columns: Sequence[str],
        layouts: Mapping[str, Layout] | None = None,
        constants: Constants | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.layouts = layouts or {}
        self.root = program.graph_module
        self.order = {node: place for place, node in enumerate(program.graph.nodes)}
        placeholders = {node.name: node for node in self.order if node.op == "placeholder"}
        arguments = [placeholders[str(name)] for name in program.graph_signature.user_inputs]
        marks = {node: str(node.args[1]) for node in self.order if node.target == mark_op()}
        self.marks = {
            node: names[mark] if names else mark for node, mark in marks.items() if not names or mark in names
        }
        self.named = dict(zip(arguments, columns, strict=True)) | self.marks
        sizes = [node.meta["val"].shape[0] for node in arguments]
        self.batch = {size.node.expr for size in sizes if isinstance(size, torch.SymInt)}
        self.constants = {placeholders[name]: tensor for name, tensor in (constants or constants_of(program)).items()}

    def behind(self, value: fx.Node) -> set[fx.Node]:
        """What computes a value: everything back to named values and constants, these included."""
        found: set[fx.Node] = set()
        stack = [value]
        while stack:
            node = stack.pop()
            if node not in found:
                found.add(node)
                if not (node in self.named or node in self.constants or self.rows(node)):
                    stack.extend(node.all_input_nodes)
        return found

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

    def layout(self, named: fx.Node) -> Layout:
        return self.layouts.get(self.named[named], FIRST)

    def shape(self, node: fx.Node) -> str:
        sizes = ", ".join(str(size) for size in node.meta["val"].shape)
        for symbol in self.batch:
            sizes = sizes.replace(str(symbol), "batch")
        return "[" + re.sub(r"\bu\d+\b", "(number that depends on the data)", sizes) + "]"

    def module(
        self, value: fx.Node, needed: set[fx.Node], reads: list[fx.Node], layout: Layout = FIRST
    ) -> fx.GraphModule:
        """The module: values of `reads` -> value, of this layout as it is found; rows first in all of them."""
        graph, attributes = fx.Graph(), {}
        copies = {each: graph.placeholder(f"value_{place}") for place, each in enumerate(reads)}
        first = copies[reads[0]] if reads else graph.placeholder("column")
        batch = graph.call_function(_aten.sym_size.int, (first, 0))
        device = graph.call_function(getattr, (first, "device"))
        for each in reads:
            for target, *arguments in self.layout(each).to_as_found():
                copies[each] = graph.call_function(target, (copies[each], *arguments))
        for node in sorted(needed - copies.keys(), key=self.order.__getitem__):
            if node in self.constants:
                attributes[node.name] = self.constants[node]
                copies[node] = graph.get_attr(node.name)
            elif node.op == "get_attr":
                attributes[str(node.target)] = getattr(self.root, str(node.target))
                copies[node] = graph.get_attr(str(node.target))
            elif self.rows(node):
                copies[node] = graph.call_function(operator.mul, (batch, self.rows(node)))
            elif _is_copy(node):
                copies[node] = copies[node.all_input_nodes[0]]
            elif _is_cross_entropy(node):
                # As torch does it: the first half is of the logits alone, and so is not made again for every label.
                taken: list[Any] = [*node.args, *(None, 1, -100)[len(node.args) - 2 :]]
                logits, target, weight, reduction, ignored = taken[:5]
                axis = int(logits.meta["val"].ndim > 1)
                logs = graph.call_function(_aten.log_softmax.int, (copies[logits], axis))
                rest = (weight and copies[weight], reduction, ignored)
                copies[node] = graph.call_function(_aten.nll_loss_nd.default, (logs, copies[target], *rest))
                logs.meta[HAS_ROWS] = self.is_batch_first(logits)
                copies[node].meta[HAS_ROWS] = self.is_batch_first(node)
            else:
                copies[node] = self.copy(graph, node, copies, batch, device)
                copies[node].meta[HAS_ROWS] = self.is_batch_first(node)
                copies[node].meta[OPERATION] = self._operation(node, copies)
        result = copies[value]
        for target, *arguments in layout.to_rows_first():
            result = graph.call_function(target, (result, *arguments))
        result.meta[HAS_ROWS] = layout != FIRST or self.is_batch_first(value)
        if not reads:
            one = value.meta["val"].shape[:1] == (1,)
            row = result if one else graph.call_function(_aten.unsqueeze.default, (result, 0))
            others = [-1] * (value.meta["val"].ndim - one)
            result = graph.call_function(_aten.expand.default, (row, (batch, *others)))
        graph.output(result)
        graph.eliminate_dead_code()
        return fx.GraphModule(attributes, graph)

    def _operation(self, node: fx.Node, copies: Copies) -> Operation:
        """The copy's operation, one and the same object wherever the node is copied to."""
        # Which of its inputs are one: what was copied without its marks can read one value for two.
        read = [copies[each] for each in node.all_input_nodes]
        key = tuple(read.index(each) for each in read)
        known: dict[tuple[int, ...], Operation] = node.meta.setdefault(OPERATION, {})
        if key not in known:
            known[key] = operation_of(copies[node])
        return known[key]

    def copy(self, graph: fx.Graph, node: fx.Node, copies: Copies, batch: fx.Node, device: fx.Node) -> fx.Node:
        """A node in another graph, on copies of what it reads."""
        copy = graph.node_copy(node, copies.__getitem__)
        # Export bakes in the device it ran on and, by its strides, `view` for `reshape`: values gathered row by row, or
        # on another device, have neither.
        copy.args = map_aggregate(copy.args, lambda arg: device if isinstance(arg, torch.device) else arg)
        copy.kwargs = map_aggregate(copy.kwargs, lambda arg: device if isinstance(arg, torch.device) else arg)
        if copy.target == _aten.view.default:
            copy.target = _aten.reshape.default
        return copy


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
