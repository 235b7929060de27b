"""f on scrubbed inputs: the same however it is chunked and whatever is kept, within the memory that was allowed."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from pscrub import Claim, Dataset, Graph, GraphError, Hypothesis, Tree, split, unroll
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.law.drawing import draw
from tests.law.long_chain import DRAWS, LENGTH, chain_tree

N = 97
GENERATOR = torch.Generator().manual_seed(1)
DATA = Dataset(
    {"x": torch.randn(N, 4, 8, generator=GENERATOR), "y": torch.arange(N) % 5},
    weights=torch.arange(N, dtype=torch.float),
)
GIVEN = {"x": DATA["x"], "y": DATA["y"]}


def graph() -> Graph:
    made = Graph.of(
        {
            "wide": lambda x: x.sin(),
            "sums": lambda wide, y: wide.sum(2) + y[:, None],
            "best": lambda sums, h3: sums.max(1).values * h3.sum((1, 2)),
            "f": lambda best, y, wide: best - y + wide[:, 0, 0],
        }
        | {"h3": lambda x: x},
        inputs=["x", "y"],
        output="f",
    )
    return split(made, "wide", 1, {f"wide.p{i}": i for i in range(4)}, 4)


def tree(sharing: Any = "reader") -> Tree:
    parts = [Claim(f"wide.p{i}", DATA["y"] % (i + 2)) for i in range(3)]
    best = Claim("best", reads=[Claim("sums", reads=parts)])
    return unroll(Hypothesis("h", graph(), DATA, Claim("f", reads=[best]), sharing))


SHARINGS: list[Any] = ["reader", "all", "each", {"g": ["y", "wide.p3", "h3"]}]


@pytest.mark.parametrize("sharing", SHARINGS)
def test_the_same_numbers_whatever_the_chunk(sharing: Any) -> None:
    made = tree(sharing)
    data = draw(made, 1000, (0,))
    activations = Activations(made.hypothesis.graph, DATA)
    whole = run_scrubbed(made, activations, data)
    assert whole.dtype == torch.float64 and whole.shape == (1000,)
    for chunk in (1, 7, 333, 1000, 5000):
        torch.testing.assert_close(run_scrubbed(made, activations, data, chunk=chunk), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sharing", SHARINGS)
def test_the_same_numbers_kept_or_computed_again(sharing: Any) -> None:
    made = tree(sharing)
    data = draw(made, 300, (0,))
    kept = Activations(made.hypothesis.graph, DATA)
    expected = run_scrubbed(made, kept, data)
    assert kept.kept_bytes > 0
    for memory in (0, 1, 4 * N, 9 * 4 * N, 40 * 4 * N, 10_000_000):
        activations = Activations(made.hypothesis.graph, DATA, memory=memory)
        torch.testing.assert_close(run_scrubbed(made, activations, data), expected, rtol=1e-6, atol=1e-6)
        assert activations.kept_bytes <= memory


def test_scrubbed_against_the_plain_recursion() -> None:
    """Each draw on its own, a row at a time, every input of every node written out."""
    made = tree()
    data = draw(made, 40, (3,))
    found = run_scrubbed(made, Activations(made.hypothesis.graph, DATA), data)

    def on(name: str, row: int) -> Tensor:
        return graph().run([name], {key: value[[row]] for key, value in GIVEN.items()})[name]

    for i in range(40):
        row = {path: int(rows[i]) for path, rows in data.items()}
        parts = {f"wide.p{k}": on(f"wide.p{k}", row[f"f/best/sums/wide.p{k}"]) for k in range(3)}
        parts |= {name: on(name, row["f/best/sums/~"]) for name in ("wide.p3", "y")}
        sums = graph().run(["sums"], parts)["sums"]
        best = graph().run(["best"], {"sums": sums, "h3": on("h3", row["f/best/~"])})["best"]
        given = {"best": best} | {name: on(name, row["f/~"]) for name in ("y", *(f"wide.p{k}" for k in range(4)))}
        assert float(found[i]) == pytest.approx(float(graph().run(["f"], given)["f"]), rel=1e-5)


def test_the_value_at_an_inner_node() -> None:
    made = tree()
    data = draw(made, 50, (1,))
    activations = Activations(made.hypothesis.graph, DATA)
    sums = run_scrubbed(made, activations, data, at="f/best/sums", chunk=9)
    assert sums.shape == (50, 4)
    same = dict.fromkeys(made.sites, torch.arange(N))
    torch.testing.assert_close(
        run_scrubbed(made, activations, same, at="f/best/sums"), graph().run(["sums"], GIVEN)["sums"]
    )


def test_a_chain_longer_than_python_recurses_is_evaluated() -> None:
    made = chain_tree()
    data = draw(made, 6, (0,))
    odd = {path: rows == 3 for path, rows in data.items() if "~" in path}
    last, middle = list(made.sites)[-1], list(made.sites)[LENGTH // 2]
    assert len(odd) == DRAWS and made.sites[middle].claim is not None
    activations = Activations(made.hypothesis.graph, made.hypothesis.data)
    for at, path in ((None, made.root), (middle, middle)):
        added = sum(each.long() for draw, each in odd.items() if draw.startswith(f"{path}/"))
        expected = (data[last] % 2 + added) % 2
        assert torch.equal(run_scrubbed(made, activations, data, at=at, chunk=4), expected.to(torch.float64))


@pytest.mark.parametrize("memory", [0, 2**20])
def test_the_same_row_everywhere_gives_f_on_the_data(memory: int) -> None:
    made = tree()
    f = run_scrubbed(
        made, Activations(made.hypothesis.graph, DATA, memory=memory), dict.fromkeys(made.sites, torch.arange(N))
    )
    torch.testing.assert_close(f, graph().run(["f"], GIVEN)["f"].double(), rtol=1e-6, atol=1e-6)


def test_kept_values_never_take_more_than_the_budget() -> None:
    names = ["wide", "sums", "best", "h3", "f", "wide.p0", "wide.p1", "wide.p2"]
    wide, sums = N * 32 * 4, N * 4 * 4
    for memory in (0, sums - 1, sums, wide, wide + sums, 10 * wide):
        activations = Activations(graph(), DATA, memory=memory)
        for asked in (["sums"], ["wide"], names, ["best", "f"], ["wide.p0"], names[::-1]):
            activations.keep(asked)
            assert activations.kept_bytes <= memory
        for name in names:
            torch.testing.assert_close(activations.on_data(name), graph().run([name], GIVEN)[name])
            assert activations.kept_bytes <= memory


def test_what_fits_is_kept_and_makes_room_for_what_is_asked_for() -> None:
    sums, best = N * 4 * 4, N * 4
    activations = Activations(graph(), DATA, memory=sums + best - 1)
    activations.keep(["best"])
    assert activations.kept_bytes == best
    activations.keep(["sums"])
    assert activations.kept_bytes == sums  # best has gone
    activations.keep(["best", "sums"])
    assert activations.kept_bytes == sums


def test_most_slices_of_a_node_are_kept_as_the_node() -> None:
    wide = N * 32 * 4
    activations = Activations(graph(), DATA)
    activations.keep([f"wide.p{i}" for i in range(3)])
    assert activations.kept_bytes == wide
    activations = Activations(graph(), DATA)
    activations.keep(["wide.p0"])
    assert activations.kept_bytes == wide // 4


def test_a_kept_value_is_not_computed_again() -> None:
    calls: Counter[str] = Counter()

    def costly(x: Tensor) -> Tensor:
        calls["costly"] += len(x)
        return x.sum((1, 2))

    counted = Graph.of({"costly": costly, "f": lambda costly, y: costly - y}, inputs=["x", "y"], output="f")
    made = unroll(Hypothesis("h", counted, DATA, Claim("f", reads=[Claim("costly", "y")])))
    data = draw(made, 5000, (0,))
    for memory, most in ((2**20, N), (0, 5000)):
        activations = Activations(counted, DATA, memory=memory)
        calls.clear()
        run_scrubbed(made, activations, data)
        assert calls["costly"] == most


def test_progress_is_told_of_both_phases() -> None:
    told: list[tuple[str, int, int]] = []
    made = tree()
    activations = Activations(made.hypothesis.graph, DATA, memory=2**16)
    run_scrubbed(made, activations, draw(made, 100, (0,)), chunk=30, progress=lambda *each: told.append(each))
    assert [each for each in told if each[0] == "draws"] == [("draws", n, 100) for n in (30, 60, 90, 100)]
    assert ("activations on D", N, N) in told


@pytest.mark.parametrize(
    ("fn", "shape"),
    [
        (lambda x: x.sum(2), r"\[batch, 4\]"),
        (lambda x: x.sum((1, 2))[:, None], r"\[batch, 1\]"),
        (lambda x: x.sum((1, 2)).mean(), r"\[\]"),
        (lambda x: x.sum((1, 2))[:1], r"\[1\]"),
    ],
)
def test_f_that_is_not_one_number_a_row(fn: Any, shape: str) -> None:
    with pytest.raises(GraphError, match=rf"output 'f' has shape {shape}.*; expected \[batch\]"):
        Activations(Graph.of({"f": fn}, ["x"], "f"), DATA)


def test_a_node_without_a_batch_is_named() -> None:
    made = Graph.of({"m": lambda x: x.mean(), "f": lambda x, m: x.sum((1, 2)) - m}, ["x"], "f")
    with pytest.raises(GraphError, match="node 'm' has shape"):
        Activations(made, DATA)
