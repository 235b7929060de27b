"""The population that D is a sample of: E_scrubbed, its baselines and loss recovered there, with intervals.

Two targets, kept apart. *On this D*: the rows and weights as they are; only draws are uncertain. *In the population*: D
is one sample of independent rows (or clusters of rows), and another would give other figures. The values themselves
differ too: on D a row can stand in for itself, in the population it hardly ever does. Everything here is of draws apart
(`law.apart`), and its variance of their jackknife (`estimate.jackknife`).

Source: Jaeckel, The infinitesimal jackknife (1972); Efron and Stein, The jackknife estimate of variance (1981).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from scipy import stats
from torch import Tensor

from pscrub.estimate.baselines import Baseline
from pscrub.estimate.estimate import Estimate
from pscrub.estimate.freedom import Shape, welch
from pscrub.estimate.gradients import OfPairs
from pscrub.estimate.jackknife import Population
from pscrub.estimate.recovered import Scale
from pscrub.outcomes import Outcome, Said
from pscrub.records import Equal

BLURRED = 0.25
"""Share of the data's variance that the draws' noise in it may reach before it is warned of."""
UNKNOWN = 0.2
"""Share of the law that D may be too small for before no interval is given for the rest."""
FEWEST = {"model": 2, "randomised": 3, "scrubbed": 3}
"""Units below which leaving one out says nothing: a mean of rows needs two, one of pairs three."""
OF_PAIRS = {each.value for each in OfPairs}
"""How E_randomised is come by where it is not given, and so not held fixed."""
_U, _V = torch.tensor([[1.0, 0.0, -1.0], [0.0, -1.0, 1.0]], dtype=torch.float64)


class Jackknife(Outcome):
    """How the uncertainty of the data was found."""

    ROWS = "jackknife", "jackknife over {rows:,} rows"
    CLUSTERS = "jackknife of clusters", "jackknife over {rows:,} clusters ({column})"
    AND_DRAWS = "jackknife and draws", "{rows}; draws: {method}"


class Blur(Outcome):
    """What the draws' noise does to the uncertainty of the data."""

    NOT_RESOLVED = (
        "data uncertainty not resolved",
        "data uncertainty not resolved: it drowns in the draws' noise, and a bound is given in place; draw more",
    )
    BLURRED = (
        "data uncertainty blurred",
        "data uncertainty blurred: the draws' noise in its variance is {share:.0f} % of it, which widens the interval; "
        "draw more",
    )


class Unknown(Outcome):
    """What D is too small to say of the population."""

    UNKNOWN = (
        "population not known",
        "population not known: {share:.3g} % of D's weight is in blocks with too few {units} for a draw of different "
        "ones, so D cannot say what the population holds there, and no interval for the population is given; more data "
        "or a coarser feature would tell",
    )
    PARTLY = (
        "population partly known",
        "population partly known: {share:.2g} % of D's weight is in blocks with too few {units} for a draw of "
        "different ones; the interval for the population is of the rest, and of all of it only if those blocks are "
        "like the rest",
    )
    FEW = (
        "too few for the population",
        "population not known: D has {count:,} {units} that are independent of one another, and with one left out "
        "nothing is left to compare; expected 3 or more",
    )
    NOT_FINITE = (
        "population not finite",
        "population not known: f is infinite or NaN on some draws, so no interval for the population is given",
    )


@dataclass(frozen=True)
class Figures:
    """E_scrubbed, E_model, E_randomised and loss recovered in the population, each with an interval.

    E_scrubbed is None where D is too small to say, and loss recovered there and where it has no meaning.
    """

    scrubbed: Estimate | None
    model: Estimate
    randomised: Estimate
    recovered: Estimate | None


