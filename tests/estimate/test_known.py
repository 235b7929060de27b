"""What f was seen to be: few values are all remembered, and the ends of whatever was evaluated and can be drawn."""

import math

import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, StudyResult, merge, scrub
from pscrub.estimate.baselines import randomised_loss, what_is_known
from pscrub.estimate.known import FEW_VALUES, Known, Seen
from pscrub.estimate.pairs import Pairs
from pscrub.evaluate.on_data import OnData

N = 40
GRAPH = Graph.of({"out": lambda x: x % 7, "f": lambda out, y: (out - y) ** 2.0}, ["x", "y"], "f")


def data(weights=None) -> Dataset:
    return Dataset({"x": torch.arange(N), "y": torch.arange(N) % 5 + 3 * (torch.arange(N) == 11)}, weights)


def test_few_values_are_remembered_and_many_are_not() -> None:
    few = torch.arange(FEW_VALUES).double().repeat(100)
    assert Seen.of(few).values == tuple(range(FEW_VALUES)) and Seen.of(torch.cat([few, few + 0.5])).values == ()
    late = torch.cat([torch.zeros(1000), torch.arange(100)]).double()  # the first do not show that they are many
    assert Seen.of(late).values == () and (Seen.of(late).least, Seen.of(late).greatest) == (0, 99)
    assert Seen.of(torch.tensor([math.nan, math.inf, 2.0])) == Seen(2.0, 2.0, (2.0,))
    assert Seen.of(torch.empty(0)).nothing and Seen().join(Seen.of(few)) == Seen.of(few).join(Seen()) == Seen.of(few)
    joined = Seen.of(torch.tensor([0.0, 1.0])).join(Seen.of(torch.tensor([5.0]), 3))
    assert joined == Seen(0.0, 5.0, (0.0, 1.0, 5.0), 3)
    assert Seen.of(few).join(Seen(-1.0, -1.0, (-1.0,))).values == ()


def test_all_pairs_are_seen_and_rows_of_weight_zero_are_not() -> None:
    weights = [0.0 if row == 11 else 1.0 for row in range(N)]  # the row whose label is farthest from all outputs
    for given in (None, weights):
        some = data(given)
        on_data = OnData(GRAPH, some)
        randomised_loss(on_data)
        rows = some.weights.nonzero().flatten()
        f = ((some["x"] % 7)[rows][:, None] - some["y"][rows][None]).double() ** 2
        seen = Pairs.of(on_data).seen
        assert (seen.least, seen.greatest) == (float(f.min()), float(f.max())) and seen.pairs > 0
        known = what_is_known(on_data, None, 0, given=False)
        assert known.bounds == (float(f.min()), float(f.max()))
    alone = what_is_known(OnData(GRAPH, data()), None, 0, given=True)
    assert not len(alone.randomised) and alone.seen.pairs == 0 and alone.seen.greatest == 36


def test_a_range_bounds_only_where_pairs_or_few_values_tell() -> None:
    w, many = torch.full((20,), 0.05, dtype=torch.float64), torch.arange(20).double()
    none = torch.empty(0, dtype=torch.float64)
    assert Known().bounds is None and Known.of(w, many, none).bounds is None
    assert Known.of(w, many, many + 1).bounds == (0, 20) and Known.of(w, many % 2, none).bounds == (0, 1)
    assert Known.of(w, 0 * many, none).bounds is None  # one value says nothing of others
    apart = Known.of(w, many % 2, none).of_difference
    assert apart.bounds == (-1, 1) and apart.values == (-1, 0, 1) and Known().of_difference.bounds is None


def test_unseen_is_the_larger_of_both_laws_beyond_the_draws_and_far() -> None:
    w = torch.full((10,), 0.1, dtype=torch.float64)
    losses = torch.tensor([0.0] * 9 + [5.0]).double()
    known = Known.of(w, losses, torch.tensor([0.0, 0.0, 0.0, -8.0]).double())
    assert known.unseen(0, 1, 0, near=0) == 16.0 and known.unseen(-8, 1, 0, near=0) == 2.5
    assert known.unseen(-8, 1, 0, near=6) == 0 and known.unseen(-9, 6, 0, near=0) == 0


def test_what_was_seen_is_saved_loaded_merged_and_missing_in_older_files(tmp_path) -> None:
    reads = [Claim("out", lambda d: d["x"] % 2), Claim("y", "exact")]
    h = Hypothesis("parity", GRAPH, data(), Claim("f", reads=reads))
    first, second = (scrub(h, draws=60, seed=seed) for seed in (0, 1))
    again = StudyResult.load(first.save(tmp_path / "result.nc"))
    assert again.reference.seen == first.reference.seen and again.reference.known == first.reference.known
    assert first.reference.seen.pairs > 0 and merge(again, second).reference.seen == first.reference.seen
