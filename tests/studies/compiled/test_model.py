"""The shipped programs: equal to Tracr's own model and interpreter, and to what they mean; another weight is found."""

import importlib.util
import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pscrub.studies.compiled import make
from pscrub.studies.compiled.graphs import build_graph, make_data
from pscrub.studies.compiled.model import PROGRAMS, SHIPPED, Program, load_program

each_program = pytest.mark.parametrize("name", PROGRAMS)


def shares(token: str) -> Callable[[Sequence[str]], list[Fraction]]:
    return lambda s: [Fraction(s[: i + 1].count(token), i + 1) for i in range(len(s))]


def balance(s: Sequence[str]) -> list[Fraction]:
    return [a - b for a, b in zip(shares("(")(s), shares(")")(s), strict=True)]


MEANINGS: dict[str, dict[str, Callable[[Sequence[str]], Sequence[Any]]]] = {
    "frac_prevs": {"is_x": lambda s: [token == "x" for token in s], "frac_prevs": shares("x")},
    "hist": {"hist": lambda s: [Counter(s)[token] for token in s]},
    "reverse": {
        "length": lambda s: [len(s)] * len(s),
        "opp_idx": lambda s: range(len(s), 0, -1),
        "opp_idx-1": lambda s: range(len(s) - 1, -1, -1),
        "reverse": lambda s: s[::-1],
    },
    "sort_unique": {"target_pos": lambda s: [sorted(s).index(token) for token in s], "sort": sorted},
    "pair_balance": {
        "bools_open": lambda s: [token == "(" for token in s],
        "bools_close": lambda s: [token == ")" for token in s],
        "opens": shares("("),
        "closes": shares(")"),
        "pair_balance": balance,
    },
}
"""Program -> variable -> its values over a sequence, written without RASP."""


def texts(program: Program) -> list[list[str]]:
    return [[program.tokens[t] for t in row[row != program.tokens.index("PAD")][1:]] for row in program.sequences]


def distance(program: Program) -> float:
    """The largest difference between the graph's output and Tracr's, over all sequences and all of their tokens."""
    graph, data = build_graph(program), make_data(program)
    found = graph.run(["output"], {name: data[name] for name in graph.inputs})["output"][:, 1:]
    return float((found - program.outputs).abs()[program.kept[:, 1:]].max())


@each_program
def test_data_are_all_sequences(name: str) -> None:
    program = load_program(name)
    tokens = [token for token in program.tokens if token not in ("BOS", "PAD")]
    longest = program.sequences.shape[1] - 1
    sizes = range(1, longest + 1)
    if name == "sort_unique":
        expected = [s for size in sizes for s in itertools.permutations(tokens, size)]
    else:
        expected = [s for size in sizes for s in itertools.product(tokens, repeat=size)]
    assert sorted(map(tuple, texts(program))) == sorted(expected) and len(expected) in (205, 363)
    assert (program.sequences[:, 0] == program.tokens.index("BOS")).all()


@each_program
def test_the_graph_is_the_compiled_model(name: str) -> None:
    assert distance(load_program(name)) < 1e-5


@each_program
def test_another_weight_is_noticed(name: str) -> None:
    """Planted: each matrix in turn reads or writes the directions two places from its own."""
    program = load_program(name)
    for place, component in enumerate(program.components):
        for key, weights in component.weights.items():
            worse = weights.roll(2, 1 if key == "out" else 0)
            changed = replace(component, weights={**component.weights, key: worse})
            components = (*program.components[:place], changed, *program.components[place + 1 :])
            assert distance(replace(program, components=components)) > 1e-5, (component.name, key)


@each_program
def test_variables_are_what_the_program_means(name: str) -> None:
    program = load_program(name)
    assert set(program.values) == set(MEANINGS[name]) == set(program.named)
    for variable, meaning in MEANINGS[name].items():
        for row, text in enumerate(texts(program)):
            found = program.values[variable][row]
            values = [program.named[variable][place] for place in found[: len(text)].tolist()]
            assert (found[len(text) :] == -1).all()
            for value, expected in zip(values, meaning(text), strict=True):
                if isinstance(expected, str):
                    assert str(value) == expected
                else:
                    assert value == pytest.approx(float(expected), abs=1e-8)


@each_program
def test_the_model_answers_right(name: str) -> None:
    program = load_program(name)
    graph, data = build_graph(program), make_data(program)
    found = graph.run(["loss", "answer"], {column: data[column] for column in graph.inputs})
    assert not found["loss"].any()
    assert torch.equal(found["answer"] >= 0, program.kept[:, 1:])
    for row, text in enumerate(texts(program)):
        answers = [program.answers[place] for place in found["answer"][row, : len(text)].tolist()]
        for answer, expected in zip(answers, MEANINGS[name][program.output](text), strict=True):
            if isinstance(expected, str):
                assert answer == expected
            else:
                assert float(answer) == pytest.approx(float(expected), abs=1e-6)


def test_the_loss_is_the_share_of_wrong_answers() -> None:
    program = load_program("hist")
    graph, data = build_graph(program), make_data(program)
    row = [program.text_of(row) for row in range(data.n)].index("abac")
    right = data["right"][[row]]
    assert right.tolist() == [[2, 1, 2, 1, -1]]
    for answer, loss in (([2, 1, 2, 1, 3], 0), ([2, 2, 2, 1, -1], 0.25), ([-1, -1, 0, 1, 1], 0.75)):
        assert graph.run(["loss"], {"answer": torch.tensor([answer]), "right": right})["loss"].tolist() == [loss]


def test_padding_does_not_matter() -> None:
    """Whatever stands where a sequence has ended, the answers before that stay the same."""
    program = load_program("sort_unique")
    graph, data = build_graph(program), make_data(program)
    filled = torch.where(data["kept"], data["sequence"], torch.arange(5).roll(2))
    assert not torch.equal(filled, data["sequence"])
    found = graph.run(["answer"], {"sequence": filled, "kept": data["kept"]})["answer"]
    assert torch.equal(found[data["right"] >= 0], data["right"][data["right"] >= 0])


def test_the_file_is_small() -> None:
    assert SHIPPED.stat().st_size < 250_000


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no compiled programs at .*none"):
        load_program("hist", tmp_path / "none")
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_program("hist", tmp_path / "text")
    save_file({"hist/tokens": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(ValueError, match="tells of no program 'hist'; it has none"):
        load_program("hist", tmp_path / "other")
    with pytest.raises(ValueError, match="no program 'sort'; it has frac_prevs, hist, reverse"):
        load_program("sort")


@pytest.mark.skipif(importlib.util.find_spec("tracr") is not None, reason="Tracr is installed here")
def test_without_tracr_the_script_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, make.__file__, tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install tracr-pypi" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.skipif(importlib.util.find_spec("tracr") is None, reason="needs Tracr: pip install tracr-pypi")
def test_the_script_makes_what_is_shipped(tmp_path: Path) -> None:
    subprocess.run([sys.executable, make.__file__, tmp_path / "out"], check=True)
    for name in PROGRAMS:
        made, shipped = load_program(name, tmp_path / "out"), load_program(name)
        assert made.components[0].reads == shipped.components[0].reads
        assert torch.allclose(made.outputs, shipped.outputs, atol=1e-5)
