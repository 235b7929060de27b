"""Results: what they hold, their forms, saving, going on and merging, and runs that are killed."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pytest
import torch
from scipy.io import netcdf_file

import pscrub
from pscrub import Claim, Dataset, Graph, Hypothesis, ScrubResult, Study, StudyError, StudyResult, merge, scrub
from pscrub import records as store
from pscrub.estimate import stopping
from pscrub.result.draws import Draws, join_draws
from pscrub.result.table import Table

N = 120


def study(rows: int = N, feature: str = "half", scale: float = 1.0, weights: Any = None) -> Study:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, generator=generator, dtype=torch.float64)
    words = ["odd" if i % 2 else "even" for i in range(rows)]
    data = Dataset({"x": x, "y": x + 0.3 * noise, "half": x > 0, "third": (x * 3).floor(), "word": words}, weights)
    graph = Graph.of(
        {
            "a": lambda x: scale * x,
            "b": lambda x: 0.1 * x,
            "out": lambda a, b: a + b,
            "f": lambda out, y: (out - y) ** 2,
        },
        ["x", "y"],
        "f",
    )
    label = Claim("y", "y")
    hypotheses = [
        Hypothesis("exact", graph, data, Claim("f", reads=[label, Claim("out", pscrub.EXACT)])),
        Hypothesis(
            "sign",
            graph,
            data,
            Claim("f", reads=[label, Claim("out", "half", reads=[Claim("a", feature, name="a|x")])]),
        ),
        Hypothesis("nothing", graph, data, Claim("f", reads=[label])),
    ]
    return Study("line", hypotheses, notes=["made up"], by=["half", "word"])


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return scrub(study(), draws=3000, seed=5)


def exactly_equal(a: ScrubResult, b: ScrubResult) -> bool:
    return replace(a, seconds={}) == replace(b, seconds={})


# What a result holds


def test_the_draws_are_those_of_the_estimate(result: StudyResult) -> None:
    for each in result.results[1:]:
        d = each.draws
        assert d.losses.dtype == torch.float64 and d.rows.dtype == torch.int64
        assert d.losses.shape == d.rows.shape == (3000,) == (sum(r.size for r in d.rounds),)
        assert float(d.losses.mean()) == pytest.approx(each.scrubbed.value, rel=1e-12)
        assert [(r.seed, r.index) for r in d.rounds] == [(5, 0)]
        assert d.worst[0].loss == float(d.losses.max()) and len(d.worst) == 10
        assert d.worst[0].data["f"][0] == int(d.rows[d.losses.argmax()])
    assert result["exact"].draws.losses.numel() == 0
    assert [*result] == [*result.results]


def test_sites_say_what_could_be_drawn_and_what_was(result: StudyResult) -> None:
    half = study().hypotheses[0].data["half"]
    sizes = torch.stack([half.sum(), (~half).sum()]).double()
    out, _inner, *_ = (s for s in result["sign"].draws.sites if s.path in ("f/out", "f/out/a|x"))
    assert (out.blocks, out.smallest, out.largest) == (2, int(sizes.min()), int(sizes.max()))
    assert out.donors == pytest.approx(float((sizes**2).sum() / N))
    assert out.own / out.draws == pytest.approx(2 / N, abs=5 * math.sqrt(2 / N / 3000))
    unimportant = next(s for s in result["nothing"].draws.sites if s.path == "f/~")
    assert unimportant.at == ("out",) and unimportant.effective == pytest.approx(N, rel=0.1)
    assert {s.donors for s in result["exact"].draws.sites if s.path == "f/out"} == {1.0}


def test_output_distances_are_those_of_the_output(result: StudyResult) -> None:
    """With nothing claimed of it, the output is that of an independent row."""
    data = study().hypotheses[0].data
    out = 1.1 * data["x"]
    pairs = (out[:, None] - out[None, :]).square().mean()
    found = result["nothing"].draws.distances["squared error"]
    assert float(found.mean()) == pytest.approx(float(pairs), rel=0.15)
    assert scrub(replace(study(), by=()), draws=50)["sign"].draws.distances == {}


def test_logits_are_compared_by_divergence_and_decision() -> None:
    data = Dataset({"x": torch.tensor([0.0, 1.0, -1.0, 2.0]), "y": torch.tensor([0, 1, 0, 1])})
    graph = Graph.of(
        {
            "logits": lambda x: torch.stack([-x, x], 1),
            "f": lambda logits, y: -logits.log_softmax(1).gather(1, y[:, None])[:, 0],
        },
        ["x", "y"],
        "f",
    )
    hypothesis = Hypothesis("h", graph, data, Claim("f", reads=[Claim("y", "y")]))
    each = scrub(Study("s", [hypothesis], by=["y"]), draws=400)["h"]
    p = torch.stack([-data["x"], data["x"]], 1).double().log_softmax(1)
    kl = (p.exp()[:, None] * (p[:, None] - p[None])).sum(-1)
    flipped = (p.argmax(1)[:, None] != p.argmax(1)[None]).double()
    for name, matrix in (("KL", kl), ("flipped", flipped)):
        assert float(each.draws.distances[name].mean()) == pytest.approx(float(matrix.mean()), rel=0.25)
    assert set(each.draws.distances["flipped"].tolist()) == {0.0, 1.0}


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(StudyError, match=r"by 'wrod'.*did you mean \"word\""):
        replace(study(), by=["wrod"])


def test_hashes_name_data_and_laws(result: StudyResult) -> None:
    again = scrub(study(), draws=10)
    assert [r.law_hash for r in again.results] == [r.law_hash for r in result.results]
    assert len({r.law_hash for r in again.results}) == 3
    assert again.reference.data_hash == result.reference.data_hash
    weighted = scrub(study(weights=torch.arange(1, N + 1)), draws=10)
    assert weighted.reference.data_hash != result.reference.data_hash
    assert scrub(study(feature="third"), draws=10)["sign"].law_hash != result["sign"].law_hash


# Forms


def test_text_and_html(result: StudyResult) -> None:
    text = repr(result)
    for word in ("line", "sign", "nothing", "recovered %", f"{result['sign'].scrubbed.value:.4f}", "3,000"):
        assert word in text and (word in result._repr_html_() or word == "line")
    assert "<script" not in result._repr_html_() and result["sign"]._repr_html_().count("<tr>") == 2
    assert repr(result["sign"]).startswith("ScrubResult(sign: E_model")
    odd = replace(result["sign"], hypothesis="<b> & co")
    assert "<b>" not in odd._repr_html_() and "&lt;b&gt; &amp; co" in odd._repr_html_()


def test_tables(result: StudyResult) -> None:
    frame = result.to_dataframe()
    assert frame["hypothesis"].tolist() == ["exact", "sign", "nothing"]
    assert frame["scrubbed"].tolist() == [each.scrubbed.value for each in result.results]
    draws = result["sign"].to_dataframe()
    assert list(draws) == ["seed", "round", "row", "loss", "squared error"] and len(draws) == 3000
    assert draws["loss"].mean() == pytest.approx(result["sign"].scrubbed.value)


def test_arrays(result: StudyResult) -> None:
    data = result.to_xarray()
    assert dict(data.sizes) == {"hypothesis": 3, "draw": 3000, "datum": N}
    assert np.array_equal(data["loss"].sel(hypothesis="sign"), result["sign"].draws.losses)
    assert bool(data["loss"].sel(hypothesis="exact").isnull().all())
    assert data["recovered"].sel(hypothesis="sign").item() == result["sign"].recovered.value  # type: ignore[union-attr]
    one = result["sign"].to_xarray()
    assert np.array_equal(one["row"], result["sign"].draws.rows) and one.attrs["hypothesis"] == "sign"


def test_arviz_data(result: StudyResult) -> None:
    data = result.to_arviz()
    scores = data["posterior"]["loss_recovered"]
    assert scores.dims == ("chain", "draw", "hypothesis") and scores.shape == (4, 1000, 3)
    loss = data["scrubbed_draws"]["loss"]
    assert "chain" not in loss.dims and loss.shape == (3, 3000)  # pairs from strata are no chain
    assert float(loss.sel(hypothesis="sign").mean()) == pytest.approx(result["sign"].scrubbed.value)
    assert float(data["observed_data"]["loss"].mean()) == pytest.approx(result["sign"].model.value)
    one = result["sign"].to_arviz()
    assert np.array_equal(one["scrubbed_draws"]["row"], result["sign"].draws.rows)


def test_what_arviz_says_of_a_result_is_right(result: StudyResult) -> None:
    """Its summary is of expected losses and loss recovered: values, widths and diagnostics; of row numbers nothing."""
    for name in ("sign", "nothing"):
        each = result[name]
        said = arviz.summary(each.to_arviz(), hdi_prob=0.95)
        assert list(said.index) == ["E_scrubbed", "loss_recovered"]
        assert each.recovered is not None
        for row, estimate in (("E_scrubbed", each.scrubbed), ("loss_recovered", each.recovered)):
            assert said.loc[row, "mean"] == pytest.approx(estimate.value, abs=0.1 * estimate.width + 1e-3)
            assert said.loc[row, "sd"] == pytest.approx(estimate.se, rel=0.15, abs=1e-3)
            assert said.loc[row, "ess_bulk"] > 2000 and said.loc[row, "r_hat"] < 1.02
    together = arviz.summary(result.to_arviz(), var_names=["loss_recovered"], kind="stats")
    assert list(together.index) == [f"loss_recovered[{name}]" for name in ("exact", "sign", "nothing")]
    assert together.loc["loss_recovered[exact]", "mean"] == 100.0 and together.loc["loss_recovered[exact]", "sd"] == 0.0
    assert not any("row" in index for index in arviz.summary(result.to_arviz(), kind="stats").index)


def test_arviz_draws_what_it_says(result: StudyResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    data = result.to_arviz()
    arviz.plot_forest(data, var_names=["loss_recovered"], combined=True)
    arviz.plot_posterior(result["sign"].to_arviz(), var_names=["E_scrubbed", "loss_recovered"])
    pyplot.close("all")


def test_posteriors_of_a_result_come_in_chains_and_from_the_seed(result: StudyResult) -> None:
    first, again = result["sign"].posterior(400), result["sign"].posterior(400)
    assert {values.shape for values in first.values()} == {(4, 100)}
    assert all(np.array_equal(first[name], again[name]) for name in first)
    with pytest.raises(StudyError, match="samples is 10; expected a multiple of 4"):
        result["sign"].posterior(10)
    undefined = replace(result["sign"], recovered=None).posterior(40)
    assert np.isnan(undefined["loss_recovered"]).all() and np.isfinite(undefined["E_scrubbed"]).all()
    draws = replace(result["sign"].draws, losses=torch.full((4,), torch.inf))
    assert np.isnan(replace(result["sign"], draws=draws).posterior(40)["E_scrubbed"]).all()


# Saving


def test_saving_and_loading_give_the_same_result(result: StudyResult, tmp_path: Path) -> None:
    path = result.save(tmp_path / "result.nc")
    assert StudyResult.load(path) == result == StudyResult.load(tmp_path)
    assert StudyResult.load(path) != replace(result, seed=6)
    assert [each.name for each in tmp_path.iterdir()] == ["result.nc"]
    with netcdf_file(path, mmap=False) as file:  # any netCDF reader can
        assert any(v.shape == (3000,) for v in file.variables.values())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_losses_that_are_not_finite_are_saved(value: float, result: StudyResult, tmp_path: Path) -> None:
    each = result["sign"]
    losses = each.draws.losses.clone()
    losses[3] = value
    odd = replace(each, draws=replace(each.draws, losses=losses), scrubbed=replace(each.scrubbed, value=value))
    whole = replace(result, results=(odd,))
    assert StudyResult.load(whole.save(tmp_path / "odd.nc")) == whole


def test_another_version_is_refused_by_name(
    result: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "VERSION", 99)
        path = result.save(tmp_path / "result.nc")
    with pytest.raises(StudyError, match="version 99 of 'pscrub result'; this pscrub reads versions 1 and 2"):
        StudyResult.load(path)


def test_files_that_are_no_results(tmp_path: Path, result: StudyResult) -> None:
    with pytest.raises(StudyError, match="no saved result at"):
        StudyResult.load(tmp_path)
    path = tmp_path / "result.nc"
    path.write_text("words")
    with pytest.raises(StudyError, match="is no saved result"):
        StudyResult.load(path)
    whole = result.save(tmp_path / "whole.nc").read_bytes()
    for part in (10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:part])
        with pytest.raises(StudyError, match="result"):
            StudyResult.load(path)


def test_nothing_is_left_where_writing_fails(
    result: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StudyError, match="No space left on device"):
        result.save(tmp_path / "result.nc")
    assert list(tmp_path.iterdir()) == []


# Going on, and merging


def test_two_half_runs_are_one_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ROUND", 500)
    whole = scrub(study(), draws=2000, seed=1)
    half = scrub(study(), draws=1000, seed=1)
    rest = scrub(study(), draws=1000, seed=1, after=half)
    for one, other in zip(whole.results, rest.results, strict=True):
        assert exactly_equal(one, other)
    # The same, saved in between, and the halves apart.
    alone = replace(rest, results=tuple(_without(each, half[each.hypothesis]) for each in rest.results))
    for pair in ((half, alone), (alone, half)):
        merged = merge(*pair)
        for one, other in zip(whole.results, merged.results, strict=True):
            assert one.draws == other.draws and one.scrubbed == other.scrubbed and one.recovered == other.recovered


def _without(each: ScrubResult, first: ScrubResult) -> ScrubResult:
    """The later rounds alone, as a run elsewhere would have made them."""
    k, d = len(first.draws.rounds), each.draws
    n = len(first.draws.losses)
    pairs = zip(d.sites, first.draws.sites, strict=True)
    counts = [{c: getattr(a, c) - getattr(b, c) for c in ("draws", "own", "collisions", "pairs")} for a, b in pairs]
    return replace(
        each,
        draws=Draws(
            d.rounds[k:],
            d.losses[n:],
            d.rows[n:],
            {name: column[n:] for name, column in d.distances.items()},
            tuple(replace(site, **c) for site, c in zip(d.sites, counts, strict=True)),
            tuple(w for w in d.worst if w not in first.draws.worst),
        ),
    )


def test_more_draws_tighten_the_same_interval(result: StudyResult, tmp_path: Path) -> None:
    other = scrub(study(), draws=9000, seed=6)
    merged = merge(StudyResult.load(result.save(tmp_path / "r.nc")), other)
    assert merged["exact"] == result["exact"]
    for name in ("sign", "nothing"):
        whole, part = merged[name].scrubbed, result[name].scrubbed
        assert whole.draws == 12_000 and whole.width < 0.7 * part.width
        mean = (3000 * part.value + 9000 * other[name].scrubbed.value) / 12_000
        assert whole.value == pytest.approx(mean, rel=1e-12)
    assert scrub(study(), draws=9000, seed=6, after=result)["sign"].scrubbed == merged["sign"].scrubbed


def test_a_width_is_reached_from_where_a_run_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ROUND", 400)
    first = scrub(study().hypotheses[2], draws=400)
    more = scrub(study().hypotheses[2], until_width=10.0, after=first).results[0]
    assert more.scrubbed.draws > 400 and more.recovered is not None and more.recovered.width <= 10
    assert more.stopping == "width" and more.draws.losses[:400].equal(first.results[0].draws.losses)


def test_draws_are_never_counted_twice(result: StudyResult) -> None:
    with pytest.raises(StudyError, match=r"the same draws are in both results \(round 0 of seed 5\)"):
        merge(result, result)
    with pytest.raises(StudyError, match="round 0 of seed 5"):
        join_draws([result["sign"].draws, result["sign"].draws])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": N - 1}, "different data"),
        ({"feature": "third"}, "'sign' is another hypothesis in each"),
        ({"scale": 0.9}, "E_model is"),
    ],
)
def test_results_of_different_studies_do_not_mix(options: Any, words: str, result: StudyResult) -> None:
    other = scrub(study(**options), draws=100, seed=9)
    with pytest.raises(StudyError, match=words):
        merge(result, other)
    with pytest.raises(StudyError, match=words if "data" not in words else "other data"):
        scrub(study(**options), draws=100, seed=9, after=result)


def test_results_without_a_hypothesis_in_common(result: StudyResult) -> None:
    one, two = (replace(result, results=(each,)) for each in result.results[1:])
    assert [each.hypothesis for each in merge(one, two).results] == ["sign", "nothing"]
    other = scrub(study(scale=0.9).hypotheses[2], draws=100, seed=9)
    with pytest.raises(StudyError, match="no hypothesis in common, and f on D is another in each"):
        merge(one, other)


def test_a_table_is_shown_as_one_at_the_prompt_and_in_notebooks() -> None:
    table = Table(("name", "value"), (("<b>", "1.0"), ("longer", "12.0")), title="two & more")
    assert repr(table).splitlines() == ["two & more", "", "name    value", "<b>       1.0", "longer   12.0"]
    shown = table._repr_html_()
    assert shown.startswith("<p><strong>two &amp; more</strong></p><table>") and "<td>&lt;b&gt;</td>" in shown
    assert repr(replace(table, title="")) == table.text()
