"""Who makes rounds: this process, or the workers of any `concurrent.futures.Executor`."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pscrub.errors import GraphError, StudyError
from pscrub.progress import Progress, quiet
from pscrub.result.draws import Round
from pscrub.result.keeping import Fault, KeptRound
from pscrub.result.locks import Owner
from pscrub.result.making import Maker
from pscrub.result.travelling import Post, Sent, Ticket, pack, put_in, unpack
from pscrub.workers import have_one_thread, keep_freed_memory, threads_set

TRIES = 2
"""How often a round that fails is tried."""


@dataclass(frozen=True)
class Workers:
    """Who makes the rounds of a run, and how often one that fails is tried.

    Args:
        executor: whose workers make rounds, or a function without parameters that makes one: then another is made where
            one breaks, as a pool of processes does when one of them dies. None: this process, round by round.
        at_once: rounds that it is given at a time; by default two for each of its workers, as far as it tells how many.
        tries: how often a round is tried whose worker dies, or in which a node's function raises.

    Raises:
        StudyError: numbers that make no sense.
    """

    executor: Executor | Callable[[], Executor] | None = None
    at_once: int | None = None
    tries: int = TRIES

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {n}; expected 1 or more"
            for name, n in (("tries", self.tries), ("at_once", self.at_once))
            if n is not None and n < 1
        ]
        if faults:
            raise StudyError(faults)

    @classmethod
    def of(cls, workers: Workers | Executor | Callable[[], Executor] | None) -> Workers:
        """They themselves, or those of an executor."""
        return workers if isinstance(workers, Workers) else cls(workers)


Outcome = KeptRound | Fault


class Crew(Protocol):
    """Who makes rounds."""

    @property
    def room(self) -> int:
        """Rounds that may be given out at a time."""

    @property
    def tries(self) -> int:
        """How often a round is tried that fails."""

    def __enter__(self) -> Crew:
        """Be there for a run."""

    def __exit__(self, *exc: object) -> None:
        """And for no more; what was given out and has not arrived is given up."""

    def begin(self) -> None:
        """Be told that rounds come."""

    def rest(self) -> None:
        """Be told that none come for now."""

    def give(self, key: Any, maker: Maker, each: Round) -> None:
        """Have a round made, named by a key."""

    def take(self, seconds: float) -> list[tuple[Any, Outcome]]:
        """What has arrived, at least one if any does within some seconds."""

    def forget(self, maker: Maker) -> None:
        """Be told that no more rounds of it come."""


class Alone:
    """This process, which makes a round when it is given one.

    Args:
        tries: of a round that fails.
        progress: told of draws that are done.
    """

    room = 1

    def __init__(self, tries: int, progress: Progress = quiet) -> None:
        self.tries, self.progress = tries, progress
        self._arrived: list[tuple[Any, Outcome]] = []

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *exc: object) -> None:
        self._arrived.clear()

    def begin(self) -> None:
        """Nothing."""

    def rest(self) -> None:
        """Nothing."""

    def give(self, key: Any, maker: Maker, each: Round) -> None:
        """Make a round."""
        try:
            self._arrived.append((key, maker.make(each, self.progress)))
        except GraphError as error:
            self._arrived.append((key, Fault(error, "this process")))

    def take(self, seconds: float) -> list[tuple[Any, Outcome]]:
        """What was made since last asked."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def forget(self, maker: Maker) -> None:
        """Nothing."""


