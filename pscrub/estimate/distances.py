"""How far scrubbed outputs are from the model's own on the root's datum, draw by draw."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pscrub.graph.graph import Graph
from pscrub.graph.labels import compared_outputs
from pscrub.graph.losses import divergence, flipped, squared_error


class OutputDistances:
    """How far scrubbed outputs are from the model's own on the root's datum, draw by draw.

    The outputs are the nodes that f reads besides its labels. One number a row is compared by squared error. Several
    are taken to be logits (or log-probabilities) along the last axis: the divergence of the scrubbed distribution from
    the model's in nats, "KL", and whether the most likely entry is another one, "flipped"; over other axes, the mean.

    Args:
        graph: of the hypotheses.
        labels: the columns that are labels, as in `randomised_loss`.
    """

    def __init__(self, graph: Graph, labels: str | Sequence[str] | None = None) -> None:
        self.names = tuple(name for name in compared_outputs(graph, labels) if name in graph.nodes)
        self._seen: list[dict[str, Tensor]] = []

    def see(self, made: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
        """Compare, in a chunk of draws, the outputs that f is computed from with the model's own.

        Args:
            made: the outputs [chunk, ...] on scrubbed inputs.
            own: the same on the root's datum.
        """
        seen: dict[str, Tensor] = {}
        for name in self.names:
            for measure, value in _distances(own[name], made[name]).items():
                seen[measure if len(self.names) == 1 else f"{measure} of {name}"] = value.cpu()
        self._seen.append(seen)

    def anew(self) -> OutputDistances:
        """The same with nothing seen, so that several rounds can be looked at at once."""
        made = copy.copy(self)
        made._seen = []
        return made

    def taken(self) -> dict[str, Tensor]:
        """measure -> float64 [draws] since last taken."""
        seen, self._seen = self._seen, []
        return {name: torch.cat([each[name] for each in seen]) for name in (seen[0] if seen else {})}


def _distances(own: Tensor, other: Tensor) -> dict[str, Tensor]:
    if not own.is_floating_point():
        return {"flipped": (own != other).reshape(len(own), -1).double().mean(1)}
    if own[0].numel() == 1:
        return {"squared error": squared_error(own, other)}
    return {"KL": divergence(own, other), "flipped": flipped(own, other)}