@dataclass(frozen=True, eq=False)
class DataUncertainty(Equal):
    """The values in the population, with the uncertainty of the data apart and together with that of the draws.

    Args:
        data: intervals for D as a sample, the draws' errors left out.
        both: intervals for both.
        covariances: of E_scrubbed, E_model and E_randomised over samples D, in f's units squared, row by row.
        warnings: what to know before believing them.
        population: what all else was made from; None in results of before 0.1.0, whose values are D's own.
    """

    data: Figures
    both: Figures
    covariances: tuple[float, ...]
    warnings: tuple[str, ...]
    population: Population | None = None

    @property
    def covariance(self) -> Tensor:
        """float64 [3, 3]: of E_scrubbed, E_model and E_randomised over samples D."""
        return torch.tensor(self.covariances, dtype=torch.float64).reshape(3, 3)

    @property
    def unknown(self) -> float:
        """The share of the law that D is too small for."""
        return 0.0 if self.population is None else self.population.unknown


def data_uncertainty(scrubbed: Estimate, model: Baseline, population: Population) -> DataUncertainty:
    """All four figures in the population, with the uncertainty of the data apart and together with the draws'.

    E_scrubbed, E_model and E_randomised move together from one sample D to another; what they share cancels in loss
    recovered, whose interval is Fieller's for their joint covariance. t quantiles, with the degrees of freedom that
    match the two moments of the sum of squares (and Welch's for the sum of both variances). The draws' noise in the
    variance costs degrees of freedom; where it is all that is seen, which a warning says, twice its standard error is
    put in place: too wide, not narrow.
    To either side the draws' part is never less than that of the interval on D, and the data's comes on top.

    Args:
        scrubbed: E_scrubbed on D, with the draws' uncertainty.
        model: E_model.
        population: what draws apart say.
    """
    drawn, level, column = population.drawn, scrubbed.level, population.clusters
    warnings = tuple(_warn_of_unknown(population))
    count = int(population.weights.count_nonzero())
    if count < FEWEST["scrubbed"]:
        drawn = None
    if drawn is not None and (population.unknown > UNKNOWN or not math.isfinite(drawn.value)):
        drawn = None
    covariance, noise, blur = _covariance(population, drawn is not None)
    warnings += blur
    rows = population.effective
    halves = _finite(population.gradients)
    bends = None if population.bends is None else _finite(population.bends)
    shapes = [Shape.of(each, rows, None if i or bends is None else bends[0]) for i, each in enumerate(halves)]
    shapes[0] = _told(shapes[0], population, float(covariance[0, 0]), noise)
    over = Jackknife.CLUSTERS.say(rows=count, column=column) if column else Jackknife.ROWS.say(rows=count)
    sources: tuple[Estimate | Baseline | None, ...] = (drawn, model, population.randomised)
    found = {}
    for kind, drawing in (("data", False), ("draws and data", True)):
        figures = [
            None if each is None else _figure(each, float(covariance[i, i]), shapes[i], level, over, drawing)
            for i, each in enumerate(sources)
        ]
        mine, of_model, of_randomised = figures
        assert of_model is not None and of_randomised is not None
        if count < FEWEST["model"]:
            of_model = replace(of_model, low=-math.inf, high=math.inf)
        if count < FEWEST["randomised"] and Said.of(population.randomised.method).kind in OF_PAIRS:
            of_randomised = replace(of_randomised, low=-math.inf, high=math.inf)
        score = None
        if mine is not None:
            if drawing:
                mine = _no_narrower(mine, scrubbed, float(covariance[0, 0]))
            values = [mine.value, model.value, population.randomised.value]
            own = [each.se if drawing and each is not None else 0.0 for each in sources]
            if drawing and drawn is not None:
                # The least quantile that Fieller's interval may take.
                quantile = float(stats.norm.ppf((1 + level) / 2))
                sides = (e.value - e.low for e in (drawn, scrubbed)), (e.high - e.value for e in (drawn, scrubbed))
                own[0] = max(own[0], *(side / quantile for each in sides for side in each))
            variances = torch.tensor(own, dtype=torch.float64).square()
            tilt = _tilt(torch.tensor(values, dtype=torch.float64))
            # Of what its units do together E_scrubbed alone, which counts once.
            shape = Shape.of(_along(tilt, halves), rows, None if bends is None else _along(tilt, bends))
            # What pairs of rows do stays, however little single ones seem to: it is the more surely known.
            own_part = covariance.clone()
            own_part[0, 0] += max(population.joint - float(tilt @ covariance @ tilt), 0.0)
            shape = _told(shape, population, float(tilt @ own_part @ tilt), noise)
            score = _score(torch.tensor(values, dtype=torch.float64), own_part, variances, shape, mine)
        found[kind] = Figures(mine, replace(of_model, kind=kind), replace(of_randomised, kind=kind), score)
    return DataUncertainty(
        found["data"], found["draws and data"], tuple(covariance.flatten().tolist()), warnings, population
    )


