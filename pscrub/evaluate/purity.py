"""Whether a graph's functions are what causal scrubbing takes them for: the same on every call, and row by row.

f on scrubbed inputs is computed in whatever batches suit the memory, and values on D once for all draws. Neither
changes a number as long as a node's value on a row depends on its inputs' values on that row alone; else every figure
would be of some other f, and none would say so. So each node is tried on a few rows before anything is measured.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pscrub.data.dataset import Dataset
from pscrub.errors import GraphError, NodeError, reword
from pscrub.graph.equal import find_gap
from pscrub.graph.graph import Graph, Node, describe_shape
from pscrub.graph.running import Running, is_checked
from pscrub.workers import side_by_side

ROWS = 5
"""Rows that each node is tried on together."""
CANDIDATES = 32
"""Rows of D among which they are looked for."""
TOLERANCE = 1e-5
"""Relative difference that is rounding in any dtype."""
CANCELLED = 64
"""Roundings of a node's inputs that may be left in its value where large terms cancel."""
HALF = (torch.float16, torch.bfloat16)

_DRAW_NOTHING = (
    "it draws random numbers or keeps state from call to call; try module.eval(), and make noise a column of the "
    "dataset, or draw it once with a generator of its own and keep it"
)
_MIX_NOTHING = (
    "its rows interact, or it depends on how many there are; try module.eval(), and take no mean, maximum or other "
    "statistic over the batch (axis 0)"
)


def check_purity(graph: Graph, data: Dataset, device: torch.device | str = "cpu") -> None:
    """Nothing, if each node gives the same on every call and treats rows alone as it treats them together.

    A few rows of positive weight are tried: each node on all of them, again on the same inputs, on the last alone and
    on two others alone. Its inputs are the values that the nodes before it gave, so that each is judged by itself. In
    half precision kernels for other batch sizes round so differently that a maximum may fall elsewhere; there rows stay
    in a batch of one size, and what stands beside them is changed. What a node does seldom, or by less than 1e-5 of its
    largest magnitude (or the root of its dtype's rounding, where that is more), is not seen. What `trace` made was
    tried so when it was made, and only gives what others read.

    Random numbers that a node draws leave the states of torch's, numpy's and Python's generators as they were.

    Args:
        graph: the graph.
        data: D.
        device: where functions run.

    Raises:
        GraphError: with every node that fails or is not pure: which, what was found, by how much, and what to try.

    >>> data = Dataset({"x": torch.tensor([1.0, 2.0, 4.0])})
    >>> check_purity(Graph.of({"f": lambda x: x - x.min()}, ["x"], "f"), data)
    Traceback (most recent call last):
    ...
    pscrub.errors.GraphError: node 'f' changes by 3 on row 2 of D (largest magnitude 3) when of rows 0, 1, 2 only 2 is
    in the batch: its rows interact, or it depends on how many there are; try module.eval(), and take no mean, maximum
    or other statistic over the batch (axis 0)
    """
    rows = choose_rows(graph, data)
    graph = graph.to(device)
    values = {name: data[name][rows.to(data[name].device)].to(device) for name in graph.inputs}
    faults, causes, running = list[str](), list[BaseException | None](), Running(len(rows), device)

    checked = {name for name, node in graph.nodes.items() if is_checked(node)}
    needed = set().union(*(graph.ancestors(name) for name in graph.nodes if name not in checked))

    def try_nodes(nodes: Iterable[Node]) -> None:
        for node in nodes:
            # A node that reads what is no value has no inputs to be tried on: the fault is named where it began.
            if any(read not in values for read in node.inputs):
                continue
            if node.name in checked:
                if node.name in needed:
                    with torch.no_grad():
                        values[node.name] = running.value(node, [values[read] for read in node.inputs])
                continue
            trial = _Trial(node, {read: values[read] for read in node.inputs}, rows.tolist())
            try:
                with torch.no_grad():
                    faults.extend(trial.find_faults())
            except NodeError as error:
                faults.extend(error.faults)
                causes.append(error.__cause__)
            if trial.value is not None:
                values[node.name] = trial.value

    with _states_kept(torch.device(device)):
        # In one thread: on so few rows several would only wait for one another, 20 times as long as the work takes.
        deque(side_by_side(try_nodes, [graph.nodes.values()], device))
    if faults:
        raise GraphError(faults) from next(iter(causes), None)


def choose_rows(graph: Graph, data: Dataset) -> Tensor:
    """int64 [ROWS or fewer]: rows of positive weight in which each column takes several values, as far as it can.

    Rows that are alike would hide that they interact.
    """
    possible = data.weights.nonzero().flatten()
    spread = torch.linspace(0, len(possible) - 1, min(CANDIDATES, len(possible)), dtype=torch.float64).round().long()
    rows = possible[spread]
    marks: list[set[tuple[str, bytes]]] = [set() for _ in rows]
    for name in graph.inputs:
        column = data[name][rows.to(data[name].device)].cpu().unsqueeze(-1).contiguous()
        for mark, value in zip(marks, column.view(torch.uint8), strict=True):  # bytes: numpy knows no bfloat16
            mark.add((name, value.numpy().tobytes()))
    chosen, seen = list[int](), set[tuple[str, bytes]]()
    while len(chosen) < min(ROWS, len(rows)):
        left = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(max(left, key=lambda i: len(marks[i] - seen)))
        seen |= marks[chosen[-1]]
    return rows[sorted(chosen)]


