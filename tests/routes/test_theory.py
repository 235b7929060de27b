"""`python -m theory` on fewer cases: bounds hold, every planted fault is caught, and what is wrong makes it fail."""

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pscrub.law import maxent
from tests.routes import oracle
from theory import __main__ as theory
from theory import brute, closed_form, fun_fact_3, lemma_1, own_datum, theorem_2, trace_entropy
from theory.case import Case
from theory.cases import MODES, cases, depth, hypothesis, read_twice
from theory.routes import Tried
from theory.table import Fault, Report, Route, table

BOUNDS = {"Lemma 1": 1e-12, "Fun fact 3": 1e-10, "Closed form": 1e-12, "Entropy of the trace": 1e-12}
each_claim = pytest.mark.parametrize("k", range(len(theory.CLAIMS)), ids=theory.NAMES)


@cache
def tries(count: int) -> tuple[Tried, ...]:
    return tuple(Tried(case) for case in cases(count))


@cache
def report(k: int) -> Report:
    """What came of checking a claim on every number of leaves in every sharing mode."""
    return theory.CLAIMS[k].check(tries(36), 1)


@each_claim
def test_the_claim_holds(k: int) -> None:
    found = report(k)
    assert found.routes and all(route.holds for route in found.routes), table([found])
    for route in found.routes:
        assert route.bound <= BOUNDS.get(found.claim, 1e-6)


def test_theorem_2_keeps_its_bounds() -> None:
    routes = {route.name.split(",")[0]: route for route in report(theory.NAMES.index("theorem_2")).routes}
    assert routes["certificate: log p in the row space"].worst <= 1e-10
    assert routes["Newton on the dual"].worst <= 1e-9
    assert routes["Clarabel"].worst <= 1e-6
    assert routes["Newton on the dual"].checks > 300


@each_claim
def test_planted_faults_are_caught(k: int) -> None:
    found = report(k)
    assert found.faults
    for fault in found.faults:
        if fault.name.endswith("Clarabel") and find_spec("cvxpy") is None:
            continue
        assert fault.planted > 0 and fault.holds, table([found])
        assert fault.expected or fault.note  # what a check cannot catch has its reason beside it


def test_the_cases_are_of_every_kind() -> None:
    """What the generator is meant to reach, counted over what `python -m theory` checks."""
    listed = cases(theory.ENOUGH)
    n_leaves = [len(brute.leaves(case)) for case in listed]
    assert set(n_leaves) == set(range(2, 11))
    assert {depth(case) for case in listed} == {1, 2, 3, 4}
    sharing = [case.sharing if isinstance(case.sharing, str) else "groups" for case in listed]
    assert all(sharing.count(mode) >= 60 for mode in MODES)
    assert sum(not case.uniform for case in listed) > 120
    assert sum(case.uniform for case in listed) > 60
    assert sum(0 in case.weights for case in listed) > 60
    assert sum(len(set(case.x)) < len(case.x) for case in listed) > 40
    assert sum(map(read_twice, listed)) > 60
    assert sum(any(site.claim is None for site in brute.sites(case)) for case in listed) > 150
    for case in listed:
        hypothesis(case).check()


def as_oracle(case: Case) -> oracle.Case:
    """The case as the tests' oracle has it."""
    names = [*dict.fromkeys(node for said in case.claims.values() for node in said.unimportant)]
    inputs = {name: ("x",) for name in names} | {
        name: (*said.reads, *said.unimportant) or ("x",) for name, said in case.claims.items()
    }
    order: list[str] = []

    def add(name: str) -> None:
        for read in inputs.get(name, ()):
            add(read)
        if name in inputs and name not in order:
            order.append(name)

    add(case.root)

    def total(n: int) -> oracle.Polynomial:
        return oracle.Polynomial(tuple((1, tuple(int(i == j) for j in range(n))) for i in range(n)))

    nodes = {name: oracle.GraphNode(inputs[name], total(len(inputs[name]))) for name in order}
    claims = {name: oracle.CaseClaim(name, said.feature, said.reads) for name, said in case.claims.items()}
    return oracle.Case(("x",), tuple((v,) for v in case.x), case.weights, nodes, claims, case.root, case.sharing)


def test_two_enumerations_agree() -> None:
    """The recursion was written down twice, here and for the tests: one law."""
    for tried in tries(36):
        other = as_oracle(tried.case)
        order = oracle.sites(other)
        paths = [site.path for site in brute.sites(tried.case)]
        assert sorted(order) == sorted(paths)
        assert oracle.law(other) == {
            tuple(data[paths.index(path)] for path in order): p for data, p in tried.law.items()
        }


def fails(claim: Any, *names: str) -> None:
    """The claim does not hold, and the routes that begin with these names say so."""
    found = claim.check(tries(10), 0)
    assert not found.holds
    wrong = [route.name for route in found.routes if not route.holds]
    assert all(any(each.startswith(name) for each in wrong) for name in names), wrong


def test_a_wrong_message_fails_lemma_1(monkeypatch: pytest.MonkeyPatch) -> None:
    by_messages = lemma_1.by_messages

    def wrong(tree: Any, *step: Any) -> Any:
        return by_messages(tree, *(step or [lambda message, partition: message.roll(1)]))

    monkeypatch.setattr(lemma_1, "by_messages", wrong)
    fails(lemma_1, "messages")


