"""The shipped weights and the script that made them: batches, fast logits, rates, what files it takes."""

from pathlib import Path

import pytest
import torch

from pscrub.studies.induction import train
from pscrub.studies.induction.model import LONGEST, VOCABULARY, Induction, load_induction
from pscrub.studies.induction.study import SHIPPED
from pscrub.studies.induction.text import SHIPPED_TEXT


def test_the_shipped_model_repeats_what_it_saw() -> None:
    model, rows = load_induction(SHIPPED), train.held_out_rows()
    random, text = (train.mean_losses(model, rows[name]) for name in ("random tokens repeated", "text repeated"))
    assert random["second"] < 0.2 and random["first"] > 5
    assert text["second"] < train.mean_losses(model, rows["text"])["second"] - 0.5
    assert train.mean_losses(Induction(), rows["random tokens repeated"])["second"] > 5


def test_what_is_shipped_is_small() -> None:
    assert SHIPPED.stat().st_size + SHIPPED_TEXT.stat().st_size < 1_000_000


def test_fast_logits_are_the_models() -> None:
    model, tokens = Induction(seed=4), torch.randint(VOCABULARY, (9, 50), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (model(tokens) - train.logits_at_once(model, tokens)).abs().max() < 1e-4


def test_later_tokens_do_not_matter() -> None:
    """And earlier ones do."""
    model, tokens = load_induction(SHIPPED), torch.arange(60)[None]
    changed = tokens.clone()
    changed[0, 30] = 200
    with torch.no_grad():
        first, second = model(tokens), model(changed)
    assert torch.allclose(first[0, :30], second[0, :30], atol=1e-5)
    assert (first[0, 30:] - second[0, 30:]).abs().amax(1).min() > 1e-3


def test_a_batch_is_repeats_and_text() -> None:
    text = torch.arange(5_000) % VOCABULARY
    batch = train.draw_batch(text, torch.Generator().manual_seed(0))
    assert batch.shape == (train.ROWS, LONGEST)
    for row in batch[: train.REPEATING]:
        assert any(torch.equal(row[period:], row[:-period]) for period in range(6, 33))
    of_text = batch[train.REPEATING :]
    assert torch.equal(of_text[:, 1:], (of_text[:, :-1] + 1) % VOCABULARY)


def test_the_rate_rises_and_falls() -> None:
    rates = [train.rate_at(step, 1_000) for step in range(1, 1_001)]
    assert max(rates) == rates[train.WARMUP - 1] and rates[0] < 0.006 * train.RATE
    assert rates[-1] == pytest.approx(train.RATE * train.LAST)


def test_training_is_the_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "held_out_rows", dict)
    text = torch.arange(3_000) % VOCABULARY
    found = [train.train_induction(text, tmp_path / str(place), 2, seed) for place, seed in enumerate((5, 5, 6))]
    first, again, other = (each.embed.W_E for each in found)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"embed.W_E": torch.zeros(3, 4)}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"holds no induction model: missing .*embed\.W_E has shape \[3, 4\]"):
        load_induction(tmp_path / "other")
    (tmp_path / "none").write_text("nothing")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_induction(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_induction(tmp_path / "missing")
