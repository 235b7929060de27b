"""A chain of claims longer than Python recurses, on four weighted rows, with what is known of it in closed form."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Node, Tree, unroll

LENGTH, EVERY = 1500, 100
DRAWS = LENGTH // EVERY
"""Of unimportant inputs."""
ODD = 0.05
"""The share of D where y is 1."""
DATA = Dataset({"x": torch.arange(4), "y": torch.tensor([0, 0, 0, 1])}, [0.25, 0.5, 0.25 - ODD, ODD])


def claim_chain(name: str, feature: Callable[[Any], Any]) -> Hypothesis:
    """f is the parity of x, to which some nodes add y, modulo 2; each claim reads the next, and y is unimportant."""
    nodes = [Node("n0", ("x",), lambda x: x % 2.0)]
    for k in range(1, LENGTH):
        adds = k % EVERY == EVERY // 2
        made = Node(f"n{k}", (f"n{k - 1}", "y"), lambda n, y: (n + y) % 2)
        nodes.append(made if adds else Node(f"n{k}", (f"n{k - 1}",), lambda n: n * 1))
    claim = Claim("n0", feature)
    for k in range(1, LENGTH):
        claim = Claim(f"n{k}", feature, reads=[claim])
    return Hypothesis(name, Graph(nodes, ["x", "y"], nodes[-1].name), DATA, claim)


@cache
def chain_tree() -> Tree:
    """The chain that claims the parity of x, unrolled: a site for each claim and each draw of y."""
    return unroll(claim_chain("parity", lambda data: data["x"] % 2))
