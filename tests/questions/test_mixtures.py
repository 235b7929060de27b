"""Mixtures scrubbed: the average over offsets, an interval that covers it, and the same numbers from the same seed."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from pscrub import Claim, Dataset, Graph, Hypothesis, HypothesisError, Partition, StudyError, unroll
from pscrub.data import Quantiles, Rounding
from pscrub.estimate.estimate import mean_of_pairs
from pscrub.evaluate import Engine
from pscrub.hypothesis import fix_offsets
from pscrub.law import scrubbed_expectation
from pscrub.questions import scrub_mixture
from pscrub.questions.comparison import Sample
from pscrub.questions.mixtures import draw_at_offsets, scrubbed_bits

N = 24
X = torch.arange(N).double() ** 1.3
DATA = Dataset({"x": X, "y": X + torch.sin(7 * X)}, weights=1 + torch.arange(N) % 3)
GRAPH = Graph.of({"h": lambda x: x, "f": lambda h, y: (h - y) ** 2}, ["x", "y"], "f")


def soft(feature: object) -> Hypothesis:
    return Hypothesis("soft", GRAPH, DATA, Claim("f", reads=[Claim("h", feature), Claim("y", "y")]))


def exactly(h: Hypothesis) -> float:
    """E_scrubbed of a mixture: each piece of [0, 1) on which the partition stays the same, by its length."""
    (feature,) = (claim.feature for claim in h.claims if claim.name == "h")
    edges = np.unique([0.0, 1.0, *np.mod(feature.placed(DATA).positions(DATA)[:, 0], 1.0)])
    return sum(
        (b - a) * scrubbed_expectation(unroll(fix_offsets(h, [(a + b) / 2]))) for a, b in itertools.pairwise(edges)
    )


def test_it_estimates_the_average_over_offsets() -> None:
    h = soft(Quantiles("x", 3, "random"))
    truth = exactly(h)
    found = [scrub_mixture(h, draws=320, offsets=16, seed=seed).scrubbed for seed in range(16)]
    inside = sum(e.low <= truth <= e.high for e in found)
    assert 12 <= inside <= 16
    mean, spread = np.mean([e.value for e in found]), np.std([e.value for e in found], ddof=1)
    assert abs(mean - truth) < 4 * spread / np.sqrt(16)
    assert 0.5 < np.sqrt(np.mean([e.se**2 for e in found])) / spread < 1.8
    assert {(e.draws, e.interval) for e in found} == {(320, "t")}


def test_one_offset_alone_is_another_number_and_draws_alone_a_smaller_error() -> None:
    """What an interval would miss that took the draws of one offset for those of the mixture."""
    h = soft(Rounding("x", 60.0, "random"))
    truth = exactly(h)
    each = [scrubbed_expectation(unroll(fix_offsets(h, [u]))) for u in (0.1, 0.5, 0.9)]
    assert max(abs(value / truth - 1) for value in each) > 0.2
    found = scrub_mixture(h, draws=65536, offsets=16)
    assert found.draws_se < found.scrubbed.se / 2
    assert found.scrubbed.low < truth < found.scrubbed.high


def test_it_is_said_how_it_was_made() -> None:
    h = soft(Quantiles("x", 4, "random"))
    found = scrub_mixture(h, draws=500, offsets=16, level=0.9)
    assert found.scrubbed.method == "means of 32 draws at each of 16 random offsets; t, within root strata"
    assert (found.offsets, found.scrubbed.draws, found.scrubbed.level) == (16, 512, 0.9)
    assert found == scrub_mixture(h, draws=500, offsets=16, level=0.9)
    assert found.scrubbed.value != scrub_mixture(h, draws=500, offsets=16, seed=1).scrubbed.value
    assert len(found.table().rows[0]) == len(found.table().head)
    low, high = (scrubbed_bits(unroll(fix_offsets(h, [u]))) for u in (0.0, 0.5))
    assert min(low, high) - 0.5 < found.bits < max(low, high) + 0.5


def test_all_offsets_share_random_numbers_across_hypotheses_and_none_across_offsets() -> None:
    h = soft(Quantiles("x", 4, "random"))
    fixed = replace(soft(Partition.trivial(DATA)), name="fixed")
    made = {"soft": h, "again": replace(h, name="again"), "fixed": fixed}
    found = draw_at_offsets(made, Sample(320, 3), Engine(DATA), 16, lambda tree: tree.sites["f/h"].partition)
    f = found.losses.f
    assert torch.equal(f[0], f[1]) and len(f[2].unique()) == 16
    assert len(set(found.seen["soft"])) > 1 and len(set(found.seen["fixed"])) == 1
    assert found.draws == 20 and mean_of_pairs(f[0]).draws == 16 and found.say(mean_of_pairs(f[0])).draws == 320


def test_what_is_no_mixture_is_refused() -> None:
    with pytest.raises(StudyError, match="'soft' has no feature with a random offset; scrub it as any other"):
        scrub_mixture(soft("x"))
    h = soft(Quantiles("x", 4, "random"))
    for offsets in (14, 17):
        with pytest.raises(StudyError, match=f"offsets is {offsets}; expected an even number of at least 16"):
            scrub_mixture(h, offsets=offsets)
    with pytest.raises(StudyError, match="draws is 0"):
        scrub_mixture(h, draws=0)


def test_each_offset_is_checked() -> None:
    """A claim above that is no function of the bins, wherever their edges stand."""
    graph = Graph.of({"h": lambda x: x, "s": lambda h: h, "f": lambda s, y: (s - y) ** 2}, ["x", "y"], "f")
    below = Claim("h", Rounding("x", 20.0, "random"))
    h = Hypothesis("bad", graph, DATA, Claim("f", reads=[Claim("s", "x", reads=[below]), Claim("y", "y")]))
    with pytest.raises(HypothesisError, match=r"claim 's' \(x\) is not a function of what it reads"):
        scrub_mixture(h)
    # Where it is what they determine, it is well formed at every offset.
    good = Hypothesis("good", graph, DATA, Claim("f", reads=[Claim("s", reads=[below]), Claim("y", "y")]))
    assert scrub_mixture(good, draws=64, offsets=16).scrubbed.value > 0
