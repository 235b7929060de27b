"""The benchmarks run: what they measure is measured by `make bench`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import pytest

from pscrub.result.taking import Sharing
from pscrub.studies import load
from pscrub.sweeps import driving
from tests.benchmarks import compiled, draws, planning, scheduler
from tests.benchmarks.__main__ import main
from tests.benchmarks.timing import alternate


def test_the_table_of_draws_has_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draws", "--quick"]) == 0
    out = capsys.readouterr().out
    tables = [part.splitlines() for part in out.split("\n\n") if part.startswith("| ")]
    by_blocks, ratios, by_sites = ([line.split(" | ") for line in table[2:]] for table in tables)
    assert [[cell.strip("| ") for cell in row[:2]] for row in by_blocks] == [
        *(["1,000", blocks] for blocks in ("2", "10", "500")),
        *(["4,000", blocks] for blocks in ("2", "10", "1,000", "2,000")),
    ]
    assert all(float(cell.strip("| ").replace(",", "")) > 0 for row in by_blocks for cell in row[2:])
    assert [row[0] for row in ratios] == ["| 1,000", "| 4,000"]
    assert [row[0] for row in by_sites] == [f"| {sites}" for sites in draws.SITES]


def test_functions_are_timed_in_turn() -> None:
    order: list[str] = []
    times = alternate({name: lambda name=name: order.append(name) for name in "ab"}, 2)
    assert order == ["a", "b", "a", "b", "b", "a"] and set(times) == {"a", "b"}


def test_what_is_computed_for_draws_is_compiled_to_the_same_numbers() -> None:
    study = load("induction", {"rows": "40"})
    tables = [part for part in compiled.report(study.hypotheses[1:2], 32, "cpu", 1, "eager") if part.startswith("|")]
    ((*_, apart),) = [line.strip("| ").split(" | ") for line in tables[0].splitlines()[2:]]
    assert float(apart) < 1e-4


def test_simulated_workers_make_each_round_once_at_a_cost_that_is_in_proportion() -> None:
    few, many = (scheduler.simulate(points * scheduler.ROUNDS, 4) for points in (8, 32))
    for name in ("work", "calls"):
        assert many[name] < 1.5 * 4 * few[name]
    assert many["calls"] < 15 * 32 * scheduler.ROUNDS


def test_workers_who_find_no_room_wait_until_all_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "CROWD", 2)
    waited, real = list[float](), scheduler.Turns.sleep

    def sleep(self: scheduler.Turns, seconds: float) -> None:
        waited.append(seconds)
        real(self, seconds)

    monkeypatch.setattr(scheduler.Turns, "sleep", sleep)
    scheduler.simulate(2 * scheduler.ROUNDS, 12)
    assert driving.LONG in waited  # the longest that anyone waits between looks


def test_work_that_grows_faster_than_rounds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does if every piece is asked about whenever one is taken."""

    def claim(self: Sharing, name: str, real: Callable[..., bool | None] = Sharing._claim) -> bool | None:
        for each in self.listing.folder.glob("*"):
            os.stat(each)
        return real(self, name)

    monkeypatch.setattr(Sharing, "_claim", claim)
    monkeypatch.setattr(scheduler, "ROUNDS", 10)
    few, many = (scheduler.simulate(points * 10, 4) for points in (50, 400))
    assert many["calls"] > 1.5 * 8 * few["calls"]


def test_the_plan_follows_from_units_and_assumptions() -> None:
    units = planning.Units(1e5, 0.01, 0.001, 1e4, 4.0, 0.1, 2e3, 50.0, 0.05, 1e-4, 1.0, (0.1, 0.2, 0.5))
    given = ["--hypotheses", "1000", "--gpus", "10", "--draws", "16384", "--flops", "1e14", "--used", "0.5"]
    arguments = planning.add_options(argparse.ArgumentParser()).parse_args(given)
    lines = {name: cells for name, *cells in planning.plan(arguments, units, 0.5)}
    assert lines["rounds"] == ["1,000"] * 4 and lines["run folders"] == ["1,000", "100", "10", "1"]
    draws = 1000 * 16384 * 0.5 * 2 * 7e9 * 32 / 5e13 / 10 / 3600
    assert float(lines["draws, hours"][0]) == pytest.approx(draws, rel=0.01)
    assert float(lines["f on D, hours"][1]) == pytest.approx(100 * 10_000 * 2 * 7e9 * 32 / 5e13 / 10 / 3600, rel=0.01)
    assert lines["rounds, GB"] == ["0.1"] * 4 and lines["moved to GPUs, GB"] == ["140"] * 4
    assert lines["files"] == ["5,000", "2,300", "2,030", "2,003"]
    told = planning.assumed(arguments, 0.5)
    assert ["flop/s of a GPU", "1e+14"] in [line[:2] for line in told]
