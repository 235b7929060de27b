"""Sentences do not steer: reword every one, and every number, every kind and every saved result stays as it was."""

import importlib
import json
import pkgutil
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
import torch

import pscrub
from pscrub import Claim, Dataset, Graph, Hypothesis, Study, StudyResult, merge, scrub
from pscrub.outcomes import Outcome, Said
from pscrub.questions import adversary, claim_costs, compare, draw_losses, sharing_table, verify
from pscrub.report import html
from pscrub.report.document import document, dumps

OLDER = Path(__file__).parent / "result" / "older"
"""Results saved before sentences had kinds, and what merging the two gave then."""


def every_outcome() -> list[Outcome]:
    for module in pkgutil.walk_packages(pscrub.__path__, "pscrub."):
        importlib.import_module(module.name)
    found, classes = [], list(Outcome.__subclasses__())
    while classes:
        each = classes.pop()
        found += [member for member in each if each.__module__.startswith("pscrub.")]
        classes += each.__subclasses__()
    return found


def reworded(text: str) -> str:
    """The message with other words and the same figures, beginning and ending otherwise."""
    parts = ["«"]
    for words, field, form, conversion in Formatter().parse(text):
        parts.append(words[::-1].upper().replace("{", "{{").replace("}", "}}"))
        if field is not None:
            parts.append("{" + field + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "") + "}")
    return "".join([*parts, "»"])


@pytest.fixture
def other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for member in every_outcome():
        monkeypatch.setattr(member, "text", reworded(member.text))


