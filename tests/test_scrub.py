"""The driver: identity gates in every sharing mode, stopping rules, interrupts, and what it warns of."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pscrub import (
    EXACT,
    Baseline,
    Claim,
    Dataset,
    Graph,
    GraphError,
    Hypothesis,
    Node,
    RoundError,
    ScrubResult,
    Study,
    StudyError,
    StudyResult,
    Workers,
    scrub,
    unroll,
)
from pscrub.estimate.stopping import ROUND
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.graph.rewrites import replace
from pscrub.hypothesis import drop_members
from tests.false_alarm import Z

# The package's own name `scrub` is the function.
N = 60
GENERATOR = torch.Generator().manual_seed(4)
X = torch.randn(N, 3, generator=GENERATOR, dtype=torch.float64)
LABEL = (X.sum(1) > 0).long()
WEIGHTED = Dataset({"x": X, "label": LABEL}, weights=torch.arange(N) % 4)
UNIFORM = Dataset({"x": X, "label": LABEL})
SHARINGS: list[Any] = ["reader", "all", "each", {"g": ["x", "c", "f"]}]
each_sharing = pytest.mark.parametrize("sharing", SHARINGS)
each_data = pytest.mark.parametrize("data", [UNIFORM, WEIGHTED], ids=["uniform", "weighted"])

GRAPH = Graph.of(
    {
        "a": lambda x: x[:, 0] + x[:, 1],
        "b": lambda x: x[:, 1] * x[:, 2],
        "c": lambda a, x: a + x[:, 2],
        "logit": lambda a, b, c: c + 0.1 * b * a,
        "f": lambda logit, label: torch.nn.functional.softplus((1 - 2 * label) * logit),
    },
    inputs=["x", "label"],
    output="f",
)


def claims(features: str) -> Iterator[tuple[str, Claim]]:
    """Claims of several shapes, their features all exact, or real ones."""

    def of(name: str, rows: Tensor) -> Any:
        return EXACT if features == "exact" else rows

    sign, high = (X[:, :2].sum(1) > 0).long(), (X[:, 2] > 0).long()
    label = Claim("label", of("label", LABEL))
    yield "whole output", Claim("f", reads=[label, Claim("logit", of("logit", LABEL))])
    parts = [Claim("a", of("a", sign)), Claim("c", of("c", sign * 2 + high))]
    yield "parts", Claim("f", reads=[label, Claim("logit", reads=parts)])
    base = Claim("a", of("a", sign))
    shared = [base, Claim("c", reads=[base, Claim("x", of("x", high))])]
    yield "a node used twice", Claim("f", reads=[label, Claim("logit", reads=shared)])
    every_path = [Claim("x", of("x", sign * 2 + high))]
    yield "every path to x", Claim("f", reads=[label, Claim("logit", reads=every_path)])
    yield "an edge skipped", Claim("f", reads=[label, Claim("a", of("a", sign))], paths="any")


def hypotheses(features: str, data: Dataset, sharing: Any = "reader") -> list[Hypothesis]:
    return [drop_members(Hypothesis(name, GRAPH, data, claim, sharing)) for name, claim in claims(features)]


def e_model(data: Dataset) -> float:
    f = GRAPH.run(["f"], {"x": data["x"], "label": data["label"]})["f"]
    return float((data.weights * f).sum())


# Identity gates


@each_data
@each_sharing
def test_everything_exact_is_the_model(data: Dataset, sharing: Any) -> None:
    """Every input of every node claimed, and exactly: nothing is left to be drawn."""
    base = Claim("a", EXACT)
    x = Claim("x", EXACT)
    logit = Claim("logit", reads=[base, Claim("b", EXACT), Claim("c", reads=[base, x])])
    for claim in (Claim("f", EXACT), Claim("f", reads=[Claim("label", EXACT), logit])):
        (result,) = scrub(drop_members(Hypothesis("exact", GRAPH, data, claim, sharing)), draws=2000).results
        assert result.scrubbed.exact and result.scrubbed.draws == 0
        assert result.scrubbed.value == pytest.approx(e_model(data), rel=1e-12)
        assert result.model.value == pytest.approx(e_model(data), rel=1e-12)
        assert result.recovered is not None and result.recovered.exact
        assert result.recovered.value == pytest.approx(100, abs=1e-9)


@each_data
@each_sharing
def test_the_trivial_hypothesis_is_the_randomised_loss(data: Dataset, sharing: Any) -> None:
    trivial = drop_members(Hypothesis("trivial", GRAPH, data, Claim("f", reads=[Claim("label", "label")]), sharing))
    (exact,) = scrub(trivial, draws=20_000, seed=1).results
    assert exact.scrubbed.exact and exact.scrubbed.value == pytest.approx(exact.randomised.value, rel=1e-12)
    (result,) = scrub(trivial, draws=20_000, seed=1, exact=False).results
    assert result.randomised.exact and result.scrubbed.df > 1000
    assert abs(result.scrubbed.value - result.randomised.value) <= Z * result.scrubbed.se
    assert result.recovered is not None and abs(result.recovered.value) <= Z * result.recovered.se
    # With teeth: the two losses are further apart than that.
    assert abs(result.model.value - result.randomised.value) > 10 * Z * result.scrubbed.se


@each_data
@each_sharing
def test_the_root_datum_everywhere_is_the_model(data: Dataset, sharing: Any) -> None:
    rows = torch.arange(N)
    for hypothesis in hypotheses("real", data, sharing):
        tree = unroll(hypothesis)
        f = run_scrubbed(tree, Activations(GRAPH, data), dict.fromkeys(tree.sites, rows))
        assert float((data.weights * f).sum()) == pytest.approx(e_model(data), rel=1e-12), hypothesis.name


@each_sharing
def test_exact_claims_leave_only_the_unimportant_to_chance(sharing: Any) -> None:
    for hypothesis in hypotheses("exact", WEIGHTED, sharing):
        tree = unroll(hypothesis)
        free = [path for path, site in tree.sites.items() if site.claim is None]
        (result,) = scrub(hypothesis, draws=2000).results
        assert result.scrubbed.exact == (not free), hypothesis.name


# Seeds, chunks, memory


def numbers(result: ScrubResult) -> list[float]:
    assert result.recovered is not None
    return [result.scrubbed.value, result.scrubbed.se, result.recovered.low, result.recovered.high, result.model.value]


@each_sharing
def test_a_seed_gives_the_same_numbers_whatever_the_chunk_and_memory(sharing: Any) -> None:
    study = hypotheses("real", WEIGHTED, sharing)

    def run(**options: Any) -> tuple[ScrubResult, ...]:
        return scrub(study, draws=3000, exact=False, **options).results

    first = run(seed=5)
    for other in (run(seed=5, chunk=77), run(seed=5, memory=0)):
        for one, two in zip(first, other, strict=True):
            assert numbers(two) == pytest.approx(numbers(one), rel=1e-12)
    for one, two in zip(first, run(seed=6), strict=True):
        assert one.scrubbed.value != two.scrubbed.value


def test_a_hypothesis_alone_or_in_company() -> None:
    study = hypotheses("real", WEIGHTED)
    alone = scrub(study[2], draws=1000, seed=3).results[0]
    assert numbers(alone) == pytest.approx(numbers(scrub(study, draws=1000, seed=3).results[2]), rel=1e-12)


@pytest.mark.parametrize(("asked", "made"), [(1, 2), (2, 2), (7, 8), (ROUND, ROUND), (ROUND + 3, ROUND + 4)])
def test_draws_are_rounded_up_to_pairs(asked: int, made: int) -> None:
    assert scrub(hypotheses("real", UNIFORM)[1], draws=asked).results[0].scrubbed.draws == made


def test_rounds_have_draws_of_their_own() -> None:
    hypothesis = hypotheses("real", UNIFORM)[1]
    two = scrub(hypothesis, draws=2 * ROUND).results[0].scrubbed
    one = scrub(hypothesis, draws=ROUND).results[0].scrubbed
    assert two.value != pytest.approx(one.value, rel=1e-9) and two.se == pytest.approx(one.se / math.sqrt(2), rel=0.1)


BASELINE = Baseline(2.0, 0.0, 0, "given")


# Interrupts


class Interrupt:
    """A progress callback that is interrupted in a phase the n-th time it is told of it."""

    def __init__(self, phase: str, at: int) -> None:
        self.phase, self.left = phase, at

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase == self.phase:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


@pytest.mark.parametrize("until_width", [None, 1e-3])
def test_an_interrupt_gives_the_estimate_so_far(until_width: float | None) -> None:
    study = hypotheses("real", UNIFORM)[:3]
    draws = 4 * ROUND if until_width is None else None
    seen: list[ScrubResult] = []
    # A round is one chunk here: the interrupt comes as the third round is done and not yet counted.
    result = scrub(
        study,
        draws=draws,
        until_width=until_width,
        chunk=ROUND,
        exact=False,
        progress=Interrupt("draws", 3),
        each=seen.append,
    )
    assert result.cut_short and [r.hypothesis for r in result.results] == [study[0].name]
    (part,) = result.results
    assert part.cut_short and part.scrubbed.draws == 2 * ROUND and seen == [part]
    whole = scrub(study[0], draws=2 * ROUND, exact=False).results[0]
    assert part.scrubbed.value == pytest.approx(whole.scrubbed.value, rel=1e-12)
    assert part.scrubbed.width >= whole.scrubbed.width * (1 - 1e-12)
    assert not whole.cut_short


def test_an_interrupt_keeps_the_hypotheses_that_are_done() -> None:
    study = hypotheses("real", UNIFORM)[:3]
    result = scrub(study, draws=1000, chunk=1000, progress=Interrupt("draws", 2))
    assert result.cut_short and [r.cut_short for r in result.results] == [False]
    assert len(result.results[0].draws.losses) == 1000
    nothing = scrub(study, draws=1000, progress=Interrupt("activations on D", 1))
    assert nothing.cut_short and nothing.results == ()


# Warnings


def warnings_of(claim: Claim, graph: Graph = GRAPH, data: Dataset = UNIFORM, **options: Any) -> str:
    given = {"draws": 4000, "exact": False} | options
    return "\n".join(scrub(Hypothesis("h", graph, data, claim), **given).results[0].warnings)


@pytest.mark.parametrize("rows", [torch.arange(N), np.arange(N), np.arange(N).astype(str), list(range(N)), "index"])
def test_claims_that_swap_nothing_are_vacuous(rows: Any) -> None:
    data = Dataset({"x": X, "label": LABEL, "index": torch.arange(N)})
    claim = Claim("f", reads=[Claim("label", "label"), Claim("logit", reads=[Claim("a", rows)])])
    found = warnings_of(claim, data=data)
    assert "vacuous claim: every block of 'f/logit/a' has a single row" in found
    assert "'f/label'" not in found
    meant = Claim("f", reads=[Claim("label", "label"), Claim("logit", reads=[Claim("a", EXACT)])])
    assert "vacuous" not in warnings_of(meant, data=data)  # "exact" says so itself


def test_baselines_that_coincide() -> None:
    graph = replace(GRAPH, "f", lambda logit, label: logit.sin() + 0 * label, ["logit", "label"])
    graph = Graph(graph.nodes.values(), graph.inputs, graph.output)  # another model: no rewrite to check
    claim = Claim("f", reads=[Claim("logit", LABEL)])
    for options in ({"draws": 400}, {"until_width": 1.0}):
        (result,) = scrub(Hypothesis("h", graph, UNIFORM, claim), exact=False, **options).results  # type: ignore
        assert result.recovered is None and math.isfinite(result.scrubbed.value)
        assert any(w.startswith("baselines coincide") and "undefined" in w for w in result.warnings)
    assert result.scrubbed.draws == ROUND and any("no width can be reached" in w for w in result.warnings)


def test_f_that_does_not_vary() -> None:
    graph = Graph.of({"a": lambda x: x.sum(1), "f": lambda a, label: 0 * a * label + 3}, ["x", "label"], "f")
    found = warnings_of(Claim("f", reads=[Claim("label", "label")]), graph=graph, randomised=2.0)
    assert "no variation: f was the same within every pair of 4,000 draws" in found


def test_too_few_draws() -> None:
    claim = hypotheses("real", UNIFORM)[1].claim
    assert "too few draws: the error rests on" in warnings_of(claim, draws=20)
    assert "too few draws" not in warnings_of(claim, draws=4000)


RARE = torch.arange(N) == 7


def test_too_few_draws_of_a_rare_loss() -> None:
    rare = Dataset({"x": X, "label": RARE.long()}, weights=torch.where(RARE, 0.05, 1))
    graph = Graph.of({"a": lambda x: x.sum(1), "f": lambda a, label: 1000.0 * label + 0 * a}, ["x", "label"], "f")
    claim = Claim("f", reads=[Claim("a", "label")])
    assert "from few or rare large losses" in warnings_of(claim, graph=graph, data=rare, seed=1, randomised=1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_losses_that_are_not_finite(bad: float) -> None:
    x = X.clone()
    x[11] = bad
    data = Dataset({"x": x, "label": LABEL})
    graph = Graph.of({"a": lambda x: x.sum(1), "f": lambda a, label: a**2 - label}, ["x", "label"], "f")
    (result,) = scrub(Hypothesis("h", graph, data, Claim("f", reads=[Claim("a", "label")])), draws=4000).results
    assert result.recovered is None
    assert sum(warning.startswith("non-finite loss") for warning in result.warnings) == 2
    assert not any("baselines coincide" in warning for warning in result.warnings)


def test_a_sound_run_warns_of_nothing() -> None:
    assert warnings_of(hypotheses("real", WEIGHTED)[1].claim, data=WEIGHTED) == ""


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws is 0; expected at least 1"),
        ({"draws": -4}, "draws is -4"),
        ({"until_width": 0.0}, "until-width is 0.0; expected a positive number"),
        ({"until_width": math.nan}, "until-width is nan"),
        ({"until_width": math.inf}, "until-width is inf"),
        ({"draws": 10, "until_width": 1.0}, "both given"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"level": 1.0}, "level is 1.0; expected between 0 and 1"),
        ({"level": 95}, "level is 95; expected between 0 and 1"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        scrub(hypotheses("real", UNIFORM)[1], **options)


def test_a_study_says_how_many_draws_where_a_run_does_not() -> None:
    claim = Claim("f", reads=[Claim("logit", reads=[Claim("a", "label")]), Claim("label", "label")])
    study = Study("dear", [Hypothesis("h", GRAPH, UNIFORM, claim)], draws=90)
    for asked, made in (({}, 90), ({"draws": 40}, 40), ({"until_width": 50.0}, ROUND)):
        (found,) = scrub(study, exact=False, **asked).results
        assert found.scrubbed.draws == made if made < ROUND else found.scrubbed.draws >= made
    with pytest.raises(StudyError, match="draws is 0; expected at least 1"):
        Study("none", study.hypotheses, draws=0)


def test_a_study_of_two_datasets_or_of_no_hypotheses() -> None:
    two = [hypotheses("real", UNIFORM)[0], hypotheses("real", WEIGHTED)[1]]
    with pytest.raises(StudyError, match="'parts' is on another dataset than 'whole output'"):
        Study("s", two)
    with pytest.raises(StudyError, match="has no hypotheses"):
        Study("s", [])
    with pytest.raises(StudyError, match="two hypotheses named 'parts'"):
        Study("s", [hypotheses("real", UNIFORM)[1]] * 2)


def test_a_baseline_that_is_given() -> None:
    hypothesis = hypotheses("real", UNIFORM)[1]
    (plain,) = scrub(hypothesis, draws=1000).results
    for given in (2.0, BASELINE):
        (result,) = scrub(hypothesis, draws=1000, randomised=given).results
        assert result.randomised == BASELINE and result.recovered is not None
        expected = 100 * (plain.scrubbed.value - 2) / (plain.model.value - 2)
        assert result.recovered.value == pytest.approx(expected)


def test_labels_of_the_study_are_those_broken_off() -> None:
    hypothesis = hypotheses("real", UNIFORM)[1]
    with pytest.raises(StudyError, match="label 'lable' is not read"):
        scrub(Study("s", [hypothesis], labels=["lable"]), draws=10)
    assert scrub(Study("s", [hypothesis], labels=["label"], notes=["n"]), draws=10).notes == ("n",)


def test_the_labels_are_said_and_may_be_given() -> None:
    hypothesis = hypotheses("real", UNIFORM)[1]
    found = scrub(hypothesis, draws=10)
    assert found.labels == ("label",) and repr(found).startswith("study, 95 % intervals, label: label\n")
    assert scrub(hypothesis, draws=10, labels="label").results[0].randomised == found.results[0].randomised
    assert scrub(hypothesis, draws=10, randomised=2.0).labels == ()
    with pytest.raises(StudyError, match="label 'lable' is not read"):
        scrub(hypothesis, draws=10, labels="lable")


def test_graphs_written_apart_whose_randomised_losses_differ() -> None:
    """Equal on D, where the label is 1 just where x is positive; off D they are not."""
    data = Dataset({"x": X[:, 0], "label": (X[:, 0] > 0).long()})

    def graph(loss: Any) -> Graph:
        return Graph.of({"out": lambda x: (x > 0).double(), "f": loss}, ["x", "label"], "f")

    graphs = graph(lambda out, label: (out - label).abs()), graph(lambda out, label: 2 * (out - label).abs())
    pair = [Hypothesis(str(i), each, data, Claim("f", EXACT)) for i, each in enumerate(graphs)]
    with pytest.raises(StudyError, match=r"equal on D, and their E_randomised are 0\.\d+ and [01]\.\d+ \(label: label"):
        scrub(pair, draws=10)
    rewritten = replace(graphs[0], "f", lambda out, label: 2 * (out - label).abs(), ["out", "label"])
    one, other = scrub([pair[0], Hypothesis("1", rewritten, data, Claim("f", EXACT))], draws=10).results
    assert one.randomised == other.randomised


def test_phases_are_timed_and_rewrites_reported() -> None:
    graph = replace(GRAPH, "b", lambda x: x[:, 2] * x[:, 1], ["x"])
    result = scrub(Hypothesis("h", graph, UNIFORM, hypotheses("real", UNIFORM)[1].claim), draws=100)
    assert {"checks", "baselines", "drawing", "evaluation"} <= set(result.seconds)
    assert all(spent >= 0 for spent in result.seconds.values())
    assert [(check.kind, check.node) for check in result.rewrites] == [("replace", "b")]


# A node that fails


class Boom:
    """A node's function that raises in some of its calls, counted from 1; in all after the last of them, if so said."""

    def __init__(self, *calls: int, always: bool = False) -> None:
        self.count, self.calls, self.always = 0, calls, always

    def __call__(self, logit: Tensor, label: Tensor) -> Tensor:
        self.count += 1
        if self.count in self.calls or (self.always and self.count > self.calls[-1]):
            raise ValueError("boom\nand more")  # the user's line
        return GRAPH.nodes["f"].fn(logit, label)


