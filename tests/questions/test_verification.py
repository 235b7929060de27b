"""`pscrub verify`: what it certifies, what it says it did not check, and what it faults."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pscrub import HypothesisError, Study, unroll
from pscrub.cli import main
from pscrub.data.blocks import BlockTable
from pscrub.law.entropy import entropy_budget
from pscrub.law.exact import datum_laws, lemma_1
from pscrub.questions import verification as module
from pscrub.questions.verification import Verification, verify, verify_hypothesis
from tests.routes.build_case import build
from tests.routes.oracle import entropy, leaf_law
from tests.routes.random_cases import MODES, cases
from theory.calibration import WRONG, half_consistent, ladder, settings

STUDY = '''
import torch
from pscrub import Claim, Dataset, Graph, Hypothesis, Study

def study(values: int = 2):
    """A study."""
    data = Dataset({"x": torch.arange(6), "y": torch.tensor([0, 1, 0, 2, 1, 0])}, weights=[1, 2, 3, 1, 0, 2])
    graph = Graph.of({"s": lambda x: x % 2, "f": lambda s, y: 1.0 * s * y}, inputs=["x", "y"], output="f")
    parity = Claim("s", data["x"] % values)
    return Study("small", [Hypothesis("parity", graph, data, Claim("f", reads=[parity])),
                           Hypothesis("exact", graph, data, Claim("f", "exact"))])
'''


def study_of(*hypotheses: Any) -> Study:
    return Study("study", hypotheses)


@pytest.mark.parametrize("mode", MODES)
def test_small_laws_are_certified_whole(mode: str) -> None:
    for case in cases(mode)[:12]:
        found = verify_hypothesis(build(case))
        assert found.lemma_error <= 1e-12
        assert found.certificate is not None and found.certificate.holds(1e-10)
        assert found.budget.scrubbed * math.log(2) == pytest.approx(entropy(leaf_law(case)), abs=1e-12)
        assert found.certificate.entropy == pytest.approx(entropy(leaf_law(case)), abs=1e-9)
        assert found.draws == 0 and not found.p_values


def test_large_laws_are_drawn_from_and_it_says_so() -> None:
    result = verify(study_of(ladder(300, 2, 8)), draws=3000)
    (found,) = result.hypotheses
    assert found.certificate is None and found.draws == 3000
    assert set(found.p_values) == {"inputs", "independence", "entropy"}
    assert result.failures == ()
    said = "\n".join(found.below)
    assert "not checked: Theorem 2's certificate: 300 rows" in said and "cannot prove anything" in said
    assert "Miller-Madow's estimate is too low" in said


def test_no_draws_if_none_are_wanted() -> None:
    (found,) = verify(study_of(ladder(300, 2, 8)), draws=0).hypotheses
    assert found.certificate is None and found.draws == 0
    assert "none were made" in "\n".join(found.unchecked)


@pytest.mark.parametrize("law", WRONG)
def test_wrong_draws_are_faulted(law: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(tree: Any, draws: int, seed: tuple[int, ...], stratified: bool) -> Any:
        return law(tree, draws, seed)

    monkeypatch.setattr(module, "draw", wrong)
    result = verify(study_of(settings()[1].tree.hypothesis), draws=4000)
    assert result.hypotheses[0].certificate is None
    assert result.failures
    if law is half_consistent:  # it meets Lemma 1: only the dependence gives it away
        assert all("independence" in failure for failure in result.failures)


def test_a_wrong_table_of_draws_breaks_lemma_1_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lemma 1 is computed from the tables that draws are made from, not from what they should be."""
    right = BlockTable.of.__func__  # type: ignore[attr-defined]

    def shifted(cls: Any, labels: torch.Tensor, weights: torch.Tensor) -> BlockTable:
        table = right(cls, labels, weights)
        if not labels.any():
            return table
        return BlockTable(table.rows.roll(1), table.spans, table.keep, table.alias)

    monkeypatch.setattr(BlockTable, "of", classmethod(shifted))
    result = verify(study_of(ladder(40, 2, 4)), draws=0)
    assert any("Lemma 1 is off by" in failure and "rung2/" in failure for failure in result.failures)


