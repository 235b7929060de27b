"""The study of induction: its graphs equal the model, its rows are apart, a few rows of its ladder."""

from functools import cache

import pytest
import torch

from pscrub import GraphError, Hypothesis, Study, StudyError, check_rewrites, replace, scrub
from pscrub.studies import load
from pscrub.studies.induction import graphs, rows
from pscrub.studies.induction import study as induction
from pscrub.studies.induction.heads import Heads, find_heads
from pscrub.studies.induction.ladder import Ladder
from pscrub.studies.induction.model import HEADS


@cache
def found() -> Heads:
    return find_heads(induction.choose_model(), rows.random_rows("selection", induction.SELECTED))


@cache
def ladder() -> Ladder:
    """The shipped model's on an eighth of the rows of random tokens."""
    return Ladder(induction.choose_model(), rows.as_dataset(rows.random_rows("scoring", 512)), found(), 0)


@cache
def by_number() -> dict[str, Hypothesis]:
    return {each.name.split()[0]: each for each in ladder().hypotheses()}


def test_heads_are_found_and_some_are_left() -> None:
    assert 1 <= len(found().previous) < HEADS and 1 <= len(found().induction) < HEADS
    for of in ("previous", "induction"):
        own, random = getattr(found(), of), ladder().random_heads(of)
        assert not set(own) & set(random) and len(random) == min(len(own), HEADS - len(own))


@pytest.mark.parametrize("number", ["0c", "3a", "3f", "4d", "5a"])
def test_rewritten_graphs_are_the_model(number: str) -> None:
    graph, data = by_number()[number].graph, ladder().data
    with torch.no_grad():
        own = ladder().model(data["tokens"])[:, -1]
    values = graph.run(["logits"], {name: data[name] for name in graph.inputs})["logits"]
    assert (values - own).abs().max() < 1e-4


def test_reaches_add_up_to_what_heads_add() -> None:
    data = rows.as_dataset(rows.text_rows("scoring", 20))
    whole = graphs.trace_induction(ladder().model, data)
    graph = graphs.with_reaches(whole, ladder().model, [1])
    given = {name: data[name] for name in graph.inputs}
    added = whole.run(["first"], given)["first"]
    parts = graph.run(["own token", "all before", "farther"], given)
    assert (sum(parts.values()) - added).abs().max() < 1e-4
    # What a head reads at its own token is that token's value and nothing else's.
    other = {**given, "tokens": torch.cat([given["tokens"][:, :5] * 0, given["tokens"][:, 5:]], 1)}
    moved = graph.run(["first values"], other)["first values"] - graph.run(["first values"], given)["first values"]
    assert moved[:, :, 5:].abs().max() == 0 and moved[:, :, :5].abs().max() > 0
    assert parts["own token"].abs().amax((0, 2, 3)).min() > 0


def test_a_reach_that_is_left_out_is_noticed() -> None:
    """Planted: a first layer without what it reads farther back, which a check of the rewrite has to refuse."""
    data = rows.as_dataset(rows.text_rows("scoring", 20))
    graph = graphs.trace_induction(ladder().model, data)
    short = replace(
        graph, "first", lambda patterns, values: values.sum() * 0 + patterns[:, :, :, :1], graph.nodes["first"].inputs
    )
    with pytest.raises(GraphError, match="changes f by"):
        check_rewrites(short, data)


def test_every_hypothesis_is_well_formed() -> None:
    for hypothesis in ladder().hypotheses():
        assert hypothesis.faults == (), hypothesis.name
    names = [each.name for each in ladder().hypotheses()]
    assert names == sorted(names) and len({name.split()[0] for name in names}) == len(names)


def test_true_claims_recover_and_false_ones_do_not() -> None:
    numbers = ("0c", "0e", "1a", "1b", "2a", "5a", "5b", "5c", "6a", "6c")
    found = scrub(Study("few", [by_number()[n] for n in numbers], labels=("target",)), draws=512, randomised=11.7)
    kept = {number: each.recovered.value for number, each in zip(numbers, found.results, strict=True) if each.recovered}
    assert min(kept[number] for number in ("0e", "1a", "2a", "5a", "6a")) > 90
    assert max(kept[number] for number in ("0c", "1b", "5b", "5c", "6c")) < 60


def test_rows_of_text_are_scored_with_the_same_heads() -> None:
    notes = [load("induction", {"repeated": repeated, "rows": "64"}).notes for repeated in ("random", "text")]
    assert notes[0] == notes[1] and "1." in notes[0][0]


@pytest.mark.parametrize("which", ["untrained", "shuffled"])
def test_controls_have_learnt_nothing(which: str) -> None:
    data = ladder().data
    with torch.no_grad():
        logits = induction.choose_model(which)(data["tokens"])[:, -1].double()
    assert torch.nn.functional.cross_entropy(logits, data["target"]) > 4.5
    assert (logits.argmax(1) == data["target"]).double().mean() < 0.1


def test_weights_whose_heads_are_all_alike_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(induction, "find_heads", lambda model, tokens: Heads((0,), tuple(range(HEADS))))
    with pytest.raises(StudyError, match="all heads of a layer attend alike"):
        induction.study(rows=16)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "other"}, "model is 'other'"),
        ({"repeated": "both"}, "repeated is 'both'"),
        ({"rows": "0"}, "rows is 0"),
    ],
)
def test_bad_parameters_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        load("induction", given)
