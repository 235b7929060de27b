"""The report: every figure in its tables is that of the JSON, and it is one file that needs nothing else."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Study, StudyResult, scrub
from pscrub.cli import main
from pscrub.questions.claims import claim_costs
from pscrub.report import document as report
from pscrub.report import html


def study(**options: Any) -> Study:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 3, generator=generator, dtype=torch.float64)
    words = [f"<row {i}> & more" for i in range(100)]
    data = Dataset({"x": x, "y": x.sum(1) + 0.1, "sign": x[:, 0] > 0, "words": words, "kind": x[:, 1].round()})
    graph = Graph.of(
        {"a": lambda x: x[:, 0], "b": lambda x: x[:, 1:].sum(1), "out": lambda a, b: a + b}
        | {"f": lambda out, y: (out - y) ** 2},
        ["x", "y"],
        "f",
    )
    y, out = Claim("y", "y"), Claim("out", reads=[Claim("a", "sign"), Claim("b", "kind")])
    claims = {"<b>both</b>": Claim("f", reads=[y, out]), "nothing": Claim("f", reads=[y])}
    hypotheses = [Hypothesis(name, graph, data, claim) for name, claim in claims.items()]
    return Study("made up", hypotheses, notes=["a <note>"], **{"by": ["sign", "kind"], **options})


@pytest.fixture(scope="module")
def result() -> StudyResult:
    made = scrub(study(), draws=2000, seed=2)
    costs = claim_costs(study().hypotheses[0], draws=600)
    first = replace(made.results[0], claims=tuple(cost.as_row() for cost in costs))
    return replace(made, results=(first, *made.results[1:]))


class Page(HTMLParser):
    """The tables of a page: name -> lines of (kind, text, value)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[tuple[str, list[list[tuple[str, str, Any]]]]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.cell: tuple[str, Any] | None = None
        self.text, self.words = "", ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        self.links += [given[name] or "" for name in ("src", "href", "xlink:href") if name in given]
        if tag == "table":
            self.tables.append((given.get("data-name") or "", []))
        elif tag == "tr" and self.tables:
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.cell, self.text = (tag, json.loads(given.get("data-value") or "null")), ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [given[name] or "" for name in ("src", "href", "xlink:href") if name in given]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag  # well formed
        if tag in ("td", "th") and self.cell is not None:
            self.tables[-1][1][-1].append((self.cell[0], self.text, self.cell[1]))
            self.cell = None

    def handle_data(self, data: str) -> None:
        self.text += data
        self.words += data

    def lines(self, name: str) -> list[list[tuple[str, str, Any]]]:
        """The body lines of all tables of that name."""
        return [line for found, lines in self.tables if found == name for line in lines if line[-1][0] == "td"]


def shows(text: str, value: Any) -> None:
    """That a cell's text is its value, rounded as it is shown."""
    values = value if isinstance(value, list) else [value]
    shown = [float(t.replace(",", "")) for t in re.findall(r"-?\d[\d,]*\.?\d*(?:e[-+]?\d+)?", text)]
    scale = 100 if "%" in text else 1
    assert len(shown) in (len(values), 1)
    for given, expected in zip(shown, values, strict=False):
        digits = len(text.split(".")[1]) if "." in text else 0
        assert given == pytest.approx(scale * expected, rel=0.06, abs=0.51 * 10.0 ** -min(digits, 2)), text


def test_every_figure_of_the_tables_is_that_of_the_json(result: StudyResult) -> None:
    document = json.loads(report.dumps(report.document(result)))
    page = Page(html.page(result))
    for line, row in zip(page.lines("headline"), document["rows"], strict=True):
        name, model, randomised, scrubbed, recovered, interval, draws = line
        assert name[1] == row["hypothesis"]
        assert [c[2] for c in (model, randomised, scrubbed, recovered, interval, draws)] == [
            row["model"],
            row["randomised"],
            row["scrubbed"],
            row["recovered"],
            [row["low"], row["high"]],
            row["draws"],
        ]
        for _, text, value in line[1:]:
            shows(text, value)
    for column in ("sign", "kind"):
        groups = [g for row in document["details"] for g in row["groups"] if g["column"] == column]
        for line, group in zip(page.lines(f"by {column}"), groups, strict=True):
            _, value, share, draws, model, scrubbed, distance = line
            assert value[1] == group["value"]
            assert [share[2], draws[2], model[2]] == [group["share"], group["draws"], group["model"]]
            assert scrubbed[2] == [group["scrubbed"], group["scrubbed ±"]]
            assert distance[2] == [group["squared error"], group["squared error ±"]]
            for _, text, figure in (share, draws, model):
                shows(text, figure)
    nodes = [node for row in document["details"] for node in row["nodes"]]
    for line, node in zip(page.lines("nodes"), nodes, strict=True):
        values = [c[2] for c in line[3:]]
        assert line[0][1] == node["path"] and values[1] == [node["smallest"], node["largest"]]
        assert [values[i] for i in (0, 2, 3, 4)] == [node[k] for k in ("blocks", "donors", "own", "effective")]
        for _, text, figure in line[3:]:
            shows(text, figure)
    claims = [claim for row in document["details"] for claim in row["claims"]]
    for line, claim in zip(page.lines("claims"), claims, strict=True):
        for (_, text, figure), name in zip(line[2:], ("alone", "without", "gain"), strict=True):
            assert figure == [claim[name], claim[f"{name}_low"], claim[f"{name}_high"]]
            shows(text, figure)
    worst = [w for row in document["details"] for w in row["worst"][: html.WORST]]
    shown = [datum for w in worst for datum in w["data"].items()]
    for line, (path, datum) in zip(page.lines("worst"), shown, strict=True):
        assert line[0][1] == path and line[1][2] == datum["row"]
        assert datum["words"] in [text for _, text, _ in line]
    assert claims and nodes and worst


def test_one_file_that_needs_nothing_else(result: StudyResult) -> None:
    text = html.page(result)
    page = Page(text)
    assert page.open == [] and "script" not in page.tags
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not re.search(r"url\((?!#)|@import", text)
    assert page.tags.count("figure") == 5 and len(text) < 1_000_000
    ids = re.findall(r'<(?:clipPath|path|linearGradient) id="([^"]+)"', text)
    definitions = [i for i in ids if f"#{i}" in text]
    assert len(set(definitions)) == len(definitions)  # no figure draws with another's shapes


def test_names_and_texts_are_shown_as_they_are(result: StudyResult) -> None:
    text = html.page(result)
    assert "<b>both</b>" not in text and "&lt;b&gt;both&lt;/b&gt;" in text
    words = Page(text).words
    for each in ("<b>both</b>", "a <note>", "<row ", "made up"):
        assert each in words


def test_warnings_come_first_and_provenance_last(result: StudyResult) -> None:
    warned = replace(result, results=(replace(result.results[0], warnings=("mind the <gap>",)), *result.results[1:]))
    text = html.page(replace(warned, cut_short=True))
    places = [
        text.index(each) for each in ("cut short", "mind the &lt;gap&gt;", "Loss recovered</h2>", "Provenance</h2>")
    ]
    assert places == sorted(places)
    words = Page(text).words
    for each in (result.reference.data_hash, result.results[0].law_hash, "torch 2", "seed 2: 1 rounds, 2,000 draws"):
        assert each in words
    assert "No warnings." in html.page(replace(result, results=tuple(replace(r, warnings=()) for r in result.results)))


def test_what_was_not_asked_for_is_said_to_be_missing() -> None:
    words = Page(html.page(scrub(study(by=()), draws=100))).words
    assert "--claims" in words and "--by COLUMN" in words


def test_results_of_any_kind_make_a_page(result: StudyResult) -> None:
    exact = study().hypotheses[0]
    exact = Hypothesis("exact", exact.graph, exact.data, Claim("f", reads=[Claim("y", "exact"), Claim("out", "exact")]))
    for each in (scrub(exact), scrub(study(), draws=2), replace(result, results=())):
        assert Page(html.page(each)).open == []


def test_the_command_makes_the_same_page_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "own.py", tmp_path / "out"
    folder = str(Path(__file__).parent)
    file.write_text(f"import sys\nsys.path.insert(0, {folder!r})\nfrom test_document import study\n")
    options = ["--draws", "200", "--out", str(out), "--claims", "100"]
    assert main(["run", str(file), *options]) == 0
    derived = {"report.html", "result.json", "result.nc", "table.md"}
    assert {path.name for path in out.iterdir()} == derived | {"manifest.json", "rounds", "study.nc"}
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    capsys.readouterr()
    assert main(["report", str(out)]) == 0
    assert capsys.readouterr().out == f"{out / 'report.html'}\n" and (out / "report.html").read_bytes() == page
    document = json.loads((out / "result.json").read_text())
    assert document["details"][0]["claims"] and document == json.loads(
        report.dumps(report.document(StudyResult.load(out)))
    )
    # More draws, in a folder of their own.
    more = tmp_path / "more"
    assert main(["run", str(file), "--draws", "300", "--after", str(out), "--out", str(more), "--json"]) == 0
    assert [row["draws"] for row in json.loads(capsys.readouterr().out)["rows"]] == [500, 500]


def test_a_folder_without_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "no saved result at" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err
