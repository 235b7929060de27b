"""Measures how often intervals cover, and writes the table: `python -m tests.coverage` or `make coverage`.

Each cell of the study has its own seed and a file of its own under out/coverage, so that a study that was cut short
goes on where it was; `--fresh` forgets them. The code measured is the package's: nothing is written anew here but laws
with known answers.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from pscrub import Baseline
from pscrub.estimate import Baselines, Interval
from pscrub.estimate.estimate import choose, mean_of_pairs
from pscrub.estimate.intervals import (
    Ends,
    bernstein_ends,
    betting_ends,
    log_capital,
    sequence_ends,
    sequence_factor,
    t_ends,
)
from pscrub.estimate.known import Known
from pscrub.estimate.picking import RARE
from pscrub.estimate.recovered import loss_recovered
from pscrub.estimate.stopping import estimate_losses
from pscrub.questions.comparison import draw_losses, ladder
from pscrub.studies import load
from tests.coverage.cells import rng_of, work_through
from tests.coverage.situations import LAWS, expectation
from tests.coverage.table import FEWER, LEVEL, SIZES, TIMES, Row, table

ZERO_ONE = Known.of(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]), torch.empty(0))
CHUNK = 250
"""Repetitions held at once."""


def covering(ends: Ends, truth: float) -> dict[str, float]:
    """Share of intervals that hold the truth, and their mean width."""
    inside = (ends.low <= truth) & (truth <= ends.high)
    return {"coverage": float(inside.mean()), "width": float((ends.high - ends.low).mean())}


def fixed(name: str, draws: int) -> Row:
    """Every interval at a fixed number of draws."""
    rng, law, truth = rng_of("fixed", name, draws), LAWS[name], expectation(name, draws)
    f = np.concatenate([law.draw(rng, CHUNK, draws) for _ in range(TIMES // CHUNK)])
    found: Row = {"t": covering(t_ends(f, LEVEL), truth)}
    found["sequence"] = covering(sequence_ends(f, LEVEL, draws), truth)
    binary = set(np.unique(f[:5])) <= {0.0, 1.0}
    bounds = (0.0, 1.0) if binary else law.bounds
    if bounds is not None:
        found["bernstein"] = covering(bernstein_ends(f, LEVEL, bounds), truth)
        some = f if binary else f[:FEWER]
        found["betting"] = covering(betting_ends(some, LEVEL, bounds, binary), truth)
    known = ZERO_ONE if binary else Known()
    picked = [choose(torch.from_numpy(each), LEVEL, bounds=law.bounds, known=known) for each in f]
    found["default"] = {
        "coverage": float(np.mean([e.low <= truth <= e.high for e in picked])),
        "width": float(np.mean([e.width for e in picked])),
        "betting": float(np.mean([e.interval == "betting" for e in picked])),
    }
    return found


def near_zero(errors: float, draws: int) -> Row:
    """Loss recovered where E_model - E_randomised is so many standard errors of a sampled E_randomised from 0."""
    rng = rng_of("near zero", errors, draws)
    truth = 100 * 0.5
    covered, undefined, widths = 0, 0, []
    for _ in range(2 * TIMES):
        bottom = errors / math.sqrt(draws)  # the randomised loss, the model's being 0
        sample = bottom + rng.standard_normal(draws)
        chance = Baseline(float(sample.mean()), float(sample.std(ddof=1)) / math.sqrt(draws), draws, "sampled")
        f = torch.from_numpy(bottom / 2 + 0.5 * rng.standard_normal(draws))
        score = loss_recovered(mean_of_pairs(f, LEVEL), Baselines(Baseline(0.0, 0.0, 0, "exact"), chance))
        if score is None:
            undefined += 1
        else:
            covered += score.low <= truth <= score.high
            widths.append(score.width)
    defined = 2 * TIMES - undefined
    return {
        "default": {"coverage": covered / defined, "width": float(np.median(widths))},
        "undefined": undefined / (2 * TIMES),
        "either": (covered + undefined) / (2 * TIMES),
    }


def stopping(name: str, pilot: int, share: float) -> Row:
    """The two-stage rule of `until_width`, at a width that needs about `share` of the pilot's draws once more."""
    rng, law = rng_of("stopping", name, pilot, share), LAWS[name]
    wanted = mean_of_pairs(torch.from_numpy(law.draw(rng, 1, 200_000)[0]), LEVEL).width
    wanted *= math.sqrt(200_000 / (pilot * (1 + share)))
    inside, peeked, draws = [], [], []
    for _ in range(FEWER):
        rounds = [torch.from_numpy(law.draw(rng, 1, pilot)[0])]
        while True:
            estimate = estimate_losses(torch.cat(rounds), rounds[0], "width", Interval(level=LEVEL))
            needed = estimate.draws * (estimate.width / wanted) ** 2
            if needed <= estimate.draws:
                break
            more = math.ceil((needed - estimate.draws) / 2) * 2
            rounds.append(torch.from_numpy(law.draw(rng, 1, more)[0]))
        inside.append(estimate.low <= law.mean <= estimate.high)
        plain = mean_of_pairs(torch.cat(rounds), LEVEL)
        peeked.append(plain.low <= law.mean <= plain.high)
        draws.append(estimate.draws)
    return {
        "default": {"coverage": float(np.mean(inside)), "width": wanted},
        "t": {"coverage": float(np.mean(peeked))},
        "draws": float(np.mean(draws)),
    }


