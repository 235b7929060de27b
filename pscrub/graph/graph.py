"""A model as named pure functions of named inputs, batch first."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pscrub.errors import GraphError, NodeError, PscrubError, close, tell

Function = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Node:
    """One named value of a model: a pure function of other named values.

    Args:
        name: the node's name.
        inputs: names of the values it reads, dataset columns or other nodes, in the order `fn` takes them.
        fn: values of the inputs, each [batch, ...] -> the node's value [batch, ...]. It must treat rows independently
            and draw nothing.
        view: the value is a slice of the only input's value, so that storing it costs nothing.
    """

    name: str
    inputs: tuple[str, ...]
    fn: Function
    view: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))

    def __call__(self, *values: Tensor) -> Tensor:
        """The node's value [batch, ...] from those of its inputs.

        Raises:
            NodeError: its function raised: the node, what it was given, and the line of the user's that it came from.
        """
        try:
            return self.fn(*values)
        except PscrubError:  # of a node inside, or one that says itself what is wrong
            raise
        except Exception as error:
            raise self.failure(values, error) from error

    def failure(self, values: Sequence[Any], error: Exception) -> NodeError:
        """What is said of an exception in the node's function: the node, what it was given, the user's line."""
        return NodeError(_say_failure(f"node '{self.name}'", self.inputs, values, error))


@dataclass(frozen=True)
class Rewrite:
    """A change of a graph that is meant to keep its function.

    Args:
        kind: what was done.
        node: to which node.
        before: the graph that it was done to.
        parts: for a split, the names of the slices and the function that puts them together again. All readers got
            is this function in place of the node, so that f is unchanged if it gives the node's value.
    """

    kind: str
    node: str
    before: Graph
    parts: tuple[tuple[str, ...], Function] | None = None


class Graph:
    """A model as an immutable graph of named pure functions.

    What is not named is inlined into its readers: the choice of names chooses what a hypothesis can speak of, and
    whether a claim is about a direct path or about every path.

    Args:
        nodes: in any order.
        inputs: the dataset columns that nodes may read.
        output: the node whose value [batch] is the behaviour f.
        rewrite: how this graph came from another, kept so that equality can be checked on D.

    Raises:
        GraphError: a node that reads an unknown name, a name used twice, a cycle, an unknown output.

    >>> double = Node("double", ("x",), lambda x: 2 * x)
    >>> loss = Node("loss", ("double", "label"), lambda d, label: (d - label) ** 2)
    >>> graph = Graph([double, loss], inputs=["x", "label"], output="loss")
    >>> x, label = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.0])
    >>> graph.run(["loss"], {"x": x, "label": label})["loss"].tolist()
    [0.0, 16.0]
    >>> graph.run(["loss"], {"double": torch.zeros(2), "label": label})["loss"].tolist()
    [4.0, 0.0]
    """

    def __init__(
        self, nodes: Iterable[Node], inputs: Sequence[str], output: str, rewrite: Rewrite | None = None
    ) -> None:
        nodes = list(nodes)
        faults = _faults(nodes, inputs, output)
        if faults:
            raise GraphError(faults)
        self.nodes: Mapping[str, Node] = MappingProxyType(_sort(nodes, inputs))
        self.inputs = tuple(inputs)
        self.output = output
        self.rewrite = rewrite

    @classmethod
    def of(cls, functions: Mapping[str, Function], inputs: Sequence[str], output: str) -> Graph:
        """A graph of Python functions whose parameter names are the names of what they read.

        >>> Graph.of({"s": lambda x: x.sin(), "f": lambda s, x: s * x}, inputs=["x"], output="f").nodes["f"].inputs
        ('s', 'x')
        """
        return cls([Node(name, _parameters(name, fn), fn) for name, fn in functions.items()], inputs, output)

    def __contains__(self, name: object) -> bool:
        return name in self.nodes or name in self.inputs

    def __repr__(self) -> str:
        return f"Graph({len(self.nodes)} nodes, inputs {', '.join(self.inputs)}, output {self.output})"

    def reads(self, name: str) -> tuple[str, ...]:
        """The names that a node reads; none for a dataset column."""
        return self.nodes[self.known(name)].inputs if name in self.nodes or name not in self.inputs else ()

    def readers(self, name: str) -> tuple[str, ...]:
        """The nodes that read a value."""
        return tuple(node.name for node in self.nodes.values() if name in node.inputs)

    def known(self, name: str) -> str:
        """The name itself, if the graph has it.

        Raises:
            GraphError: with close matches.
        """
        if name not in self:
            raise GraphError(f"the graph has no node '{name}'{close(name, [*self.nodes, *self.inputs])}")
        return name

    def run(self, names: Iterable[str], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values [batch, ...] of named nodes, running only what lies between the given values and them.

        Args:
            names: the nodes asked for.
            given: values [batch, ...] of columns or nodes; a given node is not computed.

        Raises:
            GraphError: an unknown name, or a column that is needed and not given.
        """
        values = dict(given)
        wanted = [self.known(name) for name in names]
        for name in self.order(wanted, given):
            if name in self.inputs:
                raise GraphError(f"column '{name}' is needed for {', '.join(wanted)} and was not given")
            node = self.nodes[name]
            values[name] = node(*(values[each] for each in node.inputs))
        return {name: values[name] for name in wanted}

    def call(self, fn: Callable[..., Any], values: Sequence[Any]) -> Any:
        """What a function found in the graph (`graph.ops`) gives, an exception naming the node that it is of.

        Raises:
            NodeError: it raised.
        """
        return call_of(fn, values, self.owners.get(id(fn)))

    @cached_property
    def owners(self) -> Mapping[int, Node]:
        """The id of a node's function -> the node; what a rewrite took out of the graph is in the graph before it."""
        found: dict[int, Node] = {}
        graph: Graph | None = self
        while graph is not None:
            found = {id(node.fn): node for node in reversed([*graph.nodes.values()])} | found
            graph = None if graph.rewrite is None else graph.rewrite.before
        return found

    def order(self, names: Iterable[str], given: Iterable[str]) -> list[str]:
        """What must be computed for `names` when `given` is known, each after what it reads."""
        given, needed, stack = set(given), set(), list(names)
        while stack:
            name = stack.pop()
            if name not in needed and name not in given:
                needed.add(name)
                stack.extend(self.reads(name))
        return [name for name in (*self.inputs, *self.nodes) if name in needed]

    def ancestors(self, name: str, stop: Collection[str] = ()) -> set[str]:
        """Every name that a node's value depends on, itself excluded; of `stop`, members but nothing beyond them."""
        seen: set[str] = set()
        stack = [name]
        while stack:
            for read in self.reads(stack.pop()):
                if read not in seen:
                    seen.add(read)
                    if read not in stop:
                        stack.append(read)
        return seen

    @property
    def original(self) -> Graph:
        """The graph that this one was rewritten from, however often; itself if it was not."""
        graph = self
        while graph.rewrite is not None:
            graph = graph.rewrite.before
        return graph

    @property
    def device(self) -> torch.device:
        """Where the parameters of its functions are; the CPU if they have none."""
        modules = (node.fn for node in self.nodes.values() if isinstance(node.fn, nn.Module))
        return next((p.device for fn in modules for p in fn.parameters()), torch.device("cpu"))

    def to(self, device: torch.device | str) -> Graph:
        """The graph with its functions' parameters on a device: functions that are torch modules are copied there."""
        modules = [node.fn for node in self.nodes.values() if isinstance(node.fn, nn.Module)]
        there = torch.empty(0, device=device).device
        if all(p.device == there for p in {p for fn in modules for p in fn.parameters()}):
            return self
        # One copy of a parameter, however many functions hold it, in this graph and in those that it was made from.
        memo: dict[int, object] = {}
        chain, moved = [self], list[Graph]()
        while chain[-1].rewrite is not None:
            chain.append(chain[-1].rewrite.before)
        for graph in reversed(chain):
            nodes = [
                Node(n.name, n.inputs, copy.deepcopy(n.fn, memo).to(device), n.view)
                if isinstance(n.fn, nn.Module)
                else n
                for n in graph.nodes.values()
            ]
            rewrite = None if graph.rewrite is None else replace(graph.rewrite, before=moved[-1])
            moved.append(Graph(nodes, graph.inputs, graph.output, rewrite))
        return moved[-1]


