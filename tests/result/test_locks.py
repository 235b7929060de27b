"""Locks: one owner at a time, taken over from those who are gone, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pscrub.result import locks as module
from pscrub.result.locks import Locks, Owner, find_owners, find_start


@pytest.fixture
def gone() -> Owner:
    """A process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return replace(Owner.here(), pid=process.pid)


def leave(folder: Path, owner: Owner, *names: str) -> None:
    """What a killed process leaves."""
    folder.mkdir(exist_ok=True)
    own = folder / f"{owner.pid}.owner"
    own.write_text(json.dumps(asdict(owner)))
    for name in names:
        os.link(own, folder / name)


def test_a_lock_has_one_owner_at_a_time(tmp_path: Path) -> None:
    one, other = Locks(tmp_path / "w"), Locks(tmp_path / "w")
    assert one.take("a") and not other.take("a") and other.take("b") and not one.take("b")
    assert [owner.pid for owner in other.holders("a")] == [os.getpid()] and other.holders("c") == []
    one.release("a")
    assert other.take("a") and not one.take("a")
    one.close()
    assert len(find_owners(tmp_path / "w")) == 1 and (tmp_path / "w" / "b.0").exists()
    other.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_that_is_gone_held_is_taken_over_by_one(tmp_path: Path, gone: Owner) -> None:
    leave(tmp_path / "w", gone, "a.0", "b.0", "b.1")
    one, other = Locks(tmp_path / "w"), Locks(tmp_path / "w")
    assert one.take("a") and not other.take("a")
    assert other.take("b") and not one.take("b")
    assert {path.name for path in (tmp_path / "w").glob("b.*")} == {"b.0", "b.1", "b.2"}
    other.release("b")
    assert not list((tmp_path / "w").glob("b.*")) and one.take("b")
    one.close()
    other.close()
    assert list(tmp_path.iterdir()) == []  # what the killed one left, too


def test_a_number_that_was_given_again_is_another_process(tmp_path: Path) -> None:
    mine = Owner.here()
    assert not mine.is_gone and replace(mine, started="before").is_gone
    leave(tmp_path / "w", replace(mine, started="before"), "a.0")
    locks = Locks(tmp_path / "w")
    assert locks.take("a")
    locks.close()


def test_a_process_that_has_ended_and_was_not_asked_how_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = replace(Owner.here(), pid=process.pid, started=find_start(process.pid) or "")
    assert not owner.is_gone
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert owner.is_gone
    process.communicate()


def test_who_was_found_alive_is_asked_about_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    leave(tmp_path / "w", replace(Owner.here(), pid=process.pid, started=find_start(process.pid) or ""), "a.0", "b.0")
    locks, asked = Locks(tmp_path / "w"), list[int]()
    monkeypatch.setattr(module, "find_start", lambda pid: asked.append(pid) or find_start(pid))
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    assert not any(locks.take(name) for name in "abab") and asked == [process.pid]  # one file: an owner and its locks
    process.kill()
    process.communicate()
    assert not locks.take("a")
    now += module.SURE
    assert locks.take("a")
    locks.close()
    assert list(tmp_path.iterdir()) == []


def test_what_one_leaves_who_was_just_found_alive_is_gone_in_the_end(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    leave(tmp_path / "w", replace(Owner.here(), pid=process.pid, started=find_start(process.pid) or ""), "a.0")
    locks = Locks(tmp_path / "w")
    assert not locks.take("a")
    process.kill()
    process.communicate()
    locks.close()
    assert list(tmp_path.iterdir()) == []


def test_another_host_is_given_up_when_it_has_not_been_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path / "w", replace(Owner.here(), host="elsewhere boot pid", pid=1), "a.0")
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    locks = Locks(tmp_path / "w")
    assert not locks.take("a") and [str(owner) for owner in locks.holders("a")] == ["process 1 on elsewhere"]
    now = module.LEASE - 1
    assert not locks.take("a")
    os.utime(tmp_path / "w" / "a.0", ns=(1, 1))  # it was touched
    now = module.LEASE + 1
    assert not locks.take("a")
    now = 2 * module.LEASE
    assert not locks.take("a")
    now = 2 * module.LEASE + 2
    assert locks.take("a")
    locks.close()
    assert (tmp_path / "w" / "1.owner").exists()  # of whom nobody knows yet that he is gone


def test_an_owner_is_touched_and_so_are_its_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOUCH", 0.01)
    locks = Locks(tmp_path / "w")
    assert locks.take("a")
    path = tmp_path / "w" / "a.0"
    os.utime(path, ns=(1, 1))
    end = module.time.monotonic() + 10
    while path.stat().st_mtime_ns == 1 and module.time.monotonic() < end:
        module.time.sleep(0.01)
    assert path.stat().st_mtime_ns > 1
    locks.close()


def test_an_owner_who_was_swept_away_comes_again(tmp_path: Path) -> None:
    locks = Locks(tmp_path / "w")
    for path in (tmp_path / "w").iterdir():
        path.unlink()
    (tmp_path / "w").rmdir()
    assert locks.take("a") and len(find_owners(tmp_path / "w")) == 1
    locks.close()
    assert list(tmp_path.iterdir()) == []


def test_those_who_were_heard_of_lately_are_counted(tmp_path: Path, gone: Owner) -> None:
    mine, other = Locks(tmp_path / "mine"), Locks(tmp_path / "other")
    assert mine.count_fresh(tmp_path / "nowhere") == 0 and mine.count_fresh(tmp_path / "other") == 1
    leave(tmp_path / "other", gone, "a.0")
    assert mine.count_fresh(tmp_path / "other") == 2  # who ended just now may be on another machine
    old = os.stat(tmp_path / "other" / f"{gone.pid}.owner").st_mtime - module.LEASE - 1
    os.utime(tmp_path / "other" / f"{gone.pid}.owner", (old, old))
    assert mine.count_fresh(tmp_path / "other") == 1
    mine.close()
    other.close()
