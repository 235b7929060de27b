"""Draws apart against a route in plain Python that lists them, and the plan of which sites hold one row."""

from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from pscrub import Claim, Dataset, Graph, Hypothesis, unroll
from pscrub.data.partition import number_units
from pscrub.hypothesis.tree import Tree, make_exact
from pscrub.law import apart
from pscrub.law.apart import Apart, Places, Spans, draw_apart, plan_places
from tests.false_alarm import counts_alarm

Step = tuple[Sequence[int], int | None]
"""The block of each row, and the place whose row says which block; None: all of D."""


def law_apart(steps: Sequence[Step], weights: Sequence[int], units: Sequence[int]) -> dict[tuple[int, ...], Fraction]:
    """The law of rows taken one after another, each of a unit that was not taken: what `draw_apart` is held against."""
    law = {(): Fraction(1)}
    for blocks, source in steps:
        longer: dict[tuple[int, ...], Fraction] = {}
        for taken, p in law.items():
            used = {units[row] for row in taken}
            mine = [
                row
                for row in range(len(weights))
                if units[row] not in used and (source is None or blocks[row] == blocks[taken[source]])
            ]
            total = sum(weights[row] for row in mine)
            for row in mine:
                longer[(*taken, row)] = longer.get((*taken, row), Fraction(0)) + p * Fraction(weights[row], total)
        law = longer
    return law


COARSE, FINE, CROSS = [0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 0, 1, 2, 0, 1, 2]
WEIGHTS = [1, 2, 1, 3, 1, 1, 2, 2, 1]
ALONE, DOCUMENTS = list(range(9)), [0, 1, 2, 3, 4, 5, 6, 7, 0]
FUNCTIONS: dict[str, Any] = {
    "p": lambda x: x + 1,
    "q": lambda x: 2 * x,
    "c": lambda p, q: p - q,
    "f": lambda c, x: 1.0 * c + x,
    "g": lambda p, q, x: 1.0 * p * q + x,
}
GRAPHS = {output: Graph.of(FUNCTIONS, inputs=["x"], output=output) for output in ("f", "g")}


def data(weights: Sequence[int] = (1,) * 9, units: Sequence[int] = ALONE) -> Dataset:
    columns = {"x": ALONE, "coarse": COARSE, "fine": FINE, "cross": CROSS, "unit": units}
    return Dataset({name: torch.tensor(column) for name, column in columns.items()}, torch.tensor(weights).double())


def tree_of(claim: Claim, of: Dataset, output: str = "f") -> Tree:
    return unroll(Hypothesis("h", GRAPHS[output], of, claim))


ONE = Claim("f", reads=[Claim("c", "coarse"), Claim("x", "exact")])
SIBLINGS = Claim("g", reads=[Claim("p", "fine"), Claim("q", "coarse"), Claim("x", "exact")])
CHAIN = Claim("f", reads=[Claim("c", "cross", reads=[Claim("p", "fine"), Claim("q", "cross")]), Claim("x", "exact")])
FREE = Claim("g", reads=[Claim("p", "fine"), Claim("x", "exact")])
SHAPES: dict[str, tuple[Claim, str, list[Step], list[str]]] = {
    "one level": (ONE, "f", [(COARSE, None), (COARSE, 0)], ["f", "f/c"]),
    # The coarser first: what is taken from a coarse block must not be tilted by what was taken from a fine one.
    "siblings": (SIBLINGS, "g", [(COARSE, None), (COARSE, 0), (FINE, 0)], ["g", "g/q", "g/p"]),
    "unimportant": (FREE, "g", [(COARSE, None), (COARSE, None), (FINE, 0)], ["g", "g/~", "g/p"]),
    "two levels": (CHAIN, "f", [(COARSE, None), (CROSS, 0), (CROSS, 0), (FINE, 2)], []),
}


def tuples(drawn: Apart, paths: Sequence[str]) -> Counter[tuple[int, ...]]:
    rows = drawn.data()
    return Counter(zip(*(rows[path].tolist() for path in paths), strict=True))