def study() -> Study:
    """Hypotheses that every kind of warning and of interval has something to say about."""
    x = torch.arange(240)
    rare = 1.0 * (x % 40 == 0)
    columns = {"x": x, "y": (x % 4) * 0.5, "half": x // 120, "late": x >= 120, "label": rare}
    data = Dataset(columns)
    graph = Graph.of(
        {
            "s": lambda x: x % 4,
            "t": lambda x: x // 120,
            "r": lambda x: 1.0 * (x % 40 == 0),
            "f": lambda s, t, r, y: (s * 0.5 - y + t + r) ** 2,
        },
        ["x", "y"],
        "f",
    )
    y = Claim("y", lambda d: d["x"] % 2, words="parity of y")
    claims = {
        "empty": [y, Claim("s", lambda d: d["x"] * 0, words="nothing")],
        "twice": [y, Claim("s", "half"), Claim("t", "late")],
        "alone": [y, Claim("s", lambda d: torch.minimum(d["x"], torch.tensor(120)), words="single")],
        "few": [y, Claim("s", lambda d: torch.where(d["x"] < 80, d["x"] // 2, d["x"]), words="twos")],
        "vacuous": [Claim("y", "x"), Claim("s", "x")],
        "exact": [Claim(name, "exact") for name in ("s", "t", "r", "y")],
    }
    hypotheses = [Hypothesis(name, graph, data, Claim("f", reads=reads)) for name, reads in claims.items()]
    return Study("words", hypotheses, by=["half"])


def binary() -> Study:
    data = Dataset({"x": torch.arange(400), "label": 1.0 * (torch.arange(400) % 100 == 0)})
    graph = Graph.of(
        {"z": lambda x: 1.0 * (x % 100 == 0), "f": lambda z, label: (z - label).abs()}, ["x", "label"], "f"
    )
    claim = Claim("f", reads=[Claim("label", "exact"), Claim("z", lambda d: d["x"] % 7)])
    return Study("binary", [Hypothesis("sevenths", graph, data, claim)])


def numbers(value: Any) -> Any:
    """A document without its sentences."""
    if isinstance(value, dict):
        return {key: numbers(each) for key, each in value.items() if key not in SENTENCES}
    return [numbers(each) for each in value] if isinstance(value, list) else value


SENTENCES = {"method", "randomised_method", "warnings", "seconds", "provenance", "not_checked"}


def kinds(result: StudyResult) -> list[list[str]]:
    return [
        [Said.of(said).kind for said in (*each.warnings, each.scrubbed.method, each.randomised.method)]
        for each in result.results
    ]


def everything() -> dict[str, Any]:
    """Numbers, kinds and shapes of what a user may see."""
    runs = {
        "draws": scrub(study(), draws=120, data_uncertainty=True),
        "width": scrub(study().hypotheses[:2], until_width=40.0),
        "undefined": scrub(study().hypotheses[0], until_width=5.0, randomised=0.1 * 0),
        "given": scrub(study().hypotheses[1], draws=60, randomised=4.0),
    }
    for interval in ("auto", "t", "betting", "bernstein", "sequence"):
        runs[interval] = scrub(binary(), draws=600, interval=interval, bounds=(0.0, 1.0))
    more = scrub(study(), draws=120, seed=1, data_uncertainty=True)
    runs["merged"] = merge(runs["draws"], more)
    runs["gone on"] = scrub(binary(), until_width=8.0, after=scrub(binary(), draws=200, interval="t"), interval="t")
    found: dict[str, Any] = {}
    for name, result in runs.items():
        found[name] = numbers(json.loads(dumps(document(result))))
        found[f"kinds of {name}"] = kinds(result)
        if name in ("merged", "betting"):  # pictures take a second each
            page = html.page(result)
            found[f"page of {name}"] = page.count("<p"), page.count("<tr"), page.count("data-value"), page.count("<h2")
    h = study().hypotheses[1]
    found["verify"] = numbers(json.loads(dumps(document(verify(study(), draws=300)))))
    found["costs"] = numbers([cost.as_row() for cost in claim_costs(h, draws=200)])
    losses = draw_losses(study(), draws=200)
    found["compare"] = compare(losses, "empty", "twice").difference.low
    attacked = adversary(h, {"x": "x", "half": "half"}, from_data=False, draws=128, steps=1)
    found["adversary"] = attacked.confirmed.value, attacked.moved, attacked.population.finding
    shared = sharing_table(study().hypotheses[0], draws=256, large=0.0)
    found["sharing"] = [row.scrubbed.value for row in shared.rows], len(shared.warnings)
    return found


PLAIN: dict[str, Any] = {}


def plain() -> dict[str, Any]:
    if not PLAIN:
        PLAIN.update(everything())
    return PLAIN


def test_other_words_give_the_same_numbers_kinds_and_pages(request: pytest.FixtureRequest) -> None:
    before = plain()
    request.getfixturevalue("other_words")
    after = everything()
    assert list(before) == list(after)
    for name in before:
        assert after[name] == before[name], name


def test_the_study_has_something_to_say_of_every_kind() -> None:
    """Else the test above would show nothing of it."""
    seen = {kind for name, each in plain().items() if name.startswith("kinds of ") for some in each for kind in some}
    of_tree = {"empty claim", "same partition", "singleton blocks"}
    of_draws = {"vacuous claim", "few donors", "rare values", "data uncertainty not resolved"}
    wanted = {*of_tree, *of_draws, "t", "betting", "bernstein", "given", "all pairs", "nothing swapped"}
    assert wanted <= seen, wanted - seen


def test_codes_are_unique_and_messages_fill_in() -> None:
    codes = [member.value for member in every_outcome()]
    assert len(codes) == len(set(codes)) > 40


@pytest.mark.parametrize("words", [False, True])
def test_results_saved_before_load_and_merge_to_what_they_merged_to(
    words: bool, request: pytest.FixtureRequest
) -> None:
    if words:
        request.getfixturevalue("other_words")
    first, second = (StudyResult.load(OLDER / f"seed_{seed}.nc") for seed in (0, 1))
    kept = [{"empty claim"}, {"too few draws", "same partition"}, {"singleton blocks"}, set()]
    for each, some in zip(first.results, kept, strict=True):
        found = {Said.of(said).kind for said in each.warnings}
        assert some <= found and "" not in found
    assert {each.randomised.kind for each in first.results} == {"given"}
    assert [each.scrubbed.interval for each in first.results] == ["t", "t", "t", "nothing swapped"]
    rows = json.loads(dumps(document(merge(first, second))))["rows"]
    expected = json.loads((OLDER / "merged.json").read_text())
    # What they say of D as a sample is of D's plug-in values, of which the population's cannot be made: it is left out.
    for row in (*rows, *expected):
        for name in [name for name in row if name.endswith(("_data_low", "_data_high"))]:
            del row[name]
        row["warnings"] = [said for said in row["warnings"] if not said.casefold().startswith("data uncertainty")]
    if not words:
        assert [{k: v for k, v in row.items() if k != "seconds"} for row in rows] == expected
    assert [numbers(row) for row in rows] == [numbers(row) for row in expected]
    assert [len(row["warnings"]) for row in rows] == [len(row["warnings"]) for row in expected]


def test_kinds_are_saved(tmp_path: Path) -> None:
    result = scrub(study(), draws=60)
    again = StudyResult.load(result.save(tmp_path / "result.nc"))
    assert again == result and kinds(again) == kinds(result)
    briefs = [Said.of(each.scrubbed.method).brief for each in result.results]
    assert [Said.of(each.scrubbed.method).brief for each in again.results] == briefs
    assert any(brief != each.scrubbed.method for brief, each in zip(briefs, result.results, strict=True))