def test_a_law_that_is_not_of_maximum_entropy_is_faulted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the scrubbing law, half the f-consistent one, in every small case where they differ."""
    right, shown, caught = module.log_prob, 0, 0

    def mixed(tree: Any, rows: Tensor) -> Tensor:
        same = (rows == rows[:, :1]).all(1)
        return (
            right(tree, rows).exp() / 2 + torch.where(same, tree.hypothesis.data.weights[rows[:, 0]], 0.0) / 2
        ).log()

    for case in (case for mode in MODES for case in cases(mode)[:12]):
        tree = unroll(build(case))
        table = leaf_law(case)
        differs = any(len(set(x)) > 1 for x in table)
        monkeypatch.setattr(module, "log_prob", mixed)
        result = verify(study_of(build(case)))
        monkeypatch.setattr(module, "log_prob", right)
        assert len(tree.leaves) > 1
        shown, caught = shown + differs, caught + (differs and "maximum entropy" in "".join(result.failures))
    print(f"{caught} of {shown}")
    assert shown >= 20 and caught == shown


def test_ill_formed_hypotheses_are_refused() -> None:
    h = ladder(12, 1, 4)
    h.claim.reads[0].__dict__["feature"] = torch.arange(11)
    with pytest.raises(HypothesisError, match="11"):
        verify(study_of(h))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.py"
    file.write_text(STUDY)
    assert main(["verify", str(file)]) == 0
    said = capsys.readouterr().out
    for words in ("bits in", "kept", "lost", "f/s", "Theorem 2, certified", "Lemma 1, exactly", "not checked: draws"):
        assert words in said
    assert main(["verify", str(file), "--json", "--draws", "100", "--seed", "3"]) == 0
    document = json.loads(capsys.readouterr().out)
    parity = document["hypotheses"][0]
    assert parity["hypothesis"] == "parity" and document["failures"] == [] and document["seed"] == 3
    nodes = {node["path"]: node for node in parity["entropy_bits"]["nodes"]}
    assert nodes["f/s"]["lost"] == pytest.approx(nodes["f/s"]["inputs"] - nodes["f/s"]["kept"])
    assert parity["lemma_1"]["largest_error"] < 1e-12 and parity["theorem_2"]["residual"] < 1e-10
    assert main(["verify", str(file), "--draws", "-1"]) == 2
    assert main(["verify", str(file), "-P", "valuse=3"]) == 2
    assert 'did you mean "values"' in capsys.readouterr().err


def test_failures_have_an_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXACT", -1.0)
    file = tmp_path / "small.py"
    file.write_text(STUDY)
    assert main(["verify", str(file)]) == 1
    assert "Lemma 1 is off by" in capsys.readouterr().err


def test_many_leaves_of_one_reader_are_one_line() -> None:
    tree = unroll(ladder(20, 2, 4))
    budget = entropy_budget(tree, bits=True)
    rows = tuple(type(budget.rows[0])(f"f/position {k}", 3.0, 1.0) for k in range(12))
    many = Verification(
        "many", 20, 12, tuple(type(lemma_1(tree)[0])(row.path, 0.0, 0.0, 8) for row in rows),
        type(budget)(rows, 1.0, 25.0, 30.0, 3.0, "bits"), None, (), (), None, 0, (), 0.1,
    )  # fmt: skip
    ((name, _, *figures),) = many.table().rows
    assert name == "f/* (12 leaves)" and figures == ["36.000", "12.000", "24.000"]


def test_a_message_keeps_its_mass() -> None:
    tree = settings()[2].tree
    assert all(float(law.sum()) == pytest.approx(1, abs=1e-12) for law in datum_laws(tree).values())
