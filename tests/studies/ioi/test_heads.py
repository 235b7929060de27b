"""Heads measured on a small Llama with random weights, against plain hooks; kinds of heads against planted ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pscrub import Dataset
from pscrub.studies.ioi import heads
from pscrub.studies.ioi.prompts import make_prompts
from tests.studies.ioi.small_llama import HEADS, random_llama

LAYERS = 4


@pytest.fixture(scope="module")
def model() -> Any:
    return random_llama(LAYERS)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return make_prompts("selection", 128)


@pytest.fixture(scope="module")
def measured(model: Any, data: Dataset) -> heads.Measured:
    return heads.measure_heads(model, data)


def logits_with(model: Any, data: Dataset, change: Tensor, head: heads.Head) -> Tensor:
    """The last token's logits where a head's output there is multiplied, by a plain hook in a whole forward."""

    def scale(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        z = given[0].clone()
        width = z.shape[-1] // HEADS
        z[:, -1, head[1] * width : (head[1] + 1) * width] *= change
        return (z,)

    handle = model.model.layers[head[0]].self_attn.o_proj.register_forward_pre_hook(scale)
    with torch.no_grad():
        found: Tensor = model(input_ids=data["input_ids"]).logits[:, -1]
    handle.remove()
    return found


def test_loss_and_difference_are_the_models(model: Any, data: Dataset, measured: heads.Measured) -> None:
    logits = logits_with(model, data, torch.tensor(1.0), (0, 0)).double()
    rows = torch.arange(data.n)
    difference = logits[rows, data["io"]] - logits[rows, data["s"]]
    losses = -logits.log_softmax(-1)
    assert measured.difference == pytest.approx(float(difference.mean()), abs=1e-4)
    assert measured.loss == pytest.approx(float(losses[rows, data["io"]].mean()), abs=1e-4)
    each = torch.stack([losses[:, answer].mean() for answer in data["io"].tolist()])
    assert measured.guess == pytest.approx(float(each.mean()), abs=1e-4)


def test_a_last_layers_head_adds_what_its_loss_takes(model: Any, data: Dataset, measured: heads.Measured) -> None:
    """With the last norm as it was, and no MLP after it, the direct effect is the slope of the difference in it."""
    from unittest import mock

    norm, seen = model.model.norm, []
    handle = norm.register_forward_hook(lambda module, given, made: seen.append(given[0]))
    with torch.no_grad():
        model(input_ids=data["input_ids"])
    handle.remove()
    scale = torch.rsqrt(seen[0].square().mean(-1, keepdim=True) + norm.variance_epsilon)
    rows = torch.arange(data.n)
    with (
        mock.patch.object(model.model.layers[-1].mlp, "forward", lambda x: torch.zeros_like(x)),
        mock.patch.object(norm, "forward", lambda x: norm.weight * x * scale),
    ):
        for number in range(HEADS):
            on, off = (logits_with(model, data, torch.tensor(each), (LAYERS - 1, number)) for each in (1.0, 0.0))
            moved = (on - off)[rows, data["io"]] - (on - off)[rows, data["s"]]
            assert float(moved.mean()) == pytest.approx(float(measured.direct[LAYERS - 1, number]), abs=1e-4)


def test_attention_is_of_the_places(model: Any, data: Dataset, measured: heads.Measured) -> None:
    kind = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = model(input_ids=data["input_ids"], output_attentions=True).attentions
    model.set_attn_implementation(kind)
    end_to_io = [float(patterns[2][row, 1, -1, data["IO"][row]]) for row in range(data.n)]
    back = [float(patterns[1][row, 3, data["S1"][row] + 1, data["S1"][row]]) for row in range(data.n)]
    assert float(measured.attention["END to IO"][2, 1]) == pytest.approx(sum(end_to_io) / data.n, abs=1e-6)
    assert float(measured.attention["S1+1 to S1"][1, 3]) == pytest.approx(sum(back) / data.n, abs=1e-6)


def test_the_model_is_left_as_it_was(model: Any, data: Dataset) -> None:
    before = logits_with(model, data, torch.tensor(1.0), (0, 0))
    kind = model.config._attn_implementation
    heads.measure_heads(model, data)
    assert torch.equal(logits_with(model, data, torch.tensor(1.0), (0, 0)), before)
    assert model.config._attn_implementation == kind
    assert not any(block.self_attn.o_proj._forward_pre_hooks for block in model.model.layers)


def test_a_head_that_is_a_sum_of_its_own_matters_not(model: Any, data: Dataset) -> None:
    """Planted: a head whose output is dropped by the output projection matters to nothing."""
    import copy

    other = copy.deepcopy(model)
    width = other.config.hidden_size // HEADS
    with torch.no_grad():
        other.model.layers[1].self_attn.o_proj.weight[:, 2 * width : 3 * width] = 0
    found = heads.measure_heads(other, data)
    assert found.matters[1, 2] == 0 and found.matters_to_difference[1, 2] == 0 and found.direct[1, 2] == 0
    assert (found.matters != 0).sum() == LAYERS * HEADS - 1


def planted(**at: dict[heads.Head, float]) -> heads.Measured:
    """What is measured of six layers of two heads, all 0 but what is planted."""
    names = {name: torch.zeros(6, 2, dtype=torch.float64) for name in (*heads.PLACES, "direct", "matters")}
    for name, values in at.items():
        for head, value in values.items():
            names[name.replace("_", " ").replace(" next", "+1")][head] = value
    direct, matters = names.pop("direct"), names.pop("matters")
    return heads.Measured(names, direct, matters, matters.clone(), loss=1.0, guess=9.0, difference=4.0)


PLANTED = planted(
    END_to_IO={(5, 0): 0.6, (5, 1): 0.7, (4, 1): 0.8},
    END_to_S2={(3, 0): 0.5, (4, 0): 0.6, (2, 1): 0.9},
    S2_to_S1={(1, 0): 0.8, (4, 0): 0.9},
    S2_to_S1_next={(2, 0): 0.5},
    S1_next_to_S1={(0, 1): 0.7, (2, 1): 0.7},
    direct={(5, 0): 1.0, (5, 1): -1.0, (4, 0): 2.0},
    matters={(5, 0): 0.9, (5, 1): -0.8, (3, 0): 0.5, (4, 0): 0.2},
)


def test_planted_heads_are_told() -> None:
    found = heads.find_ioi_heads(PLANTED)
    assert found.movers == ((5, 0),) and found.negative == ((5, 1),)
    assert found.suppressors == ((4, 0),) and found.inhibition == ((3, 0),)  # (2, 1) attends, and does not matter
    assert found.duplicates == ((1, 0),)  # (4, 0) attends so too, above the head that would read it
    assert found.induction == ((2, 0),) and found.previous == ((0, 1),)
    assert found.ranked[:4] == ((5, 0), (5, 1), (3, 0), (4, 0)) and found.helpful[-1] == (5, 1)
    assert len(set(found.ranked)) == 12


def test_where_nothing_attends_no_kind_is_found() -> None:
    none = replace(PLANTED, attention={name: torch.zeros(6, 2) for name in heads.PLACES})
    found = heads.find_ioi_heads(none)
    assert not any((found.movers, found.negative, found.suppressors, found.inhibition, found.duplicates))
    assert heads.name_heads(found.movers) == "none"
