"""Vacuous and fragile claims: each kind is named, and claims without a fault are not."""

import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, merge, scrub, unroll
from pscrub.result.warnings import OfSites, OfTree, warn_of_tree
from pscrub.studies import load

N = 60
DATA = Dataset({"x": torch.arange(N), "y": torch.arange(N) // 2})
FUNCTIONS = {"s": lambda x: x % 4, "t": lambda x: x // 15, "f": lambda s, t, y: 1.0 * s + t - y}
GRAPH = Graph.of(FUNCTIONS, ["x", "y"], "f")


def hypothesis(s, t=lambda d: d["x"] // 15, words=("", "")) -> Hypothesis:
    reads = [Claim("s", s, words=words[0]), Claim("t", t, words=words[1])]
    return Hypothesis("h", GRAPH, DATA, Claim("f", reads=reads))


def warned(h: Hypothesis) -> list[str]:
    kinds = {each.value for each in (*OfSites, *OfTree)}
    return [w for w in scrub(h, draws=200).results[0].warnings if w.kind in kinds]


def test_sound_claims_are_not_warned_of():
    assert warned(hypothesis(lambda d: d["x"] % 4)) == []
    assert warned(hypothesis("exact", "exact")) == []


def test_a_claim_that_permits_no_swap():
    (warning,) = warned(hypothesis("x"))
    assert warning == "vacuous claim: every block of 'f/s' has a single row, so nothing is ever swapped there"
    both = warned(hypothesis("x", lambda d: -d["x"], words=("x", "x")))
    assert [w.split("'")[1] for w in both] == ["f/s", "f/t"]


def test_a_claim_that_permits_every_swap():
    (warning,) = warned(hypothesis(lambda d: d["x"] // 100))
    assert warning.startswith("empty claim: all rows are in one block of 'f/s'")


def test_blocks_of_one_row():
    (warning,) = warned(hypothesis(lambda d: torch.where(d["x"] < 10, d["x"], 99), words=("x if small", "")))
    assert warning.startswith("singleton blocks: of 'f/s' up to 17 % of D is alone")


def test_few_donors():
    found = warned(hypothesis(lambda d: torch.where(d["x"] < 40, d["x"], d["x"] // 2 + 99)))
    assert sorted(w.split(":")[0] for w in found) == ["few donors", "singleton blocks"]
    assert any("1.3 different rows" in w for w in found)


def test_one_partition_under_two_names():
    (warning,) = warned(hypothesis(lambda d: d["x"] % 3, lambda d: 2 * (d["x"] % 3), words=("rest", "twice the rest")))
    assert warning.startswith("same partition: rest at 'f/s', twice the rest at 'f/t' put rows in the same blocks")
    assert warned(hypothesis(lambda d: d["x"] % 3, lambda d: 2 * (d["x"] % 3), words=("rest", "rest"))) == []


def test_rows_of_weight_zero_do_not_count():
    data = Dataset({"x": torch.tensor([0, 1, 2, 3]), "y": torch.zeros(4)}, weights=[1, 1, 0, 0])
    h = Hypothesis("h", GRAPH, data, Claim("f", reads=[Claim("s", lambda d: d["x"] // 2)]))
    assert [w.split(":")[0] for w in warn_of_tree(unroll(h))] == ["empty claim"]


def test_merging_keeps_what_the_partitions_show():
    h = hypothesis(lambda d: d["x"] // 100)
    both = merge(scrub(h, draws=200), scrub(h, draws=200, seed=1)).results[0]
    assert sum(w.startswith("empty claim") for w in both.warnings) == 1


def test_many_sites_make_one_warning():
    found = list(warn_of_tree(unroll(load("specificity").hypotheses[3])))
    assert found == []