def call_of(fn: Callable[..., Any], values: Sequence[Any], node: Node | None) -> Any:
    """What a function gives, an exception naming the node that it is of, if it is a node's own.

    Raises:
        NodeError: it raised.
    """
    try:
        return fn(*values)
    except PscrubError:
        raise
    except Exception as error:
        if node is not None:
            raise node.failure(values, error) from error
        told = _say_failure(f"operation {getattr(fn, 'target', fn)}", [""] * len(values), values, error)
        raise NodeError(told) from error


def _say_failure(what: str, names: Sequence[str], values: Sequence[Any], error: Exception) -> str:
    given = [f"'{name}' {describe_shape(value)}" for name, value in zip(names, values, strict=False)]
    return f"{what} fails on {', '.join(given) or 'nothing'}: {tell(error)}".replace("'' ", "")


def describe_shape(value: Any) -> str:
    """A tensor's dtype and shape, or what else it is.

    >>> describe_shape(torch.zeros(2, 3)), describe_shape(1.5)
    ('float32[2, 3]', 'a float')
    """
    return f"{str(value.dtype)[6:]}{[*value.shape]}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _parameters(name: str, fn: Function) -> tuple[str, ...]:
    parameters = inspect.signature(fn).parameters.values()
    if any(p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
        raise GraphError(f"function of node '{name}' must have plain positional parameters named after what it reads")
    return tuple(p.name for p in parameters)


def _faults(nodes: list[Node], inputs: Sequence[str], output: str) -> list[str]:
    names = [node.name for node in nodes]
    known = {*names, *inputs}
    faults = [f"two nodes are named '{name}'" for name, times in sorted(Counter(names).items()) if times > 1]
    faults += [f"node '{name}' has the name of an input column" for name in sorted(set(names) & set(inputs))]
    for node in nodes:
        for read in node.inputs:
            if read not in known:
                faults.append(f"node '{node.name}' reads '{read}', which the graph does not have{close(read, known)}")
    if output not in names:
        faults.append(f"the output '{output}' is not a node{close(output, names)}")
    if not faults:
        acyclic = _sort(nodes, inputs)
        cyclic = [node.name for node in nodes if node.name not in acyclic]
        if cyclic:
            faults.append(f"the graph has a cycle among {', '.join(cyclic)}")
    return faults


def _sort(nodes: list[Node], inputs: Sequence[str]) -> dict[str, Node]:
    """Name -> node, each after what it reads: by the longest way from an input, then as given; none of a cycle.

    Linear in nodes and edges: each node waits for a number of others, and is ready when that is 0.
    """
    waits = [len({read for read in node.inputs if read not in inputs}) for node in nodes]
    readers: dict[str, list[int]] = {}
    for i, node in enumerate(nodes):
        for read in dict.fromkeys(node.inputs):
            readers.setdefault(read, []).append(i)
    done: dict[str, Node] = {}
    ready = [i for i, left in enumerate(waits) if left == 0]
    while ready:
        done |= {nodes[i].name: nodes[i] for i in ready}
        following = []
        for reader in (reader for i in ready for reader in readers.get(nodes[i].name, ())):
            waits[reader] -= 1
            if waits[reader] == 0:
                following.append(reader)
        ready = sorted(following)
    return done
