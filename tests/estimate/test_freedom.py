"""Degrees of freedom and skewness of sums of squares, against simulations of what they are for."""

import numpy as np
import pytest
import torch
from scipy import stats

from pscrub.estimate.freedom import Shape, welch


def both(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([values, values]))


def test_terms_of_heavy_tails_count_for_fewer() -> None:
    rng = np.random.default_rng(0)
    normal, heavy = rng.normal(size=500), rng.standard_t(3, size=500)
    assert 350 < Shape.of(both(normal - normal.mean()), 500).freedom <= 499
    assert Shape.of(both(heavy - heavy.mean()), 500).freedom < 250
    assert Shape.of(both(np.zeros(5)), 5).freedom == 4 and Shape.of(both(np.eye(5)[0]), 5).freedom >= 1


def rows(rng: np.random.Generator, blocks: int, size: int) -> np.ndarray:
    """Blocks with means of 0.3 and -0.3: the mean product of two rows of one is 0.09."""
    return rng.normal(size=(blocks, size)) + 0.3 * (-1.0) ** np.arange(blocks)[:, None]


def product(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The mean over blocks of the mean product of two different rows; its change without each row, and each two."""
    blocks, size = x.shape
    total, squares = x.sum(1), np.square(x).sum(1)
    value = ((total**2 - squares) / (size * (size - 1))).mean()
    rest, left = total[:, None] - x, squares[:, None] - x**2
    one = (rest**2 - left) / ((size - 1) * (size - 2)) - ((total**2 - squares) / (size * (size - 1)))[:, None]
    gradient = -one.reshape(-1) / blocks
    both_out = rest[:, :, None] - x[:, None, :]
    pair = (both_out**2 - (left[:, :, None] - x[:, None, :] ** 2)) / ((size - 2) * (size - 3))
    whole = ((total**2 - squares) / (size * (size - 1)))[:, None, None]
    second = (whole - (whole + one[:, :, None]) - (whole + one[:, None, :]) + pair) / blocks
    for b in range(blocks):
        np.fill_diagonal(second[b], 0.0)
    bends = np.einsum("bqr,br->bq", second, gradient.reshape(blocks, size)).reshape(-1)
    return value, gradient, bends


@pytest.mark.parametrize(("blocks", "size"), [(4, 20), (8, 10)])
def test_few_blocks_leave_few_degrees_of_freedom_and_intervals_that_hold(blocks: int, size: int) -> None:
    rng, found = np.random.default_rng(blocks), list[tuple[float, float, Shape]]()
    for _ in range(1500):
        value, gradient, bends = product(rows(rng, blocks, size))
        found.append((value, float(gradient @ gradient), Shape.of(both(gradient), blocks * size, both(bends))))
    values, variances, shapes = (np.array(each) for each in zip(*found, strict=True))
    # What two rows do together squares count twice; `estimate.jackknife` takes it off, and here the truth does.
    held, plain = [], []
    for value, variance, shape in zip(values, variances * values.var() / variances.mean(), shapes, strict=True):
        q = float(stats.t.ppf(0.975, shape.freedom))
        low, high = ((q + more) * variance**0.5 for more in shape.farther(q, variance))
        held.append(value - low <= 0.09 <= value + high)
        plain.append((value - 1.96 * variance**0.5 > 0.09, value + 1.96 * variance**0.5 < 0.09))
    # As many as the variance's own spread says, or fewer; of rows there are many more.
    freedom, meant = float(np.median([shape.freedom for shape in shapes])), 2 * variances.mean() ** 2 / variances.var()
    assert 0.4 * meant < freedom < 1.2 * meant < 0.3 * blocks * size
    # Estimate and variance move together as each data set says they do.
    together = float(np.cov(values, variances)[0, 1])
    assert 0.4 < float(np.mean([shape.shared for shape in shapes])) / together < 2.5
    # The normal interval errs too often, nearly always with the truth above it.
    above, below = np.mean(plain, 0)
    assert above + below > 0.06 and below > 3 * above
    assert np.mean(held) > 0.94
    print(freedom, meant, above, below, np.mean(held))


def test_ends_are_moved_to_the_side_that_errs_and_never_inwards() -> None:
    up, down = Shape(1.0, 30.0, 0.3, 0.3), Shape(1.0, 30.0, -0.3, -0.3)
    assert up.farther(2.0, 1.0) == (0.0, pytest.approx(0.45)) and down.farther(2.0, 1.0)[1] == 0.0
    assert Shape(1.0, 30.0, 50.0, 50.0).farther(2.0, 1.0) == (0.0, 1.0)  # no farther than half of the quantile
    assert up.farther(2.0, 0.0) == (0.0, 0.0) and Shape(0.0, 30.0).farther(2.0, 1.0) == (0.0, 0.0)


def test_noise_in_a_variance_costs_degrees_of_freedom() -> None:
    shape = Shape(1.0, 20.0)
    assert shape.blurred(1.0, 0.0) == shape and shape.blurred(0.0, 1.0) == shape
    assert shape.blurred(1.0, 100.0).freedom == 1.0
    assert welch((1.0, 0.0), (7.0, 3.0)) == 7.0 and welch((0.0,), (3.0,)) == np.inf
