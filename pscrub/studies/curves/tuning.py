"""How channels and units answer to orientation, measured on images that nothing is scored on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.studies.curves.images import ORIENTATIONS, RADII, angles, is_within
from pscrub.studies.curves.model import CHANNELS, PLACES, STRIDE, Trunk

ORIENTED = 0.15
"""From what share of its variance on, told by orientation, a channel or unit counts as oriented."""
ANSWERS = 0.05
"""In what share of the images a unit has to be above 0."""
ALIGNED, ALONG = 45.0, 30.0
"""Degrees: how far a curve channel's orientation, and a line channel's tangent, may be from the unit's."""
NEAR = 2**0.5 * STRIDE / 2
"""Pixels: how far from the unit's curve a place may be that lies on it, half the diagonal between two places."""
AT_ONCE = 64
UNITS = 12


@dataclass(frozen=True)
class Tuning:
    """Answers by orientation of values [N, k], one for each of k channels or units.

    Args:
        curves: mean answers, float64 [24, k].
        share: of the variance over all images, how much the orientation tells, float64 [k]; 0 where nothing varies.
        once: how much is a wave of one period over all orientations, which tells the sides of a curve apart.
        twice: how much is one of two periods, which the tangent alone tells.
        towards: where the first wave is largest, radians float64 [k].
        across: where the second wave is largest, radians from 0 to pi: across the line that it answers to.
    """

    curves: Tensor
    share: Tensor
    once: Tensor
    twice: Tensor
    towards: Tensor
    across: Tensor

    @classmethod
    def of(cls, values: Tensor, orientation: Tensor) -> Tuning:
        """Measured on values [N, k] at orientations int64 [N], each of the 24 as often."""
        values = values.double()
        curves = torch.stack([values[orientation == each].mean(0) for each in range(ORIENTATIONS)])
        total = values.var(0, correction=0)
        moving = total > 0
        total = torch.where(moving, total, 1.0)
        at = angles(torch.arange(ORIENTATIONS)).double()
        waves = [(torch.polar(torch.ones_like(at), n * at)[:, None] * curves).mean(0) for n in (1, 2)]
        once, twice = (2 * wave.abs().square() / total * moving for wave in waves)
        share = curves.var(0, correction=0) / total * moving
        return cls(curves, share, once, twice, waves[0].angle(), waves[1].angle() % (2 * torch.pi) / 2)

    def oriented(self, least: float = ORIENTED) -> Tensor:
        """bool [k]: those whose variance the orientation tells at least that share of."""
        return self.share >= least

    @property
    def sided(self) -> Tensor:
        """bool [k]: those that tell more of the side than of the tangent."""
        return self.once > self.twice


@dataclass(frozen=True)
class Unit:
    """A unit of conv3_3, and what it reads by kind, measured on the selection half.

    Args:
        number: of 256.
        preferred: the orientation, 0 to 23, whose label it goes with best.
        radius: a place in RADII, at which it answers most to that orientation.
        correlation: of its activation with that label, on the selection half.
        threshold: the activation that tells that label best, on the selection half.
        kinds: name -> bool [256], channels of conv3_2; each is of one kind.
        on_curve: bool [9], the places that the unit's curve passes.
        tangential: bool [256, 9], aligned channels at the places where their own orientation is that of the unit's
            curve there.
        strength: float64 [256], standard deviation of what each channel adds to the unit's input.
        weight: float64 [256], the norm of each channel's weights.
    """

    number: int
    preferred: int
    radius: int
    correlation: float
    threshold: float
    kinds: Mapping[str, Tensor]
    on_curve: Tensor
    tangential: Tensor
    strength: Tensor
    weight: Tensor

    @property
    def aligned(self) -> Tensor:
        """bool [256]: channels that are tangential somewhere."""
        return self.tangential.any(1)


@dataclass(frozen=True)
class Found:
    """What was measured on the selection half.

    Args:
        channels: tuning of conv3_2 at the middle place.
        units: tuning of conv3_3.
        chosen: the units that are scored, the largest correlation first.
        least: from what share on channels and units are oriented.
    """

    channels: Tuning
    units: Tuning
    chosen: tuple[Unit, ...]
    least: float


AC, AL, OPPOSED, OTHER_CURVES, OTHER_LINES, UNORIENTED = KINDS = (
    "aligned curves",
    "aligned lines",
    "opposed curves",
    "other curves",
    "other lines",
    "unoriented",
)


@torch.no_grad()
def run_trunk(trunk: Trunk, images: Tensor) -> tuple[Tensor, Tensor]:
    """conv3_2 [N, 2304], channel by channel, each at its nine places; and the units [N, 256]."""
    below = torch.cat([trunk.below(some) for some in images.split(AT_ONCE)])
    return below, trunk.read(below)


