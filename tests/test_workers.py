"""Chunks side by side: the same values in the same order as one after another, and nothing left behind."""

import threading
from collections.abc import Iterator

import pytest
import torch

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
