"""The shipped weights and the script that made them: fast logits, parts of the pairs, going on where it was cut off."""

from pathlib import Path
from typing import IO

import pytest
import torch

from pscrub.studies.modular_addition import train
from pscrub.studies.modular_addition.model import ModularAddition, all_pairs, load_model, sums
from pscrub.studies.modular_addition.study import SHIPPED


def test_the_shipped_model_adds_held_out_pairs() -> None:
    held_out = all_pairs()[train.split_pairs()["held out"]]
    found = train.score(load_model(SHIPPED), held_out)
    assert found.pairs == 7939 and found.loss < 1e-4 and found.accuracy == 1
    assert train.score(ModularAddition(), held_out[:500]).accuracy < 0.1


def test_weights_are_small() -> None:
    assert SHIPPED.stat().st_size < 1_000_000


def test_pairs_are_split_into_disjoint_parts() -> None:
    rows = train.split_pairs().values()
    assert sorted(row for each in rows for row in each.tolist()) == list(range(113 * 113))


def test_logits_by_tables_are_the_models() -> None:
    model, tokens = ModularAddition(seed=4), all_pairs()[::101]
    with torch.no_grad():
        assert (model(tokens) - train.fast_logits(model, tokens)).abs().max() < 1e-5


def test_the_rate_rises_stays_and_falls() -> None:
    assert train.rate_of_step(0, None, 100) == pytest.approx(1e-4)
    assert train.rate_of_step(5_000, None, 100) == train.rate_of_step(5_000, 5_000, 100) == train.RATE
    assert train.rate_of_step(5_100, 5_000, 100) == pytest.approx(train.RATE / 1000)


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted behind its first checkpoint and begun again, training ends with the weights of one go."""
    monkeypatch.setattr(train, "WATCH_EVERY", 2)
    monkeypatch.setattr(train, "split_pairs", lambda: {"trained": torch.arange(60), "watched": torch.arange(60, 90)})
    once = train.train_addition(tmp_path / "once", 6, 2, seed=0)

    save, saved = torch.save, []

    def save_and_stop(content: object, file: IO[bytes]) -> None:
        """The second of three checkpoints is not finished."""
        saved.append(file)
        save(content, file)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train.train_addition(tmp_path / "twice", 6, 2, seed=0)
    assert not (tmp_path / "twice").exists()
    twice = train.train_addition(tmp_path / "twice", 6, 2, seed=0)
    assert len(saved) > 2 and not list(tmp_path.glob("*.checkpoint"))
    for name, value in once.state_dict().items():
        assert torch.equal(value, twice.state_dict()[name]), name


def test_a_checkpoint_of_another_seed_is_refused(tmp_path: Path) -> None:
    torch.save({"seed": 7}, tmp_path / "out.checkpoint")
    with pytest.raises(ValueError, match="is of seed 7, not 0; remove it"):
        train.train_addition(tmp_path / "out", 4, 2, seed=0)


def test_the_right_answers_are_sums() -> None:
    assert sums(torch.tensor([[112, 3, 113], [0, 0, 113]])).tolist() == [2, 0]
