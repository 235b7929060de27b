"""Run folders: they keep what was drawn, are gone on with, refuse what does not belong there, and are added up."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pscrub import Claim, DamagedError, Dataset, Graph, Hypothesis, Study, StudyError, StudyResult, scrub
from pscrub.estimate import stopping
from pscrub.estimate.baselines import Baselines
from pscrub.result import making
from pscrub.result.adding import add_up, read_result
from pscrub.result.folder import RunFiles
from pscrub.result.sharing import RunFolder
from tests.kills import list_files, strip_times
from tests.result.test_result import study

HOWS: dict[str, dict[str, Any]] = {
    "draws": {"draws": 2200, "exact": False},
    "population": {"draws": 2200, "data_uncertainty": True},
    "clusters": {"draws": 1100, "clusters": "third", "exact": False},
    "width": {"until_width": 25.0, "exact": False},
    "exact": {"draws": 600},
    "permuted": {"draws": 2200, "exact": False, "donors": "permuted"},
    "betting": {"draws": 2000, "interval": "betting", "bounds": (0.0, 60.0)},
}


@pytest.fixture(autouse=True)
def _small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ROUND", 500)


def count_draws(
    monkeypatch: pytest.MonkeyPatch, stop_at: int = -1, error: type[BaseException] = KeyboardInterrupt
) -> list[Any]:
    """The rounds that are drawn from now on, of which one is cut short."""
    drawn, real = list[Any](), making.draw_round

    def draw(tree: Any, made: Any) -> Any:
        if len(drawn) == stop_at:
            raise error
        drawn.append((tree.hypothesis.name, made.seed, made.index, made.size))
        return real(tree, made)

    monkeypatch.setattr(making, "draw_round", draw)
    return drawn


@pytest.mark.parametrize("how", HOWS)
def test_a_folder_changes_no_number_and_adds_up_to_the_result(how: str, tmp_path: Path) -> None:
    whole, kept = scrub(study(), **HOWS[how]), scrub(study(), **HOWS[how], out=tmp_path)
    assert strip_times(kept) == strip_times(whole)
    added = add_up(RunFiles(tmp_path))
    if "clusters" in HOWS[how] or "data_uncertainty" in HOWS[how]:  # for which the model is needed
        assert "Values in the population are not in it" in added.notes[-1]
        warnings = {each.hypothesis: each.warnings for each in whole.results}
        results = tuple(replace(e, data=None, warnings=warnings[e.hypothesis]) for e in whole.results)
        added = replace(added, notes=whole.notes)
        added = replace(added, results=tuple(replace(e, warnings=warnings[e.hypothesis]) for e in added.results))
        whole = replace(whole, results=results)
    assert strip_times(added) == strip_times(whole)
    assert not (tmp_path / "working").exists()


@pytest.mark.parametrize("how", HOWS)
def test_a_run_that_is_cut_short_anywhere_goes_on_as_if_it_had_not_been(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        every = count_draws(patch)
        whole = strip_times(scrub(study(), **HOWS[how]))
    assert len(every) >= 2
    for at in range(len(every)):
        folder = tmp_path / str(at)
        with monkeypatch.context() as patch:
            drawn = count_draws(patch, at)
            assert scrub(study(), **HOWS[how], out=folder).cut_short
            assert drawn == every[:at]
        with monkeypatch.context() as patch:
            drawn = count_draws(patch)
            assert strip_times(scrub(study(), **HOWS[how], out=folder)) == whole
            assert drawn == every[at:]


def test_rounds_may_be_there_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As others may have drawn them: those that are missing are drawn, whichever they are."""
    for how in ("population", "width"):
        whole = scrub(study(), **HOWS[how], out=tmp_path / how)
        rounds = [path for path in (tmp_path / how / "rounds").rglob("0-*.nc")]
        assert len(rounds) > 4
        for i, lost in enumerate(list(itertools.combinations(sorted(rounds), 2))[:: 1 + len(rounds)]):
            folder = tmp_path / f"{how}-{i}"
            shutil.copytree(tmp_path / how, folder)
            for path in lost:
                (folder / path.relative_to(tmp_path / how)).unlink()
            with monkeypatch.context() as patch:
                drawn = count_draws(patch)
                assert strip_times(scrub(study(), **HOWS[how], out=folder)) == strip_times(whole)
            assert len(drawn) == 2