class _Trial:
    """One node, tried on a few rows.

    `value` is its value on all of them together, which its readers are tried on; None where it has none.
    """

    def __init__(self, node: Node, given: Mapping[str, Tensor], rows: Sequence[int]) -> None:
        self.node, self.given, self.rows = node, given, rows
        self.value: Tensor | None = None

    def find_faults(self) -> Iterator[str]:
        """What is wrong with it, in words; of what would follow from one another, the first."""
        value, changes = self._run(range(len(self.rows)))
        yield from changes
        if (wrong := _say_shape(value, len(self.rows))) is not None:
            yield f"node '{self.node.name}' gives {wrong}"
            return
        self.value = value
        if not changes:
            yield from itertools.islice(self._find_differences(value), 1)

    def _find_differences(self, value: Tensor) -> Iterator[str]:
        name, count = self.node.name, len(self.rows)
        again, _ = self._run(range(count))
        if (found := self._differ(again, value)) is not None:
            gap, scale, at = found
            yield (
                f"node '{name}' changes by {gap:.3g} from one call to the next on the same inputs, most on row "
                f"{self.rows[at]} of D (largest magnitude {scale:.3g}): {_DRAW_NOTHING}"
            )
        # Whatever a row takes from others, be it all of them, those before or those after, one of these two lacks.
        for alone in ([count - 1], [*range(count - 1)][-2:]) if count > 1 else ():
            try:
                part, _ = self._run(alone)
            except NodeError as error:
                raise reword(error, end=f"; on {count} rows it does not: {_MIX_NOTHING}") from error.__cause__
            which = f"of rows {', '.join(map(str, self.rows))} only {' and '.join(str(self.rows[i]) for i in alone)}"
            where = f"when {which} {'is' if len(alone) == 1 else 'are'} in the batch"
            if (wrong := _say_shape(part, len(alone))) is not None:
                yield f"node '{name}' gives {wrong}, and {describe_shape(value)} for {count} rows"
                continue
            half = self._is_half(value)
            if half:
                # The rows in their places, and copies of one of them all around.
                part = self._run([i if i in alone else alone[0] for i in range(count)])[0][alone]
                where = f"when other rows stand beside it than {', '.join(map(str, self.rows))}"
            if (found := self._differ(part, value[alone], resized=not half)) is not None:
                gap, scale, at = found
                yield (
                    f"node '{name}' changes by {gap:.3g} on row {self.rows[alone[at]]} of D (largest magnitude "
                    f"{scale:.3g}) {where}: {_MIX_NOTHING}"
                )

    def _run(self, places: Sequence[int]) -> tuple[Any, list[str]]:
        """The value on some of the rows, and which inputs were changed in place, in words."""
        before = {read: value[list(places)] for read, value in self.given.items()}
        given = {read: value.clone() for read, value in before.items()}
        value = self.node(*(given[read] for read in self.node.inputs))
        return value, [
            f"node '{self.node.name}' changes its input '{read}' in place, by {gap:.3g}, where others read it too; "
            "make a new value (h = h + 1, not h += 1), or change a clone"
            for read in given
            if not torch.equal(given[read], before[read]) and (gap := find_gap(given[read], before[read])[0]) > 0
        ]

    def _differ(self, found: Any, expected: Tensor, resized: bool = False) -> tuple[float, float, int] | None:
        """By how much two values differ, the largest magnitude, and on which row; None if it is rounding."""
        if not isinstance(found, Tensor) or found.shape != expected.shape:
            return float("inf"), find_gap(expected, expected)[1], 0
        if torch.equal(found, expected):  # as a rule, and quick to see
            return None
        gap, scale = find_gap(found, expected)
        allowed = 0.0
        if expected.is_floating_point() or expected.is_complex():
            eps = torch.finfo(expected.dtype).eps
            allowed = max(TOLERANCE, eps**0.5) * scale
            if resized:  # kernels for other batch sizes add in another order, which shows where what is added cancels
                read = [each for each in self.given.values() if each.is_floating_point() or each.is_complex()]
                allowed += CANCELLED * eps * max((find_gap(each, each)[1] for each in read), default=0.0)
        if gap <= allowed:
            return None
        return gap, scale, max(range(len(found)), key=lambda i: find_gap(found[i], expected[i])[0])

    def _is_half(self, value: Tensor) -> bool:
        """Whether it computes in half precision, as far as can be seen from outside."""
        held = self.node.fn.state_dict().values() if isinstance(self.node.fn, nn.Module) else ()
        return any(each.dtype in HALF for each in (value, *self.given.values(), *held) if isinstance(each, Tensor))


def _say_shape(value: Any, rows: int) -> str | None:
    """What is given in place of a tensor with so many rows, in words; None if it is one."""
    if isinstance(value, Tensor) and value.shape[:1] == (rows,):
        return None
    expected = f"expected a tensor with the batch first, [{rows}, ...]"
    return f"{describe_shape(value)} for {rows} row{'s' * (rows != 1)}; {expected}"


@contextmanager
def _states_kept(device: torch.device) -> Iterator[None]:
    """Within it random numbers may be drawn: the states of all generators are put back in the end."""
    own, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002 (it is the state of others that is kept)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)  # noqa: NPY002