def test_a_program_that_draws_wrongly_fails_lemma_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program itself, not its description: log-probabilities without the weights of D."""
    from pscrub.law.drawing import Datum

    log_prob = Datum.log_prob

    def wrong(self: Datum, value: Tensor) -> Tensor:
        return (log_prob(self, value) > -torch.inf).double().log()

    monkeypatch.setattr(Datum, "log_prob", wrong)
    fails(lemma_1, "Pyro")


def test_wrong_equations_fail_theorem_2(monkeypatch: pytest.MonkeyPatch) -> None:
    constraints = theorem_2.list_constraints

    def wrong(*args: Any) -> maxent.Constraints:
        found = constraints(*args)
        keep = [i for i, node in enumerate(found.nodes) if node != found.nodes[-1]]
        if not keep:
            return found
        nodes = tuple(found.nodes[i] for i in keep)
        return maxent.Constraints(found.cut, found.cells, found.matrix[keep], found.rhs[keep], nodes, found.total)

    monkeypatch.setattr(theorem_2, "list_constraints", wrong)
    monkeypatch.setattr(theorem_2, "CONIC_CUTS", 0)
    fails(theorem_2, "certificate: log p", "Newton", "no move")


def test_a_wrong_solver_fails_theorem_2(monkeypatch: pytest.MonkeyPatch) -> None:
    newton = theorem_2.solve_newton

    def wrong(found: maxent.Constraints) -> maxent.Solution:
        p = newton(found).p
        return maxent.Solution(p + 1e-8 * (np.arange(len(p)) == 0), 0.0, 0.0, 0)

    monkeypatch.setattr(theorem_2, "solve_newton", wrong)
    monkeypatch.setattr(theorem_2, "CONIC_CUTS", 0)
    fails(theorem_2, "Newton")


def test_a_wrong_budget_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for claim, routes in (
        (fun_fact_3, ("H(leaves) in rationals, by the package", "the package's budget, by Newton")),
        (trace_entropy, ("H(all data) in rationals, by the package",)),
    ):
        budget = claim.entropy_budget
        monkeypatch.setattr(claim, "entropy_budget", lambda tree, budget=budget: budget(tree, bits=True))
        fails(claim, *routes)


def test_a_wrong_density_fails_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    log_prob = closed_form.log_prob
    monkeypatch.setattr(closed_form, "log_prob", lambda tree, rows: log_prob(tree, rows) + 1e-10)
    fails(closed_form, "the package's log_prob")


def test_an_own_datum_that_is_not_left_out_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """If leaving the row out leaves the law as it is, nothing of what is claimed about it is seen."""
    by_case = {id(tried.case): tried.law for tried in tries(10)}
    monkeypatch.setattr(own_datum.brute, "law", lambda case, kernels: by_case[id(case)])
    fails(own_datum, "D not uniform")


def test_the_table_and_the_exit_status(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert theory.main(["trace_entropy", "own_datum", "--cases", "18"]) == 0
    shown = capsys.readouterr()
    assert "Entropy of the trace" in shown.out and "all hold" in shown.out and "Lemma 1:" not in shown.out
    assert "own_datum: 18 of 18 cases" in shown.err
    budget = trace_entropy.entropy_budget
    monkeypatch.setattr(trace_entropy, "entropy_budget", lambda tree: budget(tree, bits=True))
    assert theory.main(["trace_entropy", "--cases", "18"]) == 1
    assert "not all hold: Entropy of the trace" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        theory.main(["lemma_9"])
    assert "no claim lemma_9; known: lemma_1" in capsys.readouterr().err


def test_without_a_conic_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is checked, holds, and the table says what was not run."""
    monkeypatch.setattr(theorem_2, "find_spec", lambda name: None)
    found = theorem_2.check(tries(4), 0)
    assert found.holds and all(route.checks for route in found.routes if not route.name.startswith("Clarabel"))
    assert any("Clarabel" in line and "not run" in line for line in table([found]).splitlines())


def test_what_the_table_says() -> None:
    fine, off, absent = Route("fine", 1e-12), Route("off", 1e-12), Route("absent", 1.0, note="no solver", needed=False)
    fine.see(0.0)
    off.see(float("nan"))
    caught, missed, blind = Fault("a", least=1), Fault("b", least=1), Fault("c", expected=False, note="why", least=1)
    for fault, seen in ((caught, True), (missed, False), (blind, False)):
        fault.see(seen)
    assert not Fault("never planted").holds and not Route("never run", 1.0).holds
    shown = table([Report("Claim", "says", 3, [fine, off, absent], [caught, missed, blind])])
    lines = {line.split()[0]: line for line in shown.splitlines()}
    assert "FAILS" in lines["off"] and "FAILS" not in lines["fine"] and "not run" in lines["absent"]
    assert [line.endswith("FAILS") for line in shown.splitlines() if "planted:" in line] == [False, True, False]
    assert "[1] no solver" in shown and "[2] why" in shown
