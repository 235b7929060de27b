"""What holds in the population: found where it is planted, not where D alone has it, and refused where rows are few."""

import random

import pytest
import torch

from pscrub import Claim, Dataset, DatasetError, Graph, Hypothesis, StudyError, unroll
from pscrub.evaluate.on_data import OnData
from pscrub.hypothesis.tree import refine
from pscrub.questions import InPopulation, adversary, adversary_in_population
from pscrub.questions.adversarial.held_out import Finding, find_carried, find_deciding, split_rows
from theory.adversary_population import pairs_alone, parity_noise, rate_in_population


def test_planted_claims_are_found_and_chance_is_not() -> None:
    assert rate_in_population("pairs alone", 200, 8).found <= 3
    assert rate_in_population("parity, 0.4", 200, 2).right == 2


def test_chance_in_this_data_is_told_from_the_population() -> None:
    """At 60 rows D's chance correlations move E_scrubbed on D: that is said of D, and no claim is called missing."""
    moved = []
    for k in range(4):
        h, offered, _, _ = pairs_alone(random.Random(k), 60, 0.0)
        found = adversary(h, offered, draws=16_384, steps=1, from_data=False, seed=k, randomised=2.0)
        moved.append(found.moved)
        assert found.moved == ("on this D: nothing" not in found.on_this_data)
        assert not found.found and found.population.finding is Finding.NOT_FOUND
        assert found.below[:2] == (f"{found.verdict}.", f"{found.on_this_data}.")
        assert found.population.confirmed is not None and found.population.confirmed.kind == "draws and data"
    assert sum(moved) >= 2


def test_the_search_sees_no_row_that_is_held_out() -> None:
    def chosen(turned: bool) -> tuple[list[tuple[str, str, float]], InPopulation]:
        h, offered, _, _ = parity_noise(random.Random(5), 200, 0.4)
        columns = dict(h.data.columns)
        if turned:  # what the confirmation is about is made another
            rows = split_rows(h.data.weights, torch.arange(h.data.n), 0.5, 0)[1]
            columns["y"] = columns["y"].clone()  # type: ignore[union-attr]
            columns["y"][rows] = columns["y"][rows.flip(0)]  # type: ignore[index]
        h = Hypothesis(h.name, h.graph, Dataset(columns), h.claim)
        found = adversary_in_population(h, offered, draws=1024)
        return [(m.feature, m.where, m.difference.value) for m in found.chosen], found

    (before, plain), (after, turned) = chosen(False), chosen(True)
    assert before == after and plain.finding is Finding.MISSING
    assert plain.confirmed != turned.confirmed and plain.rows == (100, 100)


def test_the_same_seed_says_the_same_and_zero_weights_count_for_nothing() -> None:
    h, offered, _, _ = parity_noise(random.Random(7), 120, 0.3)
    first, again = (adversary_in_population(h, offered, draws=512, from_data=False, seed=4) for _ in range(2))
    assert first.said == again.said and first.confirmed == again.confirmed
    columns = {name: torch.cat([values, 9 + values]) for name, values in h.data.columns.items()}  # type: ignore[call-overload]
    data = Dataset(columns, torch.cat([torch.ones(120), torch.zeros(120)]))
    padded = adversary_in_population(
        Hypothesis(h.name, h.graph, data, h.claim), offered, draws=512, from_data=False, seed=4
    )
    assert padded.rows == first.rows and padded.confirmed == first.confirmed


def test_rows_of_one_cluster_are_held_out_together_and_confirm_nothing_by_themselves() -> None:
    """Each row 25 times over: what chance has in 40 is seen again in rows held out, unless they are of other rows."""
    alone, told = [], []
    for k in range(6):
        h, offered, _, _ = pairs_alone(random.Random(k), 40, 0.0)
        columns = {name: values.repeat(25) for name, values in h.data.columns.items()}  # type: ignore[union-attr]
        data = Dataset(columns | {"row": torch.arange(40).repeat(25)})
        many = Hypothesis(h.name, h.graph, data, h.claim)
        found = [
            adversary_in_population(many, offered, draws=2048, steps=1, from_data=False, seed=k, clusters=clusters)
            for clusters in (None, "row")
        ]
        alone.append(found[0].finding is Finding.MISSING)
        told.append(found[1].finding is Finding.MISSING)
        assert found[0].rows == (500, 500) and found[1].rows == (20, 20)
        assert "clusters" in found[1].said and "clusters" not in found[0].said
    assert sum(alone) >= 3 and sum(told) <= 1
    few = adversary_in_population(one_by_one(60), {"z": "z"}, from_data=False, draws=64, clusters="w")
    assert few.finding is Finding.FEW_ROWS and "3 clusters" in few.said
    with pytest.raises(DatasetError, match="nowhere"):
        adversary_in_population(many, offered, draws=64, clusters="nowhere")


