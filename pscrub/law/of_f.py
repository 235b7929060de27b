"""The exact law of f under the scrubbing law, where activations take few values."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pscrub.errors import GraphError, HypothesisError
from pscrub.hypothesis.ablation import RESAMPLING, Ablation, replacements
from pscrub.hypothesis.tree import Site, Tree
from pscrub.law.exact import CELLS, match
from pscrub.law.wires import inputs_partition

ROWS = 1024
"""Rows of D that the graph is run on at a time."""
CHUNK = 2**22
"""Bytes of values that the graph is run on at a time."""
HELD = 2**27
"""Bytes of one node's values, or of what it reads, past which `list_within` leaves a law to draws."""
CALL = 64
"""Evaluations of a node that calling it once, on however few values, is counted as."""
Read = Callable[[Sequence[str], Tensor], Mapping[str, Tensor]]
"""Names and rows of D, int64, -> name -> value [rows, ...] of a graph node there."""
SETTINGS = 10_000
"""Most values of shared unimportant draws, all together, to be conditioned on one by one."""


def law_of_f(tree: Tree, limit: int = CELLS, ablation: Ablation = RESAMPLING) -> dict[float, float]:
    """{value of f: probability} under the scrubbing law, values told apart exactly.

    {value of the graph node: probability} is passed from each tree node to its reader, for each block of its wire:
    given the inputs' blocks, what a node reads is independent. Draws of unimportant inputs that several nodes share
    are conditioned on, value by value.

    Args:
        tree: the treeified hypothesis.
        limit: most combinations (inputs' blocks, and a value of each graph node read) at one node.
        ablation: what replaces unimportant inputs (and claimed nodes, if it says so): by default what is drawn.

    Raises:
        HypothesisError: more combinations, or more values of shared draws, than can be listed: draw instead.

    >>> import torch
    >>> from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
    >>> data = Dataset({"x": torch.arange(4), "y": torch.tensor([0, 1, 0, 2])})
    >>> graph = Graph.of({"s": lambda x: x % 2, "f": lambda s, y: 1.0 * s * y}, inputs=["x", "y"], output="f")
    >>> law_of_f(unroll(Hypothesis("s matters", graph, data, Claim("f", reads=[Claim("s", lambda d: d["x"] % 2)]))))
    {0.0: 0.75, 1.0: 0.125, 2.0: 0.125}
    """
    law: dict[float, float] = {}
    for values, masses in _Messages(tree, limit, ablation).list_law():
        for value, mass in zip(values.tolist(), masses.tolist(), strict=True):
            law[value] = law.get(value, 0.0) + mass
    return dict(sorted(law.items()))


def scrubbed_expectation(tree: Tree, limit: int = CELLS, ablation: Ablation = RESAMPLING) -> float:
    """E_scrubbed: the expectation of f under the scrubbing law, exactly.

    Args:
        tree: the treeified hypothesis.
        limit: as for `law_of_f`.
        ablation: as for `law_of_f`.

    Raises:
        HypothesisError: as for `law_of_f`.
    """
    return math.fsum(value * p for value, p in law_of_f(tree, limit, ablation).items())


