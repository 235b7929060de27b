"""torch's own attention, which uses its output projection's weights without calling it: called, for hooks to see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear as Projection
from torch.overrides import TorchFunctionMode


class ProjectionsCalled(TorchFunctionMode):
    """Within, `nn.MultiheadAttention` calls those of its output projections that are among some modules.

    What it computes is the same; it takes the way that torch takes in training, not the fused one.

    Args:
        modules: any; others than such projections do not matter.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self._projections = [each for each in modules if isinstance(each, Projection)]
        # torch's own function, its `linear` being ours, and told not to ask this mode again.
        forward: Any = functional.multi_head_attention_forward
        names = forward.__globals__ | {"linear": self._linear, "has_torch_function": lambda given: False}
        self._forward = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._projections and func is functional.multi_head_attention_forward:
            func = self._forward
        return func(*args, **(kwargs or {}))

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        called = (each for each in self._projections if each.weight is weight)
        call: Callable[[Tensor], Tensor] | None = next(called, None)
        return functional.linear(x, weight, bias) if call is None else call(x)

    @property
    def is_needed(self) -> bool:
        """Whether there is such a projection."""
        return bool(self._projections)
