"""Chunks side by side: the same values in the same order as one after another, and nothing left behind."""

import os
import platform
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import pscrub
from pscrub import scrub
from pscrub.studies import load
from pscrub.workers import side_by_side


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_in_order_each_thread_for_itself(threads: int) -> None:
    seen: set[tuple[str, int]] = set()

    def work(chunk: int) -> int:
        seen.add((threading.current_thread().name, torch.get_num_threads()))
        return int(torch.arange(chunk).sum())

    assert list(side_by_side(work, range(100))) == [n * (n - 1) // 2 for n in range(100)]
    assert len(seen) <= threads and {n for _, n in seen} == {1}
    assert torch.get_num_threads() == threads
    alive = [thread.name for thread in threading.enumerate()]
    assert not [name for name in alive if name.startswith("pscrub")]


def test_a_fault_comes_out_and_ends_the_rest(threads: int) -> None:
    done: list[int] = []

    def work(chunk: int) -> int:
        done.append(chunk)
        return 1 // (3 - chunk)

    with pytest.raises(ZeroDivisionError):
        list(side_by_side(work, range(1000)))
    assert len(done) < 20 and torch.get_num_threads() == threads


def test_only_a_few_chunks_are_worked_on_ahead(threads: int) -> None:
    taken: list[int] = []
    chunks = (taken.append(i) or i for i in range(1000))
    made = side_by_side(lambda chunk: chunk, chunks)
    assert next(made) == 0 and len(taken) <= 2 * threads
    made.close()
    assert len(taken) <= 2 * threads and torch.get_num_threads() == threads


def test_a_study_gives_the_same_numbers(threads: int) -> None:
    study = load("brackets", {"rows": "400"})
    result = scrub(study.hypotheses[:5], draws=256)
    torch.set_num_threads(1)
    alone = scrub(study.hypotheses[:5], draws=256)
    for a, b in zip(result.results, alone.results, strict=True):
        assert (a.scrubbed, a.model, a.randomised) == (b.scrubbed, b.model, b.randomised)
    assert result.rewrites == alone.rewrites


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept where the C library is glibc")
@pytest.mark.parametrize(("told", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "1048576"}, False)])
def test_a_worker_keeps_what_it_frees_unless_the_user_says_otherwise(told: dict[str, str], kept: bool) -> None:
    """Told by what the system says that it has, beside a process that is no worker."""
    code = (
        "import sys, torch; from pscrub.workers import keep_freed_memory; sys.argv[1:] and keep_freed_memory()\n"
        "def pages(): return int(open('/proc/self/statm').read().split()[1])\n"
        "before = pages(); x = [torch.ones(7_500_000) for _ in range(4)]; made = pages(); del x\n"  # of 29 MiB each
        "print(made - before, pages() - before)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | told
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(pscrub.__file__).parents[1])}
    found = []
    for argv in ((), ("worker",)):
        done = subprocess.run([sys.executable, "-c", code, *argv], env=environment, capture_output=True, check=True)
        made, left = map(int, done.stdout.split())
        assert made * resource.getpagesize() > 90 * 2**20
        found.append(left > 0.9 * made)
    assert found == [False, kept]
