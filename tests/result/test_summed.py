"""Rounds after so many draws, of which only sums are kept: the same estimates; all else says what it is of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pscrub import ScrubResult, StudyResult, merge, scrub
from pscrub.estimate import replicates, stopping
from pscrub.report import write
from pscrub.result import draws as records
from pscrub.result import scheduling
from pscrub.result.adding import read_result
from pscrub.result.draws import WORST, Bar, Draws, Extreme
from pscrub.result.folder import RunFiles
from tests.kills import strip_times
from tests.result.test_donors import STUDY

KEPT, ROUND, DRAWS = 1500, 500, 5200
HOWS: dict[str, dict[str, Any]] = {
    "t": {},
    "permuted": {"donors": "permuted"},
    "betting": {"interval": "betting", "bounds": (0.0, 400.0)},
    "bernstein": {"interval": "bernstein", "bounds": (0.0, 400.0)},
}
each_how = pytest.mark.parametrize("how", HOWS)


@pytest.fixture(autouse=True)
def _small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ROUND", ROUND)
    monkeypatch.setattr(replicates, "LONGEST", 8)


def run(kept: int, **options: Any) -> StudyResult:
    """The study's result, draws being kept up to so many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "KEPT", kept)
        return scrub(STUDY, **({"exact": False, "draws": DRAWS} | options))


def pairs(how: str) -> Iterator[tuple[ScrubResult, ScrubResult]]:
    """Results with some rounds summed, and with all kept."""
    return zip(run(KEPT, **HOWS[how]).results, run(10**9, **HOWS[how]).results, strict=True)


@each_how
def test_the_estimates_are_those_of_all_draws(how: str) -> None:
    for part, whole in pairs(how):
        assert part.scrubbed.draws == len(part.draws) == len(whole.draws.losses)
        assert len(part.draws.losses) == sum(r.size for r in part.draws.kept) < len(part.draws)
        assert part.scrubbed.method == whole.scrubbed.method
        for one, other in ((part.scrubbed, whole.scrubbed), (part.recovered, whole.recovered)):
            assert one is not None and other is not None
            assert one.value == pytest.approx(other.value, rel=1e-12)
            if how != "betting":
                assert (one.low, one.high, one.se) == pytest.approx((other.low, other.high, other.se), rel=1e-9)
            else:
                assert one.low <= other.low + 1e-9 and other.high - 1e-9 <= one.high and one.width < 1.02 * other.width
        assert part.draws.sites == whole.draws.sites and part.draws.worst == whole.draws.worst
        n = len(part.draws.losses)
        assert torch.equal(part.draws.losses, whole.draws.losses[:n])
        assert torch.equal(part.draws.rows, whole.draws.rows[:n])
        assert {k: len(v) for k, v in part.draws.distances.items()} == dict.fromkeys(whole.draws.distances, n)
        said = [w for w in part.warnings if w.startswith("draws summed")]
        assert len(said) == 1 and f"of {len(part.draws):,} draws {n:,} are kept" in said[0]
        assert [w for w in part.warnings if w not in said] == list(whole.warnings)


def test_up_to_so_many_draws_all_are_kept() -> None:
    assert strip_times(run(DRAWS)) == strip_times(run(10**9))
    assert all(each.draws.sums is None for each in run(DRAWS).results)


@each_how
def test_it_does_not_matter_who_made_which_rounds_when(how: str, tmp_path: Path) -> None:
    """One run; gone on with; in a folder, in two goes, read again: the same to the last bit."""
    whole = run(KEPT, **HOWS[how])
    size = 512 if how == "permuted" else ROUND  # rounds are the same where the first go ends with one
    first = run(KEPT, **HOWS[how], draws=2 * size)
    after = run(KEPT, **HOWS[how], draws=len(whole.results[0].draws) - 2 * size, after=first)
    run(KEPT, **HOWS[how], draws=5 * size, out=tmp_path)
    again = run(KEPT, **HOWS[how], out=tmp_path)
    for each in (after, again, read_result(RunFiles(tmp_path)), StudyResult.load(whole.save(tmp_path / "w.nc"))):
        for one, other in zip(each.results, whole.results, strict=True):
            assert one.draws == other.draws and one.scrubbed == other.scrubbed and one.warnings == other.warnings


@each_how
def test_results_are_merged(how: str) -> None:
    options = HOWS[how]
    a, b = run(KEPT, **options), run(KEPT, **options, seed=1)
    whole = merge(run(10**9, **options), run(10**9, **options, seed=1))
    for part, other in zip(merge(a, b).results, whole.results, strict=True):
        assert part.scrubbed.draws == other.scrubbed.draws == 2 * len(a.results[0].draws)
        assert len(part.draws.losses) == 2 * len(a.results[0].draws.losses)
        assert part.scrubbed.value == pytest.approx(other.scrubbed.value, rel=1e-12)
        assert part.scrubbed.se == pytest.approx(other.scrubbed.se, rel=1e-9)


def test_what_lists_draws_lists_those_that_are_kept(tmp_path: Path) -> None:
    found = run(KEPT)
    paths = write(found, tmp_path)
    assert any("draws summed" in path.read_text() for path in paths if path.suffix in (".html", ".json"))
    first = found.results[0]
    assert len(first.to_dataframe()) == len(first.to_xarray()["loss"]) == KEPT
    assert found.to_xarray()["loss"].shape == (2, KEPT) and first.posterior()["E_scrubbed"].size == 4000
    first.to_arviz()


def test_a_width_is_reached_over_an_earlier_result_of_summed_rounds() -> None:
    before = run(KEPT)
    found = run(KEPT, draws=None, until_width=0.5 * before.results[0].recovered.width, after=before)  # type: ignore[union-attr]
    assert len(found.results[0].draws) > 2 * DRAWS and found.results[0].draws.sums is not None


def test_memory_is_given_back_as_rounds_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = list[None]()
    monkeypatch.setattr(scheduling, "TIDY", 2)
    monkeypatch.setattr(scheduling, "give_back", lambda: given.append(None))
    run(KEPT)
    assert len(given) == 2 * 4  # of eleven rounds of each of two hypotheses three are kept: after 4, 6, 8 and 10
    run(DRAWS)
    assert len(given) == 8


def test_of_the_worst_draws_few_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many rounds only those that may be among the worst of all, NaN being worst; and none of those is lost."""
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(300, WORST, generator=generator, dtype=torch.float64).sort(1, descending=True).values
    f[200, 0] = math.nan
    rounds = [Draws(worst=tuple(Extreme(float(x), {}) for x in row)) for row in f]
    bar = Bar()
    thin = [bar.thin(each).worst for each in rounds]
    assert sum(map(len, thin)) < 100

    def worst(several: Any) -> list[str]:
        held = sorted((w for each in several for w in each), key=lambda w: (w.loss == w.loss, -w.loss))
        return [f"{w.loss:.6f}" for w in held[:WORST]]

    assert worst(thin) == worst(each.worst for each in rounds)
    assert bar.thin(replace(rounds[0], worst=())).worst == ()
