"""The study on a small Llama with random weights in SmolLM2's place: its rows are what plain hooks say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pscrub import Dataset, Hypothesis, Study, StudyError, scrub, unroll
from pscrub.evaluate.engine import Engine
from pscrub.graph.labels import compared_outputs
from pscrub.law.drawing import draw
from pscrub.studies import load, smollm2
from pscrub.studies.ioi import heads, ladder
from pscrub.studies.ioi import study as ioi
from pscrub.studies.ioi.prompts import make_prompts
from tests.studies.ioi.small_llama import HEADS, WIDTH, random_llama

LAYERS = 5
KINDS = {"movers": ((4, 1), (4, 2)), "negative": ((4, 0),), "suppressors": ((3, 3),), "inhibition": ((3, 0),)}
BELOW = {"duplicates": ((0, 1), (1, 2)), "induction": ((2, 1),), "previous": ((0, 3),)}


@pytest.fixture(scope="module")
def model() -> Any:
    return random_llama(LAYERS)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return make_prompts("scoring", 128)


@pytest.fixture(scope="module")
def rows(model: Any, data: Dataset) -> dict[str, Hypothesis]:
    """The ladder with heads of every kind planted, and 12 of the 20 heads for those that matter most."""
    every = [(layer, number) for layer in range(LAYERS) for number in range(HEADS)]
    ranked = tuple(sorted(every, reverse=True))
    found = heads.Found(ranked, ranked, ranked, **KINDS, **BELOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "KEPT", (3, 5, 12))
        patch.setattr(ladder, "CHOSEN", 5)
        made = ladder.Ladder(
            ioi.open_decoder(model, data), found, (ioi.ANSWERS, ioi.BEHAVIOURS["loss"]), 0
        ).hypotheses()
    return {
        each.name.split()[0] + (f" {each.name.split()[1]}" if each.name.startswith("1b") else ""): each for each in made
    }


def losses(model: Any, data: Dataset, rows: Tensor, heads_of: dict[heads.Head, Tensor]) -> Tensor:
    """The loss on rows where heads at the end write what they do on other rows, by plain hooks."""
    seen: list[Tensor] = []
    blocks = model.model.layers
    handles = [
        each.self_attn.o_proj.register_forward_pre_hook(lambda m, given: seen.append(given[0])) for each in blocks
    ]
    with torch.no_grad():
        model(input_ids=data["input_ids"])
    for each in handles:
        each.remove()

    def give(layer: int) -> Any:
        def swap(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            z = given[0].clone()
            for (at, number), donors in heads_of.items():
                if at == layer:
                    own = slice(number * WIDTH, (number + 1) * WIDTH)
                    z[:, -1, own] = seen[layer][donors, -1, own]
            return (z,)

        return swap

    handles = [each.self_attn.o_proj.register_forward_pre_hook(give(layer)) for layer, each in enumerate(blocks)]
    with torch.no_grad():
        logits = model(input_ids=data["input_ids"][rows]).logits[:, -1]
    for each in handles:
        each.remove()
    return -logits.log_softmax(-1)[torch.arange(len(rows)), data["io"][rows]]


@pytest.mark.parametrize("row", ["1a", "1b 5", "1c", "1d", "2a", "2b", "3b", "3e"])
def test_swapped_heads_are_what_hooks_say(row: str, rows: dict[str, Hypothesis], model: Any, data: Dataset) -> None:
    hypothesis = rows[row]
    tree = unroll(hypothesis)
    drawn = draw(tree, 24, (3,))
    root = tree.root
    swapped = {
        tuple(map(int, path.split("/")[-1].split("@")[0].split("."))): donors
        for path, donors in drawn.items()
        if path.endswith("@END")
    }
    assert swapped and any((donors != drawn[root]).any() for donors in swapped.values())
    own = losses(model, data, drawn[root], swapped)
    torch.testing.assert_close(Engine(data).f(tree, drawn), own.double(), rtol=1e-4, atol=1e-4)


def test_laws_swap_what_they_say(rows: dict[str, Hypothesis], data: Dataset) -> None:
    kept = {"2b": ("frame", "order"), "2c": ("s",), "2d": ("pair", "order"), "2e": ("pair", "s"), "3b": ("io",)}
    for row, columns in kept.items():
        tree = unroll(rows[row])
        drawn = draw(tree, 200, (1,))
        root = drawn[tree.root]
        donors = [each for path, each in drawn.items() if path.endswith("@END")]
        assert donors
        for each in donors:
            assert all(torch.equal(data[name][each], data[name][root]) for name in columns), row
            assert (each != root).float().mean() > 0.3, row


def test_every_row_is_well_formed_and_on_one_graph(rows: dict[str, Hypothesis]) -> None:
    for name, hypothesis in rows.items():
        assert hypothesis.faults == (), name
    assert len({id(each.graph) for each in rows.values()}) == 1  # D is passed once for each graph
    families = {name[0] for name in rows}
    assert families == set("01234") and {"4a", "4e", "4f", "4g", "4h", "4i"} <= {*rows}


def test_the_graph_is_the_model(rows: dict[str, Hypothesis], model: Any, data: Dataset) -> None:
    graph = rows["0a"].graph
    found = graph.run(["logits"], {"input_ids": data["input_ids"][:9], "S2": data["S2"][:9]})["logits"]
    with torch.no_grad():
        assert (found - model(input_ids=data["input_ids"][:9]).logits).abs().max() < 1e-4


def test_edges_move_less_than_heads(rows: dict[str, Hypothesis], data: Dataset) -> None:
    """What all paths from a head carry, no path does where it is exact: rows differ, and exactness is the model."""
    found = scrub(Study("few", [rows[name] for name in ("0a", "4a", "4e", "4g")], labels=("io",)), draws=64)
    own, *others = (each.scrubbed.value for each in found.results)
    assert own == pytest.approx(found.results[0].model.value)
    assert len({round(each, 4) for each in (own, *others)}) == 4


def test_output_distances_are_of_the_end(rows: dict[str, Hypothesis]) -> None:
    study = Study("few", [rows["1a"]], labels=("io",), by=("order",))
    (found,) = scrub(study, draws=32).results
    (kl,) = [values for name, values in found.draws.distances.items() if name == "KL"]
    assert compared_outputs(rows["1a"].graph, ("io",)) == ("answers",) and float(kl.mean()) > 0.01


def test_no_rows_about_kinds_that_are_not_there(model: Any, data: Dataset) -> None:
    """As in the control: no head of a random model attends as the kinds do."""
    measured = heads.measure_heads(model, make_prompts("selection", 128))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "KEPT", (3, 5, 12))
        patch.setattr(ladder, "CHOSEN", 5)
        study = ioi.build(model, data, measured, "difference")
    assert study.labels == ("io", "s") and "S-inhibition none" in study.notes[0]
    assert {each.name[0] for each in study.hypotheses} == set("01")


def test_what_cannot_be_asked_is_told_at_once() -> None:
    with pytest.raises(StudyError, match=r"behaviour is 'diference'.*difference") as raised:
        load("ioi", {"behaviour": "diference", "model": "untrained", "only": "movers"})
    assert "only is 'movers'; rows begin with 0 to 4" in str(raised.value)
    assert "expected one of trained, shuffled" in str(raised.value)
    with pytest.raises(StudyError, match="a multiple of 64"):
        load("ioi", {"prompts": "100"})


@pytest.mark.skipif(smollm2.is_smollm2_there(), reason="SmolLM2-135M is installed")
def test_without_the_extra_one_line_says_what_to_install() -> None:
    with pytest.raises(StudyError) as raised:
        load("ioi")
    (fault,) = raised.value.faults
    assert fault.startswith("study 'ioi'") and smollm2.INSTALL in fault


@pytest.mark.skipif(not smollm2.is_smollm2_there(), reason=f"SmolLM2-135M is not installed: {smollm2.INSTALL}")
def test_smollm2s_heads_are_found_and_a_few_suffice() -> None:
    study = load("ioi", {"prompts": "128", "only": "1a, 1b 20,1c"})
    assert "movers 23.0" in study.notes[0] and "S-inhibition 20.0, 19.2" in study.notes[0]
    none, some, random = scrub(study, draws=64).results
    assert some.recovered is not None and some.recovered.value > 85
    assert none.recovered is not None and none.recovered.value < 25
    assert random.recovered is not None and random.recovered.value < 25
