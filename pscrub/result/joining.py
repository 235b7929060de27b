"""One folder out of several whose rounds were drawn apart: by shards, on machines that share nothing, or by seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

import torch

from pscrub.errors import DamagedError, StudyError
from pscrub.records import write_whole
from pscrub.result.adding import add_up, read_result
from pscrub.result.folder import EARLIER, RunFiles
from pscrub.result.keeping import KeptRound
from pscrub.result.manifest import Manifest
from pscrub.result.merging import merge
from pscrub.result.result import StudyResult
from pscrub.result.sharing import RunFolder


def join_folders(folders: Sequence[Path], out: Path, without_damaged: bool = False) -> StudyResult:
    """The result of several folders' rounds together; the rounds are put into a new folder, if they are of one run.

    Folders of one study, data, model and seed are of one run, whichever rounds and hypotheses each has: the new folder
    can be gone on with. Those of other seeds, or with a result only, are merged as results are (`merge`), and the new
    folder has that result alone.

    Args:
        folders: what is joined; they stay as they are.
        out: the new folder.
        without_damaged: leave damaged files out; else they are refused.

    Raises:
        StudyError: what is there does not belong together, with all that shows it; or `out` is there already.
        DamagedError: with every file that is not as it was written.
    """
    if out.exists() and any(out.iterdir()):
        raise StudyError(f"'{out}' is there and not empty; expected a new folder to merge into")
    files = [RunFiles(folder) for folder in folders]
    missing = [f"no folder '{each.path}'" for each in files if not each.path.is_dir()]
    if missing:
        raise StudyError(missing)
    if all(each.is_run for each in files) and len({each.identity for each in files}) == 1:
        return _unite(files, out, without_damaged)
    results = [read_result(each, without_damaged) for each in files]
    found = reduce(merge, results)
    out.mkdir(parents=True, exist_ok=True)
    return found


def _unite(files: Sequence[RunFiles], out: Path, without_damaged: bool) -> StudyResult:
    manifest = reduce(Manifest.add, (each.manifest for each in files))
    asked = [each.manifest.asked for each in files]
    if all(each.draws is not None for each in asked):
        manifest = replace(manifest, asked=max(asked, key=lambda each: each.draws or 0))
    faults = list[str]()
    with RunFolder(out) as into:
        manifest.write(out, into.working)
        for each in files:
            if each.has_rounds:
                into.agree(each.study())
            if (each.path / EARLIER).exists():
                _copy(each.path / EARLIER, out / EARLIER, into)
            for name in each.manifest.names:
                try:
                    begun = each.begun(name)
                    if begun is not None:
                        into.begin(name, begun.law_hash, begun.asked, lambda begun=begun: begun)  # type: ignore[misc]
                except DamagedError as error:
                    faults += error.faults
                for seed, index, path in each.files_of(name):
                    try:
                        kept, there = each.read_round(name, path), into.file_of(name, seed, index)
                    except DamagedError as error:
                        faults += error.faults
                        continue
                    if there.exists():
                        _check_same(kept, into.read_round(name, there), path)
                    else:
                        there.parent.mkdir(parents=True, exist_ok=True)
                        _copy(path, there, into)
        if faults and not without_damaged:
            raise DamagedError([*faults, "merge the rest with --without-damaged"])
        return add_up(into, without_damaged=True)


def _copy(path: Path, there: Path, into: RunFolder) -> None:
    try:
        write_whole(there, lambda file: file.write(path.read_bytes()), into.working)
    except OSError as error:
        raise StudyError(f"cannot write to '{there.parent}', for {there.name}: {error.strerror or error}") from error


def _check_same(kept: KeptRound, there: KeptRound, path: Path) -> None:
    same = kept.name == there.name and torch.equal(kept.draws.rows, there.draws.rows)
    f, others = (each.draws.losses if each.name.kept else each.draws.sample.mean for each in (kept, there))
    if not same or not torch.allclose(torch.as_tensor(f), torch.as_tensor(others), rtol=1e-4, equal_nan=True):
        raise StudyError(f"'{path}' has other draws than another folder has for the same round of '{kept.hypothesis}'")