def alarms(name: str, weights: Sequence[int], units: Sequence[int], draws: int = 60_000) -> bool:
    """Whether draws of a shape are too far from the law that is listed."""
    claim, output, steps, paths = SHAPES[name]
    of = data(weights, units)
    places = plan_places(tree_of(claim, of, output), number_units(of, None if units is ALONE else "unit"))
    drawn = draw_apart(places, draws, (3,))
    law = law_apart(steps, weights, units)
    whole = sum(law.values())
    share = float(drawn.known.double().mean())
    # Roots are stratified, which brings counts nearer to the law than independent draws would be.
    return (
        counts_alarm(tuples(drawn, paths), {k: float(p / whole) for k, p in law.items()})
        or abs(share - float(whole)) > 0.02
    )


@pytest.mark.parametrize("name", ["one level", "siblings", "unimportant"])
@pytest.mark.parametrize(("weights", "units"), [((1,) * 9, ALONE), (WEIGHTS, ALONE), (WEIGHTS, DOCUMENTS)])
def test_draws_apart_follow_the_law_that_is_listed(name: str, weights: Sequence[int], units: Sequence[int]) -> None:
    assert not alarms(name, weights, units)


def pick_but(left_out: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> Any:
    whole = Spans.pick
    return lambda self, blocks, taken, generator: whole(self, blocks, left_out(taken), generator)


FAULTS = {
    "the own row is left among the donors": ("one level", lambda taken: taken[1:]),
    "siblings may be given one row": ("siblings", lambda taken: taken[:1]),
    "an unimportant input may be given a claimed one's row": ("unimportant", lambda taken: taken[:1]),
    "nothing is left out": ("siblings", lambda taken: []),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_row_that_is_used_twice_is_caught(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    name, left_out = FAULTS[fault]
    monkeypatch.setattr(Spans, "pick", pick_but(left_out))
    assert alarms(name, (1,) * 9, ALONE)


def test_the_order_of_the_tree_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fine blocks before coarse ones, as the program draws them, is another law."""
    plan = plan_places

    def by_tree(tree: Tree, units: Tensor) -> Places:
        places = plan(tree, units)
        first, coarse, fine = places.places
        return Places(tree, (first, fine, coarse), units, tuple(places.spans[i] for i in (0, 2, 1)))

    monkeypatch.setitem(globals(), "plan_places", by_tree)
    assert alarms("siblings", (1,) * 9, ALONE)


def test_a_document_that_is_used_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    claim, output, _, paths = SHAPES["one level"]
    drawn = draw_apart(plan_places(tree_of(claim, data(), output), torch.arange(9)), 60_000, (3,))
    law = law_apart([(FINE, None), (FINE, None)], [1] * 9, DOCUMENTS)
    assert counts_alarm(tuples(drawn, paths), {k: float(p) for k, p in law.items()})


@pytest.mark.parametrize("order", ["coarse first", "fine first"])
def test_what_is_listed_is_unbiased_in_the_population(order: str) -> None:
    """Exactly, over all contents that six rows may have: three of each of two fine blocks, in one coarse block.

    In the population a row's content is 1 with probability 1/3 in the first fine block and 3/4 in the second, and
    another row of the coarse block is of the same fine block with the share that others have: 2 of 5.
    """
    fine, p_one = [0, 0, 0, 1, 1, 1], [Fraction(1, 3), Fraction(3, 4)]
    steps: list[Step] = [([0] * 6, None), ([0] * 6, 0), (fine, 0)]
    law = law_apart(steps if order == "coarse first" else [steps[0], steps[2], steps[1]], [1] * 6, range(6))

    def f(root: int, of_coarse: int, of_fine: int, same: bool) -> int:
        return 1 + 2 * root + 5 * of_coarse * of_fine + 3 * root * of_coarse + 7 * same * of_coarse

    found = Fraction(0)
    for contents in product((0, 1), repeat=6):
        p = Fraction(1)
        for content, block in zip(contents, fine, strict=True):
            p *= p_one[block] if content else 1 - p_one[block]
        for rows, q in law.items():
            root, b, c = rows if order == "coarse first" else (rows[0], rows[2], rows[1])
            found += p * q * f(contents[root], contents[b], contents[c], fine[root] == fine[b])
    expected = Fraction(0)
    for block, other in product((0, 1), repeat=2):
        share = Fraction(1, 2) * Fraction(2 if block == other else 3, 5)
        for root, b, c in product((0, 1), repeat=3):
            chances = [(root, block), (b, other), (c, block)]
            p = share
            for content, where in chances:
                p *= p_one[where] if content else 1 - p_one[where]
            expected += p * f(root, b, c, block == other)
    assert (found == expected) is (order == "coarse first")


def shared(claim: Claim, output: str = "f", of: Dataset | None = None) -> list[tuple[str, ...]]:
    of = of or data()
    return [place.sites for place in plan_places(tree_of(claim, of, output), torch.arange(of.n)).places]


def test_rows_that_the_hypothesis_calls_one_datum_stay_one() -> None:
    assert shared(ONE) == [("f", "f/x"), ("f/c",)]
    # A column that the claim determines is the same whatever row it is read from.
    told = Claim("f", reads=[Claim("c", "coarse"), Claim("x", "x")])
    assert shared(told)[1] == ("f/c",) and "f/x" in shared(told)[0]
    # f depends on c's datum, on which the root agrees, and on nothing of the root's own row.
    assert shared(Claim("f", reads=[Claim("c", "coarse")])) == [("f/c", "f"), ("f/~",)]
    assert shared(Claim("f", "exact")) == [("f",)]
    # c's datum agrees on `coarse` with its parent, and hands on no more than p agrees on.
    below = Claim("c", "coarse", reads=[Claim("p", "fine"), Claim("q", "coarse")])
    assert shared(Claim("f", reads=[below, Claim("x", "exact")])) == [("f", "f/x"), ("f/c/p", "f/c"), ("f/c/q",)]
    # Crossing features: c's datum is one of its own.
    assert len(shared(CHAIN)) == 4
    tree = make_exact(tree_of(FREE, data(), "g"), ["g/~"])
    assert plan_places(tree, torch.arange(9)).places[0].sites == ("g", "g/~", "g/x")


def test_two_levels_hold_four_rows_and_a_fault_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deeper nodes too: root, c, p and q hold different rows, p of c's fine block and q of its crossing one."""

    def repeats(places: Places) -> bool:
        drawn = draw_apart(places, 20_000, (1,))
        rows = torch.stack([drawn.data()[path] for path in ("f", "f/c", "f/c/p", "f/c/q")])
        return any(bool((rows[i] == rows[j]).any()) for i in range(4) for j in range(i))

    of = Dataset({name: column.repeat(3) for name, column in data().columns.items()})
    places = plan_places(tree_of(CHAIN, of), torch.arange(27))
    assert not repeats(places)
    drawn = draw_apart(places, 20_000, (1,)).data()
    assert bool((of["cross"][drawn["f"]] == of["cross"][drawn["f/c"]]).all())
    assert bool((of["cross"][drawn["f/c"]] == of["cross"][drawn["f/c/q"]]).all())
    assert bool((of["fine"][drawn["f/c"]] == of["fine"][drawn["f/c/p"]]).all())
    for left_out in (lambda taken: taken[1:], lambda taken: taken[:-1], lambda taken: taken[-1:]):
        with monkeypatch.context() as patched:
            patched.setattr(apart.Spans, "pick", pick_but(left_out))
            assert repeats(places)


def test_draws_without_a_row_left_are_not_known() -> None:
    of = Dataset({"x": torch.arange(5), "coarse": torch.tensor([0, 0, 0, 1, 2])})
    places = plan_places(tree_of(ONE, of), torch.arange(5))
    drawn = draw_apart(places, 1000, (0,))
    assert float(drawn.known.double().mean()) == pytest.approx(0.6)
    assert set(drawn.data()["f"].tolist()) == {0, 1, 2}


def test_seeds_name_draws_and_rows_of_weight_zero_are_never_drawn() -> None:
    of = data([1, 1, 0, 1, 1, 1, 1, 1, 1])
    places = plan_places(tree_of(SIBLINGS, of, "g"), torch.arange(9))
    one, again, other = (draw_apart(places, 2000, seed).rows for seed in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert not bool((one == 2).any())
