"""Into how many bins a real-valued claim is cut, and what that does: loss recovered and bits at each resolution."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.estimate import Estimate, mean_of_pairs
from pscrub.estimate.simultaneous import Family, simultaneous_level
from pscrub.estimate.stopping import ROUND
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.cutting import By, Cutting
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.mixtures import random_features
from pscrub.hypothesis.study import Study
from pscrub.hypothesis.tree import Tree, unroll
from pscrub.outcomes import Outcome, Said
from pscrub.progress import Progress, quiet
from pscrub.questions.comparison import Comparison, Losses, Sample, compare, draw_losses_of
from pscrub.questions.mixtures import OFFSETS, OffsetLosses, draw_at_offsets, scrubbed_bits
from pscrub.result.table import Table

BINS = (1, 2, 4, 8, 16, 32, 64, 128)
OWN = 0.1
"""Share of draws that give a row back to itself from which a resolution is warned of."""


class Fine(Outcome):
    """What is to be known of a resolution before its loss recovered is believed."""

    OWN = (
        "resolution of single rows",
        "at {rows} at least {share:.0f} % of draws at '{claim}' give back the row itself, as blocks have few rows: "
        "so much may be recovered whatever is claimed",
    )


@dataclass(frozen=True)
class ResolutionRow:
    """A hypothesis at one resolution.

    Args:
        name: what the resolution is called.
        bins: asked for; None for every value by itself.
        random: whether the bins have a random offset; blocks, share and bits are then means over the offsets drawn.
        blocks: of the claim's partition; None where it is not known which claim is meant.
        own: probability that the claim's datum is its parent's own row, so that nothing is swapped; None like `blocks`.
        bits: entropy of the scrubbed inputs.
        scrubbed: E_scrubbed.
        recovered: per cent; None where undefined.
        change: from the next coarser bins of the same kind, paired; None for the coarsest.
    """

    name: str
    bins: int | None
    random: bool
    blocks: float | None
    own: float | None
    bits: float
    scrubbed: Estimate
    recovered: Estimate | None
    change: Comparison | None


@dataclass(frozen=True)
class Resolution:
    """Loss recovered and entropy against the number of bins, intervals of one kind holding together.

    Args:
        hypothesis: its name.
        claim: whose feature is cut; "" if the caller made the hypotheses.
        by: how: quantiles, rounding or clusters; "" likewise.
        rows: coarse to fine; fixed edges, then random offsets, then every value by itself.
        level: at which all intervals of one kind hold together.
        draws: of each.
        offsets: drawn for random offsets; 0 if there are none.
        model: E_model.
        randomised: E_randomised.
        warnings: named.
    """

    hypothesis: str
    claim: str
    by: str
    rows: tuple[ResolutionRow, ...]
    level: float
    draws: int
    offsets: int
    model: Baseline
    randomised: Baseline
    warnings: tuple[str, ...] = ()

    def table(self) -> Table:
        """A line for each resolution."""
        head = ("bins", "blocks", "own row, %", "bits", "E_scrubbed", "recovered, %", "interval")
        rows = []
        for row in self.rows:
            cells = [row.name, "–" if row.blocks is None else f"{row.blocks:.4g}"]
            cells += ["–" if row.own is None else f"{100 * row.own:.1f}", f"{row.bits:.2f}"]
            cells += [f"{row.scrubbed.value:.4g}"]
            cells += (
                ["undefined", ""] if row.recovered is None else [f"{row.recovered.value:.2f}", row.recovered.ends()]
            )
            points = None if row.change is None else row.change.points
            cells += ["", ""] if points is None else [f"{points.value:+.2f}", points.ends()]
            rows.append(tuple(cells))
        return Table((*head, "points gained", "interval"), tuple(rows))

    def as_document(self) -> dict[str, Any]:
        """Plain values by name, ready for JSON."""
        return {
            "hypothesis": self.hypothesis,
            "claim": self.claim,
            "by": self.by,
            "level": self.level,
            "draws": self.draws,
            "offsets": self.offsets,
            "model": self.model.value,
            "randomised": self.randomised.value,
            "rows": [_tell(row) for row in self.rows],
            "warnings": list(self.warnings),
        }


def resolution_curve(
    hypothesis: Hypothesis | Callable[[int], Hypothesis],
    claim: str | None = None,
    bins: Sequence[int] | None = None,
    *,
    by: By | None = None,
    offsets: int = 0,
    draws: int = ROUND,
    seed: int = 0,
    level: float = 0.95,
    family: Family = "max-t",
    labels: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    memory: int = MEMORY,
    randomised: Baseline | float | None = None,
    progress: Progress = quiet,
) -> Resolution:
    """Loss recovered and scrubbed entropy of a hypothesis against the number of bins of one claim's real values.

    How fine to cut is a choice, and the curve shows it: few bins permit many swaps of values that differ, many bins
    leave rows alone in their blocks, where the claim swaps nothing and nothing is learnt of it. All resolutions are on
    common random numbers; the intervals of losses recovered hold together, and so do those of the points gained.

    Args:
        hypothesis: one, whose claim's feature is real values or `data.Bins` of them; or a function of a number of bins
            that makes hypotheses on one dataset and behaviour.
        claim: a claim's name or node. Left out: the one claim with bins. Of a function's hypotheses: whose blocks to
            tell.
        bins: numbers of bins, in order; by default BINS, as far as there are so many distinct values.
        by: "quantiles", "rounding" (to the range of the values over the number of bins, from the least value on) or
            "clusters" (from `seed`); by default as the claim's bins are, else quantiles.
        offsets: also cut with random offsets, that many of them (see `scrub_mixture`); 0 for none.
        draws: of each resolution.
        seed: names draws, offsets and clusters.
        level: of all intervals of one kind together.
        family: how that is made sure.
        labels: as in `measures.randomised_loss`.
        device: where the model runs.
        memory: bytes for activations on D.
        randomised: the baseline, if not E_randomised.
        progress: told of draws done.

    Raises:
        HypothesisError: a hypothesis is not well formed, or has no real-valued claim that is meant.
        StudyError: bins that are not in order, an unknown way, clusters with random offsets.

    >>> from pscrub import Claim, Dataset, Graph
    >>> x = torch.arange(64.0)
    >>> data = Dataset({"x": x, "other": x[torch.arange(64) * 37 % 64]})
    >>> graph = Graph.of({"h": lambda x: x, "f": lambda h, x: (h - x) ** 2}, inputs=["x"], output="f")
    >>> def says(column):
    ...     return Hypothesis(column, graph, data, Claim("f", reads=[Claim("h", column), Claim("x", "x")]))
    >>> [row.recovered.value > 90 for row in resolution_curve(says("x"), "h", (1, 4, 16), draws=4096).rows]
    [False, True, True, True]
    >>> false = resolution_curve(says("other"), "h", (1, 4, 16), draws=4096)
    >>> false.rows[2].recovered.value < 50, false.rows[-1].name, false.rows[-1].recovered.value
    (True, 'every value', 100.0)
    >>> false.warnings[0].kind
    'resolution of single rows'
    """
    chosen = _check_bins(BINS if bins is None else bins)
    if isinstance(hypothesis, Hypothesis):
        cut = Cutting.of(hypothesis, claim, by, seed)
        found = cut.into([k for k in chosen if bins or k <= cut.distinct], offsets > 0)
        name, said, way = hypothesis.name, cut.claim.name, cut.by
    else:
        made = {k: hypothesis(k) for k in chosen}
        found = {f"{k}": (k, bool(random_features(h)), replace(h, name=str(k))) for k, h in made.items()}
        name, said, way = made[chosen[0]].name, claim or "", ""
        Study("resolution", [h for *_, h in found.values()])  # one dataset
    soft = any(random for _, random, _ in found.values())
    hypotheses = {row: h for row, (_, _, h) in found.items()}
    first = next(iter(hypotheses.values()))
    sample = Sample(draws, seed, labels, Baseline.given(randomised))
    engine = Engine(first.data, device, memory, progress=progress)
    grouped: OffsetLosses[_Look] | None = None
    if soft:
        grouped = draw_at_offsets(hypotheses, sample, engine, offsets or OFFSETS, lambda tree: _Look.of(tree, said))
        losses, looks = grouped.losses, {row: _Look.mean(each) for row, each in grouped.seen.items()}
    else:
        trees = {row: unroll(h) for row, h in hypotheses.items()}
        losses, looks = draw_losses_of(trees, sample, engine), {row: _Look.of(t, said) for row, t in trees.items()}
    kinds = {row: (k, random) for row, (k, random, _) in found.items()}
    rows = tuple(_rows(losses, grouped, kinds, looks, (level, family)))
    each, many = (1, 0) if grouped is None else (grouped.draws, losses.f.shape[1])
    baselines, warnings = (losses.model, losses.randomised), tuple(_warn_of_rows(rows, said))
    return Resolution(name, said, way, rows, level, each * losses.f.shape[1], many, *baselines, warnings)


def _check_bins(bins: Sequence[int]) -> tuple[int, ...]:
    if not bins or [*bins] != sorted({k for k in bins if k >= 1}):
        raise StudyError(f"bins are {', '.join(map(str, bins))}; expected numbers of 1 or more, each greater")
    return tuple(bins)


@dataclass(frozen=True)
class _Look:
    """What a tree shows of its resolution: bits, and of a claim the blocks and how often it is given its own row."""

    bits: float
    blocks: float | None
    own: float | None

    @classmethod
    def of(cls, tree: Tree, name: str) -> _Look:
        h = tree.hypothesis
        here = [h.partitions[c] for c in h.claims if c.name == name]
        here = here or [h.partitions[c] for c in h.claims if c.at == name]
        if not here:
            return cls(scrubbed_bits(tree), None, None)
        p = here[0]
        possible = p.weights > 0
        w, block = p.weights[possible], p.block_weights[p.labels[possible]]
        return cls(scrubbed_bits(tree), float((p.sizes > 0).sum()), float((w * (w / block)).sum()))

    @classmethod
    def mean(cls, looks: Sequence[_Look]) -> _Look:
        def over(values: list[float | None]) -> float | None:
            return None if None in values else float(np.mean([v for v in values if v is not None]))

        bits = float(np.mean([look.bits for look in looks]))
        return cls(bits, over([look.blocks for look in looks]), over([look.own for look in looks]))


def _rows(
    losses: Losses,
    grouped: OffsetLosses[_Look] | None,
    kinds: Mapping[str, tuple[int | None, bool]],
    looks: Mapping[str, _Look],
    together: tuple[float, Family],
) -> Iterator[ResolutionRow]:
    def tell(estimate: Estimate) -> Estimate:
        return estimate if grouped is None or estimate.exact else grouped.say(estimate)

    level, family = together
    scores, each = losses.scores(level, family), simultaneous_level(losses.correlation, level, family)
    series = ([row for row, (_, random) in kinds.items() if random is which] for which in (False, True))
    steps = {b: a for names in series for a, b in itertools.pairwise(names)}
    at = {row: i for i, row in enumerate(losses.names)}
    paired = level
    if steps:
        moved = losses.f[[at[b] for b in steps]] - losses.f[[at[a] for a in steps.values()]]
        paired = simultaneous_level(replace(losses, names=tuple(steps), f=moved).correlation, level, family)
    for row, f, score in zip(losses.names, losses.f, scores, strict=True):
        look, (bins, random) = looks[row], kinds[row]
        change = compare(losses, steps[row], row, paired) if row in steps else None
        scrubbed = tell(mean_of_pairs(f, each))
        recovered = None if score is None else tell(score)
        yield ResolutionRow(row, bins, random, look.blocks, look.own, look.bits, scrubbed, recovered, change)


def _warn_of_rows(rows: Sequence[ResolutionRow], claim: str) -> Iterator[Said]:
    own = {row.name: row.own for row in rows if row.own is not None and row.own > OWN}
    if own:
        yield Fine.OWN.say(rows=", ".join(f"'{name}'" for name in own), share=100 * min(own.values()), claim=claim)


def _tell(row: ResolutionRow) -> dict[str, Any]:
    found: dict[str, Any] = {"bins": row.bins, "random_offset": row.random, "blocks": row.blocks}
    found |= {"own_row": row.own, "bits": row.bits}
    points = None if row.change is None else row.change.points
    for name, each in (("scrubbed", row.scrubbed), ("recovered", row.recovered), ("points_gained", points)):
        found[name] = None if each is None else each.value
        found |= {
            f"{name}_low": None if each is None else each.low,
            f"{name}_high": None if each is None else each.high,
        }
    return found
