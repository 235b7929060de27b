"""Weights of the models that ship: read from a file into a model, or mixed so that a model knows nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def fill_model(model: Model, path: str | Path, title: str) -> Model:
    """The model in eval mode, with the weights of a safetensors file, float32 or narrower.

    Args:
        model: whose parameters are replaced.
        path: of the file.
        title: what the file is expected to hold, for the error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file, or parameters are missing, unexpected or of another shape: all listed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; expected a safetensors file")
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    expected = model.state_dict()
    faults = [f"missing {name}" for name in expected if name not in found]
    faults += [f"unexpected {name}" for name in found if name not in expected]
    faults += [
        f"{name} has shape {list(found[name].shape)}, expected {list(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    if faults:
        raise ValueError(f"{path} holds no {title}: " + "; ".join(faults))
    model.load_state_dict(found, strict=True)
    return model.eval()


def permute_weights(model: nn.Module, seed: int) -> None:
    """Nothing; the entries of each of the model's parameters are permuted: a control that has learnt nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            mixed = parameter.flatten()[torch.randperm(parameter.numel(), generator=generator)]
            parameter.copy_(mixed.view_as(parameter))
