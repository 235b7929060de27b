"""The jackknife of draws apart against leaving each row out, and its variance against a sum over pairs of draws."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
from pscrub.data.partition import number_units
from pscrub.estimate.estimate import Interval
from pscrub.estimate.gradients import exact_gradient, randomised_apart
from pscrub.estimate.jackknife import Influence
from pscrub.estimate.pooling import pool_populations
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.on_data import OnData
from pscrub.law.apart import draw_apart, plan_places
from tests.false_alarm import Z

BLOCKS = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
U = [0.3, -1.0, 2.0, 0.5, 1.5, 0.0, -0.7, 1.1, 0.2, 0.9, -1.4, 0.6]
Y = [1.0, 0.0, 0.5, -1.0, 2.0, 1.0, 0.0, 0.5, -0.5, 1.0, 0.0, 2.0]
GRAPH = Graph.of({"out": lambda u: 1.0 * u, "f": lambda out, y: (out - y) ** 2}, ["u", "y"], "f")


def toy(weights: list[float] | None = None) -> Hypothesis:
    columns = {"u": torch.tensor(U).double(), "y": torch.tensor(Y).double(), "b": torch.tensor(BLOCKS)}
    data = Dataset(columns, None if weights is None else torch.tensor(weights).double())
    return Hypothesis("toy", GRAPH, data, Claim("f", reads=[Claim("out", "b"), Claim("y", "exact")]))


def influence(hypothesis: Hypothesis, draws: int, seed: int, units: Tensor | None = None) -> Influence:
    tree = unroll(hypothesis)
    places = plan_places(tree, torch.arange(hypothesis.data.n) if units is None else units)
    drawn, found = draw_apart(places, draws, (seed,)), Influence(places)
    found.add(drawn, Engine(hypothesis.data).f(tree, drawn.data()))
    return found


def mean_without(left_out: set[int], units: list[int]) -> float:
    """The mean over a row, and another unit's row of its block, of what is left: by two loops."""
    total, rows = 0.0, [row for row in range(len(U)) if units[row] not in left_out]
    for i in rows:
        others = [j for j in rows if BLOCKS[j] == BLOCKS[i] and units[j] != units[i]]
        total += sum((U[j] - Y[i]) ** 2 for j in others) / len(others) / len(rows)
    return total


@pytest.mark.parametrize("units", [list(range(12)), [0, 1, 2, 3, 0, 5, 6, 7, 1, 9, 10, 11]])
def test_the_gradient_is_the_change_without_each_unit(units: list[int]) -> None:
    runs = [influence(toy(), 4000, seed, torch.tensor(units)).found(Interval()) for seed in range(20)]
    values = torch.tensor([run[0].value for run in runs if run[0] is not None], dtype=torch.float64)
    whole = mean_without(set(), units)
    assert abs(float(values.mean()) - whole) <= Z * float(values.std()) / math.sqrt(20)
    gradients = torch.stack([run[2].mean(0) for run in runs])
    mean, spread = gradients.mean(0), gradients.std(0) / math.sqrt(20)
    smaller = 1 - float(torch.bincount(torch.tensor(units)).double().div(12).square().sum())
    if len(set(units)) == 12:
        for unit in set(units):
            expected = smaller * (whole - mean_without({unit}, units))
            assert abs(float(mean[unit]) - expected) <= 1.5 * Z * float(spread[unit]) + 1e-9
    else:  # of clusters the mean is a ratio, whose weights are known to first order
        told = torch.tensor([smaller * (whole - mean_without({unit}, units)) for unit in range(12) if unit in units])
        kept = mean[sorted(set(units))]
        assert float(np.corrcoef(told.numpy(), kept.numpy())[0, 1]) > 0.95


def variance_by_pairs(blocks: list[int]) -> float:
    """E[f]^2 less its mean over pairs of draws that are apart, over all pairs of draws: four loops."""
    draws = [(i, j) for i, j in product(range(len(blocks)), repeat=2) if i != j and blocks[i] == blocks[j]]
    n = {b: blocks.count(b) for b in blocks}
    p = [1 / len(blocks) / (n[blocks[i]] - 1) for i, _ in draws]
    f = np.array([(U[j] - Y[i]) ** 2 for i, j in draws])
    f -= float(np.dot(p, f))
    total = 0.0
    for (s, fs, ps), (t, ft, pt) in product(zip(draws, f, p, strict=True), repeat=2):
        if set(s) & set(t):
            ratio = 0.0
        elif blocks[s[0]] == blocks[t[0]]:
            size = n[blocks[s[0]]]
            ratio = (size - 1) / (size - 2) * (size - 1) / (size - 3)
        else:
            ratio = 1.0
        total += ps * pt * fs * ft * (1 - ratio)
    return total


