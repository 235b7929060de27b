"""Who works on what in a folder that several processes share: lock files that say whose they are.

A lock is a hard link to a file in which its owner says who it is: host, process, and when that began. Linking either
makes the lock with all that is in it or finds one there, on network file systems too. A lock of a process that is no
more is taken over, by making the next in number above it, for which again one linking succeeds: nobody removes a lock
that another might just have made. Whether a process of another host lives cannot be asked; its owner file is touched
while it does, and one that stays as it was for `LEASE` is given up.

No number depends on locks: what a round gives is fixed by its name. They save work being done twice.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

LEASE = 180.0
"""Seconds for which a lock of another host has not been touched after which it is given up."""
TOUCH = 15.0
"""Seconds between touches."""
SOON = 0.05
"""Seconds between tries to take a lock that is held for a moment only."""
SURE = 1.0
"""Seconds for which a process of this host that was found alive is not asked about again."""
OWNER = ".owner"
"""What names of owners' files end in."""


@dataclass(frozen=True)
class Owner:
    """A process.

    Args:
        host: its machine's name, the machine's boot and what numbers its processes, as far as that is known.
        pid: its number.
        started: when, as the system says it: numbers are given again.
        came: to the folder, in seconds since 1970.
        helps: the number of the process that started it to help, 0 if none did.
    """

    host: str
    pid: int
    started: str
    came: float
    helps: int = 0

    @classmethod
    def here(cls, helps: int = 0) -> Owner:
        """This process."""
        return cls(name_host(), os.getpid(), find_start(os.getpid()) or "", time.time(), helps)

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended: a process of this host, of which there is none."""
        if self.host != name_host():
            return False
        started = find_start(self.pid)
        return started is None or bool(self.started and started and started != self.started)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition(' ')[0]}"


@cache
def name_host() -> str:
    """The machine's name, its boot and the numbering of processes, which containers have of their own."""
    told = [socket.gethostname().replace(" ", "_")]
    with suppress(OSError):
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        told.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(told)


