"""Rounds of one hypothesis that processes share by a folder: which of them are to be made here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pscrub.errors import StudyError
from pscrub.progress import Progress
from pscrub.result.draws import Round
from pscrub.result.folder import RunFiles
from pscrub.result.keeping import Fault, KeptRound, Offer
from pscrub.result.locks import Locks
from pscrub.result.taking import PAUSE, Listing, Sharing

LIVES = 2
"""Helpers of one command that may end while they are at work on a round, before it is given up."""
LONGER, LONGEST = 1.2, 10.0
"""How much longer each wait is than the one before, and the most seconds of one."""


@dataclass(frozen=True)
class Place:
    """Where rounds are shared, and who this process is there.

    Args:
        files: of the folder.
        locks: of this process.
        is_mine: whether a round of a hypothesis is of this shard.
        command: the process that this one helps, or its own if it helps none.
        is_helped: whether others help this one.
        progress: told of waiting for others.
    """

    files: RunFiles
    locks: Locks
    is_mine: Callable[[str, Round], bool]
    command: int
    is_helped: Callable[[], bool]
    progress: Progress


class Shared(Offer):
    """Rounds of a hypothesis that processes share by a folder.

    Args:
        place: where.
        hypothesis: its name.
        owed: the rounds.
        take: told of those that are there.
    """

    def __init__(self, place: Place, hypothesis: str, owed: Sequence[Round], take: Callable[[KeptRound], None]) -> None:
        super().__init__(owed)
        self.place, self.hypothesis, self.take = place, hypothesis, take
        mine = [each for each in owed if place.is_mine(hypothesis, each)]
        self.is_short = len(mine) < len(owed)
        self.rounds = {place.files.file_of(hypothesis, each.seed, each.index).name: each for each in mine}
        self.folder = place.files.folder_of(hypothesis)
        self._lock = partial(name_lock, self.folder)
        self._sharing = Sharing(
            place.locks, Listing(self.folder), self._lock, _make_nothing, self._take, allow=self._allow
        )
        self._held: dict[str, None] = {}
        self._pause = PAUSE

    @property
    def held(self) -> int:
        """How many others are at work on."""
        return len(self._held)

    def ours(self) -> Iterator[Round]:
        """Those that nobody is at work on, each locked; what is finished is taken on the way."""
        held = list[str]()
        for name in self._sharing.claim(list(self.rounds), held):
            yield self.rounds[name]
        self._held |= dict.fromkeys(held)

    def again(self) -> Iterator[Round]:
        """Some of those that others were at work on and gave up, each locked; what they finished is taken."""
        for name in self._sharing.claim_again(self._held):
            self._pause = PAUSE
            yield self.rounds[name]

    def wait(self) -> None:
        """Wait a little, and say for whom."""
        *_, holder = "another process", *self.place.locks.holders(self._lock(next(iter(self._held))))
        self.place.progress(f"waiting for {holder}", 0, len(self._held))
        time.sleep(self._pause)
        self._pause = min(LONGER * self._pause, LONGEST)

    def _take(self, name: str) -> None:
        self.take(self.place.files.read_round(self.hypothesis, self.folder / name))

    def _allow(self, name: str) -> bool | None:
        """A round that helpers ended at is left to others, that the command may go on, and in the end given up."""
        holders = self.place.locks.holders(self._lock(name))
        lost = [owner for owner in holders if owner.helps == self.place.command and owner.is_gone]
        if len(lost) >= LIVES:
            told = " and ".join(map(str, lost))
            cause = StudyError(f"workers ended while they were at work on it: {told}")
            self.faults.append((self.rounds[name], Fault(cause, str(lost[-1]))))
            self.is_short = True
            return False
        return None if lost and self.place.is_helped() else True


def name_lock(folder: Path, file: str) -> str:
    """The name of a round's lock.

    Args:
        folder: of its hypothesis.
        file: its name there.
    """
    return f"{folder.name}-{file.removesuffix('.nc')}"


def _make_nothing(_: str) -> None:
    raise AssertionError("rounds are made by whoever they are offered to")
