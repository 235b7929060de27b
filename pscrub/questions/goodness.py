"""Checks of the scrubbing law from draws alone, for data too large to enumerate.

They look at the leaves' rows only, and at what I makes of them. A large p-value is no proof of anything: it says that
these draws do not tell the law that was drawn from the scrubbing law.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from pscrub.estimate.estimate import Estimate, exact_estimate
from pscrub.hypothesis.tree import Tree
from pscrub.law.exact import log_prob
from pscrub.law.wires import Reading, readings

LEAST = 5.0
"""Expected draws that a cell of a chi-square test has at least; cells with fewer are pooled."""
PERMUTATIONS = 199
STOP = 20
"""Permutations as extreme as the draws after which a test of independence has seen enough."""
GROUPS = 8
"""Most groups that values are pooled into for tests of independence."""
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class NodeTest:
    """A test at one tree node, its p-value and that adjusted for the number of nodes tested together.

    Args:
        path: the node.
        statistic: what was computed from the draws.
        p: the p-value of this node alone.
        adjusted: Holm's, over the nodes of one call: rejecting where it is at most a holds the chance of any false
            rejection among them to a.
        cells: cells compared (after pooling), or strata permuted within.
        method: the test.
    """

    path: str
    statistic: float
    p: float
    adjusted: float
    cells: int
    method: str


@dataclass(frozen=True)
class EntropyFromDraws:
    """The entropy of the scrubbed inputs, estimated from draws in two ways, in nats.

    Args:
        estimate: the mean of -log p over the draws, p by the closed form, with its interval.
        miller_madow: the plug-in entropy of the leaf vectors seen, plus (vectors seen - 1) / (2 draws): it knows
            nothing but the draws, and is too low wherever vectors of positive probability were not seen.
        seen: different leaf vectors among the draws.
        warnings: limits that were passed.
    """

    estimate: Estimate
    miller_madow: float
    seen: int
    warnings: tuple[str, ...]


def goodness_of_fit(tree: Tree, data: Mapping[str, Tensor], g_test: bool = False) -> tuple[NodeTest, ...]:
    """Lemma 1 at every node: do the node's scrubbed inputs, jointly, have the law of its inputs under D?

    Pearson's chi-square (or the G-test) against probabilities known exactly. Cells expected fewer than 5 times are
    pooled with their neighbours, by the law alone, so that pooling does not depend on the draws. Inputs that D never
    produces reject at once. Nodes with constant inputs are left out.

    Source: Lemma 1.

    Args:
        tree: the treeified hypothesis.
        data: path -> int64 [draws], independent draws: `law.draw(..., stratified=False)`.
        g_test: the likelihood-ratio statistic instead. It is less well approximated in small cells.

    >>> from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
    >>> from pscrub.law.drawing import draw
    >>> d = Dataset({"x": torch.arange(4)}, weights=[1, 2, 3, 4])
    >>> graph = Graph.of({"s": lambda x: x % 2, "f": lambda s: s * 1.0}, inputs=["x"], output="f")
    >>> tree = unroll(Hypothesis("parity", graph, d, Claim("f", reads=[Claim("s", lambda d: d["x"] % 2)])))
    >>> tests = goodness_of_fit(tree, draw(tree, 1000, (0,), stratified=False))
    >>> [(test.path, test.cells, test.adjusted > 0.01) for test in tests]
    [('f', 2, True), ('f/s', 4, True)]
    """
    method = "G-test" if g_test else "chi-square"
    tests = []
    for path, read in _in_order(tree, readings(tree, data)):
        if len(read.law) < 2:
            continue
        if bool((read.inputs < 0).any()):
            tests.append(NodeTest(path, math.inf, 0.0, 0.0, len(read.law), "inputs that D does not have"))
            continue
        n = len(read.inputs)
        expected = n * read.law.numpy()
        pooled = _pool(expected)
        if pooled.max() == 0:
            continue
        counts = np.bincount(pooled, np.bincount(read.inputs.numpy(), minlength=len(expected)))
        mass = np.bincount(pooled, expected)
        found = stats.power_divergence(
            counts, mass * (n / mass.sum()), lambda_="log-likelihood" if g_test else "pearson"
        )
        tests.append(NodeTest(path, float(found.statistic), float(found.pvalue), 1.0, len(counts), method))
    return _adjust(tests)


def independence_given_output(
    tree: Tree, data: Mapping[str, Tensor], seed: int = 0, permutations: int = PERMUTATIONS
) -> tuple[NodeTest, ...]:
    """Are the inputs of each node independent of the rest of a cut, given the node's output?

    Theorem 2's proof rests on it. The rest of the cut: the rows of all leaves that are not below the node, and the
    outputs of nodes neither below nor above it. Each is pooled into at most 8 groups of values, as are the node's
    inputs given its output; the statistic is the sum, over the rest and over the output's blocks, of the chi-squares of
    the inputs with it: dependence between groups is seen, dependence within groups, or on several of the rest at once,
    is not. Its law is that over permutations of the inputs among draws of one output, which changes nothing if they are
    independent. Permuting stops early when the draws are not extreme (Besag and Clifford 1991); otherwise the tail is
    that of a gamma law with the permutations' mean and variance. Nodes that lose no information are left out.

    Args:
        tree: the treeified hypothesis.
        data: path -> int64 [draws], independent draws: `law.draw(..., stratified=False)`.
        seed: of the permutations.
        permutations: most of them for one node.
    """
    read = readings(tree, data)
    possible = torch.stack([each.inputs >= 0 for each in read.values()]).all(0).numpy()
    rng = np.random.default_rng(np.random.SeedSequence((seed, 2)))
    tests = []
    for path, each in _in_order(tree, read):
        if path == tree.root or len(each.law) == len(torch.unique(each.output_of)):
            continue
        test = _independence(path, each, list(_rest(tree, path, read)), possible, rng, permutations)
        tests += [test] if test else []
    return _adjust(tests)


def entropy_from_draws(tree: Tree, data: Mapping[str, Tensor], level: float = 0.95) -> EntropyFromDraws:
    """The entropy of the scrubbed inputs in nats, as the mean of -log p with its interval, and from draws alone.

    Args:
        tree: the treeified hypothesis.
        data: path -> int64 [draws], independent draws: `law.draw(..., stratified=False)`.
        level: nominal coverage of the interval.
    """
    rows = torch.stack([data[path] for path in tree.leaves], 1)
    surprise = -log_prob(tree, rows)
    n, warnings = len(rows), []
    if bool(surprise.isinf().any()):
        warnings.append(f"{int(surprise.isinf().sum())} of {n:,} draws are impossible under the scrubbing law")
        estimate = exact_estimate(math.inf, level, "no estimate: impossible draws")
    else:
        value, se = float(surprise.mean()), float(surprise.std()) / math.sqrt(n)
        half = float(stats.t.ppf((1 + level) / 2, n - 1)) * se
        method = "t, mean of -log p"
        estimate = Estimate(value, value - half, value + half, level, se, n - 1, n, method)
    counts = np.unique(_hash(rows.numpy()), return_counts=True)[1]
    share = counts / n
    miller_madow = float(-(share * np.log(share)).sum()) + (len(counts) - 1) / (2 * n)
    if n < 10 * len(counts):
        warnings.append(
            f"Miller-Madow's estimate is too low: {n:,} draws gave {len(counts):,} different scrubbed inputs, and it "
            "needs ten draws for each that is possible"
        )
    return EntropyFromDraws(estimate, miller_madow, len(counts), tuple(warnings))


def holm(p: Sequence[float]) -> list[float]:
    """The p-values adjusted by Holm's step-down method for being looked at together.

    >>> holm([0.01, 0.5, 0.03])
    [0.03, 0.5, 0.06]
    """
    adjusted, worst = [1.0] * len(p), 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        worst = max(worst, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = worst
    return adjusted


def _adjust(tests: list[NodeTest]) -> tuple[NodeTest, ...]:
    return tuple(replace(t, adjusted=a) for t, a in zip(tests, holm([test.p for test in tests]), strict=True))


def _in_order(tree: Tree, read: Mapping[str, Reading]) -> Iterator[tuple[str, Reading]]:
    return ((path, read[path]) for path in tree.sites)


def _pool(expected: np.ndarray[Any, Any]) -> Ints:
    """The bin of each cell: its own if it is expected often enough, else one shared with its neighbours."""
    sparse = expected < LEAST
    total = np.cumsum(np.where(sparse, expected, 0.0))
    # Each sparse cell holds less than LEAST, so each full step of twice that holds more than LEAST; the last may not.
    shared = (total / (2 * LEAST)).astype(np.int64)
    last = shared[sparse].max(initial=0)
    if last and expected[sparse & (shared == last)].sum() < LEAST:
        shared = np.minimum(shared, last - 1)
    code = np.where(sparse, shared, last + 1 + np.arange(len(expected)))
    bins: Ints = np.unique(code, return_inverse=True)[1].astype(np.int64)
    mass = np.bincount(bins, expected)
    if mass.min() < LEAST and len(mass) > 1:  # one bin of all sparse cells: into the smallest of the others
        small, into = np.argsort(mass)[:2]
        bins = np.unique(np.where(bins == small, into, bins), return_inverse=True)[1].astype(np.int64)
    return bins


def _rest(tree: Tree, path: str, read: Mapping[str, Reading]) -> Iterator[tuple[Ints, np.ndarray[Any, Any]]]:
    """The values [draws] of the wires of cuts through a node, the node's own left out, with their law under D."""
    for other, each in read.items():
        if other == path or other.startswith(f"{path}/") or path.startswith(f"{other}/"):
            continue
        if tree.sites[other].is_leaf:
            yield each.inputs.numpy(), each.law.numpy()
        if len(each.blocks) > 1:
            yield each.output.numpy(), each.blocks.numpy()