def find_start(pid: int) -> str | None:
    """When a process began, "" if that cannot be told, None if there is none of that number."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            state, *others = file.read().rpartition(")")[2].split()
        return None if state in ("Z", "X") else others[18]  # it has ended, and nobody has asked how
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() or None


class Locks:
    """The locks of one process in a folder, which is made, and removed when nobody works there any more.

    Args:
        folder: for locks, owners' files, and files that are being written.
        helps: the process that this one helps, 0 if none.

    Raises:
        OSError: it cannot be written to.
    """

    def __init__(self, folder: Path, helps: int = 0) -> None:
        self.folder, self.helps, self._held = folder, helps, dict[str, int]()
        self._seen: dict[str, tuple[int, float]] = {}
        self._lived: dict[int, float] = {}  # by the file that an owner's locks are: when it was found alive
        self._own = self._begin()
        self.came_ns = self._own.stat().st_mtime_ns  # by the clock of the file system
        self._over = threading.Event()
        threading.Thread(target=self._touch, name="pscrub locks", daemon=True).start()

    def _begin(self) -> Path:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                handle, made = tempfile.mkstemp(dir=self.folder)
                with os.fdopen(handle, "w") as file:
                    json.dump(asdict(Owner.here(self.helps)), file)
                own = Path(made + OWNER)  # an owner's file has been written whole
                os.rename(made, own)
            except FileNotFoundError:  # the last to leave has just removed the folder
                continue
            return own

    def take(self, name: str) -> bool:
        """Whether the lock is ours now; it is not if one who lives has it.

        Args:
            name: of what is locked.
        """
        number = 0
        while True:
            path = self._path(name, number)
            try:
                os.link(self._own, path)
            except FileExistsError:
                if not self._is_given_up(path):
                    return False
                number += 1
                continue
            except FileNotFoundError:  # the last to leave took us for one who was not there
                self._own = self._begin()
                continue
            if number and not os.path.exists(self._path(name, number - 1)):  # released in between, and all below it
                remove(path)
                number = 0
                continue
            self._held[name] = number
            return True

    def release(self, name: str) -> None:
        """Give a lock back, and what it was taken over from."""
        for number in range(self._held.pop(name) + 1):
            remove(self._path(name, number))

    def taken(self) -> set[str]:
        """The names of all locks that someone has, living or not."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:  # the last to leave took us for one who was not there
            return set()
        return {name.removesuffix(".0") for name in names if name.endswith(".0")}

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Within it the lock is ours, once those who have it gave it back.

        Args:
            name: of what is locked.
        """
        while not self.take(name):
            time.sleep(SOON)
        try:
            yield
        finally:
            self.release(name)

    def is_taken_over(self, name: str) -> bool:
        """Whether a lock that is ours was another's, who ended."""
        return self._held[name] > 0

    def give_back(self, name: str) -> None:
        """Give back a lock that was taken over, to be taken over by another."""
        remove(self._path(name, self._held.pop(name)))

    def holders(self, name: str) -> list[Owner]:
        """Who has a lock, the last, and whom it was taken over from, as far as that can be read."""
        found = list[Owner]()
        while (owner := _read_owner(self._path(name, len(found)))) is not None:
            found.append(owner)
        return found

    def count_fresh(self, folder: Path) -> int:
        """How many are at work in a folder of locks, as far as they were heard of lately."""
        found = 0
        with suppress(FileNotFoundError):  # nobody has come there yet
            now = os.stat(self._own).st_mtime_ns  # by the clock of the file system, and not long ago
            for name in os.listdir(folder):
                if name.endswith(OWNER):
                    with suppress(FileNotFoundError):
                        found += now - os.stat(f"{folder}{os.sep}{name}").st_mtime_ns < LEASE * 1e9
        return found

    def close(self) -> bool:
        """Give all locks back; whether nobody else is there, and what those who were killed left is gone, too."""
        self._over.set()
        for name in list(self._held):
            self.release(name)
        remove(self._own)
        left = list(self.folder.glob("*"))  # those who come after this have files that are not among them
        if not any(self._is_there(path) for path in self.folder.glob(f"*{OWNER}")):
            for path in left:
                remove(path)
            with suppress(OSError):  # someone has come
                self.folder.rmdir()
            return True
        return False

    def _path(self, name: str, number: int) -> str:
        return f"{self.folder}{os.sep}{name}.{number}"

    def _is_there(self, path: Path) -> bool:
        self._lived.clear()  # what one who has ended just now leaves is to be gone as well
        return path.exists() and not self._is_given_up(str(path))

    def _is_given_up(self, path: str) -> bool:
        try:
            found = os.stat(path)
        except FileNotFoundError:  # released just now: whoever asks again will have it
            return False
        now = time.monotonic()
        if now - self._lived.get(found.st_ino, -SURE) < SURE:
            return False
        owner = _read_owner(path)
        if owner is not None and owner.host == name_host():
            if owner.is_gone:
                return True
            self._lived[found.st_ino] = now
            return False
        # By this machine's own clock, as those of two machines may differ.
        was, since = self._seen.setdefault(path, (found.st_mtime_ns, now))
        if found.st_mtime_ns != was:
            self._seen[path] = found.st_mtime_ns, now
            return False
        return now - since > LEASE

    def _touch(self) -> None:
        while not self._over.wait(TOUCH):
            with suppress(OSError):
                os.utime(self._own)  # and so all locks, which are the same file


def find_owners(folder: Path) -> list[Owner]:
    """Who is at work in a folder, as far as that can be told: not those who are known to have ended."""
    found = map(_read_owner, sorted(folder.glob(f"*{OWNER}")))
    return [owner for owner in found if owner is not None and not owner.is_gone]


def remove(path: Path | str) -> None:
    """Remove a file that is done with, if that can be done: on a disk that cannot be written to any more it stays.

    Args:
        path: of it.
    """
    with suppress(OSError):
        os.unlink(path)


def _read_owner(path: Path | str) -> Owner | None:
    try:
        with open(path) as file:
            return Owner(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None
