"""Hypotheses as trees, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.tree import Tree as RichTree

from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.tree import Site, Tree, unroll
from pscrub.law.drawing import draw

SHOWN = 8
"""Names of what one draw is for that a line lists."""


def hypothesis_tree(hypothesis: Hypothesis, seed: int = 0) -> RichTree:
    """The treeified hypothesis for a terminal: node, place, feature, blocks, and one sampled datum per site.

    Args:
        hypothesis: a well-formed one.
        seed: of the sampled datum.

    Raises:
        HypothesisError: it is not well formed.
    """
    tree = unroll(hypothesis)
    data = {path: int(row[0]) for path, row in draw(tree, 2, (seed,)).items()}
    top = RichTree(escape(hypothesis.name), highlight=False)
    for path, site in tree.sites.items():
        if site.parent is None and site.claim is None and "/" not in path:
            top.add(_site_line(tree, site, data))
    _add(tree, tree.sites[tree.root], data, top)
    return top


def _add(tree: Tree, site: Site, data: dict[str, int], under: RichTree) -> None:
    branch = under.add(_site_line(tree, site, data))
    for other in tree.sites.values():
        own = other.claim is None and other.path.startswith(f"{site.path}/~")
        if own:
            branch.add(_site_line(tree, other, data))
    for child in tree.children(site.path):
        _add(tree, child, data, branch)


def _site_line(tree: Tree, site: Site, data: dict[str, int]) -> str:
    row = data[site.path]
    columns = tree.hypothesis.data.row(row)
    words = next((v for v in columns.values() if isinstance(v, str)), None) or _tell_columns(columns)
    datum = f"row {row}: {words}"
    if site.claim is None and site.parent is not None:
        return f"[dim]its reader's own: {escape(_list_few(tree.source(site.path)))}[/dim]"
    if site.claim is None:
        return f"[dim]unimportant, one draw for {escape(_list_few(tree.source(site.path)))}[/dim]  ← {escape(datum)}"
    claim, sizes = site.claim, site.partition.sizes
    low, high = int(sizes.min()), int(sizes.max())
    blocks = f"{site.partition.n_blocks:,} block{'s' * (site.partition.n_blocks != 1)} of " + (
        f"{low:,}" if low == high else f"{low:,} to {high:,}"
    )
    where = "" if claim.name == claim.at else f" at {claim.at}"
    head = f"[bold]{escape(claim.name)}[/bold]{escape(where)}"
    return f"{head}: {escape(claim.feature_name)} ({blocks} rows)  ← {escape(datum)}"


def _list_few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _tell_columns(columns: dict[str, Any]) -> str:
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value)[:40] for name, value in columns.items()}
    return ", ".join(f"{name}={text}" for name, text in shown.items())
