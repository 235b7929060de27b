"""Whether a claim is missing in the population that D is a sample of: looked for on some rows, confirmed on others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pscrub.data.partition import number_units
from pscrub.estimate.difference import Apart, Difference, difference_apart
from pscrub.estimate.estimate import Estimate
from pscrub.estimate.stopping import ROUND
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.on_data import OnData
from pscrub.hypothesis.claim import EXACT
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.tree import Site, Tree, unroll
from pscrub.law.distinct import ApartLaw
from pscrub.law.entropy import entropy_budget
from pscrub.outcomes import Outcome, Said
from pscrub.progress import Progress, quiet
from pscrub.questions.adversarial.moves import LEAST, Move, Option
from pscrub.questions.adversarial.offers import Offer, check_asked, check_nodes

COMPLETE = 0.9
"""Share of draws whose sites must all have had a row left: with fewer, blocks are too small to tell."""
LEAST_ROWS = 20
"""Rows to search on, and rows to confirm on, below which nothing is told."""
CONFIRMING = 4
"""Times as many draws as a move has in the search: the rows are the most that an interval's width should come from."""
SPLIT, SEARCH, CONFIRM = 1, 2, 3
"""What tells the seeds of the split, the search and the confirmation apart."""


class Finding(Outcome):
    """What an adversary says of the population that D is a sample of."""

    MISSING = (
        "missing claim",
        "found a missing claim: {moves}: E_scrubbed {change:+.6g} {ends} in the population that D is a sample of, "
        "confirmed on {rows:,} {units} held out from the search, at level {level:g}",
    )
    NOT_FOUND = (
        "no missing claim found",
        "no missing claim found in the population that D is a sample of, at level {level:g}: what looked surest, "
        "{moves}, moves E_scrubbed by {change:+.4g} {ends} on {rows:,} {units} held out from the search",
    )
    FEW_ROWS = (
        "too few rows for the population",
        "whether a claim is missing in the population cannot be told: {rows:,} {units}, of which {held:,} would be "
        "held out; expected {least:,} to search on and {least:,} to confirm on; take more of them",
    )
    SMALL_BLOCKS = (
        "blocks too small for the population",
        "whether a claim is missing in the population cannot be told: on {share:.0f} % of the draws a site's block "
        "has no row left that the draw does not have already (more than {most:.0f} %); make blocks larger, or take "
        "more rows",
    )
    NOTHING_TRIED = (
        "nothing to try in the population",
        "whether a claim is missing in the population cannot be told: no claim offered leaves blocks of enough rows",
    )
    NOT_ASKED = (
        "population not asked about",
        "no rows were held out: nothing is said about a population that D may be a sample of",
    )


@dataclass(frozen=True, eq=False)
class InPopulation:
    """What was found out about the population that D is a sample of.

    Args:
        finding: what was found.
        said: the same in a sentence.
        chosen: moves joined one after another, on the rows searched.
        confirmed: what they do together to E_scrubbed in the population, by the rows held out; None if not told.
        tried: moves of the first search.
        rows: searched on, and held out; of clusters, how many of these.
    """

    finding: Finding
    said: Said
    chosen: tuple[Move, ...] = ()
    confirmed: Estimate | None = None
    tried: int = 0
    rows: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class HeldOut:
    """How the population is asked about.

    Args:
        share: of the rows that are held out from the search; 0 does not ask.
        draws: of each move; of the confirmation CONFIRMING times as many.
        steps: most moves joined one after another.
        seed: of the split, the clusters and the draws.
        level: of the confirmation's interval, and of those of a search together.
        per_bit: prefer what moves E_scrubbed most for each bit.
        clusters: a column whose values tell apart what is independent; each row is by default.
    """

    share: float
    draws: int
    steps: int
    seed: int
    level: float
    per_bit: bool = False
    clusters: str | None = None


