"""f of one tree on draws, ready to be computed: here, or wherever it is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pscrub.errors import NodeError, reword
from pscrub.evaluate.code import Instruction
from pscrub.evaluate.compute import Kept
from pscrub.evaluate.joined import Gather
from pscrub.evaluate.plan import Kind
from pscrub.evaluate.quicker import settle
from pscrub.graph.graph import Node, call_of
from pscrub.progress import Progress, quiet
from pscrub.workers import side_by_side


@dataclass(frozen=True, eq=False)
class Compiled:
    """What computes f of one tree, with what it reads of D and nothing of the engine, the graph or the tree.

    Args:
        hypothesis: its name, for whoever reads of a failure.
        code: what is computed, in order.
        f: number of f.
        made: of what is watched, by name, the numbers as it is made for the draws.
        own: the same on the root's datum.
        read: number of a value that is read -> its values [N, ...] on D, and the path of its datum.
        gathers: number of what is put together of many such -> how it is read.
        fixed: number of a parameter, of the device or of what is made of these alone -> it itself.
        nodes: number -> the node whose function makes it, where it is a node's own.
        root: the root's path.
        size: draws that are evaluated at a time.
        device: where.
    """

    hypothesis: str
    code: Sequence[Instruction]
    f: int
    made: Mapping[str, int]
    own: Mapping[str, int]
    read: Mapping[int, tuple[Tensor, str]]
    gathers: Mapping[int, Gather]
    fixed: Mapping[int, Any]
    nodes: Mapping[int, Node]
    root: str
    size: int
    device: torch.device

    @classmethod
    def of(cls, kept: Kept, code: Sequence[Instruction], names: tuple[str, str], asked: Any, size: int) -> Compiled:
        """That of code which some values on D were kept for.

        Args:
            kept: the values.
            code: of what is asked for.
            names: the hypothesis's, and the root's path.
            asked: numbers of f and of what is watched (`engine.Asked`).
            size: draws that are evaluated at a time.
        """
        owners, values = kept.values.graph.owners, kept.values
        read, gathers, fixed = dict[int, tuple[Tensor, str]](), dict[int, Gather](), dict[int, Any]()
        for n in (each.number for each in code if each.fn is None):
            match values[n].kind:
                case Kind.CONSTANT:
                    fixed[n] = values[n].of
                case Kind.DEVICE:
                    fixed[n] = kept.device
                case Kind.PURE:
                    read[n] = kept.source(values[n].args[0]), values[n].of
                case Kind.MIXED:
                    gathers[n] = kept.joined.gather(n)
        nodes = {each.number: owners[id(each.fn)] for each in code if id(each.fn) in owners}
        name, root = names
        code, fixed = settle(code, fixed, asked.roots)
        return cls(name, code, asked.f, asked.made, asked.own, read, gathers, fixed, nodes, root, size, kept.device)

    def evaluate(self, data: Mapping[str, Tensor], watch: Any = None, progress: Progress = quiet) -> Tensor:
        """float64 [draws]: f on scrubbed inputs.

        Args:
            data: path -> int64 [draws], the datum of each site.
            watch: told, chunk by chunk, of the values that it watches (`engine.Watch`).
            progress: told of draws that are done.

        Raises:
            NodeError: a node's function raised; the hypothesis is named too.
        """
        try:
            pieces, draws = list[Tensor](), len(data[self.root])
            for value, found in self._chunks({path: _sent(rows, self.device) for path, rows in data.items()}):
                if watch is not None:
                    made = {n: found[at] for n, at in self.made.items()}
                    watch.see(made, {n: found[at] for n, at in self.own.items()})
                pieces.append(value)
                progress("draws", min(len(pieces) * self.size, draws), draws)
            return torch.cat(pieces).cpu()  # nothing waits for the device before
        except NodeError as error:
            raise reword(error, f"hypothesis '{self.hypothesis}': ") from error.__cause__

    def _chunks(self, data: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, dict[int, Tensor]]]:
        roots = tuple(dict.fromkeys((self.f, *self.made.values(), *self.own.values())))
        draws = len(data[self.root])

        def work(start: int) -> tuple[Tensor, dict[int, Tensor]]:
            part = {path: rows[start : start + self.size] for path, rows in data.items()}
            found = self._run(part, roots)
            return found[self.f].double(), found

        return side_by_side(work, range(0, draws, self.size), self.device)

    def _run(self, data: Mapping[str, Tensor], roots: Sequence[int]) -> dict[int, Tensor]:
        known, rows = dict[int, Any](), len(data[self.root])
        with torch.no_grad():
            for each in self.code:
                n = each.number
                if each.fn is not None:
                    known[n] = call_of(each.fn, [known[arg] for arg in each.args], self.nodes.get(n))
                elif n in self.read:
                    whole, path = self.read[n]
                    known[n] = whole.index_select(0, data[path])
                elif n in self.gathers:
                    known[n] = self.gathers[n](data)
                else:
                    known[n] = self.fixed.get(n, rows)  # the number of rows where it is neither
                for dead in each.dead:
                    del known[dead]
        return {n: known[n] for n in roots}


def _sent(rows: Tensor, device: torch.device) -> Tensor:
    """Rows on their way to the device: from pinned memory, so that a GPU takes them while the CPU goes on."""
    pinned = device.type == "cuda" and rows.device.type == "cpu" and torch.cuda.is_available()
    return (rows.pin_memory() if pinned else rows).to(device, non_blocking=True)
