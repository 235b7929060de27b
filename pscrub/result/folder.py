"""Reading a run folder: what a run has found, round by round, in sealed files.

    manifest.json            what the rounds are of, and what was asked for last
    study.nc                 f on D and what else all hypotheses are held against
    rounds/HYPOTHESIS/       begun.nc: its baselines, warnings, and E_scrubbed where it needs no draws
                             SEED-INDEX.nc: a finished round of draws
    earlier.nc               the result that the rounds add to, if `after` was given
    working/                 locks and files being written; gone when nobody is at work

A round is written once, whole or not at all, sealed, and says what it is of. All else can be made from the rounds, and
`result.nc`, `result.json`, `table.md` and `report.html` beside them are.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from pscrub.errors import DamagedError
from pscrub.records import read_record
from pscrub.result import manifest as manifests
from pscrub.result.draws import Bar
from pscrub.result.keeping import Begun, KeptRound
from pscrub.result.manifest import Manifest
from pscrub.result.result import MAKERS, StudyResult

READS = {**MAKERS, "Begun": Begun, "KeptRound": KeptRound}
"""What stands in a folder's files."""
WORKING, ROUNDS, DAMAGED = "working", "rounds", "damaged"
BEGUN, STUDY, EARLIER = "begun.nc", "study.nc", "earlier.nc"


class RunFiles:
    """The files of a run folder, to be read.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._manifest: Manifest | None = None
        self._rounds: dict[Path, KeptRound] = {}
        self._bars = defaultdict[str, Bar](Bar)

    @property
    def is_run(self) -> bool:
        """Whether a run was begun there."""
        return (self.path / manifests.NAME).exists()

    @property
    def has_rounds(self) -> bool:
        """Whether a run has come so far that there is something to add up."""
        return self.is_run and (self.path / STUDY).exists()

    @property
    def manifest(self) -> Manifest:
        """What it is of, as it was when it was read first.

        Raises:
            StudyError: no run was begun there, or it cannot be read.
        """
        if self._manifest is None:
            self._manifest = Manifest.read(self.path)
        return self._manifest

    def forget_manifest(self) -> None:
        """Have it read again: what is asked for may have changed."""
        self._manifest = None

    def sizes(self) -> list[tuple[Path, int]]:
        """The files of the rounds that were read, each with its draws."""
        return [(path, kept.name.size) for path, kept in self._rounds.items()]

    @property
    def identity(self) -> str:
        """What rounds say they are of."""
        return self.manifest.identity

    def folder_of(self, hypothesis: str) -> Path:
        """Where a hypothesis's rounds are: its name as far as file systems take it, and what tells it from others."""
        plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", hypothesis).strip("._")[:40]
        return self.path / ROUNDS / f"{plain}-{hashlib.sha256(hypothesis.encode()).hexdigest()[:8]}"

    def file_of(self, hypothesis: str, seed: int, index: int) -> Path:
        """The file of a round."""
        return self.folder_of(hypothesis) / f"{seed}-{index}.nc"

    def files_of(self, hypothesis: str) -> list[tuple[int, int, Path]]:
        """Seed, index and file of each finished round, in that order."""
        found = []
        folder = self.folder_of(hypothesis)
        for path in folder.iterdir() if folder.is_dir() else ():
            if name := re.fullmatch(r"(\d+)-(\d+)\.nc", path.name):
                found.append((int(name[1]), int(name[2]), path))
        return sorted(found)

    def begun(self, hypothesis: str) -> Begun | None:
        """What a hypothesis's draws are concluded from, if that was found.

        Raises:
            DamagedError: the file is not as it was written, or of another run or hypothesis.
        """
        path = self.folder_of(hypothesis) / BEGUN
        if not path.exists():
            return None
        found = read_record(path, READS)
        if not isinstance(found, Begun) or (found.hypothesis, found.law_hash) != (
            hypothesis,
            self.manifest.laws[hypothesis],
        ):
            raise DamagedError(f"'{path}' is not of hypothesis '{hypothesis}' of this run")
        return found

    def read_round(self, hypothesis: str, path: Path) -> KeptRound:
        """A round; of the worst draws those that may be among the worst of all that were read.

        Raises:
            DamagedError: the file is not as it was written, or of another run, hypothesis or round.
        """
        if path in self._rounds:  # a round never changes
            return self._rounds[path]
        found = read_record(path, READS)
        if not isinstance(found, KeptRound):
            raise DamagedError(f"'{path}' is no round of draws")
        law, told = self.manifest.laws[hypothesis], (found.hypothesis, found.law_hash, found.run)
        name = f"{found.name.seed}-{found.name.index}.nc"
        if told != (hypothesis, law, self.identity) or name != path.name:
            raise DamagedError(
                f"'{path}' is of another place: it holds {name.removesuffix('.nc')} of hypothesis "
                f"'{found.hypothesis}' of run {found.run or 'none'}, not of run {self.identity}"
            )
        found = replace(found, draws=self._bars[hypothesis].thin(found.draws))
        self._rounds[path] = found
        return found

    def study(self) -> StudyResult:
        """What all hypotheses are held against: a result without any.

        Raises:
            DamagedError: the file is not as it was written, or of another run.
        """
        found = read_record(self.path / STUDY, READS)
        if not isinstance(found, StudyResult) or found.reference.data_hash != self.manifest.data:
            raise DamagedError(f"'{self.path / 'study.nc'}' is not of this run")
        return found