def failing(boom: Boom) -> list[Hypothesis]:
    nodes = [n if n.name != "f" else Node("f", n.inputs, boom) for n in GRAPH.nodes.values()]
    graph = Graph(nodes, GRAPH.inputs, "f")
    return [Hypothesis(name, graph, UNIFORM, claim) for name, claim in claims("real")]


def fail(boom: Boom, **options: Any) -> GraphError:
    with pytest.raises(GraphError) as caught:
        scrub(failing(boom), draws=3 * ROUND, chunk=ROUND, exact=False, **options)
    error = caught.value
    assert type(error.__cause__) is ValueError and str(error.__cause__).startswith("boom")
    return error


def test_a_node_that_fails_is_named_with_what_it_was_given_and_the_line() -> None:
    error = fail(Boom(1))
    (fault,) = error.faults
    assert fault.startswith("node 'f' fails on 'logit' float64[5], 'label' int64[5]: ValueError: boom (at ")
    assert __file__ in fault and fault.endswith('raise ValueError("boom\\nand more")  # the user\'s line)')
    assert not isinstance(error, RoundError)  # nothing was drawn yet


def calls_until(hypothesis: int, rounds: int) -> int:
    """Calls of f before the one in which a hypothesis has so many finished rounds, and the next is begun."""
    boom, seen = Boom(), list[int]()
    scrub(failing(boom), draws=3 * ROUND, chunk=ROUND, exact=False, each=lambda _: seen.append(boom.count))
    return seen[hypothesis] - 3 + rounds  # a call a round, the last three


