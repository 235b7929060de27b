"""Folders whose rounds were drawn apart, as one; and how far a folder has come."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pscrub import DamagedError, StudyError, StudyResult, merge, scrub
from pscrub.cli import main
from pscrub.estimate import stopping
from pscrub.result import making
from pscrub.result.folder import RunFiles
from pscrub.result.joining import join_folders
from pscrub.result.locks import Locks
from pscrub.result.sharing import RunFolder
from pscrub.result.status import find_status
from tests.kills import list_files, strip_times
from tests.result.test_folder import spoil
from tests.result.test_result import study

DRAWS: dict[str, Any] = {"draws": 4600, "exact": False}


@pytest.fixture(autouse=True)
def _small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ROUND", 500)


@pytest.mark.parametrize("parts", [2, 7])
def test_shards_merge_to_what_one_run_gives(parts: int, tmp_path: Path) -> None:
    whole = scrub(study(), **DRAWS, out=tmp_path / "whole")
    folders = [tmp_path / str(i) for i in range(parts)]
    for i, folder in enumerate(folders):
        part = scrub(study(), **DRAWS, out=RunFolder(folder, shard=(i + 1, parts)))
        assert part.cut_short
    every = [path.name for folder in folders for path in folder.rglob("rounds/*/0-*.nc")]
    assert len(every) == 20  # none twice, none missing
    assert max(map(every.count, set(every))) == 2
    found = join_folders(folders, tmp_path / "merged")
    assert strip_times(found) == strip_times(whole)
    assert list_files(tmp_path / "merged") == list_files(tmp_path / "whole")
    again = scrub(study(), **DRAWS, out=tmp_path / "merged")
    assert strip_times(again) == strip_times(whole)


def test_shards_in_one_folder_leave_nothing_and_wait_for_nobody(tmp_path: Path) -> None:
    for i in (3, 1, 2):
        last = scrub(study(), **DRAWS, out=RunFolder(tmp_path, shard=(i, 3)))
    assert strip_times(last) == strip_times(scrub(study(), **DRAWS))


def test_values_in_the_population_come_with_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"draws": 2000, "data_uncertainty": True}
    whole = scrub(study(), **options)
    for i in (1, 2):
        scrub(study(), **options, out=RunFolder(tmp_path / str(i), shard=(i, 2)))
    found = join_folders([tmp_path / "1", tmp_path / "2"], tmp_path / "both")
    assert "the same command again gives them, and draws nothing" in found.notes[-1]
    monkeypatch.setattr(making, "draw_round", lambda *_: pytest.fail("drawn again"))
    assert strip_times(scrub(study(), **options, out=tmp_path / "both")) == strip_times(whole)


def test_folders_with_other_hypotheses_are_put_together(tmp_path: Path) -> None:
    hypotheses = study().hypotheses
    for name, some in (("a", hypotheses[:2]), ("b", hypotheses[2:])):
        scrub(replace(study(), hypotheses=some), **DRAWS, out=tmp_path / name)
    found = join_folders([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert strip_times(found) == strip_times(scrub(study(), **DRAWS))


def test_other_seeds_are_merged_as_results(tmp_path: Path) -> None:
    results = [scrub(study(), **DRAWS, seed=seed, out=tmp_path / str(seed)) for seed in (0, 1)]
    found = join_folders([tmp_path / "0", tmp_path / "1"], tmp_path / "both")
    assert strip_times(found) == strip_times(merge(*results))
    results[0].save(tmp_path / "both" / "result.nc")  # what is there, from before
    assert strip_times(join_folders([tmp_path / "both", tmp_path / "1"], tmp_path / "again")) == strip_times(found)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    scrub(study(), **DRAWS, out=tmp_path / "a")
    scrub(study(feature="third"), **DRAWS, out=tmp_path / "law")
    scrub(study(rows=100), **DRAWS, out=tmp_path / "data")
    for other, words in (
        ("law", "the scrubbing law is another, of 'sign'"),
        ("data", "the results are on different data"),
    ):
        with pytest.raises(StudyError, match=words):
            join_folders([tmp_path / "a", tmp_path / other], tmp_path / "both")
    with pytest.raises(StudyError, match="is there and not empty"):
        join_folders([tmp_path / "a"], tmp_path / "law")
    with pytest.raises(StudyError, match="no folder"):
        join_folders([tmp_path / "a", tmp_path / "nowhere"], tmp_path / "new")
    spoil(RunFiles(tmp_path / "a").file_of("sign", 0, 2))
    with pytest.raises(DamagedError, match=r"0-2\.nc"):
        join_folders([tmp_path / "a"], tmp_path / "one")
    found = join_folders([tmp_path / "a"], tmp_path / "rest", without_damaged=True)
    assert found["sign"].scrubbed.draws == 4100 and found["sign"].cut_short


# How far a folder has come


def test_status_tells_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scrub(study(), **DRAWS, out=RunFolder(tmp_path, shard=(1, 3)))
    found = find_status(RunFiles(tmp_path))
    assert [each.state for each in found.standings] == ["done", "waiting", "waiting"]
    assert [each.draws + each.owed for each in found.standings] == [0, 4600, 4600]
    assert not found.is_done and found.at_work == () and found.speed is None
    score = found.standings[2].recovered
    whole = scrub(study(), **DRAWS, out=tmp_path)["nothing"].recovered
    assert score is not None and whole is not None and "sequence" in score.method
    assert score.low < whole.value < score.high and score.width > whole.width
    done = find_status(RunFiles(tmp_path))
    assert done.is_done and [each.owed for each in done.standings] == [0, 0, 0]
    assert main(["status", str(tmp_path), "--watch"]) == 0  # ends, as all is done
    told = capsys.readouterr().out
    assert "3 of 3 hypotheses done; 0 draws to be made" in told and "Nobody is at work" not in told


def test_status_tells_who_is_at_work_and_how_fast(tmp_path: Path) -> None:
    scrub(study(), **DRAWS, out=tmp_path)
    files, now = RunFiles(tmp_path), time.time()
    for i, (_, _, path) in enumerate(files.files_of("sign")):
        os.utime(path, (now + 60 + i, now + 60 + i))  # a round a second
    for _, _, path in files.files_of("nothing"):
        path.unlink()
    locks = Locks(tmp_path / "working")
    assert locks.take(f"{files.folder_of('nothing').name}-0-0")
    found = find_status(files)
    locks.close()
    assert [each.state for each in found.standings] == ["done", "done", "drawing"]
    assert [owner.pid for owner in found.at_work] == [os.getpid()]
    assert found.speed == pytest.approx((4600 - 500) / 9, rel=1e-3)
    assert any("draws a second; 10 s left" in line for line in found.below())


def test_status_of_what_has_only_begun_or_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert "no run in" in capsys.readouterr().err
    scrub(study(), **DRAWS, out=tmp_path)
    path = RunFiles(tmp_path).file_of("sign", 0, 0)
    spoil(path)
    found = find_status(RunFiles(tmp_path))
    assert found.standings[1].draws == 4100 and str(path) in found.damaged[0]
    (tmp_path / "study.nc").unlink()
    found = find_status(RunFiles(tmp_path))
    assert {each.state for each in found.standings} == {"not begun"} and found.standings[0].owed == 4600


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "own.py"
    folder = str(Path(__file__).parents[2])
    file.write_text(f"import sys\nsys.path.insert(0, {folder!r})\nfrom tests.result.test_result import study\n")
    argv = ["run", str(file), "--draws", "2000", "--draws-only", "--out"]
    for i in (1, 2):
        assert main([*argv, str(tmp_path / str(i)), "--shard", f"{i}/2"]) == 0
    assert main([*argv, str(tmp_path / "whole")]) == 0
    assert main([*argv, str(tmp_path / "whole"), "--fresh"]) == 0
    assert f"into {tmp_path / 'whole-2'}" in capsys.readouterr().err
    out = str(tmp_path / "merged")
    assert main(["merge", str(tmp_path / "1"), str(tmp_path / "2"), "--out", out]) == 0
    assert "2,000" in capsys.readouterr().out
    assert strip_times(StudyResult.load(out)) == strip_times(StudyResult.load(tmp_path / "whole"))
    for wrong in ("0/2", "3/2", "1", "a/b"):
        assert main([*argv, out, "--shard", wrong]) == 2
        assert f"--shard {wrong}: expected i/n with i from 1 to n" in capsys.readouterr().err
    assert main(["run", str(file), "--shard", "1/2", "--out", out]) == 2
    assert "--shard without --draws" in capsys.readouterr().err
    assert main(["run", str(file), "--fresh"]) == 2
    assert "--fresh without --out; expected the folder that keeps the rounds" in capsys.readouterr().err
