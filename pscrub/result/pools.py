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
        text: "4", "threads:4", "processes:4", "ray" or "ray://HOST:PORT"; of Ray with what part of a GPU each task is
            to have, if not as `gpu` says: "ray:gpus=0.5".
        gpu: rounds are made on a GPU, of which each of Ray's tasks is to have one.

    Raises:
        StudyError: it names nothing, or Ray is not installed.
    """
    found = re.fullmatch(r"(?:(threads|processes):)?(\d+)", text)
    if found and int(found[2]) >= 1:
        kind, count = found[1], int(found[2])
        return count if kind is None else partial(_MAKERS[kind], count)
    if found := re.fullmatch(r"ray(://.+?)?(?::gpus=(.*))?", text):
        gpus = float(gpu) if found[2] is None else _read_gpus(text, found[2], gpu)
        if find_spec("ray") is None:
            raise StudyError(f"--workers {text}: Ray is not installed; pip install 'pscrub[ray]'")
        return partial(RayExecutor, None if found[1] is None else f"ray{found[1]}", gpus)
    raise StudyError(f"--workers {text}: expected N, threads:N, processes:N, ray or ray://HOST:PORT, N 1 or more")


def _read_gpus(text: str, number: str, gpu: bool) -> float:
    """What each of Ray's tasks is to have: a part of a GPU, or so many."""
    gpus = float(number) if re.fullmatch(r"\d+(\.\d+)?", number) else -1.0
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise StudyError(f"--workers {text}: expected of GPUs a part, as 0.5, or a whole number")
    if gpu and not gpus:
        raise StudyError(
            f"--workers {text}: the device is a GPU, of which tasks without one have none; expected a part"
        )
    return gpus


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
        gpus: GPUs that each task has, beside one core: a part of one, which it shares, or a whole number.
        options: of `ray.init`.

    Raises:
        StudyError: no such cluster.
    """

    def __init__(self, address: str | None = None, gpus: float = 0.0, **options: Any) -> None:
        self.ray = importlib.import_module("ray")
        self.gpus, self._own, self._asked, self._size = gpus, not self.ray.is_initialized(), -ASKED, 1
        if self._own:
            self._begin(address, options)
        # A task that fails is ours to try again; a worker with a GPU is kept, and with it what it has fetched.
        told = {"num_cpus": 1, "num_gpus": int(gpus) if gpus == int(gpus) else gpus, "max_retries": 0, "max_calls": 0}
        self._call = self.ray.remote(**told)(_call)

    def _begin(self, address: str | None, options: dict[str, Any]) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        joins = address is not None or "RAY_ADDRESS" in os.environ
        try:
            self.ray.init(address, **quiet, **({} if joins else {"include_dashboard": False}), **options)
        except (ConnectionError, RuntimeError, ValueError, ImportError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            said = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
            asks = "; does the cluster ask for a token (RAY_AUTH_MODE)?" if "connection timeout" in said else ""
            raise StudyError(f"Ray at '{address or os.environ.get('RAY_ADDRESS', 'here')}': {said}{asks}") from error

    @property
    def _max_workers(self) -> int:
        if time.monotonic() - self._asked > ASKED:
            there = self.ray.cluster_resources()
            fit = there.get("CPU", 1)
            if self.gpus:
                fit = min(fit, there.get("GPU", 0) / self.gpus)
            self._size, self._asked = max(1, int(fit)), time.monotonic()
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
