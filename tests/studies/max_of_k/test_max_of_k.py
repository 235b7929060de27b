"""The study of the largest of four: the model, its graph, what its ladder finds by draws and at worst."""

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pscrub import Hypothesis, Study, StudyError, scrub
from pscrub.questions import scrub_pessimally
from pscrub.studies import load
from pscrub.studies.max_of_k import train
from pscrub.studies.max_of_k.ladder import MaxLadder, max_graph, number_data
from pscrub.studies.max_of_k.model import MaxOfK, all_sequences, load_max_model
from pscrub.studies.max_of_k.study import SHIPPED


@cache
def rows() -> dict[str, Hypothesis]:
    return {each.name.split()[0]: each for each in MaxLadder(load_max_model(SHIPPED)).hypotheses()}


def test_the_shipped_model_is_right_on_what_it_was_not_trained_on() -> None:
    model, split = load_max_model(SHIPPED), train.split_sequences()
    assert sorted(row for each in split.values() for row in each.tolist()) == list(range(1296))
    assert 0 in split["trained"]
    text = "".join(train.tell_max_scores(model))
    assert text.count("1.0000") == 2 and SHIPPED.stat().st_size < 100_000
    numbers = all_sequences()[split["held out"]]
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(numbers), numbers.amax(1))
        untrained = torch.nn.functional.cross_entropy(MaxOfK(1)(numbers), numbers.amax(1))
    assert loss < 1e-3 and untrained > 1


@pytest.mark.parametrize("model", [load_max_model(SHIPPED), MaxOfK(3)], ids=["shipped", "random"])
def test_the_graph_is_the_model(model: MaxOfK) -> None:
    data = number_data()
    with torch.no_grad():
        found = max_graph(model).run(["logits"], {"numbers": data["numbers"]})["logits"]
        assert (found - model(data["numbers"])).abs().max() < 1e-4


def test_a_graph_of_another_model_is_noticed() -> None:
    """Planted: the graph of one model beside another that differs in one weight."""
    model, other, data = MaxOfK(3), MaxOfK(3), number_data()
    with torch.no_grad():
        other.W_K[0, 0] += 0.5
        found = max_graph(model).run(["logits"], {"numbers": data["numbers"]})["logits"]
        assert (found - other(data["numbers"])).abs().max() > 1e-4


def test_labels_are_the_largest() -> None:
    data = number_data()
    assert data.n == 6**4 == len({tuple(row) for row in data["numbers"].tolist()})
    assert all(max(row) == largest for row, largest in zip(data["numbers"].tolist(), data["largest"], strict=True))


def test_every_hypothesis_is_well_formed() -> None:
    assert {name: each.faults for name, each in rows().items() if each.faults} == {}


def test_true_claims_recover_and_false_ones_do_not() -> None:
    true, false = ("1a", "1b", "1e", "1f", "1h", "1j", "2a", "2b", "2c"), ("1g", "1i", "3a", "3b", "3c")
    study = Study("all", [rows()[name] for name in (*true, *false)], labels=("largest",))
    found = scrub(study, draws=1024)
    kept = {name: each.recovered.value for name, each in zip((*true, *false), found.results, strict=True)}
    assert min(kept[name] for name in true) > 99.9 and max(kept[name] for name in false) < 60


def test_the_worst_tells_claims_apart_too() -> None:
    """Even the most harmful donor with the same largest does no harm; of coarse keys drawn and worst are far apart."""
    study = Study("some", [rows()[name] for name in ("0a", "1b", "1d", "1e", "1j", "2a", "3b")], labels=("largest",))
    found = scrub_pessimally(study)
    ends = {row.name.split()[0]: row.ends for row in found.rows}
    worst = {name: found.recovered(each.greatest) for name, each in ends.items()}
    assert min(worst[name].value for name in ("0a", "1b", "1e", "1j", "2a")) > 99.9
    assert worst["1d"].value < 20 and found.recovered(ends["1d"].scrubbed).value > 60
    assert worst["3b"].value < 0


def test_the_worst_of_the_head_by_hand() -> None:
    """1j swaps the head of any sequence with the same largest: all of them are tried, one after another."""
    hypothesis = rows()["1j"]
    data, graph = hypothesis.data, hypothesis.graph
    own = graph.run(["head", "direct"], {"numbers": data["numbers"]})
    total = 0.0
    for row in range(data.n):
        donors = (data["largest"] == data["largest"][row]).nonzero().flatten()
        given = {
            "head": own["head"][donors],
            "direct": own["direct"][[row]].expand(len(donors), -1),
            "largest": data["largest"][[row]].expand(len(donors)),
        }
        total += float(graph.run(["loss"], given)["loss"].max())
    (found,) = scrub_pessimally(Study("one", [hypothesis], labels=("largest",))).rows
    assert found.ends is not None and found.ends.greatest == pytest.approx(total / data.n, rel=1e-5)


@pytest.mark.parametrize("which", ["untrained", "shuffled"])
def test_controls_have_learnt_nothing(which: str) -> None:
    study = load("max_of_k", {"model": which})
    by_name = {each.name.split()[0]: each for each in study.hypotheses}
    chosen = Study("control", [by_name["0a"]], labels=("largest",))
    assert scrub(chosen, draws=64).results[0].model.value > 1


def test_training_is_the_same_again(capsys: pytest.CaptureFixture[str]) -> None:
    once, twice = train.train_max(3, 5), train.train_max(3, 5)
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))
    assert not torch.equal(once.W_E, MaxOfK(5).W_E)
    assert capsys.readouterr().err == ""


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_max_model(tmp_path / "none")
    (tmp_path / "text").write_text("nothing")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_max_model(tmp_path / "text")
    save_file({"W_E": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"holds no model of the largest of four: missing .*W_E has shape \[2\], expected"
    ):
        load_max_model(tmp_path / "other")


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(StudyError, match=r"model is 'traind'; did you mean.*expected one of trained"):
        load("max_of_k", {"model": "traind"})
    with pytest.raises(StudyError, match="no weights at"):
        load("max_of_k", {"weights": "none.safetensors"})
