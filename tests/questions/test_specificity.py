"""Specificity: the order by joins, entropy along it, the frontier, and ways of sharing side by side."""

import random
from dataclasses import replace

import pytest
import torch

from pscrub import Claim, Hypothesis, HypothesisError, unroll
from pscrub.cli import main
from pscrub.hypothesis.joins import join
from pscrub.law.entropy import entropy_budget
from pscrub.law.of_f import scrubbed_expectation
from pscrub.questions.sharing import sharing_table
from pscrub.questions.specificity import frontier, order, orders
from pscrub.report.plots import plot_frontier as picture
from pscrub.report.plots import svg
from pscrub.studies.worked import cancellation, specificity
from tests.hypothesis.test_joins import pairs, refeatured


def test_the_study_is_what_it_says():
    for parameters in ({}, {"shortcut": 0.7}, {"shortcut": 0.7, "noise": 3}):
        for expected in specificity.study(**parameters).expected:
            found = scrubbed_expectation(unroll(expected.hypothesis))
            assert found == pytest.approx(expected.value, abs=1e-12)


def test_more_nodes_are_more_specific_and_permit_more_bits():
    study = specificity.study()
    exact, bits, total, three, wide, nothing = study.hypotheses
    assert order(three, bits) == "more specific" and order(bits, three) == "less specific"
    assert order(three, total) == "incomparable"
    assert all(order(exact, other) == "less specific" for other in study.hypotheses[1:])
    assert order(nothing, three) == "more specific"
    assert orders([bits, three, replace(bits, name="again")])["one node: the bits", "again"] == "the same"
    entropy = [entropy_budget(unroll(h), bits=True).scrubbed for h in (exact, bits, three)]
    assert entropy == pytest.approx([5, 7, 17])
    assert order(wide, three) == "less specific"


def test_it_is_a_partial_order_on_random_hypotheses():
    looked = 0
    for k, (a, b) in enumerate(pairs()[:40]):
        both = join(a, b)
        assert order(both, a) in ("less specific", "the same")
        opposite = {"less specific": "more specific", "more specific": "less specific"}
        assert order(b, a) == opposite.get(order(a, b), order(a, b))
        try:
            third = join(both, refeatured(random.Random(k), a))
        except HypothesisError:
            continue
        looked += order(both, a) == order(third, both) == "less specific"
        assert order(third, a) in ("less specific", "the same")
    assert looked >= 10


def test_of_one_shape_the_less_specific_has_no_more_entropy():
    looked = 0
    for a, b in pairs():
        both = join(a, b)
        one, other = unroll(a), unroll(both)
        if one.sites.keys() == other.sites.keys():
            assert entropy_budget(other).scrubbed <= entropy_budget(one).scrubbed + 1e-12
            looked += 1
    assert looked >= 30


def test_a_shortcut_falls_below_the_frontier(tmp_path, capsys):
    found = frontier(specificity.study(shortcut=1.0), draws=2048)
    by_name = {row.name: row for row in found.rows}
    assert by_name["one node: their sum"].recovered.value == 100
    three = by_name["three nodes, a bit each"]
    assert three.recovered.high < 100 and three.on_frontier and three.excess == pytest.approx(12)
    assert not by_name["sum does not matter"].on_frontier
    assert svg(picture(found), "frontier").startswith("<svg")
    file = tmp_path / "deep" / "picture.svg"
    assert main(["frontier", "specificity", "--draws", "512", "--out", str(file), "--markdown"]) == 0
    assert file.read_text().startswith("<svg") and "| three nodes, a bit each | 17.00 |" in capsys.readouterr().out


def test_ways_of_sharing_side_by_side():
    study = cancellation.study()
    table = sharing_table(study.hypotheses[1], draws=2048, labels=study.labels)
    exact = {
        mode: scrubbed_expectation(unroll(replace(study.hypotheses[1], sharing=mode)))
        for mode in ("reader", "all", "each")
    }
    for row in table.rows:
        assert row.scrubbed.low - 1e-9 <= exact[row.mode] <= row.scrubbed.high + 1e-9
    (warning,) = table.warnings
    assert warning.startswith("sensitive to sharing: with 'each' in place of 'reader'")
    assert not sharing_table(study.hypotheses[0], draws=512).warnings
    groups = replace(study.hypotheses[1], sharing={"both": ["second", "third"]})
    assert [row.mode for row in sharing_table(groups, draws=512).rows] == ["groups", "reader", "all", "each"]


def test_the_commands(capsys):
    assert main(["sharing", "cancellation", "--hypothesis", "only the first, one", "--draws", "512"]) == 0
    assert "sensitive to sharing" in capsys.readouterr().out
    assert main(["adversary", "hash_game", "--hypothesis", "true bit", "--draws", "1024", "--steps", "1"]) == 0
    assert "found a missing claim: hard at answer" in capsys.readouterr().out
    assert main(["adversary", "hash_game", "--hypothesis", "tru bit"]) == 2
    assert "has no hypothesis 'tru bit'" in capsys.readouterr().err


def test_hypotheses_on_other_data_are_incomparable():
    a, b = specificity.study().hypotheses[1], specificity.study().hypotheses[1]
    assert order(a, b) == "incomparable"
    same = Hypothesis("x", a.graph, a.data, Claim("loss", torch.zeros(a.data.n)))
    assert order(same, same) == "the same"
