"""Where the loss goes: what each claim of a hypothesis costs, by scrubbing it alone and all but it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from pscrub.errors import StudyError
from pscrub.estimate.baselines import Baseline
from pscrub.estimate.concerns import find_concerns
from pscrub.estimate.estimate import Estimate, Method, choose, exact_estimate
from pscrub.estimate.known import Known
from pscrub.estimate.recovered import loss_recovered, points_recovered
from pscrub.estimate.simultaneous import Family, simultaneous_level
from pscrub.estimate.stopping import ROUND
from pscrub.evaluate.compute import MEMORY
from pscrub.evaluate.engine import Engine
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.tree import Tree, make_exact, unroll
from pscrub.progress import Progress, quiet
from pscrub.questions.comparison import Sample, draw_losses_of


@dataclass(frozen=True)
class ClaimCost:
    """What one claim costs.

    Args:
        claim: its name, or the path of a draw of unimportant inputs.
        paths: the sites of the treeified hypothesis that it speaks of.
        alone: loss recovered when this claim alone is scrubbed, all else exact; 100 % if it costs nothing.
        without: loss recovered when all but this claim are scrubbed and this one is exact.
        gain: `without` less the whole hypothesis's loss recovered, in points, on common random numbers.
        warnings: what to know of the gain's interval before believing it.
    """

    claim: str
    paths: tuple[str, ...]
    alone: Estimate | None
    without: Estimate | None
    gain: Estimate | None
    warnings: tuple[str, ...] = ()

    def as_row(self) -> dict[str, Any]:
        """Plain values by name: per cent of loss recovered, and points."""
        found: dict[str, Any] = {"claim": self.claim, "paths": list(self.paths)}
        for name, each in (("alone", self.alone), ("without", self.without), ("gain", self.gain)):
            found[name] = None if each is None else each.value
            found |= {f"{name}_low": None if each is None else each.low}
            found |= {f"{name}_high": None if each is None else each.high}
        return found | {"warnings": list(self.warnings)}


def claim_costs(
    hypothesis: Hypothesis,
    *,
    claims: Sequence[str] | None = None,
    draws: int = 2 * ROUND,
    seed: int = 0,
    level: float = 0.95,
    family: Family = "max-t",
    labels: str | Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    memory: int = MEMORY,
    chunk: int | None = None,
    randomised: Baseline | float | None = None,
    known: Known | None = None,
    progress: Progress = quiet,
) -> tuple[ClaimCost, ...]:
    """What each claim costs: loss recovered when only it is scrubbed and when all but it are, dearest first.

    A claim that is not scrubbed is exact: its sites are given their parent's own datum, and draws of unimportant inputs
    their reader's (if shared, the root's). Draws of unimportant inputs count as claims, for "this does not matter" is
    one. All are made on common random numbers. Costs need not add up: claims interact.

    Args:
        hypothesis: a well-formed one.
        claims: names (or paths of unimportant draws) to look at; all that scrub anything by default.
        draws: of each variant, two variants a claim and one for the whole.
        seed: names the draws.
        level: nominal coverage, of all intervals of one kind together.
        family: how that is made sure.
        labels: as in `measures.randomised_loss`.
        device: where the model runs.
        memory: bytes for activations on D.
        chunk: draws evaluated at a time.
        randomised: the baseline, if not E_randomised.
        known: what f is known to be (`result.reference.known`), where a given baseline leaves pairs unseen.
        progress: told of draws done.

    Raises:
        HypothesisError: the hypothesis is not well formed.
        StudyError: unknown claims.

    >>> from pscrub.data.dataset import Dataset
    >>> from pscrub.graph.graph import Graph
    >>> from pscrub.hypothesis.claim import Claim
    >>> data = Dataset({"x": torch.arange(8), "y": torch.arange(8) % 2})
    >>> graph = Graph.of({"out": lambda x: x % 4, "f": lambda out, y: (out - y) ** 2.0}, ["x", "y"], "f")
    >>> claim = Claim("f", reads=[Claim("out", lambda d: d["x"] % 2), Claim("y", "exact")])
    >>> [(cost.claim, cost.without.value) for cost in claim_costs(Hypothesis("parity", graph, data, claim), draws=400)]
    [('out', 100.0)]
    """
    tree = unroll(hypothesis)
    groups = _claims(tree)
    unknown = [name for name in claims or () if name not in groups]
    if unknown:
        raise StudyError(f"no claim '{unknown[0]}' that scrubs anything; there are {', '.join(groups)}")
    everything = [path for paths in groups.values() for path in paths]
    chosen = groups if claims is None else {name: groups[name] for name in claims}
    variants = {"": tree}
    for name, paths in chosen.items():
        variants[f"alone {name}"] = make_exact(tree, [path for path in everything if path not in paths])
        variants[f"without {name}"] = make_exact(tree, paths)
    sample = Sample(draws, seed, labels, Baseline.given(randomised), known)
    losses = draw_losses_of(variants, sample, Engine(hypothesis.data, device, memory, chunk, progress))
    alone, without = ([losses.names.index(f"{kind} {name}") for name in chosen] for kind in ("alone", "without"))
    whole = losses.f[0]
    gains = losses.f[without] - whole
    kinds = [
        (f, simultaneous_level(replace(losses, f=f).correlation, level, family))
        for f in (losses.f[alone], losses.f[without], gains)
    ]
    found = []
    for k, (name, paths) in enumerate(chosen.items()):
        one, rest = (choose(f[k], each, known=losses.known) for f, each in kinds[:2])
        gain = losses.difference(gains[k], kinds[2][1])
        if len(groups) == 1:  # without it nothing is scrubbed
            rest = exact_estimate(losses.model.value, rest.level, Method.MODEL.say())
        scores = loss_recovered(one, losses.against), loss_recovered(rest, losses.against)
        warnings = tuple(find_concerns(gains[k], gain, losses.known.of_difference))
        found.append(ClaimCost(name, tuple(paths), *scores, points_recovered(gain, losses.against), warnings))
    return tuple(sorted(found, key=lambda cost: -cost.gain.value if cost.gain else 0.0))


def _claims(tree: Tree) -> dict[str, list[str]]:
    """Claim's name (or unimportant draw's path) -> its sites, of all that can swap anything."""
    groups: dict[str, list[str]] = {}
    for path, site in tree.sites.items():
        if path != tree.root and int(site.partition.sizes.max()) > 1:
            groups.setdefault(path if site.claim is None else site.claim.name, []).append(path)
    return groups
