"""Pictures: what they show is what the figures say, and nothing of matplotlib's global state is touched."""

import math
import re
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pscrub import Baseline, Claim, Dataset, Graph, Hypothesis, Study, StudyResult, scrub
from pscrub.estimate.estimate import mean_of_pairs
from pscrub.report import figures as breakdown
from pscrub.report import plots


def study(names: tuple[str, ...] = ("x's sign", "nothing"), loss: Any = None) -> Study:
    x = torch.randn(150, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    data = Dataset({"x": x, "y": x.sin(), "sign": x > 0})
    f = loss or (lambda out, y: (out - y).abs() + 0.01)
    graph = Graph.of({"out": lambda x: x, "f": f}, ["x", "y"], "f")
    y = Claim("y", "y")
    claims = [Claim("f", reads=[y, Claim("out", "sign")]), Claim("f", reads=[y])]
    return Study("s", [Hypothesis(n, graph, data, c) for n, c in zip(names, claims, strict=True)], by=["sign"])


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return scrub(study(), draws=4000)


def words(figure: Figure) -> str:
    return " | ".join(re.findall(r"<text[^>]*>([^<]*)</text>", plots.svg(figure, "test")))


def test_the_forest_is_of_the_intervals(result: StudyResult) -> None:
    figure = plots.forest(result)
    (axes,) = figure.axes
    for i, each in enumerate(result.results):
        bars = [line for line in axes.lines if list(line.get_ydata()) == [i, i]]
        assert list(bars[0].get_xdata()) == [each.recovered.low, each.recovered.high]  # type: ignore[union-attr]
        assert f"{each.recovered.value:.2f}" in words(figure)  # type: ignore[union-attr]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x's sign", "nothing"]


def test_convergence_ends_at_the_result(result: StudyResult) -> None:
    for each in result.results:
        last = breakdown.convergence_figures(each, result.level)[-1]
        assert last["draws"] == each.scrubbed.draws
        assert last["scrubbed"] == each.scrubbed.value and last["scrubbed_low"] == each.scrubbed.low
        assert last["recovered"] == pytest.approx(each.recovered.value)  # type: ignore[union-attr]
        assert last["low"] == pytest.approx(each.recovered.low)  # type: ignore[union-attr]
    assert len(plots.convergence(result).axes) >= 2


def test_intervals_on_the_way_cover() -> None:
    """At a quarter of a round, with strata left out, 95 % intervals hold the whole round's expectation."""
    rng, hits, runs = np.random.default_rng(0), 0, 400
    for _ in range(runs):
        strata = np.repeat(rng.permutation(np.linspace(-3, 3, 128)), 2)  # far more between strata than within
        f = torch.from_numpy(strata + rng.normal(size=256))
        _, _, low, high = breakdown._within(f, 0.95)[1]
        hits += low <= 0 <= high
        assert mean_of_pairs(f).width < high - low
    assert 0.9 * runs < hits < 0.99 * runs


def test_distributions(result: StudyResult) -> None:
    each = result["nothing"]
    found = breakdown.distribution_figures(result, each)
    assert set(found) == {"D", "scrubbed", "randomised"}
    assert found["scrubbed"]["mean"] == pytest.approx(each.scrubbed.value)
    assert found["D"]["mean"] == pytest.approx(each.model.value)
    assert found["randomised"]["mean"] == pytest.approx(each.randomised.value, rel=0.1)
    assert found["scrubbed"]["median"] == pytest.approx(float(each.draws.losses.median()))
    text = words(plots.distributions(result))
    for label in ("on D", "scrubbed", "randomised", "share at most f"):
        assert label in text


def test_groups_add_up(result: StudyResult) -> None:
    for each in result.results:
        rows = breakdown.groups(result, each)
        assert [row["value"] for row in rows] == ["False", "True"]
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        assert sum(row["share"] * row["model"] for row in rows) == pytest.approx(each.model.value)
        assert sum(row["draws"] * row["scrubbed"] for row in rows) / 4000 == pytest.approx(each.scrubbed.value)
    assert "mean f of scrubbed draws" in words(plots.by_group(result, "sign"))


def test_nothing_is_left_behind_and_a_figure_is_always_the_same(result: StudyResult) -> None:
    before, backend = dict(matplotlib.rcParams), matplotlib.get_backend()
    first = plots.svg(plots.forest(result), "forest")
    assert first == plots.svg(plots.forest(result), "forest")
    assert plots.forest(result)._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert first.startswith("<svg") and "http://www.w3.org" in first and "<image" not in first
    assert dict(matplotlib.rcParams) == before and matplotlib.get_backend() == backend


@pytest.mark.parametrize("name", ["$x$ and $y_{0}$", "a < b & c", "日本", "x" * 300, "100 %", r"\alpha"])
def test_names_of_any_kind(name: str) -> None:
    made = scrub(study(names=(name, "other")), draws=100)
    for figure in (plots.forest(made), plots.convergence(made), plots.by_group(made, "sign")):
        with pytest.warns(UserWarning, match="Glyph") if name == "日本" else _quiet():
            assert plots.svg(figure, "a")


def _quiet() -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_losses_that_cannot_be_drawn(value: float) -> None:
    """Infinite, undefined or constant losses leave a figure, not an error."""
    made = scrub(study(loss=lambda out, y: (out - y).abs().where(out < 1.5, value)), draws=400)
    same = scrub(study(loss=lambda out, y: 0 * out * y + 1), draws=100)
    given = scrub(study(), draws=100, randomised=Baseline(2.0, 0.1, 50, "given"))
    exact = replace(made, results=())
    for each in (made, same, given, exact):
        for figure in (
            plots.forest(each),
            plots.convergence(each),
            plots.distributions(each),
            plots.by_group(each, "sign"),
        ):
            assert plots.svg(figure, "a").startswith("<svg")
