"""One case with everything that several claims look at, made once; and the laws that Pyro enumerates."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from pyro import poutine
from pyro.distributions import Categorical
from pyro.ops.contract import einsum
from torch import Tensor

from pscrub import Hypothesis, Tree, program, unroll
from pscrub.law import Constraints, Cut, leaves_of, minimal_cuts
from theory import brute
from theory.brute import Kernel, Law
from theory.case import Case
from theory.cases import hypothesis

JOINT_CELLS = 20_000
"""Most cells of X^n, possible or not, of which Pyro is asked to make a table."""


class Tried:
    """A case as the package's objects and as laws in rationals.

    Args:
        case: plain data.
    """

    def __init__(self, case: Case) -> None:
        self.case = case

    def rng(self, what: str) -> random.Random:
        """A source of chance for this case and purpose."""
        return random.Random(f"{self.case.name} {what}")

    @cached_property
    def hypothesis(self) -> Hypothesis:
        return hypothesis(self.case)

    @cached_property
    def tree(self) -> Tree:
        return unroll(self.hypothesis)

    @cached_property
    def law(self) -> Law:
        """The law of all data."""
        table = brute.law(self.case)
        assert table is not None
        return table

    @cached_property
    def leaf_law(self) -> Law:
        """The law of the scrubbed inputs."""
        return brute.leaf_law(self.case, self.law)

    @cached_property
    def budget(self) -> dict[str, tuple[float, float]]:
        """Path -> entropy of a node's inputs and of its output, both on (x, ..., x), in nats."""
        laws, d = brute.on_consistent_inputs(self.case), brute.prior(self.case)
        return {
            site.path: (
                brute.entropy(laws[site.path]),
                brute.entropy(brute.tally(zip(brute.values(self.case, site), d, strict=True))),
            )
            for site in brute.sites(self.case)
        }

    def cuts(self, most: int) -> Iterator[Cut]:
        """Every minimal cut, if there are at most so many; else the leaves, the root's inputs and others at random."""
        found = list(islice(minimal_cuts(self.hypothesis), 20_000))
        if len(found) > most:
            found = [found[0], *self.rng("cuts").sample(found[1:], most - 2), leaves_of(self.hypothesis)]
        return iter(dict.fromkeys(found))

    def probabilities(self, found: Constraints, table: Law) -> np.ndarray[Any, Any]:
        """float64 [cells]: a law of a cut's wires, given in rationals, in the order of the constraints' cells.

        Raises:
            AssertionError: it gives probability to what is not a cell.
        """
        cells = [tuple(cell) for cell in found.cells.tolist()]
        assert set(table) <= set(cells)
        return np.array([float(table.get(cell, 0)) for cell in cells])


class Planted(poutine.messenger.Messenger):
    """Replaces the law of some data in a running program: path -> kernel and the path of the datum it depends on."""

    def __init__(self, kernels: Mapping[str, tuple[str, Kernel]]) -> None:
        super().__init__()
        self.kernels = {}
        for path, (parent, kernel) in kernels.items():
            # Nothing follows a row of weight zero, but enumeration asks what would: any law will do.
            rows = [[float(p) for p in row] if any(row) else [1.0] * len(row) for row in kernel]
            self.kernels[path] = parent, torch.tensor(rows, dtype=torch.float64)
        self.values: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.kernels:
            parent, kernel = self.kernels[msg["name"]]
            msg["fn"] = Categorical(probs=kernel[self.values[parent]], validate_args=False)

    def _pyro_post_sample(self, msg: Any) -> None:
        self.values[msg["name"]] = msg["value"]