def adversary_in_population(
    hypothesis: Hypothesis,
    features: Mapping[str, Any] | Sequence[Any] = (),
    *,
    from_data: bool = True,
    nodes: Sequence[str] | None = None,
    draws: int = ROUND,
    steps: int = 2,
    per_bit: bool = False,
    seed: int = 0,
    level: float = 0.95,
    held_out: float = 0.5,
    clusters: str | None = None,
    device: torch.device | str = "cpu",
    memory: int = MEMORY,
    progress: Progress = quiet,
) -> InPopulation:
    """Whether a claim is missing in the population that D is a sample of: what `adversary` says of that, alone.

    Arguments and errors as in `adversary`; with nothing to try, that is what is found.

    >>> from pscrub import Claim, Dataset, Graph
    >>> data = Dataset({"x": torch.arange(400) % 4})
    >>> graph = Graph.of({"s": lambda x: 1.0 * x, "f": lambda s, x: (s - x).abs()}, inputs=["x"], output="f")
    >>> parity = Claim("s", lambda d: d["x"] % 2)
    >>> h = Hypothesis("parity alone", graph, data, Claim("f", reads=[parity, Claim("x", "x")]))
    >>> found = adversary_in_population(h, {"half": lambda d: d["x"] // 2}, from_data=False, draws=512)
    >>> found.finding.name, found.rows, round(found.confirmed.value, 1)
    ('MISSING', (200, 200), -1.0)
    """
    check_asked(draws, steps, level, held_out)
    if nodes is not None:
        check_nodes([unroll(hypothesis)], nodes)
    engine = Engine(hypothesis.data, device, memory, progress=progress)
    how = HeldOut(held_out, draws, steps, seed, level, per_bit, clusters)
    return find_in_population(hypothesis, Offer(features, from_data, nodes, seed), how, engine)


def find_in_population(hypothesis: Hypothesis, offer: Offer, how: HeldOut, engine: Engine) -> InPopulation:
    """Look for a missing claim on some of D's rows, and confirm what is found on the others.

    Neither rows nor blocks of the confirmation have been seen by the search, and no draw has a row of D twice where
    the population would have two. So under a hypothesis that lacks none of the claims offered, in the population, the
    confirmation's interval leaves 0 out no more often than its level says, on the side that the search saw in half of
    these cases.

    Args:
        hypothesis: a well-formed one.
        offer: what is tried.
        how: rows, draws and levels.
        engine: computes f.
    """
    if not how.share:
        return InPopulation(Finding.NOT_ASKED, Finding.NOT_ASKED.say())
    weights, units = hypothesis.data.weights, number_units(hypothesis.data, how.clusters)
    searched, held = split_rows(weights, units, how.share, how.seed)
    counts, name = (len(units[searched].unique()), len(units[held].unique())), "clusters" if how.clusters else "rows"
    if min(counts) < LEAST_ROWS:
        said = Finding.FEW_ROWS.say(rows=sum(counts), units=name, held=counts[1], least=LEAST_ROWS)
        return InPopulation(Finding.FEW_ROWS, said, rows=counts)
    start = tree = unroll(hypothesis)
    on_data = engine.on_data(hypothesis.graph)
    deciding, offered = find_deciding(tree, on_data), offer.read(tree, on_data, searched)
    chosen: list[Move] = []
    tried = 0
    for step in range(how.steps):
        offers = offered.options(tree)
        sample = _Rows(_only(weights, searched), units, deciding, how.draws, (how.seed, SEARCH, step))
        best = _search(tree, offers, sample, engine, how)
        tried = tried or len(offers)
        if best is None or (step and not best[0].clear):
            break
        chosen.append(best[0])
        tree = best[1]
    if not chosen:
        return InPopulation(Finding.NOTHING_TRIED, Finding.NOTHING_TRIED.say(), tried=tried, rows=counts)
    sides = [move.difference.value for move in chosen]
    sample = _Rows(_only(weights, held), units, deciding, CONFIRMING * how.draws, (how.seed, CONFIRM))
    (found,) = measure_apart(start, [tree], sample, engine, how.level)
    e = found.estimate
    words = "; then ".join(f"{move.feature} at {move.where}" for move in chosen)
    figures = {"moves": words, "change": e.value, "ends": e.ends(), "rows": counts[1], "level": how.level}
    if found.complete < COMPLETE:
        share, most = 100 * (1 - found.complete), 100 * (1 - COMPLETE)
        said = Finding.SMALL_BLOCKS.say(share=share, most=most)
        return InPopulation(Finding.SMALL_BLOCKS, said, tuple(chosen), None, tried, counts)
    # The side is part of what the search found: what the other rows say on the other side does not confirm it.
    same = sum(sides) * e.value > 0
    finding = Finding.MISSING if same and not e.low <= 0 <= e.high else Finding.NOT_FOUND
    return InPopulation(finding, finding.say(**figures, units=name), tuple(chosen), e, tried, counts)


