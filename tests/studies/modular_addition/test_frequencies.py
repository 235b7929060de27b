"""Frequencies measured: on functions whose frequency is known, and on the shipped model."""

import math

import pytest
import torch

from pscrub.studies.modular_addition import frequencies
from pscrub.studies.modular_addition.model import D_MLP, ModularAddition, P, all_pairs


def model_with(embedding: torch.Tensor) -> ModularAddition:
    model = ModularAddition(seed=1)
    with torch.no_grad():
        model.embed.W_E[:P] = embedding
    return model


def cosine(k: int) -> torch.Tensor:
    return (2 * math.pi * k * torch.arange(P).double() / P).cos()


@pytest.mark.parametrize("k", [1, 16, 56])
def test_a_cosine_has_its_frequency_and_no_other(k: int) -> None:
    embedding = torch.zeros(P, 128)
    embedding[:, 3], embedding[:, 5] = cosine(k), 7.0
    shares = frequencies.embedding_shares(model_with(embedding))
    assert shares.argmax() == k and shares[k] == pytest.approx(1, abs=1e-9)


def test_shares_add_up_to_one() -> None:
    model, tokens = ModularAddition(seed=2), all_pairs()[::37]
    for shares in (frequencies.embedding_shares(model), frequencies.logit_shares(model, tokens)):
        assert shares.sum() == pytest.approx(1, abs=1e-9) and (shares >= -1e-12).all()


def test_projections_are_orthogonal_and_complete() -> None:
    some, others = frequencies.projection([3, 8]), frequencies.projection([5])
    assert torch.allclose(some @ some, some) and (some @ others).abs().max() < 1e-12
    assert torch.allclose(some @ cosine(8).double(), cosine(8).double(), atol=1e-6)


def test_a_neuron_of_one_frequency_is_told() -> None:
    """Where numbers are embedded at frequency 9 alone, neurons that vary are of frequency 9, or twice that."""
    embedding = torch.zeros(P, 128)
    embedding[:, 0], embedding[:, 1] = cosine(9), cosine(9).roll(25)
    model, tokens = model_with(embedding), all_pairs()[::11]
    shares = frequencies.neuron_shares(model, tokens, (4, 9, 18))
    varies = shares.sum(0) > 0
    assert shares.shape == (3, D_MLP) and (shares <= 1 + 1e-9).all() and varies.float().mean() > 0.3
    assert (shares[1, varies] > 0.5).float().mean() > 0.9 and (shares[0, varies] < 0.1).all()
    grouped = frequencies.group_neurons(model, tokens, (4, 9))
    assert set(torch.nonzero(varies).flatten().tolist()) <= set(grouped[9])
