"""The study of modular addition: its graphs equal the model, its halves are apart, a few rows of its ladder."""

from functools import cache

import pytest
import torch

from pscrub import GraphError, Hypothesis, Study, StudyError, check_rewrites, replace, scrub
from pscrub.evaluate.on_data import OnData
from pscrub.studies import load
from pscrub.studies.modular_addition import graphs
from pscrub.studies.modular_addition import study as addition
from pscrub.studies.modular_addition.ladder import Found, Ladder
from pscrub.studies.modular_addition.model import ModularAddition, load_model
from pscrub.studies.modular_addition.train import split_pairs


@cache
def shipped() -> Study:
    return load("modular_addition")


@cache
def rows() -> dict[str, Hypothesis]:
    return {each.name.split()[0]: each for each in reversed(shipped().hypotheses)}


def test_pairs_for_selection_scoring_and_training_are_apart() -> None:
    selecting, scoring = addition.halves()
    split = split_pairs()
    used = [set(each.tolist()) for each in (selecting, scoring, split["trained"], split["watched"])]
    assert sum(map(len, used)) == len(set().union(*used)) == 113 * 113
    assert rows()["0a"].data.n == len(scoring)
    assert torch.equal(rows()["0a"].data["a"] * 113 + rows()["0a"].data["b"], scoring)


def test_three_frequencies_are_found() -> None:
    assert "8, 21, 1;" in shipped().notes[0]


@pytest.mark.parametrize("row", ["1b", "2b", "3b", "4a"])
def test_rewritten_graphs_are_the_model(row: str) -> None:
    graph, data = rows()[row].graph, addition.pairs(addition.halves()[1][::9])
    with torch.no_grad():
        own = load_model(addition.SHIPPED)(data["tokens"])
    found = graph.run(["logits"], {name: data[name] for name in graph.inputs})["logits"]
    assert (found - own).abs().max() < 1e-4


def test_a_part_that_is_left_out_is_noticed() -> None:
    """Planted: numbers without their rest, which a check of the rewrite has to refuse."""
    data = addition.pairs(addition.halves()[1][:50])
    model = ModularAddition(seed=3)
    graph = graphs.with_number_parts(graphs.whole(model, data), model, {"kept": [8]})
    short = replace(graph, "a", lambda kept: kept, ["a.kept"])
    with pytest.raises(GraphError, match="changed f"):
        check_rewrites(short, data)


def test_every_hypothesis_is_well_formed() -> None:
    for hypothesis in shipped().hypotheses:
        assert hypothesis.faults == (), hypothesis.name


def test_true_claims_recover_and_false_ones_do_not() -> None:
    names = ("1b", "1e", "3b", "3d", "4a", "4e")
    found = scrub(Study("few", [rows()[name] for name in names], labels=("sum",)), draws=256, randomised=76.0)
    score = {name: each.recovered.value for name, each in zip(names, found.results, strict=True) if each.recovered}
    assert min(score["1b"], score["3b"], score["4a"]) > 98
    assert score["1e"] < 20 and score["3d"] < 40 and score["4e"] < 30


def test_controls_have_learnt_nothing() -> None:
    for name in ("untrained", "shuffled"):
        hypothesis = load("modular_addition", {"model": name}).hypotheses[0]
        assert OnData(hypothesis.graph, hypothesis.data).on_data("loss").mean() > 4


def test_a_frequency_stands_in_one_part() -> None:
    """Where twice one key is another key, it is a key: no frequency is a part twice."""
    found = Found((8, 16, 1), {8: [0], 16: [1], 1: list(range(2, 512))})
    assert found.doubles == (32, 2)
    ladder = Ladder(load_model(addition.SHIPPED), addition.pairs(addition.halves()[1][:40]), found, 0)
    assert not {8, 16, 1, 32, 2} & set(ladder.random_frequencies(40))
    assert all(each.check() is not None for each in ladder.hypotheses()[2:24:7])


@pytest.mark.parametrize(("given", "said"), [({"model": "other"}, "model is 'other'"), ({"keys": "0"}, "keys is 0")])
def test_bad_parameters_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        load("modular_addition", given)
