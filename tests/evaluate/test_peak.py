"""The memory that a plan says it takes is what tensors take while it runs: live ones are counted, by one thread."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pscrub import unroll
from pscrub.evaluate.engine import Engine
from pscrub.law.drawing import draw
from pscrub.studies import load
from pscrub.workers import threads_set

DRAWS = 400


class Live(TorchDispatchMode):
    """Bytes of the tensors that operations make, as long as they live, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **kwargs or {})
        for each in tree_leaves(made):
            if isinstance(each, torch.Tensor) and not func.is_view:
                storage = each.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self._known:
                    self._known[key] = size
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._gone, key)
        return made

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


@pytest.mark.parametrize("name", ["brackets", "induction", "max_of_k"])
@pytest.mark.parametrize("memory", [2**28, 2**23])
def test_a_run_takes_what_its_plan_says(name: str, memory: int) -> None:
    study = load(name, {"rows": "400"} if name != "max_of_k" else {})
    for hypothesis in study.hypotheses[-1:]:
        tree = unroll(hypothesis)
        with threads_set(1):
            engine = Engine(hypothesis.data, memory=memory)
            stated = engine.peak(tree)
            data = draw(tree, DRAWS, (0,))
            with Live() as live:
                engine.foresee([tree])
                engine.f(tree, data)
        assert live.peak <= 1.25 * stated + 2**22, (name, memory, stated, live.peak)
