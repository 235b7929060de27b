"""The hypotheses about a compiled program: its circuit, the circuit without each edge, all but each other edge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from pscrub.data.dataset import Dataset
from pscrub.graph.graph import Graph
from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.hypothesis.hypothesis import Hypothesis
from pscrub.studies.compiled.circuits import Edge, claim_all_but, claim_circuit, list_edges, list_true_edges
from pscrub.studies.compiled.graphs import build_graph, make_data
from pscrub.studies.compiled.model import TOKENS, Program

WITHOUT, ALL_BUT = "2 without ", "3 all but "
"""What the names of hypotheses begin with that leave out one edge: a true one of the circuit, another of the model."""


@dataclass(frozen=True)
class Ladder:
    """What all hypotheses are about.

    Args:
        program: the compiled program.
        seed: of what is random in controls.
    """

    program: Program
    seed: int = 0

    @cached_property
    def graph(self) -> Graph:
        """The model."""
        return build_graph(self.program)

    @cached_property
    def data(self) -> Dataset:
        """D."""
        return make_data(self.program)

    @cached_property
    def true(self) -> tuple[Edge, ...]:
        """The edges of the program."""
        return list_true_edges(self.program)

    @cached_property
    def others(self) -> tuple[Edge, ...]:
        """The edges of the model that the program does not say."""
        return tuple(edge for edge in list_edges(self.program) if edge not in self.true)

    @cached_property
    def random(self) -> tuple[Edge, ...]:
        """As many edges of the model as the program has, drawn without regard to it."""
        edges = list_edges(self.program)
        order = torch.randperm(len(edges), generator=self._generator())
        return tuple(edges[place] for place in sorted(order[: len(self.true)].tolist()))

    @cached_property
    def rewired(self) -> tuple[Edge, ...]:
        """The program's edges, each from another variable at random, where its reader has one that is not true."""
        generator, edges = self._generator(), []
        for edge in self.true:
            wrong = [each for each in self.others if each.reader == edge.reader]
            place = int(torch.randint(max(1, len(wrong)), (1,), generator=generator))
            edges.append(wrong[place] if wrong else edge)
        return tuple(dict.fromkeys(edges))

    def hypotheses(self) -> list[Hypothesis]:
        """The ladder, in the order of the table."""
        return [self._of(name, claim) for name, claim in self._claims()]

    def _claims(self) -> Iterator[tuple[str, Claim]]:
        yield "0a everything exact", Claim("loss", EXACT)
        yield "0b answer unimportant", Claim("loss", reads=[Claim("right", "right")])
        yield "1a the program, by values", self._by_values()
        yield "1b the program, by edges", self._by_edges(self.true)
        for edge in self.true:
            yield f"{WITHOUT}{edge}", self._by_edges([each for each in self.true if each != edge])
        nothing = torch.zeros(self.data.n, dtype=torch.int64)
        for edge in self.others:
            yield f"{ALL_BUT}{edge}", claim_all_but(self.program, edge, nothing)
        yield f"4a {len(self.random)} random edges", self._by_edges(self.random)
        yield "4b as 1b, each from another variable", self._by_edges(self.rewired)
        order = torch.randperm(self.data.n, generator=self._generator())
        yield "4c as 1a, values shuffled", self._by_values(order)

    def _by_edges(self, edges: tuple[Edge, ...] | list[Edge]) -> Claim:
        return claim_circuit(self.program, edges, lambda variable: EXACT)

    def _by_values(self, order: torch.Tensor | None = None) -> Claim:
        """The program's circuit, each variable swapped where its values agree; in an order, where other rows' do."""
        values: Mapping[str, Any] = self.program.values
        if order is not None:
            values = {variable: own[order] for variable, own in self.program.values.items()}
        given = {TOKENS: EXACT, "kept": "length", "right": "right"}
        return claim_circuit(self.program, self.true, lambda variable: given.get(variable, values.get(variable)))

    def _of(self, name: str, claim: Claim) -> Hypothesis:
        return Hypothesis(name, self.graph, self.data, claim)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)
