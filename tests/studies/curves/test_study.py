"""The study on an untrained trunk, whose rows are what swapping by hand gives; with HED's weights, what it shows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pscrub import Hypothesis, Study, StudyError, scrub, unroll
from pscrub.estimate import choose
from pscrub.evaluate import Engine
from pscrub.law.drawing import draw
from pscrub.studies import load
from pscrub.studies.curves import graphs, ladder, model
from pscrub.studies.curves.images import HALVES, is_within, make_images
from pscrub.studies.curves.ladder import CurveLadder
from pscrub.studies.curves.model import load_trunk
from pscrub.studies.curves.tuning import Found, Unit, measure_curves

SMALL: dict[str, Any] = {"model": "untrained", "repeats": "1", "units": "3", "oriented": "0.3"}
DRAWS = 16
needs_hed = pytest.mark.skipif(not model.is_hed_there(), reason=f"HED is not installed: {model.INSTALL}")


@pytest.fixture(scope="module")
def small() -> CurveLadder:
    trunk = load_trunk("untrained")
    selection, scoring = (make_images(half, 1) for half in HALVES)
    return CurveLadder(trunk, scoring, measure_curves(trunk, selection, 3, 0.3), "correlation", 0)


@pytest.fixture(scope="module")
def rows(small: CurveLadder) -> dict[str, Hypothesis]:
    return {each.name: each for each in small.hypotheses()}


@pytest.fixture(scope="module")
def read(small: CurveLadder) -> Tensor:
    """conv3_2 on D, [N, 256, 9]."""
    with torch.no_grad():
        return small.trunk.below(small.data["image"]).view(-1, 256, 9)


def products(small: CurveLadder, read: Tensor, swapped: dict[int, Tensor], roots: Tensor) -> Tensor:
    """f by hand: each unit of what it reads, [draws, 256, 9] by number, standardised, by the standardised label."""
    found = []
    for unit in small.found.chosen:
        weight, bias = small.trunk.last.weight[unit.number].flatten(), small.trunk.last.bias[unit.number]
        on_data, made = ((x.flatten(1) @ weight + bias).relu().double() for x in (read, swapped[unit.number]))
        label = is_within(small.data["orientation"], unit.preferred).double()
        z = (made - on_data.mean()) / on_data.std(correction=0)
        found.append(z * ((label - label.mean()) / label.std(correction=0))[roots])
    return torch.stack(found, 1).mean(1).detach()


def test_the_graph_is_the_trunk_and_f_is_the_correlation(small: CurveLadder, read: Tensor) -> None:
    engine, units = Engine(small.data), [unit.number for unit in small.found.chosen]
    values = [engine.on_data(small.graph).on_data(f"unit {number}") for number in units]
    with torch.no_grad():
        own = small.trunk(small.data["image"])[:, units]
    torch.testing.assert_close(torch.stack(values, 1), own, rtol=1e-4, atol=1e-4)
    f = engine.on_data(small.graph).on_data("correlation")
    expected = [
        float(torch.corrcoef(torch.stack([value.double(), is_within(small.data["orientation"], u.preferred)]))[0, 1])
        for value, u in zip(values, small.found.chosen, strict=True)
    ]
    assert float(f.mean()) == pytest.approx(sum(expected) / 3, abs=1e-6)


def kept_by(small: CurveLadder, row: str, unit: Unit) -> Tensor:
    """bool [256, 9]: what is the image's own, by the row's words."""
    kinds, strongest = unit.kinds, unit.strength.argsort(descending=True)[:20]
    oriented = small.found.channels.oriented(0.3)
    channels = {
        "1a": oriented,
        "1b": ~oriented,
        "1d the 20": torch.zeros(256, dtype=torch.bool).index_fill(0, strongest, True),
        "2c": kinds["aligned curves"] | kinds["aligned lines"],
        "2e": kinds["opposed curves"] | kinds["other curves"] | kinds["other lines"],
    }
    if row in channels:
        return channels[row][:, None].expand(-1, 9)
    aligned = unit.tangential.any(1)[:, None]
    return {"4a": unit.tangential, "4c": aligned & ~unit.tangential}[row]


@pytest.mark.parametrize("row", ["1a", "1b", "1d the 20", "2c", "2e", "4a", "4c"])
def test_what_is_kept_is_what_the_words_say(
    row: str, small: CurveLadder, rows: dict[str, Hypothesis], read: Tensor
) -> None:
    tree = unroll(next(each for name, each in rows.items() if name.startswith(row)))
    drawn = draw(tree, DRAWS, (2,))
    (other,) = [rows for path, rows in drawn.items() if tree.sites[path].claim is None]
    roots = drawn[tree.root]
    swapped = {
        unit.number: torch.where(kept_by(small, row, unit), read[roots], read[other]) for unit in small.found.chosen
    }
    expected = products(small, read, swapped, roots)
    torch.testing.assert_close(Engine(small.data).f(tree, drawn), expected, rtol=1e-3, atol=1e-3)


def test_kinds_are_of_images_of_the_same_orientation(
    small: CurveLadder, rows: dict[str, Hypothesis], read: Tensor
) -> None:
    tree = unroll(rows["3a kinds tell the orientation"])
    drawn = draw(tree, DRAWS, (3,))
    roots, orientation = drawn[tree.root], small.data["orientation"]
    swapped = {}
    for unit in small.found.chosen:
        (other,) = [rows for path, rows in drawn.items() if tree.sites[path].claim is None]
        made = read[other]
        for kind, mask in unit.kinds.items():
            if kind != "unoriented" and mask.any():
                donors = drawn[f"correlation/{unit.number} {kind}"]
                assert torch.equal(orientation[donors], orientation[roots]) and (donors != roots).any()
                made = torch.where(mask[:, None], read[donors], made)
        swapped[unit.number] = made
    expected = products(small, read, swapped, roots)
    torch.testing.assert_close(Engine(small.data).f(tree, drawn), expected, rtol=1e-3, atol=1e-3)


def test_in_4d_all_is_own_but_aligned_channels_elsewhere(
    small: CurveLadder, rows: dict[str, Hypothesis], read: Tensor
) -> None:
    tree = unroll(rows["4d the rest exact: tangential places"])
    drawn = draw(tree, DRAWS, (4,))
    roots = drawn[tree.root]
    swapped = {}
    for unit in small.found.chosen:
        parts = ladder._arrange(
            unit, small._generator(unit.number)
        )  # by another draw: only which are tangential counts
        own = parts["tangential"] | parts["tangential or shuffled"] | parts["not aligned"]
        made = read[roots]
        level = next(each for each in small._levels(unit) if each.name.endswith("by arrangement"))
        assert torch.equal(own, ~(unit.aligned[:, None] & ~unit.tangential))
        for part in ("shuffled", "at other places"):
            mask = level.parts[f"{unit.number} {part}"]
            if mask.any():
                made = torch.where(mask, read[drawn[f"correlation/{unit.number} {part}"]], made)
        assert not ((made != read[roots]) & own).any()
        swapped[unit.number] = made
    expected = products(small, read, swapped, roots)
    torch.testing.assert_close(Engine(small.data).f(tree, drawn), expected, rtol=1e-3, atol=1e-3)


def test_shuffled_places_are_as_many_of_the_same_channels(small: CurveLadder) -> None:
    for unit in small.found.chosen:
        parts = ladder._arrange(unit, torch.Generator().manual_seed(5))
        assert torch.stack([*parts.values()]).sum(0).eq(1).all()
        tangential = parts["tangential"] | parts["tangential or shuffled"]
        shuffled = parts["shuffled"] | parts["tangential or shuffled"]
        assert torch.equal(tangential, unit.tangential) and torch.equal(tangential.sum(1), shuffled.sum(1))
        assert not torch.equal(tangential, shuffled)


def test_levels_hold_everything_once_and_random_sets_are_of_their_size(small: CurveLadder) -> None:
    for unit in small.found.chosen:
        levels = small._levels(unit)
        for level in (*levels, small._random):
            assert torch.stack([*level.parts.values()]).sum(0).eq(1).all(), level.name
        by_chance = levels[0].parts[f"{unit.number} by chance"][:, 0]
        both = unit.kinds["aligned curves"] | unit.kinds["aligned lines"]
        assert by_chance.sum() == both.sum() and not by_chance[~small.oriented].any()
    random = small._random.parts["random channels"][:, 0]
    assert random.sum() == small.oriented.sum() and not torch.equal(random, small.oriented)


def test_every_row_is_well_formed_and_on_one_graph(rows: dict[str, Hypothesis]) -> None:
    for name, hypothesis in rows.items():
        assert hypothesis.faults == (), name
    assert len({id(each.graph) for each in rows.values()}) == 1
    assert {name[:2] for name in rows} >= {"0a", "1a", "1b", "1e", "2a", "2f", "3a", "3f", "4a", "4g"}


def test_accuracy_is_that_of_the_threshold() -> None:
    study = load("curves", {**SMALL, "behaviour": "accuracy", "only": "0a,0b"})
    whole, none = scrub(study, draws=96).results
    graph = study.hypotheses[0].graph
    assert isinstance(graph.nodes["accuracy"].fn, graphs._Told)
    assert 0.5 < whole.scrubbed.value < 1 and abs(none.randomised.value - 0.5) < 1e-9


def test_a_unit_by_itself_is_that_unit() -> None:
    some = {**SMALL, "only": "0a", "units": "2"}
    every = load("curves", some)
    numbers = [int(each.split()[-1]) for each in every.hypotheses[0].graph.reads("answers")]
    alone = [scrub(load("curves", {**some, "unit": str(n)}), draws=4).results[0] for n in numbers]
    (whole,) = scrub(every, draws=4).results
    assert whole.scrubbed.value == pytest.approx(sum(each.scrubbed.value for each in alone) / 2, abs=1e-9)


def test_without_oriented_channels_there_are_no_rows_about_them() -> None:
    study = load("curves", {**SMALL, "oriented": "0.99"})
    assert {each.name[:2] for each in study.hypotheses} == {"0a", "0b", "1d", "1e", "3d", "3e", "3f"}


def test_what_cannot_be_asked_is_told_at_once() -> None:
    with pytest.raises(StudyError, match=r"behaviour is 'corelation'.*correlation") as raised:
        load("curves", {"behaviour": "corelation", "units": "0", "oriented": "2", "only": "lines"})
    said = str(raised.value)
    assert "units is 0; expected 1 to 40" in said and "oriented is 2.0" in said and "only is 'lines'" in said
    with pytest.raises(StudyError, match=r"unit is 999; expected one of those chosen on the selection half: \d+, "):
        load("curves", {**SMALL, "unit": "999"})
    with pytest.raises(StudyError, match="no row's name begins so"):
        load("curves", {**SMALL, "only": "1z"})


@pytest.fixture(scope="module")
def trained() -> Study:
    return load("curves", {"only": "1a,1b,3d,3e,4d,4e"})


@needs_hed
def test_oriented_channels_keep_the_correlation_of_each_of_ten_units(trained: Study) -> None:
    """Bonferroni over the units and both rows: all hold together at 99.9 %."""
    data, graph = trained.hypotheses[0].data, trained.hypotheses[0].graph
    engine = Engine(data)
    judge: Any = graph.nodes["correlation"].fn
    labels = judge.labels[data["orientation"]]
    whole = (engine.on_data(graph).on_data("answers") * labels).mean(0)
    level, good = 1 - 0.001 / (2 * len(whole)), set(range(len(whole)))
    for row, low, high in (("1a", 0.85, 2.0), ("1b", -1.0, 0.2)):
        watch, tree = _Answers(), unroll(next(each for each in trained.hypotheses if each.name.startswith(row)))
        drawn = draw(tree, 4096, (1,))
        engine.f(tree, drawn, watch)
        kept = torch.cat(watch.seen) * labels[drawn[tree.root]] / whole
        ends = [choose(each, level) for each in kept.T]
        good &= {place for place, each in enumerate(ends) if low < each.low and each.high < high}
    assert len(good) >= 10


@needs_hed
def test_places_tell_the_orientation_and_tangential_ones_count_more(trained: Study) -> None:
    by_name = {each.hypothesis[:2]: each for each in scrub(trained, draws=4096).results}
    recovered = {name: each.recovered for name, each in by_name.items()}
    assert recovered["3d"].low > 97 and recovered["3e"].high < 25
    assert recovered["4d"].low > recovered["4e"].high + 5


class _Answers:
    names = ("answers",)

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def see(self, made: dict[str, Tensor], own: dict[str, Tensor]) -> None:
        self.seen.append(made["answers"])


def test_the_selection_half_alone_chooses() -> None:
    """Other images to score on change neither units nor kinds."""
    trunk, selection = load_trunk("untrained"), make_images("selection", 1)
    found: list[Found] = [measure_curves(trunk, selection, 3, 0.3) for _ in range(2)]
    study = load("curves", {**SMALL, "only": "0a"})
    chosen = [f"unit {unit.number}" for unit in found[0].chosen]
    assert chosen == [*study.hypotheses[0].graph.reads("answers")]
    assert chosen == [f"unit {unit.number}" for unit in found[1].chosen]
