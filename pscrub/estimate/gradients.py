"""The derivatives of expected losses by the weights of D's rows, from the draws that are made anyhow.

For E_scrubbed the derivative is an expectation under the program that is already being drawn from,

    d E[f] / d log w_k = E[f d log p / d log w_k],   log p = sum over sites u of log(w_row(u) / W_block(u)),
    d log p / d log w_k = sum over u of [row(u) = k] - [k in block(u)] w_k / W_block(u),

with W the weight of the block that a site's row is drawn from: each site adds the indicator of its row less the row's
share of the block. No evaluation of the model is needed beyond those made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pscrub.estimate.baselines import EXACT_PAIRS, sample_of
from pscrub.estimate.pairs import Pairs, Sample
from pscrub.evaluate.on_data import OnData
from pscrub.hypothesis.tree import Tree


class Scores:
    """Running sums of the scores and of f times the scores, apart for the first and the second draws of pairs.

    Costs O(draws + N) a site, and four vectors of length N.

    Args:
        tree: the treeified hypothesis that is drawn from.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree, self.draws, self.total = tree, 0, 0.0
        self.sums = torch.zeros(2, 2, tree.hypothesis.data.n, dtype=torch.float64)

    def add(self, data: Mapping[str, Tensor], f: Tensor) -> None:
        """Take in a round.

        Args:
            data: path -> int64 [draws], every site's rows, pair by pair.
            f: float64 [draws].
        """
        f = f.double()
        for half in (0, 1):
            each = f[half::2]
            for factor, out in zip((torch.ones_like(each), each), self.sums[half], strict=True):
                for path, site in self.tree.sites.items():
                    parent = None if site.parent is None else data[site.parent][half::2]
                    _add_score(out, self.tree, path, data[path][half::2], parent, factor)
        self.draws += len(f)
        self.total += float(f.sum())

    def gradient(self) -> Tensor:
        """float64 [2, N]: d E_scrubbed / d log w of each row, from the first and from the second draws of the pairs.

        The score's expectation is 0, so that f may be centred, which takes most of the noise away.
        """
        mean = self.total / self.draws
        return (self.sums[:, 1] - mean * self.sums[:, 0]) / (self.draws / 2)


Population = tuple[Sequence[Tensor | Sequence[Tensor]], Tensor]
"""Gradients of E_scrubbed, E_model and E_randomised, and D's weights: what `data_uncertainty` is made from."""


@dataclass(frozen=True, eq=False)
class Gradients:
    """What the data's uncertainty is made from, E_scrubbed's own gradient apart.

    Args:
        model: float64 [2, N], of E_model.
        randomised: float64 [2, N], of E_randomised; zeros where it is given, and so held fixed.
        weights: float64 [N], D's.
    """

    model: Tensor
    randomised: Tensor
    weights: Tensor

    @classmethod
    def of(cls, on_data: OnData, labels: str | Sequence[str] | None, seed: int, fixed: bool) -> Gradients:
        """Those of a graph's baselines; labels and seed as in `randomised_loss`, `fixed` if E_randomised was given."""
        weights = on_data.data.weights
        model = exact_gradient(on_data.on_data(on_data.graph.output), weights)
        randomised = torch.zeros_like(model) if fixed else randomised_gradient(on_data, labels, seed=seed)
        return cls(model, randomised, weights)

    def beside(self, scrubbed: Tensor) -> Population:
        """All three, with E_scrubbed's, float64 [2, N]."""
        return (scrubbed, self.model, self.randomised), self.weights

    def of_draws(
        self, scores: Scores, earlier: tuple[Sequence[Tensor] | Tensor, int] | None = None
    ) -> Population | None:
        """All three, E_scrubbed's from draws, and from those of an earlier run; None if there are neither.

        Args:
            scores: of the draws of this run.
            earlier: E_scrubbed's gradient in the run that this one goes on from, and its draws.
        """
        made: list[tuple[Sequence[Tensor] | Tensor, int]] = [] if earlier is None else [earlier]
        made += [(scores.gradient(), scores.draws)] if scores.draws else []
        return self.beside(pool_gradients(*zip(*made, strict=True))) if made else None


def exact_gradient(f: Tensor, weights: Tensor) -> Tensor:
    """float64 [2, N]: d E_D[f] / d log w of each row, w_k (f_k - E_D[f]), twice (there is no noise).

    Args:
        f: float64 [N], on D.
        weights: float64 [N].

    >>> gradient = exact_gradient(torch.tensor([1.0, 2.0, 3.0]), torch.full((3,), 1 / 3, dtype=torch.float64))
    >>> round(float((gradient[0] * gradient[1]).sum()), 4)  # variance / N
    0.2222
    """
    f = torch.where(weights > 0, f.double().cpu(), 0.0)
    return (weights * (f - (weights * f).sum())).expand(2, -1)


def randomised_gradient(
    on_data: OnData, labels: str | Sequence[str] | None = None, pairs: int = EXACT_PAIRS, seed: int = 0
) -> Tensor:
    """float64 [2, N]: d E_randomised / d log w of each row, as an output and as a label; see `randomised_loss`.

    Exact where `randomised_loss` is; else from the very pairs that it samples, the first and the second of every two.

    Args:
        on_data: of the graph whose output node is the loss.
        labels: the columns that are labels.
        pairs: largest number of evaluations of f.
        seed: for sampled pairs.
    """
    pairs_of, weights = Pairs.of(on_data, labels), on_data.data.weights
    if pairs_of.count > pairs:
        return _sampled_gradient(pairs_of, sample_of(pairs, seed))
    of_output, of_label = pairs_of.sums()
    gradient = weights * (of_output + of_label[pairs_of.partition.labels] - 2 * (weights * of_output).sum())
    return gradient.expand(2, -1)


def _sampled_gradient(pairs: Pairs, sample: Sample) -> Tensor:
    """The gradient from the pairs that `randomised_loss` samples."""
    weights = pairs.on_data.data.weights
    f, drawn_from = pairs.f(sample), pairs.sample(sample)
    halves = torch.zeros(2, len(weights), dtype=torch.float64)
    for half in (0, 1):
        g = (f - f.mean())[half::2]
        for drawn in drawn_from:
            halves[half].index_add_(0, drawn[half::2], g)
        halves[half] = halves[half] / len(g) - 2 * weights * g.mean()
    return halves


def pool_gradients(gradients: Sequence[Tensor | Sequence[Tensor]], draws: Sequence[int]) -> Tensor:
    """float64 [2, N]: the gradient of several sets of draws together, each weighing as it has draws."""
    each = [torch.stack([half.double() for half in g]) * n for g, n in zip(gradients, draws, strict=True)]
    return torch.stack(each).sum(0) / sum(draws)


def _add_score(out: Tensor, tree: Tree, path: str, rows: Tensor, parent: Tensor | None, factor: Tensor) -> None:
    partition = tree.whole if parent is None else tree.sites[path].partition
    blocks = torch.zeros_like(rows) if parent is None else partition.labels[parent]
    out += torch.bincount(rows, weights=factor, minlength=len(out))
    per_block = torch.bincount(blocks, weights=factor, minlength=partition.n_blocks) / partition.block_weights
    out -= torch.where(partition.weights > 0, per_block[partition.labels] * partition.weights, 0.0)
