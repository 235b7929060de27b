"""Partitions: the laws of their lattice and entropies, exact draws within blocks, and features of every kind."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pscrub import Dataset, DatasetError, Partition
from pscrub.data.blocks import BlockTable
from tests.false_alarm import counts_alarm

Trio = tuple[Partition, Partition, Partition]


@st.composite
def trios(draw: st.DrawFn) -> Trio:
    """Three partitions of one weighted dataset."""
    n = draw(st.integers(1, 12))
    weights = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n).filter(any))
    data = Dataset({"x": torch.arange(n)}, weights)
    labels = st.lists(st.integers(0, 4), min_size=n, max_size=n)
    return tuple(Partition.of(draw(labels), data) for _ in range(3))  # type: ignore[return-value]


@given(trios())
def test_the_lattice_laws(trio: Trio) -> None:
    a, b, c = trio
    for join in (Partition.refine, Partition.coarsen):
        assert join(a, b) == join(b, a)
        assert join(join(a, b), c) == join(a, join(b, c)) == join(a, b, c)
        assert join(a, a) == a == join(a)
    assert a.refine(a.coarsen(b)) == a
    assert a.coarsen(a.refine(b)) == a


@given(trios())
def test_equal_partitions_are_equal_however_labelled(trio: Trio) -> None:
    a, b, _ = trio
    data = Dataset({"x": torch.arange(len(a.labels))}, a.weights)
    renamed = Partition.of(-3 * a.labels, data)
    assert renamed == a and hash(renamed) == hash(a)
    pairs = a.labels[:, None] == a.labels
    assert (a == b) == torch.equal(pairs, b.labels[:, None] == b.labels)


@given(trios())
def test_refines_is_a_partial_order_with_top_and_bottom(trio: Trio) -> None:
    # On rows of positive weight alone, so that it is an order of partitions: without them two may refine each other.
    a, b, c = (Partition(p.labels, torch.full_like(p.weights, 1 / len(p.weights))) for p in trio)
    data = Dataset({"x": torch.arange(len(a.labels))})
    assert a.refines(a)
    assert not (a.refines(b) and b.refines(a)) or a == b
    assert not (a.refines(b) and b.refines(c)) or a.refines(c)
    assert Partition.finest(data).refines(a) and a.refines(Partition.trivial(data))
    assert a.refines(b) == (a.refine(b) == a) == (a.coarsen(b) == b)
    both, either = a.refine(b), a.coarsen(b)
    assert both.refines(a) and both.refines(b) and a.refines(either) and b.refines(either)
    assert not (c.refines(a) and c.refines(b)) or c.refines(both)
    assert not (a.refines(c) and b.refines(c)) or either.refines(c)


@given(trios())
def test_a_split_pair_shows_what_it_says(trio: Trio) -> None:
    a, b, _ = trio
    pair = a.split_pair(b)
    rows = a.weights > 0
    alike_here, alike_there = (p.labels[rows][:, None] == p.labels[rows] for p in (a, b))
    assert (pair is None) == a.refines(b) == bool((~alike_here | alike_there).all())
    if pair is not None:
        x, y = pair
        assert a.labels[x] == a.labels[y] and b.labels[x] != b.labels[y]
        assert a.weights[x] > 0 and a.weights[y] > 0


@given(trios())
def test_the_laws_of_entropy(trio: Trio) -> None:
    a, b, _ = trio
    both = a.refine(b)
    data = Dataset({"x": torch.arange(len(a.labels))}, a.weights)
    # Chain rule: H(a, b) = H(a) + sum over blocks of a, weighted, of the entropy of b within the block.
    within = 0.0
    for block, p in enumerate(a.block_weights.tolist()):
        if p > 0:
            q = torch.bincount(b.labels, weights=a.weights * (a.labels == block)) / p
            within -= p * float((q[q > 0] * q[q > 0].log()).sum())
    assert both.entropy == pytest.approx(a.entropy + within, abs=1e-12)
    assert max(a.entropy, b.entropy) - 1e-12 <= both.entropy <= a.entropy + b.entropy + 1e-12
    assert a.coarsen(b).entropy <= min(a.entropy, b.entropy) + 1e-12
    possible = int((a.block_weights > 0).sum())
    assert 0 <= a.entropy <= math.log(possible) + 1e-12
    assert Partition.trivial(data).entropy == pytest.approx(0, abs=1e-12)
    assert a.entropy <= Partition.finest(data).entropy + 1e-12


def test_entropy_is_in_nats_and_weighted() -> None:
    data = Dataset({"x": torch.arange(4)}, weights=[1, 1, 2, 0])
    assert Partition.of([0, 1, 2, 3], data).entropy == pytest.approx(1.5 * math.log(2))
    assert Partition.of([0, 0, 1, 1], data).entropy == pytest.approx(math.log(2))


def test_coarsening_counts_links_however_many_rows_make_them() -> None:
    """A power of two of rows making the same link once, and twice, must not cancel to none."""
    for rows in (1, 128, 255, 256, 512, 65_536):
        data = Dataset({"x": torch.zeros(rows + 1)})
        last = torch.arange(rows + 1) == rows
        assert Partition.of(last, data).coarsen(Partition.trivial(data)).n_blocks == 1
        assert Partition.of(last, data).coarsen(Partition.of(last, data)).n_blocks == 2


# The draw within a block


def law_of(table: BlockTable, blocks: int, n: int) -> Tensor:
    """float64 [blocks, n]: the probability of each row in each block, from the table's slots."""
    law = torch.zeros(blocks, n, dtype=torch.float64)
    for block, (start, size) in enumerate(table.spans.tolist()):
        for slot in range(start, start + size):
            keep = 1.0 if table.keep is None else float(table.keep[slot])
            assert 0 <= keep <= 1
            law[block, table.rows[slot]] += keep / size
            if table.alias is not None:
                assert start <= table.alias[slot] < start + size  # an alias is never in another block
                law[block, table.rows[table.alias[slot]]] += (1 - keep) / size
    return law


