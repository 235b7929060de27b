"""The graph of a compiled model: a node for each variable, for what each head reads, and for the answer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pscrub.data.dataset import Dataset
from pscrub.graph.graph import Graph, Node
from pscrub.studies.compiled.circuits import OUTPUT, find_sources, name_parts
from pscrub.studies.compiled.model import TOKENS, Program

MASKED = -1e30
"""The score of a place that has no token, as in Tracr's model."""
NO_ANSWER = -1
"""The answer where there is no token; as a label it stands where nothing is scored."""


def build_graph(program: Program) -> Graph:
    """Returns the graph, from the columns sequence, kept and right to the loss.

    Nodes are what is embedded of the tokens; of each head its q, k and v and what it writes; what each group of neurons
    writes; the answer's directions, `output`; the `answer`, int64 [batch, place], a place in `Program.answers`; and the
    loss, the share of the scored answers that are wrong. Each reads all that was written to the residual stream
    before. Positions, and the direction that is always 1, are the same in every row, and stand inside of what reads.
    """
    nodes = [Node(TOKENS, ("sequence",), _Embedding(program.embedding))]
    for component in program.components:
        sources, weights = find_sources(program, component.stage), component.weights
        if component.is_head:
            for part, key in (("q", "query"), ("k", "key"), ("v", "value")):
                reader = name_parts(component)[part]
                nodes.append(Node(reader, sources, _Read(program.positions, weights[key])))
            inputs = (*name_parts(component).values(), "kept")
            nodes.append(Node(component.name, inputs, _Head(weights["out"], component.divisor)))
        else:
            nodes.append(Node(component.name, sources, _Neurons(program.positions, weights["in"], weights["out"])))
    picked = torch.zeros(len(program.directions), len(program.answer_directions))
    picked[list(program.answer_directions), range(picked.shape[1])] = 1
    nodes.append(Node(OUTPUT, find_sources(program), _Read(program.positions, picked)))
    nodes.append(Node("answer", (OUTPUT, "kept"), _Answer(program)))
    nodes.append(Node("loss", ("answer", "right"), _loss))
    return Graph(nodes, inputs=["sequence", "kept", "right"], output="loss")


def make_data(program: Program) -> Dataset:
    """Returns D, each sequence as likely: columns sequence, kept, right (int64, as `answer`) and length."""
    right = program.values[program.output]
    if not program.numerical:
        places = [program.answers.index(str(value)) for value in program.named[program.output]]
        right = torch.where(right < 0, NO_ANSWER, torch.tensor(places)[right])
    return Dataset(
        {"sequence": program.sequences, "kept": program.kept, "right": right, "length": program.kept.sum(1) - 1}
    )


def _loss(answer: Tensor, right: Tensor) -> Tensor:
    scored = right != NO_ANSWER
    return ((answer != right) & scored).double().sum(1) / scored.sum(1)


class _Embedding(nn.Module):
    """What tokens are embedded as, [batch, place, direction], of sequences [batch, place]."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table, requires_grad=False)

    def forward(self, sequence: Tensor) -> Tensor:
        return functional.embedding(sequence, self.table)


class _Read(nn.Module):
    """What is read of the residual stream, [batch, place, width], given all that was written to it."""

    def __init__(self, positions: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.positions = nn.Parameter(positions, requires_grad=False)
        self.weights = nn.Parameter(weights, requires_grad=False)

    def forward(self, *written: Tensor) -> Tensor:
        return (torch.stack(written).sum(0) + self.positions) @ self.weights


class _Neurons(nn.Module):
    """What a group of neurons writes, [batch, place, direction]."""

    def __init__(self, positions: Tensor, into: Tensor, out: Tensor) -> None:
        super().__init__()
        self.read = _Read(positions, into)
        self.out = nn.Parameter(out, requires_grad=False)

    def forward(self, *written: Tensor) -> Tensor:
        return functional.relu(self.read(*written)) @ self.out


class _Head(nn.Module):
    """What a head writes, [batch, place, direction], from its q, k and v, and from where there are tokens."""

    def __init__(self, out: Tensor, divisor: float) -> None:
        super().__init__()
        self.out, self.divisor = nn.Parameter(out, requires_grad=False), divisor

    def forward(self, query: Tensor, key: Tensor, value: Tensor, kept: Tensor) -> Tensor:
        scores = query @ key.transpose(1, 2) / self.divisor
        pattern = torch.where(kept[:, None], scores, MASKED).softmax(2)
        return pattern @ value @ self.out


class _Answer(nn.Module):
    """The answer at each place but the start, [batch, place]: the largest direction, or the nearest number."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        numbers = program.named[program.output] if program.numerical else ()
        self.numbers = nn.Parameter(torch.tensor(numbers), requires_grad=False)

    def forward(self, output: Tensor, kept: Tensor) -> Tensor:
        scores = -(output - self.numbers).abs() if len(self.numbers) else output
        return torch.where(kept, scores.argmax(2), NO_ANSWER)[:, 1:]
