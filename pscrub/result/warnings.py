"""Claims that are weaker than they look: no swap permitted, every swap permitted, few donors, one claim said twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from pscrub.data.partition import Partition
from pscrub.hypothesis.tree import Site, Tree
from pscrub.result.draws import SiteDraws

OF_SITES = ("vacuous claim", "few donors")
"""How the warnings begin that a run's record shows."""
OF_TREE = ("empty claim", "singleton blocks", "same partition")
"""How those begin that need the partitions."""
FEW = 2.0
"""Effective donors, averaged over D, below which a site is warned of."""
ALONE = 0.05
"""The probability of a row that is alone in its block above which a site is warned of."""
SHOWN = 3
"""Sites that a warning names."""


def warn_of_sites(sites: Sequence[SiteDraws]) -> Iterator[str]:
    """Warnings that the record of a run's sites shows: "vacuous claim", "few donors".

    A vacuous claim is meant to permit swaps, as it is not "exact", and every block has one row that can be drawn. Few
    donors: what is drawn is nearly always the parent's own row or one of very few others, so that the law of draws is
    a coarse picture of what the claim permits.

    Args:
        sites: of a run, without the root.

    >>> site = SiteDraws("f/s", ("s",), "parity", 3, 1, 1, 1.0, True, 0, 0, 0, 0)
    >>> list(warn_of_sites([site]))
    ["vacuous claim: every block of 'f/s' has a single row, so nothing is ever swapped there"]
    """
    vacuous = [site.path for site in sites if site.vacuous]
    for path in vacuous[:SHOWN]:
        yield f"vacuous claim: every block of '{path}' has a single row, so nothing is ever swapped there"
    if len(vacuous) > SHOWN:
        yield f"vacuous claim: so it is at {len(vacuous) - SHOWN} more sites"
    few = [site for site in sites if not site.vacuous and site.largest > 1 and site.donors < FEW]
    if few:
        least = min(few, key=lambda site: site.donors)
        yield (
            f"few donors: {_listed([site.path for site in few])} can be given {least.donors:.1f} different rows on "
            "average; more data or a coarser feature would test the claim"
        )


def warn_of_tree(tree: Tree) -> Iterator[str]:
    """Warnings that need the partitions: "empty claim", "singleton blocks", "same partition".

    An empty claim has one block, and so says no more than that its node does not matter, but that it has a draw of its
    own. Singleton blocks: rows that nothing can stand in for, where others can be swapped. The same partition: claims
    about different features that no row of D tells apart; which of them the model computes, these data cannot say.

    Args:
        tree: the treeified hypothesis.

    >>> from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
    >>> data = Dataset({"x": torch.arange(4)})
    >>> graph = Graph.of({"s": lambda x: x % 2, "t": lambda x: x // 4, "f": lambda s, t: 1.0 * s + t}, ["x"], "f")
    >>> reads = [Claim("s", lambda d: d["x"] % 2, words="parity"), Claim("t", lambda d: d["x"] // 4, words="size")]
    >>> list(warn_of_tree(unroll(Hypothesis("h", graph, data, Claim("f", reads=reads)))))
    ["empty claim: all rows are in one block of 'f/t' (size), so every swap is permitted there"]
    """
    claimed = [site for path, site in tree.sites.items() if site.claim is not None and path != tree.root]
    known: dict[int, float] = {}
    empty, alone = [], []
    for site in claimed:
        partition = site.partition
        if int((partition.sizes > 0).sum()) == 1:
            empty.append(site)
            continue
        if id(partition) not in known:
            known[id(partition)] = _alone(partition)
        if known[id(partition)] > ALONE and int(partition.sizes.max()) > 1:
            alone.append((known[id(partition)], site))
    units = [site for site in empty if not _is_unit(site)]
    if units:
        said = _listed([f"{site.path}' ({_words(site)})" for site in units], quote="'", end="")
        yield f"empty claim: all rows are in one block of {said}, so every swap is permitted there"
    if alone:
        worst = max(share for share, _ in alone)
        yield (
            f"singleton blocks: of {_listed([site.path for _, site in alone])} up to {100 * worst:.0f} % of D is alone "
            "in its block and never swapped"
        )
    yield from _told_twice(claimed)


def _told_twice(claimed: Sequence[Site]) -> Iterator[str]:
    groups: dict[Partition, dict[str, str]] = {}
    for site in claimed:
        # "Exact" and what inputs determine say themselves that they add nothing of their own.
        own = site.claim is not None and site.claim.feature is not None and site.claim.feature_name != "exact"
        if own and int((site.partition.sizes > 0).sum()) > 1:
            groups.setdefault(site.partition, {}).setdefault(_words(site), site.path)
    for features in groups.values():
        if len(features) > 1:
            shown = [f"{words} at '{path}'" for words, path in list(features.items())[:SHOWN]]
            more = f" and {len(features) - SHOWN} more" if len(features) > SHOWN else ""
            yield f"same partition: {', '.join(shown)}{more} put rows in the same blocks; D cannot tell them apart"


def _alone(partition: Partition) -> float:
    """The probability of a row that is the only one in its block."""
    rows = torch.where(partition.sizes[partition.labels] == 1, partition.weights, 0.0)
    return float(rows.sum())


def _is_unit(site: Site) -> bool:
    return site.claim is not None and site.claim.name.startswith("unit(")


def _words(site: Site) -> str:
    return site.claim.feature_name if site.claim is not None else "unimportant"


def _listed(paths: Sequence[str], quote: str = "'", end: str = "'") -> str:
    shown = ", ".join(f"{quote}{path}{end}" for path in paths[:SHOWN])
    return shown + (f" and {len(paths) - SHOWN} more sites" if len(paths) > SHOWN else "")