def _independence(
    path: str,
    read: Reading,
    rest: Collection[tuple[Ints, np.ndarray[Any, Any]]],
    possible: np.ndarray[Any, Any],
    rng: np.random.Generator,
    permutations: int,
) -> NodeTest | None:
    output = read.output.numpy()[possible]
    _, stratum, size = np.unique(output, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(size[stratum] > 1)
    kept = kept[np.argsort(stratum[kept], kind="stable")]
    if len(kept) == 0 or not rest:
        return None
    stratum = np.unique(stratum[kept], return_inverse=True)[1]
    n, strata = len(kept), int(stratum[-1]) + 1
    g = int(np.clip(math.sqrt(n / (LEAST * strata)), 2, GROUPS))
    own = _groups_within(read, g)[read.inputs.numpy()[possible][kept]]
    others = np.stack([_groups(law, g)[values[possible][kept]] for values, law in rest], 1)
    others = others[:, (others != others[:1]).any(0)]
    wires = others.shape[1]
    if wires == 0 or (own == own[0]).all():
        return None
    # Cells are numbered (stratum, own group, wire, other's group); permuting `own` within strata changes no margin.
    tail = np.arange(wires) * g + others
    have = np.bincount((stratum[:, None] * wires * g + tail).ravel(), minlength=strata * wires * g)
    sides = np.bincount(stratum * g + own, minlength=strata * g).reshape(strata, g)
    expected = sides[:, :, None] * have.reshape(strata, 1, -1) / np.bincount(stratum)[:, None, None]
    inverse = np.where(expected > 0, 1 / np.where(expected > 0, expected, 1), 0).ravel()

    def statistic(groups: Ints) -> float:
        counts = np.bincount(((stratum * g + groups)[:, None] * (wires * g) + tail).ravel(), minlength=len(inverse))
        return float(np.sum(counts * counts * inverse)) - float(n * wires)

    found, extreme, drawn = statistic(own), 0, list[float]()
    while len(drawn) < permutations and extreme < STOP:
        shuffled = own[np.argsort(stratum + rng.random(n))]  # strata stand together, and one key sorts faster than two
        drawn.append(statistic(shuffled))
        extreme += drawn[-1] >= found - 1e-9 * abs(found)
    p = extreme / len(drawn) if extreme == STOP else _gamma_tail(found, np.array(drawn), extreme)
    return NodeTest(path, found, p, 1.0, strata, "chi-square, permuted within the output")


def _gamma_tail(found: float, drawn: np.ndarray[Any, Any], extreme: int) -> float:
    """P(T >= found) for a gamma law with the mean and variance of `drawn`."""
    mean, variance = float(drawn.mean()), float(drawn.var(ddof=1))
    if variance <= 1e-12 * mean**2:
        return (extreme + 1) / (len(drawn) + 1)
    return float(stats.gamma.sf(found, mean**2 / variance, scale=variance / mean))


def _groups(law: np.ndarray[Any, Any], g: int) -> Ints:
    """The group of each value: g groups of about equal probability, neighbours together."""
    return np.minimum(((np.cumsum(law) - law / 2) * g).astype(np.int64), g - 1)


def _groups_within(read: Reading, g: int) -> Ints:
    """The group of each cell of a node's inputs among those that give the same output."""
    law, output = read.law.numpy(), read.output_of.numpy()
    order = np.argsort(output, kind="stable")
    before = np.cumsum(law[order]) - law[order] / 2
    blocks = read.blocks.numpy()
    start = np.concatenate([[0.0], np.cumsum(blocks)[:-1]])
    place = (before - start[output[order]]) / blocks[output[order]]
    groups = np.empty(len(law), dtype=np.int64)
    groups[order] = np.clip((place * g).astype(np.int64), 0, g - 1)
    return groups


def _hash(rows: Ints) -> np.ndarray[Any, Any]:
    """uint64 [draws]: equal for equal rows [draws, leaves]; two of n others collide with chance below n^2 / 2^64."""
    factors = np.random.default_rng(0).integers(1, 2**63, size=rows.shape[1], dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    with np.errstate(over="ignore"):
        mixed = (rows.astype(np.uint64) + np.uint64(1)) * factors
        mixed ^= mixed >> np.uint64(29)
        hashed: np.ndarray[Any, Any] = (mixed * factors[::-1]).sum(1, dtype=np.uint64)
    return hashed
