"""Sweeps: each point as a run of its own would have it, gone on with, spread, merged, and never mixed up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pscrub
from pscrub import Claim, DamagedError, Hypothesis, Study, StudyError, SweepResult, scrub, sweep
from pscrub.estimate import stopping
from pscrub.result.folder import RunFiles
from pscrub.sweeps import driving
from pscrub.sweeps import folder as folders
from pscrub.sweeps.folder import SweepFiles
from pscrub.sweeps.joining import join_sweeps
from pscrub.sweeps.results import read_sweep
from tests.kills import list_files
from tests.result.test_folder import count_draws, spoil
from tests.result.test_result import study

GRID: dict[str, Any] = {"parameters": {"rows": [60, 120], "feature": ["half", "third"]}, "seeds": (0, 7)}
DRAWS: dict[str, Any] = {"draws": 1100, "exact": False}


@pytest.fixture(autouse=True)
def _small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ROUND", 500)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, SweepResult]]:
    """A sweep that nobody interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopping, "ROUND", 500)
        folder = tmp_path_factory.mktemp("sweep") / "whole"
        yield folder, sweep(study, folder, **GRID, **DRAWS)


def read_rounds(folder: Path) -> dict[str, Any]:
    """The rounds in all run folders below one, but for what tells how long they took."""
    found = dict[str, Any]()
    for manifest in sorted(folder.rglob("manifest.json")):
        files = RunFiles(manifest.parent)
        for name in files.manifest.names:
            for _, _, path in files.files_of(name):
                found[str(path.relative_to(folder))] = replace(files.read_round(name, path), seconds={})
    return found


def tell_sweeps_apart(one: Path, other: Path) -> list[str]:
    """In what two sweeps differ: files, rounds, tables."""
    faults = []
    if list_files(one) != list_files(other):
        faults.append(f"files: {sorted(list_files(one) ^ list_files(other))}")
    if read_rounds(one) != read_rounds(other):
        faults.append("rounds")
    if read_sweep(SweepFiles(one)).csv() != read_sweep(SweepFiles(other)).csv():
        faults.append("tables")
    return faults


def test_points_are_what_runs_of_their_own_give(whole: tuple[Path, SweepResult]) -> None:
    result = whole[1]
    assert result.status.is_whole and not result.status.has_failed and result.failed == []
    assert result.names == ("rows", "feature") and len(result.rows) == 2 * 2 * 2 * 3 * 4
    rows = iter(result.rows)
    for size in (60, 120):
        for feature in ("half", "third"):
            for seed in (0, 7):
                for each in scrub(study(size, feature), seed=seed, **DRAWS).results:
                    found = {row.target: row for row in (next(rows) for _ in range(4))}
                    score = each.recovered
                    assert score is not None
                    for target, value in (("loss recovered, %", score), ("E_scrubbed", each.scrubbed)):
                        row = found[target]
                        assert (row.parameters, row.seed, row.hypothesis) == ((size, feature), seed, each.hypothesis)
                        assert (row.estimate, row.low, row.high) == (value.value, value.low, value.high)
                        assert (row.draws, row.method) == (each.scrubbed.draws, value.method)
                    assert found["E_model"].estimate == each.model.value
                    assert found["E_randomised"].estimate == each.randomised.value