def expected_law(partition: Partition) -> Tensor:
    weights = partition.weights * (partition.labels == torch.arange(partition.n_blocks)[:, None])
    return (weights / partition.block_weights[:, None]).nan_to_num(0.0)


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 1, 2, 3, 7, 1e-9, 1e-300, 0.1, 1 / 3, 1e6])),
        min_size=1,
        max_size=40,
    ).filter(lambda rows: any(w for _, w in rows))
)
def test_block_tables_hold_the_weights_exactly(rows: list[tuple[int, float]]) -> None:
    """Ties, zeros and weights far apart: the table's own law is D's within each block."""
    labels, weights = zip(*rows, strict=True)
    data = Dataset({"x": torch.arange(len(rows))}, weights)
    partition = Partition.of(labels, data)
    found = law_of(partition.table, partition.n_blocks, data.n)
    torch.testing.assert_close(found, expected_law(partition), rtol=0, atol=1e-14)
    assert not found[:, data.weights == 0].any()


@pytest.mark.parametrize("blocks", [1, 2, 30, 1000, 1999])
def test_block_tables_of_many_rows(blocks: int) -> None:
    generator = torch.Generator().manual_seed(blocks)
    labels = torch.randint(blocks, (2000,), generator=generator)
    weights = torch.rand(2000, dtype=torch.float64, generator=generator) ** 8
    weights[torch.randint(2000, (200,), generator=generator)] = 0
    partition = Partition.of(labels, Dataset({"x": labels}, weights))
    found = law_of(partition.table, partition.n_blocks, 2000)
    torch.testing.assert_close(found, expected_law(partition), rtol=0, atol=1e-12)


