"""What the theorems say of a study's hypotheses, checked on its own data; no behaviour is scrubbed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats

from pscrub.evaluate.purity import check_purity
from pscrub.graph.equal import RewriteCheck
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.hypothesis.study import Study
from pscrub.hypothesis.tree import Tree, unroll
from pscrub.law.constraints import MOST_CELLS, TooManyCells
from pscrub.law.drawing import draw
from pscrub.law.entropy import EntropyBudget, EntropyRow, entropy_budget
from pscrub.law.exact import LemmaRow, lemma_1, log_prob
from pscrub.law.maxent import Certificate, certificate
from pscrub.outcomes import Outcome
from pscrub.questions.goodness import (
    EntropyFromDraws,
    NodeTest,
    entropy_from_draws,
    goodness_of_fit,
    independence_given_output,
)
from pscrub.result.table import Table

DRAWS = 5_000
"""Default draws of a hypothesis whose law is too large for the certificate."""
FEWER = 2_000
"""Most of them that the tests of independence, the slowest, look at."""
SHOWN = 8
"""Leaves of one reader beyond which one line of the table sums them up."""
LEVEL = 0.01
"""Chance that a study without fault is faulted by draws at all."""
EXACT = 1e-10
"""What probabilities computed exactly may differ by, in float64."""
CERTAIN = 1e-8
"""What the certificate's logarithms may be off by, in nats: they are fitted by iteration."""


class Unchecked(Outcome):
    """What was not checked of a hypothesis, and why."""

    NO_DRAWS = "no draws", "draws: none were made"
    CERTIFIED = "certified, no draws", "draws: none were made, the law having been certified whole"
    TOO_LARGE = (
        "too large for a certificate",
        "Theorem 2's certificate: {rows:,} rows and {leaves} leaves leave more than {most:,} cells; the inputs' laws, "
        "their independence and the entropy were looked at by draws instead, which cannot prove anything",
    )


@dataclass(frozen=True)
class Verification:
    """What was checked of one hypothesis, and what was found.

    Args:
        hypothesis: its name; it was found well formed.
        rows: of D.
        leaves: n, copies of the input.
        lemma: Lemma 1 at every site, exactly.
        budget: the entropy of the scrubbed inputs and what each node keeps and loses, in bits.
        certificate: that the closed form's law is the one of maximum entropy (Theorem 2); None if there are too many
            cells, and then the rest is from draws.
        fit: Lemma 1 at every node, from draws.
        independence: of a node's inputs and the rest of a cut given its output, from draws.
        entropy: of the scrubbed inputs, from draws, in nats.
        draws: how many; 0 if none were needed.
        unchecked: what was not checked, and why.
        seconds: spent.
    """

    hypothesis: str
    rows: int
    leaves: int
    lemma: tuple[LemmaRow, ...]
    budget: EntropyBudget
    certificate: Certificate | None
    fit: tuple[NodeTest, ...]
    independence: tuple[NodeTest, ...]
    entropy: EntropyFromDraws | None
    draws: int
    unchecked: tuple[str, ...]
    seconds: float

    @property
    def lemma_error(self) -> float:
        """The largest error of Lemma 1, in probability."""
        return max(max(row.datum, row.inputs) for row in self.lemma)

    @property
    def p_values(self) -> dict[str, float]:
        """Check -> smallest p-value, adjusted for the nodes that it looked at."""
        if self.entropy is None:
            return {}
        found = self.entropy.estimate
        exact = self.budget.scrubbed * math.log(2)
        off = abs(found.value - exact)
        # A law that is uniform on its support has one value of -log p, and no standard error.
        p = (
            float(off <= 1e-9 * max(exact, 1))
            if found.se <= 1e-12 * exact
            else 2 * float(stats.t.sf(off / found.se, found.df))
        )
        return {
            "inputs": min((test.adjusted for test in self.fit), default=1.0),
            "independence": min((test.adjusted for test in self.independence), default=1.0),
            "entropy": p,
        }

    def table(self) -> Table:
        """The entropy budget: bits that come into each node, that it keeps, and that it loses."""
        cells = {row.path: row.cells for row in self.lemma}
        rows = []
        for name, group in _group_leaves(self.budget.rows):
            count = f"{max(cells[row.path] for row in group):,}"
            sums = [math.fsum(getattr(row, what) for row in group) for what in ("inputs", "output", "lost")]
            rows.append((name, count, *(f"{abs(value):.3f}" for value in sums)))
        return Table(("node", "inputs", "bits in", "kept", "lost"), tuple(rows), title=self.hypothesis)

    @property
    def below(self) -> tuple[str, ...]:
        """What was found, in words."""
        b = self.budget
        said = [
            f"well formed; {self.rows:,} rows, {self.leaves} leaves",
            f"Lemma 1, exactly: at {len(self.lemma)} sites, largest error {self.lemma_error:.1e}",
            f"entropy of the scrubbed inputs {b.scrubbed:.3f} bits = output {b.output:.3f} + lost "
            f"{b.scrubbed - b.output:.3f}; of all data drawn {b.trace:.3f}",
        ]
        if self.certificate is not None:
            c = self.certificate
            said.append(
                f"Theorem 2, certified: log p in the constraints' row space to {c.residual:.1e} nats, {c.cells:,} cells"
            )
        if self.entropy is not None:
            p, e, bit = self.p_values, self.entropy.estimate, math.log(2)
            said.append(
                f"{self.draws:,} draws: inputs of {len(self.fit)} nodes, smallest adjusted p {p['inputs']:.2g}; "
                f"independence at {len(self.independence)} nodes ({min(self.draws, FEWER):,} draws), "
                f"{p['independence']:.2g}; entropy {e.value / bit:.3f} bits [{e.low / bit:.3f}, {e.high / bit:.3f}]"
            )
        return (*said, *(f"not checked: {what}" for what in self.unchecked))


