"""Writing a run folder: rounds drawn by several processes, each by one of them, none left out.

Nothing is in memory alone for longer than a round takes. What a process finds there it takes as its own; what another
is at work on it leaves until nothing else is left to do.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pscrub.errors import DamagedError, StudyError
from pscrub.progress import Progress, quiet
from pscrub.records import TEMPORARY, refuse_disk, write_record
from pscrub.result import manifest as manifests
from pscrub.result.adding import read_result
from pscrub.result.draws import Round
from pscrub.result.folder import BEGUN, DAMAGED, EARLIER, ROUNDS, STUDY, WORKING, RunFiles
from pscrub.result.keeping import Begun, KeptRound, Offer, Tell
from pscrub.result.locks import Locks, remove
from pscrub.result.manifest import Manifest
from pscrub.result.merging import TOLERANCE, tell_baselines_apart
from pscrub.result.offering import Place, Shared, name_lock
from pscrub.result.result import StudyResult


class RunFolder(RunFiles):
    """A folder that keeps a run's rounds, shared with whoever else runs the same into it.

    Args:
        path: of the folder; it is made where it is not there.
        after: the earlier result that the rounds add to.
        shard: (i, n): only the i-th of n parts of the rounds is drawn here, i from 1; the others are left to others.
        set_aside: damaged files are moved into `damaged/`, and made again; else they are refused.
        progress: told of waiting for others.
        work: called when it is known that there are rounds to draw.
        helps: the process that started this one to help it, 0 if none did.
    """

    def __init__(
        self,
        path: Path | str,
        after: StudyResult | None = None,
        shard: tuple[int, int] | None = None,
        set_aside: bool = False,
        progress: Progress = quiet,
        work: Callable[[], None] = lambda: None,
        helps: int = 0,
    ) -> None:
        super().__init__(path)
        self.earlier, self.shard, self.set_aside, self.progress = after, shard, set_aside, progress
        self.work, self.helps = work, helps
        self.is_helped: Callable[[], bool] = lambda: False
        self._locks: Locks | None = None
        self._inside = 0

    @classmethod
    def of(cls, out: RunFolder | Path | str, after: StudyResult | None) -> RunFolder:
        """The folder itself, or that of a path."""
        found = out if isinstance(out, RunFolder) else cls(out)
        if after is not None:
            found.earlier = after
        return found

    def __enter__(self) -> RunFolder:
        """Be at work in it.

        Raises:
            StudyError: it cannot be written to.
        """
        if not self._inside:
            try:
                self._locks = Locks(self.path / WORKING, self.helps)
            except OSError as error:
                fault = f"cannot write to output folder '{self.path}': {error.strerror or error}"
                raise StudyError(fault) from error
        self._inside += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._inside -= 1
        if not self._inside:
            left = list(self.path.glob(f".*{TEMPORARY}"))  # of results that a killed process was writing
            if self.locks.close():
                for path in left:
                    remove(path)
            self._locks = None
            refuse_disk(error, self.path)

    @property
    def locks(self) -> Locks:
        """Of the folder, while it is entered."""
        assert self._locks is not None, "a run folder is entered before it is worked in"
        return self._locks

    @property
    def working(self) -> Path:
        """Where files are written before they have their place."""
        return self.locks.folder

    def place(self) -> Path:
        """Where files on their way to workers are."""
        return self.working

    def open(self, manifest: Callable[[], Manifest]) -> None:
        """Begin a run there, or go on with the one that is there; finished rounds are read.

        Raises:
            StudyError: it is of another study, law, data or model: with all that differs; or holds other things.
            DamagedError: a file is not as it was written, with every one of which that is so.
        """
        mine = manifest()
        after = self._name_earlier()
        mine = replace(mine, after=after)
        with self.locks.alone(manifests.NAME):
            there = self._read_manifest()
            if there is not None:
                if faults := [*there.tell_apart(mine), *_tell_left_out(there, mine)]:
                    end = f"'{self.path}' keeps another run; name another folder, or start over beside it (--fresh)"
                    raise StudyError([*faults, end])
                mine = there.add(mine)
                changed = mine != there
            else:
                changed = True
                if self.earlier is not None:
                    write_record(self.earlier, self.path / EARLIER, self.working)
            if changed:
                mine.write(self.path, self.working)
            self._manifest = mine
        self.check_files()

    def _read_manifest(self) -> Manifest | None:
        """That of the folder as it is now; None where a run begins."""
        self._manifest = None
        if not self.is_run:
            self._refuse_results_of_before()
            return None
        try:
            return self.manifest
        except DamagedError as error:
            if faults := self._put_aside(self.path / manifests.NAME, error):
                raise DamagedError([*faults, "move it aside, and have it made anew, with --without-damaged"]) from error
            return None

    def _name_earlier(self) -> str:
        """The hash of the earlier result, which is the folder's own where none is given."""
        path = self.path / EARLIER
        if self.earlier is None and self.is_run and path.exists():
            self.earlier = StudyResult.load(path)
        if self.earlier is None:
            return ""
        rounds = [(each.hypothesis, each.law_hash, each.draws.rounds) for each in self.earlier.results]
        return hashlib.sha256(repr((self.earlier.reference.data_hash, rounds)).encode()).hexdigest()[:16]

    def _refuse_results_of_before(self) -> None:
        found = [name for name in ("result.nc", ROUNDS, STUDY) if (self.path / name).exists()]
        if found:
            raise StudyError(
                f"'{self.path}' holds {' and '.join(found)} and no {manifests.NAME}, so that it cannot be gone on "
                "with; name another folder, or start beside it (--fresh); a result of before can be gone on from "
                "into another (--after)"
            )

    def check_files(self) -> None:
        """Read all finished rounds; nothing if they are as they were written, or those that are not are set aside.

        Raises:
            DamagedError: with every file that is damaged, or of another run.
        """
        faults = list[str]()
        for name in self.manifest.names:
            for _, _, path in self.files_of(name):
                try:
                    self.read_round(name, path)
                except DamagedError as error:
                    faults += self._put_aside(path, error)
            try:
                self.begun(name)
            except DamagedError as error:
                faults += self._put_aside(self.folder_of(name) / BEGUN, error)
        if (self.path / STUDY).exists():
            try:
                self.study()
            except DamagedError as error:
                faults += self._put_aside(self.path / STUDY, error)
        if faults:
            raise DamagedError([*faults, "move them aside, and have them made again, with --without-damaged"])

    def finished(self, by: tuple[str, ...], tell: Tell | None) -> StudyResult | None:
        """The result, if no round is owed and all that belongs to it can be read: else what is missing is made."""
        result = self._find_finished(by)
        if result is None:
            self.work()
            return None
        for each in result.results if tell is not None else ():
            tell(each)  # type: ignore[misc]
        return result

    def _find_finished(self, by: tuple[str, ...]) -> StudyResult | None:
        manifest = self.manifest
        begun = [self.begun(name) for name in manifest.names]
        if not self.has_rounds or any(each is None or each.asked != repr(manifest.asked) for each in begun):
            return None
        result = read_result(self)
        lacks = manifest.population and any(each.data is None for each in result.results)
        if result.cut_short or lacks or tuple(each.column for each in result.reference.groups) != by:
            return None
        return result

    def _put_aside(self, path: Path, error: DamagedError) -> Sequence[str]:
        if not self.set_aside:
            return error.faults
        aside = self.path / DAMAGED
        aside.mkdir(exist_ok=True)
        path.rename(aside / f"{path.parent.name}.{path.name}.{time.time_ns()}")
        return ()

    def agree(self, found: StudyResult) -> StudyResult:
        """What all that share the folder hold draws against: the first to come says it, others have to find the same.

        Raises:
            StudyError: f on D is another.
        """
        path = self.path / STUDY
        with self.locks.alone("study"):
            if not path.exists():
                write_record(found, path, self.working)
                return found
        there = self.study()
        before, now = there.reference.losses, found.reference.losses
        scale = max(1.0, float(before.abs().nan_to_num(0, 0, 0).max()))
        if not torch.allclose(now, before, TOLERANCE, TOLERANCE * scale, equal_nan=True):
            row = int((now - before).abs().nan_to_num(torch.inf).argmax())
            raise StudyError(
                f"f on D is another than in '{self.path}': {float(before[row]):.6g} there and {float(now[row]):.6g} "
                f"here on row {row}; name another folder, or start over beside it (--fresh)"
            )
        same = replace(there.reference, groups=found.reference.groups)  # which may be asked for anew
        return replace(found, reference=same, started=there.started)

    def begin(self, name: str, law: str, asked: str, make: Callable[[], Begun]) -> Begun:
        """What a hypothesis's draws are concluded from: as the first found it; made anew for what else is asked for.

        Raises:
            StudyError: baselines are others than they were.
        """
        there = self.begun(name)
        if there is not None and there.asked == asked:
            return there
        made = make()
        if there is not None:
            if faults := tell_baselines_apart(name, there.against, made.against):
                raise StudyError(faults)
            made = replace(made, model=there.model, randomised=there.randomised)
        folder = self.folder_of(name)
        folder.mkdir(parents=True, exist_ok=True)
        with self.locks.alone(f"{folder.name}-begun"):
            now = self.begun(name)
            if now is not None and now.asked == asked:
                return now
            write_record(made, folder / BEGUN, self.working)
        return made

    def kept(self, begun: Begun) -> dict[int, KeptRound]:
        """The finished rounds of a hypothesis, by index; those of others since the run began, too."""
        name = begun.hypothesis
        return {index: self.read_round(name, path) for _, index, path in self.files_of(name)}

    def offer(self, begun: Begun, owed: Sequence[Round], take: Callable[[KeptRound], None]) -> Offer:
        """Those that nobody else is at work on, of this shard; others are taken as they are finished."""
        place = Place(
            self, self.locks, self.is_mine, self.helps or os.getpid(), lambda: self.is_helped(), self.progress
        )
        return Shared(place, begun.hypothesis, owed, take)

    def put(self, begun: Begun, found: KeptRound) -> None:
        """Write a round that was made, and give its lock back."""
        try:
            write_record(found, self.file_of(begun.hypothesis, found.name.seed, found.name.index), self.working)
        finally:
            self.leave(begun, found.name)

    def leave(self, begun: Begun, each: Round) -> None:
        """Give a round's lock back."""
        path = self.file_of(begun.hypothesis, each.seed, each.index)
        self.locks.release(name_lock(path.parent, path.name))

    def is_mine(self, hypothesis: str, each: Round) -> bool:
        """Whether a round is of this shard."""
        if self.shard is None:
            return True
        part, of = self.shard
        return (self.manifest.places[hypothesis] + each.index) % of == part - 1


def _tell_left_out(there: Manifest, mine: Manifest) -> list[str]:
    left = [name for name in there.names if name not in mine.places]
    return [f"hypothesis '{left[0]}'{f' and {len(left) - 1} more' * (len(left) > 1)} there, not here"] if left else []