def test_the_variance_is_that_of_pairs_of_draws() -> None:
    expected, found, told = variance_by_pairs(BLOCKS), [], []
    for seed in range(20):
        _, _, gradient, excess = influence(toy(), 2000, seed).found(Interval())
        found.append(12 / 11 * float((gradient[0] * gradient[1]).sum()) + excess.value)
        told.append((excess.value, excess.noise))
    spread = float(np.std(found)) / math.sqrt(20)
    assert abs(float(np.mean(found)) - expected) <= 1.5 * Z * spread
    excesses, noise = np.array(told).T
    assert 0.7 < float(np.sqrt(np.mean(noise**2))) / float(excesses.std()) < 2.5
    # The squares alone, each pair's effect counted for both of its rows, would be caught.
    _, _, gradient, excess = influence(toy(), 40_000, 99).found(Interval())
    alone = 12 / 11 * float((gradient[0] * gradient[1]).sum())
    assert alone > expected + 1.5 * Z * spread and excess.value < 0 and excess.blocks == pytest.approx(3)


@pytest.mark.parametrize("size", [2, 3, 4, 6, 40])
def test_squares_have_joint_effects_too_often_in_small_blocks(size: int) -> None:
    """A mean over pairs of a block whose values are independent, each row left out in turn, by a quadratic form."""
    n = 3 * size
    blocks = torch.arange(n) // size
    data = Dataset({"u": torch.arange(n) % 5 * 1.0, "y": torch.arange(n) % 3 * 1.0, "b": blocks})
    h = Hypothesis("pairs", GRAPH, data, Claim("f", reads=[Claim("out", "b"), Claim("y", "exact")]))
    found = influence(h, 1024, 0).found(Interval())[3]
    pairs = size * (size - 1) // 2
    own = 1 / pairs  # the variance of a mean over as many independent values
    if size > 2:
        fewer = (size - 1) * (size - 2) // 2  # without a row: each of these weighs more, the others nothing
        moved = fewer * (1 / fewer - 1 / pairs) ** 2 + (pairs - fewer) / pairs**2
    else:  # nothing is left: the change is taken to be all that there is
        moved = own
    assert found.overcount == pytest.approx(size * moved / own - 1)


def test_the_randomised_loss_is_over_pairs_of_different_rows() -> None:
    weights = [1.0, 2, 1, 1, 3, 1, 1, 2, 1, 1, 1, 0]

    def by_hand(w: np.ndarray) -> float:
        f = (np.array(U)[:, None] - np.array(Y)) ** 2
        apart = np.outer(w, w) * (1 - np.eye(12))
        return float((apart * f).sum() / apart.sum())

    on_data = OnData(GRAPH, toy(weights).data)
    found, gradient = randomised_apart(on_data, torch.arange(12))
    w = on_data.data.weights.numpy()
    assert found.value == pytest.approx(by_hand(w)) and found.exact
    for row in range(12):
        ends = [by_hand(w * np.exp(sign * 1e-6 * (np.arange(12) == row))) for sign in (-1, 1)]
        assert float(gradient[0, row]) == pytest.approx((ends[1] - ends[0]) / 2e-6, abs=1e-6)
    sampled, own = randomised_apart(on_data, torch.arange(12), pairs=60)
    assert not sampled.exact and not torch.equal(own[0], own[1])
    baselines = [randomised_apart(on_data, torch.arange(12), pairs=60, seed=seed)[0] for seed in range(4000)]
    many = np.array([baseline.value for baseline in baselines if not baseline.exact])  # of two pairs at least
    assert len(many) > 2000 and abs(float(many.mean()) - found.value) <= Z * float(many.std()) / math.sqrt(len(many))


