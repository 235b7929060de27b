"""The package against the oracle, exactly and by draws; and the same checks against an oracle with a planted fault."""

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from scipy import stats
from torch import Tensor

from pscrub import ScrubResult, scrub, unroll
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.law.drawing import draw, program
from tests.false_alarm import PER_CHECK, counts_alarm, mean_radius
from tests.routes.build_case import build
from tests.routes.oracle import (
    FAULTS,
    Case,
    Fault,
    distribution_of_f,
    e_model,
    e_randomised,
    law,
    leaf_law,
    leaves,
    mean,
    sites,
    tally,
    unimportant,
)
from tests.routes.oracle import scrubbed as f_by_recursion
from tests.routes.random_cases import MODES, cases, f_of, law_of, support_size

Law = Mapping[tuple[int, ...], Fraction]
TOLERANCE = 1e-12
DRAWS = 16_384
each_mode = pytest.mark.parametrize("mode", MODES)

tree_of = cache(lambda case: unroll(build(case)))


def every() -> Iterator[tuple[Case, tuple[int, int]]]:
    """All cases, each with the seed of its draws."""
    return ((case, (MODES.index(mode), k)) for mode in MODES for k, case in enumerate(cases(mode)))


@cache
def enumerated(case: Case) -> Tensor:
    """float64 [N, ..., N]: the joint law of all sites, from Pyro's parallel enumeration of the program."""
    trace = poutine.trace(poutine.enum(program(tree_of(case)), first_available_dim=-2)).get_trace(1)
    trace.compute_log_prob()
    trace.pack_tensors()
    nodes = [trace.nodes[name] for name in sites(case)]
    factors = [node["packed"]["log_prob"] for node in nodes]
    own = "".join(node["infer"]["_enumerate_symbol"] for node in nodes)
    return torch.einsum(",".join(f._pyro_dims for f in factors) + "->" + own, *(f.exp() for f in factors))


def law_differs(found: Tensor, law: Law) -> bool:
    """Whether a joint law differs from the oracle's by more than rounding anywhere."""
    expected = torch.zeros_like(found)
    expected[tuple(torch.tensor(list(law)).T)] = torch.tensor([float(p) for p in law.values()], dtype=found.dtype)
    return bool((found - expected).abs().max() > TOLERANCE)


@cache
def drawn(case: Case, seed: tuple[int, int]) -> tuple[Counter[tuple[int, ...]], Counter[int]]:
    """How often each tuple of data, and each value of f on it, came in independent draws."""
    tree = tree_of(case)
    data = draw(tree, DRAWS, seed, stratified=False)
    f = run_scrubbed(tree, Activations(tree.hypothesis.graph, tree.hypothesis.data), data)
    tuples = zip(*(data[name].tolist() for name in sites(case)), strict=True)
    return Counter(tuples), Counter(int(value) for value in f.tolist())


def law_alarm(case: Case, seed: tuple[int, int], law: Law) -> bool:
    """Whether the draws are too far from a law of the data."""
    return counts_alarm(drawn(case, seed)[0], {data: float(p) for data, p in law.items()})


def f_alarm(case: Case, seed: tuple[int, int], f: Mapping[int, Fraction]) -> bool:
    """Whether f on the draws is too far from a distribution."""
    return counts_alarm(drawn(case, seed)[1], {value: float(p) for value, p in f.items()})


@cache
def driven(case: Case, seed: tuple[int, int]) -> ScrubResult:
    """What the driver says of a case, its root data stratified."""
    inputs = case.nodes[case.claims[case.root].at].inputs
    labels = [name for name in inputs if name in case.columns]  # the oracle's: every column that f reads itself
    baseline: dict[str, Any] = {"labels": labels} if splits(case) else {"randomised": 0.0}
    return scrub(build(case), draws=DRAWS, seed=100 * seed[0] + seed[1], exact=False, **baseline).results[0]


def splits(case: Case) -> bool:
    """Whether f reads both nodes and columns, so that they can be of two rows."""
    inputs = case.nodes[case.claims[case.root].at].inputs
    return 0 < sum(name in case.columns for name in inputs) < len(inputs)


def mean_alarm(case: Case, seed: tuple[int, int], f: Mapping[int, Fraction]) -> bool:
    """Whether the driver's mean is too far from the mean of a distribution of f."""
    mu = mean(f)
    variance = sum(p * (value - mu) ** 2 for value, p in f.items())
    span = max(abs(value - mu) for value in f)
    # Strata are drawn from independently and equally often; the mean of their variances is at most the variance.
    radius = mean_radius(float(variance), float(span), DRAWS)
    return abs(driven(case, seed).scrubbed.value - float(mu)) > radius + TOLERANCE


@each_mode
def test_the_same_tree(mode: str) -> None:
    for case in cases(mode):
        assert set(tree_of(case).sites) == set(sites(case))
        assert set(tree_of(case).leaves) == set(leaves(case))


