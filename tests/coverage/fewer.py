"""Measures draws with permuted donors, and writes the table: `python -m tests.coverage.fewer` or `make coverage`.

How often their intervals cover, and how much less the mean of as many draws varies: against independent donors as
`draw` makes them (root data stratified), without any strata, with strata at all inner sites, and with control variates.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from pscrub import Study, Tree, program, unroll
from pscrub.estimate import Interval, choose, mean_of_pairs
from pscrub.estimate.baselines import randomised_loss, what_is_known
from pscrub.estimate.replicates import REPLICATES, estimate_replicates
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.on_data import OnData
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.law.drawing import draw, make_generator, stratified_rows
from pscrub.law.of_f import scrubbed_expectation
from pscrub.law.permuted import Dealing, draw_permuted
from pscrub.studies import load
from pscrub.studies.brackets.study import study as brackets
from tests.coverage.cells import run_study
from tests.coverage.second import Tally
from tests.coverage.swaps import SITUATIONS
from tests.routes.build_case import build
from tests.routes.random_cases import MODES, cases

Row = dict[str, Any]
Sizes = tuple[int, int]
LEVEL = 0.95
TIMES = 1000
"""Repetitions."""
SIZES = (8, 64)
"""Draws of a replicate."""
USUAL = 256
"""Draws of a replicate in a round of 16,384."""
MOST = 2048
"""Draws of a replicate in the largest round."""
PUBLISHED = Path("../shared/data/brackets")


def covers(name: str, size: int, seed: int) -> Row:
    """Intervals of permuted and of independent donors, the same draws for both in number."""
    hypothesis = SITUATIONS[name].make()
    tree, on_data = unroll(hypothesis), OnData(hypothesis.graph, hypothesis.data)
    of = SITUATIONS[name]
    truth = scrubbed_expectation(tree) if of.truth is None else of.truth(hypothesis.data)
    values = Activations(hypothesis.graph, hypothesis.data)
    randomised_loss(on_data, "label")
    known = what_is_known(on_data, "label", 0, given=False)
    asked = Interval(level=LEVEL, known=known)
    permuted, pairs, plain = Tally(), Tally(), Tally()
    variances: dict[str, list[float]] = {"permuted": [], "plain": []}
    other, n = 0, REPLICATES * size
    for k in range(TIMES):
        f = run_scrubbed(tree, values, draw_permuted(tree, n, (seed, k, 0), REPLICATES)).double()
        e = estimate_replicates([f], [REPLICATES], "draws", asked)
        permuted.add(e, truth)
        other += e.interval != "t of replicates"
        pairs.add(mean_of_pairs(f, LEVEL), truth)
        variances["permuted"].append(mean_of_pairs(f.reshape(size, REPLICATES).mean(0)).se ** 2)
        f = run_scrubbed(tree, values, draw(tree, n, (seed, k, 1))).double()
        plain.add(choose(f, LEVEL, known=known), truth)
        variances["plain"].append(mean_of_pairs(f).se ** 2)
    none = not sum(variances["permuted"]) > 1e-20 * sum(variances["plain"])
    return {
        "default": permuted.shares(TIMES),
        "pairs": pairs.shares(TIMES),
        "plain": plain.shares(TIMES),
        "ratio": None if none else sum(variances["plain"]) / sum(variances["permuted"]),
        "other": other / TIMES,
    }


class _Inner(Dealing):
    """Only sites that others agree with are dealt out: strata of blocks further down, not of rows."""

    def _pyro_sample(self, msg: Any) -> None:
        if self.tree.children(msg["name"]):
            super()._pyro_sample(msg)


def gains(tree: Tree, f_of: Callable[[Mapping[str, Tensor]], Tensor], own: Tensor, sizes: Sizes, seed: int) -> Row:
    """Variance of the mean of as many draws, that of independent ones over it, for each way of drawing.

    Args:
        tree: the treeified hypothesis.
        f_of: evaluates f on data.
        own: float64 [N], f on D.
        sizes: of the replicates, and their number.
        seed: of the draws.
    """
    size, many = sizes
    n = many * size
    data = draw(tree, n, (seed, 0))
    f = f_of(data).double()
    plain = mean_of_pairs(f)

    def over(f: Tensor) -> tuple[float | None, float]:
        """The ratio, and the relative error of the two variances by their degrees of freedom."""
        found = mean_of_pairs(f.reshape(size, many).mean(0))
        ratio = (plain.se / found.se) ** 2 if found.se > 1e-10 * plain.se else None
        return ratio, math.sqrt(2 / plain.df + 2 / found.df)

    generator = make_generator((seed, 2))
    with poutine.block(), _Inner(tree, many, generator):
        inner = program(tree, generator=generator)(n, {tree.root: stratified_rows(tree.seen, n // 2, generator)})
    free = f_of(draw(tree, n, (seed, 3), stratified=False)).double()
    permuted, error = over(f_of(draw_permuted(tree, n, (seed, 1), many)).double())
    return {
        "plain": plain.se**2,
        "none": plain.se**2 / (float(free.var()) / n) if float(free.var()) else None,
        "controls": _with_controls(tree, data, f, own),
        "inner": over(f_of(inner).double())[0],
        "permuted": permuted,
        "error": error,
    }


def _with_controls(tree: Tree, data: Mapping[str, Tensor], f: Tensor, own: Tensor) -> float | None:
    """How many times less f varies within pairs, less control variates: f on D of each site's row, and its square.

    Less their means given the parent's datum, which are known. Coefficients come from the other half of the draws, by
    least squares with a little shrinking; None where nothing is left.
    """
    scores, columns = own / own.abs().max().clamp(min=1e-300), list[Tensor]()
    for path, site in tree.sites.items():
        partition = tree.whole if site.parent is None else site.partition
        if path != tree.root and int(partition.sizes.max()) > 1:
            mass = torch.bincount(partition.labels, partition.weights, partition.n_blocks).clamp(min=1e-300)
            for score in (scores, scores.square()):
                mean = torch.bincount(partition.labels, partition.weights * score, partition.n_blocks) / mass
                columns.append((score - mean[partition.labels])[data[path]])
    if not columns:  # only the root's datum is drawn
        return 1.0
    d = f[::2] - f[1::2]
    controls = torch.stack([column[::2] - column[1::2] for column in columns], 1)
    spread = controls.std(0)
    controls = (controls / spread)[:, spread > 1e-9]  # of rounding: f tells rows of no block apart
    left, half = d.clone(), len(d) // 2
    for fit, use in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
        square = controls[fit].T @ controls[fit] + 1e-3 * half * torch.eye(controls.shape[1], dtype=torch.float64)
        left[use] = d[use] - controls[use] @ torch.linalg.solve(square, controls[fit].T @ d[fit])
    return float(d.square().mean() / left.square().mean()) if float(left.square().mean()) else None


WAYS = ("none", "controls", "inner", "permuted")
"""Ways of drawing, in the order of the table."""


def of_random_cases(mode: str, seed: int) -> Row:
    """The random hypotheses that the routes are held against, those whose f varies within strata."""
    found = []
    for k, case in enumerate(cases(mode)):
        hypothesis = build(case)
        tree, values = unroll(hypothesis), Activations(hypothesis.graph, hypothesis.data)
        f_of = partial(run_scrubbed, tree, values)
        own = f_of(dict.fromkeys(tree.sites, torch.arange(hypothesis.data.n))).double()
        row = gains(tree, f_of, own, (64, 1024), seed + 100 * k)
        if row["plain"] > 1e-12:
            found.append({way: row[way] for way in (*WAYS, "error")})
    return {"rows": found}


def of_study(made: Study, sizes: Sizes, seed: int) -> Row:
    """Hypotheses of a study, those that anything is drawn for, by name."""
    engine, found = Engine(made.hypotheses[0].data), {}
    for graph, hypotheses in itertools.groupby(made.hypotheses, key=lambda h: h.graph):
        trees = [unroll(hypothesis) for hypothesis in hypotheses]
        own = engine.on_data(graph).on_data(graph.output).double().cpu()
        engine.foresee(trees)
        for tree in trees:
            row = {} if tree.is_determined else gains(tree, partial(engine.f, tree), own, sizes, seed)
            if row and row["plain"] > 1e-12:
                found[tree.hypothesis.name] = {way: row[way] for way in (*WAYS, "error")}
    return {"rows": found, "n": made.hypotheses[0].data.n}


WORKED = "ablation_backup", "cancellation", "hash_game", "superposition", "specificity"
"""Studies in which anything varies within strata."""


def studies() -> Iterator[tuple[str, Callable[[], Study], Sizes]]:
    """Name, study, and draws of a replicate with the number of replicates that variances are told by."""
    for name in WORKED:
        yield name, partial(load, name), (USUAL, 4096)
    yield "modular_addition", partial(load, "modular_addition"), (USUAL, 128)
    yield "brackets", partial(load, "brackets"), (USUAL, 256)
    if PUBLISHED.is_dir():
        files = PUBLISHED / "model.safetensors", PUBLISHED / "sequences.jsonl.gz"
        made = partial(brackets, *files, 0.263, 4000)
        yield "brackets, published", made, (USUAL, 256)
        yield "brackets, published", made, (MOST, 64)


def cells(seed: int) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Name and work of each cell."""
    for name in SITUATIONS:
        for size in SIZES:
            yield f"covers/{name}/{size}", partial(covers, name, size, seed)
    for mode in MODES:
        yield f"random/{mode}/64", partial(of_random_cases, mode, seed)
    for name, make, sizes in studies():
        yield f"study/{name}/{sizes[0]}", lambda make=make, sizes=sizes: of_study(make(), sizes, seed)  # type: ignore[misc]


