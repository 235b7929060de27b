"""Images: what columns say is what is drawn, halves apart, orientations turned into one another."""

from __future__ import annotations

import math

import pytest
import torch

from pscrub import StudyError
from pscrub.studies.curves.images import (
    HALVES,
    ORIENTATIONS,
    RADII,
    SIZE,
    angles,
    draw_arcs,
    is_within,
    make_images,
)


def test_every_orientation_and_radius_is_there_as_often() -> None:
    data = make_images("scoring", 2)
    assert data.n == 2 * ORIENTATIONS * len(RADII) and data["image"].shape == (data.n, 3, SIZE, SIZE)
    pairs = torch.stack([data["orientation"], data["radius"]], 1)
    kinds, counts = pairs.unique(dim=0, return_counts=True)
    assert len(kinds) == ORIENTATIONS * len(RADII) and (counts == 2).all()
    assert torch.equal(data["tangent"], data["orientation"] % 12) and 0 < data["light"].float().mean() < 1


def test_halves_share_no_image_and_a_seed_gives_the_same() -> None:
    first, second = (make_images(half, 1)["image"] for half in HALVES)
    assert (torch.cdist(first.flatten(1), second.flatten(1)) > 100).all()
    assert torch.equal(make_images("selection", 1)["image"], first)
    for half in HALVES:
        assert (torch.cdist(make_images(half, 1, seed=1)["image"].flatten(1), first.flatten(1)) > 100).all()


@pytest.mark.parametrize("radius", RADII)
def test_a_quarter_turn_of_the_orientation_turns_the_image(radius: float) -> None:
    still = torch.zeros(1, 2)
    for start in range(0, ORIENTATIONS, 5):
        one, other = (
            draw_arcs(angles(torch.tensor([at])), torch.tensor([radius]), still)[0] for at in (start, start + 6)
        )
        torch.testing.assert_close(torch.rot90(one, -1), other, atol=1e-4, rtol=0)


def test_the_arc_passes_the_middle_and_bends_to_its_centre() -> None:
    for at in range(ORIENTATIONS):
        angle = 2 * math.pi * at / ORIENTATIONS
        arc = draw_arcs(torch.tensor([angle]), torch.tensor([8.0]), torch.zeros(1, 2))[0]
        assert arc[18:22, 18:22].max() > 0.9
        down, right = torch.meshgrid(torch.arange(SIZE) - 19.5, torch.arange(SIZE) - 19.5, indexing="ij")
        leans = (arc * (right * math.cos(angle) + down * math.sin(angle))).sum() / arc.sum()
        assert 2 < leans < 4  # of half a circle of radius 8, the mean lies 8 - 16 / pi from the middle


def test_light_strokes_are_lighter() -> None:
    data = make_images("selection", 1)
    arcs = draw_arcs(angles(data["orientation"]), torch.tensor(RADII)[data["radius"]], torch.zeros(data.n, 2))
    stroke = (data["image"].mean(1) * (arcs > 0.9)).sum((1, 2))
    assert ((stroke > 0) == data["light"].bool()).float().mean() > 0.95


def test_within_counts_both_ways_round() -> None:
    assert is_within(torch.arange(24), 23).nonzero().flatten().tolist() == [0, 1, 21, 22, 23]
    assert all(int(is_within(torch.arange(24), at).sum()) == 5 for at in range(24))


@pytest.mark.parametrize(
    ("half", "repeats", "said"),
    [("test", 1, "half is 'test'; expected selection or scoring"), ("scoring", 0, "expected 1 to 100")],
)
def test_images_that_cannot_be_made(half: str, repeats: int, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        make_images(half, repeats)
