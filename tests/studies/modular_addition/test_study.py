"""The study of modular addition: its graphs equal the model, its halves are apart, a few rows of its ladder."""

from functools import cache

import pytest
import torch

from pscrub import GraphError, Hypothesis, Study, StudyError, check_rewrites, replace, scrub
from pscrub.studies import load
from pscrub.studies.modular_addition import graphs
from pscrub.studies.modular_addition import study as addition
from pscrub.studies.modular_addition.frequencies import embedding_shares, logit_shares
from pscrub.studies.modular_addition.ladder import Found, Ladder
from pscrub.studies.modular_addition.model import ModularAddition, all_pairs
from pscrub.studies.modular_addition.train import score, split_pairs


@cache
def found() -> Found:
    return addition.find(addition.load_subject(), addition.halves()[0])


@cache
def ladder() -> Ladder:
    """The shipped model's on an eighth of the pairs for scoring."""
    return Ladder(addition.load_subject(), addition.pairs(addition.halves()[1][::8]), found(), 0)


@cache
def rows() -> dict[str, Hypothesis]:
    return {each.name.split()[0]: each for each in reversed(ladder().hypotheses())}


def test_pairs_for_selection_scoring_and_training_are_apart() -> None:
    selecting, scoring = addition.halves()
    split = split_pairs()
    used = [set(each.tolist()) for each in (selecting, scoring, split["trained"], split["watched"])]
    assert sum(map(len, used)) == len(set().union(*used)) == 113 * 113
    data = addition.pairs(scoring)
    assert torch.equal(data["a"] * 113 + data["b"], scoring)
    assert torch.equal(data["sum"] + 113 * data["wraps"], data["a"] + data["b"])


def test_three_frequencies_are_found() -> None:
    model, tokens = addition.load_subject(), all_pairs()[addition.halves()[0]]
    assert set(found().keys) == {8, 21, 1} and set(found().doubles) == {16, 42, 2}
    shares = logit_shares(model, tokens)
    assert shares[list(found().keys)].sum() > 0.99 and shares[1:].topk(4).values[3] < 0.002
    assert set((embedding_shares(model).topk(6).indices).tolist()) == {8, 21, 1, 16, 42, 2}
    assert sorted(row for each in found().clusters.values() for row in each) == list(range(512))


@pytest.mark.parametrize("row", ["1b", "2b", "3b", "4a"])
def test_rewritten_graphs_are_the_model(row: str) -> None:
    graph, data = rows()[row].graph, ladder().data
    with torch.no_grad():
        own = ladder().model(data["tokens"])
    found = graph.run(["logits"], {name: data[name] for name in graph.inputs})["logits"]
    assert (found - own).abs().max() < 1e-4


def test_a_part_that_is_left_out_is_noticed() -> None:
    """Planted: numbers without their rest, which a check of the rewrite has to refuse."""
    data = addition.pairs(addition.halves()[1][:50])
    model = ModularAddition(seed=3)
    graph = graphs.with_number_parts(graphs.whole(model, data), model, {"kept": [8]})
    short = replace(graph, "a", lambda kept: kept, ["a.kept"])
    with pytest.raises(GraphError, match="changes f by"):
        check_rewrites(short, data)


def test_every_hypothesis_is_well_formed() -> None:
    for hypothesis in ladder().hypotheses():
        assert hypothesis.faults == (), hypothesis.name


def test_true_claims_recover_and_false_ones_do_not() -> None:
    names = ("1b", "1e", "3b", "3d")
    found = scrub(Study("few", [rows()[name] for name in names], labels=("sum",)), draws=256, randomised=76.0)
    kept = {name: each.recovered.value for name, each in zip(names, found.results, strict=True) if each.recovered}
    assert min(kept["1b"], kept["3b"]) > 98 and kept["1e"] < 20 and kept["3d"] < 40


@pytest.mark.parametrize("which", ["untrained", "shuffled"])
def test_controls_have_learnt_nothing(which: str) -> None:
    found = score(addition.load_subject(which), all_pairs()[::17])
    assert found.loss > 4 and found.accuracy < 0.1


def test_a_frequency_stands_in_one_part() -> None:
    """Where twice one key is another key, it is a key: no frequency is a part twice."""
    found = Found((8, 16, 1), {8: [0], 16: [], 1: list(range(1, 512))})
    assert found.doubles == (32, 2) and found.computed == (8, 1)
    other = Ladder(ladder().model, addition.pairs(addition.halves()[1][:40]), found, 0)
    assert not {8, 16, 1, 32, 2} & set(other.random_frequencies(40))
    assert all(each.check() is not None for each in other.hypotheses()[2:24:7])


@pytest.mark.parametrize(
    ("given", "said"),
    [({"model": "other"}, "model is 'other'"), ({"keys": "0"}, "keys is 0"), ({"rows": "4000"}, "rows is 4000")],
)
def test_bad_parameters_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        load("modular_addition", given)
