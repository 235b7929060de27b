"""Shared work: each piece made once, whoever comes, and as few looks at the file system as there are pieces."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pscrub import scrub
from pscrub.estimate import stopping
from pscrub.result import taking
from pscrub.result.locks import Locks, Owner
from pscrub.result.sharing import RunFolder
from pscrub.result.taking import Listing, Sharing
from tests.kills import strip_times
from tests.result.test_result import study

CALLS = ("stat", "link", "unlink", "scandir", "open")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the file system is asked, by what is asked; `listed` are the names that listings gave."""
    found: Counter[str] = Counter()

    def count(name: str, real: Any, *args: Any, **options: Any) -> Any:
        found[name] += 1
        return real(*args, **options)

    class Counted:
        def __init__(self, real: Any) -> None:
            self.real = real

        def __enter__(self) -> Counted:
            return self

        def __exit__(self, *exc: object) -> None:
            self.real.close()

        def __iter__(self) -> Iterator[Any]:
            for entry in self.real:
                found["listed"] += 1
                yield entry

    for name in CALLS:
        monkeypatch.setattr(os, name, partial(count, name, getattr(os, name)))
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: Counted(scan(path)))
    return found


class Worker:
    """One of several that share pieces in a folder, each in its own turn.

    Args:
        folder: of the pieces.
        made: who made each piece is added to it.
    """

    def __init__(self, folder: Path, made: list[str], seed: int = 0) -> None:
        self.locks, self.taken, self.folder, self.made = Locks(folder / "working"), list[str](), folder, made
        listing = Listing(folder / "done")
        self.sharing = Sharing(self.locks, listing, "lock-{}".format, self.make, self.taken.append, random.Random(seed))

    def make(self, name: str) -> None:
        (self.folder / "done" / name).write_text("")
        self.made.append(name)


@pytest.fixture
def pieces(tmp_path: Path) -> list[str]:
    (tmp_path / "done").mkdir()
    return [str(i) for i in range(400)]


def test_a_listing_tells_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Counter[str]) -> None:
    monkeypatch.setattr(taking, "SETTLED", 0.05)
    listing = Listing(tmp_path / "a")
    assert listing.look() == []
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("")
    assert listing.look() == ["b"]
    (tmp_path / "a" / "c").write_text("")  # perhaps within the same tick of the file system's clock
    assert listing.look() == ["c"] and listing.look() == []
    time.sleep(0.06)
    assert listing.look() == []
    calls.clear()
    for _ in range(50):
        assert listing.look() == []
    assert calls["stat"] == 50 and calls["scandir"] == 0
    (tmp_path / "a" / "d").write_text("")
    assert listing.look() == ["d"]


def test_one_process_makes_pieces_in_order_and_asks_a_few_times_for_each(
    tmp_path: Path, pieces: list[str], calls: Counter[str]
) -> None:
    worker = Worker(tmp_path, [])
    costs = []
    for some in (pieces[:100], pieces[100:300]):
        calls.clear()
        assert worker.sharing.work(some) == []
        costs.append(sum(calls.values()))
    assert worker.made == pieces[:300] and worker.taken == []
    assert costs[1] - costs[0] < 8 * 100 + 110  # what a piece costs, and a listing of the first hundred
    worker.locks.close()


def test_what_is_finished_is_not_asked_about_one_by_one(tmp_path: Path, pieces: list[str], calls: Counter[str]) -> None:
    for name in pieces:
        (tmp_path / "done" / name).write_text("")
    worker = Worker(tmp_path, [])
    calls.clear()
    assert worker.sharing.work(pieces) == []
    assert sorted(worker.taken) == sorted(pieces) and worker.made == []
    assert calls["stat"] == 1 and calls["link"] == 0 and calls["listed"] == len(pieces)
    worker.locks.close()