def measure_curves(trunk: Trunk, data: Dataset, count: int = UNITS, least: float = ORIENTED) -> Found:
    """Channels and units measured on images, and the units with the largest correlation chosen.

    Those that tell the sides of a curve come before all others.

    Args:
        trunk: whose.
        data: the selection half, as `make_images` makes it.
        count: how many units are chosen.
        least: from what share of its variance on a channel or unit is oriented.
    """
    orientation = data["orientation"]
    below, units = run_trunk(trunk, data["image"])
    each = below.view(-1, CHANNELS, PLACES)
    found, channels = Tuning.of(units, orientation), Tuning.of(each[:, :, PLACES // 2], orientation)
    correlations = torch.stack([correlate(units, is_within(orientation, at)) for at in range(ORIENTATIONS)])
    best, preferred = correlations.max(0)
    answers = (units > 0).double().mean(0) >= ANSWERS
    order = (best + 2.0 * (found.oriented(least) & found.sided)).masked_fill(~answers, -1).argsort(descending=True)
    chosen = []
    for number in sorted(order[:count].tolist(), key=lambda number: -float(best[number])):
        chosen.append(_describe(trunk, number, int(preferred[number]), (each, units, channels), data, least))
    return Found(channels, found, tuple(chosen), least)


def correlate(values: Tensor, label: Tensor) -> Tensor:
    """float64 [k]: the correlation of values [N, k] with a label [N]; 0 where they do not vary."""
    values, label = values.double(), label.double()
    moments = values.std(0, correction=0) * label.std(correction=0)
    together = ((values - values.mean(0)) * (label - label.mean())[:, None]).mean(0)
    return torch.where(moments > 0, together / moments.clamp(min=1e-300), 0.0)


def best_threshold(values: Tensor, label: Tensor) -> float:
    """The threshold of values [N] at which "above" and a label [N] agree best, both labels weighing the same."""
    levels, order = values.double().sort()
    right, wrong = (which[order].double().cumsum(0) / which.sum() for which in (~label, label))
    gain = torch.cat([right.new_zeros(1), right - wrong])  # of the classes below a threshold
    ends = torch.cat([levels[:1] - 1, levels, levels[-1:] + 1])
    gain[1:-1][levels[1:] == levels[:-1]] = -1  # no threshold lies between equals
    at = int(gain.argmax())
    return float(ends[at : at + 2].mean())


def lay_out_places() -> Tensor:
    """float64 [9, 2]: x and y of the places that a unit reads, in pixels from the middle one."""
    along = torch.arange(-1.0, 2.0, dtype=torch.float64) * STRIDE
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def _describe(
    trunk: Trunk,
    number: int,
    preferred: int,
    measured: tuple[Tensor, Tensor, Tuning],
    data: Dataset,
    least: float,
) -> Unit:
    each, units, channels = measured
    label, own = is_within(data["orientation"], preferred), units[:, number]
    there = data["orientation"] == preferred
    radius = int(torch.stack([own[there & (data["radius"] == r)].mean() for r in range(len(RADII))]).argmax())
    towards = angles(torch.tensor(preferred)).double()
    weights = trunk.last.weight[number].detach().flatten(1)
    kinds = _sort_channels(channels, towards, least)
    inwards = RADII[radius] * torch.stack([towards.cos(), towards.sin()])
    from_place = inwards - lay_out_places()
    on_curve = (from_place.norm(dim=1) - RADII[radius]).abs() <= NEAR
    there_towards = torch.atan2(from_place[:, 1], from_place[:, 0])
    oriented = channels.oriented(least)[:, None]
    fits = torch.where(
        channels.sided[:, None],
        _apart(channels.towards[:, None], there_towards, 360) <= ALIGNED,
        _apart(channels.across[:, None], there_towards, 180) <= ALONG,
    )
    return Unit(
        number,
        preferred,
        radius,
        float(correlate(units[:, [number]], label)),
        best_threshold(own, label),
        kinds,
        on_curve,
        oriented & fits & on_curve,
        (each * weights).sum(2).double().std(0, correction=0),
        weights.double().norm(dim=1),
    )


def _sort_channels(channels: Tuning, towards: Tensor, least: float) -> dict[str, Tensor]:
    """Kind -> bool [256]."""
    oriented, sided = channels.oriented(least), channels.sided
    from_unit = _apart(channels.towards, towards, 360)
    curves, lines = oriented & sided, oriented & ~sided
    aligned, opposed = from_unit <= ALIGNED, from_unit >= 180 - ALIGNED
    along = _apart(channels.across, towards, 180) <= ALONG
    return {
        AC: curves & aligned,
        AL: lines & along,
        OPPOSED: curves & opposed,
        OTHER_CURVES: curves & ~aligned & ~opposed,
        OTHER_LINES: lines & ~along,
        UNORIENTED: ~oriented,
    }


def _apart(one: Tensor, other: Tensor, period: float) -> Tensor:
    """Degrees between directions in radians, of which those a period apart are the same."""
    apart = torch.rad2deg(one - other) % period
    return torch.minimum(apart, period - apart)
