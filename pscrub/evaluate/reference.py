"""f on scrubbed inputs, node by node: the slow evaluator that faster ones are held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pscrub.evaluate.values import Activations
from pscrub.hypothesis.ablation import RESAMPLING, Ablation, Replaced, replacements
from pscrub.hypothesis.tree import Tree
from pscrub.progress import Progress, quiet
from pscrub.workers import side_by_side


def run_scrubbed(
    tree: Tree,
    activations: Activations,
    data: Mapping[str, Tensor],
    at: str | None = None,
    chunk: int | None = None,
    progress: Progress = quiet,
    ablation: Ablation = RESAMPLING,
) -> Tensor:
    """float64 [draws]: f on scrubbed inputs (or the value [draws, ...] that another inner tree node takes).

    Each tree node's function runs on the values of the claims it reads, made in the same way, and on its unimportant
    inputs' values on their own datum. A node that reads no claim has the value it has on its datum.

    Args:
        tree: the treeified hypothesis.
        activations: of the tree's graph on its dataset.
        data: path -> int64 [draws], the datum of each site (`pscrub.law.draw`).
        at: path of the tree node asked for; the root by default.
        chunk: draws at a time; sized to the memory budget by default. Changes rounding only.
        progress: told of draws done.
        ablation: what replaces unimportant inputs (and claimed nodes, if it says so): by default what is drawn.
    """
    # Only leaves are read off D. Inner nodes are made anew for each draw: no datum gives their scrubbed value.
    sources = sources_of(tree)
    activations.keep(sources, progress)
    replaced = replacements(tree, ablation, activations.on_data)
    draws = len(data[tree.root])
    size = chunk or activations.chunk([*sources, *_inner_nodes(tree)])

    def evaluate(start: int) -> Tensor:
        part = {path: rows[start : start + size] for path, rows in data.items()}
        with torch.no_grad():
            value = _evaluate(tree, activations, part, at or tree.root, replaced)
        # f in float64: means over many draws are taken of it.
        return value.double().cpu() if at is None else value

    pieces = []
    for value in side_by_side(evaluate, range(0, draws, size), activations.device):
        pieces.append(value)
        progress("draws", min(len(pieces) * size, draws), draws)
    return torch.cat(pieces)


def sources_of(tree: Tree) -> tuple[str, ...]:
    """The graph nodes and columns whose values are taken from a leaf's datum."""
    return tuple(dict.fromkeys(name for path in tree.leaves for name in tree.source(path)))


def _inner_nodes(tree: Tree) -> list[str]:
    """The graph nodes computed anew for each draw."""
    names: list[str] = []
    for site in tree.sites.values():
        if site.claim is not None and site.given:
            names += [site.claim.at, *tree.hypothesis.inlined(site.claim)]
    return names


def _evaluate(tree: Tree, activations: Activations, data: Mapping[str, Tensor], at: str, replaced: Replaced) -> Tensor:
    """The value [draws, ...] of a tree node on its scrubbed inputs."""
    # The recursion of the algorithm, turned round: what is read comes first, as a chain of claims may be longer than
    # Python recurses. Treeified: each path has a value of its own, even where two paths end at one claim, and so one
    # reader, which it is kept for. What was computed on one site's data is kept apart: a draw may have several readers.
    values, memos = dict[str, Tensor](), dict[str, dict[str, Tensor]]()

    def take(name: str, path: str) -> Tensor:
        if path in replaced:
            return replaced[path].of(name, data[path])
        return activations.rows(name, data[path], memos.setdefault(path, {}))

    for path in _order(tree, at, replaced):
        site = tree.sites[path]
        assert site.claim is not None
        if path in replaced or not site.given:
            # Without claimed inputs it is evaluated whole on its datum; ablated, it has what stands in for that.
            values[path] = take(site.claim.at, path)
            continue
        given = {
            n: values.pop(each) if each in values else take(site.apart.get(n, n), each)
            for n, each in site.given.items()
        }
        # G's node c(u), from its important inputs as they were just made, and its unimportant ones on their own datum.
        graph = site.around(activations.graph)
        values[path] = graph.run([site.claim.at], given)[site.claim.at]
    return values[at]


def _order(tree: Tree, at: str, replaced: Replaced) -> Iterator[str]:
    """The tree nodes that one is computed from, each after those that it reads, and it itself last."""
    order, waiting = list[str](), [at]
    while waiting:
        order.append(waiting.pop())
        given = {} if order[-1] in replaced else tree.sites[order[-1]].given or {}
        waiting += [path for path in given.values() if tree.sites[path].claim is not None]
    return reversed(order)