def split_rows(weights: Tensor, units: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to search on and rows to confirm on, int64 each: units of rows of positive weight, split at random.

    Args:
        weights: float64 [N], of D's rows.
        units: int64 [N], numbered from 0; rows of one stay together.
        share: of the units that are held out.
        seed: names the split.
    """
    rows = (weights > 0).nonzero().flatten()
    there = units[rows].unique()
    rng = np.random.default_rng(np.random.SeedSequence((seed, SPLIT)))
    mixed = there[torch.from_numpy(rng.permutation(len(there)))]
    held = torch.isin(units[rows], mixed[: round(share * len(there))])
    return rows[~held], rows[held]


def find_carried(tree: Tree, values: frozenset[str]) -> frozenset[str]:
    """The sites whose block decides all that is read of their datum, so that the parent's own row will do.

    Args:
        tree: the treeified hypothesis.
        values: sites whose block decides the value that they give, of `find_deciding`; in a join they still do.
    """
    found = set()
    for path, site in tree.sites.items():
        if path == tree.root or site.claim is None:
            continue
        # What passes a datum on decides enough if it agrees on all that those below it agree on.
        passes = bool(site.given) and (site.claim.feature is None or _shows(site))
        if path in values or (passes and all(site.partition.refines(c.partition) for c in tree.children(path))):
            found.add(path)
    return frozenset(found)


def find_deciding(tree: Tree, on_data: OnData) -> frozenset[str]:
    """The sites of claims that read nothing whose block decides the value that they give.

    Claims that are "exact" or about a column by its own value, and those on whose blocks the value is the same.
    """
    return frozenset(
        path
        for path, site in tree.sites.items()
        if path != tree.root and site.claim is not None and site.is_leaf and _decides(tree, site, on_data)
    )


def _decides(tree: Tree, site: Site, on_data: OnData) -> bool:
    assert site.claim is not None
    feature = site.claim.feature
    if isinstance(feature, str) and feature in (EXACT, site.claim.at):
        return True
    rows = (site.partition.weights > 0).nonzero().flatten()
    first = site.partition.first_rows[site.partition.labels_of(rows)]
    return _shows(site) and all(_are_alike(on_data.on_data(name), rows, first) for name in tree.source(site.path))


def _shows(site: Site) -> bool:
    """Whether most rows have another in their block: blocks of one row decide everything and show nothing."""
    return float(site.partition.block_weights[site.partition.sizes == 1].sum()) <= 0.5


def _are_alike(values: Tensor, rows: Tensor, others: Tensor) -> bool:
    return torch.equal(values[rows.to(values.device)], values[others.to(values.device)])


@dataclass(frozen=True, eq=False)
class _Rows:
    """What rows are drawn, and how.

    Args:
        weights: float64 [N], 0 for rows that are not.
        units: int64 [N], what is independent.
        deciding: sites whose block decides the value that they give.
        draws: of each tree.
        seed: names them.
    """

    weights: Tensor
    units: Tensor
    deciding: frozenset[str]
    draws: int
    seed: tuple[int, ...]


def measure_apart(
    start: Tree, trees: Sequence[Tree], rows: _Rows, engine: Engine, level: float
) -> Iterator[Difference]:
    """What each of several trees changes of E_scrubbed in the population, on common random numbers."""
    strata = start.seen.refine(*(tree.seen for tree in trees))
    draws = rows.draws + rows.draws % 2

    def drawn(tree: Tree) -> Apart:
        law = ApartLaw(tree, rows.weights, rows.units, find_carried(tree, rows.deciding))
        made = law.draw(strata, draws, rows.seed)
        return Apart(law, made, engine.f(tree, made.data).cpu())

    engine.foresee([start, *trees])
    first = drawn(start)
    for tree in trees:
        yield difference_apart(first, drawn(tree), level)


def _search(tree: Tree, offers: Sequence[Option], rows: _Rows, engine: Engine, how: HeldOut) -> Option | None:
    """The move that is surest to be away from 0 on some rows; None if there is none whose blocks have enough."""
    if not offers:
        return None
    each = how.level ** (1 / len(offers))
    before = entropy_budget(tree, bits=True).scrubbed if how.per_bit else 0.0
    best: Option | None = None
    most = -math.inf
    for (move, option), found in zip(
        offers, measure_apart(tree, [o for _, o in offers], rows, engine, each), strict=True
    ):
        if found.complete < COMPLETE or not found.estimate.se > 0:
            continue
        bits = before - entropy_budget(option, bits=True).scrubbed if how.per_bit else 0.0
        move = replace(move, difference=found.estimate, bits=bits)
        sure = abs(found.estimate.value) / found.estimate.se / (max(bits, LEAST) if how.per_bit else 1.0)
        if sure > most:
            best, most = (move, option), sure
    return best


def _only(weights: Tensor, rows: Tensor) -> Tensor:
    kept = torch.zeros_like(weights)
    kept[rows] = weights[rows]
    return kept
