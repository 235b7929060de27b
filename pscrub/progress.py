"""Progress: how long work tells how far it has come, how long its phases took, and that it is to stop."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Progress = Callable[[str, int, int], None]
"""Told the phase, how much of it is done, and how much there is."""


UPDATED, WRITTEN = 0.2, 10.0
"""Seconds between two texts of a line that is updated, and between two lines that stay."""


def quiet(phase: str, done: int, total: int) -> None:
    """The Progress that tells nobody."""


@contextmanager
def shown() -> Iterator[Progress]:
    """Within it, what is told of progress is shown: give it as `progress` to whatever takes long.

    In a notebook and on a terminal that is one line, which is updated from the first moment and gone in the end.
    Elsewhere, as in a log, lines are written on standard error now and then, and stay.

    >>> with shown() as progress:
    ...     progress("evaluation", 1, 2)
    """
    write, end, pause = _find_line()
    begun = told = time.monotonic()
    write("begun")

    def progress(phase: str, done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= pause:
            told = now
            write(f"{phase} {done:,}/{total:,}, {now - begun:.0f} s")

    try:
        yield progress
    finally:
        end()


def _find_line() -> tuple[Callable[[str], object], Callable[[], object], float]:
    """What writes a line, what ends that, and how many seconds there are to be between two lines."""
    ipython: Any = sys.modules.get("IPython")  # a notebook has loaded it
    shell = None if ipython is None else ipython.get_ipython()
    if getattr(shell, "kernel", None) is not None:
        handle = ipython.display.display({"text/plain": ""}, raw=True, display_id=True)

        def update(text: str) -> None:
            handle.update({"text/plain": text}, raw=True)

        return update, lambda: update(""), UPDATED
    out = sys.stderr

    def write(text: str) -> None:
        out.write(f"\r\033[K{text}" if out.isatty() else f"{text}\n")
        out.flush()

    return write, (lambda: write("")) if out.isatty() else lambda: None, UPDATED if out.isatty() else WRITTEN


class Clock:
    """Seconds spent by phase.

    >>> clock = Clock()
    >>> with clock("drawing"):
    ...     pass
    >>> list(clock.seconds)
    ['drawing']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Within it, time is counted to the phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start


def add_seconds(*each: Mapping[str, float]) -> dict[str, float]:
    """Seconds by phase of several clocks together.

    >>> add_seconds({"drawing": 1.0}, {"drawing": 0.5, "evaluation": 2.0})
    {'drawing': 1.5, 'evaluation': 2.0}
    """
    total: dict[str, float] = {}
    for seconds in each:
        for phase, spent in seconds.items():
            total[phase] = total.get(phase, 0.0) + spent
    return total


class Interrupts:
    """Which interrupt came, if any; called, it raises that again."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> None:
        if self.number:
            raise KeyboardInterrupt

    @property
    def status(self) -> int:
        """The exit status that a shell gives to what the signal ends: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.number or signal.SIGINT)


@contextmanager
def interrupts_kept() -> Iterator[Interrupts]:
    """Within it SIGTERM interrupts as Ctrl-C does: the estimates so far are printed and written.

    An interrupt that comes while a destructor runs is lost, as Python passes over what those raise, with a traceback
    that is kept from being shown. What is given raises it again, and is called wherever progress is told.
    """
    found, show = Interrupts(), sys.unraisablehook

    def interrupt(number: int, _: object) -> None:
        found.number = number
        raise KeyboardInterrupt

    try:
        heard = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]
        before = {each: signal.signal(each, interrupt) for each in heard}
    except ValueError:  # not the main thread, which alone can
        yield found
        return
    try:
        # An object that an interrupt left half made may raise anything when it is given back.
        sys.unraisablehook = lambda passed: (
            None if found.number or issubclass(passed.exc_type, KeyboardInterrupt) else show(passed)
        )
        yield found
    finally:
        sys.unraisablehook = show
        for each, handler in before.items():
            signal.signal(each, handler)
