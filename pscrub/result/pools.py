"""Executors by name, as the command line has them: threads, processes, and Ray on this machine or on a cluster."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from pscrub.errors import StudyError

ASKED = 5.0
"""Seconds for which it is not asked again how large a cluster is."""


def read_workers(text: str, gpu: bool = False) -> int | Callable[[], Executor]:
    """What `--workers` names: a number of processes that share a folder, or what makes an executor.

    Args:
        text: "4", "threads:4", "processes:4", "ray" or "ray://HOST:PORT".
        gpu: each of Ray's tasks is to have a GPU.

    Raises:
        StudyError: it names nothing, or Ray is not installed.
    """
    found = re.fullmatch(r"(?:(threads|processes):)?(\d+)", text)
    if found and int(found[2]) >= 1:
        kind, count = found[1], int(found[2])
        return count if kind is None else partial(_MAKERS[kind], count)
    if text == "ray" or text.startswith("ray://"):
        if find_spec("ray") is None:
            raise StudyError(f"--workers {text}: Ray is not installed; pip install 'pscrub[ray]'")
        return partial(RayExecutor, None if text == "ray" else text, gpu)
    raise StudyError(f"--workers {text}: expected N, threads:N, processes:N, ray or ray://HOST:PORT, N 1 or more")


def make_threads(count: int) -> Executor:
    """A pool of threads."""
    return ThreadPoolExecutor(count, "pscrub workers")


def make_processes(count: int) -> Executor:
    """A pool of processes, which end with this one, whatever ends it."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), begin_process)


_MAKERS = {"threads": make_threads, "processes": make_processes}


def begin_process() -> None:
    """Be a worker: interrupts are for whoever started it, and what is printed is no part of the answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def end() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=end, daemon=True).start()


@dataclass(frozen=True)
class Stored:
    """Bytes in Ray's object store.

    Args:
        ref: to them.
    """

    ref: Any

    def read(self) -> bytes:
        """The bytes; once for each machine they come from elsewhere."""
        found: bytes = importlib.import_module("ray").get(self.ref)
        return found

    def drop(self) -> None:
        """Nothing: they go with the last who has the way to them."""


class RayExecutor(Executor):
    """Ray's tasks as an executor: a round each, on a core or a GPU of its own.

    Ray is started, or a cluster joined, if that has not been done in this process; then it is also left in the end.

    Args:
        address: of a cluster ("ray://HOST:PORT", or as `ray.init` takes it); None: as RAY_ADDRESS says, else here.
        gpu: each task has a GPU to itself, and one core.
        options: of `ray.init`.

    Raises:
        StudyError: no such cluster.
    """

    def __init__(self, address: str | None = None, gpu: bool = False, **options: Any) -> None:
        self.ray = importlib.import_module("ray")
        self.gpu, self._own, self._asked, self._size = gpu, not self.ray.is_initialized(), -ASKED, 1
        if self._own:
            self._begin(address, options)
        # A task that fails is ours to try again; a worker with a GPU is kept, and with it what it has fetched.
        told = {"num_cpus": 1, "num_gpus": int(gpu), "max_retries": 0, "max_calls": 0}
        self._call = self.ray.remote(**told)(_call)

    def _begin(self, address: str | None, options: dict[str, Any]) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        joins = address is not None or "RAY_ADDRESS" in os.environ
        try:
            self.ray.init(address, **quiet, **({} if joins else {"include_dashboard": False}), **options)
        except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
            first = str(error).strip().partition("\n")[0]
            raise StudyError(f"Ray at '{address or os.environ.get('RAY_ADDRESS', 'here')}': {first}") from error

    @property
    def _max_workers(self) -> int:
        if time.monotonic() - self._asked > ASKED:
            found = self.ray.cluster_resources().get("GPU" if self.gpu else "CPU", 1)
            self._size, self._asked = max(1, int(found)), time.monotonic()
        return self._size

    def put(self, content: bytes) -> Stored:
        """Put bytes up for tasks, wherever they run."""
        return Stored(self.ray.put(content))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A task."""
        if kwargs:
            raise TypeError("tasks take arguments by position")
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._call.remote(fn, *args).future().add_done_callback(partial(_hand_over, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave Ray, if it was begun here; tasks that are at work end."""
        if self._own and self.ray.is_initialized():
            self.ray.shutdown()


def _call(fn: Callable[..., Any], *args: Any) -> Any:
    sys.stdout = sys.stderr
    return fn(*args)


def _hand_over(future: Future[Any], found: Future[Any]) -> None:
    error = found.exception()
    if error is None:
        future.set_result(found.result())
    else:
        cause = getattr(error, "cause", None)  # what a task raised; else what became of its worker
        future.set_exception(cause if isinstance(cause, Exception) else error)