def verdict(row: Row) -> str:
    """Whether intervals do as they are meant to."""
    default = row["default"]
    if default["coverage"] > 0.97:
        return "yes, conservative"
    return "yes" if default["coverage"] >= 0.93 else "no"


def table(found: Mapping[str, Row], seconds: float, seed: int) -> str:
    """The page docs/fewer_draws.md."""
    parts = ["# Fewer draws for the same width", _head(seconds, seed)]
    parts += ["## Coverage", _about_coverage(), "\n".join(_coverage(found))]
    parts += [
        "## The same number of draws",
        _about_gains(),
        "\n".join(_of_random(found)),
        "\n".join(_of_studies(found)),
    ]
    parts += ["## What is chosen", _chosen()]
    return "\n\n".join(part if part[0] in "|#" else textwrap.fill(" ".join(part.split()), 118) for part in parts) + "\n"


def _head(seconds: float, seed: int) -> str:
    return f"""Written by `make coverage` (`python -m tests.coverage.fewer`, seed {seed}; {seconds:,.0f} s of work on
    one core). `scrub(..., donors="permuted")`, or `--donors permuted`: within a replicate, draws whose datum comes from
    the same block share its rows out among themselves, so that each row is used about equally often; a single draw,
    given its parent's datum, follows the law as ever. A round has {REPLICATES} replicates; the interval is Student's t
    from the differences within pairs of replicates, or has bounds where the normal law is not to be trusted."""