@pytest.mark.parametrize("workers", [2, 20])
def test_workers_that_come_together_ask_as_often_as_there_are_pieces(
    workers: int, tmp_path: Path, pieces: list[str], calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each comes while the others are at work on a piece: they try what others hold, once, and are told of the rest."""
    made = list[str]()
    every = [Worker(tmp_path, made, seed) for seed in range(workers)]
    waiting = list(every)

    def make(worker: Worker, name: str) -> None:
        if waiting:  # the lock is held, while the next comes and looks
            waiting.pop().sharing.work(pieces)
        Worker.make(worker, name)

    for worker in every:
        monkeypatch.setattr(worker, "make", partial(make, worker))
        object.__setattr__(worker.sharing, "make", worker.make)
    calls.clear()
    waiting.pop().sharing.work(pieces)
    assert sorted(made) == sorted(pieces)
    tries = len(pieces) + workers**2 // 2 + 3 * workers
    assert calls["link"] < tries and calls["stat"] < 4 * tries
    for worker in every:
        assert set(worker.taken) <= set(pieces)
        worker.locks.close()


@pytest.mark.parametrize("passes", [True, False])
def test_who_meets_another_is_told_by_a_listing_who_has_which(
    passes: bool, tmp_path: Path, pieces: list[str], calls: Counter[str]
) -> None:
    """Others have three in four, some of them ended: these pieces are come back to, or else made at once."""
    others = [Worker(tmp_path, [], seed) for seed in range(10)]
    for i, name in enumerate(pieces):
        if i % 4:
            assert others[i % 10].locks.take(f"lock-{name}")
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    ended = pieces[2::100]
    for name in ended:  # of one who ended
        (tmp_path / "working" / f"lock-{name}.0").unlink()
        (tmp_path / "working" / f"lock-{name}.0").write_text(json.dumps(asdict(replace(Owner.here(), pid=process.pid))))
    worker = Worker(tmp_path, [])
    object.__setattr__(worker.sharing, "passes", passes)
    calls.clear()
    held = worker.sharing.work(pieces)
    free = pieces[::4]
    assert sorted(worker.made) == sorted(free if passes else [*free, *ended])
    assert set(held) | set(worker.made) == set(pieces) and not set(held) & set(worker.made)
    assert (calls["link"] < len(free) + 10) is passes
    missing = dict.fromkeys(ended)
    for _ in range(3):  # a few at each look
        for name in worker.sharing.claim_again(missing):
            worker.sharing._make(name)
    assert sorted(worker.made) == sorted([*free, *ended])
    for each in (worker, *others):
        each.locks.close()


def test_one_who_waits_looks_at_what_is_new_alone(
    tmp_path: Path, pieces: list[str], calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "SETTLED", -1.0)
    monkeypatch.setattr(taking, "PAUSE", 0.0)
    worker, other = Worker(tmp_path, []), Worker(tmp_path, [])
    for name in pieces:
        assert other.locks.take(f"lock-{name}")
    held = worker.sharing.work(pieces)
    assert sorted(held) == sorted(pieces) and worker.made == []
    left, looks = list(pieces), list[int]()

    def tell(name: str, count: int) -> None:
        assert name in left and count == len(left)
        looks.append(sum(calls.values()))
        if len(looks) % 10 == 0 and len(left) > 390:
            other.make(left.pop())
        elif len(looks) > 100:  # it ends, with all that it had
            other.locks.close()
            left.clear()

    calls.clear()
    worker.sharing.wait(held, tell)
    assert len(worker.taken) == 10 and len(worker.made) == 390
    asked = [after - before for before, after in itertools.pairwise(looks)]
    assert max(asked[i] for i in range(5)) <= 5 * taking.TRIED  # however many are held
    worker.locks.close()


def test_processes_that_share_a_folder_ask_as_often_as_there_are_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Counter[str]
) -> None:
    """A run finds the rounds of others without a question for each; numbers are those of one process."""
    monkeypatch.setattr(stopping, "ROUND", 20)
    costs = dict[int, int]()
    for rounds in (50, 100, 200):
        options: dict[str, Any] = {"draws": 20 * rounds, "exact": False}
        out = tmp_path / str(rounds)
        scrub(study(), **options, out=RunFolder(out, shard=(1, 2)))
        calls.clear()
        found = scrub(study(), **options, out=out)
        costs[rounds] = sum(calls.values()) - calls["listed"]
        assert strip_times(found) == strip_times(scrub(study(), **options))
    first, second = costs[100] - costs[50], costs[200] - costs[100]
    assert 0.8 < second / first / 2 < 1.2, costs
