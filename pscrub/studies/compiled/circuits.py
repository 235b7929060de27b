"""Circuits: the edges that a compiled model has, those that its program says, and claims about any set of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from pscrub.hypothesis.claim import EXACT, Claim
from pscrub.studies.compiled.model import TOKENS, Component, Program

OUTPUT = "output"
"""The node that reads the answer's directions."""


class Edge(NamedTuple):
    """What a node reads of a variable.

    Args:
        reader: a node: part of a head ("sort.q"), a group of neurons, or the output.
        source: a node: what is embedded of the tokens, a head, a group of neurons.

    >>> str(Edge("sort.k", "target_pos"))
    'sort.k <- target_pos'
    """

    reader: str
    source: str

    def __str__(self) -> str:
        return f"{self.reader} <- {self.source}"


def name_parts(component: Component) -> dict[str, str]:
    """Returns part -> the node that reads for it: q, k and v of a head, or the neurons themselves."""
    if component.is_head:
        return {part: f"{component.name}.{part}" for part in ("q", "k", "v")}
    return {"in": component.name}


def list_edges(program: Program) -> tuple[Edge, ...]:
    """Returns every edge of the model, through the residual stream: each node from all that was written before it."""
    edges = []
    for component in program.components:
        for reader in name_parts(component).values():
            edges += [Edge(reader, source) for source in find_sources(program, component.stage)]
    return (*edges, *(Edge(OUTPUT, source) for source in find_sources(program)))


def list_true_edges(program: Program) -> tuple[Edge, ...]:
    """Returns the edges that the program says, in the model's order."""
    said = {Edge(OUTPUT, program.output)}
    for component in program.components:
        for part, reader in name_parts(component).items():
            said |= {Edge(reader, source) for source in component.reads[part]}
    return tuple(edge for edge in list_edges(program) if edge in said)


def find_sources(program: Program, stage: int | None = None) -> tuple[str, ...]:
    """Returns what was written to the residual stream before a stage; by default all that is."""
    return (TOKENS, *(each.name for each in program.components if stage is None or each.stage < stage))


def claim_circuit(program: Program, edges: Collection[Edge], feature: Callable[[str], Any]) -> Claim:
    """Returns the claim that the loss depends on the tokens through these edges alone; all others are unimportant.

    What no path of the edges leads to from the tokens is unimportant too. How long a sequence is, which every head is
    told by its mask, and the output by what it is to answer, is not an edge, and is claimed.

    Args:
        program: whose circuit.
        edges: of it.
        feature: variable, "kept" or "right" -> what is claimed at its nodes.
    """
    made: dict[str, Claim] = {TOKENS: Claim(TOKENS, feature(TOKENS), words=TOKENS)}
    length = Claim("kept", feature("kept"), words="length")

    def read(reader: str) -> list[Claim]:
        return [made[edge.source] for edge in edges if edge.reader == reader and edge.source in made]

    for component in program.components:
        read_by = {reader: read(reader) for reader in name_parts(component).values()}
        if component.is_head:
            parts = [Claim(reader, reads=reads) for reader, reads in read_by.items() if reads]
            reads = [*parts, length] if parts else []
        else:
            reads = read_by[component.name]
        if reads:
            name, variable = component.name, component.variable
            made[name] = Claim(name, feature(variable), reads, words=variable)
    last = read(OUTPUT)
    output = [Claim(OUTPUT, feature(program.output), last, words=program.output)] if last else []
    answer = Claim("answer", reads=[*output, length])
    return Claim("loss", reads=[Claim("right", feature("right"), words="right"), answer])


def claim_all_but(program: Program, edge: Edge, other: Any) -> Claim:
    """Returns the claim that everything but one edge matters: its reader reads that of another row, all else its own.

    Args:
        program: whose edge.
        edge: which.
        other: a feature that all rows agree on.
    """
    sources = [each.source for each in list_edges(program) if each.reader == edge.reader and each != edge]
    if sources:
        reader = Claim(edge.reader, reads=[Claim(source, EXACT) for source in sources])
    else:
        reader = Claim(edge.reader, other, words="nothing")
    return Claim("loss", reads=[reader], paths="any", rest=EXACT)
