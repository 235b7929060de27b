"""Timing side by side on a machine that others use too, and Markdown tables of what was found."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """Medians over repeats.

    Args:
        wall: seconds that passed.
        cpu: seconds that this process's threads computed: contention shows less in it.
    """

    wall: float
    cpu: float


def alternate(
    functions: Mapping[Key, Callable[[], object]],
    repeats: int,
    device: torch.device | str = "cpu",
    even: bool = False,
) -> dict[Key, Timing]:
    """The median time of each function, all called in turn, so that a busy spell of the machine hits all alike.

    Each is called before, untimed. Every other turn goes backwards.

    Args:
        functions: by name.
        repeats: timed turns of each.
        device: waited for before and after each turn, where work is queued.
        even: call short ones often enough in a turn to take about as long as the longest: a long call is interrupted on
            a busy machine and a short one is not. Their time is the mean over a turn.
    """
    walls: dict[Key, list[float]] = {name: [] for name in functions}
    cpus: dict[Key, list[float]] = {name: [] for name in functions}
    calls = _evened(functions, device) if even else dict.fromkeys(functions, 1)
    for function in functions.values():
        function()
    names = list(functions)
    for turn in range(repeats):
        for name in reversed(names) if turn % 2 else names:
            wall, cpu = _seconds(functions[name], calls[name], device)
            walls[name].append(wall)
            cpus[name].append(cpu)
    return {name: Timing(statistics.median(walls[name]), statistics.median(cpus[name])) for name in names}


def _evened(functions: Mapping[Key, Callable[[], object]], device: torch.device | str) -> dict[Key, int]:
    spent = {name: min(_seconds(function, 1, device)[0] for _ in range(3)) for name, function in functions.items()}
    return {name: max(1, min(1_000, round(max(spent.values()) / each))) for name, each in spent.items()}


def _seconds(function: Callable[[], object], calls: int, device: torch.device | str) -> tuple[float, float]:
    wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        function()
    wait(device)
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


def unusable(device: str) -> str | None:
    """Why the device cannot be used, or None if it can."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        return f"no device '{device}': {str(error).splitlines()[0]}"
    return None


def wait(device: torch.device | str) -> None:
    """Return once all work queued on the device is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [head, ["---:" if i else "---" for i in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def short(value: float) -> str:
    """A number to three figures, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def machine(device: torch.device | str = "cpu") -> str:
    """One line on the machine, the load on it, and the releases used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    gpu = f"; {torch.cuda.get_device_name(device)}" if torch.device(device).type == "cuda" else ""
    return (
        f"{platform.system()} {platform.machine()}, {_processor()}, {cores} cores{load}{gpu}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or "unknown processor"