@given(trios(), st.integers(0, 2**32))
def test_picks_stay_in_their_block(trio: Trio, seed: int) -> None:
    partition = trio[0]
    possible = (partition.block_weights > 0).nonzero().flatten()
    blocks = possible.repeat(50).reshape(50, -1)
    uniform = torch.rand(blocks.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    uniform[0], uniform[1] = 0.0, 1 - 2**-53  # the ends of [0, 1)
    rows = partition.table.pick(blocks, uniform)
    assert torch.equal(partition.labels[rows], blocks)
    assert bool((partition.weights[rows] > 0).all())


@pytest.mark.parametrize("weights", [None, [1, 2, 3, 4, 0, 0.5, 7, 1, 1, 1]])
def test_draws_have_the_frequencies_of_the_block(weights: list[float] | None) -> None:
    data = Dataset({"x": torch.arange(10)}, weights)
    partition = Partition.of([0, 1, 0, 1, 0, 1, 0, 1, 2, 2], data)
    generator = torch.Generator().manual_seed(3)
    for block, law in enumerate(expected_law(partition)):
        uniform = torch.rand(20_000, dtype=torch.float64, generator=generator)
        counts = torch.bincount(partition.table.pick(torch.full((20_000,), block), uniform), minlength=10)
        positive = {row: p for row, p in enumerate(law.tolist()) if p}
        assert not counts_alarm(dict(enumerate(counts.tolist())), positive)
        # Teeth: the law of another block, or of weights forgotten, is told apart.
        if weights is not None and block < 2:
            assert counts_alarm(dict(enumerate(counts.tolist())), dict.fromkeys(positive, 1 / len(positive)))


# Features


@pytest.mark.parametrize(
    ("feature", "labels"),
    [
        (torch.tensor([5, 3, 5, -1]), [0, 1, 0, 2]),
        (torch.tensor([5, 3, 5, 255], dtype=torch.uint8), [0, 1, 0, 2]),
        (torch.tensor([True, False, False, True]), [0, 1, 1, 0]),
        (["a", "b", "aa", "a"], [0, 1, 2, 0]),
        (np.array(["a", "b", "aa", "a"], dtype=object), [0, 1, 2, 0]),
        (np.array([b"x", b"y", b"x", b"x"]), [0, 1, 0, 0]),
        ([0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2], [0, 1, 1, 0]),
        (torch.tensor([0.5, -0.0, 0.0, 0.5]), [0, 1, 1, 0]),
        (torch.tensor([math.inf, -math.inf, math.inf, 0]), [0, 1, 0, 2]),
        (torch.tensor([0.5, 1.0, 0.5, 2.0], dtype=torch.bfloat16), [0, 1, 0, 2]),
        (torch.tensor([0.5, 1.0, 0.5, 2.0], requires_grad=True), [0, 1, 0, 2]),
        (torch.tensor([[0, 1], [1, 0], [0, 1], [0, 0]]), [0, 1, 0, 2]),
        (torch.tensor([[0.0, 1], [-0.0, 1], [0, 2], [0, 2]]), [0, 0, 1, 1]),
        ([["a", "b"], ["ab", ""], ["a", "b"], ["", "ab"]], [0, 1, 0, 2]),
        ([2**53, 2**53 + 1, 2**53, 2**53 + 2], [0, 1, 0, 2]),
        (torch.zeros(4, 0), [0, 0, 0, 0]),
    ],
)
def test_features_are_compared_exactly(feature: object, labels: list[int]) -> None:
    data = Dataset({"x": torch.arange(4)})
    assert Partition.of(feature, data).labels.tolist() == labels


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (torch.zeros(3), r"has shape \(3,\); expected \(4,\) or \(4, k\)"),
        (torch.zeros(4, 2, 2), r"has shape \(4, 2, 2\)"),
        (torch.tensor(1), r"has shape \(\)"),
        ([0.0, math.nan, 1.0, math.nan], "is NaN at 2 of 4 rows, e.g. row 1"),
        (torch.tensor([[0.0, 1], [0, 1], [0, math.nan], [0, 1]]), "is NaN at 1 of 4 rows, e.g. row 2"),
        ([None, 1, 2, 3], "holds object values"),
        (torch.zeros(4, dtype=torch.complex64), "holds complex64 values"),
        ([[1], [1, 2], [1], [1]], "expected a tensor, an array or a list"),
        ([1, "1", 2, "a"], "mixes strings with other values"),
    ],
)
def test_features_that_cannot_be_compared(feature: object, message: str) -> None:
    with pytest.raises(DatasetError, match="parity.*" + message):
        Partition.of(feature, Dataset({"x": torch.arange(4)}), "feature 'parity'")


def test_sizes_count_rows_that_can_be_drawn() -> None:
    data = Dataset({"x": torch.arange(5)}, weights=[1, 0, 1, 1, 0])
    partition = Partition.of([0, 0, 1, 1, 2], data)
    assert partition.n_blocks == 3
    assert partition.sizes.tolist() == [1, 2, 0]
    assert partition.block_weights.tolist() == pytest.approx([1 / 3, 2 / 3, 0])


@pytest.mark.parametrize(
    ("blocks", "kind"),
    [(1, torch.uint8), (256, torch.uint8), (257, torch.int16), (32_768, torch.int16), (32_769, torch.int32)],
)
def test_labels_take_as_few_bytes_as_they_can(blocks: int, kind: torch.dtype) -> None:
    data = Dataset({"x": torch.arange(40_000)})
    partition = Partition.of(data["x"] % blocks, data)
    assert partition.stored.dtype == kind and partition.labels.dtype == torch.int64
    assert torch.equal(partition.labels, data["x"] % blocks)
    rows = torch.tensor([[0, 39_999], [7, 7]])
    assert torch.equal(partition.labels_of(rows), rows % blocks)
    drawn = partition.table.pick(partition.labels_of(rows), torch.rand(2, 2, dtype=torch.float64))
    assert drawn.dtype == torch.int64 and torch.equal(drawn % blocks, rows % blocks)


@pytest.mark.parametrize("spread", [1, 10**12])
def test_integers_are_numbered_alike_counted_or_sorted(spread: int) -> None:
    """Labels in the order of first appearance, whether values lie close enough to be counted or have to be sorted."""
    values = torch.randint(-50, 50, (3000,), generator=torch.Generator().manual_seed(4)) * spread
    labels = Partition.of(values, Dataset({"x": values})).labels.tolist()
    seen: dict[int, int] = {}
    assert labels == [seen.setdefault(value, len(seen)) for value in values.tolist()]