@each_mode
def test_f_on_every_scrubbed_input(mode: str) -> None:
    """Evaluation alone, without chance: on each tuple of data f is the oracle's, activations on D kept or not."""
    for case in cases(mode):
        tree, f = tree_of(case), f_by_recursion(case)
        tuples = list(law_of(case))
        data = dict(zip(sites(case), torch.tensor(tuples).T, strict=True))
        expected = [f(each) for each in tuples]
        for memory, chunk in ((2**20, None), (0, 100)):
            activations = Activations(tree.hypothesis.graph, tree.hypothesis.data, memory=memory)
            assert run_scrubbed(tree, activations, data, chunk=chunk).tolist() == expected


@each_mode
def test_enumeration_gives_the_law(mode: str) -> None:
    for case in cases(mode):
        assert not law_differs(enumerated(case), law_of(case))


@each_mode
def test_densities_give_the_law(mode: str) -> None:
    """The program's log-densities, every tuple of rows scored along the plate."""
    for case in cases(mode):
        shape = (len(case.rows),) * len(sites(case))
        tuples = torch.ones(shape).nonzero().T
        model = poutine.condition(program(tree_of(case)), dict(zip(sites(case), tuples, strict=True)))
        trace = poutine.trace(model).get_trace(tuples.shape[1])
        trace.compute_log_prob()
        density = sum(trace.nodes[name]["log_prob"] for name in sites(case)).exp()
        assert not law_differs(density.reshape(shape), law_of(case))


@each_mode
def test_pyro_sums_out_what_is_not_a_leaf(mode: str) -> None:
    """The probability of scrubbed inputs, from Pyro's own variable elimination."""
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    for case in cases(mode):
        table = leaf_law(case)
        for inputs in random.Random(0).sample(sorted(table), min(2, len(table))):
            data = {name: torch.tensor([row]) for name, row in zip(leaves(case), inputs, strict=True)}
            evidence = -elbo.loss(poutine.condition(program(tree_of(case)), data), lambda _: None, 1)
            assert math.exp(evidence) == pytest.approx(float(table[inputs]), abs=TOLERANCE)


def test_draws_follow_the_law() -> None:
    for case, seed in every():
        assert not law_alarm(case, seed, law_of(case))
        assert not f_alarm(case, seed, f_of(case))


def test_the_driver_estimates_the_expectation() -> None:
    for case, seed in every():
        result = driven(case, seed)
        assert result.model.value == pytest.approx(float(e_model(case)), abs=1e-9)
        if splits(case):
            assert result.randomised.value == pytest.approx(float(e_randomised(case)), abs=1e-9)
        if result.scrubbed.exact:
            assert result.scrubbed.value == pytest.approx(float(mean(f_of(case))), abs=1e-9)
        assert not mean_alarm(case, seed, f_of(case))


def test_intervals_cover() -> None:
    """Of the 95 % intervals for the draws, not too many miss the expectation."""
    estimates = [(driven(case, seed).scrubbed, mean(f_of(case))) for case, seed in every()]
    missed = [abs(mu - (e.low + e.high) / 2) > e.width / 2 + TOLERANCE for e, mu in estimates if not e.exact]
    print(f"{sum(missed)} of {len(missed)} intervals miss")
    assert stats.binom.sf(sum(missed) - 1, len(missed), 0.05) > PER_CHECK


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault: Fault) -> None:
    """Each check, told that a faulty oracle is right, must disagree where the faulty law is another one.

    The exact check on every such case; those of draws on most, for some laws are closer than draws can tell.
    """
    shown = Counter[str]()
    for case, seed in every():
        wrong = law(case, fault)
        if wrong == law_of(case):
            continue
        recursion = f_by_recursion(case)
        f = tally((recursion(data), p) for data, p in wrong.items())
        shown["law"] += 1
        shown["law, enumeration"] += law_differs(enumerated(case), wrong)
        shown["law, draws"] += law_alarm(case, seed, wrong)
        shown["f"] += f != f_of(case)
        shown["f, draws"] += f_alarm(case, seed, f)
        shown["mean"] += mean(f) != mean(f_of(case))
        shown["mean, draws"] += mean_alarm(case, seed, f)
    print(fault, dict(shown))
    assert shown["law"] >= 15
    assert shown["law, enumeration"] == shown["law"]
    for what in ("law", "f", "mean"):
        assert shown[f"{what}, draws"] >= 0.75 * shown[what]


def test_another_sharing_is_caught() -> None:
    """One draw for each graph node wherever it is read, and each mode in place of another: where f can tell them."""
    shown = Counter[str]()
    for case, seed in every():
        mode = MODES[seed[0]]
        names = {node for claim in case.claims.values() for node in unimportant(case, claim)}
        for other in ("all", "each", "reader", {node: (node,) for node in sorted(names)}):
            wrong = replace(case, sharing=other)
            if other == mode or support_size(wrong) > 1000:
                continue
            if (f := distribution_of_f(wrong)) != f_of(case):
                what = "per graph node" if isinstance(other, dict) else str(other)
                shown[what] += 1
                shown[f"{what}, draws"] += f_alarm(case, seed, f)
    print(dict(shown))
    for what in ("all", "each", "reader", "per graph node"):
        assert shown[f"{what}, draws"] >= max(8, 0.75 * shown[what])