def list_by_block(tree: Tree, limit: int = CELLS) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each setting of shared draws: blocks of the root's output int64, values of f behind each, probabilities.

    Args:
        tree: the treeified hypothesis.
        limit: as for `law_of_f`.

    Raises:
        HypothesisError: as for `law_of_f`.
    """
    return _Messages(tree, limit, RESAMPLING).list_by_block()


@dataclass(frozen=True)
class Listed:
    """E_scrubbed from the law of f.

    Args:
        value: the expectation of f.
        evaluations: of f, or of nodes on the way to it, that it took.
        values: how many different values f takes.
    """

    value: float
    evaluations: int
    values: int


def list_within(tree: Tree, most: int, read: Read | None = None) -> Listed | None:
    """E_scrubbed from the law of f, if that takes at most so many evaluations of f; None if it takes more.

    What is counted is what is run: each leaf on every row of D that can be drawn, each node that reads others on each
    distinct tuple of values that it reads, once for each setting of shared draws, and CALL for calling it at all. It
    ends as soon as the count goes past `most` (or values past HELD), and begins only if the leaves stay within it. So
    an answer never costs more than `most` draws would, nor does finding out that there is none. Times are not looked
    at: whether a result is exact depends on the hypothesis and the data alone.

    Args:
        tree: the treeified hypothesis.
        most: evaluations.
        read: names and rows of D, int64, -> the values [rows, ...] of graph nodes there; by default the graph is run.
    """
    rows, inner = int((tree.hypothesis.data.weights > 0).sum()), len(tree.sites) - len(tree.leaves)
    if rows * len(tree.leaves) + CALL * inner > most:
        return None
    try:
        messages = _Messages(tree, most, RESAMPLING, read, most)
        found = [*messages.list_law()]
    except (HypothesisError, GraphError):  # what fails on values that draws may never give is left to them
        return None
    values, mass = (torch.cat(column) for column in zip(*found, strict=True))
    possible = mass > 0
    total = float((values[possible] * mass[possible]).sum())
    if math.isfinite(total):  # nothing is lost where terms cancel
        total = math.fsum((values[possible] * mass[possible]).tolist())
    return Listed(total, messages.budget.spent, len(values[possible].unique()))


@dataclass(frozen=True, eq=False)
class _Message:
    """For each block of a wire, the law of the values that graph nodes take behind it.

    Args:
        block: int64 [cells].
        value: int64 [cells], places in `values`.
        p: float64 [cells], the probability of the value given the block.
        values: graph node -> [values, ...]; several nodes where one draw gives them all.
    """

    block: Tensor
    value: Tensor
    p: Tensor
    values: Mapping[str, Tensor]

    def fix(self, value: int) -> _Message:
        """The message once its value is known."""
        one = torch.zeros(1, dtype=torch.int64)
        return _Message(one, one + value, torch.ones(1, dtype=torch.float64), self.values)


Setting = Mapping[str, int]
"""Path of a shared draw -> place of its value."""


class _Budget:
    """Evaluations that may be spent, and how many were."""

    def __init__(self, most: float) -> None:
        self.most, self.spent = most, 0

    def spend(self, evaluations: int) -> None:
        self.spent += evaluations
        if self.spent > self.most:
            raise HypothesisError(f"no exact law of f in {self.most:,} evaluations")

    def hold(self, size: int, rows: int) -> None:
        """Told of values that are to be held at once: bytes a row, and rows."""
        if self.most < math.inf and size * rows > HELD:
            raise HypothesisError(f"no exact law of f in {HELD:,} bytes")


class _Messages:
    def __init__(
        self, tree: Tree, limit: int, ablation: Ablation, read: Read | None = None, most: float = math.inf
    ) -> None:
        self.tree, self.limit, self.read, self.budget = tree, limit, read or self._run, _Budget(most)
        self.rows = (tree.hypothesis.data.weights > 0).nonzero().flatten()
        every = torch.arange(tree.hypothesis.data.n)
        self.replaced = replacements(tree, ablation, lambda name: self._run([name], every)[name])
        self.known: dict[tuple[str, tuple[int, ...]], _Message] = {}
        self.leaf = {path: self._read_leaf(tree.sites[path]) for path in tree.leaves}
        # What one draw gives to several nodes makes them depend on one another, whatever is known of their wires.
        readers = Counter(path for site in tree.sites.values() for path in set((site.given or {}).values()))
        self.shared = tuple(path for path in tree.leaves if readers[path] > 1)
        self.below = self._find_shared_below()

    def list_law(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Values of f with their probabilities, float64 [values] both, for each setting of the shared draws."""
        return ((values, mass) for _, values, mass in self.list_by_block())

    def list_by_block(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The same by block of the root's output, int64 [values], each value once for each block."""
        tree = self.tree
        # P(f = v) = sum over settings of the shared draws, and blocks b of the output, of P(setting) P(b) P(v | b).
        for setting, p in self.list_settings():
            root = self.pass_to_root(setting)
            weight = root.p * tree.sites[tree.root].partition.block_weights[root.block] * p
            yield root.block, root.values[tree.hypothesis.graph.output][root.value].double(), weight

    def list_settings(self) -> Iterator[tuple[Setting, float]]:
        """Each value of the shared draws with its probability."""
        sizes = [len(self.leaf[path].p) for path in self.shared]
        if math.prod(sizes) > SETTINGS:
            said = ", ".join(f"'{path}' ({n:,} values)" for path, n in zip(self.shared, sizes, strict=True))
            raise HypothesisError(
                f"no exact law of f: unimportant draws shared by several nodes, {said}, would have to be conditioned "
                f"on one value at a time, at most {SETTINGS:,}; draw instead, or share per reader"
            )
        for places in itertools.product(*map(range, sizes)):
            p = math.prod(float(self.leaf[path].p[k]) for path, k in zip(self.shared, places, strict=True))
            yield {path: int(self.leaf[path].value[k]) for path, k in zip(self.shared, places, strict=True)}, p

    def pass_to_root(self, setting: Setting) -> _Message:
        root = self.tree.sites[self.tree.root]
        # What is read comes first: each reading names a child, and goes on once the child's message is known. They wait
        # on a stack, as a chain of claims may be longer than Python recurses.
        waiting: list[Iterator[Site]] = [iter([root])]
        while waiting:
            child = next(waiting[-1], None)
            if child is None:
                waiting.pop()
            elif not child.is_leaf and self._key(child, setting) not in self.known:
                waiting.append(self._read_inputs(child, setting))
        return self._look_up(root, setting)

    def _look_up(self, site: Site, setting: Setting) -> _Message:
        if site.is_leaf:
            leaf = self.leaf[site.path]
            return leaf.fix(setting[site.path]) if site.path in setting else leaf
        return self.known[self._key(site, setting)]

    def _key(self, site: Site, setting: Setting) -> tuple[str, tuple[int, ...]]:
        # A message serves all settings that agree on the shared draws used at or below its site.
        return site.path, tuple(setting[path] for path in self.below[site.path])

    def _find_shared_below(self) -> dict[str, tuple[str, ...]]:
        """Path -> the shared draws whose data are used at or below the site, in the order of the tree."""
        found: dict[str, set[str]] = {path: set() for path in self.tree.sites}
        for path, site in reversed([*self.tree.sites.items()]):
            found[path].update(set((site.given or {}).values()).intersection(self.shared))
            if site.parent is not None:
                found[site.parent] |= found[path]
        return {path: tuple(s for s in self.shared if s in used) for path, used in found.items()}

    def _read_leaf(self, site: Site) -> _Message:
        data, replaced = self.tree.hypothesis.data, self.replaced.get(site.path)
        if replaced is None:
            self.budget.spend(len(self.rows))
            columns = self.read(self.tree.source(site.path), self.rows)
            self.budget.hold(sum(column[:1].nbytes for column in columns.values()), len(self.rows))
        else:
            columns = {name: replaced.of(name, self.rows) for name in replaced.values}
        value, first = _tell_apart(list(columns.values()))
        labels = site.partition.labels[self.rows]  # of unimportant inputs, one block, unless an adversary claims more
        p = data.weights[self.rows] / site.partition.block_weights[labels]  # P(datum | its block)
        block, value, p = _sum_alike(labels, value, p)
        return _Message(block, value, p, {name: column[first] for name, column in columns.items()})

    def _run(self, names: Sequence[str], rows: Tensor) -> dict[str, Tensor]:
        data, graph = self.tree.hypothesis.data, self.tree.hypothesis.graph
        pieces = []
        for some in rows.split(ROWS):
            with torch.no_grad():
                pieces.append(graph.run(names, {name: data[name][some] for name in graph.inputs}))
        return {name: torch.cat([piece[name] for piece in pieces]) for name in names}

    def _read_inputs(self, site: Site, setting: Setting) -> Iterator[Site]:
        """Makes the message of a site that reads others known; yields each site whose message it needs next."""
        if site.path in self.replaced:
            self.known[self._key(site, setting)] = self._read_leaf(site)
            return
        graph, claim = site.around(self.tree.hypothesis.graph), site.claim
        assert claim is not None and site.given is not None
        # Every value x of the inputs of u that D produces, to be joined with what may stand behind each of its wires.
        inputs = inputs_partition(self.tree, site.path)
        joint = (inputs.block_weights > 0).nonzero().flatten()
        row = inputs.first_rows
        p, places = torch.ones(len(joint), dtype=torch.float64), dict[str, Tensor]()
        messages: dict[str, _Message] = {}
        for path in dict.fromkeys(site.given.values()):
            child = self.tree.sites[path]
            yield child
            message = messages[path] = self._look_up(child, setting)
            # Theorem 2's independence: given x, what one wire carries tells nothing of what stands behind another, so
            # that P(v1, v2, ... | x) is the product of P(v | its wire's block), the messages.
            wire = child.partition.labels[row[joint]]
            cell, k = match(wire, message.block, self.limit, f"no exact law of f: what '{site.path}' reads")
            joint, p = joint[cell], p[cell] * message.p[k]
            places = {name: place[cell] for name, place in places.items()} | {path: message.value[k]}
        # G is run once on each tuple of values that is read, not once for each x that it may come with.
        code, first = _tell_apart(list(places.values()))
        self.budget.spend(CALL + len(first))
        self.budget.hold(sum(m.values[n][:1].nbytes for m in messages.values() for n in m.values), len(first))
        given = {
            name: messages[path].values[site.apart.get(name, name)][places[path][first]]
            for name, path in site.given.items()
        }
        pieces = []
        size = sum(value.nbytes for value in given.values()) // max(len(first), 1)
        for some in torch.arange(len(first)).split(max(min(ROWS * 16, CHUNK // max(size, 1)), 16)):
            with torch.no_grad():
                pieces.append(graph.run([claim.at], {name: value[some] for name, value in given.items()})[claim.at])
        value, kept = _tell_apart([torch.cat(pieces)])
        # y = u(x), so P(x | y) = P(inputs of u) / P(output of u), and the message P(v | y) sums over the x of each y.
        output = site.partition.labels[row[joint]]
        ratio = inputs.block_weights[joint] / site.partition.block_weights[output]
        block, place, p = _sum_alike(output, value[code], p * ratio)
        message = _Message(block, place, p, {claim.at: torch.cat(pieces)[kept]})
        self.known[self._key(site, setting)] = message


def _tell_apart(columns: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Which of the distinct rows each row of the columns is, and the first row of each; equal means bit for bit."""
    flat = [np.ascontiguousarray(column.numpy()).reshape(len(column), -1).view(np.uint8) for column in columns]
    data = np.ascontiguousarray(np.concatenate(flat, 1))
    _, first, code = np.unique(
        data.view(np.dtype((np.void, data.shape[1]))).ravel(), return_index=True, return_inverse=True
    )
    return torch.from_numpy(code), torch.from_numpy(first)


def _sum_alike(block: Tensor, value: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each (block, value) once, with the sum of its probabilities."""
    n = int(value.max()) + 1
    cells, code = torch.unique(block * n + value, return_inverse=True)
    return cells // n, cells % n, torch.bincount(code, p, len(cells))