def test_the_same_command_again_draws_nothing_and_needs_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scrub(study(), draws=1200, exact=False, out=tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "rounds").rglob("0-*.nc")}
    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Baselines, "of", lambda *_: pytest.fail("the model was run"))
        again = scrub(
            study(), draws=1200, exact=False, out=tmp_path, each=lambda result: told.append(result.hypothesis)
        )
    assert strip_times(again) == strip_times(whole) and told == ["exact", "sign", "nothing"]
    fewer = scrub(study(), draws=100, exact=False, out=tmp_path)
    assert fewer["sign"].scrubbed == whole["sign"].scrubbed  # all that is there
    assert {path: path.read_bytes() for path in before} == before


def test_more_draws_are_added_to_those_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scrub(study(), draws=1000, exact=False, out=tmp_path)
    drawn = count_draws(monkeypatch)
    more = scrub(study(), draws=2000, exact=False, out=tmp_path)
    assert drawn == [(name, 0, i, 500) for name in ("sign", "nothing") for i in (2, 3)]
    assert strip_times(more) == strip_times(scrub(study(), draws=2000, exact=False))
    del drawn[:]
    scrub(study(), draws=2100, exact=False, out=tmp_path)  # a short round
    odd = scrub(study(), draws=2800, exact=False, out=tmp_path)
    assert [each[2:] for each in drawn if each[0] == "sign"] == [(4, 100), (5, 500), (6, 200)]
    assert odd["sign"].scrubbed.draws == 2800
    width = scrub(study(), until_width=3.0, exact=False, out=tmp_path)
    assert width["nothing"].recovered is not None and width["nothing"].recovered.width <= 3.0


def test_what_a_killed_process_was_writing_is_removed_when_nobody_is_at_work(tmp_path: Path) -> None:
    scrub(study(), draws=200, exact=False, out=tmp_path)
    whole = list_files(tmp_path)
    for name in (".result.json.a1b2c3.tmp", "working/.0-1.nc.a1b2c3.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half of")
    with RunFolder(tmp_path):  # another is at work
        scrub(study(), draws=200, exact=False, out=tmp_path)
        assert len(list_files(tmp_path) - whole) == 3  # and its own
    assert list_files(tmp_path) == whole


def test_an_earlier_result_is_added_to_in_another_folder(tmp_path: Path) -> None:
    first = scrub(study(), draws=1000, exact=False)
    whole = scrub(study(), draws=2000, exact=False)
    rest = scrub(study(), draws=1000, exact=False, after=first, out=tmp_path)
    assert strip_times(rest).results == strip_times(whole).results
    again = scrub(study(), draws=1000, exact=False, out=tmp_path)  # the folder knows
    assert strip_times(again).results == strip_times(whole).results == strip_times(add_up(RunFiles(tmp_path))).results
    with pytest.raises(StudyError, match=r"the earlier result \(--after\) is another"):
        scrub(study(), draws=1000, exact=False, after=whole, out=tmp_path)


def test_hypotheses_can_be_added_and_not_left_out(tmp_path: Path) -> None:
    first, *others = study().hypotheses
    name = study()
    scrub(replace(name, hypotheses=[first, others[0]]), draws=1000, exact=False, out=tmp_path)
    all_of = scrub(study(), draws=1000, exact=False, out=tmp_path)
    assert strip_times(all_of) == strip_times(scrub(study(), draws=1000, exact=False))
    with pytest.raises(StudyError, match="hypothesis 'sign' there, not here"):
        scrub(replace(name, hypotheses=[first, others[1]]), draws=1000, exact=False, out=tmp_path)


# What does not belong there


class Scaled(torch.nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.scale * x).detach()


CONFIG = {"scale": 1.0}


def modelled(scale: float = 1.0, f: Callable[..., Any] = lambda out, y: (out - y) ** 2) -> Study:
    data = study().hypotheses[0].data
    graph = Graph.of({"out": lambda x: x, "f": f}, ["x", "y"], "f")
    nodes = [replace(n, fn=Scaled(scale).eval()) if n.name == "out" else n for n in graph.nodes.values()]
    graph = Graph(nodes, ["x", "y"], "f")
    return Study("modelled", [Hypothesis("h", graph, data, Claim("f", reads=[Claim("y", "y")]))])


