"""Tuning measured on answers that are known: waves of one and of two periods, thresholds, places on a curve."""

from __future__ import annotations

import math

import pytest
import torch

from pscrub.studies.curves import tuning
from pscrub.studies.curves.images import ORIENTATIONS, RADII, angles, make_images
from pscrub.studies.curves.model import CHANNELS, load_trunk
from pscrub.studies.curves.tuning import KINDS, Found, Tuning, best_threshold, correlate, lay_out_places, measure_curves

ORIENTATION = torch.arange(ORIENTATIONS).repeat(4)
AT = angles(ORIENTATION).double()


def test_planted_waves_are_told() -> None:
    noise = torch.randn(len(AT), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.stack([2 + (AT - 1.1).cos(), (2 * (AT - 0.4)).cos(), torch.zeros_like(AT), 5 * noise], 1)
    found = Tuning.of(values, ORIENTATION)
    assert found.share[:2].tolist() == pytest.approx([1, 1]) and found.share[2] == 0 and found.share[3] < 0.5
    assert found.once[0] == pytest.approx(1) and found.twice[1] == pytest.approx(1)
    assert found.towards[0] == pytest.approx(1.1) and found.across[1] == pytest.approx(0.4)
    assert found.sided.tolist()[:2] == [True, False]
    assert found.oriented(0.6).tolist() == [True, True, False, False]


def test_shares_add_up() -> None:
    values = torch.stack([AT.cos() + 0.5 * (2 * AT).sin() + (3 * AT).cos()], 1)
    found = Tuning.of(values, ORIENTATION)
    assert float(found.once) == pytest.approx(1 / 2.25) and float(found.twice) == pytest.approx(0.25 / 2.25)


def test_correlations_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    values, label = torch.randn(50, 3, generator=generator), torch.rand(50, generator=generator) < 0.3
    values[:, 2] = 4.0
    found = correlate(values, label)
    for place in (0, 1):
        expected = torch.corrcoef(torch.stack([values[:, place], label.float()]).double())[0, 1]
        assert float(found[place]) == pytest.approx(float(expected))
    assert found[2] == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_tells_better(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    label = torch.rand(40, generator=generator) < 0.3
    values = (4 * torch.rand(40, generator=generator) + label).round().float()  # with ties

    def score(at: float) -> float:
        above = values > at
        return float(above[label].float().mean() + (~above)[~label].float().mean())

    best = max(score(at) for at in (-1, *values.unique().tolist()))
    assert score(best_threshold(values, label)) == pytest.approx(best)


@pytest.fixture(scope="module")
def found() -> Found:
    return measure_curves(load_trunk("untrained"), make_images("selection", 1), 6, 0.3)


def test_every_channel_is_of_one_kind(found: Found) -> None:
    assert len(found.chosen) == 6
    for unit in found.chosen:
        assert torch.stack([unit.kinds[kind] for kind in KINDS]).sum(0).eq(1).all()
        assert torch.equal(~unit.kinds[tuning.UNORIENTED], found.channels.oriented(0.3))
    correlations = [unit.correlation for unit in found.chosen]
    assert correlations == sorted(correlations, reverse=True)


def test_kinds_are_by_the_angle_to_the_unit(found: Found) -> None:
    for unit in found.chosen:
        own = angles(torch.tensor(unit.preferred)).double()
        for kind, least, most in ((tuning.AC, 0, 45), (tuning.OPPOSED, 135, 180), (tuning.OTHER_CURVES, 45, 135)):
            apart = torch.rad2deg(torch.acos((found.channels.towards[unit.kinds[kind]] - own).cos()))
            assert ((apart >= least - 1e-6) & (apart <= most + 1e-6)).all(), kind


def test_tangential_pairs_are_oriented_channels_on_the_curve(found: Found) -> None:
    oriented = found.channels.oriented(0.3)
    for unit in found.chosen:
        assert unit.on_curve[4] and 2 <= int(unit.on_curve.sum()) <= 6
        assert not unit.tangential[:, ~unit.on_curve].any() and not unit.tangential[~oriented].any()
        middle = unit.tangential[:, 4]  # where the curve runs as the unit prefers
        assert torch.equal(middle, unit.kinds[tuning.AC] | unit.kinds[tuning.AL])
        towards = angles(torch.tensor(unit.preferred)).double()
        off = lay_out_places() - RADII[unit.radius] * torch.stack([towards.cos(), towards.sin()])
        assert ((off.norm(dim=1) - RADII[unit.radius]).abs() <= 4 / math.sqrt(2)).tolist() == unit.on_curve.tolist()


def test_strength_is_how_much_a_channel_moves_the_input() -> None:
    trunk, data = load_trunk("untrained"), make_images("selection", 1)
    (unit,) = measure_curves(trunk, data, 1, 0.3).chosen
    with torch.no_grad():
        below = trunk.below(data["image"]).view(-1, CHANNELS, 9)
        channel = int(unit.strength.argmax())
        adds = below[:, channel] @ trunk.last.weight[unit.number, channel].flatten()
    assert float(unit.strength[channel]) == pytest.approx(float(adds.std(correction=0)), rel=1e-4)