def _figure(
    source: Estimate | Baseline, variance: float, shape: Shape, level: float, over: Said, drawing: bool
) -> Estimate:
    """A figure with the data's uncertainty, and with the draws' too if asked."""
    value, kind, variance = source.value, "draws and data" if drawing else "data", max(variance, 0.0)
    if not drawing or not source.se:
        low, high = _sides(shape, shape.freedom, variance, level)
        se = math.sqrt(variance)
        return Estimate(value, value - low, value + high, level, se, shape.freedom, source.draws, over, kind)
    df = source.df if isinstance(source, Estimate) else math.inf
    freedom = welch((variance, source.se**2), (shape.freedom, df))
    drawn = (float(stats.t.ppf((1 + level) / 2, freedom)) * source.se,) * 2
    if isinstance(source, Estimate) and source.interval not in ("t", ""):  # an interval with sides of its own
        drawn = value - source.low, source.high - value
    low, high = map(math.hypot, _sides(shape, freedom, variance, level), drawn)
    method = Jackknife.AND_DRAWS.say(rows=over, method=source.method)
    se = math.hypot(math.sqrt(variance), source.se)
    return Estimate(value, value - low, value + high, level, se, freedom, source.draws, method, kind)


def _sides(shape: Shape, freedom: float, variance: float, level: float) -> tuple[float, float]:
    """How far down and up an interval for the data reaches."""
    q, se = float(stats.t.ppf((1 + level) / 2, freedom)), math.sqrt(variance)
    low, high = ((q + more) * se for more in shape.farther(q, variance))
    return low, high


def _no_narrower(figure: Estimate, drawn: Estimate, variance: float) -> Estimate:
    """The figure with sides no shorter than an interval's for draws alone."""
    value = figure.value
    low = min(figure.low, value - math.hypot(drawn.value - drawn.low, math.sqrt(max(variance, 0.0))))
    high = max(figure.high, value + math.hypot(drawn.high - drawn.value, math.sqrt(max(variance, 0.0))))
    return replace(figure, low=low, high=high)


def _covariance(population: Population, known: bool) -> tuple[Tensor, float, tuple[Said, ...]]:
    """float64 [3, 3], never negative in any direction, the draws' noise in E_scrubbed's variance, and what blurs it."""
    # Where f is not finite neither are figures, which are told of; the others keep their intervals.
    halves = _finite(population.gradients)
    if not known:
        halves[0] = 0.0
    rows = population.effective
    small = rows / (rows - 1) if rows > 1 else 0.0
    covariance = torch.einsum("in,jn->ij", halves[:, 0], halves[:, 1])
    covariance = small * (covariance + covariance.T) / 2
    if known:
        covariance[0, 0] = max(float(covariance[0, 0]) + population.excess, population.joint)
    variance = float(covariance[0, 0])
    noise = small * float((halves[0, 0] - halves[0, 1]).square().sum()) / 2 / math.sqrt(rows)
    noise = math.hypot(noise, population.noise) if known else 0.0
    warnings = tuple(_warn(variance, noise)) if known else ()
    if noise and variance <= noise:  # what is put in place is a bound, without noise of its own
        covariance[0, 0] = max(variance, 0.0) + 2 * noise
        noise = 0.0
    # What noise is left must not make a variance negative, nor eat up that of the draws.
    spread, axes = torch.linalg.eigh(covariance)
    return axes @ torch.diag(spread.clamp(min=0)) @ axes.T, noise, warnings


