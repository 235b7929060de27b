"""Code for draws made quicker: what no draw changes is computed once, and some operations in a way that costs less."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pscrub.evaluate.code import Instruction, last_readers
from pscrub.graph.graph import call_of
from pscrub.graph.ops import Moves, Operation

LITTLE = 2**20
"""Bytes up to which a value that no draw changes is kept, in place of being computed for every chunk."""


def settle(
    code: Sequence[Instruction], fixed: Mapping[int, Any], roots: Collection[int]
) -> tuple[list[Instruction], dict[int, Any]]:
    """The code without what can be computed before; and the values that it then reads, those there were included.

    Args:
        code: in order.
        fixed: number -> a parameter, or the device.
        roots: what is asked for.
    """
    known, order, fns = dict(fixed), list[int](), dict[int, Any]()
    reads = dict[int, tuple[int, ...]]()
    for each in code:
        n = each.number
        if isinstance(each.fn, Operation | Moves) and all(arg in known for arg in each.args):
            with torch.no_grad():
                value = call_of(each.fn, [known[arg] for arg in each.args], None)
            if not isinstance(value, Tensor) or value.nbytes <= LITTLE:
                # Of its own: a view would take all that it is of along to wherever the code is sent.
                known[n] = value.clone() if isinstance(value, Tensor) else value
        order.append(n)
        fns[n], reads[n] = (None, ()) if n in known else (each.fn, each.args)
    wanted = {*roots, *(arg for args in reads.values() for arg in args)}
    order = [n for n in order if n in wanted]
    dead = last_readers(order, reads, roots)
    settled = [Instruction(n, _quicker(fns[n]), reads[n], dead.get(n, ())) for n in order]
    return settled, {n: known[n] for n in order if n in known}


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, to the rounding of sums in another order; weights of several heads [heads, in, out] are one matrix.

    Torch copies what all heads read once a head and row, and makes a small product of each.

    Args:
        a: any, as [rows, 1, positions, in].
        b: any.

    >>> a, b = torch.ones(5, 1, 3, 2), torch.arange(8.0).reshape(2, 2, 2)
    >>> bool((multiply(a, b) == a @ b).all()), multiply(a, b).shape
    (True, torch.Size([5, 2, 3, 2]))
    """
    if not (a.ndim == 4 and b.ndim == 3 and a.shape[1] == 1 and b.shape[0] > 1):
        return a @ b
    heads, inside, out = b.shape
    made = a.reshape(-1, inside) @ b.transpose(0, 1).reshape(inside, heads * out)
    return made.view(a.shape[0], a.shape[2], heads, out).transpose(1, 2)


def fill(x: Tensor, mask: Tensor, value: float) -> Tensor:
    """`x.masked_fill(mask, value)`, of floats in one pass over x; refused as there where the value is too large."""
    fits = x.is_floating_point() and not torch.finfo(x.dtype).max < abs(value) < math.inf
    return torch.where(mask, value, x) if fits else x.masked_fill(mask, value)


_QUICKER = {torch.ops.aten.matmul.default: multiply, torch.ops.aten.masked_fill.Scalar: fill}


def _quicker(fn: Any) -> Any:
    if not isinstance(fn, Operation) or fn.target not in _QUICKER:
        return fn
    return Operation(_QUICKER[fn.target], fn.shape, fn.arguments, fn.has_rows)
