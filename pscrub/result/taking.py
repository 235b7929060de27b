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
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pscrub.result.locks import Locks

PAUSE = 0.2
"""Seconds between looks at what others are at work on."""
SETTLED = 2.0
"""Seconds for which a folder has to be as it was before a listing of it counts: times of files are no finer on some."""
MANY = 16
"""Pieces from which on it is listed who has which, once a lock is another's, and not each lock tried."""
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
        allow: asked about a piece of which those who were at work on it ended: whether it is to be made here; None if
            it is left to others, False if it is given up.
        passes: pieces of which there is a lock are passed over unasked once another is met, be its owner alive or not:
            they are among those that others are at work on, for whoever comes back to these.
    """

    locks: Locks
    listing: Listing
    lock: Callable[[str], str]
    make: Callable[[str], None]
    take: Callable[[str], None]
    dice: random.Random = field(default_factory=random.Random)
    allow: Callable[[str], bool | None] = lambda _: True
    passes: bool = True

    def work(self, names: Sequence[str]) -> list[str]:
        """Make all pieces that are missing and that nobody is at work on; those that others are at work on.

        Args:
            names: of the pieces that are wanted, in the order in which one process makes them.
        """
        held = list[str]()
        for name in self.claim(names, held):
            self._make(name)
        return held

    def wait(self, held: Collection[str], tell: Callable[[str, int], None]) -> None:
        """Return when all pieces are made: by others, or, where these give up, here.

        Args:
            held: those that others are at work on.
            tell: told one of them, and how many there are, at each look.
        """
        missing, before = dict.fromkeys(held), len(held)
        while missing:
            for name in self.claim_again(missing):
                self._make(name)
            if missing and len(missing) == before:
                tell(next(iter(missing)), len(missing))
                time.sleep(PAUSE)
            before = len(missing)

    def claim(self, names: Sequence[str], held: list[str]) -> Iterator[str]:
        """Pieces that are missing and that nobody is at work on, each locked, for whoever makes it to release.

        Args:
            names: of the pieces that are wanted, in the order in which one process makes them.
            held: those that others are at work on are added to it.
        """
        missing = self._take_new(dict.fromkeys(names))
        met, left = list[str](), deque(missing)
        while left:
            name = left.popleft()
            if name not in missing:
                continue
            match self._claim(name):
                case None:
                    met.append(name)
                    if self.passes and len(left) >= MANY:
                        left = self._pass_over(left, met)
                    if left:
                        left.rotate(-self.dice.randrange(len(left)))
                case True:
                    del missing[name]
                    yield name
                case False:  # and so, most likely, are those after it
                    del missing[name]
                    missing = self._take_new(missing)
        held += [name for name in met if name in missing]

    def _pass_over(self, left: deque[str], met: list[str]) -> deque[str]:
        """Those of which there is no lock; the others are added to `met`."""
        taken, free = self.locks.taken(), deque[str]()
        for name in left:
            (met if self.lock(name) in taken else free).append(name)
        return free

    def claim_again(self, missing: dict[str, None]) -> Iterator[str]:
        """A few of the pieces that others were at work on, if these gave up, each locked; what is made is taken.

        Args:
            missing: pieces that are; those that are not any more, or are locked now, are taken out.
        """
        self._take_new(missing)
        for name in self.dice.sample(list(missing), min(TRIED, len(missing))):
            if (found := self._claim(name)) is not None:
                del missing[name]
                if found:
                    yield name

    def _take_new(self, missing: dict[str, None]) -> dict[str, None]:
        """Those that are still missing; `take` is told of the others."""
        for name in self.listing.look():
            if name in missing:
                self.take(name)
                del missing[name]
        return missing

    def _claim(self, name: str) -> bool | None:
        """Whether a piece is ours to make, or made or given up (False); None if it is another's."""
        lock = self.lock(name)
        if not self.locks.take(lock):
            return None
        if (self.listing.folder / name).exists():
            self.locks.release(lock)
            self.take(name)
            return False
        if self.locks.is_taken_over(lock) and not (allowed := self.allow(name)):
            self.locks.give_back(lock)
            return allowed
        return True

    def _make(self, name: str) -> None:
        try:
            self.make(name)
        finally:
            self.locks.release(self.lock(name))
