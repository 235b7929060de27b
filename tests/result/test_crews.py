"""Rounds made by the workers of any executor: the same numbers, whoever makes them and whatever comes first."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, RoundError, Study, StudyError, StudyResult, Workers, scrub
from pscrub.estimate.stopping import ROUND
from pscrub.result.folder import RunFiles
from pscrub.result.sharing import RunFolder
from pscrub.result.travelling import LARGE, put_in
from tests.kills import strip_times

WAYS: dict[str, dict[str, Any]] = {
    "draws": {"draws": 3 * ROUND + 100, "exact": False},
    "width": {"until_width": 40.0, "exact": False},
    "population": {"draws": 2 * ROUND, "exact": False, "data_uncertainty": True},
    "permuted": {"draws": 2 * ROUND, "exact": False, "donors": "permuted"},
}
"""Options of runs."""


def never(out: torch.Tensor) -> None:
    """What nodes do on draws, beside."""


def make_study(beside: Callable[[torch.Tensor], None] = never) -> Study:
    """Sums in float32, of a matrix that is large enough to be sent by itself; functions that no worker could import."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 160, generator=generator) for n in (300, 160))
    data = Dataset({"x": x, "y": x.sum(1) + torch.randn(300, generator=generator), "half": x[:, 0] > 0})

    def loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if len(out) > 1000:  # not while the study is checked
            beside(out)
        return (out - y) ** 2

    functions = {
        "a": lambda x: x @ weight,
        "b": lambda x: x.T.contiguous().T * 0.1,
        "out": lambda a, b: (a + b).mean(1),
    }
    graph = Graph.of(functions | {"f": loss}, ["x", "y"], "f")
    label = Claim("y", "y")
    claims = {
        "sign": [label, Claim("out", "half", reads=[Claim("a", "half")])],
        "nothing": [label],
        "exact": [label, Claim("out", "exact")],
        "sum": [label, Claim("out", reads=[Claim("a", "exact"), Claim("b", "half")])],
    }
    return Study("slow", [Hypothesis(n, graph, data, Claim("f", reads=r)) for n, r in claims.items()], by=["half"])


