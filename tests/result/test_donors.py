"""Runs with permuted donors: what results say, and that they are resumed, merged and refused as others are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Study, StudyError, StudyResult, merge, scrub
from pscrub.cli import main
from pscrub.report import write

RNG = torch.Generator().manual_seed(0)
N = 40
X = torch.randn(N, generator=RNG).double()
COLUMNS = {"x": X, "y": 3 * X + torch.randn(N, generator=RNG).double() / 2, "g": torch.arange(N) % 4}
DATA = Dataset(COLUMNS, (1 + torch.arange(N) % 3).tolist())
GRAPH = Graph.of(
    {"a": lambda x: x * 2, "b": lambda x: x + 1, "f": lambda a, b, y: (a + b - y) ** 2}, inputs=["x", "y"], output="f"
)
STUDY = Study(
    "s",
    [
        Hypothesis("a by group", GRAPH, DATA, Claim("f", reads=[Claim("a", "g"), Claim("y", "y")])),
        Hypothesis("nothing", GRAPH, DATA, Claim("f", reads=[Claim("y", "y")])),
    ],
    labels="y",
    by=("g",),
)


def run(**options: Any) -> StudyResult:
    return scrub(STUDY, **({"donors": "permuted", "exact": False, "draws": 2000} | options))


def test_the_result_says_how_donors_were_drawn(tmp_path: Path) -> None:
    found = run()
    for each in found.results:
        assert each.draws.donors == "permuted" and each.draws.rounds[0].replicates == 64
        assert each.scrubbed.draws == len(each.draws.losses) == 2048  # rounded up to as many for each of 64 replicates
        assert "64 replicates with permuted donors" in each.scrubbed.method
    assert "64 replicates" in json.dumps([each.as_row()["method"] for each in found.results])
    assert StudyResult.load(found.save(tmp_path / "r.nc")) == found
    paths = write(found, tmp_path / "out")
    assert any("donors permuted within 64 replicates" in path.read_text() for path in paths if path.suffix == ".json")
    plain = scrub(STUDY, exact=False, draws=2000)
    assert (
        plain == scrub(STUDY, exact=False, draws=2000)
        or plain.results[0].draws == run(donors="independent").results[0].draws
    )
    assert [each.draws for each in plain.results] == [each.draws for each in run(donors="independent").results]
    assert plain.results[0].draws.donors == "independent" and "permuted" not in plain.results[0].scrubbed.method


def test_a_seed_means_the_same_whatever_the_chunk() -> None:
    for one, other in zip(run(seed=3).results, run(seed=3, chunk=7).results, strict=True):
        torch.testing.assert_close(one.draws.losses, other.draws.losses, rtol=1e-12, atol=1e-12)
        assert torch.equal(one.draws.rows, other.draws.rows)
    assert not torch.equal(run(seed=3).results[0].draws.losses, run(seed=4).results[0].draws.losses)


def test_the_mean_agrees_with_the_exact_one() -> None:
    exact = scrub(STUDY, draws=20_000)
    for one, other in zip(exact.results, run(draws=20_000).results, strict=True):
        assert one.scrubbed.exact
        assert abs(other.scrubbed.value - one.scrubbed.value) < 7 * other.scrubbed.se


@pytest.mark.parametrize("donors", ["independent", "permuted"])
def test_a_width_is_reached_by_replicates_of_one_size(donors: str) -> None:
    """Stein's two stages are about errors that are alike."""
    for each in scrub(STUDY, until_width=2.0, donors=donors, exact=False).results:
        assert each.recovered is not None and each.recovered.width <= 2.0 and len(each.draws.rounds) > 1
        assert each.stopping == "width" and "two-stage" in each.scrubbed.method
        sizes = {r.replicates and r.size / r.replicates for r in each.draws.rounds}
        assert sizes == ({256} if donors == "permuted" else {0})


def test_runs_go_on_and_are_merged() -> None:
    first, second = run(seed=0), run(seed=1, draws=5000)
    gone_on = run(after=first)
    assert [(r.seed, r.index, r.size) for r in gone_on.results[0].draws.rounds] == [(0, 0, 2048), (0, 1, 2048)]
    both = merge(first, second)
    one = both.results[0]
    assert one.scrubbed.draws == 2048 + 5056 and "128 replicates" in one.scrubbed.method
    assert one.scrubbed.value == pytest.approx(float(one.draws.losses.mean()))
    assert one.scrubbed.se < min(first.results[0].scrubbed.se, second.results[0].scrubbed.se)


def test_independent_and_permuted_donors_do_not_mix() -> None:
    permuted, plain = run(seed=0), run(seed=1, donors="independent")
    for a, b in ((permuted, plain), (plain, permuted)):
        with pytest.raises(StudyError, match=r"donors are (permuted|independent) in one and"):
            merge(a, b)
    with pytest.raises(StudyError, match="'a by group': donors are permuted in one and independent in the other"):
        run(after=permuted, donors="independent", seed=2)


def test_a_folder_is_of_one_kind_of_donors_and_goes_on(tmp_path: Path) -> None:
    first = run(draws=140_000, out=tmp_path / "r")
    assert [(r.size, r.replicates) for r in first.results[0].draws.rounds] == [(131_072, 64), (8960, 64)]
    more = run(draws=150_000, out=tmp_path / "r")
    assert [r.size for r in more.results[0].draws.rounds] == [131_072, 8960, 9984]
    said = r"donors are drawn otherwise \(--donors\): 'permuted' there, 'independent' here"
    with pytest.raises(StudyError, match=said):
        run(draws=150_000, donors="independent", out=tmp_path / "r")


def test_what_donors_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StudyError, match=r"unknown donors 'permute'.*permuted"):
        run(donors="permute")
    with pytest.raises(StudyError, match="confidence sequence"):
        run(interval="sequence")
    assert main(["run", "cancellation", "--donors", "permuted", "--interval", "sequence", "--draws", "64"]) == 2
    assert "use independent donors" in capsys.readouterr().err


def test_the_command_line_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "cancellation", "--donors", "permuted", "--draws", "640", "--draws-only", "--json"]) == 0
    text = capsys.readouterr().out
    assert "64 replicates with permuted donors" in text


def test_the_population_has_draws_of_its_own_as_ever() -> None:
    found, plain = run(data_uncertainty=True), run(data_uncertainty=True, donors="independent", draws=2048)
    for one, other in zip(found.results, plain.results, strict=True):
        assert one.data is not None and other.data is not None
        assert one.data.population == other.data.population
