"""Work that several processes share, of which each piece leaves a file: who takes what, without asking about all of it.

What is finished is told by listing the folder of these files, which is not done again before it has changed. What
nobody is at work on is taken in order. Where another is at work already, a process goes on from a place picked at
random: so those who come to the same folder soon work on stretches that are far apart, and meet each other as often as
there are stretches, not as there are pieces. Nothing that is made depends on who made it, or when.
"""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pscrub.result.locks import Locks

PAUSE = 0.2
"""Seconds between looks at what others are at work on."""
SETTLED = 2.0
"""Seconds for which a folder has to be as it was before a listing of it counts: times of files are no finer on some."""
TRIED = 8
"""Locks of others that are tried at each look while there is nothing else to do."""


class Listing:
    """The names in a folder, remembered.

    Args:
        folder: which need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = set[str]()
        self._seen = (-1, 0.0)
        self._listed = -1.0

    def look(self) -> list[str]:
        """Those that were not there when it was looked at before, in no order; it is listed if it has changed."""
        try:
            changed = os.stat(self.folder).st_mtime_ns
        except FileNotFoundError:
            return []
        now = time.monotonic()
        if changed != self._seen[0]:
            self._seen = changed, now
        elif self._listed - self._seen[1] > SETTLED:
            return []
        with os.scandir(self.folder) as entries:
            new = [entry.name for entry in entries if entry.name not in self._names]
        self._names.update(new)
        self._listed = now
        return new


@dataclass(frozen=True)
class Sharing:
    """Pieces of work that are shared with other processes.

    Args:
        locks: of this process.
        listing: a new one, of the folder that holds the file of each finished piece, by the piece's name.
        lock: name of a piece -> that of its lock.
        make: makes a piece, and its file, while its lock is held.
        take: told of each piece that another has made.
        dice: picks where to go on.
    """

    locks: Locks
    listing: Listing
    lock: Callable[[str], str]
    make: Callable[[str], None]
    take: Callable[[str], None]
    dice: random.Random = field(default_factory=random.Random)

    def work(self, names: Sequence[str]) -> list[str]:
        """Make all pieces that are missing and that nobody is at work on; those that others are at work on.

        Args:
            names: of the pieces that are wanted, in the order in which one process makes them.
        """
        missing = self._take_new(dict.fromkeys(names))
        held, left = list[str](), deque(missing)
        while left:
            name = left.popleft()
            if name not in missing:
                continue
            match self._try(name):
                case None:
                    held.append(name)
                    if left:
                        left.rotate(-self.dice.randrange(len(left)))
                case True:
                    del missing[name]
                case False:  # and so, most likely, are those after it
                    del missing[name]
                    missing = self._take_new(missing)
        return [name for name in held if name in missing]

    def wait(self, held: Collection[str], tell: Callable[[str, int], None]) -> None:
        """Return when all pieces are made: by others, or, where these give up, here.

        Args:
            held: those that others are at work on.
            tell: told one of them, and how many there are, at each look.
        """
        missing = dict.fromkeys(held)
        while missing := self._take_new(missing):
            some = self.dice.sample(list(missing), min(TRIED, len(missing)))
            done = [name for name in some if self._try(name) is not None]
            for name in done:
                del missing[name]
            if not done:
                tell(some[0], len(missing))
                time.sleep(PAUSE)

    def _take_new(self, missing: dict[str, None]) -> dict[str, None]:
        """Those that are still missing; `take` is told of the others."""
        for name in self.listing.look():
            if name in missing:
                self.take(name)
                del missing[name]
        return missing

    def _try(self, name: str) -> bool | None:
        """Whether a piece was made here, or by another (False); None if another is at work on it."""
        lock = self.lock(name)
        if not self.locks.take(lock):
            return None
        try:
            made = not (self.listing.folder / name).exists()
            if made:
                self.make(name)
        finally:
            self.locks.release(lock)
        if not made:
            self.take(name)
        return made