def test_another_study_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    scrub(study(), draws=600, exact=False, out=tmp_path)
    before = list_files(tmp_path), (tmp_path / "manifest.json").read_bytes()

    def refused(*words: str, of: Study | None = None, **options: Any) -> None:
        with pytest.raises(StudyError) as caught:
            scrub(of or study(), **{"draws": 600, "exact": False} | options, out=tmp_path)
        faults = " ".join(caught.value.faults)
        assert all(each in faults for each in words), faults
        assert "name another folder, or start over beside it (--fresh)" in faults
        assert (list_files(tmp_path), (tmp_path / "manifest.json").read_bytes()) == before

    refused("the study is another: 'line' there, 'other' here", of=replace(study(), name="other"))
    refused("the data are others: ", of=study(rows=119))
    refused("the scrubbing law is another, of 'sign'", of=study(feature="third"))
    refused(
        "the code or the constants of the model's functions are others, of 'exact', 'sign', 'nothing'",
        of=study(scale=2.0),
    )
    refused("the seed is another: 0 there, 3 here", "the data are others", of=study(rows=118), seed=3)
    refused("output distances (--by) are kept in one", of=replace(study(), by=()))
    refused("what is drawn of the population", data_uncertainty=True)
    refused("what is drawn of the population", clusters="word")
    refused("E_randomised is given otherwise: None there, 4.0 here", randomised=4.0)
    refused("the labels are others: y there, x here", labels="x")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    scrub(modelled(), draws=600, exact=False, out=tmp_path)
    scrub(modelled(), draws=1200, exact=False, out=tmp_path)  # made anew, they are the same
    with pytest.raises(StudyError) as caught:
        scrub(modelled(1.0 + 1e-12), draws=600, exact=False, out=tmp_path)
    assert caught.value.faults[0] == "the model's weights are others, of 'h'"
    with pytest.raises(StudyError, match="the code or the constants"):
        scrub(modelled(f=lambda out, y: (out - y).abs()), draws=600, exact=False, out=tmp_path)


def test_what_no_hash_shows_is_seen_in_f_on_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return CONFIG["scale"] * (out - y) ** 2

    scrub(modelled(f=scaled), draws=600, exact=False, out=tmp_path)
    monkeypatch.setitem(CONFIG, "scale", 1.1)
    with pytest.raises(
        StudyError, match=r"f on D is another than in '.*': [\d.e+-]+ there and [\d.e+-]+ here on row \d+"
    ):
        scrub(modelled(f=scaled), draws=1200, exact=False, out=tmp_path)


def test_results_of_before_are_read_and_not_overwritten(tmp_path: Path) -> None:
    whole = scrub(study(), draws=600)
    whole.save(tmp_path / "result.nc")
    assert read_result(RunFiles(tmp_path)) == whole
    content = (tmp_path / "result.nc").read_bytes()
    with pytest.raises(StudyError, match=r"holds result\.nc and no manifest\.json, so that it cannot be gone on with"):
        scrub(study(), draws=600, out=tmp_path)
    assert (tmp_path / "result.nc").read_bytes() == content and list_files(tmp_path) == {"result.nc"}
    with pytest.raises(StudyError, match=r"no saved result at"):
        read_result(RunFiles(tmp_path / "nowhere"))


