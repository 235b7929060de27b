"""Images of curves on noise: an arc through the middle, of 24 orientations and four radii, dark or light."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError

SIZE = 40
"""Side of an image in pixels: all that one unit of conv3_3 sees."""
ORIENTATIONS = 24
RADII = (8.0, 12.0, 18.0, 27.0)
"""In pixels."""
HALVES = ("selection", "scoring")
REPEATS, MOST = 10, 100
"""Images of each orientation and radius in a half: by default, and the most."""
WITHIN = 30.0
"""Degrees: a curve is of an orientation if its own is no further from it."""
WIDTH, NOISE, CONTRAST, SHIFT = 1.5, 20.0, (42.0, 98.0), 2.0
"""The stroke's standard deviation in pixels; that of the noise, of 255; how much lighter or darker the stroke is; how
many pixels an arc is moved at most, along each axis."""


def make_images(half: str, repeats: int = REPEATS, seed: int = 0) -> Dataset:
    """Half of the images of a seed, each orientation and radius as often; the halves share no image.

    Columns: image float32 [N, 3, 40, 40], each colour less the mean that the model takes off; orientation, 0 to 23 in
    steps of 15 degrees, the direction from the curve's middle to its centre, clockwise from the right as images have y
    downwards; tangent, the orientation modulo 12, which both sides of a curve share; radius, 0 to 3, a place in RADII;
    light, 1 where the stroke is lighter than the ground: int64 [N].

    Args:
        half: "selection" or "scoring".
        repeats: images of each orientation and radius; N is 96 times as many.
        seed: of where arcs lie, of contrast and of noise.

    Raises:
        StudyError: another half, or a number of repeats that cannot be made.
    """
    faults = [] if half in HALVES else [f"half is '{half}'; expected {' or '.join(HALVES)}"]
    if not 1 <= repeats <= MOST:
        faults.append(f"repeats is {repeats}; expected 1 to {MOST}, images of each orientation and radius")
    if faults:
        raise StudyError(faults)
    generator = torch.Generator().manual_seed(2 * seed + HALVES.index(half))
    orientation = torch.arange(ORIENTATIONS).repeat_interleave(len(RADII) * repeats)
    radius = torch.arange(len(RADII)).repeat_interleave(repeats).repeat(ORIENTATIONS)
    count = len(orientation)
    light = torch.randint(2, (count,), generator=generator)
    low, high = CONTRAST
    contrast = (2 * light - 1) * (low + (high - low) * torch.rand(count, generator=generator))
    moved = (2 * torch.rand(count, 2, generator=generator) - 1) * SHIFT
    arcs = draw_arcs(angles(orientation), torch.tensor(RADII)[radius], moved)
    noise = NOISE * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    image = contrast[:, None, None, None] * arcs[:, None] + noise
    told = {"orientation": orientation, "tangent": orientation % (ORIENTATIONS // 2), "radius": radius, "light": light}
    return Dataset({"image": image, **told})


def angles(orientation: Tensor) -> Tensor:
    """float32 [...], in radians, of orientations 0 to 23.

    >>> angles(torch.tensor([0, 12])).tolist()
    [0.0, 3.1415927410125732]
    """
    return orientation.float() * (2 * math.pi / ORIENTATIONS)


def is_within(orientation: Tensor, preferred: int) -> Tensor:
    """bool [N]: whether orientations [N] are at most WITHIN degrees from one.

    >>> torch.nonzero(is_within(torch.arange(24), 1)).flatten().tolist()
    [0, 1, 2, 3, 23]
    """
    apart = (orientation - preferred) % ORIENTATIONS
    return torch.minimum(apart, ORIENTATIONS - apart) * 360 / ORIENTATIONS <= WITHIN


def draw_arcs(towards: Tensor, radius: Tensor, moved: Tensor) -> Tensor:
    """float32 [N, 40, 40]: half circles through the middle, 1 on the stroke and 0 far from it.

    Args:
        towards: radians [N], the direction from the arc's middle to its centre.
        radius: pixels [N].
        moved: pixels [N, 2], where the arc's middle is, from the image's, along x and y.
    """
    down, right = torch.meshgrid(*[torch.arange(SIZE) - (SIZE - 1) / 2] * 2, indexing="ij")
    inwards = torch.stack([towards.cos(), towards.sin()], 1)
    centre = moved + radius[:, None] * inwards
    x, y = right - centre[:, :1, None], down - centre[:, 1:, None]
    along, across = (-inwards[:, place, None, None] for place in (0, 1))  # from the centre to the arc's middle
    turned = torch.atan2(y * along - x * across, x * along + y * across).abs()
    far = (torch.hypot(x, y) - radius[:, None, None]).abs()
    ends = torch.sigmoid((math.pi / 2 - turned) * radius[:, None, None])
    return torch.exp(-((far / WIDTH) ** 2) / 2) * ends