@pytest.mark.parametrize("table", [True, False])
def test_pairs_of_one_cluster_are_left_out(table: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [1.0, 2, 1, 1, 3, 1, 1, 2, 1, 1, 1, 0]
    clusters = np.array([2, 0, 1, 0, 1, 1, 2, 2, 0, 0, 0, 3])
    if not table:
        monkeypatch.setattr("pscrub.estimate.pairs.TABLE", 0)
    on_data = OnData(GRAPH, toy(weights).data)
    units = number_units(Dataset({"d": torch.from_numpy(clusters)}), "d")
    apart = clusters[:, None] != clusters

    def by_hand(w: np.ndarray) -> float:
        f = (np.array(U)[:, None] - np.array(Y)) ** 2
        return float((np.outer(w, w) * apart * f).sum() / (np.outer(w, w) * apart).sum())

    w = on_data.data.weights.numpy()
    found, gradient = randomised_apart(on_data, units)
    assert found.exact and found.value == pytest.approx(by_hand(w)) and "clusters" in found.method
    for cluster in range(4):
        rows = clusters == clusters[int((units == cluster).nonzero()[0])]
        ends = [by_hand(w * np.exp(sign * 1e-6 * rows)) for sign in (-1, 1)]
        assert float(gradient[0, cluster]) == pytest.approx((ends[1] - ends[0]) / 2e-6, abs=1e-6)
    sampled = [randomised_apart(on_data, units, pairs=60, seed=seed) for seed in range(2000)]
    many = np.array([baseline.value for baseline, _ in sampled if not baseline.exact])  # of two pairs at least
    assert len(many) > 1000 and sampled[0][1].shape == (2, 4)
    assert abs(float(many.mean()) - found.value) <= Z * float(many.std()) / math.sqrt(len(many))


def test_gradients_of_a_mean_are_its_terms() -> None:
    f = torch.tensor([1.0, 2.0, 4.0])
    gradient = exact_gradient(f, torch.tensor([0.5, 0.25, 0.25]).double())
    assert gradient[0].tolist() == pytest.approx([0.5 * (1 - 2), 0.25 * 0, 0.25 * 2])


def test_sets_of_draws_are_pooled_as_they_have_draws() -> None:
    from pscrub import scrub

    one, two = (scrub(toy(), draws=n, seed=n, data_uncertainty=True).results[0].data for n in (200, 600))
    assert one is not None and two is not None and one.population is not None and two.population is not None
    pooled = pool_populations((one.population, two.population), (200, 600))
    assert pooled.drawn is not None and one.population.drawn is not None and two.population.drawn is not None
    assert pooled.drawn.value == pytest.approx((one.population.drawn.value + 3 * two.population.drawn.value) / 4)
    assert pooled.drawn.draws == 800 and pooled.drawn.se < two.population.drawn.se


def test_what_a_sum_of_squares_owes_to_each_row_is_its_change_without_it() -> None:
    """Second differences by leaving two rows out, of which the degrees of freedom are made."""
    one = [mean_without({q}, list(range(12))) for q in range(12)]
    two = np.array([[mean_without({q, r}, list(range(12))) for r in range(12)] for q in range(12)])
    whole = mean_without(set(), list(range(12)))
    g = whole - np.array(one)
    second = whole - np.array(one)[:, None] - np.array(one) + two
    np.fill_diagonal(second, 0.0)
    expected = (11 / 12) ** 2 * second @ g
    runs = []
    for seed in range(20):
        run = influence(toy(), 8000, seed)
        estimate, _, gradient, _ = run.found(Interval())
        assert estimate is not None
        runs.append(run.bends(gradient[None], estimate.value)[0].mean(0).numpy())
    found = np.mean(runs, 0)
    # Of a block of four a second row's stand-in is known to first order: a third of it and more.
    assert float(np.corrcoef(found, expected)[0, 1]) > 0.95
    assert 0.5 < float((found @ expected) / (expected @ expected)) < 1.2


def test_of_very_many_places_one_pair_of_draws_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pscrub.estimate.jackknife.WORK", 0.1)
    run = influence(toy(), 400, 0)
    estimate, _, gradient, excess = run.found(Interval())
    assert estimate is not None and excess.value == 0 and len(run.some[0][0].f) == 1
    assert bool(run.bends(gradient[None], estimate.value).isfinite().all())
