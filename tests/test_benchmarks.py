"""The benchmarks run: what they measure is measured by `make bench`."""

import pytest

from pscrub.studies import load
from tests.benchmarks import compiled, draws
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
