"""How far scrubbed outputs are from the model's own on the root's datum, draw by draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pscrub.evaluate.values import Activations
from pscrub.graph.losses import divergence, flipped, squared_error


class OutputDistances:
    """How far scrubbed outputs are from the model's own on the root's datum, draw by draw.

    The outputs are the nodes that f reads besides its labels. One number a row is compared by squared error. Several
    are taken to be logits (or log-probabilities) along the last axis: the divergence of the scrubbed distribution from
    the model's in nats, "KL", and whether the most likely entry is another one, "flipped"; over other axes, the mean.

    Args:
        activations: of the graph on D.
        labels: the columns that are labels, as in `randomised_loss`.
    """

    def __init__(self, activations: Activations, labels: Sequence[str] | None = None) -> None:
        graph = activations.graph
        self.activations = activations
        self.outputs = tuple(name for name in graph.outputs(labels) if name in graph.nodes)
        self._seen: list[dict[str, Tensor]] = []

    def watch(self, given: Mapping[str, Tensor], rows: Tensor) -> None:
        """Compare, in a chunk of draws, the outputs that f is computed from with the model's own.

        Args:
            given: the values [chunk, ...] that the root reads.
            rows: int64 [chunk], the root's datum.
        """
        made = self.activations.graph.run(self.outputs, given)
        seen: dict[str, Tensor] = {}
        for name in self.outputs:
            for measure, value in _distances(self.activations.rows(name, rows), made[name]).items():
                seen[measure if len(self.outputs) == 1 else f"{measure} of {name}"] = value.cpu()
        self._seen.append(seen)

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
