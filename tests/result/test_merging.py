"""Results are merged only if they are about the same labels, and old ones that do not say."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, Study, StudyError, StudyResult, merge, scrub

X = torch.arange(8).double()
DATA = Dataset({"x": X, "y": X % 3, "z": X % 2})
GRAPH = Graph.of(
    {"out": lambda x: x / 2, "f": lambda out, y, z: (out - y - z) ** 2}, inputs=["x", "y", "z"], output="f"
)
HYPOTHESIS = Hypothesis("h", GRAPH, DATA, Claim("f", reads=[Claim("out", "x"), Claim("y", "y")]))


def run(seed: int, *labels: str) -> StudyResult:
    return scrub(Study("s", [HYPOTHESIS], labels=labels), draws=20, seed=seed)


def test_a_result_says_its_labels_wherever_it_goes(tmp_path: Path) -> None:
    found = run(0, "y", "z")
    assert found.labels == ("y", "z") and "labels: y, z" in repr(found)
    assert StudyResult.load(found.save(tmp_path / "r.nc")) == found
    assert merge(found, run(1, "z", "y")).labels == ("y", "z")


def test_different_labels_do_not_mix() -> None:
    one, other = run(0, "y"), run(1, "z")
    with pytest.raises(StudyError, match="the labels are y in one result and z in the other"):
        merge(one, other)
    with pytest.raises(StudyError, match="the labels are y in one result and z in the other"):
        scrub(Study("s", [HYPOTHESIS], labels="z"), draws=20, seed=1, after=one)


def test_an_older_result_does_not_say_and_takes_those_of_the_other() -> None:
    older = replace(run(0, "y"), labels=())
    assert older.labelled == "" and "label" not in repr(older).partition("\n")[0]
    assert merge(older, run(1, "y")).labels == merge(run(1, "y"), older).labels == ("y",)
