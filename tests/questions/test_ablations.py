"""Ablations of one hypothesis: what replaces a node is what it says, and all kinds see the same draws."""

import math

import pytest
import torch
from torch import Tensor

from pscrub import EXACT, Claim, Dataset, Graph, Hypothesis, HypothesisError, StudyError, unroll
from pscrub.cli import main
from pscrub.evaluate.engine import Engine
from pscrub.evaluate.reference import run_scrubbed
from pscrub.evaluate.values import Activations
from pscrub.hypothesis.ablation import KINDS, Ablation, Kind
from pscrub.law.drawing import draw
from pscrub.law.of_f import law_of_f, scrubbed_expectation
from pscrub.questions.ablations import compare_ablations, run_on_partners
from pscrub.questions.comparison import compare
from tests.false_alarm import mean_radius

N = 12


def example(sharing: str = "reader") -> Hypothesis:
    """f reads a claimed inner node (of s, claimed, and of t), and u and a vector, both unimportant."""
    generator = torch.Generator().manual_seed(0)

    def column(*shape: int) -> Tensor:
        return torch.randint(-3, 4, (N, *shape), generator=generator).double()

    weights = torch.rand(N, generator=generator, dtype=torch.float64)
    weights[3] = 0.0
    data = Dataset({"s": column(), "t": column(), "u": column(), "pair": column(2), "y": column()}, weights)
    data["u"][3] = math.nan  # a row that is never drawn may hold anything
    functions = {
        "inner": lambda s, t: s + 2 * t,
        "vector": lambda pair: 1.0 * pair,
        "out": lambda inner, u, vector: inner + u * vector.sum(1),
        "f": lambda out, y: (out - y) ** 2,
    }
    graph = Graph.of(functions, inputs=["s", "t", "u", "pair", "y"], output="f")
    inner = Claim("inner", lambda d: d["s"] > 0, reads=[Claim("s", "s")])
    claim = Claim("f", reads=[Claim("out", reads=[inner]), Claim("y", "exact")])
    return Hypothesis("example", graph, data, claim, sharing=sharing)  # type: ignore[arg-type]