@dataclass(frozen=True)
class StudyVerification:
    """What was checked of a study.

    Args:
        study: its name.
        rewrites: how far each rewrite of a graph changed f on D.
        hypotheses: one each, in order.
        seed: of the draws.
    """

    study: str
    rewrites: tuple[RewriteCheck, ...]
    hypotheses: tuple[Verification, ...]
    seed: int

    @property
    def failures(self) -> tuple[str, ...]:
        """What must not be. By chance alone, draws put anything here with probability 1 % at most."""
        return tuple(self._failures())

    def _failures(self) -> Iterator[str]:
        checks = sum(len(each.p_values) for each in self.hypotheses)
        for each in self.hypotheses:
            name = each.hypothesis
            for row in each.lemma:
                if max(row.datum, row.inputs) > EXACT:
                    yield f"'{name}': Lemma 1 is off by {max(row.datum, row.inputs):.1e} at '{row.path}'"
            if each.certificate is not None and not each.certificate.holds(CERTAIN):
                yield f"'{name}': not the law of maximum entropy, by {each.certificate.residual:.1e} nats"
            for check, p in each.p_values.items():
                if p * checks <= LEVEL:
                    tests = {"inputs": each.fit, "independence": each.independence, "entropy": ()}[check]
                    nodes = ", ".join(f"'{test.path}'" for test in tests if test.adjusted * checks <= LEVEL)
                    at = nodes and f" at {nodes}"
                    yield f"'{name}': draws do not fit the {check} of the scrubbing law{at} (p {p:.1e})"


def verify(
    study: Study, draws: int = DRAWS, seed: int = 0, each: Callable[[Verification], None] | None = None
) -> StudyVerification:
    """What holds of each hypothesis: Lemma 1 and the entropy budget exactly, Theorem 2 as far as possible.

    The program's own tables are what Lemma 1 is computed from. f is run only to see that rewriting the graph kept it,
    and that its nodes are pure: a law says nothing of a graph whose rows interact.

    Args:
        study: the hypotheses.
        draws: of each hypothesis whose law is too large for Theorem 2's certificate.
        seed: names the draws.
        each: told of each hypothesis as soon as it is done.

    Raises:
        HypothesisError: with every fault of a hypothesis that is not well formed.
        GraphError: a rewrite changed f, or a node is not pure.
    """
    rewrites = study.check()
    for graph in dict.fromkeys(hypothesis.graph for hypothesis in study.hypotheses):
        check_purity(graph, study.hypotheses[0].data)
    found = []
    for hypothesis in study.hypotheses:
        found.append(verify_hypothesis(hypothesis, draws, seed))
        if each is not None:
            each(found[-1])
    return StudyVerification(study.name, rewrites, tuple(found), seed)


def verify_hypothesis(
    hypothesis: Hypothesis, draws: int = DRAWS, seed: int = 0, most: int = MOST_CELLS
) -> Verification:
    """What holds of one hypothesis. Its graph's rewrites are not looked at.

    Args:
        hypothesis: the hypothesis.
        draws: made if its law is too large for the certificate; 0 for none.
        seed: names the draws.
        most: cells up to which Theorem 2 is certified.

    Raises:
        HypothesisError: with every fault, if it is not well formed.
    """
    start = time.perf_counter()
    tree = unroll(hypothesis)
    lemma, budget = lemma_1(tree), entropy_budget(tree, bits=True)
    proof, unchecked = _certificate(tree, most)
    fit: tuple[NodeTest, ...] = ()
    independence: tuple[NodeTest, ...] = ()
    entropy: EntropyFromDraws | None = None
    if proof is not None or draws < 2:
        draws = 0
        unchecked += [(Unchecked.NO_DRAWS if proof is None else Unchecked.CERTIFIED).say()]
    else:
        data = draw(tree, draws, (seed,), stratified=False)
        some = {path: rows[:FEWER] for path, rows in data.items()}
        fit, independence = goodness_of_fit(tree, data), independence_given_output(tree, some, seed)
        entropy = entropy_from_draws(tree, data)
        unchecked += list(entropy.warnings)
    seconds = time.perf_counter() - start
    return Verification(
        hypothesis.name,
        hypothesis.data.n,
        len(tree.leaves),
        lemma,
        budget,
        proof,
        fit,
        independence,
        entropy,
        draws,
        tuple(unchecked),
        seconds,
    )


def _certificate(tree: Tree, most: int) -> tuple[Certificate | None, list[str]]:
    def law(columns: Any) -> Any:
        return log_prob(tree, torch.stack([torch.as_tensor(columns[path]) for path in tree.leaves], 1)).numpy()

    try:
        return certificate(tree.hypothesis, law, most=most), []
    except TooManyCells:
        n = len(tree.leaves)
        size = int((tree.hypothesis.data.weights > 0).sum())
        return None, [Unchecked.TOO_LARGE.say(rows=size, leaves=n, most=most)]


def _group_leaves(rows: tuple[EntropyRow, ...]) -> Iterator[tuple[str, list[EntropyRow]]]:
    """Each node's line of the table, leaves of one reader that are many taken together."""
    paths = [row.path for row in rows]
    readers = {path.rpartition("/")[0] for path in paths}
    groups: dict[str, list[EntropyRow]] = {}
    for row in rows:
        reader = row.path.rpartition("/")[0]
        leaf = row.path not in readers and not row.path.rpartition("/")[2].startswith("~")
        groups.setdefault(f"{reader}/*" if leaf and reader else row.path, []).append(row)
    for name, group in groups.items():
        if len(group) > SHOWN:
            yield f"{name} ({len(group)} leaves)", group
        else:
            yield from ((row.path, [row]) for row in group)