def values(result: StudyResult) -> list[Any]:
    return [(r.hypothesis, r.scrubbed, r.recovered, r.draws) for r in result.results]


def test_a_node_that_fails_once_costs_nothing() -> None:
    whole = scrub(hypotheses("real", UNIFORM), draws=3 * ROUND, chunk=ROUND, exact=False)
    again = scrub(failing(Boom(calls_until(1, 1) + 1)), draws=3 * ROUND, chunk=ROUND, exact=False)
    assert values(again) == values(whole) and not again.cut_short


def test_a_round_that_fails_as_often_as_it_is_tried_is_named_and_the_rest_goes_on() -> None:
    whole = scrub(hypotheses("real", UNIFORM), draws=3 * ROUND, chunk=ROUND, exact=False)
    saved: list[StudyResult] = []
    at = calls_until(1, 1) + 1  # round 1 of 'parts'; tried again after round 2
    error = fail(Boom(at, at + 2), save=saved.append)
    assert isinstance(error, RoundError) and len(error.faults) == 1
    fault = error.faults[0]
    assert (
        fault.startswith("hypothesis 'parts': node 'f' fails on ") and "; round 0-1, tried 2 times, last by " in fault
    )
    assert f"kept: 'whole output' ({3 * ROUND:,} draws), 'parts' ({2 * ROUND:,} draws so far), " in fault
    found = error.result
    assert found == saved[-1] and found.cut_short
    assert [r.cut_short for r in found.results] == [False, True, *[False] * (len(whole.results) - 2)]
    assert [each for i, each in enumerate(values(found)) if i != 1] == [
        e for i, e in enumerate(values(whole)) if i != 1
    ]
    part = found.results[1]
    assert [r.index for r in part.draws.rounds] == [0, 2] and part.scrubbed.draws == 2 * ROUND
    # Tried a third time it would have been there.
    again = scrub(failing(Boom(at, at + 2)), draws=3 * ROUND, chunk=ROUND, exact=False, workers=Workers(tries=3))
    assert values(again) == values(whole)


