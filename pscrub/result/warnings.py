"""Claims that are weaker than they look: no swap permitted, every swap permitted, few donors, one claim said twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from pscrub.data.partition import Partition
from pscrub.estimate.baselines import Baselines
from pscrub.estimate.concerns import find_concerns
from pscrub.estimate.estimate import Estimate
from pscrub.estimate.known import Known
from pscrub.hypothesis.tree import Site, Tree
from pscrub.outcomes import Outcome, Said
from pscrub.result.draws import Draws, SiteDraws

FEW = 2.0
"""Effective donors, averaged over D, below which a site is warned of."""
ALONE = 0.05
"""The probability of a row that is alone in its block above which a site is warned of."""
SHOWN = 3
"""Sites that a warning names."""


class OfSites(Outcome):
    """Warnings that a run's record shows."""

    VACUOUS = (
        "vacuous claim",
        "vacuous claim: every block of '{path}' has a single row, so nothing is ever swapped there",
    )
    VACUOUS_MORE = "vacuous claims, more", "vacuous claim: so it is at {more} more sites"
    FEW_DONORS = (
        "few donors",
        "few donors: {paths} can be given {rows:.1f} different rows on average; more data or a coarser feature would "
        "test the claim",
    )


class OfTree(Outcome):
    """Warnings that need the partitions, and that a merge of saved results therefore has to keep."""

    EMPTY = (
        "empty claim",
        "empty claim: all rows are in one block of {claims}, so every swap is permitted there",
    )
    SINGLETONS = (
        "singleton blocks",
        "singleton blocks: of {paths} up to {share:.0f} % of D is alone in its block and never swapped",
    )
    SAME = (
        "same partition",
        "same partition: {features}{more} put rows in the same blocks; D cannot tell them apart",
    )


class OfNumbers(Outcome):
    """Warnings that expected losses show."""

    EXACT_NOT_FINITE = (
        "non-finite exact loss",
        "non-finite loss: the scrubbed expected loss is {value}; f is infinite or NaN on some rows",
    )
    MODEL_NOT_FINITE = "non-finite model loss", "non-finite loss: E_model is {value}"
    SUMMED = (
        "draws summed",
        "draws summed: of {draws:,} draws {kept:,} are kept one by one, and sums of the others; estimates and the "
        "worst draws are of all, distributions, columns, distances and tables of draws of those that are kept",
    )
    COINCIDE = (
        "baselines coincide",
        "baselines coincide: E_model {model:.6g} and E_randomised {randomised:.6g} cannot be told apart, so loss "
        "recovered is undefined",
    )


def warn_of_sites(sites: Sequence[SiteDraws]) -> Iterator[Said]:
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
        yield OfSites.VACUOUS.say(path=path)
    if len(vacuous) > SHOWN:
        yield OfSites.VACUOUS_MORE.say(more=len(vacuous) - SHOWN)
    few = [site for site in sites if not site.vacuous and site.largest > 1 and site.donors < FEW]
    if few:
        least = min(few, key=lambda site: site.donors)
        yield OfSites.FEW_DONORS.say(paths=_list([site.path for site in few]), rows=least.donors)


def warn_of_numbers(
    draws: Draws, estimate: Estimate, score: Estimate | None, against: Baselines, known: Known
) -> Iterator[Said]:
    """Warnings that draws and expected losses show: "non-finite loss", "baselines coincide", "draws summed" and
    those of `find_concerns`.

    Args:
        draws: all of one hypothesis.
        estimate: E_scrubbed.
        score: loss recovered, None where undefined.
        against: the baselines.
        known: what f was seen to be elsewhere.
    """
    if estimate.exact and not math.isfinite(estimate.value):
        yield OfNumbers.EXACT_NOT_FINITE.say(value=estimate.value)
    elif not estimate.exact:
        yield from find_concerns(draws.sample, estimate, known)
    if draws.sums is not None:
        yield OfNumbers.SUMMED.say(draws=len(draws), kept=len(draws.losses))
    if not math.isfinite(against.model.value):
        yield OfNumbers.MODEL_NOT_FINITE.say(value=against.model.value)
    if score is None and math.isfinite(estimate.value):
        yield OfNumbers.COINCIDE.say(model=against.model.value, randomised=against.randomised.value)


def warn_of_tree(tree: Tree) -> Iterator[Said]:
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
    # What isomorphic rewriting makes of unimportant inputs is meant to be one block.
    meant = [site for site in empty if site.claim is not None and not site.claim.unit]
    if meant:
        said = _list([f"{site.path}' ({_words(site)})" for site in meant], quote="'", end="")
        yield OfTree.EMPTY.say(claims=said)
    if alone:
        worst = max(share for share, _ in alone)
        yield OfTree.SINGLETONS.say(paths=_list([site.path for _, site in alone]), share=100 * worst)
    yield from _find_said_twice(claimed)


def _find_said_twice(claimed: Sequence[Site]) -> Iterator[Said]:
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
            yield OfTree.SAME.say(features=", ".join(shown), more=more)


def _alone(partition: Partition) -> float:
    """The probability of a row that is the only one in its block."""
    rows = torch.where(partition.sizes[partition.labels] == 1, partition.weights, 0.0)
    return float(rows.sum())


def _words(site: Site) -> str:
    return site.claim.feature_name if site.claim is not None else "unimportant"


def _list(paths: Sequence[str], quote: str = "'", end: str = "'") -> str:
    shown = ", ".join(f"{quote}{path}{end}" for path in paths[:SHOWN])
    return shown + (f" and {len(paths) - SHOWN} more sites" if len(paths) > SHOWN else "")
