"""Weighted rows of named tensors: what is kept, and every fault of what is not."""

import math

import numpy as np
import pytest
import torch

from pscrub import Dataset, DatasetError


def faults_of(*args: object, **kwargs: object) -> str:
    with pytest.raises(DatasetError) as caught:
        Dataset(*args, **kwargs)  # type: ignore[arg-type]
    return "\n".join(caught.value.faults)


def test_weights_are_scaled_and_uniform_by_default() -> None:
    x = torch.arange(4)
    assert Dataset({"x": x}).weights.tolist() == [0.25] * 4
    assert Dataset({"x": x}).uniform
    weighted = Dataset({"x": x}, weights=[0, 3, 1, 4])
    assert weighted.weights.tolist() == [0, 0.375, 0.125, 0.5]
    assert weighted.weights.dtype == torch.float64
    assert not weighted.uniform
    assert weighted.n == len(weighted) == 4  # a row of weight zero stays


def test_columns_of_every_kind_are_read_back_by_row() -> None:
    data = Dataset(
        {
            "x": torch.tensor([[1.5, 2.0], [0.0, -1.0]]),
            "flag": [True, False],
            "n": np.array([3, 4]),
            "word": ["ab", "c"],
        }
    )
    assert list(data) == list(data.names) == ["x", "flag", "n", "word"]
    assert data.row(1) == {"x": [0.0, -1.0], "flag": False, "n": 4, "word": "c"}
    assert isinstance(data["n"], torch.Tensor)
    assert isinstance(data["word"], np.ndarray)


def test_take_keeps_columns_together_and_scales_weights_again() -> None:
    data = Dataset({"x": torch.tensor([10, 11, 12]), "word": ["a", "b", "c"]}, weights=[1, 2, 5])
    taken = data.take([2, 0])
    assert [taken.row(i) for i in range(2)] == [{"x": 12, "word": "c"}, {"x": 10, "word": "a"}]
    assert taken.weights.tolist() == pytest.approx([5 / 6, 1 / 6])


def test_a_dataset_cannot_be_changed() -> None:
    data = Dataset({"x": torch.arange(2)})
    with pytest.raises(AttributeError):
        data.weights = torch.ones(2)  # type: ignore[misc]
    with pytest.raises(TypeError):
        data.columns["y"] = torch.ones(2)  # type: ignore[index]


def test_parameters_are_detached() -> None:
    assert not Dataset({"x": torch.ones(2, requires_grad=True)})["x"].requires_grad


@pytest.mark.parametrize("columns", [{"x": torch.zeros(0)}, {"x": [], "y": torch.zeros(0, 3)}])
def test_empty_dataset(columns: dict[str, object]) -> None:
    assert "the dataset is empty" in faults_of(columns)


def test_no_columns() -> None:
    assert "at least one column" in faults_of({})


def test_columns_of_unequal_length_are_listed() -> None:
    found = faults_of({"tokens": torch.zeros(3, 2), "label": torch.zeros(4)})
    assert "unequal length: 'tokens' has 3, 'label' has 4" in found


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -1, -2], "negative at 2 of 3 rows, e.g. row 1"),
        ([1, math.nan, 1], "NaN at 1 of 3 rows, e.g. row 1"),
        ([math.inf, 1, 1], "infinite at 1 of 3 rows, e.g. row 0"),
        ([0, 0, 0], "all zero"),
        ([1, 1], "have shape (2,); expected (3,)"),
        ([[1], [1], [1]], "have shape (3, 1); expected (3,)"),
        (["a", "b", "c"], "weights are not numbers"),
    ],
)
def test_bad_weights(weights: list[object], message: str) -> None:
    assert message in faults_of({"x": torch.arange(3)}, weights=weights)


def test_huge_and_tiny_weights_keep_their_ratios() -> None:
    for scale in (1e308, 1e-308):
        data = Dataset({"x": torch.arange(3)}, weights=[scale, scale, scale / 2])
        assert data.weights.tolist() == pytest.approx([0.4, 0.4, 0.2])


def test_a_column_that_is_no_column() -> None:
    found = faults_of({"x": 3.0, "y": [[1], [1, 2]], "z": [None, {}]})
    assert "'x' is a single value" in found
    assert "'y' is neither a tensor nor convertible" in found
    assert "'z' is neither a tensor nor convertible" in found


def test_all_faults_together() -> None:
    found = faults_of({"a": torch.zeros(3), "b": torch.zeros(2), "c": 1}, weights=[-1, math.nan, 1])
    for message in ("unequal length", "'c' is a single value", "negative", "NaN"):
        assert message in found


def test_an_unknown_column_comes_with_close_matches() -> None:
    data = Dataset({"tokens": torch.zeros(2), "label": torch.zeros(2)})
    with pytest.raises(DatasetError, match=r"no column 'token' in the dataset; did you mean \"tokens\"\?"):
        data["token"]
