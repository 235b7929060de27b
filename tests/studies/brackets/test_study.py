"""The nine bracket hypotheses: identity gates on a small random classifier, the published one's table, bad files."""

import gzip
import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pscrub import EXACT, Claim, Dataset, Hypothesis, PscrubError, scrub, unroll
from pscrub.evaluate.on_data import OnData
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.law.drawing import draw
from pscrub.studies import load
from pscrub.studies.brackets import study as brackets
from pscrub.studies.brackets.ladders import published_ladder, shipped_ladder
from pscrub.studies.brackets.model import BracketClassifier, is_balanced
from tests.false_alarm import Z

NAMES = ["0a", "0b", "1a", "1b", "2a", "2b", "3a", "3b", "4"]
LADDERS = {"published": published_ladder, "shipped": shipped_ladder}
each_ladder = pytest.mark.parametrize("ladder", LADDERS)
each_name = pytest.mark.parametrize("name", NAMES)


@cache
def data() -> Dataset:
    """About 300 strings of every kind, weighted."""
    plain = brackets.strings(None, 300, None, seed=5)
    return Dataset(plain.columns, weights=torch.arange(plain.n) % 3)


@cache
def model() -> BracketClassifier:
    return BracketClassifier(seed=3)


@cache
def hypotheses(ladder: str) -> dict[str, Hypothesis]:
    return {h.name.split()[0]: h for h in LADDERS[ladder](model(), data())}


@cache
def on_data(ladder: str) -> OnData:
    return OnData(hypotheses(ladder)["0a"].graph, data())


@cache
def e_model() -> float:
    """The classifier's own loss, without the package's graph."""
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model()(data()["tokens"]), data()["balanced"], reduction="none")
    return float((data().weights * loss).sum())


@each_ladder
def test_the_ladder_is_named_in_order(ladder: str) -> None:
    assert list(hypotheses(ladder)) == NAMES


def test_labels_are_what_strings_are() -> None:
    assert torch.equal(data()["balanced"].bool(), is_balanced(data()["tokens"]))
    assert 0.05 < float(data()["balanced"].double().mean()) < 0.95


@each_ladder
@each_name
def test_each_hypothesis_is_well_formed(ladder: str, name: str) -> None:
    hypotheses(ladder)[name].check(rewrites=False)


@each_ladder
def test_the_graph_is_the_classifier_however_rewritten(ladder: str) -> None:
    checks = hypotheses(ladder)["4"].check()
    copies = {"published": 1, "shipped": 9}[ladder]
    assert Counter(check.kind for check in checks) == {"replace": 1, "own copy": copies, "carve": 1, "estimate": 1}
    assert max(check.difference for check in checks) < 1e-5
    f = on_data(ladder).on_data("loss").double()
    assert float((data().weights * f).sum()) == pytest.approx(e_model(), rel=1e-6)


@each_ladder
@each_name
def test_the_root_datum_everywhere_is_the_model(ladder: str, name: str) -> None:
    tree = unroll(hypotheses(ladder)[name])
    f = run_scrubbed(
        tree, Activations(hypotheses(ladder)["0a"].graph, data()), dict.fromkeys(tree.sites, torch.arange(data().n))
    )
    assert float((data().weights * f).sum()) == pytest.approx(e_model(), rel=1e-5)


def all_exact(hypothesis: Hypothesis) -> Hypothesis:
    """The hypothesis with every claim exact, and the rest of each."""
    made: dict[str, Claim] = {}
    for claim in reversed(hypothesis.claims):
        reads = [made[read.at] for read in claim.reads]
        made[claim.at] = Claim(claim.at, EXACT, reads, paths=claim.paths, rest=EXACT)
    return Hypothesis(hypothesis.name, hypothesis.graph, hypothesis.data, made[hypothesis.claim.at])


@each_ladder
@each_name
def test_everything_exact_is_the_model(ladder: str, name: str) -> None:
    tree = unroll(all_exact(hypotheses(ladder)[name]))
    assert all(site.parent is not None for path, site in tree.sites.items() if path != tree.root)
    data_of_sites = draw(tree, 512, (0,))
    root = data_of_sites[tree.root]
    assert all(torch.equal(rows, root) for rows in data_of_sites.values())
    f = run_scrubbed(tree, Activations(hypotheses(ladder)["0a"].graph, data()), data_of_sites)
    torch.testing.assert_close(f, on_data(ladder).on_data("loss")[root].double(), rtol=1e-4, atol=1e-5)


@each_ladder
def test_the_driver_on_all_nine(ladder: str) -> None:
    results = scrub(list(hypotheses(ladder).values()), draws=1000, seed=2, exact=False).results
    found = dict(zip(NAMES, results, strict=True))
    for result in results:
        assert result.model.value == pytest.approx(e_model(), rel=1e-6)
        assert not any("non-finite" in warning for warning in result.warnings)
    assert found["0a"].scrubbed.exact and found["0a"].scrubbed.value == pytest.approx(e_model(), rel=1e-6)
    # Logits unimportant, with the label kept: the randomised loss.
    trivial = found["0b"]
    assert trivial.randomised.exact
    assert abs(trivial.scrubbed.value - trivial.randomised.value) <= Z * trivial.scrubbed.se
    (exact,) = scrub(hypotheses(ladder)["0b"], draws=1000).results  # which its law says, to rounding in float32
    assert exact.scrubbed.exact and exact.scrubbed.value == pytest.approx(trivial.randomised.value, rel=1e-6)


