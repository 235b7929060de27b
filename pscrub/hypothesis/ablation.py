"""What stands in for an activation that is ablated: its value on a datum drawn for it, its mean, or zero."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from pscrub.data.dataset import Dataset
from pscrub.errors import HypothesisError, close
from pscrub.hypothesis.tree import Site, Tree

Kind = Literal["resampling", "mean", "zero"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Ablation:
    """A law of what replaces the values that a hypothesis holds to be interchangeable.

    "resampling": the value on the datum that the scrubbing law draws. "mean": the value's mean over D, weighted, or
    over the claim's block for a claimed node. "zero": zeros.

    Source: appendix, section 3.

    Args:
        kind: which.
        claimed: paths of tree nodes that are replaced too, with all that they read; "all": every claim that reads no
            other. Unimportant inputs always are. Of no effect on resampling, which draws within blocks as it is.

    Raises:
        HypothesisError: an unknown kind.
    """

    kind: Kind = "resampling"
    claimed: Collection[str] | Literal["all"] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise HypothesisError(f"unknown ablation '{self.kind}'{close(self.kind, KINDS)}; one of {', '.join(KINDS)}")


RESAMPLING = Ablation()


@dataclass(frozen=True, eq=False)
class Replacement:
    """The values that a site gives, one for each block, in place of those on its datum.

    Args:
        labels: int64 [N], the block of each row.
        values: graph node -> [blocks, ...].
    """

    labels: Tensor
    values: Mapping[str, Tensor]

    def of(self, name: str, rows: Tensor) -> Tensor:
        """[len(rows), ...]: what is given for data in these rows of D."""
        value = self.values[name]
        return value[self.labels[rows.to(self.labels.device)].to(value.device)]


Replaced = Mapping[str, Replacement]
"""Path of a site -> what it gives."""


def replacements(tree: Tree, ablation: Ablation, on_data: Callable[[str], Tensor]) -> Replaced:
    """Path -> what the site gives under an ablation; no paths for resampling, which gives what is drawn.

    Args:
        tree: the treeified hypothesis.
        ablation: the law.
        on_data: graph node or column -> its value [N, ...] on every row of D.

    Raises:
        HypothesisError: an unknown path, the root, or a mean of values that are not floating point.

    >>> from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
    >>> data = Dataset({"s": torch.tensor([1.0, 2.0, 6.0]), "t": torch.zeros(3)}, weights=[1, 1, 2])
    >>> graph = Graph.of({"f": lambda s, t: s + t}, inputs=["s", "t"], output="f")
    >>> tree = unroll(Hypothesis("only t", graph, data, Claim("f", reads=[Claim("t", "exact")])))
    >>> replacements(tree, Ablation("mean"), lambda name: data[name])["f/~"].values["s"].tolist()
    [3.75]
    """
    if ablation.kind == "resampling":
        return {}
    chosen = _choose_paths(tree, ablation.claimed)
    out, faults = dict[str, Replacement](), list[str]()
    for path, site in tree.sites.items():
        if site.claim is not None and path not in chosen:
            continue
        if site.claim is None and site.parent is not None:  # its reader's own: places, an exact rest
            continue
        values = {}
        for name in (site.claim.at,) if site.claim is not None else tree.source(path):
            value = on_data(name)
            if ablation.kind == "mean" and not value.is_floating_point():
                faults.append(
                    f"mean ablation of '{name}' at '{path}': its values are {value.dtype}, which have no mean; "
                    "expected floating point: name a node that reads it, or use another ablation"
                )
                continue
            values[name] = _means(site, value) if ablation.kind == "mean" else _zeros(site, value)
        out[path] = Replacement(site.partition.labels, values)
    if faults:
        raise HypothesisError(faults)
    return out


def read_partners(data: Dataset, column: str) -> Tensor:
    """int64 [N]: the row that a column names as each row's partner, a counterfactual prompt for instance.

    Raises:
        HypothesisError: no such column, one of another kind, rows that are not there (which).

    >>> read_partners(Dataset({"other": torch.tensor([1, 0, 3])}), "other")
    Traceback (most recent call last):
    pscrub.errors.HypothesisError: column 'other' names row 3 on row 2; expected rows 0 to 2
    """
    if column not in data.names:
        raise HypothesisError(f"no column '{column}' names a partner{close(column, data.names)}")
    rows = data.columns[column]
    if not isinstance(rows, Tensor) or rows.ndim != 1 or rows.is_floating_point() or rows.is_complex():
        raise HypothesisError(f"column '{column}' cannot name partners; expected whole numbers [N], rows of D")
    wrong = ((rows < 0) | (rows >= data.n)).nonzero().flatten().tolist()
    if wrong:
        more = f" and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        found = f"column '{column}' names row {int(rows[wrong[0]])} on row {wrong[0]}{more}"
        raise HypothesisError(f"{found}; expected rows 0 to {data.n - 1}")
    return rows.long()


def give_partners(tree: Tree, data: Mapping[str, Tensor], partners: Tensor) -> dict[str, Tensor]:
    """Path -> int64 [draws]: unimportant inputs are given the partner of their reader's datum, not one that is drawn.

    An exact rest stays what it is; a draw that readers share is given the partner of the root's datum.

    Args:
        tree: the treeified hypothesis.
        data: path -> the datum of each site; those of tree nodes are kept.
        partners: int64 [N], the partner of each row.
    """
    free = [path for path, site in tree.sites.items() if site.claim is None and site.parent is None]
    return {**data, **{path: partners[data[tree.reader(path)]] for path in free}}


def _choose_paths(tree: Tree, claimed: Collection[str] | Literal["all"]) -> Collection[str]:
    if isinstance(claimed, str):
        if claimed != "all":
            raise HypothesisError(f"claimed is '{claimed}'; expected paths of tree nodes, or 'all'")
        return [path for path in tree.leaves if tree.sites[path].claim is not None and path != tree.root]
    faults = [
        f"ablation of '{path}': no such tree node{close(path, tree.sites)}"
        for path in claimed
        if path not in tree.sites
    ]
    if tree.root in claimed:
        faults.append(f"ablation of '{tree.root}': it is the root, where f is read; expected a node below it")
    if faults:
        raise HypothesisError(faults)
    return claimed


def _means(site: Site, value: Tensor) -> Tensor:
    """[blocks, ...]: the mean of a value in each block, weighted, summed in float64."""
    weights, labels = site.partition.weights, site.partition.labels
    kept = weights > 0  # a row of weight zero may hold anything, NaN included
    shape = (-1, *(1,) * (value.ndim - 1))
    wide = value.detach().cpu().double()[kept] * weights[kept].reshape(shape)
    total = torch.zeros((site.partition.n_blocks, *value.shape[1:]), dtype=torch.float64)
    total.index_add_(0, labels[kept], wide)
    return (total / site.partition.block_weights.reshape(shape)).to(value)


def _zeros(site: Site, value: Tensor) -> Tensor:
    return value.new_zeros((site.partition.n_blocks, *value.shape[1:]))
