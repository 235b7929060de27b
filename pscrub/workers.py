"""Chunks of rows worked on side by side in threads, and processes that help with a run."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from typing import IO, TypeVar

import torch

Chunk = TypeVar("Chunk")
Made = TypeVar("Made")
PATIENCE = 20.0
"""Seconds in which a process that was asked to stop has to."""
MAPPED, KEPT = 2**25, 2**28
"""Bytes from which on what a worker allocates is given back when it is freed, and that it keeps of what is smaller."""
SPARE = 3
"""Times that a helper is replaced, on average."""


def side_by_side(
    work: Callable[[Chunk], Made], chunks: Iterable[Chunk], device: torch.device | str = "cpu"
) -> Iterator[Made]:
    """What `work` makes of each chunk, in their order: on a CPU in as many threads as torch is set to use, one a chunk.

    Left to itself torch shares every single operation among its threads, which wait for one another after each. On
    chunks that suit the caches this measured no faster than one thread, and many times slower on cores that others use
    too. Here threads meet only at the end. A few chunks are worked on ahead of what is taken, no more.

    Args:
        work: must not depend on other chunks. Grad mode is each thread's own.
        chunks: taken one by one.
        device: where work is done; one thread suffices to keep any but a CPU busy.

    >>> list(side_by_side(lambda x: x * x, [1, 2, 3]))
    [1, 4, 9]
    """
    threads = torch.get_num_threads()
    if threads == 1 or torch.device(device).type != "cpu":
        yield from map(work, chunks)
        return
    # The workers' own number of threads; the caller's is what new threads get again in the end.
    pool = ThreadPoolExecutor(threads, "pscrub", torch.set_num_threads, (1,))  # noqa: TID251
    waiting: deque[Future[Made]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(work, chunk))
            if len(waiting) == 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # noqa: TID251


def give_back() -> None:
    """Have the C library give memory that was freed back to the system, where it knows how to (glibc).

    Of itself it does not where little that stays lies between much that went, as after each of many rounds of draws.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def threads_set(threads: int) -> Iterator[None]:
    """Within it torch has so many threads here, and in threads that are begun.

    Args:
        threads: how many.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)  # noqa: TID251 - given back
    try:
        yield
    finally:
        torch.set_num_threads(before)  # noqa: TID251


@contextmanager
def share_threads(processes: int) -> Iterator[int]:
    """Within it torch has its share of the threads, as each of so many processes is to have: at least one.

    Args:
        processes: that share them.
    """
    share = max(1, torch.get_num_threads() // processes)
    with threads_set(share):
        yield share


def have_one_thread() -> None:
    """See that torch works in one thread where a worker is called from, which nothing else waits for."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)  # noqa: TID251 - of a worker's own thread or process


@cache
def keep_freed_memory() -> None:
    """Have this process keep what it frees, up to a bound, for what it makes next: it is a worker, and makes the like.

    Left to itself glibc gives the end of its heap back, in some processes and not in others, after each chunk of rows;
    the system then has to make the same pages anew, which measured a fifth more time for a round. Nothing where the C
    library cannot be told, or the user has told it (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`).
    """
    if any(f"MALLOC_{name}_THRESHOLD_" in os.environ for name in ("TRIM", "MMAP")):
        return
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, MAPPED)  # M_MMAP_THRESHOLD of malloc.h
        mallopt(-1, KEPT)  # M_TRIM_THRESHOLD


class Helpers:
    """Processes that work beside this one until they are stopped; what becomes of them decides nothing.

    One that is killed is replaced, a few times.

    Args:
        command: of each.
        count: how many.
        threads: of each.
        tell: told of one that is killed.
    """

    def __init__(
        self, command: Sequence[str], count: int, threads: int, tell: Callable[[str], object] = lambda _: None
    ) -> None:
        self.command, self.count, self.threads, self.tell = list(command), count, threads, tell
        self._running: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        self._left = SPARE * count

    def start(self) -> None:
        """Start them."""
        for _ in range(self.count):
            self._start()

    def _start(self) -> None:
        kept = {"MALLOC_MMAP_THRESHOLD_": str(MAPPED), "MALLOC_TRIM_THRESHOLD_": str(KEPT)}  # as keep_freed_memory
        environment = kept | os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        told = tempfile.TemporaryFile()  # noqa: SIM115 - read when the process has ended
        process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=told, env=environment)
        self._running.append((process, told))

    def tend(self) -> bool:
        """Start others in place of those that were killed; whether any is at work."""
        for process, told in list(self._running):
            if (process.poll() or 0) < 0:  # ended by a signal
                self._running.remove((process, told))
                told.close()
                end = "another is started" if self._left else "and is not replaced"
                self.tell(f"a worker, process {process.pid}, ended by signal {-process.returncode}; {end}")
                if self._left:
                    self._left -= 1
                    self._start()
        return any(process.poll() is None for process, _ in self._running)

    def stop(self) -> list[str]:
        """Stop those that are left, and wait for them; the last words of each that failed."""
        failed = []
        for process, _ in self._running:
            if process.poll() is None:
                process.terminate()
        for process, told in self._running:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            told.seek(0)
            last = told.read().decode(errors="replace").strip().rpartition("\n")[2]
            told.close()
            if process.returncode == 2:
                failed.append(last)
        self._running.clear()
        return failed