def test_a_node_that_always_fails_leaves_the_hypotheses_before() -> None:
    saved: list[StudyResult] = []
    error = fail(Boom(calls_until(2, 0) + 1, always=True), save=saved.append)
    names = [h.name for h in hypotheses("real", UNIFORM)]
    assert [fault.split("'")[1] for fault in error.faults] == names[2:]
    assert all("; rounds 0-0, 0-1, 0-2, tried 2 times, last by this process" in fault for fault in error.faults)
    assert error.faults[-1].endswith(f"; kept: 'whole output' ({3 * ROUND:,} draws), 'parts' ({3 * ROUND:,} draws)")
    assert [r.hypothesis for r in saved[-1].results] == names[:2] and saved[-1].cut_short


def test_until_a_width_a_stage_that_fails_ends_its_hypothesis() -> None:
    """A later stage is not asked for: how many draws there are to be is read off all that came before."""
    only = failing(Boom())[1:2]
    calls = len(scrub(only, until_width=1.0, chunk=ROUND, exact=False).results[0].draws.rounds)
    assert calls > 2
    boom = only[0].graph.nodes["f"].fn
    assert isinstance(boom, Boom)
    start = boom.count - calls
    boom.count, boom.calls, boom.always = 0, (start + 2,), True
    with pytest.raises(RoundError) as caught:
        scrub(only, until_width=1.0, chunk=ROUND, exact=False)
    (result,) = caught.value.result.results
    assert result.cut_short and [r.index for r in result.draws.rounds] == [0]


def test_numbers_of_tries_that_make_no_sense() -> None:
    with pytest.raises(StudyError, match=r"2 faults:\n.*tries is 0; expected 1 or more\n.*at_once is -1"):
        Workers(tries=0, at_once=-1)
