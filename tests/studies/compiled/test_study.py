"""The study of compiled programs: circuits recovered, each true edge missed, each other one forgiven; pairs counted."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from pscrub import Hypothesis, Study, StudyError, scrub, unroll
from pscrub.law import scrubbed_expectation
from pscrub.studies import load
from pscrub.studies.compiled.circuits import Edge, claim_all_but
from pscrub.studies.compiled.ladder import ALL_BUT, WITHOUT, Ladder
from pscrub.studies.compiled.measured import count_edge, tell_edges
from pscrub.studies.compiled.model import PROGRAMS, Program, load_program
from pscrub.studies.compiled.study import turn_weights

JOINT = 0.9999
"""The level at which all true edges of a program are noticed together."""
each_program = pytest.mark.parametrize("name", PROGRAMS)


def thin(program: Program, step: int) -> Program:
    """The program with every so many of its sequences as D."""
    values = {variable: own[::step] for variable, own in program.values.items()}
    return replace(program, sequences=program.sequences[::step], outputs=program.outputs[::step], values=values)


@cache
def few(name: str) -> Ladder:
    return Ladder(thin(load_program(name), 5))


@each_program
def test_the_program_is_recovered_and_controls_are_not(name: str) -> None:
    study = load("compiled", {"program": name})
    rows = {each.name[:2]: each for each in study.hypotheses if each.name[:2] in ("1a", "1b", "4a", "4b", "4c")}
    found = scrub(Study(name, [*rows.values()], labels=study.labels), draws=512)
    scores = {row: each.recovered.value for row, each in zip(rows, found.results, strict=True) if each.recovered}
    assert scores["1a"] == scores["1b"] == 100
    assert max(scores["4a"], scores["4b"]) < 30 and scores["4c"] < 80
    assert found.results[0].model.value == 0 and found.results[0].randomised.exact


@each_program
def test_each_true_edge_is_noticed_jointly(name: str) -> None:
    study = load("compiled", {"program": name})
    rows = [each for each in study.hypotheses if each.name.startswith(WITHOUT)]
    level = 1 - (1 - JOINT) / len(rows)  # Bonferroni: all intervals hold together at JOINT
    found = scrub(Study(name, rows, labels=study.labels), draws=2048, level=level)
    assert len(rows) == len(few(name).true)
    for each in found.results:
        assert each.scrubbed.low > 0.005 and each.recovered is not None and each.recovered.high < 98, each.hypothesis


@each_program
def test_each_other_edge_is_forgiven(name: str) -> None:
    """Over every pair of a fifth of the sequences: no answer is another one, and no output moves at all."""
    for edge in few(name).others:
        counted = count_edge(few(name), edge)
        assert (counted.noticed, counted.loss, counted.moved) == (0, 0.0, 0.0), edge


@each_program
def test_each_true_edge_is_noticed_in_some_pair(name: str) -> None:
    for edge in few(name).true:
        counted = count_edge(few(name), edge)
        assert counted.pairs == few(name).data.n ** 2 >= counted.noticed > 0
        assert counted.loss > 0 and counted.moved > 0.1, edge


@pytest.mark.parametrize("name", ["reverse", "sort_unique"])
def test_pairs_counted_are_the_exact_law(name: str) -> None:
    """What is counted by running pairs is E_scrubbed of "all but the edge", by a law that shares no code with it."""
    own, nothing = few(name), torch.zeros(few(name).data.n)
    for edge in (*own.true[::2], own.others[-1]):
        tree = unroll(Hypothesis(str(edge), own.graph, own.data, claim_all_but(own.program, edge, nothing)))
        assert count_edge(own, edge).loss == pytest.approx(scrubbed_expectation(tree), abs=1e-12), edge


def test_an_edge_that_carries_a_little_is_found() -> None:
    """Planted: sort's queries read a little of target_pos, too little to change an answer, which the output shows."""
    program = few("sort_unique").program
    sort = program.components[-1]
    query = sort.weights["query"].clone()
    query[program.directions.index("target_pos:1"), 0] = 1.0
    changed = replace(sort, weights={**sort.weights, "query": query})
    planted = Ladder(replace(program, components=(*program.components[:-1], changed)))
    counted = count_edge(planted, Edge("sort.q", "target_pos"))
    assert counted.moved > 0 and counted.noticed == 0
    assert count_edge(planted, Edge("sort.q", "target_pos.share")).moved == 0


def test_a_true_edge_that_is_told_as_another_is_found() -> None:
    """Planted: a circuit that lacks sort.k <- target_pos loses, and that edge is not forgiven."""
    program = few("sort_unique").program
    sort = program.components[-1]
    told = replace(sort, reads={**sort.reads, "k": ()})
    planted = Ladder(replace(program, components=(*program.components[:-1], told)))
    assert Edge("sort.k", "target_pos") in planted.others
    by_edges = next(each for each in planted.hypotheses() if each.name.startswith("1b"))
    assert scrub(by_edges, draws=256, labels="right").results[0].scrubbed.low > 0.1
    assert count_edge(planted, Edge("sort.k", "target_pos")).noticed > 0


def test_a_turned_model_has_another_circuit() -> None:
    """Where matrices are turned, edges that the program does not say move the output, and its own are not enough."""
    turned = Ladder(turn_weights(few("reverse").program, 0))
    assert sum(count_edge(turned, edge).moved > 0.01 for edge in turned.others) > len(turned.others) / 2
    by_edges = next(each for each in turned.hypotheses() if each.name.startswith("1b"))
    study = Study("turned", [by_edges], labels=("right",), by=("length",))
    distances = scrub(study, draws=512).results[0].draws.distances
    assert distances["flipped"].mean() > 0.1


def test_names_say_which_edge() -> None:
    study = load("compiled", {"program": "sort_unique"})
    names = [each.name for each in study.hypotheses]
    assert f"{WITHOUT}sort.k <- target_pos" in names and f"{ALL_BUT}sort.q <- tokens" in names
    assert sum(name.startswith(WITHOUT) for name in names) == 6
    assert sum(name.startswith(ALL_BUT) for name in names) == 12


def test_lines_of_what_is_counted() -> None:
    text = "".join(tell_edges(few("sort_unique").program, each_edge=True))
    assert "41 sequences, 1,681 pairs" in text and "6 of 6 true edges are noticed" in text
    assert "0 of 12 other edges are noticed; 0 move the output, by at most 0.0e+00" in text
    assert text.count("\n  true") == 6 and text.count("\n  other") == 12


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"program": "sort"}, "program is 'sort'.*expected one of frac_prevs, hist"),
        ({"program": "Hist"}, 'did you mean "hist"'),
        ({"model": "shuffled"}, "model is 'shuffled'.*expected one of compiled, turned"),
    ],
)
def test_bad_parameters_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        load("compiled", given)