def watched(name: str, best: int, last: int = 20_000, every: int = 100) -> Row:
    """A run looked at after every 100 draws: how often an interval holds the truth at all looks."""
    rng, law = rng_of("watched", name, best), LAWS[name]
    looks = np.arange(every, last + 1, every)
    held: dict[str, list[bool]] = {"sequence": [], "t": []}
    ratio, q = [], (1 + LEVEL) / 2
    for _ in range(FEWER // 50):
        f = law.draw(rng, 50 * len(looks), every).reshape(50, last)
        pairs = f.reshape(50, -1, 2)
        at = looks // 2 - 1
        v = (pairs[..., 0] - pairs[..., 1]) ** 2 / 4
        total, squares = v.cumsum(1)[:, at], (v**2).cumsum(1)[:, at]
        p = looks / 2
        spread = np.maximum(squares - total**2 / p, 1e-300)
        df = np.where(total > 0, np.clip(2 * total**2 / spread, 1.0, p), p)
        error = np.abs(f.cumsum(1)[:, looks - 1] / looks - law.mean)
        half = stats.t.ppf(q, df) * np.sqrt(total) / p
        wider = np.array([sequence_factor(int(n), LEVEL, best) for n in looks]) / stats.norm.ppf(q)
        held["t"] += (error <= half).all(1).tolist()
        within = error <= half * wider
        if law.conservative:  # 0/1: by betting while the rarer loss is rare, as `choose` does
            ones = f.cumsum(1)[:, looks - 1]
            counts, betted = np.stack([ones, looks - ones], -1), np.ones(ones.shape, dtype=bool)
            for values, m in ((np.array([1.0, 0.0]), law.mean), (np.array([0.0, 1.0]), 1 - law.mean)):
                kept = log_capital(values, counts, m, LEVEL, best) < math.log(2 / (1 - LEVEL))
                betted = betted & kept
            within = np.where(ones < RARE, betted, within)
        held["sequence"] += within.all(1).tolist()
        ratio.append(wider)
    last_one = sequence_ends(f, LEVEL, best)
    np.testing.assert_allclose(last_one.high - last_one.low, 2 * (half * wider)[:, -1])  # the package's own
    return {
        "default": {"coverage": float(np.mean(held["sequence"]))},
        "t": {"coverage": float(np.mean(held["t"]))},
        "ratio": {str(n): float(wider[n // every - 1]) for n in (100, 1000, 5000, 20_000)},
    }


def common_numbers(draws: int) -> Row:
    """Steps of the bracket ladder: the paired difference's width on common random numbers, and unpaired."""
    losses = draw_losses(load("brackets"), draws=draws)
    steps = ladder(losses, LEVEL, "none")
    return {
        f"{s.first} → {s.second}": {
            "difference": s.points.value if s.points else math.nan,
            "low": s.points.low if s.points else math.nan,
            "high": s.points.high if s.points else math.nan,
            "paired": s.difference.width,
            "unpaired": s.unpaired,
            "correlation": s.correlation,
        }
        for s in steps
        if s.unpaired > 0
    }


def cells() -> Iterator[tuple[str, Callable[[], Row]]]:
    """(name, work) of every cell."""
    for name in LAWS:
        for n in SIZES:
            yield f"fixed/{name}/{n}", lambda name=name, n=n: fixed(name, n)  # type: ignore[misc]
    for errors in (3, 5, 10):
        for n in SIZES[:2]:
            yield f"near zero/{errors}/{n}", lambda errors=errors, n=n: near_zero(errors, n)  # type: ignore[misc]
    for name, pilot, share in (
        ("light tails", 1000, 3.0),
        ("skewed", 1000, 3.0),
        ("skewed", 1000, 0.05),
        ("cross-entropy", 16_384, 1.0),
    ):
        yield (
            f"stopping/{name}/{pilot}/{share}",
            lambda name=name, pilot=pilot, share=share: stopping(name, pilot, share),  # type: ignore[misc]
        )
    for name in ("light tails", "skewed", "cross-entropy", "rare 0-1"):
        for best in (1000, 10_000):
            law = name.replace("0-1", "0/1")
            yield f"watched/{name}/{best}", lambda law=law, best=best: watched(law, best)  # type: ignore[misc]
    yield "ladder/brackets", lambda: common_numbers(8192)


def main() -> None:
    """Work through the cells that are missing, then write the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.coverage", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--out", type=Path, default=Path("docs/coverage.md"))
    parser.add_argument("--cells", type=Path, default=Path("out/coverage"), help="where cells are kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found, seconds = work_through(list(cells()), arguments.cells, arguments.fresh)
    arguments.out.write_text(table(found, seconds))
    print(table(found, seconds))


if __name__ == "__main__":
    main()
