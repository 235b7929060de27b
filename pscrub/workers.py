"""Chunks of rows worked on side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Chunk = TypeVar("Chunk")
Made = TypeVar("Made")


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