class Backwards(Executor):
    """One that begins when nothing more comes for a while, with what came last."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.latest = time.monotonic()
        self.over = threading.Event()
        self.given: list[Any] = []
        self.order: list[Any] = []
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.given.append((args[0].maker.tree.hypothesis.name, args[1]))
        self.waiting.append((future, partial(fn, *args, **kwargs)))
        self.latest = time.monotonic()
        return future

    def work(self) -> None:
        while not self.over.wait(0.005):
            while self.waiting and time.monotonic() - self.latest > 0.05:
                future, call = self.waiting.pop()
                self.order.append((call.args[0].maker.tree.hypothesis.name, call.args[1]))
                future.set_result(call())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.over.set()
        self.thread.join()


class Posted(ThreadPoolExecutor):
    """One whose tasks, and what they give, are pickled on the way, and which counts what was put up and fetched."""

    def __init__(self, folder: Path) -> None:
        super().__init__(1)
        self.post, self.sizes, self.fetched = put_in(folder), list[int](), list[str]()

    def put(self, content: bytes) -> Any:
        self.sizes.append(len(content))
        return Counted(self.post(content).path, id(self))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        COUNTED[id(self)] = self.fetched
        return super().submit(lambda task: pickle.loads(task)(), pickle.dumps(partial(fn, *args, **kwargs)))


COUNTED: dict[int, list[str]] = {}


class Counted:
    """The way to a file, which says that it was taken."""

    def __init__(self, path: str, counter: int) -> None:
        self.path, self.counter = path, counter

    def read(self) -> bytes:
        COUNTED[self.counter].append(self.path)
        return Path(self.path).read_bytes()

    def drop(self) -> None:
        os.unlink(self.path)


@pytest.fixture(scope="module")
def alone() -> dict[str, StudyResult]:
    """The results of one process, round after round."""
    return {name: scrub(make_study(), **options) for name, options in WAYS.items()}


def assert_same(found: StudyResult, alone: StudyResult) -> None:
    assert strip_times(found) == strip_times(alone)


@pytest.mark.parametrize("way", WAYS)
def test_threads_and_whatever_comes_first_give_the_same_numbers(way: str, alone: dict[str, StudyResult]) -> None:
    with ThreadPoolExecutor(4) as threads:
        assert_same(scrub(make_study(), **WAYS[way], workers=threads), alone[way])
    backwards = Backwards()
    with backwards:
        assert_same(scrub(make_study(), **WAYS[way], workers=Workers(backwards, at_once=6)), alone[way])
    assert set(backwards.order) == set(backwards.given) and backwards.order != backwards.given


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_of_torch_change_no_number(threads: int, alone: dict[str, StudyResult]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_same(scrub(make_study(), **WAYS["draws"]), alone["draws"])
        with ThreadPoolExecutor(2) as pool:
            assert_same(scrub(make_study(), **WAYS["draws"], workers=pool), alone["draws"])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_processes_give_the_same_numbers(alone: dict[str, StudyResult], tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
        for way, options in WAYS.items():
            assert_same(scrub(make_study(), **options, workers=processes), alone[way])
        found = scrub(make_study(), **WAYS["draws"], workers=processes, out=tmp_path / "run")
    assert_same(found, alone["draws"])
    assert not (tmp_path / "run" / "working").exists()


def test_everything_travels_once_to_a_worker_and_is_taken_down(tmp_path: Path, alone: dict[str, StudyResult]) -> None:
    with Posted(tmp_path) as posted:
        found = scrub(make_study(), draws=6 * ROUND, exact=False, workers=posted)
    rounds = sum(len(each.draws.rounds) for each in found.results)
    assert rounds == 18
    large = [size for size in posted.sizes if size >= LARGE]
    assert len(posted.fetched) == len(set(posted.fetched)) == len(posted.sizes) < rounds
    # D and the values on it: no more than these, and no hypothesis's own share of them.
    assert len(large) >= 3 and max(size for size in posted.sizes if size < LARGE) < 2e4 + LARGE
    assert sum(posted.sizes) < 4 * 300 * 160 * 4 + 160 * 160 * 4 + 3 * LARGE
    assert not list(tmp_path.iterdir())


def test_shards_and_workers_together_make_one_run(tmp_path: Path, alone: dict[str, StudyResult]) -> None:
    with ThreadPoolExecutor(2) as pool:
        for i in (1, 2, 3):
            last = scrub(make_study(), **WAYS["draws"], out=RunFolder(tmp_path, shard=(i, 3)), workers=pool)
            assert last.cut_short == (i < 3)
        assert_same(scrub(make_study(), **WAYS["draws"], out=tmp_path, workers=pool), alone["draws"])


# Rounds that fail


class Trouble:
    """What a node does on draws in a worker, where a file says that it is to: as often as the file has letters."""

    def __init__(self, file: Path, kills: bool, at: float | None = None) -> None:
        self.file, self.kills, self.at = str(file), kills, at

    def __call__(self, out: torch.Tensor) -> None:
        if self.kills and multiprocessing.parent_process() is None:
            return
        if self.at is not None and float(out[0]) != self.at:
            return
        left = Path(self.file).read_text() if Path(self.file).exists() else ""
        if left:
            Path(self.file).write_text(left[1:])
            if self.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("no more")


def make_pool() -> Executor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def test_a_worker_that_dies_costs_nothing_where_another_pool_can_be_made(
    tmp_path: Path, alone: dict[str, StudyResult]
) -> None:
    file = tmp_path / "trouble"
    file.write_text("x")
    study = make_study(Trouble(file, kills=True))
    found = scrub(study, **WAYS["draws"], workers=make_pool, out=tmp_path / "run")
    assert file.read_text() == "" and not (tmp_path / "run" / "working").exists()
    assert_same(found, alone["draws"])


def test_a_round_that_kills_its_workers_is_named_and_no_other(tmp_path: Path, alone: dict[str, StudyResult]) -> None:
    """It is found out which, as those that were there when the pool broke are made one by one."""
    file, whole = tmp_path / "trouble", alone["draws"]
    seen = list[float]()
    scrub(make_study(lambda out: seen.append(float(out[0]))), **WAYS["draws"], chunk=ROUND)
    file.write_text("x" * 10)
    study = make_study(Trouble(file, kills=True, at=seen[4]))  # the second round of 'nothing'
    with pytest.raises(RoundError) as caught:
        scrub(study, **WAYS["draws"], chunk=ROUND, workers=make_pool, out=tmp_path / "run")
    (fault,) = caught.value.faults
    assert fault.startswith("hypothesis 'nothing': BrokenProcessPool: A process in the process pool was terminated")
    assert "; round 0-1, tried 2 times, last by a worker" in fault and file.read_text() == "x" * 8
    result = caught.value.result
    assert [each.cut_short for each in result.results] == [False, True, False, False]
    assert len(result["nothing"].draws.rounds) == 3
    assert len(RunFiles(tmp_path / "run").files_of("nothing")) == 3
    file.unlink()
    again = scrub(study, **WAYS["draws"], chunk=ROUND, out=tmp_path / "run")
    assert again["nothing"].draws.rounds == whole["nothing"].draws.rounds and not again.cut_short


def test_a_pool_that_is_given_and_breaks_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "trouble"
    file.write_text("x")
    with make_pool() as pool, pytest.raises(RoundError) as caught:
        scrub(make_study(Trouble(file, kills=True)), draws=ROUND, exact=False, workers=pool)
    assert len(caught.value.faults) == 3
    assert all("give a function that makes the executor" in fault for fault in caught.value.faults)


@pytest.mark.parametrize("times", [1, 2])
def test_a_node_that_raises_in_a_worker_is_tried_again(
    times: int, tmp_path: Path, alone: dict[str, StudyResult]
) -> None:
    file = tmp_path / "trouble"
    seen = list[float]()
    scrub(make_study(lambda out: seen.append(float(out[0]))), **WAYS["draws"], chunk=ROUND)
    file.write_text("x" * times)
    study = make_study(Trouble(file, kills=False, at=seen[2]))
    with Posted(tmp_path) as posted:
        if times == 1:
            found = scrub(study, **WAYS["draws"], chunk=ROUND, workers=posted)
            assert [r.draws.rounds for r in found.results] == [r.draws.rounds for r in alone["draws"].results]
            return
        with pytest.raises(RoundError) as caught:
            scrub(study, **WAYS["draws"], chunk=ROUND, workers=posted)
    (fault,) = caught.value.faults
    assert fault.startswith("hypothesis 'sign': node 'f' fails on 'out' float32[16384], 'y' float32[16384]: ValueError")
    assert f"; round 0-2, tried 2 times, last by process {os.getpid()} on " in fault


def test_an_interrupt_keeps_what_has_arrived(alone: dict[str, StudyResult], tmp_path: Path) -> None:
    def progress(phase: str, done: int, total: int) -> None:
        if phase == "rounds" and done >= 6:
            raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        found = scrub(make_study(), **WAYS["draws"], workers=pool, progress=progress, out=tmp_path)
    assert found.cut_short and not (tmp_path / "working").exists()
    assert 6 <= sum(len(each.draws.rounds) for each in found.results) < 12
    whole = scrub(make_study(), **WAYS["draws"], out=tmp_path)
    assert_same(replace(whole, started=""), alone["draws"])


def test_what_cannot_be_sent_is_said_at_once(tmp_path: Path) -> None:
    lock = threading.Lock()
    study = make_study(lambda out: lock.acquire(blocking=False) and lock.release())  # type: ignore[func-returns-value]
    with Posted(tmp_path) as posted, pytest.raises(StudyError) as caught:
        scrub(study, draws=ROUND, exact=False, workers=posted)
    assert "hypothesis 'sign' cannot be sent to another process: TypeError: cannot pickle" in str(caught.value)
    with ThreadPoolExecutor(1) as pool:
        assert not scrub(study, draws=ROUND, exact=False, workers=pool).cut_short