# Damaged files


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def test_damaged_files_are_named_and_made_again_if_the_user_says_so(tmp_path: Path) -> None:
    whole = scrub(study(), draws=1500, exact=False, out=tmp_path)
    rounds = sorted((tmp_path / "rounds").rglob("0-*.nc"))
    spoiled = [rounds[0], rounds[4], next((tmp_path / "rounds").rglob("begun.nc")), tmp_path / "study.nc"]
    for path in spoiled:
        spoil(path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.nc")}
    for again in (lambda: scrub(study(), draws=1500, exact=False, out=tmp_path), lambda: add_up(RunFiles(tmp_path))):
        with pytest.raises(DamagedError) as caught:
            again()
        named = [path for path in spoiled if any(str(path) in fault for fault in caught.value.faults)]
        assert named == spoiled or (named == spoiled[-1:] and len(caught.value.faults) == 1)
        assert {path: path.read_bytes() for path in before} == before
    again = scrub(study(), draws=1500, exact=False, out=RunFolder(tmp_path, set_aside=True))
    assert strip_times(again) == strip_times(whole)
    assert len(list((tmp_path / "damaged").iterdir())) == len(spoiled)
    assert strip_times(scrub(study(), draws=1500, exact=False, out=tmp_path)) == strip_times(whole)


def test_the_rest_can_be_used(tmp_path: Path) -> None:
    scrub(study(), draws=1500, exact=False, out=tmp_path)
    path = RunFiles(tmp_path).file_of("sign", 0, 1)
    spoil(path)
    found = add_up(RunFiles(tmp_path), without_damaged=True)
    assert found["sign"].scrubbed.draws == 1000 and found["sign"].cut_short and found.cut_short
    assert found["nothing"].scrubbed.draws == 1500
    assert any(str(path) in note and note.startswith("Left out: ") for note in found.notes)


def test_a_damaged_manifest(tmp_path: Path) -> None:
    whole = scrub(study(), draws=1000, exact=False, out=tmp_path)
    path = tmp_path / "manifest.json"
    content = path.read_text()
    for changed in (
        content.replace('"seed": 0', '"seed": 1'),
        content.replace("line", "lime"),
        content.replace('"draws": 1000', '"draws": 9000'),
        content[:-30],
        "",
        "[]",
        '{"format": "other"}',
    ):
        path.write_text(changed)
        with pytest.raises(DamagedError, match=r"manifest\.json' is damaged"):
            scrub(study(), draws=1000, exact=False, out=tmp_path)
        with pytest.raises(DamagedError, match=r"manifest\.json' is damaged"):
            add_up(RunFiles(tmp_path))
    again = scrub(study(), draws=1000, exact=False, out=RunFolder(tmp_path, set_aside=True))
    assert strip_times(again) == strip_times(whole)


def test_files_in_each_others_places_are_refused(tmp_path: Path) -> None:
    """Between rounds, hypotheses and folders of another seed: whole files, that say what they are of."""
    for seed in (0, 1):
        scrub(study(), draws=1500, seed=seed, exact=False, out=tmp_path / str(seed))
    paths = sorted(path for path in tmp_path.rglob("rounds/*/*.nc"))
    contents = {path: path.read_bytes() for path in paths}
    tried = 0
    for i, (path, other) in enumerate(itertools.permutations(paths, 2)):
        if (
            i % 2
            or contents[path] == contents[other]
            or (path.name == other.name == "begun.nc" and path.parent.name == other.parent.name)
        ):
            continue  # what draws are concluded from does not depend on the seed
        path.write_bytes(contents[other])
        files = RunFiles(path.parents[2])
        name = next(each for each in files.manifest.names if files.folder_of(each) == path.parent)
        with pytest.raises(DamagedError, match=str(path)):
            files.begun(name) if path.name == "begun.nc" else files.read_round(name, path)
        path.write_bytes(contents[path])
        tried += 1
    assert tried > 60
    assert not add_up(RunFiles(tmp_path / "0")).cut_short


def test_a_result_that_is_damaged_is_made_again(tmp_path: Path) -> None:
    whole = scrub(study(), draws=1500, exact=False, out=tmp_path)
    whole.save(tmp_path / "result.nc")
    assert read_result(RunFiles(tmp_path)) == whole
    spoil(tmp_path / "result.nc")
    with pytest.raises(DamagedError):
        StudyResult.load(tmp_path)
    assert strip_times(read_result(RunFiles(tmp_path))) == strip_times(whole)


def test_what_was_saved_beside_of_the_same_draws_is_kept(tmp_path: Path) -> None:
    whole = scrub(study(), draws=1000, data_uncertainty=True, out=tmp_path)
    whole = replace(whole, results=tuple(replace(each, claims=({"claim": "a"},)) for each in whole.results))
    whole.save(tmp_path / "result.nc")
    assert read_result(RunFiles(tmp_path)) == whole
    next((tmp_path / "rounds").rglob("0-1.nc")).unlink()  # of one of them
    found = read_result(RunFiles(tmp_path))
    assert sorted(bool(each.claims) for each in found.results) == [False, True, True] and found.cut_short


def test_data_of_other_rows_do_not_pass_for_the_same(tmp_path: Path) -> None:
    data = Dataset({"x": torch.arange(6), "y": torch.arange(6)})
    other = Dataset({"x": torch.arange(6), "y": torch.tensor([0, 1, 2, 3, 5, 4])})
    graph = Graph.of({"s": lambda x: x % 2, "f": lambda s, y: 1.0 * s * y}, ["x", "y"], "f")

    def of(d: Dataset) -> Study:
        return Study("s", [Hypothesis("h", graph, d, Claim("f", reads=[Claim("y", "y")]))], labels="y")

    scrub(of(data), draws=100, exact=False, out=tmp_path)
    with pytest.raises(StudyError, match="the data are others"):
        scrub(of(other), draws=100, exact=False, out=tmp_path)
