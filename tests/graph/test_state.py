"""What a forward leaves behind is seen and undone."""

import random
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pscrub.graph.state import Generators, Kept, left_as_found
from tests.graph.traced_modules import Doing


def module() -> nn.Module:
    made: Any = Doing(lambda self, x: x, a=nn.Linear(2, 2))
    made.register_buffer("seen", torch.tensor([1.0, torch.nan]))
    made.number, made.items, made.by_name, made.names = 1, [torch.ones(1)], {"k": torch.ones(1)}, {"a"}
    made.queue, made.plain, made.flags = deque([1], maxlen=3), torch.arange(3), torch.tensor([True])
    return made


def change(made: Any) -> None:
    made.number += 1
    made.items.append(torch.ones(2))
    made.by_name["k"] = torch.zeros(1)
    made.names.add("b")
    made.queue.append(2)
    made.plain += 1
    made.flags.logical_not_()
    made.seen = torch.zeros(5)
    made.a.new = "text"


def look(made: Any) -> Any:
    held = [made.number, made.items, made.by_name, made.names, made.queue, made.plain, made.flags, made.seen]
    return [each.tolist() if isinstance(each, Tensor) else repr(each) for each in held]


def test_what_changes_is_named_and_undone() -> None:
    made = module()
    kept, before, queue = Kept(made), look(made), made.queue
    assert kept.changed() == []
    change(made)
    assert sorted(kept.changed()) == sorted(
        ["number", "items", "by_name", "names", "queue", "plain", "flags", "seen", "a.new"]
    )
    kept.put_back()
    assert repr(look(made)) == repr(before)
    assert made.queue is queue
    assert queue.maxlen == 3
    assert not hasattr(made.a, "new")
    assert kept.changed() == []


def test_generators_are_put_back() -> None:
    made, cpu = module(), torch.device("cpu")

    def numbers() -> list[float]:
        return [torch.rand(()).item(), random.random(), np.random.rand()]  # noqa: NPY002

    generators = Generators(cpu)
    first = numbers()
    generators.put_back()
    with left_as_found(made, cpu):
        assert numbers() == first
        change(made)
    assert numbers() == first
    assert made.number == 1
    generators.put_back()
