"""Ray beyond this process: a cluster that is started apart and joined by Ray's client; what tasks ask of it."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pscrub
from pscrub import StudyError
from pscrub.cli import main
from pscrub.result import pools
from pscrub.result.pools import RayExecutor, read_workers
from tests.kills import STUDY, tell_runs_apart
from tests.result.test_pools import OPTIONS, RUN, run_apart, started_with

HAS_CLIENT = find_spec("ray") is not None and find_spec("grpc") is not None


OPEN = {"RAY_AUTH_MODE": "disabled"}
SERVER = """
import sys, ray
from ray.util.client.server import server

def begin(job_config=None, **options):
    return ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

begin()
there = server.serve("127.0.0.1", int(sys.argv[1]), begin)
print("ready", flush=True)
sys.stdin.read()
there.stop(0)
ray.shutdown()
"""
"""What `ray start --head` does for clients, in one process."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of Ray's client server on a cluster of this machine alone, which ends with the tests."""
    if not HAS_CLIENT:
        pytest.skip("Ray or its client is not installed: pip install 'pscrub[ray]'")
    port, token = find_port(), uuid.uuid4().hex
    root = str(Path(pscrub.__file__).parents[1])
    paths = os.pathsep.join(each for each in (root, os.environ.get("PYTHONPATH", "")) if each)
    environment = os.environ | {"PSCRUB_TEST": token, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths} | OPEN
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(port)], env=environment, text=True, **pipes)
    try:
        assert server.stdout is not None and "ready" in server.stdout.readline()
        yield f"ray://127.0.0.1:{port}"
        server.communicate("", timeout=60)
        assert server.returncode == 0
    finally:
        server.kill()
        server.communicate()
        end_all(token)


def find_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def end_all(token: str) -> None:
    """See that a cluster's processes, which have a word in their environment, have ended, or end them."""
    end = time.monotonic() + 30
    while left := started_with(token):
        for pid in left if time.monotonic() > end - 10 else ():
            os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < end, f"processes are left: {left}"
        time.sleep(0.1)


def test_a_cluster_that_is_joined_by_a_client_gives_the_numbers_of_one_process(cluster: str, tmp_path: Path) -> None:
    """By the command."""
    file, whole, out = tmp_path / "study.py", tmp_path / "whole", tmp_path / "out"
    file.write_text(STUDY)
    assert main(["run", str(file), *OPTIONS, "--out", str(whole)]) == 0
    argv = ["run", str(file), *OPTIONS, "--workers", cluster, "--out", str(out)]
    run_apart(RUN, *argv, OMP_NUM_THREADS="1", **OPEN)
    assert tell_runs_apart(out, whole) == []


class FakeRay(SimpleNamespace):
    """What is asked of Ray."""

    def __init__(self, **there: float) -> None:
        self.asked = dict[str, Any]()
        super().__init__(is_initialized=lambda: True, cluster_resources=lambda: there)

    def remote(self, **told: Any) -> Any:
        self.asked = told
        return lambda function: function


@pytest.mark.parametrize(
    ("text", "gpu", "gpus", "size"),
    [
        ("ray", False, 0, 8),
        ("ray", True, 1, 4),
        ("ray:gpus=0", False, 0, 8),
        ("ray:gpus=1", False, 1, 4),
        ("ray:gpus=0.25", True, 0.25, 8),
        ("ray:gpus=2", True, 2, 2),
        ("ray://a:10001:gpus=0.5", True, 0.5, 8),
    ],
)
def test_tasks_ask_for_the_gpus_that_they_are_to_have(
    text: str, gpu: bool, gpus: float, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay(CPU=8, GPU=4)
    monkeypatch.setattr(pools, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib, "import_module", lambda name: fake)
    make = read_workers(text, gpu)
    assert not isinstance(make, int) and make.args[0] == (text.partition(":gpus")[0] if "//" in text else None)  # type: ignore[attr-defined]
    executor = make()
    assert fake.asked == {"num_cpus": 1, "num_gpus": gpus, "max_retries": 0, "max_calls": 0}
    assert isinstance(executor, RayExecutor) and executor._max_workers == size


@pytest.mark.parametrize(
    ("text", "gpu", "words"),
    [
        ("ray:gpus=", False, "expected of GPUs a part, as 0.5, or a whole number"),
        ("ray:gpus=-1", False, "expected of GPUs a part, as 0.5, or a whole number"),
        ("ray:gpus=1.5", False, "expected of GPUs a part, as 0.5, or a whole number"),
        ("ray:gpus=all", False, "expected of GPUs a part, as 0.5, or a whole number"),
        ("ray:gpus=0", True, "the device is a GPU, of which tasks without one have none"),
        ("ray:2", False, "expected N, threads:N, processes:N, ray or ray://HOST:PORT"),
    ],
)
def test_gpus_that_no_task_can_have(text: str, gpu: bool, words: str) -> None:
    with pytest.raises(StudyError, match=f"--workers {text}: {words}"):
        read_workers(text, gpu)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ConnectionError("ray client connection timeout"),
            "timeout; does the cluster ask for a token (RAY_AUTH_MODE)?",
        ),
        (
            RuntimeError("Initialization failure from server:\n  Traceback\n  ...\nValueError: no\n"),
            "server: ValueError: no",
        ),
        (ValueError(), "ValueError"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_a_line(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(address: str, **options: Any) -> None:
        raise error

    fake = FakeRay()
    fake.is_initialized, fake.init = (lambda: False), init
    monkeypatch.setattr(importlib, "import_module", lambda name: fake)
    with pytest.raises(StudyError) as caught:
        RayExecutor("ray://a:1")
    (line,) = caught.value.faults
    assert line.startswith("Ray at 'ray://a:1': ") and line.endswith(words) and "\n" not in line