def _about_coverage() -> str:
    return f"""E_scrubbed on this D, nominal level {100 * LEVEL:g} %, {TIMES:,} repetitions a row (standard error 0.7);
    {REPLICATES} replicates of as many draws as said. *Too low* and *too high*: shares of intervals that lie wholly
    below or above the truth. *Other*: share of runs whose interval is not t of replicates, but has bounds or is that of
    as many independent draws. *Pairs*: what the interval of independent draws would cover on permuted ones, as
    breakdowns by columns and posteriors still use it. *Independent*: coverage of the default with independent donors.
    *Width*: median width over that with independent donors. *Variance*: of the mean, that with independent donors over
    it."""


def _coverage(found: Mapping[str, Row]) -> Iterator[str]:
    names = "situation | draws | permuted | too low | too high | other | pairs | independent | width | variance"
    yield f"| {names} | as meant |"
    yield "| --- " + "| ---: " * 9 + "| --- |"
    for key, row in found.items():
        kind, name, size = key.split("/")
        if kind != "covers":
            continue
        d, plain = row["default"], row["plain"]
        shares = [d["above"], d["below"], row["other"], row["pairs"]["coverage"], plain["coverage"]]
        cells = " | ".join(f"{100 * share:.1f}" for share in shares)
        refused = f"; {100 * d['refused']:.1f} % refused" if d["refused"] else ""
        yield (
            f"| {SITUATIONS[name].words} | {REPLICATES * int(size):,} | **{100 * d['coverage']:.1f}** | {cells} "
            f"| {d['width'] / plain['width']:.2f} | {_times(row['ratio'])} | {verdict(row)}{refused} |"
        )