class Spread:
    """The workers of an executor.

    Torch works in one thread in each of them, and here meanwhile: a thread of an executor's own keeps that.

    Args:
        workers: the executor, and how it is used.
        folder: tells a folder that workers on other machines see, if there is one.
        progress: told how many rounds of those that were given out are there.
    """

    def __init__(self, workers: Workers, folder: Callable[[], Path | None], progress: Progress = quiet) -> None:
        self.workers, self.folder, self.progress, self.tries = workers, folder, progress, workers.tries
        self._own = not isinstance(workers.executor, Executor)
        self._arrived: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._at_work: dict[Future[Any], Any] = {}
        self._broken: list[tuple[Any, Outcome]] = []
        self._executor: Executor | None = None
        self._post: Post | None = None
        self._stack, self._during = ExitStack(), ExitStack()
        self._over, self._alone, self._done = threading.Event(), threading.Lock(), 0

    def __enter__(self) -> Spread:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for future in list(self._at_work):
            future.cancel()
        try:
            if self._own and self._executor is not None:
                if self._at_work:
                    end_processes(self._executor)
                self._executor.shutdown(cancel_futures=True)
        finally:
            self._at_work.clear()
            self._executor = None
            self._stack.close()
            self.rest()

    def begin(self) -> None:
        """Have torch work in one thread here too."""
        self._during.enter_context(threads_set(1))

    def rest(self) -> None:
        """Give torch its threads back."""
        self._during.close()

    @property
    def room(self) -> int:
        """Two rounds for each worker, that none waits for the next; one thousand where their number is not told."""
        if self.workers.at_once is not None:
            return self.workers.at_once
        return 2 * int(getattr(self._executor, "_max_workers", None) or 500)

    def give(self, key: Any, maker: Maker, each: Round) -> None:
        """Have a round made by one of them."""
        try:
            executor = self._find()
            ticket = Ticket(maker, self._find_post(executor), self._alone, self._check)
            future = executor.submit(make_round, ticket, each)
        except (BrokenExecutor, RuntimeError) as error:  # it broke, or was shut down
            self._broken.append((key, self._break(error)))
            return
        self._at_work[future] = key
        future.add_done_callback(self._arrived.put)

    def take(self, seconds: float) -> list[tuple[Any, Outcome]]:
        """What has arrived."""
        found, self._broken = self._broken, []
        self.progress("rounds", self._done, self._done + len(self._at_work))
        with suppress(queue.Empty):
            if not found and self._at_work:
                found.append(self._outcome(self._arrived.get(timeout=seconds)))
            while True:
                found.append(self._outcome(self._arrived.get_nowait()))
        self._done += len(found)
        return found

    def forget(self, maker: Maker) -> None:
        """Take down what was put up of it alone."""
        if self._post is not None:
            self._post.forget(maker)

    def _find(self) -> Executor:
        if self._executor is None:
            made = self.workers.executor
            assert made is not None, "no executor is needed to make rounds here"
            self._executor = made if isinstance(made, Executor) else made()
        return self._executor

    def _find_post(self, executor: Executor) -> Post:
        """Where makers are put up: by the executor's own `put`, if it has a way to its workers, else in files."""
        if self._post is None:
            put, folder = getattr(executor, "put", None), self.folder()
            if put is None and folder is None:
                folder = Path(tempfile.mkdtemp(prefix="pscrub-"))
                self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._post = Post(put or put_in(folder))  # type: ignore[arg-type]
            self._stack.callback(self._post.close)
        return self._post

    def _outcome(self, future: Future[Any]) -> tuple[Any, Outcome]:
        key = self._at_work.pop(future)
        try:
            found = future.result()
        except StudyError:  # what cannot be sent, or fetched: so for every round
            raise
        except BrokenExecutor as error:
            return key, self._break(error)
        except CancelledError as error:
            return key, Fault(error)
        except Exception as error:  # whatever its kind of executor says of a worker that died
            return key, Fault(error)
        return key, found if isinstance(found, KeptRound | Fault) else unpack(found)

    def _break(self, error: BaseException) -> Fault:
        if self._own and self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None
        elif not self._own:
            end = "; give a function that makes the executor, so that another can be made"
            error = StudyError(f"{type(error).__name__}: {error}{end}")
        return Fault(error, broke=True)

    def _check(self, phase: str, done: int, total: int) -> None:
        if self._over.is_set():
            raise CancelledError


def make_round(ticket: Ticket | Sent, each: Round) -> Outcome | bytes:
    """Make a round, in a worker; or say why a node's function failed."""
    have_one_thread()
    if isinstance(ticket, Sent):
        keep_freed_memory()
    found: Outcome
    try:
        found = ticket.maker.make(each, ticket.progress, ticket.alone)
    except GraphError as error:
        found = Fault(error, str(Owner.here()))
    return found if isinstance(ticket, Ticket) else pack(found)


def end_processes(executor: Executor) -> None:
    """End the processes of a pool that has any, at whatever they are."""
    for process in list((getattr(executor, "_processes", None) or {}).values()):
        process.terminate()


def crew_of(workers: Workers, folder: Callable[[], Path | None], progress: Progress) -> Crew:
    """Those who make a run's rounds."""
    return Alone(workers.tries, progress) if workers.executor is None else Spread(workers, folder, progress)