def test_a_sweep_that_is_cut_short_anywhere_goes_on_as_if_it_had_not_been(
    whole: tuple[Path, SweepResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[Any]()
    for at in (0, 1, 5, 11, 12, 17, 30, 40, 200):
        with monkeypatch.context() as patch:
            now = count_draws(patch, at - len(drawn))
            result = sweep(study, tmp_path / "cut", **GRID, **DRAWS)
            drawn += now
            assert result.status.is_whole == (at == 200) and not result.status.at_work
            assert not (tmp_path / "cut" / "working").exists()
    assert len(drawn) == 2 * 2 * 2 * 2 * 3  # rounds of two hypotheses, each once
    assert tell_sweeps_apart(tmp_path / "cut", whole[0]) == []
    with monkeypatch.context() as patch:
        patch.setattr(driving.Sweeper, "_make", lambda *_: pytest.fail("a study was made"))
        assert sweep(study, tmp_path / "cut", **GRID, **DRAWS).csv() == whole[1].csv()


def test_values_seeds_and_draws_can_be_added(
    whole: tuple[Path, SweepResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(study, tmp_path, parameters={"rows": [120], "feature": ["half"]}, draws=600, exact=False)
    for options, rounds in (
        ({"parameters": {"rows": [120], "feature": ["half"]}, "seeds": (0, 7), "draws": 600}, 4),
        ({"parameters": {"rows": [120], "feature": ["half"]}, "seeds": (0, 7), "draws": 1100}, 4),
        ({**GRID, "parameters": {"rows": [120, 60], "feature": ["half", "third"]}, "draws": 1100}, 36),
    ):
        with monkeypatch.context() as patch:
            drawn = count_draws(patch)
            result = sweep(study, tmp_path, **options, exact=False)
            assert len(drawn) == rounds and result.status.is_whole
    grown = {row[:-1] for row in map(tuple, result.to_dataframe()[result.to_dataframe().rows == 60].to_numpy())}
    frame = whole[1].to_dataframe()
    assert grown == {row[:-1] for row in map(tuple, frame[frame.rows == 60].to_numpy())}
    assert not [path for path in tmp_path.rglob("*.json") if path.parent.name == "0" and len(path.name.split("-")) > 2]
    assert len(list(tmp_path.glob("studies/*/0/*.json"))) == 24  # none of what was asked for before is left


def test_a_point_that_fails_stops_no_other_and_is_tried_again(tmp_path: Path) -> None:
    broken = ["study", "hypothesis", "node"]

    def make(rows: int) -> Study:
        made = study(60)
        if rows == 1 and "study" in broken:
            raise ZeroDivisionError("no rows")
        if rows == 2 and "hypothesis" in broken:
            bad = Hypothesis("sign", made.hypotheses[1].graph, made.hypotheses[1].data, Claim("nowhere"))
            return replace(made, hypotheses=(made.hypotheses[0], bad, made.hypotheses[2]))
        return made

    told = list[str]()
    result = sweep(make, tmp_path, parameters={"rows": [1, 2, 3]}, **DRAWS, tell=told.append)
    assert result.status.has_failed and not result.status.is_whole
    assert result.status.count() == {"done": 5, "running": 0, "failed": 2, "waiting": 0, "unknown": 0}
    study_failed, point_failed = result.failed
    assert "ZeroDivisionError: no rows" in study_failed and "rows=1" in study_failed
    assert "'sign'" in point_failed and "nowhere" in point_failed and "rows=2" in point_failed
    assert sum("failed" in line for line in told) == 2
    table = result.status.table()
    states = [row[-1] for row in table.rows]
    assert states == ["failed", "done", "failed", "done", "done", "done", "done"]
    broken.clear()
    again = sweep(make, tmp_path, parameters={"rows": [1, 2, 3]}, **DRAWS)
    assert again.status.is_whole and again.failed == []
    assert not list(tmp_path.rglob("*failed.json"))


def test_hypotheses_that_are_together_share_a_folder(whole: tuple[Path, SweepResult], tmp_path: Path) -> None:
    for together, folders_of in ((0, 1), (2, 2)):
        result = sweep(study, tmp_path / str(together), together=together, parameters={"rows": [60]}, **DRAWS)
        assert len(list((tmp_path / str(together)).rglob("manifest.json"))) == folders_of
        own = sweep(study, tmp_path / f"own-{together}", parameters={"rows": [60]}, **DRAWS)
        assert result.csv() == own.csv()
    chosen = sweep(study, tmp_path / "some", hypotheses=("sign",), parameters={"rows": [60]}, **DRAWS)
    assert [row for row in own.rows if row.hypothesis == "sign"] == list(chosen.rows)
    nobody = sweep(study, tmp_path / "none", hypotheses=("sing",), parameters={"rows": [60]}, **DRAWS)
    assert "has no hypothesis 'sing'; it has 'exact', 'sign', 'nothing'" in nobody.failed[0]


# What does not belong there


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parameters": {"raws": [1]}}, "has no parameter 'raws'; did you mean \"rows\"?"),
        ({"parameters": {"rows": []}}, "parameter 'rows' has no values"),
        ({"parameters": {"rows": [60, 60]}}, "parameter rows 60 is there twice: two points would be the same"),
        ({"seeds": ()}, "seeds are none"),
        ({"seeds": (1, 2, 1)}, "seed 1 is there twice"),
        ({"seeds": (-1,)}, "seed is -1; expected 0 or more"),
        ({"hypotheses": ("sign", "sign")}, "hypothesis 'sign' is there twice"),
        ({"together": -1}, "together is -1"),
        ({"draws": 0}, "draws"),
        ({"level": 2.0}, "level is 2.0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(options: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        sweep(study, tmp_path / "new", **{**DRAWS, **options})
    assert words in " ".join(caught.value.faults)
    assert not (tmp_path / "new").exists()


def test_values_that_read_as_the_same_are_two_points_that_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("def study(scale: float = 1.0):\n    raise RuntimeError('made')\n")
    with pytest.raises(StudyError, match=r"two points would be the same: scale=1 and scale=1\.0; give one of them"):
        sweep(file, tmp_path / "new", parameters={"scale": ["1", "2", "1.0"]}, **DRAWS)
    with pytest.raises(StudyError, match="parameter scale='many'"):
        sweep(str(file), tmp_path / "new", parameters={"scale": ["many"]}, **DRAWS)
    with pytest.raises(StudyError, match="no study 'nothing'"):
        sweep("nothing", tmp_path / "new", **DRAWS)
    with pytest.raises(StudyError, match="of a study that is made; give a function of it"):
        sweep(study(), tmp_path / "new", parameters={"rows": [1]}, **DRAWS)
    with pytest.raises(StudyError, match="not int"):
        sweep(3, tmp_path / "new", **DRAWS)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_another_sweep_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    options: dict[str, Any] = {"parameters": {"rows": [60]}, "hypotheses": ("sign",), **DRAWS}
    sweep(study, tmp_path / "a", **options, seeds=(0, 1))
    before = list_files(tmp_path / "a")

    def refused(*words: str, of: Any = study, **changed: Any) -> None:
        with pytest.raises(StudyError) as caught:
            sweep(of, tmp_path / "a", **{**options, "seeds": (0, 1), **changed})
        faults = " ".join(caught.value.faults)
        assert all(each in faults for each in (*words, "keeps another sweep; name another folder")), faults
        assert list_files(tmp_path / "a") == before

    refused("the study is another: study there, line here", of=study(60), parameters={})
    refused("parameter rows has 60 there, not here", "parameter 'scale' here", parameters={"rows": [3], "scale": [1]})
    refused("seeds 1 there, not here", seeds=(0,))
    refused("the hypotheses that were chosen are others: sign there, all here", hypotheses=())
    refused("so many hypotheses are one point", together=2)
    refused("what is drawn of the population", data_uncertainty=True)
    scrub(study(60), **DRAWS, out=tmp_path / "b")
    with pytest.raises(StudyError, match="holds other things than a sweep"):
        sweep(study, tmp_path / "b", **options)


def test_a_study_that_has_changed_is_not_mixed_in(tmp_path: Path) -> None:
    def make(rows: int) -> Study:
        return study(rows + changed, scale=1.0)

    changed = 0
    sweep(make, tmp_path, parameters={"rows": [60]}, seeds=(0,), **DRAWS)
    changed = 1
    found = sweep(make, tmp_path, parameters={"rows": [60]}, seeds=(0, 1), **DRAWS)
    assert found.status.count() == {"done": 3, "running": 0, "failed": 3, "waiting": 0, "unknown": 0}
    assert "the study has changed since points of it were made: the data are others" in found.failed[0]
    assert {row.seed for row in found.rows} == {0}


def test_damaged_files_are_named_and_made_again_if_the_user_says_so(tmp_path: Path, whole: Any) -> None:
    options: dict[str, Any] = {"parameters": {"rows": [60], "feature": ["half"]}, **DRAWS}
    right = sweep(study, tmp_path, **options)
    (place,) = SweepFiles(tmp_path).places(right.status.plan)
    first, second = (place.path / "0" / place.name_of(number) for number in (0, 1))
    spoil(first)
    second.write_bytes((place.path / "0" / place.name_of(2)).read_bytes())
    with pytest.raises(DamagedError) as caught:
        sweep(study, tmp_path, **options)
    assert str(first) in caught.value.faults[0] and "is of another place: of point 2" in caught.value.faults[1]
    rest = read_sweep(SweepFiles(tmp_path), without_damaged=True)
    assert rest.rows == right.rows[8:] and len(rest.left_out) == 2
    again = sweep(study, tmp_path, **options, set_aside=True)
    assert again.csv() == right.csv() and not again.left_out
    point = place.points(place.made())[1]  # type: ignore[arg-type]
    spoil(RunFiles(place.folder_of(point)).file_of("sign", 0, 1))
    second.unlink()
    assert "0-1.nc' is damaged" in sweep(study, tmp_path, **options).failed[0]
    assert sweep(study, tmp_path, **options, set_aside=True).csv() == right.csv()
    spoil(tmp_path / "sweep.json")
    with pytest.raises(DamagedError, match=r"sweep\.json"):
        sweep(study, tmp_path, **options)


# Several processes


def test_shards_in_one_folder_and_apart_come_to_what_one_sweep_gives(
    whole: tuple[Path, SweepResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = count_draws(monkeypatch)
    for i in (2, 1, 3):
        last = sweep(study, tmp_path / "one", **GRID, **DRAWS, shard=(i, 3))
        part = sweep(study, tmp_path / str(i), **GRID, **DRAWS, shard=(i, 3))
        assert not part.status.is_whole and part.status.count()["done"] == 8
    assert last.csv() == whole[1].csv() and tell_sweeps_apart(tmp_path / "one", whole[0]) == []
    assert len(drawn) == 2 * 48
    merged = join_sweeps([tmp_path / "1", tmp_path / "2", tmp_path / "3"], tmp_path / "merged")
    assert merged.csv() == whole[1].csv() and read_rounds(tmp_path / "merged") == read_rounds(whole[0])
    monkeypatch.setattr(driving.Sweeper, "_make", lambda *_: pytest.fail("a study was made"))
    assert sweep(study, tmp_path / "merged", **GRID, **DRAWS).status.is_whole


def test_sweeps_of_other_hypotheses_seeds_and_values_are_put_together(
    whole: tuple[Path, SweepResult], tmp_path: Path
) -> None:
    common: dict[str, Any] = {**DRAWS, "parameters": {"rows": [60], "feature": ["half"]}}
    sweep(study, tmp_path / "a", **common, hypotheses=("sign",), seeds=(0, 7))
    sweep(study, tmp_path / "b", **common, hypotheses=("nothing", "exact"), seeds=(0,))
    other = {**common, "parameters": {"rows": [60], "feature": ["third"]}, "draws": 1000}
    sweep(study, tmp_path / "c", **other, hypotheses=("nothing",), seeds=(7,))
    found = join_sweeps([tmp_path / name for name in "abc"], tmp_path / "all")
    count = found.status.count()
    assert (count["done"], count["waiting"]) == (4, 8) and count["unknown"] == 0  # fewer draws than are asked for now
    whole_rows = {(row.parameters, row.seed, row.hypothesis, row.target): row for row in whole[1].rows}
    assert all(row == whole_rows[row.parameters, row.seed, row.hypothesis, row.target] for row in found.rows)
    options = {**GRID, "parameters": {"rows": [60], "feature": ["half", "third"]}}
    rest = sweep(study, tmp_path / "all", **options, **DRAWS, hypotheses=("sign", "nothing", "exact"))
    assert sorted(map(repr, rest.rows)) == sorted(repr(row) for row in whole[1].rows if row.parameters[0] == 60)


def test_what_does_not_belong_together_is_not_merged(tmp_path: Path) -> None:
    common: dict[str, Any] = {**DRAWS, "hypotheses": ("sign",)}
    sweep(study, tmp_path / "a", **common, parameters={"rows": [60]})
    sweep(study, tmp_path / "b", **common, parameters={"scale": [0.5]})
    sweep(lambda rows: study(61), tmp_path / "c", **common, parameters={"rows": [60]})
    scrub(study(60), **DRAWS, out=tmp_path / "d")
    sweep(study, tmp_path / "e", **DRAWS, together=2, parameters={"rows": [60]})
    for other, words in (
        ("b", "parameter 'rows' in one, not in the other"),
        ("c", "the study is another"),
        ("d", "is no folder of a sweep"),
        ("e", r"so many hypotheses are one point \(--together\): 1 there, 2 here"),
    ):
        with pytest.raises(StudyError, match=words):
            join_sweeps([tmp_path / "a", tmp_path / other], tmp_path / "new")
        assert not (tmp_path / "new").exists()
    with pytest.raises(StudyError, match="is there and not empty"):
        join_sweeps([tmp_path / "a"], tmp_path / "b")


def test_many_points_are_kept_by_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "BLOCK", 4)
    for module in (driving, pscrub.sweeps.status, pscrub.sweeps.results):
        monkeypatch.setattr(module, "BLOCK", 4)
    options: dict[str, Any] = {"draws": 10, "exact": False, "hypotheses": ("sign",)}
    result = sweep(study(60), tmp_path, seeds=range(9), **options)
    (place,) = SweepFiles(tmp_path).places(result.status.plan)
    assert sorted(path.name.partition("-")[0] for path in place.path.glob("*.whole")) == ["0", "1"]
    assert result.status.is_whole and len(result.rows) == 36
    listed = Counter[int]()
    real = folders.Place.names_in
    monkeypatch.setattr(folders.Place, "names_in", lambda self, block: (listed.update([block]), real(self, block))[1])
    more = sweep(study(60), tmp_path, seeds=range(13), **options)
    assert more.status.is_whole and set(listed) == {2, 3}  # whole ones are not looked into
    assert more.rows[:36] == result.rows


# What it came to


def test_the_table_as_csv_pandas_and_xarray(whole: tuple[Path, SweepResult], tmp_path: Path) -> None:
    result = whole[1]
    lines = result.csv().splitlines()
    assert lines[0] == "rows,feature,seed,hypothesis,target,estimate,low,high,draws,method"
    assert len(lines) == 1 + len(result.rows)
    frame, data = result.to_dataframe(), result.to_xarray()
    assert list(frame.columns) == lines[0].split(",") and len(frame) == len(result.rows)
    assert data.sizes == {"rows": 2, "feature": 2, "seed": 2, "hypothesis": 3, "target": 4}
    for row in result.rows:
        at = {"rows": row.parameters[0], "feature": row.parameters[1], "seed": row.seed}
        cell = data.sel(at | {"hypothesis": row.hypothesis, "target": row.target})
        assert float(cell.estimate) == row.estimate and float(cell.low) == row.low and int(cell.draws) == row.draws
    assert data.attrs["level"] == 0.95
    assert result.write_csv(tmp_path / "t.csv").read_text() == result.csv()
    table = result.table()
    assert len(table.rows) == 24 and table.head[:4] == ("rows", "feature", "seed", "hypothesis")
    assert "24 done" in repr(result) and "<table>" in result._repr_html_()


def test_what_is_missing_or_undefined_is_nan(tmp_path: Path) -> None:
    def make(seed: int) -> Study:
        if seed == 3:
            raise ValueError("no")
        return study(60)

    result = sweep(make, tmp_path, parameters={"seed": [2, 3]}, hypotheses=("sign",), **DRAWS)
    data = result.to_xarray()
    assert data.sizes["seed of the study"] == 2 and math.isnan(data.estimate.sel({"seed of the study": 3}).max())
    undefined = sweep("sin_cos", tmp_path / "sin", hypotheses=("x does not matter",), draws=100)
    assert undefined.rows[0].target == "loss recovered, %" and math.isnan(undefined.rows[0].estimate)
    assert undefined.csv().splitlines()[1].startswith('0,x does not matter,"loss recovered, %",,,')
    assert undefined.table().rows[0][2] == "undefined"


def test_values_in_the_population_are_targets_of_their_own(tmp_path: Path) -> None:
    result = sweep(study(60), tmp_path / "a", hypotheses=("sign",), data_uncertainty=True, draws=1000)
    expected = scrub(study(60).hypotheses[1], data_uncertainty=True, draws=1000)["sign"]
    assert expected.data is not None and expected.data.both.recovered is not None
    found = {row.target: row for row in result.rows}
    row = found["loss recovered in the population, %"]
    assert (row.estimate, row.low, row.high) == (
        expected.data.both.recovered.value,
        expected.data.both.recovered.low,
        expected.data.both.recovered.high,
    )
    assert len(found) == 8
    assert join_sweeps([tmp_path / "a"], tmp_path / "b").csv() == result.csv()