def _about_gains() -> str:
    return """How many times less the mean of as many draws varies than with independent donors and root data in strata,
    which is how draws are made by default: above 1 is better. *No strata*: root data independent too. *Controls*:
    control variates, f on D of each site's row and its square, less their means given the parent's datum, coefficients
    from the other half of the draws. *Inner*: strata at all sites that others agree with, dealt out as permuted donors
    are, and independent rows at the leaves. *Permuted*: donors permuted at all sites, with
    the standard error of the ratio; those of the others are of that size. Where f is large on rare draws the errors are
    not to be trusted, and ratios of such rows say little. "–": nothing varies."""


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}"


def _of_random(found: Mapping[str, Row]) -> Iterator[str]:
    yield "| random hypotheses, 2 to 6 rows, replicates of 64 draws | no strata | controls | inner | permuted |"
    yield "| --- " + "| ---: " * 4 + "|"
    rows = [row for mode in MODES for row in found[f"random/{mode}/64"]["rows"]]
    for words, of in (("least", 0.0), ("one in twenty is less than", 0.05), ("median", 0.5), ("greatest", 1.0)):
        ratios = [[row[way] if row[way] is not None else math.inf for row in rows] for way in WAYS]
        of_ways = [float(np.quantile(each, of, method="lower")) for each in ratios]
        cells = " | ".join(f"{each:.2f}" if each < 1000 else "over 1,000" for each in of_ways)
        yield f"| {words}, of {len(rows)} | {cells} |"


def _of_studies(found: Mapping[str, Row]) -> Iterator[str]:
    yield "| study | rows of D | draws of a replicate | hypothesis | no strata | controls | inner | permuted |"
    yield "| --- | ---: | ---: | --- " + "| ---: " * 4 + "|"
    for key, cell in found.items():
        kind, name, size = key.split("/")
        if kind != "study":
            continue
        for hypothesis, row in cell["rows"].items():
            cells = " | ".join(_times(row[way]) for way in WAYS)
            cells += f" ± {row['permuted'] * row['error']:.2f}" if row["permuted"] else ""
            yield f"| {name} | {cell['n']:,} | {int(size):,} | {hypothesis} | {cells} |"


def _chosen() -> str:
    return """Independent donors stay the default. Permuted ones vary least of these ways where rows are few, and
    nowhere more than independent ones by what chance does not explain. They win most where f is nearly a sum over
    sites and replicates have as many draws as blocks have rows: D of some hundred rows, or very many draws. Where rows
    are many more than the draws of a replicate, as in the studies of trained models at a usual number of draws, they
    win next to nothing. Losses that are rare events have intervals several times wider, as replicates are few, and
    confidence sequences are refused; which losses it will be is not known before drawing. Strata at inner sites are
    part of permuted donors, and win little by themselves. Control variates made of f on D win on some small examples,
    and nothing on trained models."""


if __name__ == "__main__":
    run_study("fewer", __doc__, "fewer_draws", cells, table)