def test_the_published_trees() -> None:
    """Leaves are the heads, then their inputs, the judge's 42 positions and the mask."""
    sites = {name: set(unroll(h).sites) for name, h in hypotheses("published").items()}
    heads = "loss/logits"
    assert sites["0a"] == {"loss"} and sites["0b"] == {"loss", "loss/~", "loss/balanced"}
    ends = ("", "/~", "/a1.h0@0", "/a2.h0@0", "/a2.h1@0")
    assert sites["1a"] == sites["1b"] == {"loss", "loss/balanced"} | {heads + end for end in ends}
    positions = {f"{heads}/a2.h1@0/a2.h1.in@{i}" for i in range(42)}
    assert {site for site in sites["3a"] - sites["1b"] if "~" not in site} == positions | {f"{heads}/a2.h1@0/mask"}
    assert sites["3a"] == sites["3b"] and sites["4"] == sites["2b"] | sites["3b"]
    assert {site for site in sites["2b"] - sites["2a"] if "~" not in site} == {
        f"{heads}/a{k}.h0@0/r{k}@1/a0.h0@1/estimate_of(a0.h0@1)" for k in (1, 2)
    }


def test_what_the_counters_read_at_position_1_they_read_by_any_path() -> None:
    """As the published claim has it: E_scrubbed of 2a is 0.58 on the published weights, and 0.72 of the edges alone."""
    for name in ("2a", "2b", "4"):
        sites = unroll(hypotheses("published")[name]).sites.values()
        reading = [site.claim for site in sites if site.claim is not None and site.claim.at in ("r1@1", "r2@1")]
        assert len(reading) == 2 and all(claim.paths == "any" for claim in reading), name


def test_the_published_table(shared: Path) -> None:
    folder = shared / "data" / "brackets"
    study = brackets.study(folder / "model.safetensors", folder / "sequences.jsonl.gz", balanced=0.263, rows=3000)
    assert float(study.hypotheses[0].data["balanced"].double().mean()) == pytest.approx(0.263, abs=0.001)
    results = {result.hypothesis.split()[0]: result for result in scrub(study, draws=512).results}
    assert results["0a"].model.value < 0.01
    assert results["0a"].randomised.value == pytest.approx(4.30, abs=0.1)
    ranges = {"0b": (-15, 15), "1a": (80, 95), "1b": (88, 98), "2a": (78, 95), "2b": (76, 95)}
    ranges |= {"3a": (64, 84), "3b": (66, 88), "4": (52, 74), "0a": (99.999, 100.001)}
    for name, (low, high) in ranges.items():
        recovered = results[name].recovered
        assert recovered is not None and low < recovered.value < high, name


# Files and parameters


def parameters(tmp_path: Path, lines: list[str], **more: str) -> dict[str, str]:
    path = tmp_path / "strings.jsonl"
    path.write_text("\n".join(lines))
    return {"data": str(path)} | more


GOOD = [json.dumps([text, is_it]) for text, is_it in (("()", True), ("((", False), (")(", False), ("(())", True))]


def test_a_file_of_strings(tmp_path: Path) -> None:
    path = tmp_path / "strings.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write("\n".join(GOOD * 10))
    found = brackets.strings(path, rows=30, balanced=0.25, seed=0)
    # Of 15 balanced ones in 30 lines the first 5 are kept: a quarter of what is left.
    assert Counter(found["text"].tolist()) == {"((": 8, ")(": 7, "()": 3, "(())": 2}
    assert found["balanced"].tolist() == [int(text in ("()", "(())")) for text in found["text"]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['["()", true]', "not json"], "line 2: expected"),
        (['["()"]'], "line 1: expected"),
        (['"()"'], "line 1: expected"),
        (["[1, true]"], "line 1: expected"),
        (["7"], "line 1: expected"),
        (['["(a", true]'], "row 0: '(a'"),
        ([json.dumps(["(" * 41, False])], "at most 40 characters"),
        (['["()", 1]'], "line 1: expected"),
        ([], "empty"),
    ],
)
def test_lines_that_are_no_strings(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(PscrubError) as caught:
        load("brackets", parameters(tmp_path, lines))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rows": "0"}, "rows is 0; expected at least 1"),
        ({"rows": "many"}, "rows='many'.*expected int"),
        ({"balanced": "0.9"}, "balanced=0.9: only 0.500 of the strings are balanced"),
        ({"balanced": "1.5"}, "balanced is 1.5; expected a share between 0 and 1"),
        ({"balance": "0.5"}, "no parameter 'balance'; did you mean \"balanced\""),
        ({"data": "nowhere.jsonl.gz"}, "data file 'nowhere.jsonl.gz' does not exist"),
        ({"weights": "nowhere.safetensors"}, "no weights at nowhere.safetensors"),
    ],
)
def test_parameters_that_make_no_sense(tmp_path: Path, more: dict[str, str], message: str) -> None:
    with pytest.raises(PscrubError, match=message):
        load("brackets", parameters(tmp_path, GOOD) | more)


def test_a_file_that_only_looks_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "strings.jsonl.gz"
    path.write_text("\n".join(GOOD))
    with pytest.raises(PscrubError, match=r"strings\.jsonl\.gz.*[Gg]zip"):
        load("brackets", {"data": str(path)})


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(PscrubError, match=r"other\.safetensors holds no bracket classifier.*unexpected layer\.weight"):
        load("brackets", {"weights": str(path)})
