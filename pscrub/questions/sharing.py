"""One hypothesis under every way of sharing the draws of unimportant inputs, and whether that choice matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from pscrub.estimate.estimate import Estimate, choose
from pscrub.estimate.simultaneous import Family, simultaneous_level
from pscrub.estimate.stopping import ROUND
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.hypothesis import Hypothesis, Sharing
from pscrub.hypothesis.tree import unroll
from pscrub.law.entropy import entropy_budget
from pscrub.outcomes import Outcome, Said
from pscrub.progress import Progress, quiet
from pscrub.questions.comparison import Comparison, Losses, Sample, compare, draw_losses_of
from pscrub.result.table import Table

LARGE = 5.0
"""Points of loss recovered between two ways of sharing from which the choice is warned of."""


class Sensitive(Outcome):
    """Where ways of sharing differ."""

    TO_SHARING = (
        "sensitive to sharing",
        "sensitive to sharing: with '{mode}' in place of '{first}' E_scrubbed changes by {change:+.4g} "
        "[{low:+.4g}, {high:+.4g}]{points}; what is said not to matter is correlated in ways that do",
    )
    POINTS = "points changed", ", {points:+.1f} points of loss recovered"


@dataclass(frozen=True)
class SharingRow:
    """A hypothesis under one way of sharing.

    Args:
        mode: "reader", "all", "each", or "groups" if the hypothesis names some.
        draws: of unimportant inputs, how many the law makes.
        bits: entropy of the scrubbed inputs.
        scrubbed: E_scrubbed.
        recovered: per cent; None where undefined.
        change: E_scrubbed less that of the first row, paired; None in the first.
    """

    mode: str
    draws: int
    bits: float
    scrubbed: Estimate
    recovered: Estimate | None
    change: Comparison | None


@dataclass(frozen=True)
class SharingTable:
    """One hypothesis under every way of sharing, intervals of one kind holding together.

    Args:
        hypothesis: its name.
        rows: its own way first.
        warnings: named, where the choice matters.
    """

    hypothesis: str
    rows: tuple[SharingRow, ...]
    warnings: tuple[str, ...]

    def table(self) -> Table:
        """A line for each way of sharing."""
        head = (
            "hypothesis",
            "sharing",
            "draws",
            "bits",
            "E_scrubbed",
            "interval",
            "recovered, %",
            "change",
            "interval",
        )
        rows = []
        for i, row in enumerate(self.rows):
            cells = [self.hypothesis if i == 0 else "", row.mode, str(row.draws), f"{row.bits:.2f}"]
            cells += [f"{row.scrubbed.value:.4g}", row.scrubbed.ends()]
            cells += ["–" if row.recovered is None else f"{row.recovered.value:.2f}"]
            change = None if row.change is None else row.change.difference
            cells += ["", ""] if change is None else [f"{change.value:+.4g}", change.ends()]
            rows.append(tuple(cells))
        return Table(head, tuple(rows), words=2)


def sharing_table(
    hypothesis: Hypothesis,
    *,
    draws: int = ROUND,
    seed: int = 0,
    level: float = 0.95,
    family: Family = "max-t",
    large: float = LARGE,
    labels: str | Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    memory: int = MEMORY,
    progress: Progress = quiet,
) -> SharingTable:
    """E_scrubbed if unimportant inputs share draws per reader, all in one, or not at all, beside the hypothesis's own.

    Which is meant is part of a claim, and all are reasonable. Where they differ, correlations among what is said not
    to matter do matter: the warning "sensitive to sharing".

    Source: appendix 4.1.

    Args:
        hypothesis: a well-formed one; its own way is the first row.
        draws: of each.
        seed: names the draws.
        level: of all intervals of one kind together.
        family: how that is made sure.
        large: points of loss recovered from which a clear difference is warned of; where these are undefined, any.
        labels: as in `measures.randomised_loss`.
        device: where the model runs.
        memory: bytes for activations on D.
        progress: told of draws done.

    >>> from pscrub import Claim, Dataset, Graph
    >>> data = Dataset({"s": torch.tensor([-1.0, 0.0, 1.0])})
    >>> parts = {name: (lambda s: s) for name in "abc"}
    >>> graph = Graph.of({**parts, "f": lambda a, b, c, s: (a + b - c - s) ** 2}, ["s"], "f")
    >>> h = Hypothesis("only a", graph, data, Claim("f", reads=[Claim("a", "s"), Claim("s", "s")]))
    >>> found = sharing_table(h, draws=512)
    >>> [(row.mode, row.draws, row.scrubbed.value > 1) for row in found.rows]
    [('reader', 1, False), ('all', 1, False), ('each', 2, True)]
    >>> found.warnings[0].split(":")[0]
    'sensitive to sharing'
    """
    own: Sharing = hypothesis.sharing
    first = "groups" if isinstance(own, Mapping) else own
    modes: dict[str, Sharing] = {first: own, "reader": "reader", "all": "all", "each": "each"}
    trees = {mode: unroll(replace(hypothesis, sharing=sharing)) for mode, sharing in modes.items()}
    engine = Engine(hypothesis.data, device, memory, progress=progress)
    losses = draw_losses_of(trees, Sample(draws, seed, labels), engine)
    scores = losses.scores(level, family)
    each = simultaneous_level(losses.correlation, level, family)
    moved = Losses(losses.names[1:], losses.f[1:] - losses.f[0], losses.model, losses.randomised)
    paired = simultaneous_level(moved.correlation, level, family)
    rows = []
    for mode, f, score in zip(losses.names, losses.f, scores, strict=True):
        tree = trees[mode]
        change = None if mode == first else compare(losses, first, mode, paired)
        free = sum(site.claim is None for site in tree.sites.values())
        bits = entropy_budget(tree, bits=True).scrubbed
        rows.append(SharingRow(mode, free, bits, choose(f, each, known=losses.known), score, change))
    warnings = [f for row in rows for f in _warn(row, first, large)]
    return SharingTable(hypothesis.name, tuple(rows), tuple(warnings))


def _warn(row: SharingRow, first: str, large: float) -> Iterator[Said]:
    change = row.change
    if change is None or change.difference.low <= 0 <= change.difference.high:
        return
    points, e = change.points, change.difference
    if points is not None and abs(points.value) < large:
        return
    said = "" if points is None else Sensitive.POINTS.say(points=points.value)
    yield Sensitive.TO_SHARING.say(mode=row.mode, first=first, change=e.value, low=e.low, high=e.high, points=said)