class Enumerated:
    """The program's joint law of all data as Pyro's factors, one a site, ready to be summed out.

    Args:
        tried: the case.
        kernels: path -> another law of that datum given its parent's.
    """

    def __init__(self, tried: Tried, kernels: Mapping[str, Kernel] | None = None) -> None:
        self.tree = tried.tree
        planted = {path: (self.tree.sites[path].parent or "", kernel) for path, kernel in (kernels or {}).items()}
        model = poutine.enum(program(self.tree), first_available_dim=-2)
        with Planted(planted):
            trace = poutine.trace(model).get_trace(1)
        trace.compute_log_prob()
        trace.pack_tensors()
        nodes = {path: trace.nodes[path] for path in self.tree.sites}
        self.symbols = {path: node["infer"]["_enumerate_symbol"] for path, node in nodes.items()}
        self.factors = [(node["packed"]["log_prob"]._pyro_dims, node["packed"]["log_prob"]) for node in nodes.values()]

    def joint(self) -> Tensor | None:
        """float64 [N, ..., N]: the law of the leaves' data in the tree's order; None if that is too large a table."""
        leaves = self.tree.leaves
        if self.tree.hypothesis.data.n ** len(leaves) > JOINT_CELLS:
            return None
        (table,) = self._sum(self.factors, ["".join(self.symbols[path] for path in leaves)])
        return table

    def inputs(self) -> dict[str, Tensor]:
        """Path -> law of the inputs of every node, I being run on the leaves' data.

        A leaf's is float64 [N]. Another node's has a dimension for each claim it reads, blocks first and last what no
        row gives: the probability that I does not know what to do.

        I enters as one more factor for each node: 1 where the output is what D shows to go with the inputs. So this
        follows wires from the leaves up, and does not take it that a node's value is that of its own datum.
        """
        wires: dict[str, str] = {}
        factors, fresh = list(self.factors), iter(_unused(set(self.symbols.values())))
        for path, site in reversed(self.tree.sites.items()):
            if site.claim is None:
                continue
            wires[path] = next(fresh)
            read = self.tree.children(path)
            labels, n_blocks = site.partition.labels, site.partition.n_blocks
            if site.is_leaf:
                shown = torch.zeros(len(labels), n_blocks + 1, dtype=torch.float64)
                shown[torch.arange(len(labels)), labels] = 1
                factors.append((self.symbols[path] + wires[path], shown.log()))
                continue
            shape = [child.partition.n_blocks + 1 for child in read] + [n_blocks + 1]
            shown = torch.zeros(shape, dtype=torch.float64)
            rows = (self.tree.hypothesis.data.weights > 0).nonzero().flatten()
            shown[(*(child.partition.labels[rows] for child in read), labels[rows])] = 1
            shown[..., -1] = 1 - shown[..., :-1].sum(-1)
            factors.append(("".join(wires[child.path] for child in read) + wires[path], shown.log()))
        wanted = {
            path: self.symbols[path]
            if site.is_leaf
            else "".join(wires[child.path] for child in self.tree.children(path))
            for path, site in self.tree.sites.items()
        }
        return dict(zip(wanted, self._sum(factors, list(wanted.values())), strict=True))

    def _sum(self, factors: list[tuple[str, Tensor]], outputs: list[str]) -> tuple[Tensor, ...]:
        """Laws with these dimensions; Pyro, which leaves out what they do not depend on, gives them up to a factor."""
        equation = ",".join(dims for dims, _ in factors) + "->" + ",".join(outputs)
        tables = einsum(equation, *(f for _, f in factors), backend="pyro.ops.einsum.torch_log", modulo_total=True)
        return tuple((table - table.flatten().logsumexp(0)).exp() for table in tables)


def expected_inputs(tried: Tried) -> dict[str, Tensor]:
    """What `Enumerated.inputs` is under D: each node's inputs on (x, ..., x)."""
    tree, weights = tried.tree, tried.hypothesis.data.weights
    laws = {}
    for path, site in tree.sites.items():
        if site.is_leaf:
            laws[path] = weights
            continue
        read = tree.children(path)
        laws[path] = torch.zeros([child.partition.n_blocks + 1 for child in read], dtype=torch.float64).index_put(
            tuple(child.partition.labels for child in read), weights, accumulate=True
        )
    return laws


def agreeing(tried: Tried, path: str, weights: tuple[Fraction, ...] | None = None, claim: str | None = None) -> Kernel:
    """The law of a datum given its parent's: the algorithm's, or one with other weights or another claim's feature."""
    site = next(site for site in brute.sites(tried.case) if site.path == path)
    feature = tried.case.claims[claim].feature if claim else brute.values(tried.case, site)
    return brute.agreeing(weights or brute.prior(tried.case), feature)


def without_own_row(tried: Tried, path: str) -> Kernel:
    """The law of a datum that may not be its parent's, unless nothing else is in the block."""
    kernel = [list(row) for row in agreeing(tried, path)]
    for row, law in enumerate(kernel):
        if 0 < law[row] < 1:
            law[row] = Fraction(0)
            total = sum(law, Fraction(0))
            kernel[row] = [p / total for p in law]
    return tuple(tuple(row) for row in kernel)


def _unused(symbols: set[str]) -> Iterator[str]:
    return (chr(k) for k in range(0x0180, 0x3000) if chr(k) not in symbols and chr(k).isalpha())


def log(p: Fraction) -> float:
    """The natural logarithm of a rational number."""
    return math.log(p.numerator) - math.log(p.denominator)