def one_by_one(rows: int) -> Hypothesis:
    """h is claimed by a number that no two rows share."""
    data = Dataset({"x": torch.arange(float(rows)), "z": torch.arange(rows) % 2, "w": torch.arange(rows) % 3})
    graph = Graph.of({"h": lambda z, w: 1.0 * z + w, "f": lambda h, z: (h - z).abs()}, ["z", "w"], "f")
    return Hypothesis("one by one", graph, data, Claim("f", reads=[Claim("h", lambda d: d["x"] ** 2)]))


def test_what_cannot_be_told_is_said_with_the_reason() -> None:
    few = adversary_in_population(one_by_one(30), {"z": "z"}, from_data=False, draws=64)
    assert few.finding is Finding.FEW_ROWS and few.confirmed is None and "30 rows" in few.said
    for rows in (80, 200):
        small = adversary_in_population(one_by_one(rows), {"z": "z"}, from_data=False, draws=256)
        assert small.finding in (Finding.SMALL_BLOCKS, Finding.NOTHING_TRIED) and small.confirmed is None
    h, offered, _, _ = parity_noise(random.Random(1), 100, 0.4)
    assert adversary_in_population(h, offered, draws=64, held_out=0.0).finding is Finding.NOT_ASKED


def test_sites_whose_block_decides_pass_the_parents_row_on() -> None:
    data = Dataset({"s": torch.arange(80) % 4, "e": torch.arange(80) // 40, "y": torch.randn(80)})
    graph = Graph.of(
        {"p": lambda s: s // 2, "h": lambda p, e: p + 0.1 * e, "f": lambda h, y: (h - y) ** 2}, ["s", "e", "y"], "f"
    )
    inner = Claim("p", lambda d: d["s"] // 2)
    h = Hypothesis("h", graph, data, Claim("f", reads=[Claim("h", reads=[inner]), Claim("y", "y")]))
    tree = unroll(h)
    deciding = find_deciding(tree, OnData(graph, data))
    assert deciding == {"f/y", "f/h/p"}  # a column by its own value, and a value that blocks of 40 rows all share
    assert find_carried(tree, deciding) == {"f/y", "f/h/p", "f/h"}
    # A claim of its own, joined below h alone, is of h's row: that is another row than the parent's.
    half = Claim("h", lambda d: d["s"] // 2, reads=[inner])
    other = unroll(Hypothesis("h", graph, data, Claim("f", reads=[half, Claim("y", "y")])))
    assert "f/h" in find_carried(other, deciding)
    joined = refine(other, ["f/h/p"], h.partitions[h.claim].refine(other.sites["f/h"].partition))
    assert "f/h" not in find_carried(joined, deciding)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draws": 0}, "draws is 0; expected a whole number, 4 or more"),
        ({"draws": 2.5}, "draws is 2.5"),
        ({"steps": 0}, "steps is 0; expected a whole number, 1 or more: each step joins one claim; try 2"),
        ({"level": 95}, "level is 95; expected between 0 and 1"),
        ({"held_out": 1.0}, "held_out is 1.0; expected 0 to 0.9"),
        ({"nodes": ["typo"]}, "no claim or node 'typo' to try claims at; known: .*expected a claim that reads nothing"),
        ({"nodes": ["p"]}, "no claim or node 'p' to try"),
        ({"nodes": ["f", "hh"]}, "no claim or node 'hh'"),
        ({"nodes": []}, "nothing to try|nodes is empty"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], words: str) -> None:
    with pytest.raises(StudyError, match=words):
        adversary(one_by_one(40), {"z": "z"}, from_data=False, **options)  # type: ignore[arg-type]


def test_faults_are_reported_together() -> None:
    with pytest.raises(StudyError) as error:
        adversary(one_by_one(40), {"z": "z"}, draws=0, steps=-1)
    assert len(error.value.faults) == 2