def _warn_of_unknown(population: Population) -> Iterator[Said]:
    share, units = 100 * population.unknown, "clusters" if population.clusters else "rows"
    count = int(population.weights.count_nonzero())
    if count < FEWEST["scrubbed"]:
        yield Unknown.FEW.say(count=count, units=units)
    elif population.unknown > UNKNOWN:
        yield Unknown.UNKNOWN.say(share=share, units=units)
    elif population.drawn is not None and not math.isfinite(population.drawn.value):
        yield Unknown.NOT_FINITE.say()
    elif share:
        yield Unknown.PARTLY.say(share=share, units=units)


def _told(shape: Shape, population: Population, variance: float, noise: float) -> Shape:
    """The shape of what has a variance, E_scrubbed's pairs of rows and the draws' noise in it told."""
    share = population.joint / variance if variance > 0 else 1.0
    return shape.among(population.blocks, share).blurred(variance, noise)


def _finite(figures: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """float64 [figures, 2, units], zeros where f is not finite."""
    return torch.stack([torch.stack(each) for each in figures]).nan_to_num(0.0, 0.0, 0.0)


def _tilt(values: Tensor) -> Tensor:
    """float64 [3]: how loss recovered moves with E_scrubbed, E_model and E_randomised, but for a factor."""
    bottom = -float(_V @ values)
    tilt: Tensor = _U + (float(_U @ values) / bottom if bottom else 0.0) * _V
    return tilt


def _along(tilt: Tensor, figures: Tensor) -> Tensor:
    """float64 [2, units]: figures, [3, 2, units], weighed and added."""
    return torch.einsum("i,ihn->hn", tilt, figures)


def _score(values: Tensor, covariance: Tensor, own: Tensor, shape: Shape, scrubbed: Estimate) -> Estimate | None:
    """Fieller's interval of the loss recovered: all r with |top - r bottom| within q standard errors of 0.

    Each end has a q of its own (`Shape.farther`); the draws' part of the variance leans to no side.
    """
    top, bottom = float(_U @ values), -float(_V @ values)
    if not math.isfinite(top / bottom if bottom else math.nan) or abs(bottom) <= 1e-9 * float(values.abs().max()):
        return None
    tilt, whole = _tilt(values), covariance + torch.diag(own)
    parts = float((tilt @ covariance @ tilt).clamp(min=0)), float(tilt.square() @ own)
    freedom = welch(parts, (shape.freedom, scrubbed.df))
    q, ends = float(stats.t.ppf((1 + scrubbed.level) / 2, freedom)), list[float]()
    share = math.sqrt(parts[0] / sum(parts)) if sum(parts) > 0 else 0.0
    farther = shape.farther(q, parts[0])
    for sign, more in zip((-1, 1), farther if bottom > 0 else reversed(farther), strict=True):
        quantile = q + share * more
        a = bottom**2 - quantile**2 * float(_V @ whole @ _V)
        b = top * bottom + quantile**2 * float(_U @ whole @ _V)
        c = top**2 - quantile**2 * float(_U @ whole @ _U)
        if a <= 0:
            return None
        ends.append(100 * (b + sign * math.sqrt(max(b * b - a * c, 0.0))) / a)
    se = 100 * math.sqrt(sum(parts)) / abs(bottom)
    method = Scale.FIELLER.wrap(scrubbed.method)
    low, high = ends
    return Estimate(100 * top / bottom, low, high, scrubbed.level, se, freedom, scrubbed.draws, method, scrubbed.kind)


def _warn(variance: float, noise: float) -> Iterator[Said]:
    if variance <= noise and noise > 0:
        yield Blur.NOT_RESOLVED.say()
    elif noise > BLURRED * variance:
        yield Blur.BLURRED.say(share=100 * noise / variance)