def evaluated(h: Hypothesis, ablation: Ablation, draws: int = 64, seed: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
    tree = unroll(h)
    data = draw(tree, draws, (seed, 0))
    return run_scrubbed(tree, Activations(h.graph, h.data), data, ablation=ablation), data


def mean(values: Tensor, weights: Tensor) -> Tensor:
    kept = weights > 0
    w = weights[kept] / weights[kept].sum()
    return (values[kept] * w.reshape(-1, *(1,) * (values.ndim - 1))).sum(0)


@pytest.mark.parametrize("kind", ["mean", "zero"])
def test_unimportant_inputs_are_their_mean_or_zero_and_claimed_ones_are_drawn(kind: str) -> None:
    h = example()
    columns, w = h.data.columns, h.data.weights
    f, data = evaluated(h, Ablation(kind))  # type: ignore[arg-type]
    scale = 1.0 if kind == "mean" else 0.0
    t, u, pair = (scale * mean(columns[name], w) for name in ("t", "u", "pair"))  # type: ignore[arg-type]
    inner = columns["s"][data["f/out/inner/s"]] + 2 * t  # type: ignore[index]
    wanted = (inner + u * pair.sum() - columns["y"][data["f/y"]]) ** 2  # type: ignore[index]
    assert torch.allclose(f, wanted, rtol=1e-14)


def test_a_claimed_node_is_its_mean_within_the_block_that_was_drawn() -> None:
    h = example()
    columns, w = h.data.columns, h.data.weights
    f, data = evaluated(h, Ablation("mean", claimed=("f/out/inner",)))
    s, t, u, pair, y = (columns[name] for name in ("s", "t", "u", "pair", "y"))
    positive = s > 0  # type: ignore[operator]
    value = s + 2 * t  # type: ignore[operator]
    means = [mean(value[positive == side], w[positive == side]) for side in (False, True)]
    block = positive[data["f/out/inner"]].long()
    rest = mean(u, w) * mean(pair, w).sum()  # type: ignore[arg-type]
    assert torch.allclose(f, (torch.stack(means)[block] + rest - y[data["f/y"]]) ** 2, rtol=1e-14)
    # Neither D's mean nor unweighted ones, which planted in the code would give the same f, are the same here.
    assert not torch.allclose(means[0], means[1])
    assert not torch.allclose(means[0], value[~positive & (w > 0)].mean())


def test_all_leaves_can_be_replaced() -> None:
    h = example()
    f, _ = evaluated(h, Ablation("zero", claimed="all"))
    assert bool((f == 0).all())


@pytest.mark.parametrize("sharing", ["reader", "all", "each"])
@pytest.mark.parametrize("claimed", [(), ("f/out/inner",), "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_law_and_draws_agree(kind: str, claimed: object, sharing: str) -> None:
    h, law_of = example(sharing), Ablation(kind, claimed)  # type: ignore[arg-type]
    law, draws = law_of_f(unroll(h), ablation=law_of), 4096
    assert math.fsum(law.values()) == pytest.approx(1, abs=1e-12)
    expected = scrubbed_expectation(unroll(h), ablation=law_of)
    variance = math.fsum(p * (x - expected) ** 2 for x, p in law.items())
    f, _ = evaluated(h, law_of, draws)
    assert abs(float(f.mean()) - expected) <= mean_radius(variance, max(abs(x - expected) for x in law), draws) + 1e-9


def test_resampling_is_what_scrubbing_does_anyhow() -> None:
    h = example()
    tree = unroll(h)
    data = draw(tree, 64, (1, 0))
    plain = run_scrubbed(tree, Activations(h.graph, h.data), data)
    assert torch.equal(plain, evaluated(h, Ablation("resampling", claimed="all"))[0])


def test_one_call_compares_all_on_the_same_draws() -> None:
    h = example()
    losses = compare_ablations(h, 501, seed=1)
    assert losses.names == KINDS
    assert losses.f.shape == (3, 502)
    for kind, f in zip(losses.names, losses.f, strict=True):
        assert torch.equal(f, evaluated(h, Ablation(kind), 502)[0])  # type: ignore[arg-type]
    step = compare(losses, "resampling", "mean")
    assert step.difference.value == pytest.approx(float((losses.f[1] - losses.f[0]).mean()))
    assert all(score is not None and score.low <= score.value <= score.high for score in losses.scores())


def paired(sharing: str = "reader") -> Hypothesis:
    """The example with a partner for each row, none of weight 0, whose values are no numbers."""
    h, rows = example(sharing), torch.arange(N)
    others = torch.where((rows + 5) % N == 3, 4, (rows + 5) % N)
    return Hypothesis(h.name, h.graph, Dataset({**h.data.columns, "other": others}, h.data.weights), h.claim, h.sharing)


@pytest.mark.parametrize("sharing", ["reader", "each", "all"])
def test_partners_stand_in_for_unimportant_inputs(sharing: str) -> None:
    """Of the datum of whoever reads them; of the root's where the draw is shared. Claims are drawn as ever."""
    h = paired(sharing)
    found = compare_ablations(h, 64, seed=1, kinds=("zero",), partner="other")
    assert found.names == ("zero", "partner")
    data, other = draw(unroll(h), 64, (1, 0)), h.data["other"]
    s, t, u, pair, y = (h.data[name] for name in ("s", "t", "u", "pair", "y"))
    inner, out = (other[data["f" if sharing == "all" else path]] for path in ("f/out/inner", "f/out"))
    wanted = s[data["f/out/inner/s"]] + 2 * t[inner] + u[out] * pair[out].sum(1)
    assert torch.allclose(found.f[1], (wanted - y[data["f/y"]]) ** 2, rtol=1e-14)


def test_on_partners_nothing_is_drawn() -> None:
    h, rows = paired(), torch.arange(N)
    inner = Claim("inner", reads=[Claim("s", EXACT)])
    claim = Claim("f", reads=[Claim("out", reads=[inner]), Claim("y", EXACT)])
    f = run_on_partners(Hypothesis("exact", h.graph, h.data, claim), "other")
    s, t, u, pair, y = (h.data[name] for name in ("s", "t", "u", "pair", "y"))
    other = h.data["other"]
    assert torch.allclose(f, (s + 2 * t[other] + u[other] * pair[other].sum(1) - y) ** 2, rtol=1e-14)
    own = Hypothesis("own", h.graph, h.data, Claim("f", reads=[Claim("s", EXACT)], rest=EXACT, paths="any"))
    itself = (s + 2 * t + u * pair.sum(1) - y)[rows != 3] ** 2
    assert torch.allclose(run_on_partners(own, "other")[rows != 3], itself, rtol=1e-14)  # an exact rest stays
    with pytest.raises(HypothesisError, match="'f/out/inner' is drawn, as its claim is not exact"):
        run_on_partners(h, "other")


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (torch.arange(N) + 9, "names row 12 on row 3 and 8 more; expected rows 0 to 11"),
        (torch.arange(N) - 1, "names row -1 on row 0; expected rows 0 to 11"),
        (torch.ones(N), "cannot name partners; expected whole numbers"),
        (torch.zeros(N, 2, dtype=torch.int64), "cannot name partners"),
    ],
)
def test_columns_that_name_no_rows_are_refused(column: Tensor, said: str) -> None:
    h = example()
    data = Dataset({**h.data.columns, "other": column}, h.data.weights)
    with pytest.raises(HypothesisError, match=said):
        compare_ablations(Hypothesis(h.name, h.graph, data, h.claim), 10, partner="other")
    with pytest.raises(HypothesisError, match="no column 'othr' names a partner; did you mean"):
        compare_ablations(Hypothesis(h.name, h.graph, data, h.claim), 10, partner="othr")


def test_an_integer_has_no_mean() -> None:
    data = Dataset({"token": torch.tensor([0, 1]), "y": torch.zeros(2)})
    graph = Graph.of({"h": lambda token: 2.0 * token, "f": lambda token, h, y: token + h - y}, ["token", "y"], "f")
    h = Hypothesis("h", graph, data, Claim("f", reads=[Claim("y", "exact")]))
    with pytest.raises(HypothesisError, match=r"mean ablation of 'token' at 'f/~': its values are torch\.int64"):
        compare_ablations(h, 10, labels="y")
    assert compare_ablations(h, 10, kinds=("resampling", "zero"), labels="y").f.shape == (2, 10)


@pytest.mark.parametrize(
    ("kind", "claimed", "said"),
    [
        ("means", (), "unknown ablation 'means'; did you mean 'mean'"),
        ("mean", ("f/out/inned",), "no such tree node; did you mean 'f/out/inner'"),
        ("mean", ("f",), "it is the root"),
        ("zero", "every", "expected paths of tree nodes, or 'all'"),
    ],
)
def test_what_cannot_be_ablated_is_named(kind: str, claimed: object, said: str) -> None:
    with pytest.raises(HypothesisError) as caught:
        evaluated(example(), Ablation(kind, claimed))  # type: ignore[arg-type]
    assert said.split(";")[0] in str(caught.value)


def test_draws_are_needed() -> None:
    with pytest.raises(StudyError, match="draws is 0"):
        compare_ablations(example(), 0)


def test_the_command_compares_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablations", "ablation_backup", "--draws", "1024", "--hypothesis", "M2", "--markdown"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["ablation", "---", *KINDS]
    assert [line.split("|")[3].strip() for line in lines[3:]] == ["99.75", "99.75"]
    assert main(["ablations", "hash_game", "--draws", "64"]) == 0
    assert "have no mean" in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_the_readers_own_is_not_ablated(kind: Kind) -> None:
    """An exact rest stays, integers and all, whatever stands in for what is claimed."""
    data = Dataset({"x": torch.tensor([1, 2, 3, 6]), "y": torch.tensor([1, 0, 1, 1])})
    nodes = {"s": lambda x: 2.0 * x, "f": lambda s, y, x: s * y + 100 * x}
    h = Hypothesis(
        "h", Graph.of(nodes, ["x", "y"], "f"), data, Claim("f", reads=[Claim("s", torch.zeros(4))], rest=EXACT)
    )
    tree = unroll(h)
    drawn = draw(tree, 50, (0,))
    f = Engine(data).f(tree, drawn, ablation=Ablation(kind, claimed="all"))
    x, y = data["x"][drawn["f"]].double(), data["y"][drawn["f"]]
    s = {"resampling": 2.0 * data["x"][drawn["f/s"]], "mean": torch.tensor(6.0), "zero": torch.tensor(0.0)}[kind]
    assert torch.equal(f, s.double() * y + 100 * x)
