"""The graph of chosen units: what each reads of conv3_2, cut by kind, by place, by strength and by arrangement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pscrub.data.dataset import Dataset
from pscrub.errors import StudyError
from pscrub.graph.graph import Graph, Node
from pscrub.graph.ops import Same
from pscrub.graph.rewrites import split
from pscrub.graph.tracing import trace
from pscrub.studies.curves.images import ORIENTATIONS, is_within
from pscrub.studies.curves.model import CHANNELS, PLACES, Trunk
from pscrub.studies.curves.tuning import AT_ONCE, Unit

BELOW, ANSWERS = "conv3_2", "answers"
BEHAVIOURS = ("correlation", "accuracy")
ENTRIES = CHANNELS * PLACES


@dataclass(frozen=True)
class Level:
    """A way to cut what is read of conv3_2; levels stand one on another, and each is the whole of it.

    Args:
        name: of the node that is cut.
        parts: name of a part -> bool [256, 9], the channels and places that it has; together each once.
    """

    name: str
    parts: Mapping[str, Tensor]


def build_graph_of_units(
    trunk: Trunk,
    data: Dataset,
    units: Sequence[Unit],
    levels: tuple[Sequence[Level], Mapping[int, Sequence[Level]]],
    behaviour: str,
) -> Graph:
    """The graph from the image to f, the mean over units of what each gets right.

    Nodes are conv3_2, float32 [batch, 2304], where nine places are read; each level and its parts; the units, [batch];
    their standardised `answers`, float64 [batch, units]; and f.

    Args:
        trunk: the model.
        data: D, as `make_images` makes it; f's moments are of it.
        units: those that f is about.
        levels: those that all units read, and those that a unit reads by itself, by number.
        behaviour: "correlation", of activation and label: f is their product, both with D's mean off and divided by D's
            standard deviation, so that its mean over D is the correlation; or "accuracy", the share of images that the
            threshold tells, both labels weighing the same.

    Raises:
        StudyError: a unit that does not vary on D.
    """
    shared, own = levels
    nodes, read = [], BELOW
    for level in shared:
        nodes.append(Node(level.name, (read,), Same(), view=True))
        read = level.name
    names = []
    for unit in units:
        at = read
        for level in own[unit.number]:
            nodes.append(Node(level.name, (at,), Same(), view=True))
            at = level.name
        names.append(name_unit(unit))
        nodes.append(Node(names[-1], (at,), _Reading(trunk, unit.number)))
    base = trace(trunk.below, {"image": data["image"]}, cuts={}, inputs=["image"], output=BELOW)
    units_alone = Graph([*base.nodes.values(), *nodes], ["image"], names[0])
    mean, sd = _moments(units_alone, data, units)
    labels = torch.stack([is_within(torch.arange(ORIENTATIONS), unit.preferred) for unit in units], 1).double()
    share = labels[data["orientation"]].mean(0)
    if behaviour == "accuracy":
        threshold = (torch.tensor([unit.threshold for unit in units], dtype=torch.float64) - mean) / sd
        judge: nn.Module = _Told(threshold, labels, (labels / share + (1 - labels) / (1 - share)) / 2)
    else:
        judge = _Product((labels - share) / (share * (1 - share)).sqrt())
    nodes.append(Node(ANSWERS, tuple(names), _Standardised(mean, sd)))
    nodes.append(Node(behaviour, (ANSWERS, "orientation"), judge))
    graph = Graph([*base.nodes.values(), *nodes], ["image", "orientation"], behaviour)
    for level in (*shared, *(level for unit in units for level in own[unit.number])):
        parts = {name: _indices(mask) for name, mask in level.parts.items() if mask.any()}
        graph = split(graph, level.name, 1, parts, ENTRIES)
    return graph


def name_unit(unit: Unit) -> str:
    """The unit's node."""
    return f"unit {unit.number}"


def _moments(graph: Graph, data: Dataset, units: Sequence[Unit]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of units on D, float64 [units]."""
    names = [name_unit(unit) for unit in units]
    with torch.no_grad():
        parts = [graph.run(names, {"image": some}) for some in data["image"].split(AT_ONCE)]
    values = torch.stack([torch.cat([part[name] for part in parts]) for name in names], 1).double()
    mean, sd = values.mean(0), values.std(0, correction=0)
    if faults := [f"{name} does not vary on D" for name, s in zip(names, sd, strict=True) if not s > 0]:
        raise StudyError(faults)
    return mean, sd


def _indices(mask: Tensor) -> list[int]:
    found: list[int] = torch.nonzero(mask.flatten()).flatten().tolist()
    return found


class _Reading(nn.Module):
    """One unit of conv3_3, [batch], of what it reads, [batch, 2304]."""

    def __init__(self, trunk: Trunk, number: int) -> None:
        super().__init__()
        assert trunk.last.bias is not None
        self.weight = nn.Parameter(trunk.last.weight[number].detach().flatten(), requires_grad=False)
        self.bias = nn.Parameter(trunk.last.bias[number].detach(), requires_grad=False)

    def forward(self, read: Tensor) -> Tensor:
        return torch.relu(read @ self.weight + self.bias)


class _Standardised(nn.Module):
    """float64 [batch, units]: activations, each [batch], with D's mean off and divided by its standard deviation."""

    def __init__(self, mean: Tensor, sd: Tensor) -> None:
        super().__init__()
        self.mean, self.sd = (nn.Parameter(each, requires_grad=False) for each in (mean, sd))

    def forward(self, *units: Tensor) -> Tensor:
        return (torch.stack(units, 1).double() - self.mean) / self.sd


class _Product(nn.Module):
    """float64 [batch]: standardised activation by standardised label [24, units], averaged over units."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.labels = nn.Parameter(labels, requires_grad=False)

    def forward(self, answers: Tensor, orientation: Tensor) -> Tensor:
        return (answers * self.labels[orientation]).mean(1)


class _Told(nn.Module):
    """float64 [batch]: whether the threshold tells the label, rare labels weighing more, averaged over units."""

    def __init__(self, threshold: Tensor, labels: Tensor, weight: Tensor) -> None:
        super().__init__()
        self.threshold, self.labels, self.weight = (
            nn.Parameter(each, requires_grad=False) for each in (threshold, labels, weight)
        )

    def forward(self, answers: Tensor, orientation: Tensor) -> Tensor:
        right = (answers > self.threshold).double() == self.labels[orientation]
        return (right * self.weight[orientation]).mean(1)
