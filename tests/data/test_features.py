"""Features in every form are read alike, whoever gives them; faults are in the words of who asked."""

from typing import Any

import numpy as np
import pytest
import torch

from pscrub import Claim, Dataset, DatasetError, Graph, Hypothesis, HypothesisError, Partition
from pscrub.data import read_feature, read_features

DATA = Dataset(
    {"x": torch.arange(8) % 4, "word": [f"w{i}" for i in range(8)]},
    weights=[1, 1, 1, 1, 1, 1, 1, 0],
)
X = Partition.of(DATA["x"], DATA)
FORMS: list[Any] = [
    "x",
    torch.arange(8) % 4,
    np.arange(8) % 4,
    [0, 1, 2, 3] * 2,
    ["a", "b", "c", "d"] * 2,
    lambda data: data["x"],
    lambda data: Partition.of(data["x"], data),
    X,
    Partition(X.labels, torch.ones(8)),  # the weights are those of the data, whatever the partition's were
]


@pytest.mark.parametrize("feature", FORMS)
def test_every_form_is_read_by_hypotheses_and_by_adversaries_alike(feature: Any) -> None:
    found = read_feature(DATA, feature, "it")
    graph = Graph.of({"f": lambda x: x * 1.0}, inputs=["x"], output="f")
    h = Hypothesis("h", graph, DATA, Claim("f", feature))
    for each in (found, read_features(DATA, {"it": feature})["it"], h.partitions[h.claim]):
        assert each == X and torch.equal(each.weights, DATA.weights)


def test_features_in_a_list_are_named_after_themselves() -> None:
    def parity(data: Dataset) -> Any:
        return data["x"] % 2

    assert {name: p.n_blocks for name, p in read_features(DATA, ["word", parity]).items()} == {"word": 8, "parity": 2}


def test_a_partition_of_other_data_is_a_fault_for_both() -> None:
    short = Partition(torch.zeros(3, dtype=torch.int64), torch.ones(3))
    for feature in (short, lambda _: short):
        with pytest.raises(DatasetError, match=r"^feature 'bad' has 3 rows, the dataset 8$"):
            read_features(DATA, {"bad": feature})
        graph = Graph.of({"f": lambda x: x * 1.0}, inputs=["x"], output="f")
        h = Hypothesis("h", graph, DATA, Claim("f", feature))
        with pytest.raises(
            HypothesisError, match=r"^hypothesis 'h': claim 'f': its partition has 3 rows, the dataset 8$"
        ):
            h.check()


@pytest.mark.parametrize(
    ("feature", "fault"),
    [
        (torch.zeros(7), "that has shape (7,); expected (8,) or (8, k): one value or vector per row"),
        ("wrod", "no column 'wrod' in the dataset; did you mean \"word\"?"),
        (object(), "that has shape (); expected (8,) or (8, k): one value or vector per row"),
    ],
)
def test_faults_name_the_feature_in_the_words_given(feature: Any, fault: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read_feature(DATA, feature, "that")
    assert caught.value.faults == (fault,)


def test_what_a_function_raises_is_passed_on_by_one_and_gathered_by_the_other() -> None:
    def broken(_: Dataset) -> Any:
        raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        read_feature(DATA, broken, "it")
    with pytest.raises(DatasetError) as caught:
        read_features(DATA, {"one": broken, "two": torch.zeros(2)})
    assert caught.value.faults == (
        "feature 'one' raised KeyError: 'no such thing'",
        "feature 'two' has shape (2,); expected (8,) or (8, k): one value or vector per row",
    )


# A partition of other data


def test_a_partition_made_on_other_data_is_refused() -> None:
    x = torch.arange(8) % 3
    data, other = Dataset({"x": x, "y": x.float()}), Dataset({"x": x.flip(0), "y": x.float()})
    made = Partition.of(x, other)
    for each in (made, made.refine(Partition.trivial(other)), made.coarsen(Partition.finest(other))):
        with pytest.raises(
            DatasetError, match=r"made on another dataset, whose column 'x' differs .* at 6 rows, e.g. row 0"
        ):
            read_feature(data, each, "feature", "its partition")
    with pytest.raises(DatasetError, match=r"with which this one shares no column \(z; x, y\)"):
        read_feature(data, Partition.of(x, Dataset({"z": x})), "feature")
    with pytest.raises(DatasetError, match=r"whose column 'x' is \[8, 1\] of torch.int64; this one's is \[8\]"):
        read_feature(data, Partition.of(x, Dataset({"x": x[:, None]})), "feature")
    assert read_feature(data, Partition(made.labels, data.weights), "feature") == made


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d,
        lambda d: Dataset(d.columns, torch.arange(1.0, 9)),  # a bootstrap
        lambda d: Dataset({name: d[name] for name in ("name", "x")}),  # a column gone
        lambda d: Dataset({**d.columns, "more": torch.zeros(8)}),  # a column come
        lambda d: Dataset({"x": d["x"].clone(), "nan": d["nan"].clone()}),  # read from a file again
    ],
)
def test_a_partition_of_the_same_rows_is_taken(change: Any) -> None:
    x = torch.arange(8)
    nan = torch.where(x > 3, torch.nan, x.float())
    data = Dataset({"x": x, "nan": nan, "name": [str(i) for i in range(8)], "half": x.bfloat16()})
    read = read_feature(change(data), Partition.of(x % 2, data), "feature")
    assert read.n_blocks == 2 and read_feature(data, read, "feature") == read
